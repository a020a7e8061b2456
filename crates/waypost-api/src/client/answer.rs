//! The answers of the server.

use std::fmt;
use std::marker::PhantomData;

use reqwest::StatusCode;
use serde::de::DeserializeOwned;
use serde::{Serialize, Serializer};
use serde_json::Value;

use super::ClientError;
use crate::field_error;

/// A JSON answer as the server wrote it. [`Self::read`] makes it a `T`.
///
/// Prints all fields, keys and digits of the server: `{}` on one line, `{:#}` indented. Nothing can take a field out of
/// it without reading it.
#[derive(Debug, Clone)]
pub struct Answer<T> {
    json: Value,
    kind: PhantomData<fn() -> T>,
}

impl<T> Answer<T> {
    pub(super) fn from_bytes(body: &[u8]) -> Result<Self, ClientError> {
        serde_json::from_slice(body).map(Self::from_json).map_err(ClientError::NotJson)
    }

    pub(super) fn from_json(json: Value) -> Self {
        Self { json, kind: PhantomData }
    }
}

impl<T: DeserializeOwned> Answer<T> {
    /// # Errors
    /// [`ClientError::Unreadable`]. Unknown fields are ignored.
    pub fn read(&self) -> Result<T, ClientError> {
        field_error::deserialize(&self.json).map_err(|error| ClientError::Unreadable(error.to_string()))
    }
}

impl<T> fmt::Display for Answer<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.json, f)
    }
}

impl<T> Serialize for Answer<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.json.serialize(serializer)
    }
}

/// An answer with the version of its campaign.
#[derive(Debug, Clone)]
pub struct Versioned<T> {
    /// 201 if the request created the campaign.
    pub status: StatusCode,
    pub etag: Option<ETag>,
    pub answer: Answer<T>,
}

/// The version of a campaign, as in the headers `ETag` and `If-Match`: in quotes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ETag(String);

impl ETag {
    /// `version` may have its quotes already.
    pub fn from_version(version: &str) -> Self {
        Self(format!("\"{}\"", version.trim_matches('"')))
    }

    pub(super) fn from_header(header: &str) -> Self {
        Self(header.to_owned())
    }

    pub(super) fn as_str(&self) -> &str {
        &self.0
    }

    /// Without quotes.
    pub fn version(&self) -> &str {
        self.0.trim_matches('"')
    }
}
