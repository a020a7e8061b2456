//! The settings: defaults, then `waypost.toml`, then `WAYPOST_…` variables, then flags. [`Config::load`] is the way in.
//!
//! `raw` is their shape as they are written and their defaults, `known` the list of them; `layers` reads the file and
//! lays one source over the other, `environment` reads variables and flags, and `validate` makes of it what is declared
//! here, value by value (`values`). What is wrong is reported all at once, each `fault` with the place it came from.
//! `setting` shows what is in effect, secrets masked.

mod environment;
mod fault;
mod raw;
mod registry;
mod setting;
mod sources;
#[cfg(test)]
mod tests;
mod validate;
mod values;

use std::ffi::OsString;
use std::fmt;
use std::io::ErrorKind;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use secrecy::SecretString;
use url::Url;

pub use self::fault::{ConfigError, ConfigFault};
use self::registry::SettingRegistry;
pub use self::setting::Setting;
use self::setting::masked;
use crate::delivery::egress::HttpUrls;
use crate::delivery::egress::{Allowed, EgressRules};
use crate::delivery::endpoint::concurrency_limiter::Limits;
use crate::delivery::retry::RetryPolicy;
use crate::delivery::secret_encryption::Keyring;
use crate::tls::Identity;

/// The file that is read where none is named.
pub const FILE: &str = "waypost.toml";

/// All settings, checked.
#[derive(Debug, Clone)]
pub struct Config {
    /// RabbitMQ.
    pub broker: BrokerConfig,
    /// The listener.
    pub http: HttpConfig,
    /// The local view.
    pub store: StoreConfig,
    /// What webhooks do that say nothing else.
    pub retry: RetryPolicy,
    /// Dead letters.
    pub dead_letters: DeadLettersConfig,
    /// Each endpoint.
    pub endpoint: EndpointConfig,
    /// What webhooks may reach, and how.
    pub egress: EgressConfig,
    /// Stopping.
    pub shutdown: ShutdownConfig,
    /// The log.
    pub log: LogConfig,
    /// Traces.
    pub telemetry: TelemetryConfig,
    /// Opens and seals secrets: `WAYPOST_SECRET_KEY`.
    pub keyring: Keyring,
    /// Every setting as it was loaded and where it came from, for people. Secrets are masked.
    pub settings: Vec<Setting>,
}

impl Config {
    /// Loads the settings of this process: from `file`, or from `./waypost.toml` where there is one, from the
    /// environment, and from `overrides`, each the key of a setting and its value as text.
    ///
    /// # Errors
    /// Everything that is wrong with them.
    pub fn load(file: Option<&Path>, overrides: &[(&str, String)]) -> Result<Self, ConfigError> {
        // What is not UTF-8 is told apart, and refused, by its replacement characters.
        let text = |value: OsString| value.to_string_lossy().into_owned();
        let environment = std::env::vars_os().map(|(name, value)| (text(name), text(value)));
        Self::load_from(Path::new("."), file, environment, overrides)
    }

    fn load_from(
        folder: &Path,
        file: Option<&Path>,
        environment: impl IntoIterator<Item = (String, String)>,
        overrides: &[(&str, String)],
    ) -> Result<Self, ConfigError> {
        let known = SettingRegistry::new();
        let mut faults = Vec::new();
        let environment: Vec<(String, String)> = environment.into_iter().collect();
        let keyring = environment::keyring(&environment, &mut faults);
        let mut given = Vec::new();
        let usual = folder.join(FILE);
        if let Some(file) = file.or_else(|| is_there(&usual).then_some(usual.as_path())) {
            given.extend(sources::read_file(file, &known, &mut faults));
        }
        given.extend(environment::read(environment, &known, &mut faults));
        given.extend(environment::overrides(overrides, &known, &mut faults));
        let merged = sources::merge(&known, given, &mut faults);
        let settings = setting::settings(&known, &merged);
        validate::config(&merged, keyring, settings, faults)
    }
}

/// Whether there is such a file, even one that can't be read: that is a fault then, as its settings were meant.
fn is_there(path: &Path) -> bool {
    !path.symlink_metadata().is_err_and(|error| error.kind() == ErrorKind::NotFound)
}

