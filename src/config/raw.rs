//! The structure of `waypost.toml` before validation, and the default of every setting.

use serde::{Deserialize, Serialize};

// No field has a serde default: the provided values are merged into `RawConfig::default()`. Whole numbers are `i64`, so
// that an error about a number out of range comes from `values`, with the range, and not from serde.

/// An empty text unsets an optional setting: TOML has no null, and a variable must be able to unset a value of the
/// file.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct RawConfig {
    pub(super) broker: RawBroker,
    pub(super) http: RawHttp,
    pub(super) store: RawStore,
    pub(super) retry: RawRetry,
    pub(super) dead_letters: RawDeadLetters,
    pub(super) endpoint: RawEndpoint,
    pub(super) egress: RawEgress,
    pub(super) shutdown: RawShutdown,
    pub(super) log: RawLog,
    pub(super) telemetry: RawTelemetry,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct RawBroker {
    pub(super) url: String,
    pub(super) management_url: String,
    pub(super) prefix: String,
    pub(super) shards: i64,
    pub(super) prefetch: i64,
    pub(super) ca_file: String,
    pub(super) cert_file: String,
    pub(super) key_file: String,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct RawHttp {
    pub(super) listen: String,
    pub(super) tokens: Vec<RawToken>,
    pub(super) cert_file: String,
    pub(super) key_file: String,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, expecting = "a table with name, role and sha256")]
pub(super) struct RawToken {
    pub(super) name: String,
    pub(super) role: String,
    pub(super) sha256: String,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct RawStore {
    pub(super) path: String,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct RawRetry {
    pub(super) initial_delay: String,
    pub(super) multiplier: f64,
    pub(super) max_delay: String,
    pub(super) jitter: f64,
    pub(super) max_attempts: i64,
    pub(super) max_age: String,
    pub(super) permanent_statuses: Vec<i64>,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct RawDeadLetters {
    pub(super) retention: String,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct RawEndpoint {
    pub(super) max_concurrency: i64,
    /// 0 for no limit: TOML has no null.
    pub(super) rate_limit: f64,
    pub(super) connect_timeout: String,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct RawEgress {
    pub(super) allow_http: bool,
    pub(super) allow: Vec<String>,
    pub(super) proxy: String,
    pub(super) ca_file: String,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct RawShutdown {
    pub(super) grace: String,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct RawLog {
    pub(super) level: String,
    pub(super) format: String,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct RawTelemetry {
    pub(super) otlp_endpoint: String,
}

impl Default for RawConfig {
    fn default() -> Self {
        Self {
            broker: RawBroker {
                url: "amqp://guest:guest@127.0.0.1:5672/%2f".to_owned(),
                management_url: String::new(),
                prefix: "waypost".to_owned(),
                shards: 1,
                prefetch: 1000,
                ca_file: String::new(),
                cert_file: String::new(),
                key_file: String::new(),
            },
            http: RawHttp {
                listen: "127.0.0.1:8080".to_owned(),
                tokens: Vec::new(),
                cert_file: String::new(),
                key_file: String::new(),
            },
            store: RawStore { path: "./data".to_owned() },
            // The same as `RetryPolicy::default()`, which a test checks.
            retry: RawRetry {
                initial_delay: "5s".to_owned(),
                multiplier: 3.0,
                max_delay: "6h".to_owned(),
                jitter: 0.2,
                max_attempts: 12,
                max_age: "48h".to_owned(),
                permanent_statuses: vec![410],
            },
            dead_letters: RawDeadLetters { retention: "30d".to_owned() },
            endpoint: RawEndpoint { max_concurrency: 64, rate_limit: 0.0, connect_timeout: "5s".to_owned() },
            egress: RawEgress { allow_http: false, allow: Vec::new(), proxy: String::new(), ca_file: String::new() },
            shutdown: RawShutdown { grace: "25s".to_owned() },
            log: RawLog { level: "info".to_owned(), format: "auto".to_owned() },
            telemetry: RawTelemetry { otlp_endpoint: String::new() },
        }
    }
}
