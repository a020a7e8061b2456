//! The API as the client commands use it.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use reqwest::{Certificate, Client, Method, StatusCode, Url};
use secrecy::{ExposeSecret as _, SecretString};
use serde_json::Value;

use super::CliError;
use crate::tls;

/// The server answers within this time: it waits up to half a minute for its own view and the broker.
const TIMEOUT: Duration = Duration::from_secs(40);

/// Where the API is, and who asks.
#[derive(Args, Clone)]
pub(super) struct Server {
    /// The worker's address
    #[arg(long, env = "WAYPOST_SERVER", default_value = "http://127.0.0.1:8080", value_name = "URL", value_parser = address)]
    server: Url,
    /// The token, where the worker wants one
    #[arg(long, env = "WAYPOST_TOKEN", hide_env_values = true, value_name = "TOKEN")]
    token: Option<SecretString>,
    /// PEM file of authorities to trust besides the system's, for https
    #[arg(long, env = "WAYPOST_CA_FILE", value_name = "FILE")]
    ca_file: Option<PathBuf>,
}

pub(super) fn address(text: &str) -> Result<Url, String> {
    let url = text.parse::<Url>().ok().filter(|url| matches!(url.scheme(), "http" | "https") && url.has_host());
    url.ok_or_else(|| "write it as http://HOST:PORT".to_owned())
}

/// A request's headers and body.
#[derive(Default)]
pub(super) struct Call {
    pub(super) headers: Vec<(&'static str, String)>,
    pub(super) body: Option<Vec<u8>>,
}

/// A successful answer.
pub(super) struct Answer {
    pub(super) status: StatusCode,
    pub(super) etag: Option<String>,
    pub(super) body: Vec<u8>,
}

impl Answer {
    pub(super) fn json(&self) -> Result<Value, CliError> {
        serde_json::from_slice(&self.body)
            .map_err(|error| CliError::new(format!("the server's answer can't be read: {error}")))
    }
}

/// Why there is no successful answer.
pub(super) enum ApiError {
    /// Nobody answered, or not to the end.
    Silence { server: Url, cause: String },
    /// The server refused, in its words.
    Refused { status: StatusCode, text: String },
}

impl fmt::Display for ApiError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Silence { server, cause } => write!(
                formatter,
                "no answer from {server} ({cause}): is a worker running there? Say where with --server or WAYPOST_SERVER"
            ),
            Self::Refused { text, .. } => formatter.write_str(text),
        }
    }
}

impl From<ApiError> for CliError {
    fn from(unanswered: ApiError) -> Self {
        Self::new(unanswered)
    }
}

/// Reads an id that is to be part of an address. These few would name another address than that of the id.
pub(super) fn id(text: &str) -> Result<String, String> {
    if matches!(text, "" | "." | "..") { Err("that is no id".to_owned()) } else { Ok(text.to_owned()) }
}

/// A client of one server.
#[derive(Clone)]
pub(super) struct Api {
    client: Client,
    server: Server,
}

impl Server {
    /// A server that wants no token.
    pub(super) fn at(url: &str) -> Result<Self, CliError> {
        Ok(Self { server: url.parse().map_err(CliError::new)?, token: None, ca_file: None })
    }

    pub(super) fn api(self) -> Result<Api, CliError> {
        let client = Client::builder().timeout(TIMEOUT).no_proxy().tls_certs_merge(self.authorities()?);
        let client = client.build().map_err(CliError::new)?;
        // An empty one is none, as a variable that a script has no value for.
        let token = self.token.filter(|token| !token.expose_secret().trim().is_empty());
        Ok(Api { client, server: Self { token, ..self } })
    }

    fn authorities(&self) -> Result<Vec<Certificate>, CliError> {
        let Some(path) = &self.ca_file else { return Ok(Vec::new()) };
        let wrong = |error: String| CliError::Usage(format!("--ca-file {}: {error}", path.display()));
        let pem = std::fs::read(path).map_err(|error| wrong(error.to_string()))?;
        let authorities = tls::authorities(&pem).map_err(wrong)?;
        authorities.iter().map(|authority| Certificate::from_der(authority).map_err(CliError::new)).collect()
    }
}

