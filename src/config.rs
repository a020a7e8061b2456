//! The settings: defaults, then `waypost.toml`, then `WAYPOST_…` variables, then flags.
//!
//! `raw` holds them as they are written and lays the layers over each other, `environment` reads variables and flags,
//! and here they are checked. What is wrong is reported all at once, each with the place it came from.

mod environment;
mod raw;

use std::collections::HashSet;
use std::fmt;
use std::io::ErrorKind;
use std::net::{IpAddr, SocketAddr};
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::time::Duration;

use figment::value::Value;
use ipnet::IpNet;
use secrecy::SecretString;
use sha2::{Digest, Sha256};
use url::{Host, Url};

use crate::delivery::duration;
use crate::delivery::retry::RetryPolicy;
use raw::{Known, Merged, RawToken};

/// The file that is read where none is named.
pub const FILE: &str = "waypost.toml";

/// No duration is longer: far more than anybody means, and far less than what arithmetic on times can bear.
const LONGEST: Duration = Duration::from_secs(3650 * 24 * 3600);

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
    /// Every setting as it was loaded and where it came from, for people. Secrets are masked.
    pub settings: Vec<Setting>,
}

/// `broker.*`
#[derive(Debug, Clone)]
pub struct BrokerConfig {
    /// `amqp://` or `amqps://`, with a password and the vhost.
    pub url: SecretString,
    /// The beginning of the name of every object in the broker.
    pub prefix: String,
    /// Queues the events are spread over.
    pub shards: u32,
    /// Messages of events in hand at once.
    pub prefetch: u16,
}

/// `http.*`
#[derive(Debug, Clone)]
pub struct HttpConfig {
    /// The address of the listener. Loopback, or there are tokens.
    pub listen: SocketAddr,
    /// Who may call. None: everybody who can reach the listener.
    pub tokens: Vec<Token>,
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
        f.debug_struct("Token")
            .field("name", &self.name)
            .field("role", &self.role)
            .finish_non_exhaustive()
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
    const NAMES: [(&str, Self); 3] = [
        ("viewer", Self::Viewer),
        ("operator", Self::Operator),
        ("editor", Self::Editor),
    ];

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
    /// The most requests in flight to one endpoint, where its webhook says nothing else.
    pub max_concurrency: u32,
    /// The limit of the TCP and the TLS handshake together.
    pub connect_timeout: Duration,
}

/// `egress.*`
#[derive(Clone)]
pub struct EgressConfig {
    /// Which URLs a webhook may have.
    pub schemes: Schemes,
    /// What may be reached although it is private.
    pub allow: Vec<Allowed>,
    /// The proxy that all requests go through; may hold a password.
    pub proxy: Option<Url>,
    /// A PEM file of certificate authorities to trust besides the system's.
    pub ca_file: Option<PathBuf>,
}

impl fmt::Debug for EgressConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EgressConfig")
            .field("schemes", &self.schemes)
            .field("allow", &self.allow)
            .field("proxy", &self.proxy.as_ref().map(masked))
            .field("ca_file", &self.ca_file)
            .finish()
    }
}

/// `egress.allowHttp`
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Schemes {
    /// `https://` only.
    Https,
    /// `http://` as well.
    HttpAndHttps,
}

/// What may be reached although it is private.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Allowed {
    /// A network, or a single address.
    Network(IpNet),
    /// A host name in lower case, as a URL has it; whatever address it has.
    Host(String),
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
    const NAMES: [(&str, Self); 3] = [
        ("auto", Self::Auto),
        ("human", Self::Human),
        ("json", Self::Json),
    ];
}

/// `telemetry.*`
#[derive(Clone)]
pub struct TelemetryConfig {
    /// Where traces are sent; may hold a password.
    pub otlp_endpoint: Option<Url>,
}

impl fmt::Debug for TelemetryConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TelemetryConfig")
            .field("otlp_endpoint", &self.otlp_endpoint.as_ref().map(masked))
            .finish()
    }
}

/// One setting as `waypost check` shows it: secrets are masked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Setting {
    /// `broker.prefetch`
    pub key: String,
    /// The effective value.
    pub value: String,
    /// What it would be if nobody had set it.
    pub default: String,
    /// Where the value came from: `default`, a file's path, a variable's name or `the command line`.
    pub origin: String,
}

/// Settings that cannot be used. Displayed one fault a line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigError {
    /// Everything that is wrong.
    pub faults: Vec<ConfigFault>,
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, fault) in self.faults.iter().enumerate() {
            let separator = if i == 0 { "" } else { "\n" };
            write!(f, "{separator}{fault}")?;
        }
        Ok(())
    }
}

impl std::error::Error for ConfigError {}

/// One thing that is wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigFault {
    /// The setting; of what names no setting, the file or the variable.
    pub key: String,
    /// What is wrong and what to do.
    pub message: String,
    /// Where the value came from, if that is not [`key`](Self::key) itself or the defaults.
    pub origin: Option<String>,
}

impl ConfigFault {
    fn new(key: impl Into<String>, message: impl Into<String>) -> Self {
        Self {
            key: key.into(),
            message: message.into(),
            origin: None,
        }
    }

    fn from(mut self, origin: &str) -> Self {
        self.origin = (origin != raw::DEFAULT).then(|| origin.to_owned());
        self
    }
}

impl fmt::Display for ConfigFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.key, self.message)?;
        match &self.origin {
            Some(origin) => write!(f, " (from {origin})"),
            None => Ok(()),
        }
    }
}

impl Config {
    /// Loads the settings of this process: from `file`, or from `./waypost.toml` where there is one, from the
    /// environment, and from `overrides`, each the key of a setting and its value as text.
    ///
    /// # Errors
    /// Everything that is wrong with them.
    pub fn load(file: Option<&Path>, overrides: &[(&str, String)]) -> Result<Self, ConfigError> {
        // What is not UTF-8 is told apart, and refused, by its replacement characters.
        let text = |value: std::ffi::OsString| value.to_string_lossy().into_owned();
        let environment = std::env::vars_os().map(|(name, value)| (text(name), text(value)));
        Self::load_from(Path::new("."), file, environment, overrides)
    }

