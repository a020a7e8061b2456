//! Places nodes within their columns: level with the arrows that enter them, and without overlap.

use std::collections::BTreeMap;

use super::sizes::Sizes;
use crate::flow::graph::Graph;

/// Distance between a node and the backward arrows that run above it.
pub(super) const RETURN_OFFSET: i64 = 14;
/// Space above a node with backward arrows.
const RETURN_CLEARANCE: i64 = 22;
const LANE_HEIGHT: i64 = 10;
/// Space below a lane.
const LANE_GAP: i64 = 8;
/// Limits how many columns all arrows together cross on lanes. Further arrows are straight lines. Without a limit, a
/// long chain of sections that all lead back to the first would make the diagram quadratic in size.
const MAX_LANE_CROSSINGS: usize = 100_000;

/// A node, or a lane on which arrows cross a column.
struct Item {
    column: usize,
    top: i64,
    height: i64,
    /// Distance from the top to the point where arrows enter.
    anchor: i64,
    /// Space above.
    above: i64,
    /// Space below.
    below: i64,
    alignments: Vec<Alignment>,
}

/// A preference of an item to be level with another item. Offsets are distances from the tops of the items.
struct Alignment {
    other: usize,
    own_offset: i64,
    other_offset: i64,
}

pub(super) struct Placement {
    items: Vec<Item>,
    /// Items of each column, from top to bottom.
    columns: Vec<Vec<usize>>,
    /// Lane items by target node and crossed column. All arrows to a node share its lanes.
    lanes: BTreeMap<(usize, usize), usize>,
    lane_crossings: usize,
    /// For each arrow.
    route_kinds: Vec<RouteKind>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum RouteKind {
    /// The target is in the next column.
    Adjacent,
    /// The target is farther to the right. The arrow takes lanes.
    Forward,
    /// The target is in the same column or to the left. The arrow takes lanes, then runs back above the target.
    Backward,
    /// The arrow has no lanes, because of [`MAX_LANE_CROSSINGS`].
    Straight,
}

impl RouteKind {
    fn between(from: usize, to: usize) -> Self {
        match to {
            to if to == from + 1 => Self::Adjacent,
            to if to > from => Self::Forward,
            _ => Self::Backward,
        }
    }
}

#[derive(Clone, Copy)]
enum Sweep {
    Rightward,
    Leftward,
}

impl Placement {
    pub(super) fn new(graph: &Graph, columns: &[usize], sizes: &Sizes) -> Self {
        let nodes = columns.iter().zip(&sizes.nodes).map(|(column, size)| Item {
            column: *column,
            top: 0,
            height: size.height,
            anchor: size.anchor,
            above: 0,
            below: size.gap,
            alignments: Vec::new(),
        });
        let mut placement = Self {
            items: nodes.collect(),
            columns: Vec::new(),
            lanes: BTreeMap::new(),
            lane_crossings: 0,
            route_kinds: Vec::new(),
        };
        for (arrow, port) in graph.arrows.iter().zip(&sizes.ports) {
            let route_kind = placement.add_arrow(arrow.from, *port, arrow.to);
            placement.route_kinds.push(route_kind);
        }
        placement.columns = vec![Vec::new(); columns.iter().max().map_or(0, |last| last + 1)];
        for (index, item) in placement.items.iter().enumerate() {
            placement.columns[item.column].push(index);
        }
        placement.place_all();
        placement
    }

    pub(super) fn top(&self, node: usize) -> i64 {
        self.items[node].top
    }

    /// Parallel to the arrows of the graph.
    pub(super) fn route_kinds(&self) -> &[RouteKind] {
        &self.route_kinds
    }

    /// The y coordinate of the lane to `node` in this column.
    pub(super) fn lane(&self, node: usize, column: usize) -> Option<i64> {
        self.lanes.get(&(node, column)).map(|lane| self.items[*lane].top + self.items[*lane].anchor)
    }

