//! What a query asks of the dead letters: a filter, and a page of what it matches.

use std::collections::BTreeMap;

use axum::http::StatusCode;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use schemars::JsonSchema;
use sha2::{Digest as _, Sha256};

use crate::delivery::dead_letter::filter::LetterFilter;
use crate::delivery::violation::Violation;
use crate::http::pagination::Limit;
use crate::http::problem::Problem;

/// Which dead letters, and which page of them.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
#[expect(dead_code, reason = "it is the description of what `Asked` reads")]
pub(super) struct Search {
    #[schemars(flatten)]
    filter: LetterFilter,
    /// The most items of the page.
    #[schemars(default)]
    limit: Limit,
    /// `next` of the page before, with the same filter.
    cursor: Option<String>,
}

/// What a query asks for.
pub(super) struct LetterQuery {
    pub(super) filter: LetterFilter,
    pub(super) limit: Limit,
    pub(super) cursor: Option<String>,
    /// Whether it says which page.
    pub(super) paged: bool,
}

impl LetterQuery {
    pub(super) fn read(query: &str) -> Result<Self, Problem> {
        let bad = |detail: String| Problem::new(StatusCode::BAD_REQUEST, detail);
        let mut given: BTreeMap<String, String> = BTreeMap::new();
        for (name, value) in url::form_urlencoded::parse(query.as_bytes()) {
            if let Some(_earlier) = given.insert(name.clone().into_owned(), value.into_owned()) {
                return Err(bad(format!("{name} is given twice: send it once")));
            }
        }
        let (limit, cursor) = (given.remove("limit"), given.remove("cursor"));
        let filter = filter(given)
            .map_err(|faults| bad(faults.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")))?;
        let paged = limit.is_some() || cursor.is_some();
        let limit = match limit {
            Some(limit) => limit.parse().map_err(|error| bad(format!("limit {error}")))?,
            None => Limit::default(),
        };
        Ok(Self { filter, limit, cursor, paged })
    }
}

/// The filter in the fields of a query, or all that is wrong with them, by field.
pub(in crate::http) fn filter(
    given: impl IntoIterator<Item = (String, String)>,
) -> Result<LetterFilter, Vec<Violation>> {
    let fields = given.into_iter().map(|(name, value)| match name.as_str() {
        "since" | "until" => (name, with_plus(value).into()),
        "phoneNumber" => (name, phone_with_plus(value).into()),
        _ => (name, value.into()),
    });
    LetterFilter::read(fields, "")
}

/// The fields of a query that a filter is read from.
pub(in crate::http) fn fields(filter: &LetterFilter) -> Vec<(&'static str, String)> {
    // All of its keys are strings: it can be written.
    let written = serde_json::to_value(filter).unwrap_or_default();
    let text = |name: &'static str| match &written[name] {
        serde_json::Value::String(text) => Some((name, text.clone())),
        serde_json::Value::Number(number) => Some((name, number.to_string())),
        _ => None,
    };
    LetterFilter::FIELDS.into_iter().filter_map(text).collect()
}

/// A time whose offset has lost its plus: in a query that is a space.
fn with_plus(time: String) -> String {
    const OFFSET: usize = "+02:00".len();
    match time.len().checked_sub(OFFSET).and_then(|at| time.split_at_checked(at)) {
        Some((time, offset)) if time.contains(['T', 't']) && offset.starts_with(' ') => {
            format!("{time}+{}", &offset[1..])
        }
        _ => time,
    }
}

/// A phone number whose plus was not encoded: in a query that is a space.
fn phone_with_plus(phone_number: String) -> String {
    match phone_number.strip_prefix(' ') {
        Some(digits) if digits.starts_with(|c: char| c.is_ascii_digit()) => format!("+{digits}"),
        _ => phone_number,
    }
}

/// A cursor is the offset before which the page begins, and proof of the filter with which it was made.
pub(in crate::http) fn cursor(before: u64, filter: &LetterFilter) -> String {
    let bytes: Vec<u8> = before.to_be_bytes().into_iter().chain(proof(filter)).collect();
    URL_SAFE_NO_PAD.encode(bytes)
}

pub(in crate::http) fn offset_of(cursor: &str, filter: &LetterFilter) -> Result<u64, Problem> {
    let bad = |detail| Problem::new(StatusCode::BAD_REQUEST, detail);
    let no_cursor = "cursor: not one that this list has given";
    let bytes = URL_SAFE_NO_PAD.decode(cursor).map_err(|_| bad(no_cursor))?;
    let (before, given) = bytes.split_first_chunk::<8>().ok_or_else(|| bad(no_cursor))?;
    if given.len() != PROOF_BYTES {
        return Err(bad(no_cursor));
    }
    if given != proof(filter) {
        return Err(bad("cursor: made for another filter; begin again without it"));
    }
    Ok(u64::from_be_bytes(*before))
}

const PROOF_BYTES: usize = 8;

fn proof(filter: &LetterFilter) -> [u8; PROOF_BYTES] {
    let mut proof = [0; PROOF_BYTES];
    // All of its keys are strings: it can be written.
    let text = serde_json::to_vec(filter).unwrap_or_default();
    proof.copy_from_slice(&Sha256::digest(text)[..PROOF_BYTES]);
    proof
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_plus_of_a_phone_number_may_be_a_space() {
        for (query, phone_number) in [
            ("phoneNumber=%2B5511999990000", "+5511999990000"),
            ("phoneNumber=+5511999990000", "+5511999990000"),
            ("phoneNumber=5511999990000", "5511999990000"),
            ("phoneNumber=+a", " a"),
        ] {
            let asked =
                LetterQuery::read(query).map_err(|problem| format!("{query}: {problem:?}")).expect("a question");
            assert_eq!(asked.filter.phone_number.as_deref(), Some(phone_number), "{query}");
        }
    }

    #[test]
    fn the_plus_of_an_offset_may_be_a_space() {
        for (query, since) in [
            ("since=2024-06-18T20:26:14+02:00", "2024-06-18T18:26:14Z"),
            ("since=2024-06-18T20:26:14%2B02:00", "2024-06-18T18:26:14Z"),
            ("since=2024-06-18T20:26:14.5+00:00", "2024-06-18T20:26:14.5Z"),
            ("since=2024-06-18T20:26:14-02:00", "2024-06-18T22:26:14Z"),
            ("since=2024-06-18+20:26:14Z", "2024-06-18T20:26:14Z"),
        ] {
            let asked =
                LetterQuery::read(query).map_err(|problem| format!("{query}: {problem:?}")).expect("a question");
            assert_eq!(asked.filter.since, crate::delivery::timestamp::parse(since).ok(), "{query}");
        }
        for query in
            ["since=+02:00", "since=2024-06-18+20:26", "since=", "since=ü02:00", "label=a&label=a", "limit=1&limit=1"]
        {
            assert!(LetterQuery::read(query).is_err(), "{query}");
        }
    }
}
