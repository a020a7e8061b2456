//! Connections: opened with a time limit and a heartbeat, never recovered by the library.
//!
//! lapin's own recovery doubles bindings, gives up after 16 tries, leaves a consumer pending for ever after a
//! channel-level close, and reads a stream from its first offset again. So whoever owns a connection builds a new one,
//! with its channels and topology, after a [`backoff`](reconnect_delays).

use std::time::Duration;

use backoff::ExponentialBackoff;
use lapin::tcp::{OwnedIdentity, OwnedTLSConfig};
use lapin::uri::AMQPUri;
use lapin::{Connection, ConnectionProperties};
use secrecy::{ExposeSecret, SecretString};

use super::{BrokerError, transport};
use crate::tls::Identity;

/// Both sides take a peer for dead that has been silent for this long, in seconds.
const HEARTBEAT_SECONDS: u16 = 10;

/// TCP connection and AMQP handshake together.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// So long the end of a connection is waited for.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(1);

/// Where the broker is, and who we are to it.
#[derive(Clone)]
pub struct ConnectionConfig {
    url: SecretString,
    /// Authorities to trust besides the system's, as PEM.
    authorities: Option<String>,
    identity: Option<Identity>,
}

impl ConnectionConfig {
    /// From `broker.url`.
    pub fn new(url: SecretString) -> Self {
        Self { url, authorities: None, identity: None }
    }

    /// The same over TLS with these: authorities as PEM to trust besides the system's, and who we are.
    pub fn with_tls(self, authorities: Option<String>, identity: Option<Identity>) -> Self {
        Self { authorities, identity, ..self }
    }

    /// The vhost.
    ///
    /// # Errors
    /// [`BrokerError::Connect`]: the URL cannot be read.
    pub fn vhost(&self) -> Result<String, BrokerError> {
        Ok(self.uri()?.vhost)
    }

    /// Authorities to trust besides the system's, as PEM.
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
            // `amqp://host/` names the vhost "", which nobody has: people mean the default one.
            uri.vhost = "/".to_owned();
        }
        uri.query.heartbeat.get_or_insert(HEARTBEAT_SECONDS);
        Ok(uri)
    }

    /// Opens a connection; `name` is shown by RabbitMQ's tools.
    ///
    /// # Errors
    /// [`BrokerError::Connect`].
    pub async fn connect(&self, name: &str) -> Result<Connection, BrokerError> {
        let uri = self.uri()?;
        let address = format!("{}:{}", uri.authority.host, uri.authority.port);
        let failed = |error: String| BrokerError::Connect { address: address.clone(), error };
        let properties = ConnectionProperties::default().with_connection_name(name.into());
        let connecting = transport::connect(uri, properties, self.tls());
        match tokio::time::timeout(CONNECT_TIMEOUT, connecting).await {
            Ok(Ok(connection)) => Ok(connection),
            Ok(Err(error)) => Err(failed(error.to_string())),
            Err(_) => Err(failed(format!("no answer within {} s", CONNECT_TIMEOUT.as_secs()))),
        }
    }
}

/// Closes a connection that is not needed any more. Whatever the broker answers, it is gone with the process; one that stands still
/// answers nothing.
pub async fn close(connection: &Connection) {
    let _ = tokio::time::timeout(CLOSE_TIMEOUT, connection.close(200, "stopping".into())).await;
}

/// Whether lapin can read a URL, all of it.
///
/// # Errors
/// A sentence that does not repeat the URL, as lapin's own might: it holds a password.
pub fn check_url(url: &str) -> Result<(), String> {
    url.parse::<AMQPUri>().map(drop).map_err(|_| {
        "cannot be read: what is percent-encoded must be UTF-8, auth_mechanism one of plain, amqplain, external, \
         anonymous and rabbit-cr-demo, and the other parameters whole numbers (heartbeat and channel_max up to 65535)"
            .to_owned()
    })
}

/// How long to wait between tries to connect: for ever, from a quarter of a second to three, with jitter.
pub fn reconnect_delays() -> ExponentialBackoff {
    ExponentialBackoff {
        initial_interval: Duration::from_millis(250),
        current_interval: Duration::from_millis(250),
        max_interval: Duration::from_secs(3),
        multiplier: 2.0,
        randomization_factor: 0.3,
        // The default gives up after 15 minutes.
        max_elapsed_time: None,
        ..ExponentialBackoff::default()
    }
}

#[cfg(test)]
mod tests {
    use backoff::backoff::Backoff as _;

    use super::*;

    #[test]
    fn connecting_is_never_given_up() {
        let mut delays = reconnect_delays();
        delays.start_time -= Duration::from_secs(3600);
        for _ in 0..10_000 {
            let delay = delays.next_backoff().expect("another try");
            assert!(delay <= Duration::from_secs(4), "{delay:?}");
        }
    }

    #[test]
    fn an_address_names_the_default_vhost_and_a_heartbeat_unless_told_otherwise() {
        let uri = |url: &str| ConnectionConfig::new(SecretString::from(url.to_owned())).uri().expect("an address");
        for url in ["amqp://host", "amqp://host/", "amqp://host/%2f"] {
            assert_eq!((uri(url).vhost.as_str(), uri(url).query.heartbeat), ("/", Some(HEARTBEAT_SECONDS)), "{url}");
        }
        let told = uri("amqp://user:pass@host:5673/chat?heartbeat=30");
        assert_eq!((told.vhost.as_str(), told.query.heartbeat), ("chat", Some(30)));
    }
}
