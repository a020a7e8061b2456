//! A worker that wants tokens, and those who call it: one of each role, and one without any.

use std::sync::Once;

use reqwest::{Client, Method};
use serde_json::{Value, json};
use sha2::Digest as _;

use crate::support::waypost::Reply;
use crate::support::{Broker, BrokerObjects, DEFAULT_TIMEOUT, Receiver, Waypost, unique};

/// Each role, the least first.
pub(crate) const ROLES: [&str; 3] = ["viewer", "operator", "editor"];

/// A worker with a token for each role.
pub(crate) struct AuthTestApp {
    pub(crate) prefix: String,
    pub(crate) waypost: Waypost,
    pub(crate) receiver: Receiver,
    client: Client,
    // Last to be dropped: without the worker.
    _objects: BrokerObjects,
}

impl AuthTestApp {
    pub(crate) async fn start(name: &str) -> Self {
        static PROVIDER: Once = Once::new();
        PROVIDER.call_once(|| {
            // The client is not built without one, though it speaks in the clear. Another test may have been first.
            let _ = rustls::crypto::ring::default_provider().install_default();
        });
        let client = Client::builder().no_proxy().timeout(DEFAULT_TIMEOUT).build().expect("an HTTP client");
        let url = Broker::shared().await.url();
        let prefix = unique(name);
        let waypost = Waypost::start_with(&url, &prefix, &[("WAYPOST_HTTP__TOKENS", &tokens())]).await;
        let _objects = BrokerObjects::new(&url, &prefix);
        Self { prefix, waypost, receiver: Receiver::start(), client, _objects }
    }

    /// Asks as the bearer of a role's token; of an empty one without any.
    pub(crate) async fn send_as(&self, role: &str, method: Method, path: &str, body: Option<&Value>) -> Reply {
        self.send_as_with(role, method, path, &[], body.map(Value::to_string).unwrap_or_default()).await
    }

    /// As [`send_as`](Self::ask), with headers and a body of any kind.
    pub(crate) async fn send_as_with(
        &self,
        role: &str,
        method: Method,
        path: &str,
        headers: &[(&str, &str)],
        body: impl Into<Vec<u8>>,
    ) -> Reply {
        let mut request = self.client.request(method.clone(), self.waypost.url(path)).body(body.into());
        if !role.is_empty() {
            request = request.bearer_auth(token(role));
        }
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let reply = request.send().await.unwrap_or_else(|error| panic!("{method} {path}: {error:?}"));
        let status = reply.status().as_u16();
        let text = |value: &reqwest::header::HeaderValue| String::from_utf8_lossy(value.as_bytes()).into_owned();
        let headers = reply.headers().iter().map(|(name, value)| (name.to_string(), text(value))).collect();
        let body = reply.text().await.unwrap_or_else(|error| panic!("{method} {path}: {error:?}"));
        Reply { status, headers, body }
    }

    pub(crate) async fn get_as(&self, role: &str, path: &str) -> Reply {
        self.send_as(role, Method::GET, path, None).await
    }

    /// Puts a campaign as the editor.
    pub(crate) async fn put_campaign(&self, campaign: &Value) -> Reply {
        let path = format!("/v1/campaigns/{}", campaign["id"].as_str().expect("an id"));
        let reply = self.send_as("editor", Method::PUT, &path, Some(campaign)).await;
        assert!([200, 201].contains(&reply.status), "{reply:?}");
        reply
    }
}

/// The token of a role, which is also its name in the settings.
fn token(role: &str) -> String {
    format!("token-of-the-{role}")
}

fn tokens() -> String {
    let token = |role: &str| {
        let sha256 = sha2::Sha256::digest(token(role));
        let sha256: String = sha256.iter().map(|byte| format!("{byte:02x}")).collect();
        json!({ "name": role, "role": role, "sha256": sha256 })
    };
    Value::from(ROLES.map(token).to_vec()).to_string()
}

/// Checks a problem document, and gives back its sentence and the paths of its faults.
#[track_caller]
pub(crate) fn assert_problem(reply: &Reply, status: u16) -> (String, Vec<String>) {
    assert_eq!(reply.status, status, "{reply:?}");
    assert_eq!(reply.headers["content-type"], "application/problem+json", "{reply:?}");
    let problem = reply.json();
    assert_eq!(problem["status"], json!(status), "{problem:#}");
    let detail = problem["detail"].as_str().expect("a sentence").to_owned();
    let faults = problem["errors"].as_array().cloned().unwrap_or_default();
    let path = |fault: &Value| {
        assert!(fault["message"].as_str().is_some_and(|text| !text.is_empty()), "{problem:#}");
        fault["path"].as_str().expect("a path").to_owned()
    };
    (detail, faults.iter().map(path).collect())
}