    /// The top and the bottom of all items.
    pub(super) fn extent(&self) -> (i64, i64) {
        let top = self.items.iter().map(|item| item.top - item.above).min();
        let bottom = self.items.iter().map(|item| item.top + item.height).max();
        (top.unwrap_or_default(), bottom.unwrap_or_default())
    }

    /// Adds the lanes of an arrow, and aligns the items on its route.
    fn add_arrow(&mut self, from: usize, port: i64, to: usize) -> RouteKind {
        let (start, end) = (self.items[from].column, self.items[to].column);
        let anchor = self.items[to].anchor;
        let route_kind = RouteKind::between(start, end);
        let lane_crossings = if route_kind == RouteKind::Adjacent { 0 } else { start.abs_diff(end) };
        if self.lane_crossings + lane_crossings > MAX_LANE_CROSSINGS {
            return RouteKind::Straight;
        }
        self.lane_crossings += lane_crossings;
        match route_kind {
            RouteKind::Adjacent | RouteKind::Straight => self.align_both((from, port), (to, anchor)),
            RouteKind::Forward => {
                let first = self.build_lanes(to, (start + 1..end).rev(), (to, anchor), Self::align_both);
                self.align_both((from, port), first);
            }
            // Backward lanes align to their source and target. Sections do not move for backward arrows.
            RouteKind::Backward => {
                self.items[to].above = RETURN_CLEARANCE;
                let target = (to, -RETURN_OFFSET);
                let first = self.build_lanes(to, end + 1..=start, target, Self::align);
                if first != target {
                    self.align(first, (from, port));
                }
            }
        }
        route_kind
    }

    /// Creates the missing lanes to a node, starting at its `end`. `align_end` aligns the last lane to the end. Returns
    /// the first item that an arrow reaches, with the offset of the arrow in it.
    fn build_lanes(
        &mut self,
        node: usize,
        columns: impl Iterator<Item = usize>,
        end: (usize, i64),
        align_end: fn(&mut Self, (usize, i64), (usize, i64)),
    ) -> (usize, i64) {
        let middle = LANE_HEIGHT / 2;
        let mut next = end;
        for column in columns {
            let lane = if let Some(lane) = self.lanes.get(&(node, column)) {
                *lane
            } else {
                let item = Item {
                    column,
                    top: 0,
                    height: LANE_HEIGHT,
                    anchor: middle,
                    above: 0,
                    below: LANE_GAP,
                    alignments: Vec::new(),
                };
                let lane = self.items.len();
                self.items.push(item);
                self.lanes.insert((node, column), lane);
                if next == end {
                    align_end(self, (lane, middle), next);
                } else {
                    self.align_both((lane, middle), next);
                }
                lane
            };
            next = (lane, middle);
        }
        next
    }

    fn align_both(&mut self, one: (usize, i64), other: (usize, i64)) {
        self.align(one, other);
        self.align(other, one);
    }

    /// Makes `item` prefer to be level with `other`. Both are an index and an offset from the top.
    fn align(&mut self, item: (usize, i64), other: (usize, i64)) {
        self.items[item.0].alignments.push(Alignment { other: other.0, own_offset: item.1, other_offset: other.1 });
    }

    /// Orders and places the items of each column by their alignments. Sweeps over the columns in both directions. A
    /// few sweeps level most arrows.
    fn place_all(&mut self) {
        for column in 0..self.columns.len() {
            self.place_column(column, |_, _| false);
        }
        let column_count = self.columns.len();
        for sweep in [Sweep::Rightward, Sweep::Leftward, Sweep::Rightward, Sweep::Leftward, Sweep::Rightward] {
            match sweep {
                Sweep::Rightward => {
                    (0..column_count).for_each(|column| self.place_column(column, |own, other| other <= own))
                }
                Sweep::Leftward => {
                    (0..column_count).rev().for_each(|column| self.place_column(column, |own, other| other >= own))
                }
            }
        }
    }

