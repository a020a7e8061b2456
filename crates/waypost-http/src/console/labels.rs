//! Texts that say how many and which dead letters a page is about.

use waypost_core::dead_letter::filter::LetterFilter;
use waypost_core::dead_letter::selection::Selection;
use waypost_core::replay::Replay;

use super::format::Count;

/// `1 dead letter`, `1,234 dead letters`.
pub(super) fn letter_count(count: u64) -> String {
    format!("{} dead letter{}", Count(count), if count == 1 { "" } else { "s" })
}

pub(super) fn describe_selection(selection: &Selection) -> String {
    match selection {
        Selection::Ids(ids) => describe_ids(ids.len()),
        Selection::Filter(filter) => describe_filter(filter),
    }
}

/// The letters that a replay was created for.
pub(super) fn describe_replayed(replay: &Replay) -> String {
    match (&replay.filter, &replay.ids) {
        (Some(filter), _) => describe_filter(filter),
        (None, ids) => describe_ids(ids.as_ref().map_or(0, Vec::len)),
    }
}

/// `1 selected dead letter`, `2 selected dead letters`.
fn describe_ids(count: usize) -> String {
    format!("{} selected dead letter{}", Count(count as u64), if count == 1 { "" } else { "s" })
}

/// `label Plans, status 503`, or `all pending` for a filter without conditions.
fn describe_filter(filter: &LetterFilter) -> String {
    let fields = filter.fields();
    if fields.is_empty() {
        return "all pending".to_owned();
    }
    fields.iter().map(|(name, value)| format!("{name} {value}")).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_are_singular_or_plural() {
        assert_eq!([letter_count(1), letter_count(1000)], ["1 dead letter", "1,000 dead letters"]);
        assert_eq!([describe_ids(1), describe_ids(2)], ["1 selected dead letter", "2 selected dead letters"]);
    }

    #[test]
    fn filters_are_described_by_their_conditions() {
        let filter =
            LetterFilter { status: Some(503), label: Some("Welcome Message".to_owned()), ..LetterFilter::default() };
        assert_eq!(describe_selection(&Selection::Filter(filter)), "label Welcome Message, status 503");
        assert_eq!(describe_selection(&Selection::Filter(LetterFilter::default())), "all pending");
    }
}
