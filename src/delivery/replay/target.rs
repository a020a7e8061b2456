//! Where a replay sends a dead letter.

use std::sync::Arc;

use super::ReplayConfig;
use crate::delivery::campaign::{MASK, Target, WebhookPlace};
use crate::delivery::dead_letter::DeadLetter;
use crate::delivery::reason::DeadLetterReason;
use crate::delivery::resolve;

/// Where a letter is sent again. Its own target is the webhook as it was, without the values of headers and the secret;
/// `current` is the webhook as it is, if there is one.
///
/// # Errors
/// The reason for which it can't be sent. A letter that died while it waited has no original: it dies of the same again.
pub fn target(
    config: ReplayConfig,
    letter: &DeadLetter,
    current: Option<WebhookPlace<'_>>,
) -> Result<Target, DeadLetterReason> {
    match (config, &letter.target) {
        (ReplayConfig::Current, _) => resolve::current(current),
        (ReplayConfig::Original, None) => Err(letter.reason),
        (ReplayConfig::Original, Some(original)) => unmasked(original, current).ok_or(DeadLetterReason::WebhookDeleted),
    }
}

/// The original webhook with the values of headers and the secret as they are now; without them where it has another scheme, host or
/// port by now. A header that the webhook does not
/// have any more is left out; where the webhook is gone there is nothing to put in the place of what is masked.
fn unmasked(original: &Target, current: Option<WebhookPlace<'_>>) -> Option<Target> {
    let mut target = original.clone();
    let webhook = Arc::make_mut(&mut target.webhook);
    if webhook.headers.is_empty() && webhook.secret.is_none() {
        return Some(target);
    }
    let current = current?.webhook;
    // Secrets of one host are not sent to another.
    if current.url.place().endpoint != webhook.url.place().endpoint {
        webhook.headers.retain(|_, value| value.as_str() != Some(MASK));
        webhook.secret = None;
        webhook.previous_secrets.clear();
        return Some(target);
    }
    let of_now = |name: &str| current.headers.iter().find(|(known, _)| known.eq_ignore_ascii_case(name));
    webhook.headers = std::mem::take(&mut webhook.headers)
        .into_iter()
        .filter_map(|(name, value)| match value.as_str() {
            Some(MASK) => of_now(&name).map(|(_, value)| (name, value.clone())),
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
    use crate::delivery::campaign::Campaign;
    use crate::delivery::document;
    use crate::delivery::egress::HttpUrls;
    use crate::delivery::ids::WebhookId;

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
        let now = campaign("https://old.example/new", true, json!({ "x-key": "new" }));
        let elsewhere = campaign("https://new.example/hook", true, json!({ "x-key": "new" }));
        let disabled = campaign("https://new.example/hook", false, json!({}));
        let place = |campaign| Campaign::place_of(campaign, &id);

        let letter = DeadLetter::of_body(b"", Vec::new(), "1", DeadLetterReason::WebhookDisabled, DateTime::UNIX_EPOCH);
        let with = |original: &Target| DeadLetter { target: Some(original.clone()), ..letter.clone() };
        // It died while it waited.
        assert_eq!(target(ReplayConfig::Original, &letter, place(&now)), Err(DeadLetterReason::WebhookDisabled));
        assert!(target(ReplayConfig::Current, &letter, place(&now)).is_ok());
        let letter = with(&original);
        let current = target(ReplayConfig::Current, &letter, place(&now)).expect("a target");
        assert_eq!(current, place(&now).expect("a webhook").target());
        let sent = target(ReplayConfig::Original, &letter, place(&now)).expect("a target").webhook;
        assert_eq!(sent.url.as_str(), "https://old.example/hook");
        // The value is the one of now, for none is kept; a header that is gone has none.
        assert_eq!(serde_json::Value::from(sent.headers.clone()), json!({ "X-Key": "new" }));

        let sent = target(ReplayConfig::Original, &letter, place(&elsewhere)).expect("a target").webhook;
        assert_eq!(
            (sent.url.as_str(), sent.headers.len()),
            ("https://old.example/hook", 0),
            "that is another host's secret"
        );

        assert_eq!(target(ReplayConfig::Current, &letter, None), Err(DeadLetterReason::WebhookDeleted));
        assert_eq!(target(ReplayConfig::Original, &letter, None), Err(DeadLetterReason::WebhookDeleted));
        assert_eq!(target(ReplayConfig::Current, &letter, place(&disabled)), Err(DeadLetterReason::WebhookDisabled));
        assert!(target(ReplayConfig::Original, &letter, place(&disabled)).is_ok());
        Arc::make_mut(&mut original.webhook).headers.clear();
        assert!(target(ReplayConfig::Original, &with(&original), None).is_ok());
    }
}
