//! A campaign as nodes and arrows, in the order of its document.

use std::collections::BTreeMap;

use crate::delivery::campaign::{Campaign, MenuEntry, Redirect, RedirectKind, SectionKind, Webhook, WebhookKind};
use crate::delivery::ids::WebhookId;

/// A campaign as nodes and arrows.
#[derive(Debug, Clone, PartialEq)]
pub struct Graph {
    /// The campaign's id.
    pub id: String,
    /// Its name, for people.
    pub name: Option<String>,
    /// The sections first, in the document's order; then what else their arrows lead to.
    pub nodes: Vec<Node>,
    /// In the order of the document; of one row the redirect comes before the webhook under it.
    pub arrows: Vec<Arrow>,
}

/// What is drawn by itself.
#[derive(Debug, Clone, PartialEq)]
pub enum Node {
    /// A section of the campaign, with its menu.
    Section(SectionNode),
    /// A webhook at its place: two with the same URL are two nodes.
    Webhook(WebhookNode),
    /// Another campaign, by the name redirects have for it: one node, whoever leads there.
    Campaign(String),
    /// Where a redirect leads that leads nowhere.
    Missing(DanglingTarget),
}

/// A section.
#[derive(Debug, Clone, PartialEq)]
pub struct SectionNode {
    /// Its label.
    pub label: String,
    /// The Welcome Message, or an interaction.
    pub kind: SectionKind,
    /// What the user is shown.
    pub message: Option<String>,
    /// Whether the user can come here.
    pub reach: Reach,
    /// What arrows go out of, from top to bottom.
    pub rows: Vec<EntryNode>,
}

/// Whether interactions lead from the Welcome Message to a section.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reach {
    /// They do, or there is no Welcome Message to begin from.
    Reached,
    /// They don't.
    Unreached,
}

/// A line of a section.
#[derive(Debug, Clone, PartialEq)]
pub enum EntryNode {
    /// The section's own redirect and webhook. There is none where it has neither.
    Own,
    /// A menu entry.
    Entry {
        /// What the user types.
        keyword: String,
        /// The menu text.
        option: Option<String>,
    },
}

/// A webhook.
#[derive(Debug, Clone, PartialEq)]
pub struct WebhookNode {
    /// Its id.
    pub id: WebhookId,
    /// Its URL, as it was written.
    pub url: String,
    /// How it stands to the redirect beside it.
    pub kind: WebhookKind,
    /// Whether it fires.
    pub state: HookState,
}

/// Whether a webhook fires.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HookState {
    /// It does.
    Enabled,
    /// It is disabled in the document.
    Disabled,
}

/// What a redirect names that is not there. A document that was checked has none of these.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum DanglingTarget {
    /// No section has this label.
    Section(String),
    /// An interaction or a campaign, and it does not say which.
    Name,
    /// The webhook that it is.
    Webhook,
}

/// An arrow of a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Arrow {
    /// The section it comes from, among the nodes.
    pub from: usize,
    /// Which of its rows.
    pub row: usize,
    /// The node it leads to.
    pub to: usize,
    /// What it is.
    pub kind: ArrowKind,
}

/// What an arrow is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ArrowKind {
    /// A redirect to an interaction: blue.
    Interaction,
    /// A redirect to another campaign: red.
    Campaign,
    /// To a webhook: black.
    Webhook(WebhookKind),
}

/// The nodes and arrows of a campaign.
pub fn graph(campaign: &Campaign) -> Graph {
    let mut drawn = Graph {
        id: campaign.id.clone(),
        name: campaign.name.clone(),
        nodes: campaign.sections.iter().map(|section| Node::Section(SectionNode::of_section(section))).collect(),
        arrows: Vec::new(),
    };
    let labels = (0..).zip(&campaign.sections).map(|(at, section)| (section.label.as_str(), at)).collect();
    let mut targets = Targets { labels, campaigns: BTreeMap::new(), missing: BTreeMap::new() };
    for (from, section) in campaign.sections.iter().enumerate() {
        let own = Outgoing { redirect: section.redirect.as_ref(), webhook: section.webhook.as_deref() };
        let own = own.is_any().then_some(own);
        for (row, outgoing) in own.into_iter().chain(section.menu.iter().map(Outgoing::from_entry)).enumerate() {
            drawn.draw(from, row, outgoing, &mut targets);
        }
    }
    drawn.mark_unreached();
    drawn
}

/// What a row leads to.
struct Outgoing<'a> {
    redirect: Option<&'a Redirect>,
    webhook: Option<&'a Webhook>,
}

