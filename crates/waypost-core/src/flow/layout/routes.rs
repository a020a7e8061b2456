//! Routes the arrows, and spaces the columns so that the arrows fit between them.

use std::collections::BTreeMap;

use super::placement::{Placement, RETURN_OFFSET, RouteKind};
use super::sizes::{COLUMN_WIDTH, MARGIN, Sizes};
use crate::flow::graph::{Arrow, Graph};

const MIN_COLUMN_GAP: i64 = 120;
/// Space that each arrow adds to the gap after its column.
const GAP_PER_ARROW: i64 = 2;
const MAX_EXTRA_GAP: i64 = 100;
/// Space on the left of a node with backward arrows.
const RETURN_MARGIN: i64 = 56;
/// Distance between a column and its first trunk: the vertical line on which backward arrows turn.
const FIRST_TRUNK: i64 = 24;
const TRUNK_SPACING: i64 = 10;
/// Further trunks of a column share the positions of these.
const MAX_TRUNKS: usize = 24;
const CORNER_RADIUS: i64 = 14;

/// The route of an arrow, from the right side of its section to the left side of its target: a smooth curve through
/// these points.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ArrowRoute(pub Vec<Point>);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Point {
    pub x: i64,
    pub y: i64,
    /// The direction of the route at this point.
    pub direction: RouteDirection,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RouteDirection {
    Right,
    Left,
    Up,
    Down,
}

pub(super) struct Routes<'a> {
    graph: &'a Graph,
    columns: &'a [usize],
    sizes: &'a Sizes,
    placement: &'a Placement,
    /// The x coordinate of each column.
    left: Vec<i64>,
    width: i64,
    /// Distance between a column and a trunk, by source column and target node. Backward arrows from a column to a node
    /// share a trunk.
    trunks: BTreeMap<(usize, usize), i64>,
}

impl<'a> Routes<'a> {
    pub(super) fn new(graph: &'a Graph, columns: &'a [usize], sizes: &'a Sizes, placement: &'a Placement) -> Self {
        let trunks = trunks(graph, columns, sizes, placement);
        let mut routes = Self { graph, columns, sizes, placement, left: Vec::new(), width: 2 * MARGIN, trunks };
        routes.space_columns();
        routes
    }

    pub(super) fn column_left(&self, column: usize) -> i64 {
        self.left[column]
    }

    /// The width of the diagram, with margins.
    pub(super) fn width(&self) -> i64 {
        self.width
    }

    /// The route of each arrow, moved down by `offset_y`.
    pub(super) fn with_offset(&self, offset_y: i64) -> Vec<ArrowRoute> {
        let arrows = self.graph.arrows.iter().zip(&self.sizes.ports).zip(self.placement.route_kinds());
        let routes = arrows.map(|((arrow, port), kind)| {
            let points = self.points(arrow, *port, *kind);
            ArrowRoute(points.into_iter().map(|point| Point { y: point.y + offset_y, ..point }).collect())
        });
        routes.collect()
    }

    fn points(&self, arrow: &Arrow, port: i64, kind: RouteKind) -> Vec<Point> {
        let (first, last) = (self.columns[arrow.from], self.columns[arrow.to]);
        let point = |x: i64, y: i64, direction: RouteDirection| Point { x, y, direction };
        let start =
            point(self.left[first] + COLUMN_WIDTH, self.placement.top(arrow.from) + port, RouteDirection::Right);
        let top = self.placement.top(arrow.to);
        let end = point(self.left[last], top + self.sizes.nodes[arrow.to].anchor, RouteDirection::Right);
        let lane = |column: usize| self.placement.lane(arrow.to, column).map(|y| (column, y));
        let mut points = vec![start];
        match kind {
            RouteKind::Adjacent | RouteKind::Straight => {}
            RouteKind::Forward => {
                for (column, y) in (first + 1..last).filter_map(lane) {
                    let left = self.left[column];
                    points.extend([
                        point(left, y, RouteDirection::Right),
                        point(left + COLUMN_WIDTH, y, RouteDirection::Right),
                    ]);
                }
            }
            RouteKind::Backward => {
                let return_line = (last, top - RETURN_OFFSET);
                let lanes: Vec<(usize, i64)> = (last + 1..=first).rev().filter_map(lane).chain([return_line]).collect();
                if let (Some(trunk), Some((_, y))) = (self.trunks.get(&(first, arrow.to)), lanes.first()) {
                    points.extend(turn_corners(start, *y, start.x + trunk));
                }
                for (column, y) in lanes {
                    let left = self.left[column];
                    points.extend([
                        point(left + COLUMN_WIDTH, y, RouteDirection::Left),
                        point(left, y, RouteDirection::Left),
                    ]);
                }
            }
        }
        points.push(end);
        points
    }