    /// [`load`](Self::load) for a given folder and environment: for tests.
    ///
    /// # Errors
    /// Everything that is wrong with them.
    pub fn load_from(
        folder: &Path,
        file: Option<&Path>,
        environment: impl IntoIterator<Item = (String, String)>,
        overrides: &[(&str, String)],
    ) -> Result<Self, ConfigError> {
        let known = Known::new();
        let mut faults = Vec::new();
        let mut given = match file {
            Some(file) => named_file(file, &known, &mut faults),
            None => usual_file(&folder.join(FILE), &known, &mut faults),
        };
        given.extend(environment::read(environment, &known, &mut faults));
        given.extend(environment::overrides(overrides, &known, &mut faults));
        let merged = raw::merge(&known, given, &mut faults);

        let mut check = Check {
            merged: &merged,
            faults,
        };
        let config = config(&known, &mut check);
        match config {
            Some(config) if check.faults.is_empty() => Ok(config),
            _ => Err(ConfigError {
                faults: check.faults,
            }),
        }
    }
}

fn named_file(path: &Path, known: &Known, faults: &mut Vec<ConfigFault>) -> Vec<raw::Given> {
    raw::read_file(path, known, faults).unwrap_or_else(|error| {
        faults.push(ConfigFault::new(
            path.display().to_string(),
            format!("cannot be read: {error}"),
        ));
        Vec::new()
    })
}

/// The file that may be missing. One that is there and can't be read is a fault: its settings were meant.
fn usual_file(path: &Path, known: &Known, faults: &mut Vec<ConfigFault>) -> Vec<raw::Given> {
    match path.symlink_metadata() {
        Err(error) if error.kind() == ErrorKind::NotFound => Vec::new(),
        _ => named_file(path, known, faults),
    }
}

/// Collects the faults of values.
struct Check<'a> {
    merged: &'a Merged,
    faults: Vec<ConfigFault>,
}

impl Check<'_> {
    /// The value, or a fault of `key`: a setting or a part of one (`http.tokens[0].role`).
    fn value<T>(&mut self, key: &str, value: Result<T, String>) -> Option<T> {
        value.map_err(|message| self.fault(key, message)).ok()
    }

    /// The items of a list, or a fault of each that is none.
    fn items<R, T>(
        &mut self,
        key: &str,
        raw: &[R],
        item: fn(&R) -> Result<T, String>,
    ) -> Option<Vec<T>> {
        let items: Vec<Option<T>> = raw
            .iter()
            .enumerate()
            .map(|(i, raw)| self.value(&format!("{key}[{i}]"), item(raw)))
            .collect();
        items.into_iter().collect()
    }

    fn fault(&mut self, key: &str, message: String) {
        let setting = key.split('[').next().unwrap_or(key);
        self.faults
            .push(ConfigFault::new(key, message).from(self.merged.origin(setting)));
    }

    /// Whether nothing is wrong with a setting so far. One that is wrong may have its default in place.
    fn is_sound(&self, setting: &str) -> bool {
        !self
            .faults
            .iter()
            .any(|fault| fault.key.split('[').next() == Some(setting))
    }
}

fn config(known: &Known, check: &mut Check<'_>) -> Option<Config> {
    // Each of them first, so that each reports its faults.
    let broker = broker(check);
    let http = http(check);
    let store = store(check);
    let retry = retry(check);
    let dead_letters = dead_letters(check);
    let endpoint = endpoint(check);
    let egress = egress(check);
    let shutdown = shutdown(check);
    let log = log(check);
    let telemetry = telemetry(check);
    Some(Config {
        broker: broker?,
        http: http?,
        store: store?,
        retry: retry?,
        dead_letters: dead_letters?,
        endpoint: endpoint?,
        egress: egress?,
        shutdown: shutdown?,
        log: log?,
        telemetry: telemetry?,
        settings: settings(known, check.merged),
    })
}

fn broker(check: &mut Check<'_>) -> Option<BrokerConfig> {
    let raw = &check.merged.raw.broker;
    let url = check.value("broker.url", broker_url(&raw.url));
    let prefix = check.value("broker.prefix", prefix(&raw.prefix));
    let shards = check.value("broker.shards", shards(raw.shards));
    // RabbitMQ refuses more for a quorum queue.
    let prefetch = check.value("broker.prefetch", whole(raw.prefetch, 1..=2000));
    Some(BrokerConfig {
        url: url?,
        prefix: prefix?,
        shards: shards?,
        prefetch: prefetch?,
    })
}

fn http(check: &mut Check<'_>) -> Option<HttpConfig> {
    let raw = &check.merged.raw.http;
    let listen = check.value("http.listen", listen(&raw.listen));
    let tokens = tokens(&raw.tokens, check);
    let (listen, tokens) = (listen?, tokens?);
    let open = tokens.is_empty() && !listen.ip().to_canonical().is_loopback();
    if open && check.is_sound("http.tokens") && check.is_sound("http.listen") {
        check.fault(
            "http.listen",
            format!(
                "{listen} is reachable from outside and no http.tokens are configured: \
                 add a token or listen on 127.0.0.1"
            ),
        );
    }
    Some(HttpConfig { listen, tokens })
}

fn tokens(raw: &[RawToken], check: &mut Check<'_>) -> Option<Vec<Token>> {
    let mut names = HashSet::new();
    let mut hashes = HashSet::new();
    let mut tokens = Vec::new();
    for (i, raw) in raw.iter().enumerate() {
        let name = check.value(
            &format!("http.tokens[{i}].name"),
            token_name(&raw.name, &mut names),
        );
        let role = check.value(
            &format!("http.tokens[{i}].role"),
            one_of(&raw.role, &Role::NAMES),
        );
        let sha256 = check.value(
            &format!("http.tokens[{i}].sha256"),
            token_hash(&raw.sha256, &mut hashes),
        );
        tokens.push(
            name.zip(role)
                .zip(sha256)
                .map(|((name, role), sha256)| Token { name, role, sha256 }),
        );
    }
    tokens.into_iter().collect()
}

