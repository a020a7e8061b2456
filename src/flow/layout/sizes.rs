//! How large things are. Widths and heights are those that `assets/flow.css` has its fonts for.

use crate::flow::graph::{Graph, Node, SectionNode};

/// The width of a column, and of the cards in it.
pub(in crate::flow) const COLUMN: i64 = 248;
/// The height of a section's row.
pub(in crate::flow) const ROW: i64 = 32;
/// What is left free below the last row.
pub(in crate::flow) const FOOT: i64 = 4;
/// The height of a webhook.
pub(in crate::flow) const HOOK: i64 = 48;
/// The height of what is not drawn as a card or a webhook: a campaign, and what is missing.
pub(in crate::flow) const PILL: i64 = 44;

/// Where arrows come to a section, from its top.
const ENTRANCE: i64 = 25;
/// How far apart the two arrows of a row begin.
const APART: i64 = 12;
/// What is left free below a section, and below anything else.
const GAPS: (i64, i64) = (34, 14);

/// The height of a section's head: its caption and label, and a line of its message.
pub(in crate::flow) fn head(card: &SectionNode) -> i64 {
    if card.message.is_some() { 70 } else { 52 }
}

/// The size of a node.
pub(super) struct Size {
    pub(super) height: i64,
    /// Where arrows come in, from the top.
    pub(super) anchor: i64,
    /// What is left free below.
    pub(super) gap: i64,
}

/// The sizes of all that is drawn.
pub(super) struct Sizes {
    pub(super) nodes: Vec<Size>,
    /// Where each arrow begins, from the top of its section.
    pub(super) ports: Vec<i64>,
}

impl Sizes {
    pub(super) fn of_graph(graph: &Graph) -> Self {
        let nodes = graph.nodes.iter().map(|node| match node {
            Node::Section(card) => Size { height: height(card), anchor: ENTRANCE, gap: GAPS.0 },
            Node::Webhook(_) => Size { height: HOOK, anchor: HOOK / 2, gap: GAPS.1 },
            Node::Campaign(_) | Node::Missing(_) => Size { height: PILL, anchor: PILL / 2, gap: GAPS.1 },
        });
        Self { nodes: nodes.collect(), ports: ports(graph) }
    }
}

fn height(card: &SectionNode) -> i64 {
    let foot = if card.rows.is_empty() { 0 } else { FOOT };
    head(card) + ROW * count(card.rows.len()) + foot
}

/// The arrows of a row follow one another: a redirect, and the webhook under it.
fn ports(graph: &Graph) -> Vec<i64> {
    let of_one_row = graph.arrows.chunk_by(|one, other| (one.from, one.row) == (other.from, other.row));
    of_one_row
        .flat_map(|arrows| {
            let first = &arrows[0];
            let middle = graph.card(first.from).map_or(0, head) + ROW * count(first.row) + ROW / 2;
            let spread = APART * (count(arrows.len()) - 1);
            (0..count(arrows.len())).map(move |nth| middle - spread / 2 + APART * nth)
        })
        .collect()
}

/// A count as a coordinate: a document of a mebibyte has no more things than that.
fn count(things: usize) -> i64 {
    i64::try_from(things).unwrap_or(i64::MAX)
}
