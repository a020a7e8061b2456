//! Sizes of nodes in pixels. They fit the font sizes of `assets/flow.css`.

use crate::flow::graph::{Graph, GraphNode, SectionNode};

/// Space around the diagram.
pub(super) const MARGIN: i64 = 24;
/// Width of a column and of its nodes.
pub(in crate::flow) const COLUMN_WIDTH: i64 = 248;
pub(in crate::flow) const ROW_HEIGHT: i64 = 32;
/// Space below the last row of a section.
pub(in crate::flow) const FOOT_HEIGHT: i64 = 4;
pub(in crate::flow) const WEBHOOK_HEIGHT: i64 = 48;
/// Height of other campaigns and of missing targets.
pub(in crate::flow) const PILL_HEIGHT: i64 = 44;

/// Distance from the top of a section to the point where arrows enter.
const SECTION_ANCHOR: i64 = 25;
/// Distance between the starts of the two arrows of a row.
const PORT_SPACING: i64 = 12;
/// Space below a section.
const SECTION_GAP: i64 = 34;
/// Space below any other node.
const NODE_GAP: i64 = 14;

/// The head has the caption, the label and one line of the message.
pub(in crate::flow) fn head_height(section: &SectionNode) -> i64 {
    if section.message.is_some() { 70 } else { 52 }
}

pub(super) struct Size {
    pub(super) height: i64,
    /// Distance from the top to the point where arrows enter.
    pub(super) anchor: i64,
    /// Space below.
    pub(super) gap: i64,
}

pub(super) struct Sizes {
    pub(super) nodes: Vec<Size>,
    /// For each arrow, the distance from the top of its section to its start.
    pub(super) ports: Vec<i64>,
}

impl Sizes {
    pub(super) fn new(graph: &Graph) -> Self {
        let nodes = graph.nodes.iter().map(|node| match node {
            GraphNode::Section(section) => {
                Size { height: section_height(section), anchor: SECTION_ANCHOR, gap: SECTION_GAP }
            }
            GraphNode::Webhook(_) => Size { height: WEBHOOK_HEIGHT, anchor: WEBHOOK_HEIGHT / 2, gap: NODE_GAP },
            GraphNode::Campaign(_) | GraphNode::Missing(_) => {
                Size { height: PILL_HEIGHT, anchor: PILL_HEIGHT / 2, gap: NODE_GAP }
            }
        });
        Self { nodes: nodes.collect(), ports: ports(graph) }
    }
}

fn section_height(section: &SectionNode) -> i64 {
    let foot = if section.rows.is_empty() { 0 } else { FOOT_HEIGHT };
    head_height(section) + ROW_HEIGHT * to_coordinate(section.rows.len()) + foot
}

/// The arrows of a row are adjacent in the graph: the redirect, then the underlying webhook.
fn ports(graph: &Graph) -> Vec<i64> {
    let rows = graph.arrows.chunk_by(|one, other| (one.from, one.row) == (other.from, other.row));
    rows.flat_map(|arrows| {
        let first = &arrows[0];
        let middle =
            graph.section(first.from).map_or(0, head_height) + ROW_HEIGHT * to_coordinate(first.row) + ROW_HEIGHT / 2;
        let spread = PORT_SPACING * (to_coordinate(arrows.len()) - 1);
        (0..to_coordinate(arrows.len())).map(move |index| middle - spread / 2 + PORT_SPACING * index)
    })
    .collect()
}

/// Saturates. A document of 1 MiB does not have that many rows or arrows.
fn to_coordinate(count: usize) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}
