//! The ids of events, webhooks, deliveries, dead letters, replays and receipts.
//!
//! Most ids are derived by hashing, so that the same input has the same id on every worker and at every attempt. Only
//! the ids of replays and receipts are generated.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use schemars::JsonSchema;
use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use sha2::{Digest, Sha256};

/// The bytes of the hash in an id: 144 bits, or 24 characters.
const DIGEST_BYTES: usize = 18;

/// Hashes `parts`. Each part is preceded by its length, so that different lists never have the same input.
fn hashed_id(prefix: &str, parts: &[&[u8]]) -> String {
    let mut hash = Sha256::new();
    for part in parts {
        hash.update((part.len() as u64).to_be_bytes());
        hash.update(part);
    }
    let mut text = String::with_capacity(prefix.len() + 24);
    text.push_str(prefix);
    URL_SAFE_NO_PAD.encode_string(&hash.finalize()[..DIGEST_BYTES], &mut text);
    text
}

macro_rules! id_type {
    ($(#[$meta:meta])* $name:ident) => {
        $(#[$meta])*
        #[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
        #[serde(transparent)]
        pub struct $name(String);

        impl $name {
            pub fn new(text: impl Into<String>) -> Self {
                Self(text.into())
            }

            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    };
}

id_type!(
    /// Identifies a step event, for de-duplication.
    EventId
);
id_type!(
    /// Identifies a webhook. Unique over all campaigns.
    WebhookId
);
id_type!(
    /// Identifies a delivery: one event for one webhook.
    DeliveryId
);
id_type!(
    /// Identifies a dead letter.
    DeadLetterId
);
id_type!(
    /// Identifies a replay: `rp_` and a UUID of version 7, which sorts by the time of creation.
    ReplayId
);

impl EventId {
    /// The id of an event that has none, derived from its bytes.
    pub fn from_body(body: &[u8]) -> Self {
        Self(hashed_id("evt_", &[body]))
    }
}

impl DeliveryId {
    pub fn derive(event: &EventId, webhook: &WebhookId) -> Self {
        Self(hashed_id("msg_", &[event.0.as_bytes(), webhook.0.as_bytes()]))
    }

    /// A number in 0..=1 for the jitter after attempt number `attempt`. The result is always the same.
    pub fn jitter(&self, attempt: u32) -> f64 {
        let hash = Sha256::new().chain_update(self.0.as_bytes()).chain_update(attempt.to_be_bytes()).finalize();
        let mut bytes = [0; 4];
        bytes.copy_from_slice(&hash[..4]);
        f64::from(u32::from_be_bytes(bytes)) / f64::from(u32::MAX)
    }
}

impl WebhookId {
    /// The id of a webhook that has none in the document, derived from its place in the campaign. If that id belongs to
    /// another webhook, the caller tries the next number as `collision`, starting at 0.
    pub fn derive(campaign: &str, label: &str, keyword: Option<&str>, collision: u32) -> Self {
        let parts: &[&[u8]] = match keyword {
            Some(keyword) => &[campaign.as_bytes(), label.as_bytes(), &collision.to_be_bytes(), keyword.as_bytes()],
            None => &[campaign.as_bytes(), label.as_bytes(), &collision.to_be_bytes()],
        };
        Self(hashed_id("wh_", parts))
    }
}

/// Identifies one receipt of a message by a worker. Messages with the same bytes have different receipts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct ReceiptId(u128);

impl ReceiptId {
    /// `start` is a random number of the worker process. `number` counts its messages.
    pub fn new(start: u128, number: u64) -> Self {
        Self(start.wrapping_add(u128::from(number)))
    }

    fn to_bytes(self) -> [u8; 16] {
        self.0.to_be_bytes()
    }
}

impl fmt::Display for ReceiptId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

impl Serialize for ReceiptId {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for ReceiptId {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<str>::deserialize(deserializer)?;
        let is_hex = text.len() == 32 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
        let number = u128::from_str_radix(&text, 16).ok().filter(|_| is_hex);
        number.map(Self).ok_or_else(|| D::Error::custom("a receipt has 32 hexadecimal digits"))
    }
}

impl ReplayId {
    pub const PREFIX: &str = "rp_";

    /// Whether a text has the format of an id: the prefix, and a UUID in 32 digits.
    pub fn is_valid(text: &str) -> bool {
        let digits = text.strip_prefix(Self::PREFIX);
        digits
            .is_some_and(|digits| digits.len() == 32 && digits.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f')))
    }
}

impl DeadLetterId {
    /// `parts` identify the dead letter.
    pub fn derive(parts: &[&[u8]]) -> Self {
        Self(hashed_id("dl_", parts))
    }

    /// The dead letter of a delivery whose event has this receipt.
    pub fn for_delivery(delivery: &DeliveryId, receipt: ReceiptId) -> Self {
        Self::derive(&[delivery.0.as_bytes(), b"receipt", &receipt.to_bytes()])
    }
}

/// A dead letter that was replayed. If the replay fails, the next letter refers to it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ReplayRef {
    pub dead_letter: DeadLetterId,
    pub replay: ReplayId,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn different_parts_have_different_ids() {
        let derive = |event: &str, webhook: &str| DeliveryId::derive(&EventId::new(event), &WebhookId::new(webhook));
        assert_ne!(derive("ab", "c"), derive("a", "bc"));
        assert_eq!(derive("ab", "c"), derive("ab", "c"));
    }

    /// Receivers store these ids to discard duplicates. A different derivation would make every redelivery look new.
    #[test]
    fn the_derivation_never_changes() {
        let id = DeliveryId::derive(&EventId::new("event-1"), &WebhookId::new("wh_1"));
        assert_eq!(id.as_str(), "msg_3Q4-yq2HAqNbvz-QSPP_ZbXI");
    }

    #[test]
    fn a_receipt_survives_a_round_trip() {
        for receipt in [ReceiptId::new(0, 0), ReceiptId::new(7, 3), ReceiptId::new(u128::MAX, 2)] {
            let json = serde_json::to_string(&receipt).expect("JSON");
            assert_eq!(json.len(), 34, "{json}");
            assert_eq!(serde_json::from_str::<ReceiptId>(&json).expect("a receipt"), receipt);
        }
        for invalid in ["\"\"", "\"+000000000000000000000000000000a\"", "\"a\"", "7", "null"] {
            assert!(serde_json::from_str::<ReceiptId>(invalid).is_err(), "{invalid}");
        }
    }

    #[test]
    fn jitter_depends_only_on_the_delivery_and_the_attempt() {
        let id = DeliveryId::new("msg_1");
        assert_eq!(id.jitter(1).to_bits(), id.jitter(1).to_bits());
        assert_ne!(id.jitter(1).to_bits(), id.jitter(2).to_bits());
        assert!((0.0..=1.0).contains(&id.jitter(3)));
    }
}
