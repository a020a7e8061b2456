//! Which place of a campaign is edited: a section or an entry of its menu, there already or new.

use serde_json::{Value, json};

use super::super::form::{Form, address, escaped};
use crate::delivery::campaign::diff::CampaignNode;
use crate::delivery::campaign::{Campaign, MenuEntry, Section, WebhookPlace};
use crate::delivery::event::Keyword;
use crate::delivery::normal_form::NormalForm;

/// A place that can be edited, as its address names it: `?label=Plans&keyword=1`, `?label=Plans&new=entry`, `?new=section`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in super::super) enum EditTarget {
    NewSection,
    Section { label: String },
    NewEntry { label: String },
    Entry { label: String, keyword: String },
}

impl EditTarget {
    /// The spot that an address names.
    pub(in super::super) fn of_query(query: &Form) -> Self {
        let label = query.get("label").to_owned();
        match query.get("new") {
            "section" => Self::NewSection,
            "entry" => Self::NewEntry { label },
            _ if query.has("keyword") => Self::Entry { label, keyword: query.get("keyword").to_owned() },
            _ => Self::Section { label },
        }
    }

    /// The spot of a place with a webhook.
    pub(in super::super) fn new(section: &Section, entry: Option<&MenuEntry>) -> Self {
        let label = section.label.clone();
        match entry {
            None => Self::Section { label },
            Some(entry) => Self::Entry { label, keyword: entry.keyword.to_string() },
        }
    }

    /// The address of its editor.
    pub(in super::super) fn address(&self, campaign: &str) -> String {
        let path = format!("/campaigns/{}/edit", escaped(campaign));
        match self {
            Self::NewSection => address(&path, &[("new", "section")]),
            Self::Section { label } => address(&path, &[("label", label)]),
            Self::NewEntry { label } => address(&path, &[("label", label), ("new", "entry")]),
            Self::Entry { label, keyword } => address(&path, &[("label", label), ("keyword", keyword)]),
        }
    }

    /// What people call it.
    pub(in super::super) fn in_words(&self) -> String {
        match self {
            Self::Entry { label, keyword } => format!("{label}, entry {keyword}"),
            _ => self.label().to_owned(),
        }
    }

    /// What changes of it are remembered by.
    pub(super) fn edited(&self) -> CampaignNode {
        let keyword = if let Self::Entry { keyword, .. } = self { Some(keyword.as_str()) } else { None };
        CampaignNode::new(self.label(), keyword)
    }

    /// Whether it is of a section, and not of a menu.
    pub(super) fn is_section(&self) -> bool {
        matches!(self, Self::NewSection | Self::Section { .. })
    }

    /// Whether it is yet to be added.
    pub(super) fn is_new(&self) -> bool {
        matches!(self, Self::NewSection | Self::NewEntry { .. })
    }

    /// The label of the section that has the menu.
    pub(super) fn label(&self) -> &str {
        match self {
            Self::NewSection => "",
            Self::Section { label } | Self::NewEntry { label } | Self::Entry { label, .. } => label,
        }
    }