fn store(check: &mut Check<'_>) -> Option<StoreConfig> {
    let raw = &check.merged.raw.store;
    let path = if raw.path.is_empty() {
        Err("must name a folder".to_owned())
    } else {
        Ok(PathBuf::from(&raw.path))
    };
    Some(StoreConfig {
        path: check.value("store.path", path)?,
    })
}

fn retry(check: &mut Check<'_>) -> Option<RetryPolicy> {
    let raw = &check.merged.raw.retry;
    let initial_delay = check.value("retry.initialDelay", some_time(&raw.initial_delay));
    let multiplier = check.value("retry.multiplier", number(raw.multiplier, 1.0..=1000.0));
    let max_delay = check.value("retry.maxDelay", some_time(&raw.max_delay));
    let jitter = check.value("retry.jitter", number(raw.jitter, 0.0..=1.0));
    let max_attempts = check.value("retry.maxAttempts", whole(raw.max_attempts, 1..=1000));
    let max_age = check.value("retry.maxAge", some_time(&raw.max_age));
    let permanent_statuses = check.items(
        "retry.permanentStatuses",
        &raw.permanent_statuses,
        |status| whole(*status, 100..=599),
    );
    Some(RetryPolicy {
        initial_delay: initial_delay?,
        multiplier: multiplier?,
        max_delay: max_delay?,
        jitter: jitter?,
        max_attempts: max_attempts?,
        max_age: max_age?,
        permanent_statuses: permanent_statuses?,
    })
}

fn dead_letters(check: &mut Check<'_>) -> Option<DeadLettersConfig> {
    let raw = &check.merged.raw.dead_letters;
    Some(DeadLettersConfig {
        retention: check.value("deadLetters.retention", some_time(&raw.retention))?,
    })
}

fn endpoint(check: &mut Check<'_>) -> Option<EndpointConfig> {
    let raw = &check.merged.raw.endpoint;
    let max_concurrency = check.value(
        "endpoint.maxConcurrency",
        whole(raw.max_concurrency, 1..=10_000),
    );
    let connect_timeout = check.value("endpoint.connectTimeout", some_time(&raw.connect_timeout));
    Some(EndpointConfig {
        max_concurrency: max_concurrency?,
        connect_timeout: connect_timeout?,
    })
}

fn egress(check: &mut Check<'_>) -> Option<EgressConfig> {
    let raw = &check.merged.raw.egress;
    let schemes = if raw.allow_http {
        Schemes::HttpAndHttps
    } else {
        Schemes::Https
    };
    let allow = check.items("egress.allow", &raw.allow, |text: &String| allowed(text));
    let proxy = check.value("egress.proxy", optional(&raw.proxy, web_url));
    let ca_file = check.value("egress.caFile", optional(&raw.ca_file, readable));
    Some(EgressConfig {
        schemes,
        allow: allow?,
        proxy: proxy?,
        ca_file: ca_file?,
    })
}

fn shutdown(check: &mut Check<'_>) -> Option<ShutdownConfig> {
    let raw = &check.merged.raw.shutdown;
    Some(ShutdownConfig {
        grace: check.value("shutdown.grace", time(&raw.grace))?,
    })
}

fn log(check: &mut Check<'_>) -> Option<LogConfig> {
    let raw = &check.merged.raw.log;
    let level = check.value("log.level", one_of(&raw.level, &LogLevel::NAMES));
    let format = check.value("log.format", one_of(&raw.format, &LogFormat::NAMES));
    Some(LogConfig {
        level: level?,
        format: format?,
    })
}

fn telemetry(check: &mut Check<'_>) -> Option<TelemetryConfig> {
    let raw = &check.merged.raw.telemetry;
    let otlp_endpoint = check.value(
        "telemetry.otlpEndpoint",
        optional(&raw.otlp_endpoint, web_url),
    );
    Some(TelemetryConfig {
        otlp_endpoint: otlp_endpoint?,
    })
}

/// The URL with its vhost written out. No message repeats the URL: it holds a password.
fn broker_url(text: &str) -> Result<SecretString, String> {
    let example = "write amqp://USER:PASSWORD@HOST:5672/VHOST, special characters of the password percent-encoded";
    let mut url = Url::parse(text).map_err(|error| format!("is not a URL ({error}): {example}"))?;
    if !["amqp", "amqps"].contains(&url.scheme()) {
        return Err(format!("must begin with amqp:// or amqps://: {example}"));
    }
    match url.host() {
        None => return Err(format!("names no host: {example}")),
        // lapin reads none and connects to `localhost` instead, without a word.
        Some(Host::Ipv6(_)) => {
            return Err("cannot have an IPv6 address as its host: give a host name".to_owned());
        }
        Some(_) => {}
    }
    // Mostly a password with a `#` or a `?` that is not encoded; the rest of it would be taken for the host.
    if url.fragment().is_some()
        || !url
            .query_pairs()
            .all(|(name, value)| is_parameter(&name, &value))
    {
        let known = PARAMETERS.map(|(name, _)| name).join(", ");
        return Err(format!(
            "has a part after `?` or `#` that means nothing: in a password write %3F for `?` and %23 for `#`; \
             the parameters are auth_mechanism, {known}"
        ));
    }
    if matches!(url.path(), "" | "/") {
        url.set_path("/%2f");
    }
    Ok(SecretString::from(String::from(url)))
}

/// The numbers that lapin takes in a URL, and the most each can be. It ignores other parameters, which would be worse
/// than to refuse them: somebody may rely on `verify=verify_peer`.
const PARAMETERS: [(&str, u64); 4] = [
    ("frame_max", u32::MAX as u64),
    ("channel_max", u16::MAX as u64),
    ("heartbeat", u16::MAX as u64),
    ("connection_timeout", u64::MAX),
];

fn is_parameter(name: &str, value: &str) -> bool {
    let number = PARAMETERS.iter().find(|(known, _)| *known == name);
    match number {
        Some((_, most)) => value.parse::<u64>().is_ok_and(|value| value <= *most),
        None => name == "auth_mechanism",
    }
}

