//! The graph on a plane, in whole numbers. Columns from left to right are the distance from the Welcome Message; arrows go
//! between the columns as curves, and across a column on lanes that are kept free for them: never through a node.

mod placement;
mod ranks;
mod routes;
mod sizes;

use super::graph::Graph;
use placement::Plan;
use routes::Routes;
use sizes::Sizes;
pub(super) use sizes::{COLUMN, HOOK, PILL, ROW, head};

/// What is left free around all of it.
const MARGIN: i64 = 24;

/// A graph, and where its nodes and arrows are.
#[derive(Debug, Clone, PartialEq)]
pub struct Drawing {
    /// What is drawn.
    pub graph: Graph,
    /// How wide it is.
    pub width: i64,
    /// How high it is.
    pub height: i64,
    /// The place of each node.
    pub places: Vec<Rect>,
    /// The course of each arrow.
    pub routes: Vec<Route>,
}

/// A place on the plane.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rect {
    /// Its left side.
    pub x: i64,
    /// Its upper side.
    pub y: i64,
    /// How wide it is.
    pub width: i64,
    /// How high it is.
    pub height: i64,
}

/// The course of an arrow, from the right side of its section to the left side of its node: a smooth curve through these
/// points.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Route(pub Vec<Point>);

/// A point of a route.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Point {
    /// From the left.
    pub x: i64,
    /// From the top.
    pub y: i64,
    /// Which way the route passes it.
    pub heading: Heading,
}

/// Which way a route goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Heading {
    /// To the right.
    Right,
    /// To the left.
    Left,
    /// Upwards.
    Up,
    /// Downwards.
    Down,
}

/// Lays the graph out.
pub fn layout(graph: Graph) -> Drawing {
    let columns = ranks::columns(&graph);
    let sizes = Sizes::of_graph(&graph);
    let plan = Plan::new(&graph, &columns, &sizes);
    let (top, bottom) = plan.extent();
    let down = MARGIN - top;
    let routes = Routes::new(&graph, &columns, &sizes, &plan);
    let places = columns.iter().zip(&sizes.nodes).enumerate().map(|(node, (column, size))| Rect {
        x: routes.left_of(*column),
        y: plan.top(node) + down,
        width: COLUMN,
        height: size.height,
    });
    Drawing {
        width: routes.width(),
        height: bottom + down + MARGIN,
        places: places.collect(),
        routes: routes.all(down),
        graph,
    }
}