impl Api {
    /// Reads `/v1/SEGMENTS…`.
    pub(super) async fn get(&self, segments: &[&str], query: &[(&str, &str)]) -> Result<Value, CliError> {
        self.call(Method::GET, segments, query, Call::default()).await?.json()
    }

    /// What the server counts, as Prometheus reads it.
    pub(super) async fn metrics(&self) -> Result<String, CliError> {
        let mut url = self.server.server.clone();
        if let Ok(mut path) = url.path_segments_mut() {
            path.pop_if_empty().push("metrics");
        }
        let text = async { self.client.get(url).send().await?.error_for_status()?.text().await };
        Ok(text.await.map_err(|error| self.unreachable(&error))?)
    }

    /// What the worker says if it is ready, or why it is not.
    pub(super) async fn ready(&self) -> Result<String, ApiError> {
        let mut url = self.server.server.clone();
        if let Ok(mut path) = url.path_segments_mut() {
            path.pop_if_empty().push("readyz");
        }
        let answer = self.client.get(url).send().await.map_err(|error| self.unreachable(&error))?;
        let status = answer.status();
        let body = answer.bytes().await.map_err(|error| self.unreachable(&error))?;
        if status.is_success() { Ok(String::from_utf8_lossy(&body).into_owned()) } else { Err(refused(status, &body)) }
    }

    /// The same with another server, and the same token.
    pub(super) fn beside(&self, server: Url) -> Self {
        Self { client: self.client.clone(), server: Server { server, ..self.server.clone() } }
    }

    /// Posts to `/v1/SEGMENTS…`, with a JSON body where there is one.
    pub(super) async fn post(&self, segments: &[&str], body: Option<&Value>) -> Result<Answer, ApiError> {
        let call = Call { headers: Vec::new(), body: body.map(|body| body.to_string().into_bytes()) };
        self.ask(Method::POST, segments, &[], call).await
    }

    /// Calls `/v1/SEGMENTS…`. What is not a success is a failure, in the server's words.
    pub(super) async fn call(
        &self,
        method: Method,
        segments: &[&str],
        query: &[(&str, &str)],
        call: Call,
    ) -> Result<Answer, CliError> {
        Ok(self.ask(method, segments, query, call).await?)
    }

    /// As [`call`](Self::call), for who tells one reason from another.
    pub(super) async fn ask(
        &self,
        method: Method,
        segments: &[&str],
        query: &[(&str, &str)],
        call: Call,
    ) -> Result<Answer, ApiError> {
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
        for (name, value) in call.headers {
            request = request.header(name, value);
        }
        if let Some(body) = call.body {
            request = request.header("content-type", "application/json").body(body);
        }
        let answer = request.send().await.map_err(|error| self.unreachable(&error))?;
        let status = answer.status();
        let etag = answer.headers().get("etag").and_then(|etag| etag.to_str().ok()).map(str::to_owned);
        let body = answer.bytes().await.map_err(|error| self.unreachable(&error))?.to_vec();
        if status.is_success() { Ok(Answer { status, etag, body }) } else { Err(refused(status, &body)) }
    }

    fn unreachable(&self, error: &reqwest::Error) -> ApiError {
        let cause = std::iter::successors(Some(error as &dyn std::error::Error), |error| error.source()).last();
        let cause = cause.map_or_else(String::new, ToString::to_string);
        ApiError::Silence { server: self.server.server.clone(), cause }
    }
}

fn refused(status: StatusCode, body: &[u8]) -> ApiError {
    ApiError::Refused { status, text: told(status, body) }
}

/// A problem document as text: one fault a line, where it has them.
fn told(status: StatusCode, body: &[u8]) -> String {
    let problem: Value = serde_json::from_slice(body).unwrap_or_default();
    let faults = problem["errors"].as_array().map(Vec::as_slice).unwrap_or_default();
    if faults.is_empty() {
        let hint = if status == StatusCode::UNAUTHORIZED { " (--token or WAYPOST_TOKEN)" } else { "" };
        let detail = problem["detail"].as_str().map(|detail| format!("{detail}{hint}"));
        return detail.unwrap_or_else(|| format!("the server answered {status}"));
    }
    let line = |fault: &Value| {
        format!("\n  {}: {}", fault["path"].as_str().unwrap_or("$"), fault["message"].as_str().unwrap_or_default())
    };
    format!("refused:{}", faults.iter().map(line).collect::<String>())
}
