//! Parses the document of a single webhook. Its JSON paths start at the webhook.

use serde_json::Value;

use super::json_cursor::{DocumentViolations, FirstPaths, JsonNode};
use super::{UrlPolicy, duplicate_keys, parse_json, webhook};
use crate::campaign::{Webhook, WebhookPlace};
use crate::event::Keyword;
use crate::violation::Violation;

/// The new version of one webhook, and the place that its document names, if any. Parsed once, before it is known which
/// webhook it replaces.
#[derive(Debug)]
pub struct WebhookDocument {
    webhook: Result<Webhook, Vec<Violation>>,
    id: Option<String>,
    campaign_id: Option<Value>,
    label: Option<Value>,
    keyword: Option<Value>,
}

impl WebhookDocument {
    pub fn parse(bytes: &[u8], urls: UrlPolicy<'_>) -> Self {
        let (text, mut value) = match parse_json(bytes, "a webhook") {
            Ok(parsed) => parsed,
            Err(message) => {
                let webhook = Err(vec![Violation::new("$", message)]);
                return Self { webhook, id: None, campaign_id: None, label: None, keyword: None };
            }
        };
        let violations = DocumentViolations::default();
        duplicate_keys::refuse(text, &violations);
        let mut take = |name: &str| value.as_object_mut()?.shift_remove(name).filter(|field| !field.is_null());
        let (campaign_id, label, keyword) = (take("campaignId"), take("label"), take("keyword"));
        let webhook = webhook::read(&JsonNode::root(&value, &violations), urls, &mut FirstPaths::default());
        let id = value["id"].as_str().map(str::to_owned);
        Self { webhook: violations.into_result(webhook), id, campaign_id, label, keyword }
    }

    /// The new version of the webhook at `place` in the campaign with the id `campaign`.
    ///
    /// # Errors
    /// All violations of the document, and each field that names another webhook or another place.
    pub fn at(&self, campaign: &str, place: &WebhookPlace<'_>) -> Result<Webhook, Vec<Violation>> {
        let is_keyword = |field: &Value| {
            let keyword = place.entry.map(|entry| &entry.keyword);
            keyword.zip(Keyword::from_json(field)).is_some_and(|(own, named)| own.matches(&named))
        };
        let named = [
            ("campaignId", self.campaign_id.as_ref().is_none_or(|named| named == campaign)),
            ("label", self.label.as_ref().is_none_or(|named| named == place.section.label.as_str())),
            ("keyword", self.keyword.as_ref().is_none_or(is_keyword)),
        ];
        let other_place = named.into_iter().filter(|(_, is_current)| !is_current).map(|(name, _)| {
            Violation::new(
                format!("$.{name}"),
                "the webhook has another place: remove this field. To move a webhook, change its campaign",
            )
        });
        let own_id = &place.webhook.id;
        let other_id = self.id.as_ref().filter(|id| *id != own_id.as_str()).map(|_| {
            let message = format!("differs from `{own_id}` in the address: use the same id, or remove `id`");
            Violation::new("$.id", message)
        });
        let own_violations = self.webhook.as_ref().err().into_iter().flatten().cloned();
        let violations: Vec<Violation> = other_place.chain(own_violations).chain(other_id).collect();
        match &self.webhook {
            Ok(webhook) if violations.is_empty() => Ok(Webhook { id: own_id.clone(), ..webhook.clone() }),
            _ => Err(violations),
        }
    }
}

/// Reads a JSON value that becomes a part of a document. `what` names the value: "an object". The rules of the document
/// are not checked.
///
/// # Errors
/// The text is not JSON, or has duplicate keys.
pub fn read_value(bytes: &[u8], what: &str) -> Result<Value, Vec<Violation>> {
    let (text, value) = parse_json(bytes, what).map_err(|message| vec![Violation::new("$", message)])?;
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

    const HTTPS: UrlPolicy<'static> = UrlPolicy::Scheme(HttpUrls::Refused);

    /// Reads a new version of the webhook of keyword 4. An error has the paths of the violations.
    fn read(document: &Value) -> Result<Webhook, Vec<String>> {
        let campaign = example();
        let place = campaign.places().find(|place| place.entry.is_some_and(|entry| entry.keyword.to_string() == "4"));
        let document = WebhookDocument::parse(document.to_string().as_bytes(), HTTPS);
        document
            .at(&campaign.id, &place.expect("a place"))
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
        let read = |text: &str| WebhookDocument::parse(text.as_bytes(), HTTPS).at("13010", &place);
        let violations =
            read(r#"{"url":"https://example.com/","enabled":true,"enabled":false}"#).expect_err("a violation");
        assert_eq!(violations[0].path, "$.enabled");
        assert!(read("").expect_err("a violation")[0].message.contains("expected a webhook as a JSON object"));
    }
}
