//! The place that the editor edits: a section or a menu entry, existing or new.

use axum::http::StatusCode;
use serde_json::{Value, json};
use waypost_core::campaign::diff::CampaignNode;
use waypost_core::campaign::{Campaign, MenuEntry, Section, WebhookPlace};
use waypost_core::event::Keyword;
use waypost_core::normal_form::NormalForm;

use super::form::{Form, percent_encode, with_query};
use crate::problem::Problem;

/// As in the query of the editor's URL: `?label=Plans&keyword=1`, `?label=Plans&new=entry`, `?new=section`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum EditTarget {
    NewSection,
    Section { label: String },
    NewEntry { label: String },
    Entry { label: String, keyword: String },
}

impl EditTarget {
    pub(super) fn from_query(query: &Form) -> Self {
        let label = query.get("label").to_owned();
        match query.get("new") {
            "section" => Self::NewSection,
            "entry" => Self::NewEntry { label },
            _ if query.has("keyword") => Self::Entry { label, keyword: query.get("keyword").to_owned() },
            _ => Self::Section { label },
        }
    }

    pub(super) fn new(section: &Section, entry: Option<&MenuEntry>) -> Self {
        let label = section.label.clone();
        match entry {
            None => Self::Section { label },
            Some(entry) => Self::Entry { label, keyword: entry.keyword.to_string() },
        }
    }

    /// The URL of the editor of this place.
    pub(super) fn editor_href(&self, campaign: &str) -> String {
        let path = format!("/campaigns/{}/edit", percent_encode(campaign));
        match self {
            Self::NewSection => with_query(&path, &[("new", "section")]),
            Self::Section { label } => with_query(&path, &[("label", label)]),
            Self::NewEntry { label } => with_query(&path, &[("label", label), ("new", "entry")]),
            Self::Entry { label, keyword } => with_query(&path, &[("label", label), ("keyword", keyword)]),
        }
    }

    /// For people: `Plans` or `Plans, entry 1`.
    pub(super) fn display_name(&self) -> String {
        match self {
            Self::Entry { label, keyword } => format!("{label}, entry {keyword}"),
            _ => self.label().to_owned(),
        }
    }

    /// The node under which the history records changes of this place.
    pub(super) fn campaign_node(&self) -> CampaignNode {
        let keyword = if let Self::Entry { keyword, .. } = self { Some(keyword.as_str()) } else { None };
        CampaignNode::new(self.label(), keyword)
    }

    /// Whether it is a section, not a menu entry.
    pub(super) fn is_section(&self) -> bool {
        matches!(self, Self::NewSection | Self::Section { .. })
    }

    /// Whether it does not exist yet.
    pub(super) fn is_new(&self) -> bool {
        matches!(self, Self::NewSection | Self::NewEntry { .. })
    }

    /// The label of the section, or of the section with the menu entry. Empty for a new section.
    pub(super) fn label(&self) -> &str {
        match self {
            Self::NewSection => "",
            Self::Section { label } | Self::NewEntry { label } | Self::Entry { label, .. } => label,
        }
    }

    /// The section, or the section with the menu entry.
    pub(super) fn section_in<'a>(&self, campaign: &'a Campaign) -> Option<&'a Section> {
        campaign.sections.iter().find(|section| section.label == self.label())
    }

    /// The menu entry. `None` for a section.
    pub(super) fn entry_in<'a>(&self, campaign: &'a Campaign) -> Option<&'a MenuEntry> {
        let Self::Entry { keyword, .. } = self else { return None };
        let menu = &self.section_in(campaign)?.menu;
        let keywords: Vec<_> = menu.iter().map(|entry| Some(entry.keyword.clone())).collect();
        menu.get(position_of(keyword, &keywords)?)
    }

    /// The place with its webhook. `None` if it has no webhook.
    pub(super) fn place_in<'a>(&self, campaign: &'a Campaign) -> Option<WebhookPlace<'a>> {
        let section = self.section_in(campaign)?;
        let entry = match self {
            Self::Entry { .. } => Some(self.entry_in(campaign)?),
            _ => None,
        };
        let webhook = entry.map_or(section.webhook.as_ref(), |entry| entry.webhook.as_ref())?;
        Some(WebhookPlace { section, entry, webhook })
    }

    /// The node in the document and its JSON path. A new node is appended.
    pub(super) fn node_in<'a>(&self, document: &'a mut Value) -> Option<(&'a mut Value, String)> {
        let (i, j) = self.indexes_in(document)?;
        let path = format!("$.sections[{i}]");
        let section = item(&mut document["sections"], i)?;
        match j {
            None => Some((section, path)),
            Some(j) => Some((item(&mut section["menu"], j)?, format!("{path}.menu[{j}]"))),
        }
    }

    /// Removes the place from the document. `None` if it is not there.
    pub(super) fn remove_from(&self, document: &mut Value) -> Option<()> {
        let (i, j) = self.indexes_in(document).filter(|_| !self.is_new())?;
        let list = match j {
            None => &mut document["sections"],
            Some(_) => &mut document["sections"][i]["menu"],
        };
        list.as_array_mut()?.remove(j.unwrap_or(i));
        Some(())
    }

    /// The index of the section, and the index in its menu. A new place gets the next free index.
    fn indexes_in(&self, document: &Value) -> Option<(usize, Option<usize>)> {
        let sections = document["sections"].as_array().map(Vec::as_slice).unwrap_or_default();
        if *self == Self::NewSection {
            return Some((sections.len(), None));
        }
        let i = sections.iter().position(|section| section["label"] == self.label())?;
        let menu = sections[i]["menu"].as_array().map(Vec::as_slice).unwrap_or_default();
        match self {
            Self::Entry { keyword, .. } => {
                let keywords: Vec<_> = menu.iter().map(|entry| Keyword::from_json(&entry["keyword"])).collect();
                position_of(keyword, &keywords).map(|j| (i, Some(j)))
            }
            Self::NewEntry { .. } => Some((i, Some(menu.len()))),
            Self::NewSection | Self::Section { .. } => Some((i, None)),
        }
    }
}

