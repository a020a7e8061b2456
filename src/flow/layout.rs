//! The graph on a plane, in whole numbers. Columns from left to right are the distance from the Welcome Message; arrows go
//! between the columns as curves, and across a column on lanes that are kept free for them: never through a node.

mod plan;
mod ranks;
mod sizes;

use super::graph::Graph;
use plan::{Plan, RETURN, Way};
use sizes::Sizes;
pub(super) use sizes::{COLUMN, HOOK, PILL, ROW, head};

/// What is left free around all of it.
const MARGIN: i64 = 24;
/// What a line needs that turns round beside a column.
const TURN: i64 = 64;

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
}

/// Lays the graph out.
pub fn layout(graph: Graph) -> Drawing {
    let columns = ranks::columns(&graph);
    let sizes = Sizes::of(&graph);
    let plan = Plan::new(&graph, &columns, &sizes);
    let sides = sides(&graph, &columns);
    let (top, bottom) = plan.extent();
    let down = MARGIN - top;

    let places: Vec<Rect> = (columns.iter().zip(&sizes.nodes).enumerate())
        .map(|(node, (column, size))| Rect {
            x: sides.left[*column],
            y: plan.top(node) + down,
            width: COLUMN,
            height: size.height,
        })
        .collect();
    let routes = graph.arrows.iter().zip(&sizes.ports).map(|(arrow, port)| {
        let (from, to) = (places[arrow.from], places[arrow.to]);
        let start = Point { x: from.x + from.width, y: from.y + port, heading: Heading::Right };
        let end = Point { x: to.x, y: to.y + sizes.nodes[arrow.to].anchor, heading: Heading::Right };
        let (first, last) = (columns[arrow.from], columns[arrow.to]);
        let pass = |column: usize, y: i64, heading: Heading| {
            let (left, right) = (sides.left[column], sides.left[column] + COLUMN);
            let (enters, leaves) = if heading == Heading::Right { (left, right) } else { (right, left) };
            [enters, leaves].map(|x| Point { x, y, heading })
        };
        let lane = |column: usize, heading| {
            plan.lane(arrow.to, column).map(|y| pass(column, y + down, heading)).into_iter().flatten()
        };
        let mut points = vec![start];
        match Way::between(first, last) {
            Way::Next => {}
            Way::Onward => points.extend((first + 1..last).flat_map(|column| lane(column, Heading::Right))),
            Way::Back => {
                points.extend((last + 1..=first).rev().flat_map(|column| lane(column, Heading::Left)));
                points.extend(pass(last, to.y - RETURN, Heading::Left));
            }
        }
        points.push(end);
        Route(points)
    });
    let routes = routes.collect();
    Drawing { width: sides.width, height: bottom + down + MARGIN, places, routes, graph }
}

/// Where the columns are.
struct Sides {
    /// The left side of each.
    left: Vec<i64>,
    /// How wide they are together, with what is free around them.
    width: i64,
}

/// Between two columns there is the more room the more arrows go there.
fn sides(graph: &Graph, columns: &[usize]) -> Sides {
    let Some(last) = columns.iter().max() else { return Sides { left: Vec::new(), width: 2 * MARGIN } };
    let mut arrows = vec![0_i64; last + 1];
    let (mut left_margin, mut right_margin) = (MARGIN, MARGIN);
    for arrow in &graph.arrows {
        let (from, to) = (columns[arrow.from], columns[arrow.to]);
        arrows[from] += 1;
        if Way::between(from, to) == Way::Back {
            left_margin = if to == 0 { TURN } else { left_margin };
            right_margin = if from == *last { TURN } else { right_margin };
        }
    }
    let mut x = left_margin;
    let left: Vec<i64> = arrows
        .iter()
        .map(|arrows| {
            let side = x;
            x += COLUMN + (2 * TURN + 2 * arrows).min(260);
            side
        })
        .collect();
    let width = left[*last] + COLUMN + right_margin;
    Sides { left, width }
}
