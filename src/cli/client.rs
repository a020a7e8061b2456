//! The HTTP client of the commands that ask a worker.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use reqwest::{Certificate, Client, Method, StatusCode, Url};
use secrecy::{ExposeSecret as _, SecretString};
use serde_json::Value;
use waypost_broker::tls;

use super::error::CliError;

/// The path segment of the dead letters.
pub(super) const DEAD_LETTERS: &str = "dead-letters";

/// The path segment of the replays.
pub(super) const REPLAYS: &str = "replays";

/// Longer than the server needs: it waits up to 30 s for its own view and the broker.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(40);

#[derive(Args, Clone)]
pub(super) struct Server {
    /// The worker's address
    #[arg(long, env = "WAYPOST_SERVER", default_value = "http://127.0.0.1:8080", value_name = "URL", value_parser = parse_address)]
    server: Url,
    /// The API token, if the worker requires one
    #[arg(long, env = "WAYPOST_TOKEN", hide_env_values = true, value_name = "TOKEN")]
    token: Option<SecretString>,
    /// PEM file of certificate authorities to trust in addition to the system's
    #[arg(long, env = "WAYPOST_CA_FILE", value_name = "FILE")]
    ca_file: Option<PathBuf>,
}

pub(super) fn parse_address(text: &str) -> Result<Url, String> {
    let url = text.parse::<Url>().ok().filter(|url| matches!(url.scheme(), "http" | "https") && url.has_host());
    url.ok_or_else(|| "write it as http://HOST:PORT".to_owned())
}

#[derive(Default)]
pub(super) struct RequestParts {
    pub(super) headers: Vec<(&'static str, String)>,
    pub(super) body: Option<Vec<u8>>,
}

pub(super) struct ApiResponse {
    pub(super) status: StatusCode,
    pub(super) etag: Option<String>,
    pub(super) body: Vec<u8>,
}

impl ApiResponse {
    pub(super) fn json(&self) -> Result<Value, CliError> {
        serde_json::from_slice(&self.body)
            .map_err(|error| CliError::new(format!("the server's response is not valid JSON: {error}")))
    }
}

pub(super) enum ApiError {
    /// There was no complete response.
    Unreachable { server: Url, cause: String },
    /// The server answered with an error. `text` is the server's message.
    Refused { status: StatusCode, text: String },
}

impl fmt::Display for ApiError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unreachable { server, cause } => write!(
                formatter,
                "no response from {server} ({cause}). Is a worker running there? Set its address with --server or WAYPOST_SERVER"
            ),
            Self::Refused { text, .. } => formatter.write_str(text),
        }
    }
}

impl From<ApiError> for CliError {
    fn from(error: ApiError) -> Self {
        Self::new(error)
    }
}

/// Refuses ids that would change the path of the URL they are put into.
pub(super) fn parse_id(text: &str) -> Result<String, String> {
    if matches!(text, "" | "." | "..") { Err("this is not an id".to_owned()) } else { Ok(text.to_owned()) }
}

#[derive(Clone)]
pub(super) struct Api {
    client: Client,
    server: Server,
}

impl Server {
    pub(super) fn without_token(url: &str) -> Result<Self, CliError> {
        Ok(Self { server: url.parse().map_err(CliError::new)?, token: None, ca_file: None })
    }

    pub(super) fn api(self) -> Result<Api, CliError> {
        let client = Client::builder().timeout(REQUEST_TIMEOUT).no_proxy().tls_certs_merge(self.authorities()?);
        let client = client.build().map_err(CliError::new)?;
        // A script may set WAYPOST_TOKEN to an empty value.
        let token = self.token.filter(|token| !token.expose_secret().trim().is_empty());
        Ok(Api { client, server: Self { token, ..self } })
    }

    fn authorities(&self) -> Result<Vec<Certificate>, CliError> {
        let Some(path) = &self.ca_file else { return Ok(Vec::new()) };
        let usage_error = |error: String| CliError::Usage(format!("--ca-file {}: {error}", path.display()));
        let pem = std::fs::read(path).map_err(|error| usage_error(error.to_string()))?;
        let authorities = tls::authorities(&pem).map_err(usage_error)?;
        authorities.iter().map(|authority| Certificate::from_der(authority).map_err(CliError::new)).collect()
    }
}

impl Api {
    /// `GET /v1/SEGMENTS…`.
    pub(super) async fn get(&self, segments: &[&str], query: &[(&str, &str)]) -> Result<Value, CliError> {
        self.request(Method::GET, segments, query, RequestParts::default()).await?.json()
    }

