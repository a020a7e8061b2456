//! RabbitMQ's management API: reads policies, bindings and consumers, which AMQP does not show.

use std::time::Duration;

use reqwest::{Certificate, Client, StatusCode, Url};
use secrecy::{ExposeSecret as _, SecretString};
use serde_json::{Map, Value};

use super::connection::ConnectionConfig;
use super::held_messages::{HeldMessages, held_messages};
use super::policies::{self, PolicyFinding};
use super::topology::{Binding, DestinationKind, Topology};
use crate::tls;

const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);

/// A client of the management API, for one vhost.
pub struct Management {
    client: Client,
    url: Url,
    user: String,
    password: SecretString,
    vhost: String,
}

impl Management {
    /// `url` is the setting `broker.managementUrl`. The vhost is that of `broker.url`, and so is the user if `url` has
    /// none.
    ///
    /// # Errors
    /// A text for people: which URL or certificate is wrong, and why.
    pub fn new(url: &SecretString, connection: &ConnectionConfig) -> Result<Self, String> {
        let url = url.expose_secret().parse::<Url>();
        let mut url = url.map_err(|error| format!("broker.managementUrl: {error}"))?;
        let amqp = connection.uri().map_err(|error| error.to_string())?;
        let (user, password) = match (url.username(), url.password()) {
            ("", _) => (amqp.authority.userinfo.username, amqp.authority.userinfo.password),
            (user, password) => (percent_decode(user), percent_decode(password.unwrap_or_default())),
        };
        // User and password go into a header. Both calls succeed because the URL has a host.
        let _ = (url.set_username(""), url.set_password(None));
        let mut client = Client::builder().timeout(REQUEST_TIMEOUT).no_proxy();
        if let Some(pem) = connection.authorities() {
            let authorities = tls::authorities(pem.as_bytes())?;
            let certificates = authorities.iter().map(|authority| Certificate::from_der(authority));
            client =
                client.tls_certs_merge(certificates.collect::<Result<Vec<_>, _>>().map_err(|error| error.to_string())?);
        }
        let client = client.build().map_err(|error| error.to_string())?;
        Ok(Self { client, url, user, password: password.into(), vhost: amqp.vhost })
    }

    pub fn vhost(&self) -> &str {
        &self.vhost
    }

    /// The policies that harm Waypost's queues.
    ///
    /// # Errors
    /// A text for people: why the API cannot be read, and what to do.
    pub async fn policies(&self, topology: &Topology) -> Result<Vec<PolicyFinding>, String> {
        let mut findings = Vec::new();
        for (queue, _) in topology.queues() {
            let Some(info) = self.get(&["queues", &self.vhost, &queue]).await? else { continue };
            let empty = Map::new();
            let definition = info["effective_policy_definition"].as_object().unwrap_or(&empty);
            let name = |key: &str| info[key].as_str();
            findings.extend(policies::harmful_effects(
                &queue,
                &topology.names,
                name("policy"),
                name("operator_policy"),
                definition,
            ));
        }
        Ok(findings)
    }

    /// A text for each missing binding.
    ///
    /// # Errors
    /// As [`policies`](Self::policies).
    pub async fn missing_bindings(&self, topology: &Topology) -> Result<Vec<String>, String> {
        let mut missing = Vec::new();
        for binding in topology.bindings() {
            let Binding { source, destination, destination_kind, routing_key } = &binding;
            let kind = match destination_kind {
                DestinationKind::Queue => "q",
                DestinationKind::Exchange => "e",
            };
            let bindings = self.get(&["bindings", &self.vhost, "e", source, kind, destination]).await?;
            let matches = |binding: &Value| binding["routing_key"] == *routing_key;
            if !bindings.as_ref().and_then(Value::as_array).is_some_and(|bindings| bindings.iter().any(matches)) {
                missing.push(format!("from exchange {source} to {destination} with key `{routing_key}`"));
            }
        }
        Ok(missing)
    }

    /// Messages that queues hold for consumers that no longer exist.
    ///
    /// # Errors
    /// As [`policies`](Self::policies).
    pub async fn held_messages(&self, topology: &Topology) -> Result<Vec<HeldMessages>, String> {
        let consumers = self.get(&["consumers", &self.vhost]).await?;
        let consumers = consumers.as_ref().and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
        let mut held = Vec::new();
        for (queue, _) in topology.queues() {
            let Some(info) = self.get(&["queues", &self.vhost, &queue]).await? else { continue };
            held.extend(held_messages(&queue, &info, consumers));
        }
        Ok(held)
    }

    /// Reads `/api/SEGMENTS…`; `None` if it does not exist.
    async fn get(&self, segments: &[&str]) -> Result<Option<Value>, String> {
        let mut url = self.url.clone();
        if let Ok(mut path) = url.path_segments_mut() {
            path.pop_if_empty().push("api").extend(segments);
        }
        let request = self.client.get(url).basic_auth(&self.user, Some(self.password.expose_secret()));
        let request_error = |error: reqwest::Error| {
            let error = error.without_url();
            let source = std::error::Error::source(&error).map(|source| format!(": {source}")).unwrap_or_default();
            format!("no response from the management API at {}: {error}{source}", self.url)
        };
        let response = request.send().await.map_err(request_error)?;
        match response.status() {
            StatusCode::NOT_FOUND => Ok(None),
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => Err(format!(
                "the management API refuses user {}: the password is wrong, or the user lacks the tag `management`. \
                 Add the tag: rabbitmqctl set_user_tags '{}' management",
                self.user, self.user
            )),
            status if status.is_success() => {
                let body = response.bytes().await.map_err(request_error)?;
                let value = serde_json::from_slice(&body);
                value
                    .map(Some)
                    .map_err(|error| format!("{} is not a management API: the response is not JSON: {error}", self.url))
            }
            status => Err(format!("the management API at {} returned {status}", self.url)),
        }
    }
}

fn percent_decode(text: &str) -> String {
    // Form encoding is the same except that `+` means a space.
    let pair = format!("v={}", text.replace('+', "%2B"));
    url::form_urlencoded::parse(pair.as_bytes()).next().map(|(_, value)| value.into_owned()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn user_and_vhost_come_from_the_broker_url_unless_the_management_url_has_a_user() {
        // The client needs a crypto provider. Another test may have installed it already.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let connection = ConnectionConfig::new(SecretString::from("amqp://bot:secret@host/chat".to_owned()));
        let management = |url: &str| Management::new(&SecretString::from(url.to_owned()), &connection).expect("read");
        let own = management("http://host:15672");
        assert_eq!((own.user.as_str(), own.password.expose_secret(), own.vhost()), ("bot", "secret", "chat"));
        let other = management("https://see:p%2B%20%40@host/rabbit/");
        assert_eq!((other.user.as_str(), other.password.expose_secret()), ("see", "p+ @"));
        assert_eq!(other.url.as_str(), "https://host/rabbit/");
    }
}
