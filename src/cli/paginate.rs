//! A list of the API, page after page.

use serde_json::Value;

use super::CliError;
use super::client::Api;

/// The most the API gives on one page.
const LARGEST: usize = 1000;

/// A list that is read from its beginning.
pub(super) struct Pages<'a> {
    api: &'a Api,
    list: &'static str,
    query: Vec<(&'a str, &'a str)>,
    cursor: Cursor,
}

/// Where the next page begins.
enum Cursor {
    Beginning,
    At(String),
    End,
}

impl<'a> Pages<'a> {
    pub(super) fn new(api: &'a Api, list: &'static str, query: Vec<(&'a str, &'a str)>) -> Self {
        Self { api, list, query, cursor: Cursor::Beginning }
    }

    /// Whether there may be more: nobody knows before the next page is there.
    pub(super) fn may_go_on(&self) -> bool {
        !matches!(self.cursor, Cursor::End)
    }

    /// The next page, with at most so many items. It may be empty though others follow.
    pub(super) async fn next(&mut self, most: usize) -> Result<Vec<Value>, CliError> {
        let most = most.clamp(1, LARGEST).to_string();
        let mut query = self.query.clone();
        query.push(("limit", &most));
        if let Cursor::At(cursor) = &self.cursor {
            query.push(("cursor", cursor));
        }
        let mut page = self.api.get(&[self.list], &query).await?;
        self.cursor = page["next"].as_str().map_or(Cursor::End, |cursor| Cursor::At(cursor.to_owned()));
        match page["items"].take() {
            Value::Array(items) => Ok(items),
            _ => Err(CliError::new("the server's answer is no list")),
        }
    }

    /// The next so many items, fewer only at the end.
    pub(super) async fn take(&mut self, count: usize) -> Result<Vec<Value>, CliError> {
        let mut items = Vec::new();
        while items.len() < count && self.may_go_on() {
            items.append(&mut self.next(count - items.len()).await?);
        }
        Ok(items)
    }
}
