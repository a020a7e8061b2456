//! Texts of nodes and arrows, for labels and tooltips.

use crate::campaign::{SectionKind, WebhookKind};
use crate::flow::graph::{
    Arrow, ArrowKind, DanglingTarget, Graph, GraphNode, GraphRow, Reach, SectionNode, WebhookNode, WebhookState,
};
use crate::flow::health::WebhookHealth;

pub(super) fn section(section: &SectionNode) -> String {
    let kind = match section.kind {
        SectionKind::WelcomeMessage => "Welcome Message",
        SectionKind::Interaction => "Interaction",
    };
    let name = if section.label == kind { kind.to_owned() } else { format!("{kind} {}", section.label) };
    match section.reach {
        Reach::Reached => name,
        Reach::Unreached => format!("{name}, not reached from the Welcome Message"),
    }
}

pub(super) fn row(row: &GraphRow) -> String {
    match row {
        GraphRow::Own => "Every event".to_owned(),
        GraphRow::Entry { keyword, option: Some(option) } => format!("{keyword} {option}"),
        GraphRow::Entry { keyword, option: None } => keyword.clone(),
    }
}

pub(super) fn row_with_arrows(graph: &Graph, entry: &GraphRow, arrows: &[&Arrow]) -> String {
    let targets: Vec<String> = arrows.iter().map(|arrow| target(graph, arrow)).collect();
    match targets.as_slice() {
        [] => format!("{}: leads nowhere", row(entry)),
        targets => format!("{}: {}", row(entry), targets.join(", ")),
    }
}

pub(super) fn target(graph: &Graph, arrow: &Arrow) -> String {
    let name = match &graph.nodes[arrow.to] {
        GraphNode::Section(section) => section.label.clone(),
        GraphNode::Campaign(name) => name.clone(),
        GraphNode::Webhook(webhook) => webhook.url.clone(),
        GraphNode::Missing(target) => return missing_target_label(target),
    };
    let kind = match arrow.kind {
        ArrowKind::Interaction => "to the interaction",
        ArrowKind::Campaign => "to the campaign",
        ArrowKind::Webhook(WebhookKind::Redirect) => "to the webhook",
        ArrowKind::Webhook(WebhookKind::Underlying) => "with the underlying webhook",
    };
    format!("{kind} {name}")
}

pub(super) fn webhook_kind(webhook: &WebhookNode) -> &'static str {
    match webhook.kind {
        WebhookKind::Redirect => "redirect webhook",
        WebhookKind::Underlying => "underlying webhook",
    }
}

/// The class and the text of a webhook's state. No text if the health is unknown.
pub(super) fn webhook_state(webhook: &WebhookNode, health: WebhookHealth) -> (&'static str, Option<String>) {
    match (webhook.state, health) {
        (WebhookState::Disabled, _) => ("disabled", Some("disabled".to_owned())),
        (WebhookState::Enabled, WebhookHealth::Unknown) => ("unknown", None),
        (WebhookState::Enabled, WebhookHealth::Healthy) => ("healthy", Some("healthy".to_owned())),
        (WebhookState::Enabled, WebhookHealth::Failing { percent }) => {
            ("failing", Some(format!("{percent} % failing")))
        }
        (WebhookState::Enabled, WebhookHealth::Paused) => ("paused", Some("paused".to_owned())),
    }
}

/// The problem of a redirect, and its target or a detail.
pub(super) fn missing_target(target: &DanglingTarget) -> (&'static str, &str) {
    match target {
        DanglingTarget::Section(label) => ("no such section", label),
        DanglingTarget::Unnamed => ("broken redirect", "its target is missing"),
        DanglingTarget::Webhook => ("broken redirect", "its webhook is missing"),
    }
}

fn missing_target_label(target: &DanglingTarget) -> String {
    let (problem, name) = missing_target(target);
    format!("{problem}: {name}")
}
