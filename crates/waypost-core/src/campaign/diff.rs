//! Compares two versions of a campaign, to find who changed a section or menu entry.

use serde::{Deserialize, Serialize};

use super::{Campaign, MenuEntry, Section};
use crate::normal_form::NormalForm;

/// Identifies a section or a menu entry.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CampaignNode {
    pub label: String,
    /// The keyword in normal form. `None` for the section itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub keyword: Option<String>,
}

impl CampaignNode {
    pub fn new(label: &str, keyword: Option<&str>) -> Self {
        Self { label: label.to_owned(), keyword: keyword.map(|keyword| NormalForm::from_text(keyword).into_text()) }
    }

    fn entry(section: &Section, entry: &MenuEntry) -> Self {
        Self::new(&section.label, Some(&entry.keyword.to_string()))
    }
}

/// Returns the nodes that were changed, added or removed.
pub fn diff(old: Option<&Campaign>, new: &Campaign) -> Vec<CampaignNode> {
    let (before, after) = (old.map(nodes).unwrap_or_default(), nodes(new));
    let changed = after.iter().filter(|entry| !before.contains(entry)).map(|(node, _)| node.clone());
    let is_removed = |node: &&CampaignNode| !after.iter().any(|(other, _)| other == *node);
    let removed = before.iter().map(|(node, _)| node).filter(is_removed).cloned();
    changed.chain(removed).collect()
}

/// Each node with its content. The content of a section does not include its menu.
fn nodes(campaign: &Campaign) -> Vec<(CampaignNode, NodeContent<'_>)> {
    let without_menu = |section: &'_ Section| Section { menu: Vec::new(), ..section.clone() };
    let sections = campaign.sections.iter();
    let sections = sections.flat_map(|section| {
        let own = (CampaignNode::new(&section.label, None), NodeContent::Section(Box::new(without_menu(section))));
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
    use crate::document::tests::example;

    #[test]
    fn changed_added_and_removed_nodes_are_returned() {
        let old = example();
        assert_eq!(diff(Some(&old), &old), []);
        assert_eq!(diff(None, &old).len(), 8);
        let mut new = old.clone();
        new.sections[0].menu[1].option = Some("Lottery".to_owned());
        new.sections[0].menu.remove(4);
        new.sections[1].label = "Prices".to_owned();
        let entry = |keyword| CampaignNode::new("Welcome Message", Some(keyword));
        let section = |label| CampaignNode::new(label, None);
        assert_eq!(diff(Some(&old), &new), [entry("2"), section("Prices"), entry("5"), section("Plans")]);
    }
}
