//! Reads a list of the API page by page.

use serde_json::Value;

use super::client::Api;
use super::error::CliError;

/// The largest `limit` that the API accepts.
const MAX_PAGE_SIZE: usize = 1000;

pub(super) struct Pages<'a> {
    api: &'a Api,
    list: &'static str,
    query: Vec<(&'a str, &'a str)>,
    cursor: Cursor,
}

/// The position of the next page.
enum Cursor {
    Beginning,
    At(String),
    End,
}

impl<'a> Pages<'a> {
    pub(super) fn new(api: &'a Api, list: &'static str, query: Vec<(&'a str, &'a str)>) -> Self {
        Self { api, list, query, cursor: Cursor::Beginning }
    }

    /// False once the last page was read. True does not promise more items.
    pub(super) fn may_have_more(&self) -> bool {
        !matches!(self.cursor, Cursor::End)
    }

    /// The next page, with at most `limit` items. A page may be empty although more pages follow.
    pub(super) async fn next(&mut self, limit: usize) -> Result<Vec<Value>, CliError> {
        let limit = limit.clamp(1, MAX_PAGE_SIZE).to_string();
        let mut query = self.query.clone();
        query.push(("limit", &limit));
        if let Cursor::At(cursor) = &self.cursor {
            query.push(("cursor", cursor));
        }
        let mut page = self.api.get(&[self.list], &query).await?;
        self.cursor = page["next"].as_str().map_or(Cursor::End, |cursor| Cursor::At(cursor.to_owned()));
        match page["items"].take() {
            Value::Array(items) => Ok(items),
            _ => Err(CliError::new("the server's response is not a list")),
        }
    }

    /// The next `count` items, or fewer if the list ends.
    pub(super) async fn take(&mut self, count: usize) -> Result<Vec<Value>, CliError> {
        let mut items = Vec::new();
        while items.len() < count && self.may_have_more() {
            items.append(&mut self.next(count - items.len()).await?);
        }
        Ok(items)
    }
}