/// The index of a keyword in a menu. An exact match wins over a match in normal form, because old menus may have
/// several keywords with the same normal form.
fn position_of(named: &str, keywords: &[Option<Keyword>]) -> Option<usize> {
    let find = |is_match: &dyn Fn(&Keyword) -> bool| {
        keywords.iter().position(|keyword| keyword.as_ref().is_some_and(is_match))
    };
    let form = NormalForm::from_text(named);
    find(&|keyword| keyword.to_string() == named).or_else(|| find(&|keyword| keyword.normal_form() == form))
}

pub(super) fn no_such_place() -> Problem {
    Problem::new(
        StatusCode::NOT_FOUND,
        "The campaign has no such section or menu entry. It may have been renamed or deleted.",
    )
}

/// The item of an array. If `index` is the next one, an empty object is appended.
fn item(node: &mut Value, index: usize) -> Option<&mut Value> {
    if node.is_null() {
        *node = json!([]);
    }
    let items = node.as_array_mut()?;
    if index == items.len() {
        items.push(json!({}));
    }
    items.get_mut(index)
}

#[cfg(test)]
mod tests {
    use waypost_core::document::{EXAMPLE, read};
    use waypost_core::egress::HttpUrls;

    use super::*;

    #[test]
    fn an_exact_keyword_wins_over_one_with_the_same_normal_form() {
        let keywords: Vec<_> =
            [json!(1.0), json!("１"), json!("Yes"), json!(null)].iter().map(Keyword::from_json).collect();
        for (named, expected) in [("1", Some(0)), ("1.0", Some(0)), ("１", Some(1)), (" yes", Some(2)), ("no", None)] {
            assert_eq!(position_of(named, &keywords), expected, "{named}");
        }
    }

    #[test]
    fn a_target_survives_the_round_trip_through_its_url() {
        let (label, keyword) = ("A & B/ü?".to_owned(), "1 +".to_owned());
        for target in [
            EditTarget::NewSection,
            EditTarget::Section { label: label.clone() },
            EditTarget::NewEntry { label: label.clone() },
            EditTarget::Entry { label, keyword },
        ] {
            let href = target.editor_href("a/b c");
            let (path, query) = href.split_once('?').expect("a query");
            assert_eq!(path, "/campaigns/a%2Fb%20c/edit");
            assert_eq!(EditTarget::from_query(&Form::parse(query.as_bytes())), target, "{href}");
        }
    }

    #[test]
    fn a_place_is_removed_from_the_document() {
        let mut document =
            serde_json::to_value(read(EXAMPLE.as_bytes(), HttpUrls::Refused, None).expect("a campaign")).expect("JSON");
        let entry = EditTarget::Entry { label: "Welcome Message".to_owned(), keyword: "3".to_owned() };
        assert_eq!(entry.remove_from(&mut document), Some(()));
        assert_eq!(entry.remove_from(&mut document), None, "already removed");
        assert_eq!(document["sections"][0]["menu"].as_array().map(Vec::len), Some(4));
        let section = EditTarget::Section { label: "Plans".to_owned() };
        assert_eq!(section.remove_from(&mut document), Some(()));
        assert_eq!(document["sections"][1]["label"], "Offers");
        assert_eq!(EditTarget::NewSection.remove_from(&mut document), None);
    }
}
