//! The filter form of the list of dead letters, read from the query of the URL.

use chrono::{DateTime, Utc};
use waypost_core::dead_letter::filter::LetterFilter;
use waypost_core::time_spec::TimeSpec;
use waypost_core::timestamp;

use crate::console::form::Form;
use crate::console::form_errors::Errors;
use crate::console::links;
use crate::dead_letters::query;

/// Query fields that are allowed besides the fields of the filter. The page ignores `limit`, which the API has.
const EXTRA_FIELDS: [&str; 2] = ["cursor", "limit"];

#[derive(Debug)]
pub(super) struct FilterForm {
    fields: Vec<(&'static str, String)>,
    /// The default if there are errors.
    pub(super) filter: LetterFilter,
    pub(super) errors: Errors,
    /// The canonical URL of the same list, if the request had another one. The page redirects there.
    pub(super) canonical_href: Option<String>,
}

/// A condition of the filter, and the URL of the list without it.
pub(super) struct Condition {
    pub(super) name: &'static str,
    pub(super) value: String,
    pub(super) without_href: String,
}

impl FilterForm {
    /// Reads the query of the URL. Without a query, the list shows pending letters.
    pub(super) fn read(query: &Form, now: DateTime<Utc>) -> Self {
        let mut is_canonical = query.names().next().is_some();
        let mut fields = Vec::new();
        for name in LetterFilter::FIELDS.into_iter().filter(|name| query.has(name)) {
            let Some(value) = query.get_non_blank(name) else {
                // Browsers also send empty fields. A single empty `state` means every state.
                is_canonical &= query.names().count() == 1 && name == "state";
                continue;
            };
            let value = match TimeSpec::parse(value) {
                // A relative time becomes absolute, so that a shared URL always shows the same list.
                Ok(time @ TimeSpec::Ago(_)) if ["since", "until"].contains(&name) => {
                    is_canonical = false;
                    timestamp::text(&time.at(now))
                }
                _ => value.to_owned(),
            };
            fields.push((name, value));
        }
        if query.names().next().is_none() {
            fields.push(("state", "pending".to_owned()));
        }
        let unknown = query.names().find(|name| !LetterFilter::FIELDS.contains(name) && !EXTRA_FIELDS.contains(name));
        let parsed = query::filter(fields.iter().map(|(name, value)| ((*name).to_owned(), value.clone())));
        let (filter, errors) = match (parsed, unknown) {
            (Err(violations), _) => (LetterFilter::default(), Errors::of_fields(violations, &LetterFilter::FIELDS)),
            (Ok(_), Some(unknown)) => {
                let fields = LetterFilter::FIELDS.join(", ");
                let message = format!("Unknown filter field {unknown} in the URL. Use one of: {fields}.");
                (LetterFilter::default(), Errors::general(message))
            }
            (Ok(filter), None) => (filter, Errors::default()),
        };
        let canonical_href = (!is_canonical && errors.is_empty()).then(|| links::letter_list(&filter));
        Self { fields, filter, errors, canonical_href }
    }

    /// The text of a field. Empty if the query has no such field.
    pub(super) fn value(&self, name: &str) -> &str {
        self.fields.iter().find(|(field, _)| *field == name).map_or("", |(_, value)| value)
    }

    /// The URL of the same list for the last `ago`, such as `24h`.
    pub(super) fn since_href(&self, ago: &str) -> String {
        let filter = LetterFilter { since: None, until: None, ..self.filter.clone() };
        links::letter_list_with(&[filter.fields(), vec![("since", ago.to_owned())]].concat())
    }

    /// The conditions except the state, which the tabs show.
    pub(super) fn conditions(&self) -> Vec<Condition> {
        let fields = self.filter.fields().into_iter().filter(|(name, _)| *name != "state");
        let condition =
            |(name, value)| Condition { without_href: links::letter_list(&without(&self.filter, name)), name, value };
        fields.map(condition).collect()
    }
}

fn without(filter: &LetterFilter, name: &str) -> LetterFilter {
    let fields = filter.fields().into_iter().filter(|(field, _)| *field != name);
    // A valid filter stays valid without one of its conditions.
    query::filter(fields.map(|(name, value)| (name.to_owned(), value))).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use waypost_core::dead_letter::LetterState;

    use super::*;

    fn read(query: &str) -> FilterForm {
        let now = timestamp::parse("2026-11-22T03:00:00Z").expect("a time");
        FilterForm::read(&Form::parse(query.as_bytes()), now)
    }

    #[test]
    fn the_url_becomes_canonical_and_absolute() {
        for (query, canonical_href) in [
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
            assert_eq!(read(query).canonical_href.as_deref(), canonical_href, "{query}");
        }
        assert_eq!(read("").filter.state, Some(LetterState::Pending));
        assert_eq!(read("state=").filter, LetterFilter::default());
    }

    #[test]
    fn errors_are_shown_beside_their_fields() {
        let form = read("status=5xx&since=yesterday&label=a");
        assert_eq!(form.errors.of_field("status"), ["must be an HTTP status like 503"]);
        assert_eq!(form.errors.of_field("since").len(), 1);
        assert_eq!((form.value("status"), form.value("label"), form.value("until")), ("5xx", "a", ""));
        assert!(read("campaign=13010").errors.rest()[0].contains("campaignId"));
        assert!(read("limit=10&status=503").errors.is_empty());
    }

    #[test]
    fn each_condition_links_to_the_list_without_it() {
        let conditions = read("status=503&reason=exhausted&state=pending").conditions();
        assert_eq!(read("status=503&until=1h").since_href("24h"), "/dead-letters?status=503&since=24h");
        let without: Vec<_> =
            conditions.iter().map(|condition| (condition.name, condition.without_href.as_str())).collect();
        let expected = [
            ("reason", "/dead-letters?status=503&state=pending"),
            ("status", "/dead-letters?reason=exhausted&state=pending"),
        ];
        assert_eq!(without, expected);
    }
}
