//! Which dead letters are meant, as people read it, and where they are listed.

use super::super::dead_letters::query;
use super::form::address;
use super::format::Count;
use crate::delivery::dead_letter::filter::LetterFilter;
use crate::delivery::dead_letter::selection::Selection;

/// `1 dead letter`, `1,234 dead letters`.
pub(super) fn dead_letters(count: u64) -> String {
    format!("{} dead letter{}", Count(count), if count == 1 { "" } else { "s" })
}

/// Where the letters are listed that a filter matches. One without any condition has to say so: the list by itself is that of
/// the pending ones.
pub(super) fn list_of(filter: &LetterFilter) -> String {
    let fields = query::fields(filter);
    if fields.is_empty() { "/dead-letters?state=".to_owned() } else { at(&fields) }
}

/// The list with these fields in its address.
pub(super) fn at(fields: &[(&'static str, String)]) -> String {
    let fields: Vec<(&str, &str)> = fields.iter().map(|(name, value)| (*name, value.as_str())).collect();
    address("/dead-letters", &fields)
}

/// Which letters were chosen.
pub(super) fn which(choice: &Selection) -> String {
    match choice {
        Selection::Ids(ids) => format!("{} chosen one by one", dead_letters(ids.len() as u64)),
        Selection::Filter(filter) => conditions(filter),
    }
}

/// What a filter asks for.
pub(super) fn conditions(filter: &LetterFilter) -> String {
    let fields = query::fields(filter);
    if fields.is_empty() {
        return "all that are pending".to_owned();
    }
    fields.iter().map(|(name, value)| format!("{name} {value}")).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn how_many() {
        assert_eq!([dead_letters(1), dead_letters(1000)], ["1 dead letter", "1,000 dead letters"]);
    }

    #[test]
    fn a_list_has_an_address() {
        assert_eq!(list_of(&LetterFilter::default()), "/dead-letters?state=");
        let filter =
            LetterFilter { status: Some(503), label: Some("Welcome Message".to_owned()), ..LetterFilter::default() };
        assert_eq!(list_of(&filter), "/dead-letters?label=Welcome+Message&status=503");
        assert_eq!(which(&Selection::Filter(filter)), "label Welcome Message, status 503");
        assert_eq!(which(&Selection::Filter(LetterFilter::default())), "all that are pending");
    }
}
