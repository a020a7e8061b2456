//! A worker that requires tokens, and requests with each role or without a token.

use reqwest::Method;
use serde_json::Value;

use crate::support::waypost::Reply;
use crate::support::{Broker, BrokerObjects, Receiver, Waypost, unique};
use crate::test_app::{bearer_token, token_settings};

/// All roles, from the fewest permissions to the most.
pub(crate) const ROLES: [&str; 3] = ["viewer", "operator", "editor"];

/// A worker with a token for each role.
pub(crate) struct AuthTestApp {
    pub(crate) prefix: String,
    pub(crate) waypost: Waypost,
    pub(crate) receiver: Receiver,
    // Dropped last, after the worker.
    _objects: BrokerObjects,
}

impl AuthTestApp {
    pub(crate) async fn start(name: &str) -> Self {
        let url = Broker::shared().await.url();
        let prefix = unique(name);
        let waypost = Waypost::start_with(&url, &prefix, &[("WAYPOST_HTTP__TOKENS", &token_settings())]).await;
        let _objects = BrokerObjects::new(&url, &prefix);
        Self { prefix, waypost, receiver: Receiver::start(), _objects }
    }

    /// Sends a request with a role's token. An empty role sends no token.
    pub(crate) async fn send_as(&self, role: &str, method: Method, path: &str, body: Option<&Value>) -> Reply {
        self.send_as_with(role, method, path, &[], body.map(Value::to_string).unwrap_or_default()).await
    }

    /// Like [`send_as`](Self::send_as), with headers and a body of any type.
    pub(crate) async fn send_as_with(
        &self,
        role: &str,
        method: Method,
        path: &str,
        headers: &[(&str, &str)],
        body: impl Into<Vec<u8>>,
    ) -> Reply {
        let token = bearer_token(role);
        let mut headers = headers.to_vec();
        if !role.is_empty() {
            headers.push(("authorization", &token));
        }
        self.waypost.send_with(method, path, &headers, body).await
    }

    pub(crate) async fn get_as(&self, role: &str, path: &str) -> Reply {
        self.send_as(role, Method::GET, path, None).await
    }

    pub(crate) async fn put_campaign(&self, campaign: &Value) -> Reply {
        let path = format!("/v1/campaigns/{}", campaign["id"].as_str().expect("an id"));
        let reply = self.send_as("editor", Method::PUT, &path, Some(campaign)).await;
        assert!([200, 201].contains(&reply.status), "{reply:?}");
        reply
    }
}