    /// Places the items of a column as close as possible to their preferred tops. `counts(own, other)` selects the
    /// columns whose alignments are considered.
    fn place_column(&mut self, column: usize, counts: impl Fn(usize, usize) -> bool) {
        let mut preferred_tops: Vec<(i64, usize)> =
            self.columns[column].iter().map(|index| (self.preferred_top(*index, &counts), *index)).collect();
        preferred_tops.sort_by_key(|(top, index)| top + self.items[*index].anchor);
        let spans: Vec<Span> = preferred_tops
            .iter()
            .map(|(top, index)| {
                let item = &self.items[*index];
                Span { from: top - item.above, length: item.above + item.height + item.below }
            })
            .collect();
        for ((_, index), from) in preferred_tops.iter().zip(separate(&spans)) {
            let item = &mut self.items[*index];
            item.top = from + item.above;
        }
        self.columns[column] = preferred_tops.into_iter().map(|(_, index)| index).collect();
    }

    /// The average top by the alignments that count, or the current top if none counts.
    fn preferred_top(&self, index: usize, counts: &impl Fn(usize, usize) -> bool) -> i64 {
        let item = &self.items[index];
        let tops = item.alignments.iter().filter_map(|align| {
            let other = &self.items[align.other];
            counts(item.column, other.column).then_some(other.top + align.other_offset - align.own_offset)
        });
        let (sum, count) = tops.fold((0, 0), |(sum, count), top| (sum + top, count + 1));
        if count == 0 { item.top } else { i64::div_euclid(sum, count) }
    }
}

/// A preferred interval of a column.
#[derive(Debug, Clone, Copy)]
struct Span {
    from: i64,
    length: i64,
}

/// Returns starts for the spans that keep their order and do not overlap. The sum of the squared distances from the
/// preferred starts is minimal, except for rounding (isotonic regression: overlapping spans are merged into a group at
/// their average start).
fn separate(spans: &[Span]) -> Vec<i64> {
    struct SpanGroup {
        sum: i64,
        count: i64,
    }
    impl SpanGroup {
        fn start(&self) -> i64 {
            self.sum.div_euclid(self.count)
        }
    }
    let mut groups: Vec<SpanGroup> = Vec::new();
    // Starts are compared without the lengths of the spans before.
    let mut length_before = 0;
    for span in spans {
        let mut group = SpanGroup { sum: span.from - length_before, count: 1 };
        length_before += span.length;
        while let Some(last) = groups.pop_if(|last| last.start() >= group.start()) {
            group = SpanGroup { sum: last.sum + group.sum, count: last.count + group.count };
        }
        groups.push(group);
    }
    let starts = groups.iter().flat_map(|group| (0..group.count).map(|_| group.start()));
    let lengths_before = spans.iter().scan(0, |length_before, span| {
        let start = *length_before;
        *length_before += span.length;
        Some(start)
    });
    starts.zip(lengths_before).map(|(start, length_before)| start + length_before).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn overlapping_spans_share_the_displacement() {
        let separate = |spans: &[(i64, i64)]| {
            separate(&spans.iter().map(|(from, length)| Span { from: *from, length: *length }).collect::<Vec<_>>())
        };
        assert_eq!(separate(&[]), [0_i64; 0]);
        assert_eq!(separate(&[(-5, 10), (5, 10), (40, 10)]), [-5, 5, 40]);
        assert_eq!(separate(&[(0, 10), (0, 10)]), [-5, 5]);
        assert_eq!(separate(&[(0, 10), (20, 10), (20, 10), (22, 1)]), [0, 10, 20, 30]);
    }

    proptest! {
        #[test]
        fn separated_spans_do_not_overlap(spans in prop::collection::vec((-500_i64..500, 1_i64..80), 0..40)) {
            let spans: Vec<Span> = spans.into_iter().map(|(from, length)| Span { from, length }).collect();
            let starts = separate(&spans);
            prop_assert_eq!(starts.len(), spans.len());
            for (pair, first) in starts.windows(2).zip(&spans) {
                prop_assert!(pair[0] + first.length <= pair[1]);
            }
        }
    }
}
