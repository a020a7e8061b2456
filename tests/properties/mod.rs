//! Properties of parsers of untrusted input. Each file has one function that panics if a property is violated. The fuzz
//! targets (`fuzz/targets`) call it with libFuzzer's inputs, and `tests/it/property_tests.rs` with seeds and proptest's
//! inputs.
#![allow(dead_code, reason = "a fuzz target asks for one of them")]

pub(crate) mod answer;
pub(crate) mod document;
pub(crate) mod event;
pub(crate) mod frames;
pub(crate) mod record;
pub(crate) mod retry_after;
pub(crate) mod secret_encryption;
pub(crate) mod url;
pub(crate) mod waiting_delivery;

use std::fmt::Debug;
use std::sync::LazyLock;

use chrono::{DateTime, TimeZone as _, Utc};
use serde::Serialize;
use serde::de::DeserializeOwned;
use waypost_core::Delivery;
use waypost_core::document::read;
use waypost_core::egress::HttpUrls;
use waypost_core::event::decode;
use waypost_core::violation::Violation;

/// The maximum total size of a document's violations, because they are part of a response and of a log line.
const MAX_VIOLATION_BYTES: usize = 1024 * 1024;

/// A fixed time.
fn now() -> DateTime<Utc> {
    Utc.with_ymd_and_hms(2024, 6, 18, 23, 26, 14).single().expect("a time")
}

/// A delivery to the webhook of a section, before its first attempt.
fn sample_delivery() -> Delivery {
    static DELIVERY: LazyLock<Delivery> = LazyLock::new(|| {
        let document = br#"{"id": "1", "sections": [{"label": "a", "webhook": {"url": "https://example.com/"}}]}"#;
        let campaign = read(document, HttpUrls::Refused, None).expect("a campaign");
        let event = br#"{"campaignId": "1", "label": "a", "phoneNumber": "", "date": "2024-06-18T23:26:14Z"}"#;
        let event = decode(event, None).expect("an event");
        Delivery::new(event, campaign.places().next().expect("a webhook").target(), None)
    });
    DELIVERY.clone()
}

/// A refusal has at least one violation, and each has a path and a message.
fn are_told(faults: &[Violation]) {
    assert!(!faults.is_empty(), "refused without a violation");
    for Violation { path, message } in faults {
        let below = path.strip_prefix('$').unwrap_or_else(|| panic!("no path: {path}"));
        assert!(below.is_empty() || below.starts_with(['.', '[']), "no path: {path}");
        assert!(!message.trim().is_empty(), "{path} has no message");
    }
    let bytes: usize = faults.iter().map(|fault| fault.path.len() + fault.message.len()).sum();
    assert!(bytes <= MAX_VIOLATION_BYTES, "{bytes} bytes of violations");
}

/// Asserts that a value survives a round trip, and returns its bytes.
fn is_kept<T: Serialize + DeserializeOwned + PartialEq + Debug>(value: &T) -> Vec<u8> {
    let written = serde_json::to_vec(value).expect("serializable");
    let read: T = serde_json::from_slice(&written)
        .unwrap_or_else(|error| panic!("{} can't be read: {error}", String::from_utf8_lossy(&written)));
    assert_eq!(read, *value, "the round trip changed the value");
    // Equality ignores the order of keys.
    assert_eq!(serde_json::to_vec(&read).expect("serializable"), written);
    written
}

/// The nesting depth of JSON that was written here.
fn depth(json: &[u8]) -> usize {
    let (mut deepest, mut open) = (0_usize, 0_usize);
    let (mut in_text, mut escaped) = (false, false);
    for byte in json {
        match byte {
            _ if escaped => escaped = false,
            b'\\' => escaped = in_text,
            b'"' => in_text = !in_text,
            b'{' | b'[' if !in_text => {
                open += 1;
                deepest = deepest.max(open);
            }
            b'}' | b']' if !in_text => open = open.saturating_sub(1),
            _ => {}
        }
    }
    deepest
}
