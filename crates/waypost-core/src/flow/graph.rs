//! The graph of a campaign: nodes and arrows, in the order of the document.

use std::collections::BTreeMap;

use crate::campaign::{Campaign, MenuEntry, Redirect, RedirectKind, SectionKind, Webhook, WebhookKind};
use crate::ids::WebhookId;

#[derive(Debug, Clone, PartialEq)]
pub struct Graph {
    pub id: String,
    pub name: Option<String>,
    /// All sections first, in the document's order. Then the other targets of arrows.
    pub nodes: Vec<GraphNode>,
    /// In the order of the document. Within a row, the redirect comes before the underlying webhook.
    pub arrows: Vec<Arrow>,
}

#[derive(Debug, Clone, PartialEq)]
pub enum GraphNode {
    Section(SectionNode),
    /// Two webhooks with the same URL are two nodes.
    Webhook(WebhookNode),
    /// Another campaign, as redirects name it. All redirects to it share the node.
    Campaign(String),
    /// The target of a redirect that leads nowhere.
    Missing(DanglingTarget),
}

#[derive(Debug, Clone, PartialEq)]
pub struct SectionNode {
    pub label: String,
    pub kind: SectionKind,
    pub message: Option<String>,
    pub reach: Reach,
    /// Arrows start at rows. From top to bottom.
    pub rows: Vec<GraphRow>,
}

/// Tells if redirects lead from the Welcome Message to a section.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reach {
    /// Also if the campaign has no Welcome Message.
    Reached,
    Unreached,
}

/// A row of a section.
#[derive(Debug, Clone, PartialEq)]
pub enum GraphRow {
    /// The section's own redirect and webhook. Absent if the section has neither.
    Own,
    Entry {
        keyword: String,
        /// The menu text.
        option: Option<String>,
    },
}

#[derive(Debug, Clone, PartialEq)]
pub struct WebhookNode {
    pub id: WebhookId,
    pub url: String,
    pub kind: WebhookKind,
    pub state: WebhookState,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WebhookState {
    Enabled,
    Disabled,
}

/// A redirect target that does not exist. Checked documents have none.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum DanglingTarget {
    /// No section has this label.
    Section(String),
    /// The redirect to an interaction or a campaign has no `to`.
    Unnamed,
    /// The redirect is a webhook, but there is no webhook beside it.
    Webhook,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Arrow {
    /// Index of the section in [`Graph::nodes`].
    pub from: usize,
    /// Index of the row in the section.
    pub row: usize,
    /// Index of the target in [`Graph::nodes`].
    pub to: usize,
    pub kind: ArrowKind,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ArrowKind {
    /// Blue.
    Interaction,
    /// Red.
    Campaign,
    /// Black.
    Webhook(WebhookKind),
}

/// Builds the graph of a campaign.
pub fn graph(campaign: &Campaign) -> Graph {
    let mut graph = Graph {
        id: campaign.id.clone(),
        name: campaign.name.clone(),
        nodes: campaign.sections.iter().map(|section| GraphNode::Section(SectionNode::from_section(section))).collect(),
        arrows: Vec::new(),
    };
    let labels = (0..).zip(&campaign.sections).map(|(index, section)| (section.label.as_str(), index)).collect();
    let mut targets = Targets { labels, campaigns: BTreeMap::new(), missing: BTreeMap::new() };
    for (from, section) in campaign.sections.iter().enumerate() {
        let own = Outgoing { redirect: section.redirect.as_ref(), webhook: section.webhook.as_deref() };
        let own = own.is_any().then_some(own);
        for (row, outgoing) in own.into_iter().chain(section.menu.iter().map(Outgoing::from_entry)).enumerate() {
            graph.add_outgoing(from, row, outgoing, &mut targets);
        }
    }
    graph.mark_unreached();
    graph
}

/// The targets of a row.
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

/// Index of each node that several redirects can share.
struct Targets<'a> {
    labels: BTreeMap<&'a str, usize>,
    campaigns: BTreeMap<&'a str, usize>,
    missing: BTreeMap<DanglingTarget, usize>,
}

impl SectionNode {
    fn from_section(section: &crate::campaign::Section) -> Self {
        let own = (section.redirect.is_some() || section.webhook.is_some()).then_some(GraphRow::Own);
        let entries = section
            .menu
            .iter()
            .map(|entry| GraphRow::Entry { keyword: entry.keyword.to_string(), option: entry.option.clone() });
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
    /// The section at index `node` of the nodes, if that node is a section.
    pub fn section(&self, node: usize) -> Option<&SectionNode> {
        match self.nodes.get(node) {
            Some(GraphNode::Section(section)) => Some(section),
            _ => None,
        }
    }

    /// The sections, in the order of the document. Their indices among the nodes are 0, 1, ….
    pub fn sections(&self) -> impl Iterator<Item = &SectionNode> {
        self.nodes.iter().map_while(|node| match node {
            GraphNode::Section(section) => Some(section),
            _ => None,
        })
    }

    fn add_outgoing<'a>(&mut self, from: usize, row: usize, outgoing: Outgoing<'a>, targets: &mut Targets<'a>) {
        let redirect = outgoing.redirect.map(|redirect| (redirect.kind, redirect.to.as_deref()));
        let arrow = match redirect {
            None => None,
            Some((RedirectKind::Interaction, to)) => Some((self.section_target(to, targets), ArrowKind::Interaction)),
            Some((RedirectKind::Campaign, to)) => Some((self.campaign_target(to, targets), ArrowKind::Campaign)),
            // The arrow is added with the webhook, below.
            Some((RedirectKind::Webhook, _)) if outgoing.webhook.is_some() => None,
            Some((RedirectKind::Webhook, _)) => {
                Some((self.missing_target(DanglingTarget::Webhook, targets), ArrowKind::Webhook(WebhookKind::Redirect)))
            }
        };
        let node = outgoing.webhook.map(|webhook| WebhookNode {
            id: webhook.id.clone(),
            url: webhook.url.as_str().to_owned(),
            kind: WebhookKind::from_redirect(outgoing.redirect),
            state: if webhook.enabled { WebhookState::Enabled } else { WebhookState::Disabled },
        });
        let webhook_arrow = node.map(|node| {
            let kind = ArrowKind::Webhook(node.kind);
            (self.add(GraphNode::Webhook(node)), kind)
        });
        let arrows = [arrow, webhook_arrow].into_iter().flatten();
        self.arrows.extend(arrows.map(|(to, kind)| Arrow { from, row, to, kind }));
    }

