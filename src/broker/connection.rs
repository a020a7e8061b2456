//! Connections: opened with a time limit and a heartbeat, never recovered by the library.
//!
//! lapin's own recovery doubles bindings, gives up after 16 tries, leaves a consumer pending for ever after a
//! channel-level close, and reads a stream from its first offset again. So whoever owns a connection builds a new one,
//! with its channels and topology, after a [`backoff`](reconnect_delays).

use std::time::Duration;

use backoff::ExponentialBackoff;
use lapin::uri::AMQPUri;
use lapin::{Connection, ConnectionProperties};
use secrecy::{ExposeSecret, SecretString};

use super::BrokerError;

/// Both sides take a peer for dead that has been silent for this long, in seconds.
const HEARTBEAT_SECONDS: u16 = 10;

/// TCP connection and AMQP handshake together.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// Where the broker is, and who we are to it.
#[derive(Clone)]
pub struct Address {
    url: SecretString,
}

impl Address {
    /// From `broker.url`.
    pub fn new(url: SecretString) -> Self {
        Self { url }
    }

    fn uri(&self) -> Result<AMQPUri, BrokerError> {
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
        match tokio::time::timeout(CONNECT_TIMEOUT, Connection::connect_uri(uri, properties)).await {
            Ok(Ok(connection)) => Ok(connection),
            Ok(Err(error)) => Err(failed(error.to_string())),
            Err(_) => Err(failed(format!("no answer within {} s", CONNECT_TIMEOUT.as_secs()))),
        }
    }
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
