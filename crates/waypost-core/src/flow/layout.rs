//! Lays out a graph on a plane, in whole pixels. The column of a section is its distance from the Welcome Message, from
//! left to right. Arrows are curves between columns. They cross a column on reserved lanes, and never cross a node.

mod placement;
mod ranks;
mod routes;
mod sizes;

use super::graph::Graph;
use placement::Placement;
use routes::Routes;
pub use routes::{ArrowRoute, Point, RouteDirection};
pub(super) use sizes::{COLUMN_WIDTH, PILL_HEIGHT, ROW_HEIGHT, WEBHOOK_HEIGHT, head_height};
use sizes::{MARGIN, Sizes};

/// A graph with the coordinates of its nodes and arrows, in pixels.
#[derive(Debug, Clone, PartialEq)]
pub struct Drawing {
    pub graph: Graph,
    pub width: i64,
    pub height: i64,
    /// Parallel to `graph.nodes`.
    pub rects: Vec<Rect>,
    /// Parallel to `graph.arrows`.
    pub routes: Vec<ArrowRoute>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rect {
    pub x: i64,
    pub y: i64,
    pub width: i64,
    pub height: i64,
}

pub fn layout(graph: Graph) -> Drawing {
    let columns = ranks::columns(&graph);
    let sizes = Sizes::new(&graph);
    let placement = Placement::new(&graph, &columns, &sizes);
    let (top, bottom) = placement.extent();
    let offset_y = MARGIN - top;
    let routes = Routes::new(&graph, &columns, &sizes, &placement);
    let rects = columns.iter().zip(&sizes.nodes).enumerate().map(|(node, (column, size))| Rect {
        x: routes.column_left(*column),
        y: placement.top(node) + offset_y,
        width: COLUMN_WIDTH,
        height: size.height,
    });
    Drawing {
        width: routes.width(),
        height: bottom + offset_y + MARGIN,
        rects: rects.collect(),
        routes: routes.with_offset(offset_y),
        graph,
    }
}
