//! The filter of the list: as it stands in the address and in its form, and what it means.

use chrono::{DateTime, Utc};

use super::super::form::Form;
use super::super::form_errors::Errors;
use super::super::labels::{at, list_of};
use crate::delivery::dead_letter::filter::LetterFilter;
use crate::delivery::time_spec::TimeSpec;
use crate::delivery::timestamp;
use crate::http::dead_letters::query;

/// Names that the address may have beside the filter's; the size of a page is for programs.
const BESIDE: [&str; 2] = ["cursor", "limit"];

/// The filter that an address asks for.
#[derive(Debug)]
pub(super) struct FilterForm {
    fields: Vec<(&'static str, String)>,
    /// Nothing, where there are errors.
    pub(super) filter: LetterFilter,
    pub(super) errors: Errors,
    /// Where the same list has an address that says it more plainly.
    pub(super) plainly: Option<String>,
}

/// A condition that holds, and the address of the list without it.
pub(super) struct Condition {
    pub(super) name: &'static str,
    pub(super) value: String,
    pub(super) without: String,
}

impl FilterForm {
    /// Reads the query of an address. The list itself, without a word, is that of the pending letters.
    pub(super) fn read(query: &Form, now: DateTime<Utc>) -> Self {
        let mut is_plain = query.names().next().is_some();
        let mut fields = Vec::new();
        for name in LetterFilter::FIELDS.into_iter().filter(|name| query.has(name)) {
            let Some(value) = query.given(name) else {
                // A form sends the empty ones too. An empty state alone means every state.
                is_plain &= query.names().count() == 1 && name == "state";
                continue;
            };
            let value = match TimeSpec::parse(value) {
                // What is shared means the same tomorrow.
                Ok(moment @ TimeSpec::Ago(_)) if ["since", "until"].contains(&name) => {
                    is_plain = false;
                    timestamp::text(&moment.at(now))
                }
                _ => value.to_owned(),
            };
            fields.push((name, value));
        }
        if query.names().next().is_none() {
            fields.push(("state", "pending".to_owned()));
        }
        let unknown = query.names().find(|name| !LetterFilter::FIELDS.contains(name) && !BESIDE.contains(name));
        let read = query::filter(fields.iter().map(|(name, value)| ((*name).to_owned(), value.clone())));
        let (filter, errors) = match (read, unknown) {
            (Err(faults), _) => (LetterFilter::default(), Errors::of_fields(faults, &LetterFilter::FIELDS)),
            (Ok(_), Some(unknown)) => {
                let message =
                    format!("The address asks for {unknown}: a filter has {}", LetterFilter::FIELDS.join(", "));
                (LetterFilter::default(), Errors::rest_of(message))
            }
            (Ok(filter), None) => (filter, Errors::default()),
        };
        let plainly = (!is_plain && errors.is_empty()).then(|| list_of(&filter));
        Self { fields, filter, errors, plainly }
    }

    /// What stands in a field.
    pub(super) fn value(&self, name: &str) -> &str {
        self.fields.iter().find(|(field, _)| *field == name).map_or("", |(_, value)| value)
    }

    /// The address of the same list since then.
    pub(super) fn since(&self, ago: &str) -> String {
        let filter = LetterFilter { since: None, until: None, ..self.filter.clone() };
        at(&[query::fields(&filter), vec![("since", ago.to_owned())]].concat())
    }

    /// The conditions one by one, but for the state, which has its tabs.
    pub(super) fn conditions(&self) -> Vec<Condition> {
        let fields = query::fields(&self.filter).into_iter().filter(|(name, _)| *name != "state");
        let condition = |(name, value)| Condition { without: list_of(&without(&self.filter, name)), name, value };
        fields.map(condition).collect()
    }
}

/// The same filter without one of its conditions.
fn without(filter: &LetterFilter, name: &str) -> LetterFilter {
    let fields = query::fields(filter).into_iter().filter(|(field, _)| *field != name);
    // What could be read with a condition more can be read.
    query::filter(fields.map(|(name, value)| (name.to_owned(), value))).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::delivery::dead_letter::LetterState;

    fn read(query: &str) -> FilterForm {
        let now = timestamp::parse("2026-11-22T03:00:00Z").expect("a time");
        FilterForm::read(&Form::read(query.as_bytes()), now)
    }

    #[test]
    fn an_address_is_plain_and_means_the_same_later() {
        for (query, plainly) in [
            ("", Some("/dead-letters?state=pending")),
            ("state=", None),
            ("state=&cursor=", Some("/dead-letters?state=")),
            ("state=pending", None),
            ("status=503", None),
            ("status=503&label=&state=", Some("/dead-letters?status=503")),
            ("since=2h&state=pending", Some("/dead-letters?since=2026-11-22T01%3A00%3A00.000Z&state=pending")),
            ("since=2026-11-22T01:00:00.000Z", None),
            ("status=5xx&label=", None),
        ] {
            assert_eq!(read(query).plainly.as_deref(), plainly, "{query}");
        }
        assert_eq!(read("").filter.state, Some(LetterState::Pending));
        assert_eq!(read("state=").filter, LetterFilter::default());
    }

    #[test]
    fn what_is_wrong_is_beside_its_field() {
        let typed = read("status=5xx&since=yesterday&label=a");
        assert_eq!(typed.errors.of_field("status"), ["an HTTP status is a number like 503"]);
        assert_eq!(typed.errors.of_field("since").len(), 1);
        assert_eq!((typed.value("status"), typed.value("label"), typed.value("until")), ("5xx", "a", ""));
        assert!(read("campaign=13010").errors.rest()[0].contains("campaignId"));
        assert!(read("limit=10&status=503").errors.is_empty());
    }

    #[test]
    fn each_condition_can_be_left_out() {
        let conditions = read("status=503&reason=exhausted&state=pending").conditions();
        assert_eq!(read("status=503&until=1h").since("24h"), "/dead-letters?status=503&since=24h");
        let without: Vec<_> = conditions.iter().map(|one| (one.name, one.without.as_str())).collect();
        let expected = [
            ("reason", "/dead-letters?status=503&state=pending"),
            ("status", "/dead-letters?reason=exhausted&state=pending"),
        ];
        assert_eq!(without, expected);
    }
}
