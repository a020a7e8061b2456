//! Numbers and choices as people read them.

use std::fmt;

use super::super::dead_letters::asked;
use super::form::address;
use crate::delivery::dead_letter::choice::Choice;
use crate::delivery::dead_letter::filter::Filter;

/// A count: `1,234`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Count(pub(super) u64);

impl fmt::Display for Count {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let digits = self.0.to_string();
        for (place, digit) in digits.char_indices() {
            if place > 0 && (digits.len() - place).is_multiple_of(3) {
                f.write_str(",")?;
            }
            write!(f, "{digit}")?;
        }
        Ok(())
    }
}

impl askama::filters::HtmlSafe for Count {}

/// `1 dead letter`, `1,234 dead letters`.
pub(super) fn dead_letters(count: u64) -> String {
    format!("{} dead letter{}", Count(count), if count == 1 { "" } else { "s" })
}

/// Where the letters are listed that a filter matches. One without any condition has to say so: the list by itself is that of
/// the pending ones.
pub(super) fn list_of(filter: &Filter) -> String {
    let fields = asked::fields(filter);
    if fields.is_empty() { "/dead-letters?state=".to_owned() } else { at(&fields) }
}

/// The list with these fields in its address.
pub(super) fn at(fields: &[(&'static str, String)]) -> String {
    let fields: Vec<(&str, &str)> = fields.iter().map(|(name, value)| (*name, value.as_str())).collect();
    address("/dead-letters", &fields)
}

/// Which letters were chosen.
pub(super) fn which(choice: &Choice) -> String {
    match choice {
        Choice::Ids(ids) => format!("{} chosen one by one", dead_letters(ids.len() as u64)),
        Choice::Filter(filter) => conditions(filter),
    }
}

/// What a filter asks for.
pub(super) fn conditions(filter: &Filter) -> String {
    let fields = asked::fields(filter);
    if fields.is_empty() {
        return "all that are pending".to_owned();
    }
    fields.iter().map(|(name, value)| format!("{name} {value}")).collect::<Vec<_>>().join(", ")
}

/// Of `total`, in percent; what is there at all is seen.
pub(super) fn percent(count: u64, total: u64) -> u64 {
    let percent = u128::from(count) * 100 / u128::from(total.max(1));
    u64::try_from(percent).unwrap_or(100).clamp(u64::from(count > 0), 100)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers() {
        let shown = [0, 7, 999, 1000, 12_345, 1_234_567].map(|count| Count(count).to_string());
        assert_eq!(shown, ["0", "7", "999", "1,000", "12,345", "1,234,567"]);
        assert_eq!([dead_letters(1), dead_letters(1000)], ["1 dead letter", "1,000 dead letters"]);
        assert_eq!(
            [percent(0, 0), percent(0, 9), percent(1, 1_000_000), percent(1, 2), percent(9, 9)],
            [0, 0, 1, 50, 100]
        );
    }

    #[test]
    fn a_list_has_an_address() {
        assert_eq!(list_of(&Filter::default()), "/dead-letters?state=");
        let filter = Filter { status: Some(503), label: Some("Welcome Message".to_owned()), ..Filter::default() };
        assert_eq!(list_of(&filter), "/dead-letters?label=Welcome+Message&status=503");
        assert_eq!(which(&Choice::Filter(filter)), "label Welcome Message, status 503");
        assert_eq!(which(&Choice::Filter(Filter::default())), "all that are pending");
    }
}