    fn section_target<'a>(&mut self, to: Option<&'a str>, targets: &mut Targets<'a>) -> usize {
        match to.map(|label| (label, targets.labels.get(label))) {
            Some((_, Some(section))) => *section,
            Some((label, None)) => self.missing_target(DanglingTarget::Section(label.to_owned()), targets),
            None => self.missing_target(DanglingTarget::Unnamed, targets),
        }
    }

    fn campaign_target<'a>(&mut self, to: Option<&'a str>, targets: &mut Targets<'a>) -> usize {
        match to {
            Some(name) => {
                *targets.campaigns.entry(name).or_insert_with(|| self.add(GraphNode::Campaign(name.to_owned())))
            }
            None => self.missing_target(DanglingTarget::Unnamed, targets),
        }
    }

    fn missing_target(&mut self, missing: DanglingTarget, targets: &mut Targets<'_>) -> usize {
        *targets.missing.entry(missing.clone()).or_insert_with(|| self.add(GraphNode::Missing(missing)))
    }

    fn add(&mut self, node: GraphNode) -> usize {
        self.nodes.push(node);
        self.nodes.len() - 1
    }

    fn mark_unreached(&mut self) {
        let mut unreached: Vec<bool> = self.sections().map(|_| true).collect();
        let Some(first) = self.sections().position(|section| section.kind == SectionKind::WelcomeMessage) else {
            return;
        };
        let mut leads_to = vec![Vec::new(); unreached.len()];
        for arrow in self.arrows.iter().filter(|arrow| arrow.to < unreached.len()) {
            leads_to[arrow.from].push(arrow.to);
        }
        let mut pending = vec![first];
        while let Some(section) = pending.pop() {
            if std::mem::replace(&mut unreached[section], false) {
                pending.extend(&leads_to[section]);
            }
        }
        for (node, unreached) in self.nodes.iter_mut().zip(unreached) {
            if let (GraphNode::Section(section), true) = (node, unreached) {
                section.reach = Reach::Unreached;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::document::tests::example;

    /// One line for each arrow: source, kind and target.
    fn describe_arrows(graph: &Graph) -> Vec<String> {
        let arrows = graph.arrows.iter().map(|arrow| {
            let section = graph.section(arrow.from).expect("arrows come from sections");
            let row = match &section.rows[arrow.row] {
                GraphRow::Own => "own".to_owned(),
                GraphRow::Entry { keyword, .. } => keyword.clone(),
            };
            let to = match &graph.nodes[arrow.to] {
                GraphNode::Section(section) => section.label.clone(),
                GraphNode::Webhook(webhook) => webhook.url.clone(),
                GraphNode::Campaign(name) => name.clone(),
                GraphNode::Missing(missing) => format!("{missing:?}"),
            };
            format!("{} {row}: {:?} {to}", section.label, arrow.kind)
        });
        arrows.collect()
    }

    /// Entries 1 and 4 stay in the campaign (blue), entries 2 and 5 lead to other campaigns (red), and entry 3 is a
    /// webhook (black). Entries 4 and 5 have an underlying webhook (black).
    #[test]
    fn the_example_has_the_documented_arrows() {
        let graph = graph(&example());
        let arrows = describe_arrows(&graph);
        let expected = [
            "Welcome Message 1: Interaction Plans",
            "Welcome Message 2: Campaign raffle-giveaway",
            "Welcome Message 3: Webhook(Redirect) https://example.com/hooks/agent",
            "Welcome Message 4: Interaction Offers",
            "Welcome Message 4: Webhook(Underlying) https://example.com/hooks/offers",
            "Welcome Message 5: Campaign web-polls",
            "Welcome Message 5: Webhook(Underlying) https://example.com/hooks/survey",
        ];
        let menu: Vec<&String> = arrows.iter().filter(|arrow| arrow.starts_with("Welcome Message")).collect();
        assert_eq!(menu, expected);
        assert!(
            arrows.contains(&"Offers own: Webhook(Redirect) https://example.com/hooks/name".to_owned()),
            "{arrows:?}"
        );
        assert!(graph.sections().all(|section| section.reach == Reach::Reached));
    }

    fn campaign(sections: serde_json::Value) -> Campaign {
        serde_json::from_value(serde_json::json!({ "id": "c", "sections": sections })).expect("a campaign")
    }

    #[test]
    fn arrows_share_the_node_of_a_campaign_or_a_missing_target() {
        let to = |kind: &str, to: &str| serde_json::json!({ "type": kind, "to": to });
        let graph = graph(&campaign(serde_json::json!([
            { "label": "A", "kind": "welcomeMessage", "redirect": to("campaign", "B"), "menu": [
                { "keyword": 1, "redirect": to("campaign", "B") },
                { "keyword": 2, "redirect": to("interaction", "gone") },
                { "keyword": 3, "redirect": to("interaction", "gone") },
                { "keyword": 4, "redirect": { "type": "webhook" } },
                { "keyword": 5, "redirect": { "type": "interaction" } } ] } ])));
        assert_eq!(
            graph.nodes[1..],
            [
                GraphNode::Campaign("B".to_owned()),
                GraphNode::Missing(DanglingTarget::Section("gone".to_owned())),
                GraphNode::Missing(DanglingTarget::Webhook),
                GraphNode::Missing(DanglingTarget::Unnamed),
            ]
        );
        assert_eq!(graph.arrows.iter().map(|arrow| arrow.to).collect::<Vec<_>>(), [1, 1, 2, 2, 3, 4]);
    }

    #[test]
    fn sections_without_a_path_from_the_welcome_message_are_unreached() {
        let reach = |first: &str| {
            let graph = graph(&campaign(serde_json::json!([
                { "label": "A", "kind": first, "redirect": { "type": "interaction", "to": "B" } },
                { "label": "B", "kind": "interaction", "redirect": { "type": "interaction", "to": "A" } },
                { "label": "C", "kind": "interaction", "redirect": { "type": "interaction", "to": "B" } } ])));
            graph.sections().map(|section| section.reach).collect::<Vec<_>>()
        };
        assert_eq!(reach("welcomeMessage"), [Reach::Reached, Reach::Reached, Reach::Unreached]);
        assert_eq!(reach("interaction"), [Reach::Reached; 3]);
    }
}
