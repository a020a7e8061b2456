//! Why a delivery, or an event that could not be read, ended without success.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Why a delivery ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum DeadLetterReason {
    /// The body was no step event.
    Malformed,
    /// The broker gave it out again and again, and no worker settled it.
    Poison,
    /// The broker removed it because its time was over: by the publisher's `expiration`, or by a policy.
    Expired,
    /// Somebody rejected it.
    Rejected,
    /// The broker removed it because its queue was too long.
    Maxlen,
    /// The receiver said that it is gone.
    Gone,
    /// The egress rules forbid its address.
    ForbiddenAddress,
    /// Attempts or age used up.
    Exhausted,
    /// The webhook or its campaign was deleted meanwhile.
    WebhookDeleted,
    /// The webhook was disabled meanwhile.
    WebhookDisabled,
}

impl DeadLetterReason {
    /// Every reason, for metrics that exist before they count.
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

    /// Whether a delivery dies of it while it waits. Its letter then has no configuration of the webhook: what waits does not
    /// carry it.
    pub fn ends_waiting(self) -> bool {
        !matches!(self, Self::Malformed | Self::Gone | Self::ForbiddenAddress | Self::Exhausted)
    }

    /// What it means, for people.
    pub fn in_words(self) -> &'static str {
        match self {
            Self::Malformed => "the message is no step event",
            Self::Poison => "no worker could settle the message, however often it was given out",
            Self::Expired => "the message waited longer than its expiration, or a policy of the broker, allows",
            Self::Rejected => "somebody rejected the message at the broker",
            Self::Maxlen => "the broker removed the message because its queue was too long",
            Self::Gone => "the receiver said that it wants no more requests at this address",
            Self::ForbiddenAddress => "the egress rules forbid the address",
            Self::Exhausted => "the attempts, or the time for them, were used up",
            Self::WebhookDeleted => "the webhook or its campaign was deleted before the delivery was made",
            Self::WebhookDisabled => "the webhook was disabled before the delivery was made",
        }
    }
}
