//! Converts raw settings to a [`Config`]: one function per group, which uses the functions of `values` for single
//! values. All errors are collected, not only the first.

use waypost_broker::topology::MAX_SHARDS;
use waypost_core::access::{Role, Token};
use waypost_core::egress::HttpUrls;
use waypost_core::endpoint::concurrency_limiter::Limits;
use waypost_core::retry::RetryPolicy;
use waypost_core::secret_encryption::Keyring;

use super::raw::RawToken;
use super::setting::Setting;
use super::sources::Merged;
use super::values::{
    allow_rule, broker_url, ca_file, ca_pem, duration, folder, identity, listen_address, number, one_of, optional,
    otlp_endpoint, positive_duration, prefix, rate_limit, retention, secret_http_url, token_hash, token_name,
};
use super::violation::{ConfigError, ConfigViolation};
use super::{
    BrokerConfig, Config, DeadLettersConfig, EgressConfig, EndpointConfig, HttpConfig, LogConfig, LogFormat, LogLevel,
    ShutdownConfig, StoreConfig, TelemetryConfig,
};

/// The validated settings, or all errors. `violations` are those of reading and merging.
pub(super) fn config(
    merged: &Merged,
    keyring: Keyring,
    settings: Vec<Setting>,
    violations: Vec<ConfigViolation>,
) -> Result<Config, ConfigError> {
    let mut check = Validator { merged, violations };
    match validate_groups(&mut check, keyring, settings) {
        Some(config) if check.violations.is_empty() => Ok(config),
        _ => Err(ConfigError { violations: check.violations }),
    }
}

/// Collects errors.
struct Validator<'a> {
    merged: &'a Merged,
    violations: Vec<ConfigViolation>,
}

impl Validator<'_> {
    /// The value. An error becomes a violation of `key`, which is a setting or a part of one (`http.tokens[0].role`).
    fn value<T>(&mut self, key: &str, value: Result<T, String>) -> Option<T> {
        value.map_err(|message| self.violation(key, message)).ok()
    }

    /// The parsed items of a list. Each error becomes a violation.
    fn items<R, T>(&mut self, key: &str, raw: &[R], parse: fn(&R) -> Result<T, String>) -> Option<Vec<T>> {
        let items = raw.iter().enumerate().map(|(i, raw)| self.value(&format!("{key}[{i}]"), parse(raw)));
        // Collect twice: collecting into an `Option` stops at the first `None`, and later errors would be missing.
        items.collect::<Vec<_>>().into_iter().collect()
    }

    fn violation(&mut self, key: &str, message: String) {
        self.violations.push(ConfigViolation::new(key, message).from(self.merged.origin(setting_of(key))));
    }

    /// Whether a setting has no violation so far. A setting with a violation may have its default value.
    fn is_valid(&self, setting: &str) -> bool {
        !self.violations.iter().any(|violation| setting_of(&violation.key) == setting)
    }
}

/// `http.tokens[0].role` → `http.tokens`
fn setting_of(key: &str) -> &str {
    key.split('[').next().unwrap_or(key)
}

// In each group, all values are checked before the first `?`, so that all errors are reported.

fn validate_groups(check: &mut Validator<'_>, keyring: Keyring, settings: Vec<Setting>) -> Option<Config> {
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
        keyring,
        settings,
    })
}

fn broker(check: &mut Validator<'_>) -> Option<BrokerConfig> {
    let raw = &check.merged.raw.broker;
    let url = check.value("broker.url", broker_url(&raw.url));
    let management_url = check.value("broker.managementUrl", optional(&raw.management_url, secret_http_url));
    let prefix = check.value("broker.prefix", prefix(&raw.prefix));
    let shards = check.value("broker.shards", number(raw.shards, 1..=MAX_SHARDS));
    // The maximum of RabbitMQ for a quorum queue.
    let prefetch = check.value("broker.prefetch", number(raw.prefetch, 1..=2000));
    let authorities = check.value("broker.caFile", optional(&raw.ca_file, ca_pem));
    let identity = check.value("broker.certFile", identity(&raw.cert_file, &raw.key_file));
    Some(BrokerConfig {
        url: url?,
        management_url: management_url?,
        prefix: prefix?,
        shards: shards?,
        prefetch: prefetch?,
        authorities: authorities?,
        identity: identity?,
    })
}

