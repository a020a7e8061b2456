//! The document of one webhook, by itself. Its paths begin at its own root.

use serde_json::Value;

use super::super::campaign::{Webhook, WebhookPlace};
use super::super::event::Keyword;
use super::super::violation::Violation;
use super::json_cursor::{Faults, FirstPlaces, Node};
use super::{UrlPolicy, duplicate_keys, parse, webhook};

/// What tells where a webhook is. A document may repeat it, as whoever has read it sends it back.
const WHERE: [&str; 3] = ["campaignId", "label", "keyword"];

/// Reads the webhook that takes the place of the one at `place`, of the campaign with the id `campaign`.
///
/// # Errors
/// All faults of the document, each with its path.
pub fn read_webhook(
    bytes: &[u8],
    urls: UrlPolicy<'_>,
    campaign: &str,
    place: &WebhookPlace<'_>,
) -> Result<Webhook, Vec<Violation>> {
    let (text, mut value) = parse(bytes, "a webhook").map_err(|message| vec![Violation::new("$", message)])?;
    let faults = Faults::default();
    duplicate_keys::refuse(text, &faults);
    for name in WHERE {
        let given = value.as_object_mut().and_then(|fields| fields.shift_remove(name)).filter(|given| !given.is_null());
        let Some(given) = given else { continue };
        let is_true = match name {
            "campaignId" => given == campaign,
            "label" => given == place.section.label.as_str(),
            _ => {
                let own = place.entry.map(|entry| &entry.keyword);
                own.zip(Keyword::from_json(&given)).is_some_and(|(own, given)| own.matches(&given))
            }
        };
        if !is_true {
            faults.add(
                || format!("$.{name}"),
                "the webhook is elsewhere: leave this out, for a webhook is moved by changing its campaign",
            );
        }
    }
    let node = Node::root(&value, &faults);
    let read = webhook::read(&node, urls, &mut FirstPlaces::default());
    let own = &place.webhook.id;
    if value["id"].as_str().is_some_and(|id| id != own.as_str()) {
        faults.add(|| "$.id".to_owned(), format!("the address says `{own}`: make them the same, or leave `id` out"));
    }
    let read = faults.none_or(read)?;
    Ok(Webhook { id: own.clone(), ..read })
}

/// Reads a part of a document that is JSON of its own: `what` it is, as in "an object".
///
/// # Errors
/// That it is no JSON, or each name that it gives twice. The rules of its place are those of the document it goes to.
pub fn read_value(bytes: &[u8], what: &str) -> Result<Value, Vec<Violation>> {
    let (text, value) = parse(bytes, what).map_err(|message| vec![Violation::new("$", message)])?;
    let faults = Faults::default();
    duplicate_keys::refuse(text, &faults);
    faults.none_or(Some(value))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::HttpUrls;
    use super::*;
    use crate::delivery::campaign::MASK;
    use crate::delivery::document::tests::example;

    /// What becomes of a document in the place of the webhook of keyword 4.
    fn read(document: &Value) -> Result<Webhook, Vec<String>> {
        let campaign = example();
        let place = campaign.places().find(|place| place.entry.is_some_and(|entry| entry.keyword.to_string() == "4"));
        read_webhook(
            document.to_string().as_bytes(),
            UrlPolicy::Scheme(HttpUrls::Refused),
            &campaign.id,
            &place.expect("a place"),
        )
        .map_err(|faults| faults.into_iter().map(|fault| fault.path).collect())
    }

    #[test]
    fn a_webhook_keeps_its_id_and_may_say_where_it_is() {
        let own = example().places().nth(1).expect("a place").webhook.id.clone();
        let url = "https://example.com/new";
        for document in [
            json!({ "url": url }),
            json!({ "url": url, "id": own }),
            json!({ "url": url, "campaignId": "13010", "label": "Welcome Message", "keyword": "4 " }),
            json!({ "url": url, "campaignId": null, "label": null, "keyword": null }),
        ] {
            let webhook = read(&document).unwrap_or_else(|faults| panic!("{document}: {faults:?}"));
            assert_eq!((&webhook.id, webhook.url.as_str(), webhook.timeout_ms), (&own, url, 15_000));
        }
    }

    #[test]
    fn all_faults_are_told_from_its_own_root() {
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
            assert_eq!(read(&document).expect_err("it was taken"), paths, "{document}");
        }
    }

    #[test]
    fn a_name_given_twice_is_refused() {
        let campaign = example();
        let place = campaign.places().next().expect("a place");
        let read = |text: &str| read_webhook(text.as_bytes(), UrlPolicy::Scheme(HttpUrls::Refused), "13010", &place);
        let faults =
            read(r#"{"url":"https://example.com/","enabled":true,"enabled":false}"#).expect_err("it was taken");
        assert_eq!(faults[0].path, "$.enabled");
        assert!(read("").expect_err("it was taken")[0].message.contains("a webhook is a JSON object"));
    }
}
