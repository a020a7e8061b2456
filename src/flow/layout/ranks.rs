//! Which column each node is in.

use std::collections::VecDeque;

use crate::delivery::campaign::SectionKind;
use crate::flow::graph::Graph;

/// The column of each node: of a section its distance from the Welcome Message, of what else there is the one after the
/// last section that leads there. Sections that are not reached have a beginning of their own in the first column.
pub(super) fn columns(graph: &Graph) -> Vec<usize> {
    let sections = graph.cards().count();
    let mut leads_to = vec![Vec::new(); sections];
    let mut is_led_to = vec![false; sections];
    for arrow in graph.arrows.iter().filter(|arrow| arrow.to < sections) {
        leads_to[arrow.from].push(arrow.to);
        is_led_to[arrow.to] |= arrow.from != arrow.to;
    }
    let first = graph.cards().position(|card| card.kind == SectionKind::WelcomeMessage);
    let beginnings = (0..sections).filter(|section| !is_led_to[*section]);
    // Of those that remain, the sections of a circle that nothing leads into, the first is as good as any.
    let roots = first.into_iter().chain(beginnings).chain(0..sections);

    let mut ranks: Vec<Option<usize>> = vec![None; sections];
    for root in roots {
        let mut next = VecDeque::from([(root, 0)]);
        while let Some((section, rank)) = next.pop_front() {
            if ranks[section].is_none() {
                ranks[section] = Some(rank);
                next.extend(leads_to[section].iter().map(|to| (*to, rank + 1)));
            }
        }
    }
    let mut columns: Vec<usize> = ranks.into_iter().map(Option::unwrap_or_default).collect();
    columns.resize(graph.nodes.len(), 0);
    for arrow in graph.arrows.iter().filter(|arrow| arrow.to >= sections) {
        columns[arrow.to] = columns[arrow.to].max(columns[arrow.from] + 1);
    }
    columns
}
