//! RabbitMQ's management API: what AMQP does not show, policies and bindings.

use std::time::Duration;

use reqwest::{Certificate, Client, StatusCode, Url};
use secrecy::{ExposeSecret as _, SecretString};
use serde_json::{Map, Value};

use super::connection::ConnectionConfig;
use super::policies::{self, Finding};
use super::topology::{Binding, BoundKind, Topology};
use crate::tls;

/// An answer comes within this time.
const TIMEOUT: Duration = Duration::from_secs(10);

/// The management API, as one user of one vhost sees it.
pub struct Management {
    client: Client,
    url: Url,
    user: String,
    password: SecretString,
    vhost: String,
}

impl Management {
    /// From `broker.managementUrl`. Without a user in it, that of `broker.url` is taken, and its vhost in any case.
    ///
    /// # Errors
    /// A sentence saying what is wrong.
    pub fn new(url: &SecretString, address: &ConnectionConfig) -> Result<Self, String> {
        let url = url.expose_secret().parse::<Url>();
        let mut url = url.map_err(|error| format!("broker.managementUrl: {error}"))?;
        let amqp = address.uri().map_err(|error| error.to_string())?;
        let (user, password) = match (url.username(), url.password()) {
            ("", _) => (amqp.authority.userinfo.username, amqp.authority.userinfo.password),
            (user, password) => (decoded(user), decoded(password.unwrap_or_default())),
        };
        // They go into a header. Neither fails for a URL with a host.
        let _ = (url.set_username(""), url.set_password(None));
        let mut client = Client::builder().timeout(TIMEOUT).no_proxy();
        if let Some(pem) = address.authorities() {
            let authorities = tls::authorities(pem.as_bytes())?;
            let read = authorities.iter().map(|authority| Certificate::from_der(authority));
            client = client.tls_certs_merge(read.collect::<Result<Vec<_>, _>>().map_err(|error| error.to_string())?);
        }
        let client = client.build().map_err(|error| error.to_string())?;
        Ok(Self { client, url, user, password: password.into(), vhost: amqp.vhost })
    }

    /// The vhost of Waypost's objects.
    pub fn vhost(&self) -> &str {
        &self.vhost
    }

    /// The policies that harm queues of Waypost.
    ///
    /// # Errors
    /// A sentence saying why they cannot be read, and what to do.
    pub async fn policies(&self, topology: &Topology) -> Result<Vec<Finding>, String> {
        let mut findings = Vec::new();
        for (queue, _) in topology.queues() {
            let Some(info) = self.get(&["queues", &self.vhost, &queue]).await? else { continue };
            let empty = Map::new();
            let definition = info["effective_policy_definition"].as_object().unwrap_or(&empty);
            let name = |key: &str| info[key].as_str();
            findings.extend(policies::findings(
                &queue,
                &topology.names,
                name("policy"),
                name("operator_policy"),
                definition,
            ));
        }
        Ok(findings)
    }

    /// The bindings that are missing, in words.
    ///
    /// # Errors
    /// As [`policies`](Self::policies).
    pub async fn missing_bindings(&self, topology: &Topology) -> Result<Vec<String>, String> {
        let mut missing = Vec::new();
        for binding in topology.bindings() {
            let Binding { source, destination, destination_kind, routing_key } = &binding;
            let kind = match destination_kind {
                BoundKind::Queue => "q",
                BoundKind::Exchange => "e",
            };
            let found = self.get(&["bindings", &self.vhost, "e", source, kind, destination]).await?;
            let is_there = |found: &Value| found["routing_key"] == *routing_key;
            if !found.as_ref().and_then(Value::as_array).is_some_and(|found| found.iter().any(is_there)) {
                missing.push(format!("from exchange {source} to {destination} with key `{routing_key}`"));
            }
        }
        Ok(missing)
    }

    /// Reads `/api/SEGMENTS…`; `None` if there is no such thing.
    async fn get(&self, segments: &[&str]) -> Result<Option<Value>, String> {
        let mut url = self.url.clone();
        if let Ok(mut path) = url.path_segments_mut() {
            path.pop_if_empty().push("api").extend(segments);
        }
        let request = self.client.get(url).basic_auth(&self.user, Some(self.password.expose_secret()));
        let failed = |error: reqwest::Error| {
            let error = error.without_url();
            let source = std::error::Error::source(&error).map(|source| format!(": {source}")).unwrap_or_default();
            format!("no answer from the management API at {}: {error}{source}", self.url)
        };
        let answer = request.send().await.map_err(failed)?;
        match answer.status() {
            StatusCode::NOT_FOUND => Ok(None),
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => Err(format!(
                "the management API refuses user {}: it needs the tag `management`. Add it to the user's tags: \
                 rabbitmqctl set_user_tags '{}' management",
                self.user, self.user
            )),
            status if status.is_success() => {
                let body = answer.bytes().await.map_err(failed)?;
                let value = serde_json::from_slice(&body);
                value
                    .map(Some)
                    .map_err(|error| format!("{} does not answer as a management API does: {error}", self.url))
            }
            status => Err(format!("the management API at {} answers {status}", self.url)),
        }
    }
}

/// Text of a URL without its percent-encoding.
fn decoded(text: &str) -> String {
    // A pair of a form is encoded the same way, but for `+`.
    let pair = format!("v={}", text.replace('+', "%2B"));
    url::form_urlencoded::parse(pair.as_bytes()).next().map(|(_, value)| value.into_owned()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn user_and_vhost_come_from_the_broker_unless_the_url_has_a_user() {
        // The client refuses to be built without one. Another test may have been first.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let address = ConnectionConfig::new(SecretString::from("amqp://bot:secret@host/chat".to_owned()));
        let management = |url: &str| Management::new(&SecretString::from(url.to_owned()), &address).expect("read");
        let own = management("http://host:15672");
        assert_eq!((own.user.as_str(), own.password.expose_secret(), own.vhost()), ("bot", "secret", "chat"));
        let other = management("https://see:p%2B%20%40@host/rabbit/");
        assert_eq!((other.user.as_str(), other.password.expose_secret()), ("see", "p+ @"));
        assert_eq!(other.url.as_str(), "https://host/rabbit/");
    }
}
