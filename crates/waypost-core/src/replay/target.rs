//! Determines the target to which a replay sends a dead letter.

use std::sync::Arc;

use super::ReplayConfig;
use crate::campaign::{MASK, Target, WebhookPlace};
use crate::dead_letter::DeadLetter;
use crate::reason::DeadLetterReason;
use crate::resolve;

/// Returns the target of a letter. The letter stores its original webhook without header values and secret. `current`
/// is the webhook in the current configuration, if it exists.
///
/// # Errors
/// The reason why the letter cannot be sent. A letter without an original target fails with its own reason again.
pub fn target(
    config: ReplayConfig,
    letter: &DeadLetter,
    current: Option<WebhookPlace<'_>>,
) -> Result<Target, DeadLetterReason> {
    match (config, &letter.target) {
        (ReplayConfig::Current, _) => resolve::current_target(current),
        (ReplayConfig::Original, None) => Err(letter.reason),
        (ReplayConfig::Original, Some(original)) => {
            with_current_secrets(original, current).ok_or(DeadLetterReason::WebhookDeleted)
        }
    }
}

/// Returns the original webhook with the current header values and secrets. Headers that the current webhook does not
/// have are removed. If the current webhook has another scheme, host or port, all masked values are removed. `None` if
/// there are masked values and the webhook no longer exists.
fn with_current_secrets(original: &Target, current: Option<WebhookPlace<'_>>) -> Option<Target> {
    let mut target = original.clone();
    let webhook = Arc::make_mut(&mut target.webhook);
    if webhook.headers.is_empty() && webhook.secret.is_none() {
        return Some(target);
    }
    let current = current?.webhook;
    // Never send the secrets of one host to another.
    if current.url.receiver_key().endpoint != webhook.url.receiver_key().endpoint {
        webhook.headers.retain(|_, value| value.as_str() != Some(MASK));
        webhook.secret = None;
        webhook.previous_secrets.clear();
        return Some(target);
    }
    let current_header =
        |name: &str| current.headers.iter().find(|(current_name, _)| current_name.eq_ignore_ascii_case(name));
    webhook.headers = std::mem::take(&mut webhook.headers)
        .into_iter()
        .filter_map(|(name, value)| match value.as_str() {
            Some(MASK) => current_header(&name).map(|(_, value)| (name, value.clone())),
            _ => Some((name, value)),
        })
        .collect();
    if webhook.secret.is_some() {
        webhook.secret = current.secret.clone();
        webhook.previous_secrets = current.previous_secrets.clone();
    }
    Some(target)
}

#[cfg(test)]
mod tests {
    use chrono::DateTime;
    use serde_json::json;

    use super::*;
    use crate::campaign::Campaign;
    use crate::document;
    use crate::egress::HttpUrls;
    use crate::ids::WebhookId;

    #[test]
    fn the_target_is_the_current_webhook_or_the_original_with_current_secrets() {
        let campaign = |url: &str, enabled: bool, headers: serde_json::Value| {
            let document = json!({ "id": "1", "sections": [{ "label": "a", "webhook":
                { "id": "wh_1", "url": url, "enabled": enabled, "headers": headers } }] });
            document::read(document.to_string().as_bytes(), HttpUrls::Refused, None).expect("a campaign")
        };
        let id = WebhookId::new("wh_1");
        let old = campaign("https://old.example/hook", true, json!({ "X-Key": "old", "X-Gone": "gone" }));
        let mut original = old.place_of(&id).expect("a webhook").target();
        original.mask();
        let current_campaign = campaign("https://old.example/new", true, json!({ "x-key": "new" }));
        let on_other_host = campaign("https://new.example/hook", true, json!({ "x-key": "new" }));
        let disabled = campaign("https://new.example/hook", false, json!({}));
        let place = |campaign| Campaign::place_of(campaign, &id);

        let letter =
            DeadLetter::from_body(b"", Vec::new(), "1", DeadLetterReason::WebhookDisabled, DateTime::UNIX_EPOCH);
        let letter_with_target = |original: &Target| DeadLetter { target: Some(original.clone()), ..letter.clone() };
        // The letter has no original target.
        assert_eq!(
            target(ReplayConfig::Original, &letter, place(&current_campaign)),
            Err(DeadLetterReason::WebhookDisabled)
        );
        assert!(target(ReplayConfig::Current, &letter, place(&current_campaign)).is_ok());
        let letter = letter_with_target(&original);
        let current = target(ReplayConfig::Current, &letter, place(&current_campaign)).expect("a target");
        assert_eq!(current, place(&current_campaign).expect("a webhook").target());
        let sent = target(ReplayConfig::Original, &letter, place(&current_campaign)).expect("a target").webhook;
        assert_eq!(sent.url.as_str(), "https://old.example/hook");
        // The header has the current value, because no old value is stored. The removed header is absent.
        assert_eq!(serde_json::Value::from(sent.headers.clone()), json!({ "X-Key": "new" }));

        let sent = target(ReplayConfig::Original, &letter, place(&on_other_host)).expect("a target").webhook;
        assert_eq!(
            (sent.url.as_str(), sent.headers.len()),
            ("https://old.example/hook", 0),
            "the header is a secret of the other host"
        );

        assert_eq!(target(ReplayConfig::Current, &letter, None), Err(DeadLetterReason::WebhookDeleted));
        assert_eq!(target(ReplayConfig::Original, &letter, None), Err(DeadLetterReason::WebhookDeleted));
        assert_eq!(target(ReplayConfig::Current, &letter, place(&disabled)), Err(DeadLetterReason::WebhookDisabled));
        assert!(target(ReplayConfig::Original, &letter, place(&disabled)).is_ok());
        Arc::make_mut(&mut original.webhook).headers.clear();
        assert!(target(ReplayConfig::Original, &letter_with_target(&original), None).is_ok());
    }
}