fn prefix(text: &str) -> Result<String, String> {
    let fits = (1..=100).contains(&text.len())
        && text
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b"_.-".contains(&byte));
    if !fits {
        return Err("must be 1 to 100 letters, digits, `_`, `.` or `-`".to_owned());
    }
    if text == "amq" || text.starts_with("amq.") {
        return Err("must not begin with `amq.`: RabbitMQ keeps those names for itself".to_owned());
    }
    Ok(text.to_owned())
}

fn shards(value: i64) -> Result<u32, String> {
    match whole(value, 1..=64)? {
        1 => Ok(1),
        more => Err(format!("{more} shards are not supported yet: write 1")),
    }
}

fn listen(text: &str) -> Result<SocketAddr, String> {
    let local = text
        .strip_prefix("localhost:")
        .map(|port| format!("127.0.0.1:{port}"));
    let address = local.as_deref().unwrap_or(text).parse();
    address.map_err(|_| {
        format!("`{text}` is not an address and a port: write 127.0.0.1:8080 or [::1]:8080")
    })
}

fn token_name<'a>(name: &'a str, names: &mut HashSet<&'a str>) -> Result<String, String> {
    if name.trim().is_empty() || name.len() > 100 {
        return Err("must be 1 to 100 characters".to_owned());
    }
    if !names.insert(name) {
        return Err(format!(
            "`{name}` is the name of another token: each needs its own"
        ));
    }
    Ok(name.to_owned())
}

/// No message repeats the text: it may be the token itself, put here by mistake.
fn token_hash(text: &str, hashes: &mut HashSet<[u8; 32]>) -> Result<[u8; 32], String> {
    let hash = hex(text)
        .ok_or("must be the SHA-256 of the token in 64 hex digits: printf %s TOKEN | sha256sum")?;
    if hash[..] == Sha256::digest(b"")[..] {
        return Err("is the hash of no text at all: printf %s TOKEN | sha256sum".to_owned());
    }
    if !hashes.insert(hash) {
        return Err("is the hash of another token as well: each needs its own".to_owned());
    }
    Ok(hash)
}

fn hex(text: &str) -> Option<[u8; 32]> {
    // `from_str_radix` would take a sign for a digit.
    if text.len() != 64 || !text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return None;
    }
    let mut bytes = [0; 32];
    for (i, byte) in bytes.iter_mut().enumerate() {
        *byte = u8::from_str_radix(text.get(2 * i..2 * i + 2)?, 16).ok()?;
    }
    Some(bytes)
}

fn allowed(text: &str) -> Result<Allowed, String> {
    let wrong = || {
        format!(
            "`{text}` is neither a network (10.0.0.0/8), nor an address (10.1.2.3), nor a host name (hooks.internal)"
        )
    };
    if let Ok(network) = text.parse::<IpNet>() {
        return Ok(Allowed::Network(network.trunc()));
    }
    let bare = text
        .strip_prefix('[')
        .and_then(|text| text.strip_suffix(']'))
        .unwrap_or(text);
    if let Ok(address) = bare.parse::<IpAddr>() {
        return Ok(Allowed::Network(IpNet::from(address)));
    }
    // As the URL of a webhook has it: in lower case and Punycode.
    match Host::parse(text.strip_suffix('.').unwrap_or(text)) {
        Ok(Host::Domain(host)) if is_host_name(&host) => Ok(Allowed::Host(host)),
        _ => Err(wrong()),
    }
}

fn is_host_name(host: &str) -> bool {
    let label = |label: &str| {
        !label.is_empty()
            && label
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte))
    };
    host.split('.').all(label)
}

/// `None` for an empty text: TOML has no null.
fn optional<T>(text: &str, read: fn(&str) -> Result<T, String>) -> Result<Option<T>, String> {
    if text.is_empty() {
        Ok(None)
    } else {
        read(text).map(Some)
    }
}

/// No message repeats the URL: it may hold a password.
fn web_url(text: &str) -> Result<Url, String> {
    match Url::parse(text) {
        Ok(url) if ["http", "https"].contains(&url.scheme()) => Ok(url),
        Ok(_) => Err("must begin with http:// or https://".to_owned()),
        Err(error) => Err(format!(
            "is not a URL ({error}): write http://HOST:PORT or https://HOST:PORT"
        )),
    }
}

fn readable(text: &str) -> Result<PathBuf, String> {
    std::fs::read(text)
        .map(|_| PathBuf::from(text))
        .map_err(|error| format!("{text} cannot be read: {error}"))
}

fn time(text: &str) -> Result<Duration, String> {
    let time = duration::parse(text)?;
    if time > LONGEST {
        Err(format!("`{text}` is longer than ten years"))
    } else {
        Ok(time)
    }
}

fn some_time(text: &str) -> Result<Duration, String> {
    let time = time(text)?;
    if time.is_zero() {
        Err(format!("`{text}` is no time at all: must be longer"))
    } else {
        Ok(time)
    }
}

fn whole<T: TryFrom<i64>>(value: i64, range: RangeInclusive<i64>) -> Result<T, String> {
    let fits = range
        .contains(&value)
        .then(|| T::try_from(value).ok())
        .flatten();
    fits.ok_or_else(|| {
        format!(
            "{value} is out of range: {} to {}",
            range.start(),
            range.end()
        )
    })
}

fn number(value: f64, range: RangeInclusive<f64>) -> Result<f64, String> {
    // A range contains no NaN.
    let fits = range.contains(&value).then_some(value);
    fits.ok_or_else(|| {
        format!(
            "{value} is out of range: {} to {}",
            range.start(),
            range.end()
        )
    })
}

fn one_of<T: Copy>(text: &str, names: &[(&str, T)]) -> Result<T, String> {
    let found = names
        .iter()
        .find(|(name, _)| name.eq_ignore_ascii_case(text));
    found.map(|(_, value)| *value).ok_or_else(|| {
        let names: Vec<&str> = names.iter().map(|(name, _)| *name).collect();
        format!("`{text}` is none of {}", names.join(", "))
    })
}

