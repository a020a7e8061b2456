//! What is said of nodes and arrows, in words.

use crate::delivery::campaign::{SectionKind, WebhookKind};
use crate::flow::graph::{
    Arrow, ArrowKind, DanglingTarget, EntryNode, Graph, HookState, Node, Reach, SectionNode, WebhookNode,
};
use crate::flow::health::Health;

/// A section's name, and what is to be known of it.
pub(super) fn section(card: &SectionNode) -> String {
    let kind = match card.kind {
        SectionKind::WelcomeMessage => "Welcome Message",
        SectionKind::Interaction => "Interaction",
    };
    let name = if card.label == kind { kind.to_owned() } else { format!("{kind} {}", card.label) };
    match card.reach {
        Reach::Reached => name,
        Reach::Unreached => format!("{name}, not reached from the Welcome Message"),
    }
}

/// A row's name.
pub(super) fn row(row: &EntryNode) -> String {
    match row {
        EntryNode::Own => "Every event".to_owned(),
        EntryNode::Entry { keyword, option: Some(option) } => format!("{keyword} {option}"),
        EntryNode::Entry { keyword, option: None } => keyword.clone(),
    }
}

/// A row's name, and where its arrows lead.
pub(super) fn row_with_arrows(graph: &Graph, named: &EntryNode, arrows: &[&Arrow]) -> String {
    let ends: Vec<String> = arrows.iter().map(|arrow| end(graph, arrow)).collect();
    match ends.as_slice() {
        [] => format!("{}: leads nowhere", row(named)),
        ends => format!("{}: {}", row(named), ends.join(", ")),
    }
}

/// Where an arrow leads.
pub(super) fn end(graph: &Graph, arrow: &Arrow) -> String {
    let name = match &graph.nodes[arrow.to] {
        Node::Section(card) => card.label.clone(),
        Node::Campaign(name) => name.clone(),
        Node::Webhook(hook) => hook.url.clone(),
        Node::Missing(missing) => return missing_name(missing),
    };
    let kind = match arrow.kind {
        ArrowKind::Interaction => "to the interaction",
        ArrowKind::Campaign => "to the campaign",
        ArrowKind::Webhook(WebhookKind::Redirect) => "to the webhook",
        ArrowKind::Webhook(WebhookKind::Underlying) => "with the underlying webhook",
    };
    format!("{kind} {name}")
}

/// What kind of webhook it is.
pub(super) fn hook_kind(hook: &WebhookNode) -> &'static str {
    match hook.kind {
        WebhookKind::Redirect => "redirect webhook",
        WebhookKind::Underlying => "underlying webhook",
    }
}

/// How a webhook is doing, as a class and in words; no words where nothing is known.
pub(super) fn hook_state(hook: &WebhookNode, health: Health) -> (&'static str, Option<String>) {
    match (hook.state, health) {
        (HookState::Disabled, _) => ("disabled", Some("disabled".to_owned())),
        (HookState::Enabled, Health::Unknown) => ("unknown", None),
        (HookState::Enabled, Health::Healthy) => ("healthy", Some("healthy".to_owned())),
        (HookState::Enabled, Health::Failing { percent }) => ("failing", Some(format!("{percent} % failing"))),
        (HookState::Enabled, Health::Paused) => ("paused", Some("paused".to_owned())),
    }
}

/// What is wrong with a redirect, and what it names.
pub(super) fn missing(missing: &DanglingTarget) -> (&'static str, &str) {
    match missing {
        DanglingTarget::Section(label) => ("no such section", label),
        DanglingTarget::Name => ("broken redirect", "it does not say where"),
        DanglingTarget::Webhook => ("broken redirect", "it has no webhook"),
    }
}

fn missing_name(gone: &DanglingTarget) -> String {
    let (fault, name) = missing(gone);
    format!("{fault}: {name}")
}
