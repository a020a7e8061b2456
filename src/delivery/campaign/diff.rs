//! Which places of a campaign a change has touched, for who wants to know who it was.

use serde::{Deserialize, Serialize};

use super::super::normal_form::NormalForm;
use super::{Campaign, MenuEntry, Section};

/// A section, or an entry of its menu, by what people call it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CampaignNode {
    /// The section's label.
    pub label: String,
    /// The entry's keyword, as keywords are compared.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub keyword: Option<String>,
}

impl CampaignNode {
    /// The entry with this keyword of the menu of a section; without one the section itself.
    pub fn new(label: &str, keyword: Option<&str>) -> Self {
        Self { label: label.to_owned(), keyword: keyword.map(|keyword| NormalForm::of_text(keyword).into_text()) }
    }

    fn entry(section: &Section, entry: &MenuEntry) -> Self {
        Self::new(&section.label, Some(&entry.keyword.to_string()))
    }
}

/// The places that are not the same in both, or in one only.
pub fn between(old: Option<&Campaign>, new: &Campaign) -> Vec<CampaignNode> {
    let (before, after) = (old.map(places).unwrap_or_default(), places(new));
    let changed = after.iter().filter(|place| !before.contains(place)).map(|(edited, _)| edited.clone());
    let mut edited: Vec<CampaignNode> = changed.collect();
    let is_gone = |place: &&CampaignNode| !after.iter().any(|(edited, _)| edited == *place);
    let gone = before.iter().map(|(edited, _)| edited).filter(is_gone);
    edited.extend(gone.cloned().collect::<Vec<_>>());
    edited
}

/// Each place with what is said of it, and of nothing below it.
fn places(campaign: &Campaign) -> Vec<(CampaignNode, NodeContent<'_>)> {
    let of_section = |section: &'_ Section| Section { menu: Vec::new(), ..section.clone() };
    let sections = campaign.sections.iter();
    let sections = sections.flat_map(|section| {
        let own = (CampaignNode::new(&section.label, None), NodeContent::Section(Box::new(of_section(section))));
        let entries = section.menu.iter().map(|entry| (CampaignNode::entry(section, entry), NodeContent::Entry(entry)));
        std::iter::once(own).chain(entries).collect::<Vec<_>>()
    });
    sections.collect()
}

#[derive(PartialEq)]
enum NodeContent<'a> {
    Section(Box<Section>),
    Entry(&'a MenuEntry),
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::delivery::document::tests::example;

    #[test]
    fn what_was_touched() {
        let old = example();
        assert_eq!(between(Some(&old), &old), []);
        assert_eq!(between(None, &old).len(), 8);
        let mut new = old.clone();
        new.sections[0].menu[1].option = Some("Lottery".to_owned());
        new.sections[0].menu.remove(4);
        new.sections[1].label = "Prices".to_owned();
        let entry = |keyword| CampaignNode::new("Welcome Message", Some(keyword));
        let section = |label| CampaignNode::new(label, None);
        assert_eq!(between(Some(&old), &new), [entry("2"), section("Prices"), entry("5"), section("Plans")]);
    }
}