impl<'a> Outgoing<'a> {
    fn from_entry(entry: &'a MenuEntry) -> Self {
        Self { redirect: entry.redirect.as_ref(), webhook: entry.webhook.as_deref() }
    }

    fn is_any(&self) -> bool {
        self.redirect.is_some() || self.webhook.is_some()
    }
}

/// The nodes that more than one redirect can lead to.
struct Targets<'a> {
    labels: BTreeMap<&'a str, usize>,
    campaigns: BTreeMap<&'a str, usize>,
    missing: BTreeMap<DanglingTarget, usize>,
}

impl SectionNode {
    fn of_section(section: &crate::delivery::campaign::Section) -> Self {
        let own = (section.redirect.is_some() || section.webhook.is_some()).then_some(EntryNode::Own);
        let entries = section
            .menu
            .iter()
            .map(|entry| EntryNode::Entry { keyword: entry.keyword.to_string(), option: entry.option.clone() });
        Self {
            label: section.label.clone(),
            kind: section.kind,
            message: section.message.clone(),
            reach: Reach::Reached,
            rows: own.into_iter().chain(entries).collect(),
        }
    }
}

impl Graph {
    /// The section at this place among the nodes.
    pub fn card(&self, node: usize) -> Option<&SectionNode> {
        match self.nodes.get(node) {
            Some(Node::Section(card)) => Some(card),
            _ => None,
        }
    }

    /// The sections, in the order of the document; their places among the nodes are 0, 1, ….
    pub fn cards(&self) -> impl Iterator<Item = &SectionNode> {
        self.nodes.iter().map_while(|node| match node {
            Node::Section(card) => Some(card),
            _ => None,
        })
    }