    /// The worker's metrics, in Prometheus' text format.
    pub(super) async fn metrics(&self) -> Result<String, CliError> {
        let mut url = self.server.server.clone();
        if let Ok(mut path) = url.path_segments_mut() {
            path.pop_if_empty().push("metrics");
        }
        let text = async { self.client.get(url).send().await?.error_for_status()?.text().await };
        Ok(text.await.map_err(|error| self.unreachable(&error))?)
    }

    /// The text of `/readyz`, or an error that says why the worker is not ready.
    pub(super) async fn ready(&self) -> Result<String, ApiError> {
        let mut url = self.server.server.clone();
        if let Ok(mut path) = url.path_segments_mut() {
            path.pop_if_empty().push("readyz");
        }
        let response = self.client.get(url).send().await.map_err(|error| self.unreachable(&error))?;
        let status = response.status();
        let body = response.bytes().await.map_err(|error| self.unreachable(&error))?;
        if status.is_success() { Ok(String::from_utf8_lossy(&body).into_owned()) } else { Err(refusal(status, &body)) }
    }

    /// A client of another server, with the same token.
    pub(super) fn with_server(&self, server: Url) -> Self {
        Self { client: self.client.clone(), server: Server { server, ..self.server.clone() } }
    }

    /// `POST /v1/SEGMENTS…`.
    pub(super) async fn post(&self, segments: &[&str], body: Option<&Value>) -> Result<ApiResponse, ApiError> {
        let parts = RequestParts { headers: Vec::new(), body: body.map(|body| body.to_string().into_bytes()) };
        self.request(Method::POST, segments, &[], parts).await
    }

    /// Sends a request to `/v1/SEGMENTS…`. A response that is not 2xx is an error.
    pub(super) async fn request(
        &self,
        method: Method,
        segments: &[&str],
        query: &[(&str, &str)],
        parts: RequestParts,
    ) -> Result<ApiResponse, ApiError> {
        let mut url = self.server.server.clone();
        if let Ok(mut path) = url.path_segments_mut() {
            path.pop_if_empty().push("v1").extend(segments);
        }
        url.query_pairs_mut().extend_pairs(query);
        if query.is_empty() {
            url.set_query(None);
        }
        let mut request = self.client.request(method, url);
        if let Some(token) = &self.server.token {
            request = request.bearer_auth(token.expose_secret());
        }
        for (name, value) in parts.headers {
            request = request.header(name, value);
        }
        if let Some(body) = parts.body {
            request = request.header("content-type", "application/json").body(body);
        }
        let response = request.send().await.map_err(|error| self.unreachable(&error))?;
        let status = response.status();
        let etag = response.headers().get("etag").and_then(|etag| etag.to_str().ok()).map(str::to_owned);
        let body = response.bytes().await.map_err(|error| self.unreachable(&error))?.to_vec();
        if status.is_success() { Ok(ApiResponse { status, etag, body }) } else { Err(refusal(status, &body)) }
    }

    fn unreachable(&self, error: &reqwest::Error) -> ApiError {
        let cause = std::iter::successors(Some(error as &dyn std::error::Error), |error| error.source()).last();
        let cause = cause.map_or_else(String::new, ToString::to_string);
        ApiError::Unreachable { server: self.server.server.clone(), cause }
    }
}

fn refusal(status: StatusCode, body: &[u8]) -> ApiError {
    ApiError::Refused { status, text: problem_text(status, body) }
}

/// A problem document (RFC 9457) as text. Each of its errors is a line.
fn problem_text(status: StatusCode, body: &[u8]) -> String {
    let problem: Value = serde_json::from_slice(body).unwrap_or_default();
    let errors = problem["errors"].as_array().map(Vec::as_slice).unwrap_or_default();
    if errors.is_empty() {
        let hint = if status == StatusCode::UNAUTHORIZED { " (--token or WAYPOST_TOKEN)" } else { "" };
        let detail = problem["detail"].as_str().map(|detail| format!("{detail}{hint}"));
        return detail.unwrap_or_else(|| format!("the server answered {status}"));
    }
    let line = |error: &Value| {
        format!("\n  {}: {}", error["path"].as_str().unwrap_or("$"), error["message"].as_str().unwrap_or_default())
    };
    format!("refused:{}", errors.iter().map(line).collect::<String>())
}