/// `broker.*`
#[derive(Debug, Clone)]
pub struct BrokerConfig {
    /// `amqp://` or `amqps://`, with a password and the vhost.
    pub url: SecretString,
    /// RabbitMQ's management API, for what AMQP does not show; may have a user and a password.
    pub management_url: Option<SecretString>,
    /// The beginning of the name of every object in the broker.
    pub prefix: String,
    /// Queues the events are spread over.
    pub shards: u32,
    /// Messages of events in hand at once.
    pub prefetch: u16,
    /// Authorities to trust besides the system's, as PEM: for `amqps`.
    pub authorities: Option<String>,
    /// Who this worker is to a broker that asks for a certificate.
    pub identity: Option<Identity>,
}

/// `http.*`
#[derive(Debug, Clone)]
pub struct HttpConfig {
    /// The address of the listener. Loopback, or there are tokens.
    pub listen: SocketAddr,
    /// Who may call. None: everybody who can reach the listener.
    pub tokens: Vec<Token>,
    /// Who the listener is over TLS; none: it speaks plain HTTP.
    pub identity: Option<Identity>,
}

/// Somebody who may call the API.
#[derive(Clone, PartialEq, Eq)]
pub struct Token {
    /// For people; no two have the same.
    pub name: String,
    /// What its bearer may do.
    pub role: Role,
    /// SHA-256 of the token.
    pub sha256: [u8; 32],
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Token").field("name", &self.name).field("role", &self.role).finish_non_exhaustive()
    }
}

/// What the bearer of a token may do: each role all that the ones before it may.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Role {
    /// Look.
    Viewer,
    /// Replay and discard dead letters, publish and test.
    Operator,
    /// Change campaigns.
    Editor,
}

impl Role {
    const NAMES: [(&str, Self); 3] = [("viewer", Self::Viewer), ("operator", Self::Operator), ("editor", Self::Editor)];

    /// The name in the settings.
    pub fn as_str(self) -> &'static str {
        name_of(self, &Self::NAMES)
    }
}

/// `store.*`
#[derive(Debug, Clone)]
pub struct StoreConfig {
    /// The folder of the local view.
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
    /// What each endpoint is sent by one worker, at once and in a second.
    pub limits: Limits,
    /// The limit of the TCP and the TLS handshake together.
    pub connect_timeout: Duration,
}

/// `egress.*`
#[derive(Debug, Clone)]
pub struct EgressConfig {
    /// Whether webhooks may have plain `http` URLs.
    pub http_urls: HttpUrls,
    /// What may be reached although it is private.
    pub allow: Vec<Allowed>,
    /// What all requests go through; may hold a password.
    pub proxy: Option<SecretString>,
    /// A PEM file of certificate authorities to trust besides the system's.
    pub ca_file: Option<PathBuf>,
}

impl EgressConfig {
    /// What webhooks may reach.
    pub fn rules(&self) -> EgressRules {
        EgressRules::new(self.http_urls, self.allow.clone())
    }
}

/// `shutdown.*`
#[derive(Debug, Clone)]
pub struct ShutdownConfig {
    /// How long requests in flight may take to end before they are cut off.
    pub grace: Duration,
}

/// `log.*`
#[derive(Debug, Clone)]
pub struct LogConfig {
    /// The least that is logged.
    pub level: LogLevel,
    /// How a line looks.
    pub format: LogFormat,
}

/// `log.level`
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogLevel {
    /// What needs a person.
    Error,
    /// What may need one.
    Warn,
    /// What happens seldom and matters.
    Info,
    /// Every step.
    Debug,
    /// Everything.
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

    /// The name in the settings, which is tracing's as well.
    pub fn as_str(self) -> &'static str {
        name_of(self, &Self::NAMES)
    }
}

/// `log.format`
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogFormat {
    /// Human on a terminal, else JSON.
    Auto,
    /// For people.
    Human,
    /// One JSON object a line.
    Json,
}

impl LogFormat {
    const NAMES: [(&str, Self); 3] = [("auto", Self::Auto), ("human", Self::Human), ("json", Self::Json)];
}

/// `telemetry.*`
#[derive(Clone)]
pub struct TelemetryConfig {
    /// Where traces are sent; may hold a password.
    pub otlp_endpoint: Option<Url>,
}

impl fmt::Debug for TelemetryConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TelemetryConfig").field("otlp_endpoint", &self.otlp_endpoint.as_ref().map(masked)).finish()
    }
}

/// The name of a value in the settings.
fn name_of<T: PartialEq>(value: T, names: &[(&'static str, T)]) -> &'static str {
    names.iter().find(|(_, named)| *named == value).map_or("", |(name, _)| name)
}