    /// The section it is, or is in.
    pub(super) fn section_in<'a>(&self, campaign: &'a Campaign) -> Option<&'a Section> {
        campaign.sections.iter().find(|section| section.label == self.label())
    }

    /// The menu entry it is.
    pub(super) fn entry_in<'a>(&self, campaign: &'a Campaign) -> Option<&'a MenuEntry> {
        let Self::Entry { keyword, .. } = self else { return None };
        let menu = &self.section_in(campaign)?.menu;
        let keywords: Vec<_> = menu.iter().map(|entry| Some(entry.keyword.clone())).collect();
        menu.get(position_of(keyword, &keywords)?)
    }

    /// The place with its webhook, of the campaign as it has become.
    pub(super) fn place_in<'a>(&self, campaign: &'a Campaign) -> Option<WebhookPlace<'a>> {
        let section = self.section_in(campaign)?;
        let entry = match self {
            Self::Entry { .. } => Some(self.entry_in(campaign)?),
            _ => None,
        };
        let webhook = entry.map_or(section.webhook.as_ref(), |entry| entry.webhook.as_ref())?;
        Some(WebhookPlace { section, entry, webhook })
    }

    /// The node of a document at the spot, added where it is new, and its path.
    pub(super) fn node_in<'a>(&self, document: &'a mut Value) -> Option<(&'a mut Value, String)> {
        let (i, j) = self.indexes_in(document)?;
        let path = format!("$.sections[{i}]");
        let section = item(&mut document["sections"], i)?;
        match j {
            None => Some((section, path)),
            Some(j) => Some((item(&mut section["menu"], j)?, format!("{path}.menu[{j}]"))),
        }
    }

    /// Takes the place out of a document.
    pub(in super::super) fn remove_from(&self, document: &mut Value) -> Option<()> {
        let (i, j) = self.indexes_in(document).filter(|_| !self.is_new())?;
        let list = match j {
            None => &mut document["sections"],
            Some(_) => &mut document["sections"][i]["menu"],
        };
        list.as_array_mut()?.remove(j.unwrap_or(i));
        Some(())
    }

    /// The index of the section, and that in its menu; the next ones where they are new.
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

/// Which of a menu's keywords an address names: the one that is written so, else the one that is the same. A menu from
/// before there were normal forms may have two that are.
fn position_of(named: &str, keywords: &[Option<Keyword>]) -> Option<usize> {
    let find = |is_it: &dyn Fn(&Keyword) -> bool| keywords.iter().position(|own| own.as_ref().is_some_and(is_it));
    let form = NormalForm::of_text(named);
    find(&|own| own.to_string() == named).or_else(|| find(&|own| own.normal_form() == form))
}

/// Text as it is, anything else as its JSON.
pub(super) fn as_text(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

/// An item of the array at a node; the next one is added.
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
    use super::*;
    use crate::delivery::document::tests::example;

    #[test]
    fn of_keywords_that_are_the_same_an_address_names_the_one_that_is_written_so() {
        let keywords: Vec<_> =
            [json!(1.0), json!("１"), json!("Yes"), json!(null)].iter().map(Keyword::from_json).collect();
        for (named, expected) in [("1", Some(0)), ("1.0", Some(0)), ("１", Some(1)), (" yes", Some(2)), ("no", None)] {
            assert_eq!(position_of(named, &keywords), expected, "{named}");
        }
    }

    #[test]
    fn an_address_leads_back_to_its_spot() {
        let (label, keyword) = ("A & B/ü?".to_owned(), "1 +".to_owned());
        for spot in [
            EditTarget::NewSection,
            EditTarget::Section { label: label.clone() },
            EditTarget::NewEntry { label: label.clone() },
            EditTarget::Entry { label, keyword },
        ] {
            let address = spot.address("a/b c");
            let (path, query) = address.split_once('?').expect("a query");
            assert_eq!(path, "/campaigns/a%2Fb%20c/edit");
            assert_eq!(EditTarget::of_query(&Form::read(query.as_bytes())), spot, "{address}");
        }
    }

    #[test]
    fn a_place_is_taken_out() {
        let mut document = serde_json::to_value(example()).expect("JSON");
        let entry = EditTarget::Entry { label: "Welcome Message".to_owned(), keyword: "3".to_owned() };
        assert_eq!(entry.remove_from(&mut document), Some(()));
        assert_eq!(entry.remove_from(&mut document), None, "it is gone");
        assert_eq!(document["sections"][0]["menu"].as_array().map(Vec::len), Some(4));
        let section = EditTarget::Section { label: "Plans".to_owned() };
        assert_eq!(section.remove_from(&mut document), Some(()));
        assert_eq!(document["sections"][1]["label"], "Offers");
        assert_eq!(EditTarget::NewSection.remove_from(&mut document), None);
    }
}
