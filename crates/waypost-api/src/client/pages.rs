//! Reads a list page by page.

use std::marker::PhantomData;

use reqwest::Method;
use serde_json::Value;

use super::{Answer, Client, ClientError, Request};
use crate::page::{MAX_LIMIT, Page};

pub struct Pages<'a, T> {
    client: &'a Client,
    list: &'static str,
    query: Vec<(&'static str, String)>,
    cursor: Cursor,
    kind: PhantomData<fn() -> T>,
}

/// The position of the next page.
enum Cursor {
    Beginning,
    At(String),
    End,
}

impl<'a, T> Pages<'a, T> {
    pub(super) fn new(client: &'a Client, list: &'static str, query: Vec<(&'static str, String)>) -> Self {
        Self { client, list, query, cursor: Cursor::Beginning, kind: PhantomData }
    }

    /// False once the last page was read. True does not promise more items.
    pub fn may_have_more(&self) -> bool {
        !matches!(self.cursor, Cursor::End)
    }

    /// The next page, with at most `limit` items. A page may be empty although more pages follow.
    ///
    /// # Errors
    /// Those of a request. The next call asks for the same page again.
    pub async fn next(&mut self, limit: usize) -> Result<Vec<Answer<T>>, ClientError> {
        let mut query = self.query.clone();
        query.push(("limit", limit.clamp(1, MAX_LIMIT.into()).to_string()));
        if let Cursor::At(cursor) = &self.cursor {
            query.push(("cursor", cursor.clone()));
        }
        let segments = [self.list];
        let request = Request { query: &query, ..Request::new(Method::GET, &segments) };
        let response = self.client.send(request).await?;
        // The items are read from the text, which keeps all their digits.
        let page: Page<Value> = serde_json::from_slice(&response.body).map_err(|error| match error.is_data() {
            true => ClientError::Unreadable(format!("it is not a list: {error}")),
            false => ClientError::NotJson(error),
        })?;
        self.cursor = page.next.map_or(Cursor::End, Cursor::At);
        Ok(page.items.into_iter().map(Answer::from_json).collect())
    }

    /// The next `count` items, or fewer if the list ends.
    ///
    /// # Errors
    /// Those of a request.
    pub async fn take(&mut self, count: usize) -> Result<Vec<Answer<T>>, ClientError> {
        let mut items = Vec::new();
        while items.len() < count && self.may_have_more() {
            items.append(&mut self.next(count - items.len()).await?);
        }
        Ok(items)
    }

    /// All items that are left.
    ///
    /// # Errors
    /// Those of a request.
    pub async fn all(&mut self) -> Result<Vec<Answer<T>>, ClientError> {
        self.take(usize::MAX).await
    }
}
