//! Signatures by Standard Webhooks (`v1`, HMAC-SHA256), with which a receiver knows that a request is ours and unchanged.
//!
//! A secret is replaced without a gap: for a while requests carry a signature by the old one as well, and a receiver takes
//! whichever it can verify.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use chrono::{DateTime, TimeDelta, Utc};

use super::campaign::{PreviousSecret, Webhook};

/// How long the old secret still signs, where nobody says otherwise.
pub const DEFAULT_OVERLAP: Duration = Duration::from_secs(24 * 3600);

/// The longest that an old secret still signs.
pub const LONGEST_OVERLAP: Duration = Duration::from_secs(30 * 24 * 3600);

/// The most secrets that sign beside the present one: a request has a signature by each.
pub const MOST_PREVIOUS: usize = 3;

/// Bytes of a secret that is made here.
pub const SECRET_BYTES: usize = 32;

/// The value of `webhook-signature`: by the present secret first. None where the webhook has no secret.
pub fn signature(webhook: &Webhook, id: &str, body: &[u8], now: DateTime<Utc>) -> Option<String> {
    let previous = webhook.previous_secrets.iter().filter(|previous| previous.until > now);
    let secrets = webhook.secret.iter().chain(previous.map(|previous| &previous.secret));
    // A document's secrets are base64, and bodies are UTF-8: nothing is left out of what was checked.
    let signed =
        secrets.filter_map(|secret| standardwebhooks::Webhook::new(secret).ok()?.sign(id, now.timestamp(), body).ok());
    let signatures: Vec<String> = signed.collect();
    (!signatures.is_empty()).then(|| signatures.join(" "))
}

/// The secret that is made of these random bytes.
pub fn secret_of(random: [u8; SECRET_BYTES]) -> String {
    format!("whsec_{}", STANDARD.encode(random))
}

/// The webhook with a new secret; the one it had signs for `overlap` longer. Without any overlap no other signs any more.
pub fn rotated(webhook: &Webhook, new: String, overlap: Duration, now: DateTime<Utc>) -> Webhook {
    let until = now + TimeDelta::from_std(overlap.min(LONGEST_OVERLAP)).unwrap_or_default();
    let replaced = webhook.secret.clone().map(|secret| PreviousSecret { secret, until });
    let earlier = webhook.previous_secrets.iter().cloned();
    let mut previous: Vec<PreviousSecret> = replaced.into_iter().chain(earlier).collect();
    previous.retain(|previous| previous.until > now && !overlap.is_zero());
    previous.truncate(MOST_PREVIOUS);
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

    /// Whether a receiver that has this secret finds its signature.
    fn verifies(secret: &str, signatures: &str, now: DateTime<Utc>) -> bool {
        let own = Webhook { secret: Some(secret.to_owned()), ..webhook() };
        let own = signature(&own, "dlv_1", BODY, now).expect("a signature");
        signatures.split(' ').any(|signature| signature == own)
    }

    /// The example of the specification.
    #[test]
    fn the_specified_signature() {
        let webhook = Webhook { secret: Some("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw".to_owned()), ..webhook() };
        let now = DateTime::from_timestamp(1_614_265_330, 0).expect("a time");
        let signature = signature(&webhook, "msg_p5jXN8AQM9LWM0D4loKWxJek", br#"{"test": 2432232314}"#, now);
        assert_eq!(signature.as_deref(), Some("v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="));
    }

    #[test]
    fn none_without_a_secret() {
        assert_eq!(signature(&webhook(), "dlv_1", BODY, now()), None);
    }

    #[test]
    fn while_secrets_overlap_either_verifies() {
        let now = now();
        let (old, new) = (secret_of([1; 32]), secret_of([2; 32]));
        let signed = |webhook: &Webhook, at| signature(webhook, "dlv_1", BODY, at).expect("a signature");
        let webhook = rotated(&webhook(), old.clone(), DEFAULT_OVERLAP, now);
        assert!(webhook.previous_secrets.is_empty(), "it had none");
        let webhook = rotated(&webhook, new.clone(), Duration::from_secs(60), now);
        let both = signed(&webhook, now);
        assert!(verifies(&old, &both, now) && verifies(&new, &both, now));
        assert!(!verifies(&secret_of([3; 32]), &both, now));
        let later = now + TimeDelta::seconds(60);
        let one = signed(&webhook, later);
        assert_eq!(one.split(' ').count(), 1, "{one}");
        let overlap = webhook.previous_secrets[0].until.signed_duration_since(now);
        assert_eq!(overlap, TimeDelta::seconds(60));
    }

    #[test]
    fn no_more_than_a_few_sign() {
        let now = now();
        let webhook = (0..9).fold(webhook(), |webhook, n| rotated(&webhook, secret_of([n; 32]), DEFAULT_OVERLAP, now));
        let previous: Vec<&str> = webhook.previous_secrets.iter().map(|previous| previous.secret.as_str()).collect();
        assert_eq!(previous, [secret_of([7; 32]), secret_of([6; 32]), secret_of([5; 32])]);
        let after = rotated(&webhook, secret_of([9; 32]), DEFAULT_OVERLAP, now + TimeDelta::days(2));
        assert_eq!(after.previous_secrets.len(), 1, "those whose time is over are gone");
    }
}
