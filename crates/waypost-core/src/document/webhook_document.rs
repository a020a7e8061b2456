//! Parses the document of a single webhook. Its JSON paths start at the webhook.

use serde_json::Value;

use super::json_cursor::{DocumentViolations, FirstPaths, JsonNode};
use super::{UrlPolicy, duplicate_keys, parse, webhook};
use crate::campaign::{Webhook, WebhookPlace};
use crate::event::Keyword;
use crate::violation::Violation;

/// Fields that tell the place of a webhook. The API returns them, so clients may send them back.
const PLACE_FIELDS: [&str; 3] = ["campaignId", "label", "keyword"];

/// Reads the new version of the webhook at `place` in the campaign with the id `campaign`.
///
/// # Errors
/// All violations, each with its path.
pub fn read_webhook(
    bytes: &[u8],
    urls: UrlPolicy<'_>,
    campaign: &str,
    place: &WebhookPlace<'_>,
) -> Result<Webhook, Vec<Violation>> {
    let (text, mut value) = parse(bytes, "a webhook").map_err(|message| vec![Violation::new("$", message)])?;
    let violations = DocumentViolations::default();
    duplicate_keys::refuse(text, &violations);
    for name in PLACE_FIELDS {
        let field = value.as_object_mut().and_then(|fields| fields.shift_remove(name)).filter(|field| !field.is_null());
        let Some(field) = field else { continue };
        let is_current_place = match name {
            "campaignId" => field == campaign,
            "label" => field == place.section.label.as_str(),
            _ => {
                let own = place.entry.map(|entry| &entry.keyword);
                own.zip(Keyword::from_json(&field)).is_some_and(|(own, keyword)| own.matches(&keyword))
            }
        };
        if !is_current_place {
            violations.report(
                || format!("$.{name}"),
                "the webhook has another place: remove this field. To move a webhook, change its campaign",
            );
        }
    }
    let node = JsonNode::root(&value, &violations);
    let webhook = webhook::read(&node, urls, &mut FirstPaths::default());
    let own_id = &place.webhook.id;
    if value["id"].as_str().is_some_and(|id| id != own_id.as_str()) {
        violations.report(
            || "$.id".to_owned(),
            format!("differs from `{own_id}` in the address: use the same id, or remove `id`"),
        );
    }
    let webhook = violations.into_result(webhook)?;
    Ok(Webhook { id: own_id.clone(), ..webhook })
}

/// Reads a JSON value that becomes a part of a document. `what` names the value: "an object". The rules of the document
/// are not checked.
///
/// # Errors
/// The text is not JSON, or has duplicate keys.
pub fn read_value(bytes: &[u8], what: &str) -> Result<Value, Vec<Violation>> {
    let (text, value) = parse(bytes, what).map_err(|message| vec![Violation::new("$", message)])?;
    let violations = DocumentViolations::default();
    duplicate_keys::refuse(text, &violations);
    violations.into_result(Some(value))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::campaign::MASK;
    use crate::document::tests::example;
    use crate::egress::HttpUrls;

    /// Reads a new version of the webhook of keyword 4. An error has the paths of the violations.
    fn read(document: &Value) -> Result<Webhook, Vec<String>> {
        let campaign = example();
        let place = campaign.places().find(|place| place.entry.is_some_and(|entry| entry.keyword.to_string() == "4"));
        read_webhook(
            document.to_string().as_bytes(),
            UrlPolicy::Scheme(HttpUrls::Refused),
            &campaign.id,
            &place.expect("a place"),
        )
        .map_err(|violations| violations.into_iter().map(|violation| violation.path).collect())
    }

    #[test]
    fn a_webhook_keeps_its_id_and_may_repeat_its_place() {
        let id = example().places().nth(1).expect("a place").webhook.id.clone();
        let url = "https://example.com/new";
        for document in [
            json!({ "url": url }),
            json!({ "url": url, "id": id }),
            json!({ "url": url, "campaignId": "13010", "label": "Welcome Message", "keyword": "4 " }),
            json!({ "url": url, "campaignId": null, "label": null, "keyword": null }),
        ] {
            let webhook = read(&document).unwrap_or_else(|violations| panic!("{document}: {violations:?}"));
            assert_eq!((&webhook.id, webhook.url.as_str(), webhook.timeout_ms), (&id, url, 15_000));
        }
    }

    #[test]
    fn paths_of_all_violations_start_at_the_webhook() {
        for (document, paths) in [
            (json!(null), &["$"][..]),
            (json!([]), &["$"]),
            (json!({}), &["$.url"]),
            (json!({ "url": "https://example.com/", "id": "wh_other" }), &["$.id"]),
            (
                json!({ "url": 7, "campaignId": "1", "label": "offers", "keyword": 3, "headers": { "X-A": MASK } }),
                &["$.campaignId", "$.label", "$.keyword", "$.url", r#"$.headers["X-A"]"#],
            ),
        ] {
            assert_eq!(read(&document).expect_err("a violation"), paths, "{document}");
        }
    }

    #[test]
    fn duplicate_keys_are_refused() {
        let campaign = example();
        let place = campaign.places().next().expect("a place");
        let read = |text: &str| read_webhook(text.as_bytes(), UrlPolicy::Scheme(HttpUrls::Refused), "13010", &place);
        let violations =
            read(r#"{"url":"https://example.com/","enabled":true,"enabled":false}"#).expect_err("a violation");
        assert_eq!(violations[0].path, "$.enabled");
        assert!(read("").expect_err("a violation")[0].message.contains("expected a webhook as a JSON object"));
    }
}
