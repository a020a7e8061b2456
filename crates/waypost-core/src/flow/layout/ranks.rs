//! Assigns each node to a column.

use std::collections::VecDeque;

use crate::campaign::SectionKind;
use crate::flow::graph::Graph;

/// Returns the column of each node. The column of a section is its distance from the Welcome Message. Other nodes are
/// one column to the right of the last section that leads to them. Unreached sections start at the first column.
pub(super) fn columns(graph: &Graph) -> Vec<usize> {
    let section_count = graph.sections().count();
    let mut leads_to = vec![Vec::new(); section_count];
    let mut has_incoming = vec![false; section_count];
    for arrow in graph.arrows.iter().filter(|arrow| arrow.to < section_count) {
        leads_to[arrow.from].push(arrow.to);
        has_incoming[arrow.to] |= arrow.from != arrow.to;
    }
    let first = graph.sections().position(|section| section.kind == SectionKind::WelcomeMessage);
    let entry_points = (0..section_count).filter(|section| !has_incoming[*section]);
    // Only cycles without an incoming arrow remain. They start at their first section.
    let roots = first.into_iter().chain(entry_points).chain(0..section_count);

    let mut ranks: Vec<Option<usize>> = vec![None; section_count];
    for root in roots {
        let mut queue = VecDeque::from([(root, 0)]);
        while let Some((section, rank)) = queue.pop_front() {
            if ranks[section].is_none() {
                ranks[section] = Some(rank);
                queue.extend(leads_to[section].iter().map(|to| (*to, rank + 1)));
            }
        }
    }
    let mut columns: Vec<usize> = ranks.into_iter().map(Option::unwrap_or_default).collect();
    columns.resize(graph.nodes.len(), 0);
    for arrow in graph.arrows.iter().filter(|arrow| arrow.to >= section_count) {
        columns[arrow.to] = columns[arrow.to].max(columns[arrow.from] + 1);
    }
    columns
}