fn http(check: &mut Validator<'_>) -> Option<HttpConfig> {
    let raw = &check.merged.raw.http;
    let listen = check.value("http.listen", listen_address(&raw.listen));
    let tokens = tokens(&raw.tokens, check);
    let identity = check.value("http.certFile", identity(&raw.cert_file, &raw.key_file));
    let (listen, tokens) = (listen?, tokens?);
    let is_open = tokens.is_empty() && !listen.ip().to_canonical().is_loopback();
    if is_open && check.is_valid("http.tokens") && check.is_valid("http.listen") {
        check.violation(
            "http.listen",
            format!(
                "{listen} is reachable from outside and no http.tokens are configured: \
                 add a token or listen on 127.0.0.1"
            ),
        );
    }
    Some(HttpConfig { listen, tokens, identity: identity? })
}

fn tokens(raw: &[RawToken], check: &mut Validator<'_>) -> Option<Vec<Token>> {
    let mut tokens = Vec::new();
    for (i, token) in raw.iter().enumerate() {
        let key = |part| format!("http.tokens[{i}].{part}");
        let others = &raw[..i];
        let name = check.value(&key("name"), token_name(&token.name, others));
        let role = check.value(&key("role"), one_of(&token.role, &Role::NAMES));
        let sha256 = check.value(&key("sha256"), token_hash(&token.sha256, others));
        tokens.push((name, role, sha256));
    }
    tokens.into_iter().map(|(name, role, sha256)| Some(Token { name: name?, role: role?, sha256: sha256? })).collect()
}

fn store(check: &mut Validator<'_>) -> Option<StoreConfig> {
    let path = folder(&check.merged.raw.store.path);
    Some(StoreConfig { path: check.value("store.path", path)? })
}

fn retry(check: &mut Validator<'_>) -> Option<RetryPolicy> {
    let raw = &check.merged.raw.retry;
    let initial_delay = check.value("retry.initialDelay", positive_duration(&raw.initial_delay));
    let multiplier = check.value("retry.multiplier", number(raw.multiplier, 1.0..=1000.0));
    let max_delay = check.value("retry.maxDelay", positive_duration(&raw.max_delay));
    let jitter = check.value("retry.jitter", number(raw.jitter, 0.0..=1.0));
    let max_attempts = check.value("retry.maxAttempts", number(raw.max_attempts, 1..=1000));
    let max_age = check.value("retry.maxAge", positive_duration(&raw.max_age));
    let permanent_statuses =
        check.items("retry.permanentStatuses", &raw.permanent_statuses, |status| number(*status, 100..=599));
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

fn dead_letters(check: &mut Validator<'_>) -> Option<DeadLettersConfig> {
    let retention = retention(&check.merged.raw.dead_letters.retention);
    Some(DeadLettersConfig { retention: check.value("deadLetters.retention", retention)? })
}

fn endpoint(check: &mut Validator<'_>) -> Option<EndpointConfig> {
    let raw = &check.merged.raw.endpoint;
    let max_concurrency = check.value("endpoint.maxConcurrency", number(raw.max_concurrency, 1..=10_000));
    let rate_limit = check.value("endpoint.rateLimit", rate_limit(raw.rate_limit));
    let connect_timeout = check.value("endpoint.connectTimeout", positive_duration(&raw.connect_timeout));
    let limits = Limits { concurrency: max_concurrency?, per_second: rate_limit? };
    Some(EndpointConfig { limits, connect_timeout: connect_timeout? })
}

fn egress(check: &mut Validator<'_>) -> Option<EgressConfig> {
    let raw = &check.merged.raw.egress;
    let http_urls = if raw.allow_http { HttpUrls::Allowed } else { HttpUrls::Refused };
    let allow = check.items("egress.allow", &raw.allow, |text| allow_rule(text));
    let proxy = check.value("egress.proxy", optional(&raw.proxy, secret_http_url));
    let ca_file = check.value("egress.caFile", optional(&raw.ca_file, ca_file));
    Some(EgressConfig { http_urls, allow: allow?, proxy: proxy?, ca_file: ca_file? })
}

fn shutdown(check: &mut Validator<'_>) -> Option<ShutdownConfig> {
    let grace = duration(&check.merged.raw.shutdown.grace);
    Some(ShutdownConfig { grace: check.value("shutdown.grace", grace)? })
}

fn log(check: &mut Validator<'_>) -> Option<LogConfig> {
    let raw = &check.merged.raw.log;
    let level = check.value("log.level", one_of(&raw.level, &LogLevel::NAMES));
    let format = check.value("log.format", one_of(&raw.format, &LogFormat::NAMES));
    Some(LogConfig { level: level?, format: format? })
}

fn telemetry(check: &mut Validator<'_>) -> Option<TelemetryConfig> {
    let otlp_endpoint = optional(&check.merged.raw.telemetry.otlp_endpoint, otlp_endpoint);
    Some(TelemetryConfig { otlp_endpoint: check.value("telemetry.otlpEndpoint", otlp_endpoint)? })
}