    fn draw<'a>(&mut self, from: usize, row: usize, outgoing: Outgoing<'a>, targets: &mut Targets<'a>) {
        let redirect = outgoing.redirect.map(|redirect| (redirect.kind, redirect.to.as_deref()));
        let arrow = match redirect {
            None => None,
            Some((RedirectKind::Interaction, to)) => Some((self.section(to, targets), ArrowKind::Interaction)),
            Some((RedirectKind::Campaign, to)) => Some((self.campaign(to, targets), ArrowKind::Campaign)),
            // The webhook beside it draws the arrow.
            Some((RedirectKind::Webhook, _)) if outgoing.webhook.is_some() => None,
            Some((RedirectKind::Webhook, _)) => {
                Some((self.missing(DanglingTarget::Webhook, targets), ArrowKind::Webhook(WebhookKind::Redirect)))
            }
        };
        let hook = outgoing.webhook.map(|webhook| WebhookNode {
            id: webhook.id.clone(),
            url: webhook.url.as_str().to_owned(),
            kind: WebhookKind::beside(outgoing.redirect),
            state: if webhook.enabled { HookState::Enabled } else { HookState::Disabled },
        });
        let under = hook.map(|hook| {
            let kind = ArrowKind::Webhook(hook.kind);
            (self.add(Node::Webhook(hook)), kind)
        });
        let arrows = [arrow, under].into_iter().flatten();
        self.arrows.extend(arrows.map(|(to, kind)| Arrow { from, row, to, kind }));
    }

    fn section<'a>(&mut self, to: Option<&'a str>, targets: &mut Targets<'a>) -> usize {
        match to.map(|label| (label, targets.labels.get(label))) {
            Some((_, Some(section))) => *section,
            Some((label, None)) => self.missing(DanglingTarget::Section(label.to_owned()), targets),
            None => self.missing(DanglingTarget::Name, targets),
        }
    }

    fn campaign<'a>(&mut self, to: Option<&'a str>, targets: &mut Targets<'a>) -> usize {
        match to {
            Some(name) => *targets.campaigns.entry(name).or_insert_with(|| self.add(Node::Campaign(name.to_owned()))),
            None => self.missing(DanglingTarget::Name, targets),
        }
    }

    fn missing(&mut self, missing: DanglingTarget, targets: &mut Targets<'_>) -> usize {
        *targets.missing.entry(missing.clone()).or_insert_with(|| self.add(Node::Missing(missing)))
    }

    fn add(&mut self, node: Node) -> usize {
        self.nodes.push(node);
        self.nodes.len() - 1
    }

    fn mark_unreached(&mut self) {
        let mut unreached: Vec<bool> = self.cards().map(|_| true).collect();
        let Some(first) = self.cards().position(|card| card.kind == SectionKind::WelcomeMessage) else { return };
        let mut leads_to = vec![Vec::new(); unreached.len()];
        for arrow in self.arrows.iter().filter(|arrow| arrow.to < unreached.len()) {
            leads_to[arrow.from].push(arrow.to);
        }
        let mut next = vec![first];
        while let Some(section) = next.pop() {
            if std::mem::replace(&mut unreached[section], false) {
                next.extend(&leads_to[section]);
            }
        }
        for (node, unreached) in self.nodes.iter_mut().zip(unreached) {
            if let (Node::Section(card), true) = (node, unreached) {
                card.reach = Reach::Unreached;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::delivery::document::tests::example;

    /// What arrows lead to, in words.
    fn told(graph: &Graph) -> Vec<String> {
        let arrows = graph.arrows.iter().map(|arrow| {
            let card = graph.card(arrow.from).expect("arrows come from sections");
            let row = match &card.rows[arrow.row] {
                EntryNode::Own => "own".to_owned(),
                EntryNode::Entry { keyword, .. } => keyword.clone(),
            };
            let to = match &graph.nodes[arrow.to] {
                Node::Section(card) => card.label.clone(),
                Node::Webhook(hook) => hook.url.clone(),
                Node::Campaign(name) => name.clone(),
                Node::Missing(missing) => format!("{missing:?}"),
            };
            format!("{} {row}: {:?} {to}", card.label, arrow.kind)
        });
        arrows.collect()
    }

    /// Options 1 and 4 stay in the campaign (blue), 2 and 5 lead to others (red), 3 is a webhook, 4 and 5 have one under
    /// them (black).
    #[test]
    fn the_five_entries_of_the_documentation() {
        let graph = graph(&example());
        let arrows = told(&graph);
        let of_the_menu = [
            "Welcome Message 1: Interaction Plans",
            "Welcome Message 2: Campaign raffle-giveaway",
            "Welcome Message 3: Webhook(Redirect) https://example.com/hooks/agent",
            "Welcome Message 4: Interaction Offers",
            "Welcome Message 4: Webhook(Underlying) https://example.com/hooks/offers",
            "Welcome Message 5: Campaign web-polls",
            "Welcome Message 5: Webhook(Underlying) https://example.com/hooks/survey",
        ];
        let menu: Vec<&String> = arrows.iter().filter(|arrow| arrow.starts_with("Welcome Message")).collect();
        assert_eq!(menu, of_the_menu);
        assert!(
            arrows.contains(&"Offers own: Webhook(Redirect) https://example.com/hooks/name".to_owned()),
            "{arrows:?}"
        );
        assert!(graph.cards().all(|card| card.reach == Reach::Reached));
    }

    fn campaign(sections: serde_json::Value) -> Campaign {
        serde_json::from_value(serde_json::json!({ "id": "c", "sections": sections })).expect("a campaign")
    }

    #[test]
    fn one_node_for_each_campaign_and_each_missing_section() {
        let to = |kind: &str, to: &str| serde_json::json!({ "type": kind, "to": to });
        let drawn = graph(&campaign(serde_json::json!([
            { "label": "A", "kind": "welcomeMessage", "redirect": to("campaign", "B"), "menu": [
                { "keyword": 1, "redirect": to("campaign", "B") },
                { "keyword": 2, "redirect": to("interaction", "gone") },
                { "keyword": 3, "redirect": to("interaction", "gone") },
                { "keyword": 4, "redirect": { "type": "webhook" } },
                { "keyword": 5, "redirect": { "type": "interaction" } } ] } ])));
        assert_eq!(
            drawn.nodes[1..],
            [
                Node::Campaign("B".to_owned()),
                Node::Missing(DanglingTarget::Section("gone".to_owned())),
                Node::Missing(DanglingTarget::Webhook),
                Node::Missing(DanglingTarget::Name),
            ]
        );
        assert_eq!(drawn.arrows.iter().map(|arrow| arrow.to).collect::<Vec<_>>(), [1, 1, 2, 2, 3, 4]);
    }

    #[test]
    fn what_no_interaction_leads_to_is_unreached() {
        let reach = |first: &str| {
            let drawn = graph(&campaign(serde_json::json!([
                { "label": "A", "kind": first, "redirect": { "type": "interaction", "to": "B" } },
                { "label": "B", "kind": "interaction", "redirect": { "type": "interaction", "to": "A" } },
                { "label": "C", "kind": "interaction", "redirect": { "type": "interaction", "to": "B" } } ])));
            drawn.cards().map(|card| card.reach).collect::<Vec<_>>()
        };
        assert_eq!(reach("welcomeMessage"), [Reach::Reached, Reach::Reached, Reach::Unreached]);
        assert_eq!(reach("interaction"), [Reach::Reached; 3]);
    }
}
