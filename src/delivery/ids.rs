//! Identities. All but those of replays and receipts are derived from what they identify: the same input has the same
//! identity on every node and every attempt.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use schemars::JsonSchema;
use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use sha2::{Digest, Sha256};

/// Bytes of the digest kept in an identity: 144 bits, 24 characters.
const DIGEST_BYTES: usize = 18;

/// A digest of `parts`. Each part is preceded by its length, so that no two lists of parts run together.
fn digest(prefix: &str, parts: &[&[u8]]) -> String {
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

macro_rules! identity {
    ($(#[$meta:meta])* $name:ident) => {
        $(#[$meta])*
        #[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
        #[serde(transparent)]
        pub struct $name(String);

        impl $name {
            /// An identity that was given to us.
            pub fn new(text: impl Into<String>) -> Self {
                Self(text.into())
            }

            /// Its text.
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

identity!(
    /// Identifies a step event, for de-duplication.
    EventId
);
identity!(
    /// Identifies a webhook, over all campaigns.
    WebhookId
);
identity!(
    /// Identifies a delivery: one event for one webhook.
    DeliveryId
);
identity!(
    /// Identifies a dead letter.
    DeadLetterId
);
identity!(
    /// Identifies a replay. Given when it is created, by time: `rp_` and a UUID of version 7.
    ReplayId
);

impl EventId {
    /// The identity of an event that names none: its bytes.
    pub fn of_body(body: &[u8]) -> Self {
        Self(digest("evt_", &[body]))
    }
}

impl DeliveryId {
    /// The delivery of an event to a webhook.
    pub fn derive(event: &EventId, webhook: &WebhookId) -> Self {
        Self(digest("msg_", &[event.0.as_bytes(), webhook.0.as_bytes()]))
    }

    /// A number in 0..1 for the jitter of attempt `attempt`: the same each time it is asked.
    pub fn jitter(&self, attempt: u32) -> f64 {
        let hash = Sha256::new().chain_update(self.0.as_bytes()).chain_update(attempt.to_be_bytes()).finalize();
        let mut bytes = [0; 4];
        bytes.copy_from_slice(&hash[..4]);
        f64::from(u32::from_be_bytes(bytes)) / f64::from(u32::MAX)
    }
}

impl WebhookId {
    /// The id the system gives a webhook that names none: from its place in the campaign. `taken` counts up while
    /// that id belongs to another webhook.
    pub fn of_place(campaign: &str, label: &str, keyword: Option<&str>, taken: u32) -> Self {
        let place: &[&[u8]] = match keyword {
            Some(keyword) => &[campaign.as_bytes(), label.as_bytes(), &taken.to_be_bytes(), keyword.as_bytes()],
            None => &[campaign.as_bytes(), label.as_bytes(), &taken.to_be_bytes()],
        };
        Self(digest("wh_", place))
    }
}

/// Identifies one receipt of a message by a worker. Two messages have different ones even if their bytes are the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct ReceiptId(u128);

impl ReceiptId {
    /// The receipt with this number, by the worker process that counts from `start`, a number that no other process has.
    pub fn new(start: u128, number: u64) -> Self {
        Self(start.wrapping_add(u128::from(number)))
    }

    /// The bytes from which other identities are derived.
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
        let digits = text.len() == 32 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
        let number = u128::from_str_radix(&text, 16).ok().filter(|_| digits);
        number.map(Self).ok_or_else(|| D::Error::custom("a receipt is 32 hex digits"))
    }
}

impl ReplayId {
    /// How every one begins.
    pub const PREFIX: &str = "rp_";

    /// Whether a text can be one that was given: the prefix, and a UUID in 32 digits.
    pub fn is_one(text: &str) -> bool {
        let digits = text.strip_prefix(Self::PREFIX);
        digits
            .is_some_and(|digits| digits.len() == 32 && digits.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f')))
    }
}

impl DeadLetterId {
    /// From the parts that make a dead letter unique.
    pub fn derive(parts: &[&[u8]]) -> Self {
        Self(digest("dl_", parts))
    }

    /// The dead letter of a delivery that stems from this receipt of its event.
    pub fn of_delivery(delivery: &DeliveryId, receipt: ReceiptId) -> Self {
        Self::derive(&[delivery.0.as_bytes(), b"receipt", &receipt.to_bytes()])
    }
}

/// A letter was sent again, or a message is an event that was: what its next letter is linked to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ReplayRef {
    /// The letter.
    pub dead_letter: DeadLetterId,
    /// The replay that sent it.
    pub replay: ReplayId,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_do_not_run_together() {
        let derive = |event: &str, webhook: &str| DeliveryId::derive(&EventId::new(event), &WebhookId::new(webhook));
        assert_ne!(derive("ab", "c"), derive("a", "bc"));
        assert_eq!(derive("ab", "c"), derive("ab", "c"));
    }

    /// Receivers have stored these to discard duplicates: a change of the derivation would send them all again as new.
    #[test]
    fn the_derivation_is_fixed() {
        let id = DeliveryId::derive(&EventId::new("event-1"), &WebhookId::new("wh_1"));
        assert_eq!(id.as_str(), "msg_3Q4-yq2HAqNbvz-QSPP_ZbXI");
    }

    #[test]
    fn a_receipt_is_read_as_it_was_written() {
        for receipt in [ReceiptId::new(0, 0), ReceiptId::new(7, 3), ReceiptId::new(u128::MAX, 2)] {
            let written = serde_json::to_string(&receipt).expect("JSON");
            assert_eq!(written.len(), 34, "{written}");
            assert_eq!(serde_json::from_str::<ReceiptId>(&written).expect("a receipt"), receipt);
        }
        for other in ["\"\"", "\"+000000000000000000000000000000a\"", "\"a\"", "7", "null"] {
            assert!(serde_json::from_str::<ReceiptId>(other).is_err(), "{other}");
        }
    }

    #[test]
    fn jitter_varies_and_repeats() {
        let id = DeliveryId::new("msg_1");
        assert_eq!(id.jitter(1).to_bits(), id.jitter(1).to_bits());
        assert_ne!(id.jitter(1).to_bits(), id.jitter(2).to_bits());
        assert!((0.0..=1.0).contains(&id.jitter(3)));
    }
}