fn name_of<T: PartialEq>(value: T, names: &[(&'static str, T)]) -> &'static str {
    names
        .iter()
        .find(|(_, named)| *named == value)
        .map_or("", |(name, _)| name)
}

fn settings(known: &Known, merged: &Merged) -> Vec<Setting> {
    let setting = |key: &str| Setting {
        key: key.to_owned(),
        value: merged.value(key).as_ref().map(shown).unwrap_or_default(),
        default: known.default_of(key).map(shown).unwrap_or_default(),
        origin: merged.origin(key).to_owned(),
    };
    known.keys().map(setting).collect()
}

/// A value for people, its secrets masked.
fn shown(value: &Value) -> String {
    match value {
        Value::String(_, text) if text.contains("://") => {
            Url::parse(text).map_or_else(|_| "***".to_owned(), |url| masked(&url))
        }
        Value::String(_, text) if text.is_empty() => "none".to_owned(),
        Value::String(_, text) => text.clone(),
        Value::Bool(_, value) => value.to_string(),
        Value::Array(_, items) if items.is_empty() => "none".to_owned(),
        Value::Array(_, items) => items.iter().map(shown).collect::<Vec<_>>().join(", "),
        // A token: the only table there is.
        Value::Dict(_, token) => {
            let part = |name| token.get(name).and_then(Value::as_str).unwrap_or_default();
            format!("{} ({})", part("name"), part("role"))
        }
        number => match number.to_i128() {
            Some(whole) => whole.to_string(),
            None => number
                .to_f64()
                .map(|number| number.to_string())
                .unwrap_or_default(),
        },
    }
}

/// A URL without its password.
fn masked(url: &Url) -> String {
    let mut url = url.clone();
    // Fails only for a URL without a host, which has no password either.
    if url.password().is_some() && url.set_password(Some("***")).is_err() {
        return "***".to_owned();
    }
    url.into()
}

#[cfg(test)]
mod tests {
    use secrecy::ExposeSecret;

    use super::*;

    const HASH: &str = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08";

    /// A folder with what a test gives as settings.
    struct Given {
        folder: tempfile::TempDir,
        variables: Vec<(String, String)>,
        flags: Vec<(&'static str, String)>,
    }

    impl Given {
        fn nothing() -> Self {
            Self {
                folder: tempfile::tempdir().unwrap(),
                variables: Vec::new(),
                flags: Vec::new(),
            }
        }

        fn file(text: &str) -> Self {
            let given = Self::nothing();
            std::fs::write(given.path(), text).unwrap();
            given
        }

        fn variable(mut self, name: &str, value: &str) -> Self {
            self.variables.push((name.to_owned(), value.to_owned()));
            self
        }

        fn flag(mut self, key: &'static str, value: &str) -> Self {
            self.flags.push((key, value.to_owned()));
            self
        }

        fn path(&self) -> PathBuf {
            self.folder.path().join(FILE)
        }

        fn load(&self) -> Result<Config, ConfigError> {
            Config::load_from(
                self.folder.path(),
                None,
                self.variables.clone(),
                &self.flags,
            )
        }

        /// The faults, the folder's path left out.
        fn faults(&self) -> Vec<String> {
            let folder = format!("{}/", self.folder.path().display());
            let error = self.load().expect_err("these settings are wrong");
            error
                .to_string()
                .replace(&folder, "")
                .lines()
                .map(str::to_owned)
                .collect()
        }
    }

    fn defaults() -> Config {
        Given::nothing().load().unwrap()
    }

    /// The one fault of a setting given by a variable, without its origin.
    fn fault(key: &'static str, value: &str) -> String {
        let faults = Given::nothing().flag(key, value).faults();
        assert_eq!(faults.len(), 1, "{key}={value}: {faults:?}");
        faults[0]
            .strip_suffix(" (from the command line)")
            .unwrap()
            .to_owned()
    }

    fn with(key: &'static str, value: &str) -> Config {
        Given::nothing()
            .flag(key, value)
            .load()
            .unwrap_or_else(|error| panic!("{key}={value}: {error}"))
    }

    #[test]
    fn the_defaults_are_those_of_the_specification() {
        let config = defaults();
        assert_eq!(
            config.broker.url.expose_secret(),
            "amqp://guest:guest@127.0.0.1:5672/%2f"
        );
        assert_eq!(config.broker.prefix, "waypost");
        assert_eq!((config.broker.shards, config.broker.prefetch), (1, 512));
        assert_eq!(config.http.listen, SocketAddr::from(([127, 0, 0, 1], 8080)));
        assert!(config.http.tokens.is_empty());
        assert_eq!(config.store.path, Path::new("./data"));
        assert_eq!(config.retry, RetryPolicy::default());
        assert_eq!(
            config.dead_letters.retention,
            Duration::from_secs(30 * 24 * 3600)
        );
        assert_eq!(config.endpoint.max_concurrency, 64);
        assert_eq!(config.endpoint.connect_timeout, Duration::from_secs(5));
        assert_eq!(config.egress.schemes, Schemes::Https);
        assert!(config.egress.allow.is_empty());
        assert_eq!((config.egress.proxy, config.egress.ca_file), (None, None));
        assert_eq!(config.shutdown.grace, Duration::from_secs(25));
        assert_eq!(
            (config.log.level, config.log.format),
            (LogLevel::Info, LogFormat::Auto)
        );
        assert_eq!(config.telemetry.otlp_endpoint, None);
    }

    #[test]
    fn the_example_holds_every_setting_with_its_default() {
        let given = Given::file(include_str!("../waypost.example.toml"));
        let config = given.load().unwrap();
        let path = given.path().display().to_string();
        for (setting, default) in config.settings.iter().zip(defaults().settings) {
            assert_eq!(setting.origin, path, "{} is missing", setting.key);
            assert_eq!(setting.value, default.value, "{}", setting.key);
        }
        // Above, the password is masked.
        assert_eq!(
            config.broker.url.expose_secret(),
            defaults().broker.url.expose_secret()
        );
    }

    #[test]
    fn the_commented_tokens_of_the_example_are_right() {
        let example = include_str!("../waypost.example.toml");
        let lines = example
            .lines()
            .filter_map(|line| line.strip_prefix("#| "))
            .collect::<Vec<_>>()
            .join("\n");
        let config = Given::file(&lines).load().unwrap();
        assert_eq!(config.http.tokens.len(), 2);
    }

    #[test]
    fn flags_win_over_variables_over_the_file_over_the_defaults() {
        let given = Given::file("[broker]\nprefix = 'file'\nprefetch = 1\n[log]\nlevel = 'warn'")
            .variable("WAYPOST_BROKER__PREFETCH", "2")
            .variable("WAYPOST_LOG__LEVEL", "debug")
            .flag("log.level", "trace");
        let config = given.load().unwrap();
        assert_eq!(config.broker.prefix, "file");
        assert_eq!(config.broker.prefetch, 2);
        assert_eq!(config.log.level, LogLevel::Trace);
        let origin = |key: &str| {
            config
                .settings
                .iter()
                .find(|setting| setting.key == key)
                .unwrap()
                .origin
                .clone()
        };
        assert_eq!(origin("broker.prefix"), given.path().display().to_string());
        assert_eq!(origin("broker.prefetch"), "WAYPOST_BROKER__PREFETCH");
        assert_eq!(origin("log.level"), "the command line");
        assert_eq!(origin("log.format"), "default");
    }

    #[test]
    fn a_named_file_is_read_instead_and_must_exist() {
        let given = Given::file("[broker]\nprefix = 'usual'");
        let named = given.folder.path().join("other.toml");
        let load = || Config::load_from(given.folder.path(), Some(&named), Vec::new(), &[]);
        let missing = load().unwrap_err().to_string();
        assert!(
            missing.starts_with(&format!(
                "{}: cannot be read: No such file",
                named.display()
            )),
            "{missing}"
        );
        std::fs::write(&named, "[broker]\nprefetch = 7").unwrap();
        let config = load().unwrap();
        assert_eq!(
            (config.broker.prefix.as_str(), config.broker.prefetch),
            ("waypost", 7)
        );
    }

    #[test]
    fn a_usual_file_that_cannot_be_read_is_not_passed_over() {
        let given = Given::nothing();
        std::fs::create_dir(given.path()).unwrap();
        assert!(given.faults()[0].starts_with("waypost.toml: cannot be read: "));
    }

    #[test]
    fn all_faults_are_reported_at_once_with_key_and_origin() {
        let given = Given::file(
            "prefetch = 1\nlog = 'info'\n[brokr]\nurl = ''\n[broker]\nperfix = 'x'\nprefetch = 5000\nprefix = 5\n\
             [retry]\njitter = 2\npermanentStatuses = [410, 99]\n[http]\ntokens = [{name = 'ci', role = 1}]",
        )
        .variable("WAYPOST_BROKER_URL", "amqp://user:secret@host")
        .variable("WAYPOST_KAFKA__TOPIC", "x")
        .variable("WAYPOST_BROKER__SHARDS", "many")
        .variable("WAYPOST_HTTP__LISTEN", "0.0.0.0:8080")
        .flag("log.level", "loud");
        assert_eq!(
            given.faults(),
            [
                "broker.perfix: there is no such setting, did you mean broker.prefix? (from waypost.toml)",
                "brokr: there is no such setting, did you mean broker? (from waypost.toml)",
                "log: is a group of settings: write [log], and the settings below it (from waypost.toml)",
                "prefetch: there is no such setting, did you mean broker.prefetch? (from waypost.toml)",
                "WAYPOST_BROKER_URL: there is no such setting, did you mean WAYPOST_BROKER__URL?",
                "broker.shards: `many` is not a number (from WAYPOST_BROKER__SHARDS)",
                "WAYPOST_KAFKA__TOPIC: there is no such setting: waypost.example.toml lists them all",
                "broker.prefix: must be text in quotes, not 5 (from waypost.toml)",
                "http.tokens[0].role: must be text in quotes, not 1 (from waypost.toml)",
                "broker.prefetch: 5000 is out of range: 1 to 2000 (from waypost.toml)",
                "retry.jitter: 2 is out of range: 0 to 1 (from waypost.toml)",
                "retry.permanentStatuses[1]: 99 is out of range: 100 to 599 (from waypost.toml)",
                "log.level: `loud` is none of error, warn, info, debug, trace (from the command line)",
            ]
        );
    }

    #[test]
    fn a_file_that_is_no_toml_is_told_by_line_and_never_quoted() {
        let faults =
            Given::file("[broker]\nurl = \"amqp://user:secret@host\nprefix = 'x'").faults();
        assert_eq!(faults.len(), 1);
        assert!(
            faults[0].starts_with("waypost.toml: line 2, column "),
            "{faults:?}"
        );
        assert!(!faults[0].contains("secret"), "{faults:?}");
        let faults = Given::file("[broker]\nprefix = 'x'\nprefix = 'y'").faults();
        assert_eq!(
            faults,
            ["waypost.toml: line 3, column 1: duplicate key `prefix` in table `broker`"]
        );
    }

    #[test]
    fn values_of_a_wrong_type_are_refused() {
        let cases = [
            (
                "[broker]\nprefetch = '512'",
                "broker.prefetch: must be a whole number, not text",
            ),
            (
                "[broker]\nprefetch = 1.5",
                "broker.prefetch: must be a whole number, not 1.5",
            ),
            (
                "[broker]\nurl = ['amqp://x']",
                "broker.url: must be text in quotes, not a list",
            ),
            (
                "[broker.url]\nhost = 'x'",
                "broker.url: must be text in quotes, not a table",
            ),
            (
                "[retry]\njitter = 'x'",
                "retry.jitter: must be a number, not text",
            ),
            (
                "[retry]\nmaxAge = 60",
                "retry.maxAge: must be text in quotes, not 60",
            ),
            (
                "[retry]\npermanentStatuses = 410",
                "retry.permanentStatuses: must be a list, not 410",
            ),
            (
                "[egress]\nallow = 'localhost'",
                "egress.allow: must be a list, not text",
            ),
            (
                "[egress]\nallow = [1]",
                "egress.allow[0]: must be text in quotes, not 1",
            ),
            (
                "[egress]\nallowHttp = 1",
                "egress.allowHttp: must be true or false, not 1",
            ),
            (
                "[http]\ntokens = ['x']",
                "http.tokens[0]: must be a table with name, role and sha256, not text",
            ),
            (
                "[[http.tokens]]\nname = 'ci'\nrole = 'viewer'",
                "http.tokens[0]: `sha256` is missing",
            ),
            (
                "[[http.tokens]]\nname = 'ci'\ntoken = 'x'",
                "http.tokens[0].token: `token` is not known here: write name, role, sha256",
            ),
        ];
        for (text, message) in cases {
            assert_eq!(
                Given::file(text).faults(),
                [format!("{message} (from waypost.toml)")],
                "{text}"
            );
        }
        // A number may be whole in TOML where a fraction is possible.
        assert_eq!(
            Given::file("[retry]\nmultiplier = 2")
                .load()
                .unwrap()
                .retry
                .multiplier,
            2.0
        );
    }

    #[test]
    fn the_url_of_the_broker_names_its_vhost() {
        for (given, read) in [
            ("amqp://a:b@host", "amqp://a:b@host/%2f"),
            ("amqp://a:b@host/", "amqp://a:b@host/%2f"),
            ("amqp://host:1234/%2F", "amqp://host:1234/%2F"),
            (
                "amqps://a:p%23w@host/prod?heartbeat=5",
                "amqps://a:p%23w@host/prod?heartbeat=5",
            ),
            ("amqp://host/?heartbeat=5", "amqp://host/%2f?heartbeat=5"),
        ] {
            assert_eq!(with("broker.url", given).broker.url.expose_secret(), read);
        }
    }

    #[test]
    fn a_url_that_reaches_no_broker_is_refused_without_repeating_it() {
        for url in [
            "",
            "secret",
            "amqp:secret",
            "amqp:///secret",
            "http://secret@host",
            "amqp://user:se#secret@host",
            "amqp://user:1#secret@host",
            "amqp://user:1?secret@host",
            "amqp://user:secret@[::1]:5672",
            "amqps://user:secret@host/?verify=verify_peer",
            "amqps://user:secret@host/?heartbeat=70000",
        ] {
            let message = fault("broker.url", url);
            assert!(
                message.starts_with("broker.url: ") && !message.contains("secret"),
                "{message}"
            );
        }
    }

    #[test]
    fn names_and_numbers_have_limits() {
        for (key, value) in [
            ("broker.prefix", ""),
            ("broker.prefix", "a b"),
            ("broker.prefix", "é"),
            ("broker.prefix", "amq.x"),
            ("broker.prefix", "amq"),
            ("broker.shards", "0"),
            ("broker.shards", "65"),
            ("broker.prefetch", "0"),
            ("broker.prefetch", "2001"),
            ("broker.prefetch", "-1"),
            ("store.path", ""),
            ("retry.initialDelay", "0s"),
            ("retry.initialDelay", "5"),
            ("retry.initialDelay", "-5s"),
            ("retry.maxDelay", "11years"),
            ("retry.maxDelay", "18446744073709551615s"),
            ("retry.multiplier", "0.9"),
            ("retry.multiplier", "inf"),
            ("retry.multiplier", "nan"),
            ("retry.jitter", "-0.1"),
            ("retry.maxAttempts", "0"),
            ("retry.maxAttempts", "1001"),
            ("retry.permanentStatuses", "600"),
            ("deadLetters.retention", "0s"),
            ("endpoint.maxConcurrency", "0"),
            ("endpoint.connectTimeout", "0ms"),
            ("egress.proxy", "proxy:3128"),
            ("egress.proxy", "socks5://proxy"),
            ("egress.caFile", "/nowhere/ca.pem"),
            ("egress.caFile", "/"),
            ("shutdown.grace", "soon"),
            ("log.format", "xml"),
            ("telemetry.otlpEndpoint", "grpc://x"),
            ("http.listen", "8080"),
            ("http.listen", "example.com:80"),
        ] {
            assert!(fault(key, value).starts_with(key), "{key}={value}");
        }
        assert_eq!(
            fault("broker.shards", "2"),
            "broker.shards: 2 shards are not supported yet: write 1"
        );
        assert_eq!(with("broker.prefetch", "2000").broker.prefetch, 2000);
        assert_eq!(with("broker.prefix", "123").broker.prefix, "123");
        assert_eq!(with("shutdown.grace", "0s").shutdown.grace, Duration::ZERO);
        assert_eq!(with("log.level", "WARN").log.level.as_str(), "warn");
        assert_eq!(
            with("http.listen", "localhost:0").http.listen,
            SocketAddr::from(([127, 0, 0, 1], 0))
        );
    }

    #[test]
    fn an_unknown_flag_is_refused() {
        let message = fault("broker.uri", "x");
        assert_eq!(
            message,
            "broker.uri: there is no such setting, did you mean broker.url?"
        );
    }

    #[test]
    fn egress_opens_to_networks_addresses_and_hosts() {
        let network = |text: &str| Allowed::Network(text.parse().unwrap());
        for (text, allowed) in [
            ("10.0.0.0/8", network("10.0.0.0/8")),
            ("10.1.2.3/8", network("10.0.0.0/8")),
            ("10.1.2.3", network("10.1.2.3/32")),
            ("fd00::/8", network("fd00::/8")),
            ("::1", network("::1/128")),
            (
                "Hooks.Internal.",
                Allowed::Host("hooks.internal".to_owned()),
            ),
            (
                "bücher.example",
                Allowed::Host("xn--bcher-kva.example".to_owned()),
            ),
            ("my_host", Allowed::Host("my_host".to_owned())),
        ] {
            assert_eq!(with("egress.allow", text).egress.allow, [allowed]);
        }
        let bracketed = with("egress.allow", r#"["[::1]"]"#);
        assert_eq!(bracketed.egress.allow, [network("::1/128")]);
        for text in [
            "10.0.0.0/33",
            "10.0.0",
            "10.0.0.256",
            "host:80",
            "http://host",
            "*.example.com",
            "a b",
            "a..b",
            ".",
        ] {
            let message = fault("egress.allow", text);
            assert!(
                message.starts_with(&format!("egress.allow[0]: `{text}` is neither ")),
                "{message}"
            );
        }
    }

    #[test]
    fn a_listener_for_others_needs_a_token() {
        for address in ["0.0.0.0:8080", "[::]:8080", "192.168.0.1:80"] {
            let message = format!(
                "http.listen: {address} is reachable from outside and no http.tokens are configured: \
                 add a token or listen on 127.0.0.1 (from WAYPOST_HTTP__LISTEN)"
            );
            assert_eq!(
                Given::nothing()
                    .variable("WAYPOST_HTTP__LISTEN", address)
                    .faults(),
                [message]
            );
            let tokens = format!(r#"[{{"name": "ci", "role": "viewer", "sha256": "{HASH}"}}]"#);
            let given = Given::nothing().variable("WAYPOST_HTTP__LISTEN", address);
            let config = given
                .variable("WAYPOST_HTTP__TOKENS", &tokens)
                .load()
                .unwrap();
            assert_eq!(config.http.listen.to_string(), address);
        }
        for address in ["127.0.0.2:80", "[::1]:80", "[::ffff:127.0.0.1]:80"] {
            with("http.listen", address);
        }
    }

    #[test]
    fn tokens_are_told_apart() {
        let token = |name: &str, role: &str, hash: &str| {
            format!("[[http.tokens]]\nname = '{name}'\nrole = '{role}'\nsha256 = '{hash}'\n")
        };
        let other = "A".repeat(64);
        let config =
            Given::file(&[token("a", "viewer", HASH), token("b", "editor", &other)].concat())
                .load()
                .unwrap();
        assert_eq!(config.http.tokens[0].sha256[..2], [0x9f, 0x86]);
        assert_eq!(config.http.tokens[1].sha256, [0xaa; 32]);
        assert!(config.http.tokens[0].role < config.http.tokens[1].role);

        let no_text = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
        let faults = Given::file(
            &[
                token("a", "viewer", HASH),
                token("a", "admin", HASH),
                token("", "editor", "my-secret-token"),
                token("c", "editor", no_text),
            ]
            .concat(),
        )
        .faults();
        assert_eq!(
            faults,
            [
                "http.tokens[1].name: `a` is the name of another token: each needs its own",
                "http.tokens[1].role: `admin` is none of viewer, operator, editor",
                "http.tokens[1].sha256: is the hash of another token as well: each needs its own",
                "http.tokens[2].name: must be 1 to 100 characters",
                "http.tokens[2].sha256: must be the SHA-256 of the token in 64 hex digits: printf %s TOKEN | sha256sum",
                "http.tokens[3].sha256: is the hash of no text at all: printf %s TOKEN | sha256sum",
            ]
            .map(|fault| format!("{fault} (from waypost.toml)"))
        );
    }

    #[test]
    fn a_token_in_place_of_the_list_is_not_repeated() {
        let message = fault("http.tokens", "my-secret-token");
        assert_eq!(
            message,
            "http.tokens[0]: must be a table with name, role and sha256, not text"
        );
    }

    #[test]
    fn nothing_shown_holds_a_secret() {
        let tokens = format!("[{{name = 'ci', role = 'viewer', sha256 = '{HASH}'}}]");
        let config = Given::nothing()
            .flag("broker.url", "amqp://user:hunter2@host/")
            .flag("egress.proxy", "http://user:hunter2@proxy:3128")
            .flag("telemetry.otlpEndpoint", "http://user:hunter2@traces:4318")
            .flag("http.tokens", &tokens)
            .load()
            .unwrap();
        let debug = format!("{config:?}");
        assert!(
            !debug.contains("hunter2")
                && !debug.contains(&HASH[..8])
                && !debug.contains("159, 134"),
            "{debug}"
        );
        let value = |key: &str| {
            config
                .settings
                .iter()
                .find(|setting| setting.key == key)
                .unwrap()
                .value
                .clone()
        };
        assert_eq!(value("broker.url"), "amqp://user:***@host/");
        assert_eq!(value("egress.proxy"), "http://user:***@proxy:3128/");
        assert_eq!(value("http.tokens"), "ci (viewer)");
    }

    #[test]
    fn settings_are_shown_as_they_are_written() {
        let settings = with("egress.allow", "localhost,::1").settings;
        let value = |key: &str| {
            settings
                .iter()
                .find(|setting| setting.key == key)
                .unwrap()
                .clone()
        };
        assert_eq!(settings.len(), 25);
        assert_eq!(value("retry.multiplier").value, "3");
        assert_eq!(value("retry.jitter").value, "0.2");
        assert_eq!(value("retry.permanentStatuses").value, "410");
        assert_eq!(value("retry.maxAge").value, "48h");
        assert_eq!(value("egress.allowHttp").value, "false");
        let allow = value("egress.allow");
        assert_eq!(
            (allow.value.as_str(), allow.default.as_str()),
            ("localhost, ::1", "none")
        );
        assert_eq!(value("egress.proxy").value, "none");
        assert_eq!(
            value("broker.url").default,
            "amqp://guest:***@127.0.0.1:5672/%2f"
        );
    }

    #[test]
    fn an_empty_text_takes_an_optional_setting_back() {
        let given = Given::file("[egress]\nproxy = 'http://proxy:3128'");
        assert!(given.load().unwrap().egress.proxy.is_some());
        assert!(
            given
                .variable("WAYPOST_EGRESS__PROXY", "")
                .load()
                .unwrap()
                .egress
                .proxy
                .is_none()
        );
    }

    #[test]
    fn the_file_of_authorities_must_be_readable() {
        let given = Given::nothing();
        let path = given.folder.path().join("ca.pem");
        std::fs::write(&path, "").unwrap();
        let config = given
            .flag("egress.caFile", path.to_str().unwrap())
            .load()
            .unwrap();
        assert_eq!(config.egress.ca_file, Some(path));
    }
}
