//! The query of the list of dead letters: a filter and a page.

use std::collections::BTreeMap;

use axum::http::StatusCode;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use schemars::JsonSchema;
use sha2::{Digest as _, Sha256};
use waypost_api::page::Limit;
use waypost_core::dead_letter::filter::LetterFilter;
use waypost_core::violation::Violation;

use crate::problem::{INVALID_CURSOR, Problem};

/// The query parameters of the list of dead letters.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
#[expect(dead_code, reason = "only its schema is used, to describe the parameters of `LetterQuery`")]
pub(super) struct SearchParams {
    #[schemars(flatten)]
    filter: LetterFilter,
    /// Maximum number of items of the page.
    #[schemars(default)]
    limit: Limit,
    /// `next` of the previous page, with the same filter.
    cursor: Option<String>,
}

pub(super) struct LetterQuery {
    pub(super) filter: LetterFilter,
    pub(super) limit: Limit,
    pub(super) cursor: Option<String>,
    /// Whether the query has `limit` or `cursor`.
    pub(super) has_page: bool,
}

impl LetterQuery {
    pub(super) fn parse(query: &str) -> Result<Self, Problem> {
        let bad = |detail: String| Problem::new(StatusCode::BAD_REQUEST, detail);
        let mut fields: BTreeMap<String, String> = BTreeMap::new();
        for (name, value) in url::form_urlencoded::parse(query.as_bytes()) {
            if let Some(_earlier) = fields.insert(name.clone().into_owned(), value.into_owned()) {
                return Err(bad(format!("{name} is given twice: send it once")));
            }
        }
        let (limit, cursor) = (fields.remove("limit"), fields.remove("cursor"));
        let filter = filter(fields)
            .map_err(|violations| bad(violations.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")))?;
        let has_page = limit.is_some() || cursor.is_some();
        let limit = match limit {
            Some(limit) => limit.parse().map_err(|error| bad(format!("limit {error}")))?,
            None => Limit::default(),
        };
        Ok(Self { filter, limit, cursor, has_page })
    }
}

/// Parses a filter from the fields of a query. [`LetterFilter::fields`] returns them again.
pub(crate) fn filter(fields: impl IntoIterator<Item = (String, String)>) -> Result<LetterFilter, Vec<Violation>> {
    let fields = fields.into_iter().map(|(name, value)| match name.as_str() {
        "since" | "until" => (name, with_plus(value).into()),
        "phoneNumber" => (name, phone_with_plus(value).into()),
        _ => (name, value.into()),
    });
    LetterFilter::read(fields, "")
}

/// Restores the plus of a time's offset. An unencoded plus is a space in a query.
fn with_plus(time: String) -> String {
    const OFFSET: usize = "+02:00".len();
    match time.len().checked_sub(OFFSET).and_then(|at| time.split_at_checked(at)) {
        Some((time, offset)) if time.contains(['T', 't']) && offset.starts_with(' ') => {
            format!("{time}+{}", &offset[1..])
        }
        _ => time,
    }
}

/// Restores the plus of a phone number. An unencoded plus is a space in a query.
fn phone_with_plus(phone_number: String) -> String {
    match phone_number.strip_prefix(' ') {
        Some(digits) if digits.starts_with(|c: char| c.is_ascii_digit()) => format!("+{digits}"),
        _ => phone_number,
    }
}

/// Encodes the offset before which the next page begins, and a hash of the filter.
pub(crate) fn encode_cursor(before: u64, filter: &LetterFilter) -> String {
    let bytes: Vec<u8> = before.to_be_bytes().into_iter().chain(filter_hash(filter)).collect();
    URL_SAFE_NO_PAD.encode(bytes)
}

/// Decodes a cursor of [`encode_cursor`] with the same filter.
pub(crate) fn decode_cursor(cursor: &str, filter: &LetterFilter) -> Result<u64, Problem> {
    let bad = |detail| Problem::new(StatusCode::BAD_REQUEST, detail);
    let bytes = URL_SAFE_NO_PAD.decode(cursor).map_err(|_| bad(INVALID_CURSOR))?;
    let (before, hash) = bytes.split_first_chunk::<8>().ok_or_else(|| bad(INVALID_CURSOR))?;
    if hash.len() != HASH_BYTES {
        return Err(bad(INVALID_CURSOR));
    }
    if hash != filter_hash(filter) {
        return Err(bad("cursor: made for another filter; begin again without it"));
    }
    Ok(u64::from_be_bytes(*before))
}

const HASH_BYTES: usize = 8;

fn filter_hash(filter: &LetterFilter) -> [u8; HASH_BYTES] {
    let mut hash = [0; HASH_BYTES];
    // Serialization can't fail: all keys are strings.
    let json = serde_json::to_vec(filter).unwrap_or_default();
    hash.copy_from_slice(&Sha256::digest(json)[..HASH_BYTES]);
    hash
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_phone_number_may_have_a_space_for_its_plus() {
        for (query, phone_number) in [
            ("phoneNumber=%2B5511999990000", "+5511999990000"),
            ("phoneNumber=+5511999990000", "+5511999990000"),
            ("phoneNumber=5511999990000", "5511999990000"),
            ("phoneNumber=+a", " a"),
        ] {
            let parsed =
                LetterQuery::parse(query).map_err(|problem| format!("{query}: {problem:?}")).expect("a question");
            assert_eq!(parsed.filter.phone_number.as_deref(), Some(phone_number), "{query}");
        }
    }

    #[test]
    fn an_offset_may_have_a_space_for_its_plus() {
        for (query, since) in [
            ("since=2024-06-18T20:26:14+02:00", "2024-06-18T18:26:14Z"),
            ("since=2024-06-18T20:26:14%2B02:00", "2024-06-18T18:26:14Z"),
            ("since=2024-06-18T20:26:14.5+00:00", "2024-06-18T20:26:14.5Z"),
            ("since=2024-06-18T20:26:14-02:00", "2024-06-18T22:26:14Z"),
            ("since=2024-06-18+20:26:14Z", "2024-06-18T20:26:14Z"),
        ] {
            let parsed =
                LetterQuery::parse(query).map_err(|problem| format!("{query}: {problem:?}")).expect("a question");
            assert_eq!(parsed.filter.since, waypost_core::timestamp::parse(since).ok(), "{query}");
        }
        for query in
            ["since=+02:00", "since=2024-06-18+20:26", "since=", "since=ü02:00", "label=a&label=a", "limit=1&limit=1"]
        {
            assert!(LetterQuery::parse(query).is_err(), "{query}");
        }
    }
}
