//! Signs requests according to Standard Webhooks (`v1`, HMAC-SHA256), so that a receiver can verify their origin.
//!
//! Secrets are rotated without an interruption: until the old secret expires, a request has one signature for each
//! secret, and the receiver accepts the signature that it can verify.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use chrono::{DateTime, TimeDelta, Utc};

use super::campaign::{PreviousSecret, Webhook};
use super::violation::Violation;

/// How long a replaced secret still signs requests by default.
pub const DEFAULT_OVERLAP: Duration = Duration::from_secs(24 * 3600);

/// See [`check_overlap`].
const MAX_OVERLAP: Duration = Duration::from_secs(30 * 24 * 3600);

/// Maximum number of replaced secrets that still sign requests.
pub const MAX_PREVIOUS_SECRETS: usize = 3;

/// The size of a generated secret.
pub const SECRET_BYTES: usize = 32;

/// The value of `webhook-signature`, the signature of the current secret first. `None` if the webhook has no secret.
pub fn signature(webhook: &Webhook, id: &str, body: &[u8], now: DateTime<Utc>) -> Option<String> {
    let previous = webhook.previous_secrets.iter().filter(|previous| previous.until > now);
    let secrets = webhook.secret.iter().chain(previous.map(|previous| &previous.secret));
    // Signing cannot fail: the secrets of a validated document are base64, and bodies are UTF-8.
    let signatures =
        secrets.filter_map(|secret| standardwebhooks::Webhook::new(secret).ok()?.sign(id, now.timestamp(), body).ok());
    let signatures: Vec<String> = signatures.collect();
    (!signatures.is_empty()).then(|| signatures.join(" "))
}

/// Checks how long a replaced secret may still sign requests.
///
/// # Errors
/// The overlap is longer than 30 days. The path is that of the field in a request for a rotation.
pub fn check_overlap(overlap: Duration) -> Result<(), Violation> {
    if overlap > MAX_OVERLAP {
        return Err(Violation::new("$.overlap", "must be a duration of at most 30d"));
    }
    Ok(())
}

/// The text of a secret, `whsec_` and base64.
pub fn encode_secret(random: [u8; SECRET_BYTES]) -> String {
    format!("whsec_{}", STANDARD.encode(random))
}

/// Returns the webhook with a new secret. The old secrets sign for at most `overlap` longer. Zero removes them
/// immediately.
pub fn rotate_secret(webhook: &Webhook, new: String, overlap: Duration, now: DateTime<Utc>) -> Webhook {
    let until = now + TimeDelta::from_std(overlap.min(MAX_OVERLAP)).unwrap_or_default();
    let replaced = webhook.secret.clone().map(|secret| PreviousSecret { secret, until });
    let earlier = webhook.previous_secrets.iter().cloned();
    let mut previous: Vec<PreviousSecret> = replaced.into_iter().chain(earlier).collect();
    previous.retain(|previous| previous.until > now && !overlap.is_zero());
    previous.truncate(MAX_PREVIOUS_SECRETS);
    Webhook { secret: Some(new), previous_secrets: previous, ..webhook.clone() }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const BODY: &[u8] = br#"{"campaignId":"13010"}"#;

    fn webhook() -> Webhook {
        let webhook = json!({ "id": "wh_1", "url": "https://example.com/", "enabled": true, "timeoutMs": 1 });
        serde_json::from_value(webhook).expect("a webhook")
    }

    fn now() -> DateTime<Utc> {
        DateTime::from_timestamp(1_718_753_174, 0).expect("a time")
    }

    /// Whether a receiver with this secret can verify one of the signatures.
    fn verifies(secret: &str, signatures: &str, now: DateTime<Utc>) -> bool {
        let webhook = Webhook { secret: Some(secret.to_owned()), ..webhook() };
        let expected = signature(&webhook, "dlv_1", BODY, now).expect("a signature");
        signatures.split(' ').any(|signature| signature == expected)
    }

    #[test]
    fn the_example_of_the_specification_is_signed() {
        let webhook = Webhook { secret: Some("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw".to_owned()), ..webhook() };
        let now = DateTime::from_timestamp(1_614_265_330, 0).expect("a time");
        let signature = signature(&webhook, "msg_p5jXN8AQM9LWM0D4loKWxJek", br#"{"test": 2432232314}"#, now);
        assert_eq!(signature.as_deref(), Some("v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="));
    }

    #[test]
    fn there_is_no_signature_without_a_secret() {
        assert_eq!(signature(&webhook(), "dlv_1", BODY, now()), None);
    }

    #[test]
    fn old_and_new_secret_verify_during_the_overlap() {
        let now = now();
        let (old, new) = (encode_secret([1; 32]), encode_secret([2; 32]));
        let sign = |webhook: &Webhook, at| signature(webhook, "dlv_1", BODY, at).expect("a signature");
        let webhook = rotate_secret(&webhook(), old.clone(), DEFAULT_OVERLAP, now);
        assert!(webhook.previous_secrets.is_empty(), "there was no old secret");
        let webhook = rotate_secret(&webhook, new.clone(), Duration::from_secs(60), now);
        let both = sign(&webhook, now);
        assert!(verifies(&old, &both, now) && verifies(&new, &both, now));
        assert!(!verifies(&encode_secret([3; 32]), &both, now));
        let later = now + TimeDelta::seconds(60);
        let one = sign(&webhook, later);
        assert_eq!(one.split(' ').count(), 1, "{one}");
        let overlap = webhook.previous_secrets[0].until.signed_duration_since(now);
        assert_eq!(overlap, TimeDelta::seconds(60));
    }

    #[test]
    fn an_overlap_has_a_limit() {
        let violation = Violation::new("$.overlap", "must be a duration of at most 30d");
        for (overlap, expected) in
            [(Duration::ZERO, Ok(())), (MAX_OVERLAP, Ok(())), (MAX_OVERLAP + Duration::from_nanos(1), Err(violation))]
        {
            assert_eq!(check_overlap(overlap), expected, "{overlap:?}");
        }
    }

    #[test]
    fn only_the_latest_secrets_are_kept() {
        let now = now();
        let webhook =
            (0..9).fold(webhook(), |webhook, n| rotate_secret(&webhook, encode_secret([n; 32]), DEFAULT_OVERLAP, now));
        let previous: Vec<&str> = webhook.previous_secrets.iter().map(|previous| previous.secret.as_str()).collect();
        assert_eq!(previous, [encode_secret([7; 32]), encode_secret([6; 32]), encode_secret([5; 32])]);
        let after = rotate_secret(&webhook, encode_secret([9; 32]), DEFAULT_OVERLAP, now + TimeDelta::days(2));
        assert_eq!(after.previous_secrets.len(), 1, "expired secrets are removed");
    }
}
