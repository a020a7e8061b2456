//! The reasons why a delivery or an unreadable event became a dead letter.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Why a delivery or message became a dead letter.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum DeadLetterReason {
    /// The body is not a step event.
    Malformed,
    /// The broker delivered the message too often without an acknowledgement.
    Poison,
    /// The broker removed the message after the publisher's `expiration` or the TTL of a policy.
    Expired,
    /// Someone rejected the message at the broker.
    Rejected,
    /// The broker removed the message because its queue was too long.
    Maxlen,
    /// The receiver answered with 410, or with another status in `retry.permanentStatuses`.
    Gone,
    /// The egress rules forbid the address.
    ForbiddenAddress,
    /// The limit for attempts or age was reached.
    Exhausted,
    /// The webhook or its campaign was deleted while the delivery waited.
    WebhookDeleted,
    /// The webhook was disabled while the delivery waited.
    WebhookDisabled,
}

impl DeadLetterReason {
    /// For metrics that must exist before their first count.
    pub const ALL: [Self; 10] = [
        Self::Malformed,
        Self::Poison,
        Self::Expired,
        Self::Rejected,
        Self::Maxlen,
        Self::Gone,
        Self::ForbiddenAddress,
        Self::Exhausted,
        Self::WebhookDeleted,
        Self::WebhookDisabled,
    ];

    /// The metric label.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Malformed => "malformed",
            Self::Poison => "poison",
            Self::Expired => "expired",
            Self::Rejected => "rejected",
            Self::Maxlen => "maxlen",
            Self::Gone => "gone",
            Self::ForbiddenAddress => "forbidden_address",
            Self::Exhausted => "exhausted",
            Self::WebhookDeleted => "webhook_deleted",
            Self::WebhookDisabled => "webhook_disabled",
        }
    }

    /// Whether the reason ends a waiting delivery. The dead letter then lacks the webhook's configuration, because a
    /// waiting delivery does not carry it.
    pub fn ends_waiting(self) -> bool {
        !matches!(self, Self::Malformed | Self::Gone | Self::ForbiddenAddress | Self::Exhausted)
    }

    /// The explanation for people.
    pub fn description(self) -> &'static str {
        match self {
            Self::Malformed => "the message is not a step event",
            Self::Poison => "the message was delivered to workers too often without being acknowledged",
            Self::Expired => "the message waited longer than its expiration or a policy of the broker allows",
            Self::Rejected => "someone rejected the message at the broker",
            Self::Maxlen => "the broker removed the message because its queue was too long",
            Self::Gone => "the receiver wants no further requests at this URL",
            Self::ForbiddenAddress => "the egress rules forbid the address",
            Self::Exhausted => "the delivery reached its limit of attempts or of age",
            Self::WebhookDeleted => "the webhook or its campaign was deleted before the delivery succeeded",
            Self::WebhookDisabled => "the webhook was disabled before the delivery succeeded",
        }
    }
}
