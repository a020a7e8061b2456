//! Where in its column each node is: beside what leads to it, and apart from the others.

use std::collections::BTreeMap;

use super::sizes::Sizes;
use crate::flow::graph::Graph;

/// How far above a node the line runs that comes back to it.
pub(super) const RETURN: i64 = 14;
/// What is kept free above such a node.
const RETURN_SPACE: i64 = 22;
/// The space a lane takes, and what is kept free below it.
const LANE: (i64, i64) = (10, 8);
/// So many columns are passed by all arrows together. Nobody follows more lines than that, and an arrow past this limit
/// goes straight ahead: else a long chain of sections that all lead back to the first would be a picture without bounds.
const MOST_PASSES: usize = 100_000;

/// What takes up space in a column: a node, or a lane on which arrows pass the column.
struct Item {
    column: usize,
    top: i64,
    height: i64,
    /// Where arrows come in, from its top.
    anchor: i64,
    /// What is kept free above and below.
    above: i64,
    below: i64,
    ties: Vec<Alignment>,
}

/// The wish of an item to be level with another.
struct Alignment {
    other: usize,
    /// What is to be level: of the item itself, and of the other, from their tops.
    own_height: i64,
    other_height: i64,
}

/// All columns, from top to bottom.
pub(super) struct Plan {
    items: Vec<Item>,
    columns: Vec<Vec<usize>>,
    /// By the node that is led to, and the column that is passed. All arrows to one node share a lane.
    lanes: BTreeMap<(usize, usize), usize>,
    /// How many columns are passed.
    passes: usize,
    /// The way of each arrow.
    ways: Vec<RouteKind>,
}

/// How an arrow gets to its node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum RouteKind {
    /// Its node is in the next column.
    Next,
    /// Its node is farther to the right; lanes lead there.
    Onward,
    /// Its node is in the same column or to the left: lanes lead there, and the last bit above the node.
    Back,
    /// There are too many arrows for it to have lanes.
    Straight,
}

impl RouteKind {
    fn between(from: usize, to: usize) -> Self {
        match to {
            to if to == from + 1 => Self::Next,
            to if to > from => Self::Onward,
            _ => Self::Back,
        }
    }
}

/// From which side a sweep looks at the columns.
#[derive(Clone, Copy)]
enum Sweep {
    Rightward,
    Leftward,
}

impl Plan {
    pub(super) fn new(graph: &Graph, columns: &[usize], sizes: &Sizes) -> Self {
        let nodes = columns.iter().zip(&sizes.nodes).map(|(column, size)| Item {
            column: *column,
            top: 0,
            height: size.height,
            anchor: size.anchor,
            above: 0,
            below: size.gap,
            ties: Vec::new(),
        });
        let mut plan =
            Self { items: nodes.collect(), columns: Vec::new(), lanes: BTreeMap::new(), passes: 0, ways: Vec::new() };
        for (arrow, port) in graph.arrows.iter().zip(&sizes.ports) {
            let way = plan.lead(arrow.from, *port, arrow.to);
            plan.ways.push(way);
        }
        plan.columns = vec![Vec::new(); columns.iter().max().map_or(0, |last| last + 1)];
        for (index, item) in plan.items.iter().enumerate() {
            plan.columns[item.column].push(index);
        }
        plan.settle();
        plan
    }

    /// The top of a node.
    pub(super) fn top(&self, node: usize) -> i64 {
        self.items[node].top
    }

    /// The way of each arrow.
    pub(super) fn ways(&self) -> &[RouteKind] {
        &self.ways
    }

    /// The height of the lane to `node` in this column.
    pub(super) fn lane(&self, node: usize, column: usize) -> Option<i64> {
        self.lanes.get(&(node, column)).map(|lane| self.items[*lane].top + self.items[*lane].anchor)
    }

    /// The highest and the lowest place that is taken.
    pub(super) fn extent(&self) -> (i64, i64) {
        let top = self.items.iter().map(|item| item.top - item.above).min();
        let bottom = self.items.iter().map(|item| item.top + item.height).max();
        (top.unwrap_or_default(), bottom.unwrap_or_default())
    }

    /// Makes room for an arrow, and ties together what is on its way.
    fn lead(&mut self, from: usize, port: i64, to: usize) -> RouteKind {
        let (start, end) = (self.items[from].column, self.items[to].column);
        let anchor = self.items[to].anchor;
        let way = RouteKind::between(start, end);
        let passes = if way == RouteKind::Next { 0 } else { start.abs_diff(end) };
        if self.passes + passes > MOST_PASSES {
            return RouteKind::Straight;
        }
        self.passes += passes;
        match way {
            RouteKind::Next | RouteKind::Straight => self.tie((from, port), (to, anchor)),
            RouteKind::Onward => {
                let first = self.build_lanes(to, (start + 1..end).rev(), (to, anchor), Self::tie);
                self.tie((from, port), first);
            }
            // A lane is drawn to the sections it comes from and to where it leads; they are not drawn to it.
            RouteKind::Back => {
                self.items[to].above = RETURN_SPACE;
                let home = (to, -RETURN);
                let first = self.build_lanes(to, end + 1..=start, home, Self::follow);
                if first != home {
                    self.follow(first, (from, port));
                }
            }
        }
        way
    }

