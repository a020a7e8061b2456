//! The health of endpoints, as one worker sees it.

use schemars::JsonSchema;
use serde::{Deserialize, Deserializer, Serialize};
use waypost_core::endpoint::{EndpointStats, Origin};

use crate::flattened::read_twice;

/// An endpoint and its health.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
#[schemars(rename = "Endpoint")]
pub struct EndpointResponse {
    /// Scheme, host and port.
    pub endpoint: Origin,
    #[serde(flatten)]
    pub stats: EndpointStats,
    /// Its receivers, the worst first and at most ten.
    pub receivers: Vec<ReceiverResponse>,
}

impl<'de> Deserialize<'de> for EndpointResponse {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        struct Own {
            endpoint: Origin,
            receivers: Vec<ReceiverResponse>,
        }
        let (stats, Own { endpoint, receivers }) = read_twice(deserializer)?;
        Ok(Self { endpoint, stats, receivers })
    }
}

/// A path of an endpoint and its health.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
pub struct ReceiverResponse {
    pub path: String,
    #[serde(flatten)]
    pub stats: EndpointStats,
}

impl<'de> Deserialize<'de> for ReceiverResponse {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        struct Own {
            path: String,
        }
        let (stats, Own { path }) = read_twice(deserializer)?;
        Ok(Self { path, stats })
    }
}
