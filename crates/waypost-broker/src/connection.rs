//! Opens connections with a time limit and a heartbeat. lapin's own recovery is never used.
//!
//! lapin's recovery duplicates bindings, stops after 16 attempts, leaves a consumer pending forever after a
//! channel-level close, and reads a stream from its first offset again. So the owner of a lost connection opens a new
//! one, with its channels and topology: see [`reconnect`](super::reconnect).

use std::time::Duration;

use lapin::tcp::{OwnedIdentity, OwnedTLSConfig};
use lapin::uri::AMQPUri;
use lapin::{Connection, ConnectionProperties};
use secrecy::{ExposeSecret, SecretString};

use super::{BrokerError, transport};
use crate::tls::Identity;

/// Proposed to the broker unless the URL names another heartbeat.
const HEARTBEAT_SECONDS: u16 = 10;

/// Limit of the TCP connect, TLS and AMQP handshakes together.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

const CLOSE_TIMEOUT: Duration = Duration::from_secs(1);

/// The broker's URL, and the TLS identity of the client.
#[derive(Clone)]
pub struct ConnectionConfig {
    url: SecretString,
    /// Certificate authorities to trust besides the system's, as PEM.
    authorities: Option<String>,
    identity: Option<Identity>,
}

impl ConnectionConfig {
    /// `url` is the setting `broker.url`.
    pub fn new(url: SecretString) -> Self {
        Self { url, authorities: None, identity: None }
    }

    /// Adds certificate authorities (PEM) to trust besides the system's, and a client certificate.
    pub fn with_tls(self, authorities: Option<String>, identity: Option<Identity>) -> Self {
        Self { authorities, identity, ..self }
    }

    /// # Errors
    /// [`BrokerError::Connect`] if the URL is invalid.
    pub fn vhost(&self) -> Result<String, BrokerError> {
        Ok(self.uri()?.vhost)
    }

    pub(super) fn authorities(&self) -> Option<&str> {
        self.authorities.as_deref()
    }

    pub(super) fn tls(&self) -> OwnedTLSConfig {
        let identity = self.identity.clone();
        OwnedTLSConfig {
            identity: identity.map(|Identity { chain, key }| OwnedIdentity::PKCS8 { pem: chain, key }),
            cert_chain: self.authorities.clone(),
        }
    }

    pub(super) fn uri(&self) -> Result<AMQPUri, BrokerError> {
        let mut uri: AMQPUri = self
            .url
            .expose_secret()
            .parse()
            .map_err(|error: String| BrokerError::Connect { address: "broker.url".to_owned(), error })?;
        if uri.vhost.is_empty() {
            // `amqp://host/` names the vhost "", which hardly exists. The default vhost is meant.
            uri.vhost = "/".to_owned();
        }
        uri.query.heartbeat.get_or_insert(HEARTBEAT_SECONDS);
        Ok(uri)
    }

    /// Opens a connection. RabbitMQ's tools show `name`.
    ///
    /// # Errors
    /// [`BrokerError::Connect`].
    pub async fn connect(&self, name: &str) -> Result<Connection, BrokerError> {
        let uri = self.uri()?;
        let address = format!("{}:{}", uri.authority.host, uri.authority.port);
        let connect_error = |error: String| BrokerError::Connect { address: address.clone(), error };
        let properties = ConnectionProperties::default().with_connection_name(name.into());
        let connecting = transport::connect(uri, properties, self.tls());
        match tokio::time::timeout(CONNECT_TIMEOUT, connecting).await {
            Ok(Ok(connection)) => Ok(connection),
            Ok(Err(error)) => Err(connect_error(error.to_string())),
            Err(_) => Err(connect_error(format!("no response within {} s", CONNECT_TIMEOUT.as_secs()))),
        }
    }
}

/// Closes a connection that is no longer needed. A failure is ignored, and so is a broker that does not answer in
/// time: the connection ends with the process.
pub async fn close(connection: &Connection) {
    let _ = tokio::time::timeout(CLOSE_TIMEOUT, connection.close(200, "stopping".into())).await;
}

/// Checks that lapin can read every part of a URL.
///
/// # Errors
/// A text for people. It does not repeat the URL, as lapin's own error might: the URL holds a password.
pub fn check_url(url: &str) -> Result<(), String> {
    url.parse::<AMQPUri>().map(drop).map_err(|_| {
        "is not a valid AMQP URL: percent-encoded text must be UTF-8, auth_mechanism must be plain, amqplain, \
         external, anonymous or rabbit-cr-demo, and the other parameters must be whole numbers (heartbeat and \
         channel_max at most 65535)"
            .to_owned()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_default_vhost_and_heartbeat_are_used_unless_the_url_names_others() {
        let uri = |url: &str| ConnectionConfig::new(SecretString::from(url.to_owned())).uri().expect("a URL");
        for url in ["amqp://host", "amqp://host/", "amqp://host/%2f"] {
            assert_eq!((uri(url).vhost.as_str(), uri(url).query.heartbeat), ("/", Some(HEARTBEAT_SECONDS)), "{url}");
        }
        let explicit = uri("amqp://user:pass@host:5673/chat?heartbeat=30");
        assert_eq!((explicit.vhost.as_str(), explicit.query.heartbeat), ("chat", Some(30)));
    }
}
