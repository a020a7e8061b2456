//! URLs of the console's pages.

use waypost_core::dead_letter::filter::LetterFilter;
use waypost_core::ids::{DeadLetterId, ReplayId};

use super::form::{percent_encode, with_query};

pub(super) fn campaign(id: &str) -> String {
    format!("/campaigns/{}", percent_encode(id))
}

pub(super) fn dead_letter(id: &DeadLetterId) -> String {
    format!("/dead-letters/{}", percent_encode(id.as_str()))
}

/// The list of the dead letters that match a filter. Without a query, the list shows only pending dead letters. An
/// empty filter therefore becomes an empty `state`.
pub(super) fn letter_list(filter: &LetterFilter) -> String {
    let fields = filter.fields();
    if fields.is_empty() { "/dead-letters?state=".to_owned() } else { letter_list_with(&fields) }
}

/// The list of dead letters with these query fields.
pub(super) fn letter_list_with(fields: &[(&'static str, String)]) -> String {
    let fields: Vec<(&str, &str)> = fields.iter().map(|(name, value)| (*name, value.as_str())).collect();
    with_query("/dead-letters", &fields)
}

pub(super) fn replay(id: &ReplayId) -> String {
    format!("/replays/{}", percent_encode(id.as_str()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_list_of_dead_letters_has_a_url_for_each_filter() {
        assert_eq!(letter_list(&LetterFilter::default()), "/dead-letters?state=");
        let filter =
            LetterFilter { status: Some(503), label: Some("Welcome Message".to_owned()), ..LetterFilter::default() };
        assert_eq!(letter_list(&filter), "/dead-letters?label=Welcome+Message&status=503");
    }
}