    /// The gap after a column grows with its number of arrows.
    fn space_columns(&mut self) {
        let Some(last) = self.columns.iter().max().copied() else { return };
        let mut arrow_counts = vec![0; last + 1];
        let mut has_backward = vec![false; last + 1];
        for (arrow, kind) in self.graph.arrows.iter().zip(self.placement.route_kinds()) {
            arrow_counts[self.columns[arrow.from]] += 1;
            has_backward[self.columns[arrow.to]] |= *kind == RouteKind::Backward;
        }
        let mut trunks = vec![0; last + 1];
        for ((column, _), distance) in &self.trunks {
            trunks[*column] = trunks[*column].max(*distance);
        }
        let mut x = if has_backward[0] { RETURN_MARGIN } else { MARGIN };
        for column in 0..=last {
            self.left.push(x);
            x += COLUMN_WIDTH + trunks[column];
            if column == last {
                break;
            }
            let return_margin = if has_backward[column + 1] { RETURN_MARGIN - MARGIN } else { 0 };
            x += return_margin + MIN_COLUMN_GAP + (GAP_PER_ARROW * arrow_counts[column]).min(MAX_EXTRA_GAP);
        }
        self.width = x + MARGIN;
    }
}

/// Distances of trunks from their column. Shorter trunks are nearer to the column, so that they do not cross.
fn trunks(graph: &Graph, columns: &[usize], sizes: &Sizes, placement: &Placement) -> BTreeMap<(usize, usize), i64> {
    let mut lengths: BTreeMap<(usize, usize), i64> = BTreeMap::new();
    for ((arrow, port), kind) in graph.arrows.iter().zip(&sizes.ports).zip(placement.route_kinds()) {
        if *kind == RouteKind::Backward {
            let from = columns[arrow.from];
            let lane = placement.lane(arrow.to, from).unwrap_or(placement.top(arrow.to) - RETURN_OFFSET);
            let length = (placement.top(arrow.from) + port - lane).abs();
            let longest = lengths.entry((from, arrow.to)).or_default();
            *longest = length.max(*longest);
        }
    }
    let mut by_length: Vec<(usize, i64, usize)> =
        lengths.into_iter().map(|((column, node), length)| (column, length, node)).collect();
    by_length.sort_unstable();
    let by_column = by_length.chunk_by(|one, other| one.0 == other.0);
    by_column
        .flat_map(|trunks| {
            trunks.iter().enumerate().map(|(index, (column, _, node))| {
                let index = i64::try_from(index % MAX_TRUNKS).unwrap_or_default();
                ((*column, *node), FIRST_TRUNK + TRUNK_SPACING * index)
            })
        })
        .collect()
}

/// The corners of a turn from `start` to the height `y`, at `x`. Empty if there is no space for corners.
fn turn_corners(start: Point, y: i64, x: i64) -> Vec<Point> {
    if (y - start.y).abs() < 2 * CORNER_RADIUS {
        return Vec::new();
    }
    let (direction, step) =
        if y < start.y { (RouteDirection::Up, -CORNER_RADIUS) } else { (RouteDirection::Down, CORNER_RADIUS) };
    let corner_end = |y: i64, direction: RouteDirection| Point { x: x - CORNER_RADIUS, y, direction };
    vec![
        corner_end(start.y, RouteDirection::Right),
        Point { x, y: start.y + step, direction },
        Point { x, y: y - step, direction },
        corner_end(y, RouteDirection::Left),
    ]
}
