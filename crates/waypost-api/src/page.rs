//! Pages of lists.

use std::str::FromStr;

use schemars::JsonSchema;
use serde::{Deserialize, Deserializer, Serialize};

/// Maximum number of items of a page.
pub const MAX_LIMIT: u16 = 1000;

/// The query parameters of a list without a filter.
#[derive(Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct PageParams {
    /// Maximum number of items of the page.
    #[serde(default)]
    pub limit: Limit,
    /// `next` of the previous page.
    pub cursor: Option<String>,
}

/// Maximum number of items of a page.
#[derive(Debug, Clone, Copy, JsonSchema, Serialize)]
#[schemars(inline)]
pub struct Limit(#[schemars(range(min = 1, max = 1000))] u16);

impl Limit {
    pub fn get(self) -> usize {
        self.0.into()
    }
}

impl Default for Limit {
    fn default() -> Self {
        Self(100)
    }
}

impl FromStr for Limit {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let limit = text.parse().ok().filter(|limit| (1..=MAX_LIMIT).contains(limit));
        limit.map(Self).ok_or_else(|| format!("must be a number from 1 to {MAX_LIMIT}"))
    }
}

impl<'de> Deserialize<'de> for Limit {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

/// A page of a list.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[schemars(rename = "{T}List")]
pub struct Page<T> {
    pub items: Vec<T>,
    /// The `cursor` of the next page; null on the last page.
    pub next: Option<String>,
}

impl<T> Page<T> {
    /// `items` has up to `limit + 1` items: the extra one shows that there is a next page. The cursor is made from the
    /// page's last item.
    pub fn new(mut items: Vec<T>, limit: Limit, cursor: impl Fn(&T) -> String) -> Self {
        let has_more = items.len() > limit.get();
        items.truncate(limit.get());
        let next = items.last().filter(|_| has_more).map(cursor);
        Self { items, next }
    }
}
