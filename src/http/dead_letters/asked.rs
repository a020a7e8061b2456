//! What a query asks of the dead letters: a filter, and a page of what it matches.

use axum::http::StatusCode;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use schemars::JsonSchema;
use serde_json::Map;
use sha2::{Digest as _, Sha256};

use crate::delivery::dead_letter::filter::Filter;
use crate::http::list::Limit;
use crate::http::problem::Problem;

/// Which dead letters, and which page of them.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
#[expect(dead_code, reason = "it is the description of what `Asked` reads")]
pub(super) struct Search {
    #[schemars(flatten)]
    filter: Filter,
    /// The most items of the page.
    #[schemars(default)]
    limit: Limit,
    /// `next` of the page before, with the same filter.
    cursor: Option<String>,
}

/// What a query asks for.
pub(super) struct Asked {
    pub(super) filter: Filter,
    pub(super) limit: Limit,
    pub(super) cursor: Option<String>,
    /// Whether it says which page.
    pub(super) paged: bool,
}

impl Asked {
    pub(super) fn read(query: &str) -> Result<Self, Problem> {
        let bad = |detail: String| Problem::new(StatusCode::BAD_REQUEST, detail);
        let (mut limit, mut cursor, mut fields) = (None, None, Map::new());
        for (name, value) in url::form_urlencoded::parse(query.as_bytes()) {
            let value = value.into_owned();
            match name.as_ref() {
                "limit" => limit = Some(value),
                "cursor" => cursor = Some(value),
                name => {
                    fields.insert(name.to_owned(), value.into());
                }
            }
        }
        let filter = Filter::read(fields, "")
            .map_err(|faults| bad(faults.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")))?;
        let paged = limit.is_some() || cursor.is_some();
        let limit = match limit {
            Some(limit) => limit.parse().map_err(|error| bad(format!("limit {error}")))?,
            None => Limit::default(),
        };
        Ok(Self { filter, limit, cursor, paged })
    }
}

/// A cursor is the offset before which the page begins, and proof of the filter with which it was made.
pub(super) fn cursor(before: u64, filter: &Filter) -> String {
    let bytes: Vec<u8> = before.to_be_bytes().into_iter().chain(proof(filter)).collect();
    URL_SAFE_NO_PAD.encode(bytes)
}

pub(super) fn offset_of(cursor: &str, filter: &Filter) -> Result<u64, Problem> {
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

fn proof(filter: &Filter) -> [u8; PROOF_BYTES] {
    let mut proof = [0; PROOF_BYTES];
    // All of its keys are strings: it can be written.
    let text = serde_json::to_vec(filter).unwrap_or_default();
    proof.copy_from_slice(&Sha256::digest(text)[..PROOF_BYTES]);
    proof
}
