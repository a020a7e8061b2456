//! Which way arrows go, and how far apart the columns are for that.

use std::collections::BTreeMap;

use super::placement::{Plan, RETURN, RouteKind};
use super::sizes::Sizes;
use super::{COLUMN, Heading, MARGIN, Point, Route};
use crate::flow::graph::{Arrow, Graph};

/// The least space between two columns.
const LEAST: i64 = 120;
/// What each arrow adds to it, and the most they add together.
const MORE: (i64, i64) = (2, 100);
/// What a line needs on the left of a node that it comes back to.
const HOOK: i64 = 56;
/// How far right of its column the first line turns back, and each after it.
const TRUNK: (i64, i64) = (24, 10);
/// As many lines have a place of their own.
const TRUNKS: usize = 24;
/// How round a corner is.
const CORNER: i64 = 14;

/// The ways of all arrows.
pub(super) struct Routes<'a> {
    graph: &'a Graph,
    columns: &'a [usize],
    sizes: &'a Sizes,
    plan: &'a Plan,
    /// The left side of each column.
    left: Vec<i64>,
    width: i64,
    /// Arrows that go back turn round beside their column: how far from it, by the column and the node they lead to.
    /// Those to one node share the line.
    trunks: BTreeMap<(usize, usize), i64>,
}

impl<'a> Routes<'a> {
    pub(super) fn new(graph: &'a Graph, columns: &'a [usize], sizes: &'a Sizes, plan: &'a Plan) -> Self {
        let trunks = trunks(graph, columns, sizes, plan);
        let mut routes = Self { graph, columns, sizes, plan, left: Vec::new(), width: 2 * MARGIN, trunks };
        routes.space_columns();
        routes
    }

    pub(super) fn left_of(&self, column: usize) -> i64 {
        self.left[column]
    }

    /// How wide all columns are together, with what is free around them.
    pub(super) fn width(&self) -> i64 {
        self.width
    }

    /// The route of each arrow, so far down.
    pub(super) fn all(&self, down: i64) -> Vec<Route> {
        let arrows = self.graph.arrows.iter().zip(&self.sizes.ports).zip(self.plan.ways());
        let routes = arrows.map(|((arrow, port), way)| {
            let points = self.points(arrow, *port, *way);
            Route(points.into_iter().map(|point| Point { y: point.y + down, ..point }).collect())
        });
        routes.collect()
    }

    fn points(&self, arrow: &Arrow, port: i64, way: RouteKind) -> Vec<Point> {
        let (first, last) = (self.columns[arrow.from], self.columns[arrow.to]);
        let at = |x: i64, y: i64, heading: Heading| Point { x, y, heading };
        let start = at(self.left[first] + COLUMN, self.plan.top(arrow.from) + port, Heading::Right);
        let top = self.plan.top(arrow.to);
        let end = at(self.left[last], top + self.sizes.nodes[arrow.to].anchor, Heading::Right);
        let lane = |column: usize| self.plan.lane(arrow.to, column).map(|y| (column, y));
        let mut points = vec![start];
        match way {
            RouteKind::Next | RouteKind::Straight => {}
            RouteKind::Onward => {
                for (column, y) in (first + 1..last).filter_map(lane) {
                    let left = self.left[column];
                    points.extend([at(left, y, Heading::Right), at(left + COLUMN, y, Heading::Right)]);
                }
            }
            RouteKind::Back => {
                let home = (last, top - RETURN);
                let lanes: Vec<(usize, i64)> = (last + 1..=first).rev().filter_map(lane).chain([home]).collect();
                if let (Some(trunk), Some((_, y))) = (self.trunks.get(&(first, arrow.to)), lanes.first()) {
                    points.extend(turn(start, *y, start.x + trunk));
                }
                for (column, y) in lanes {
                    let left = self.left[column];
                    points.extend([at(left + COLUMN, y, Heading::Left), at(left, y, Heading::Left)]);
                }
            }
        }
        points.push(end);
        points
    }

    /// Between two columns there is the more room the more arrows go there.
    fn space_columns(&mut self) {
        let Some(last) = self.columns.iter().max().copied() else { return };
        let mut arrows = vec![0; last + 1];
        let mut is_come_back_to = vec![false; last + 1];
        for (arrow, way) in self.graph.arrows.iter().zip(self.plan.ways()) {
            arrows[self.columns[arrow.from]] += 1;
            is_come_back_to[self.columns[arrow.to]] |= *way == RouteKind::Back;
        }
        let mut trunks = vec![0; last + 1];
        for ((column, _), distance) in &self.trunks {
            trunks[*column] = trunks[*column].max(*distance);
        }
        let mut x = if is_come_back_to[0] { HOOK } else { MARGIN };
        for column in 0..=last {
            self.left.push(x);
            x += COLUMN + trunks[column];
            if column == last {
                break;
            }
            let hook = if is_come_back_to[column + 1] { HOOK - MARGIN } else { 0 };
            x += hook + LEAST + (MORE.0 * arrows[column]).min(MORE.1);
        }
        self.width = x + MARGIN;
    }
}

/// How far from their column arrows turn back. The shorter their way up or down, the nearer: so they do not cross.
fn trunks(graph: &Graph, columns: &[usize], sizes: &Sizes, plan: &Plan) -> BTreeMap<(usize, usize), i64> {
    let mut farthest: BTreeMap<(usize, usize), i64> = BTreeMap::new();
    for ((arrow, port), way) in graph.arrows.iter().zip(&sizes.ports).zip(plan.ways()) {
        if *way == RouteKind::Back {
            let from = columns[arrow.from];
            let lane = plan.lane(arrow.to, from).unwrap_or(plan.top(arrow.to) - RETURN);
            let way = (plan.top(arrow.from) + port - lane).abs();
            let known = farthest.entry((from, arrow.to)).or_default();
            *known = way.max(*known);
        }
    }
    let mut by_way: Vec<(usize, i64, usize)> =
        farthest.into_iter().map(|((column, node), way)| (column, way, node)).collect();
    by_way.sort_unstable();
    let by_column = by_way.chunk_by(|one, other| one.0 == other.0);
    by_column
        .flat_map(|trunks| {
            trunks.iter().enumerate().map(|(nth, (column, _, node))| {
                let nth = i64::try_from(nth % TRUNKS).unwrap_or_default();
                ((*column, *node), TRUNK.0 + TRUNK.1 * nth)
            })
        })
        .collect()
}

/// The corners of a turn from `start` to the height `y`, at `x`. None where there is no room for corners.
fn turn(start: Point, y: i64, x: i64) -> Vec<Point> {
    if (y - start.y).abs() < 2 * CORNER {
        return Vec::new();
    }
    let (heading, step) = if y < start.y { (Heading::Up, -CORNER) } else { (Heading::Down, CORNER) };
    let straight = |y: i64, heading: Heading| Point { x: x - CORNER, y, heading };
    vec![
        straight(start.y, Heading::Right),
        Point { x, y: start.y + step, heading },
        Point { x, y: y - step, heading },
        straight(y, Heading::Left),
    ]
}
