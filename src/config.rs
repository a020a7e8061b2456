//! The settings, loaded by [`Config::load`]: defaults, `waypost.toml`, `WAYPOST_…` variables and flags, in ascending
//! order of precedence.
//!
//! `raw` has the file's structure and the defaults, `registry` the list of settings. `load` reads and checks all of
//! them: `sources` reads the file and merges the sources, `environment` reads variables and flags, and `validate` and `values` convert the raw values to
//! the types of this module. All errors are reported at once, each with its origin (`violation`). `setting` has the
//! effective values for display, with masked secrets.

mod environment;
mod load;
mod raw;
mod registry;
mod setting;
mod sources;
#[cfg(test)]
mod tests;
mod validate;
mod values;
mod violation;

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use secrecy::SecretString;
use url::Url;

pub use self::load::DEFAULT_FILE;
pub use self::setting::Setting;
pub use self::violation::{ConfigError, ConfigViolation};
use waypost_broker::tls::Identity;
use waypost_core::access::Token;
use waypost_core::egress::HttpUrls;
use waypost_core::egress::{AllowRule, EgressRules};
use waypost_core::endpoint::concurrency_limiter::Limits;
use waypost_core::retry::RetryPolicy;
use waypost_core::secret_encryption::Keyring;

use self::setting::mask_password;

/// All settings, validated.
#[derive(Debug, Clone)]
pub struct Config {
    pub broker: BrokerConfig,
    pub http: HttpConfig,
    pub store: StoreConfig,
    /// The defaults for webhooks.
    pub retry: RetryPolicy,
    pub dead_letters: DeadLettersConfig,
    pub endpoint: EndpointConfig,
    pub egress: EgressConfig,
    pub shutdown: ShutdownConfig,
    pub log: LogConfig,
    pub telemetry: TelemetryConfig,
    /// The keys of `WAYPOST_SECRET_KEY`, which encrypt and decrypt secrets.
    pub keyring: Keyring,
    /// Every setting for display, with its origin. Secrets are masked.
    pub settings: Vec<Setting>,
}

/// `broker.*`
#[derive(Debug, Clone)]
pub struct BrokerConfig {
    /// An `amqp://` or `amqps://` URL with password and vhost.
    pub url: SecretString,
    /// The URL of RabbitMQ's management API. It may have a password.
    pub management_url: Option<SecretString>,
    /// The prefix of the names of all broker objects.
    pub prefix: String,
    /// The number of event queues.
    pub shards: u32,
    /// The maximum number of unacknowledged event messages.
    pub prefetch: u16,
    /// Additional certificate authorities for `amqps`, as PEM.
    pub authorities: Option<String>,
    /// The client certificate for the broker.
    pub identity: Option<Identity>,
}

/// `http.*`
#[derive(Debug, Clone)]
pub struct HttpConfig {
    /// The address of the listener. It is a loopback address if there are no tokens.
    pub listen: SocketAddr,
    /// If empty, requests need no token.
    pub tokens: Vec<Token>,
    /// The certificate of the listener. `None` for plain HTTP.
    pub identity: Option<Identity>,
}

/// `store.*`
#[derive(Debug, Clone)]
pub struct StoreConfig {
    /// The folder of the local store.
    pub path: PathBuf,
}

/// `deadLetters.*`
#[derive(Debug, Clone)]
pub struct DeadLettersConfig {
    /// How long a dead letter is kept.
    pub retention: Duration,
}

/// `endpoint.*`
#[derive(Debug, Clone)]
pub struct EndpointConfig {
    /// The limits of one worker for each endpoint.
    pub limits: Limits,
    /// For TCP connect and TLS handshake together.
    pub connect_timeout: Duration,
}

/// `egress.*`
#[derive(Debug, Clone)]
pub struct EgressConfig {
    /// Whether webhooks may have `http` URLs.
    pub http_urls: HttpUrls,
    /// Private destinations that webhooks may reach.
    pub allow: Vec<AllowRule>,
    /// The URL of the proxy for all requests. It may have a password.
    pub proxy: Option<SecretString>,
    /// A PEM file with additional certificate authorities.
    pub ca_file: Option<PathBuf>,
}

impl EgressConfig {
    pub fn rules(&self) -> EgressRules {
        EgressRules::new(self.http_urls, self.allow.clone())
    }
}

/// `shutdown.*`
#[derive(Debug, Clone)]
pub struct ShutdownConfig {
    /// Requests in flight are aborted after this time.
    pub grace: Duration,
}

/// `log.*`
#[derive(Debug, Clone)]
pub struct LogConfig {
    pub level: LogLevel,
    pub format: LogFormat,
}

/// `log.level`
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogLevel {
    Error,
    Warn,
    Info,
    Debug,
    Trace,
}

impl LogLevel {
    const NAMES: [(&str, Self); 5] = [
        ("error", Self::Error),
        ("warn", Self::Warn),
        ("info", Self::Info),
        ("debug", Self::Debug),
        ("trace", Self::Trace),
    ];

    /// The name in the settings and in `tracing`.
    pub fn as_str(self) -> &'static str {
        name_of(self, &Self::NAMES)
    }
}

/// `log.format`
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogFormat {
    /// `Human` on a terminal, else `Json`.
    Auto,
    Human,
    /// One JSON object per line.
    Json,
}

impl LogFormat {
    const NAMES: [(&str, Self); 3] = [("auto", Self::Auto), ("human", Self::Human), ("json", Self::Json)];
}

/// `telemetry.*`
#[derive(Clone)]
pub struct TelemetryConfig {
    /// The URL of the OTLP collector. It may have a password.
    pub otlp_endpoint: Option<Url>,
}

impl fmt::Debug for TelemetryConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TelemetryConfig")
            .field("otlp_endpoint", &self.otlp_endpoint.as_ref().map(mask_password))
            .finish()
    }
}

fn name_of<T: PartialEq>(value: T, names: &[(&'static str, T)]) -> &'static str {
    names.iter().find(|(_, candidate)| *candidate == value).map_or("", |(name, _)| name)
}
