//! A typed client of the HTTP API.
//!
//! An answer stays as the server wrote it until [`Answer::read`] makes it a value. So a program can pass on fields that
//! its version does not know.

mod answer;
mod error;
mod operations;
mod pages;

use std::time::Duration;

use reqwest::header::{CONTENT_TYPE, ETAG, IF_MATCH};
use reqwest::{Certificate, Method, StatusCode};
use secrecy::{ExposeSecret as _, SecretString};
use url::Url;

pub use answer::{Answer, ETag, Versioned};
pub use error::ClientError;
pub use pages::Pages;

/// Longer than the server needs: it waits up to 31 s for its own view and the broker.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(40);

pub struct ClientConfig {
    /// The address of a worker. It may have a path, if a proxy adds one.
    pub server: Url,
    pub token: Option<SecretString>,
    /// Certificate authorities to trust in addition to the system's.
    pub authorities: Vec<Certificate>,
}

/// Cheap to clone. Clones share the connections.
#[derive(Clone)]
pub struct Client {
    http: reqwest::Client,
    server: Url,
    token: Option<SecretString>,
}

/// A request to `/v1/SEGMENTS…`.
struct Request<'a> {
    method: Method,
    segments: &'a [&'a str],
    query: &'a [(&'static str, String)],
    if_match: Option<&'a ETag>,
    /// JSON.
    body: Option<Vec<u8>>,
}

impl<'a> Request<'a> {
    fn new(method: Method, segments: &'a [&'a str]) -> Self {
        Self { method, segments, query: &[], if_match: None, body: None }
    }
}

/// A response with a status of 2xx.
struct Response {
    status: StatusCode,
    etag: Option<ETag>,
    body: Vec<u8>,
}

impl Client {
    /// rustls needs a cryptography provider, which the program must install first.
    ///
    /// # Errors
    /// If the system's certificate authorities can't be used.
    pub fn new(ClientConfig { server, token, authorities }: ClientConfig) -> Result<Self, reqwest::Error> {
        let http = reqwest::Client::builder().timeout(REQUEST_TIMEOUT).no_proxy().tls_certs_merge(authorities);
        // A script may set the variable of the token to an empty value.
        let token = token.filter(|token| !token.expose_secret().trim().is_empty());
        Ok(Self { http: http.build()?, server, token })
    }

    /// A client of another server, with the same token.
    #[must_use]
    pub fn with_server(&self, server: Url) -> Self {
        Self { server, ..self.clone() }
    }

    /// The worker's metrics, in Prometheus' text format.
    ///
    /// # Errors
    /// [`ClientError::Unreachable`], also if the answer is not 2xx.
    pub async fn metrics(&self) -> Result<String, ClientError> {
        let url = self.url(&["metrics"]);
        let text = async { self.http.get(url).send().await?.error_for_status()?.text().await };
        text.await.map_err(|error| self.unreachable(&error))
    }

    /// The text of `/readyz`.
    ///
    /// # Errors
    /// [`ClientError::Refused`] with the reason, if the worker is not ready.
    pub async fn ready(&self) -> Result<String, ClientError> {
        let request = self.http.get(self.url(&["readyz"]));
        let Response { body, .. } = self.receive(request).await?;
        Ok(String::from_utf8_lossy(&body).into_owned())
    }

    /// The address of a path of the server. The segments are escaped.
    fn url(&self, segments: &[&str]) -> Url {
        let mut url = self.server.clone();
        // An address that can't have a path, such as `data:`, is refused when the request is sent.
        if let Ok(mut path) = url.path_segments_mut() {
            path.pop_if_empty().extend(segments);
        }
        url.set_query(None);
        url
    }

    async fn send(
        &self,
        Request { method, segments, query, if_match, body }: Request<'_>,
    ) -> Result<Response, ClientError> {
        let mut url = self.url(&[&["v1"][..], segments].concat());
        if !query.is_empty() {
            url.query_pairs_mut().extend_pairs(query);
        }
        let mut request = self.http.request(method, url);
        if let Some(token) = &self.token {
            request = request.bearer_auth(token.expose_secret());
        }
        if let Some(etag) = if_match {
            request = request.header(IF_MATCH, etag.as_str());
        }
        if let Some(body) = body {
            request = request.header(CONTENT_TYPE, "application/json").body(body);
        }
        self.receive(request).await
    }

    async fn receive(&self, request: reqwest::RequestBuilder) -> Result<Response, ClientError> {
        let response = request.send().await.map_err(|error| self.unreachable(&error))?;
        let status = response.status();
        let etag = response.headers().get(ETAG).and_then(|etag| etag.to_str().ok()).map(ETag::from_header);
        let body = response.bytes().await.map_err(|error| self.unreachable(&error))?.to_vec();
        if status.is_success() {
            return Ok(Response { status, etag, body });
        }
        Err(ClientError::Refused { status, problem: serde_json::from_slice(&body).ok() })
    }

    fn unreachable(&self, error: &reqwest::Error) -> ClientError {
        let cause = std::iter::successors(Some(error as &dyn std::error::Error), |error| error.source()).last();
        let cause = cause.map_or_else(String::new, ToString::to_string);
        ClientError::Unreachable { server: self.server.clone(), cause }
    }
}

#[cfg(test)]
mod tests;