    /// The lanes to a node as far as there are none yet, from its `end` on; tells the first that is come to. `tie_end`
    /// ties the last to the end.
    fn build_lanes(
        &mut self,
        node: usize,
        columns: impl Iterator<Item = usize>,
        end: (usize, i64),
        tie_end: fn(&mut Self, (usize, i64), (usize, i64)),
    ) -> (usize, i64) {
        let (height, below) = LANE;
        let mut next = end;
        for column in columns {
            let lane = if let Some(lane) = self.lanes.get(&(node, column)) {
                *lane
            } else {
                let item = Item { column, top: 0, height, anchor: height / 2, above: 0, below, ties: Vec::new() };
                let lane = self.items.len();
                self.items.push(item);
                self.lanes.insert((node, column), lane);
                if next == end {
                    tie_end(self, (lane, height / 2), next);
                } else {
                    self.tie((lane, height / 2), next);
                }
                lane
            };
            next = (lane, height / 2);
        }
        next
    }

    fn tie(&mut self, one: (usize, i64), other: (usize, i64)) {
        self.follow(one, other);
        self.follow(other, one);
    }

    /// Has an item wish to be level with another: each with the height of its own that is meant.
    fn follow(&mut self, item: (usize, i64), other: (usize, i64)) {
        self.items[item.0].ties.push(Alignment { other: other.0, own_height: item.1, other_height: other.1 });
    }

    /// Orders and places the items of each column by where those are that they are tied to. What is on the left is
    /// settled first, then has its say on the right, and so on: a few turns are enough for most arrows to be level.
    fn settle(&mut self) {
        for column in 0..self.columns.len() {
            self.place(column, |_, _| false);
        }
        let all = self.columns.len();
        for sweep in [Sweep::Rightward, Sweep::Leftward, Sweep::Rightward, Sweep::Leftward, Sweep::Rightward] {
            match sweep {
                Sweep::Rightward => (0..all).for_each(|column| self.place(column, |own, other| other <= own)),
                Sweep::Leftward => (0..all).rev().for_each(|column| self.place(column, |own, other| other >= own)),
            }
        }
    }

    /// Places the items of a column as near as may be to where their ties with the columns `that_count` want them.
    fn place(&mut self, column: usize, that_count: impl Fn(usize, usize) -> bool) {
        let mut wishes: Vec<(i64, usize)> =
            self.columns[column].iter().map(|index| (self.wish(*index, &that_count), *index)).collect();
        wishes.sort_by_key(|(top, index)| top + self.items[*index].anchor);
        let wanted: Vec<Wanted> = wishes
            .iter()
            .map(|(top, index)| {
                let item = &self.items[*index];
                Wanted { from: top - item.above, length: item.above + item.height + item.below }
            })
            .collect();
        for ((_, index), from) in wishes.iter().zip(apart(&wanted)) {
            let item = &mut self.items[*index];
            item.top = from + item.above;
        }
        self.columns[column] = wishes.into_iter().map(|(_, index)| index).collect();
    }

    /// Where an item's top would be by its ties; where it is, if there are none that count.
    fn wish(&self, index: usize, that_count: &impl Fn(usize, usize) -> bool) -> i64 {
        let item = &self.items[index];
        let tops = item.ties.iter().filter_map(|tie| {
            let other = &self.items[tie.other];
            that_count(item.column, other.column).then_some(other.top + tie.other_height - tie.own_height)
        });
        let (sum, count) = tops.fold((0, 0), |(sum, count), top| (sum + top, count + 1));
        if count == 0 { item.top } else { i64::div_euclid(sum, count) }
    }
}

/// A stretch of a column that somebody wants.
#[derive(Debug, Clone, Copy)]
struct Wanted {
    from: i64,
    length: i64,
}

/// Where the stretches begin that are in this order and apart, and as near as may be to what is wanted: the sum of the
/// squares of the distances is the least, but for rounding. (Stretches that are in each other's way are put together,
/// and are where they want to be on average.)
fn apart(wanted: &[Wanted]) -> Vec<i64> {
    struct Group {
        sum: i64,
        count: i64,
    }
    impl Group {
        fn place(&self) -> i64 {
            self.sum.div_euclid(self.count)
        }
    }
    let mut groups: Vec<Group> = Vec::new();
    // Where a stretch would be if those before it had no length.
    let mut before = 0;
    for stretch in wanted {
        let mut group = Group { sum: stretch.from - before, count: 1 };
        before += stretch.length;
        while let Some(last) = groups.pop_if(|last| last.place() >= group.place()) {
            group = Group { sum: last.sum + group.sum, count: last.count + group.count };
        }
        groups.push(group);
    }
    let places = groups.iter().flat_map(|group| (0..group.count).map(|_| group.place()));
    let lengths = wanted.iter().scan(0, |before, stretch| {
        let own = *before;
        *before += stretch.length;
        Some(own)
    });
    places.zip(lengths).map(|(place, before)| place + before).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn stretches_are_where_they_want_to_be_or_share_the_way() {
        let apart = |wanted: &[(i64, i64)]| {
            apart(&wanted.iter().map(|(from, length)| Wanted { from: *from, length: *length }).collect::<Vec<_>>())
        };
        assert_eq!(apart(&[]), [0_i64; 0]);
        assert_eq!(apart(&[(-5, 10), (5, 10), (40, 10)]), [-5, 5, 40]);
        assert_eq!(apart(&[(0, 10), (0, 10)]), [-5, 5]);
        assert_eq!(apart(&[(0, 10), (20, 10), (20, 10), (22, 1)]), [0, 10, 20, 30]);
    }

    proptest! {
        #[test]
        fn stretches_are_apart(wanted in prop::collection::vec((-500_i64..500, 1_i64..80), 0..40)) {
            let wanted: Vec<Wanted> = wanted.into_iter().map(|(from, length)| Wanted { from, length }).collect();
            let places = apart(&wanted);
            prop_assert_eq!(places.len(), wanted.len());
            for (pair, first) in places.windows(2).zip(&wanted) {
                prop_assert!(pair[0] + first.length <= pair[1]);
            }
        }
    }
}
