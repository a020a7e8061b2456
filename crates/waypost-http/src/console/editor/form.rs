//! The fields of the editor's form: filled from a campaign, and written back into its document.
//!
//! Parts of the document that the form does not show stay unchanged. Validation happens only when the document is
//! parsed.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use waypost_core::campaign::{Campaign, MASK, MenuEntry, Redirect, RedirectKind, Section, SectionKind, Webhook};
use waypost_core::document;
use waypost_core::violation::Violation;

use crate::console::edit_target::EditTarget;
use crate::console::form::Form;

/// The fields as text. Serialized into the hidden field `base`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct EntryForm {
    /// Only for a section, like the next two fields.
    pub(super) label: String,
    pub(super) is_welcome: bool,
    pub(super) message: String,
    /// Only for a menu entry, like the next field.
    pub(super) keyword: String,
    pub(super) option: String,
    /// `interaction`, `campaign`, `webhook`, or empty.
    pub(super) redirect: String,
    pub(super) redirect_to: String,
    pub(super) has_webhook: bool,
    /// Kept even if `has_webhook` is false, so that no input is lost when the webhook is switched off and on again.
    pub(super) webhook: WebhookFields,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct WebhookFields {
    pub(super) url: String,
    pub(super) is_disabled: bool,
    pub(super) body: String,
    pub(super) headers: Vec<Header>,
    pub(super) secret: String,
    pub(super) timeout_ms: String,
    pub(super) max_concurrency: String,
    pub(super) rate_limit: String,
    pub(super) retry: String,
}

/// A header row.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Header {
    pub(super) name: String,
    pub(super) value: String,
}

impl Header {
    fn is_empty(&self) -> bool {
        self.name.is_empty() && self.value.is_empty()
    }
}

impl EntryForm {
    /// Fields of a place. Empty for a new place. `None` if the place does not exist.
    pub(super) fn from_campaign(campaign: &Campaign, target: &EditTarget) -> Option<Self> {
        match target {
            EditTarget::NewSection => Some(Self::default()),
            EditTarget::NewEntry { .. } => target.section_in(campaign).map(|_| Self::default()),
            EditTarget::Section { .. } => target.section_in(campaign).map(Self::from_section),
            EditTarget::Entry { .. } => target.entry_in(campaign).map(Self::from_entry),
        }
    }

    fn from_section(section: &Section) -> Self {
        Self {
            label: section.label.clone(),
            is_welcome: section.kind == SectionKind::WelcomeMessage,
            message: section.message.clone().unwrap_or_default(),
            ..Self::from_common(section.redirect.as_ref(), section.webhook.as_deref())
        }
    }

    fn from_entry(entry: &MenuEntry) -> Self {
        Self {
            keyword: entry.keyword.to_string(),
            option: entry.option.clone().unwrap_or_default(),
            ..Self::from_common(entry.redirect.as_ref(), entry.webhook.as_deref())
        }
    }

    fn from_common(redirect: Option<&Redirect>, webhook: Option<&Webhook>) -> Self {
        let kind = redirect.map(|redirect| match redirect.kind {
            RedirectKind::Interaction => "interaction",
            RedirectKind::Campaign => "campaign",
            RedirectKind::Webhook => "webhook",
        });
        Self {
            redirect: kind.unwrap_or_default().to_owned(),
            redirect_to: redirect.and_then(|redirect| redirect.to.clone()).unwrap_or_default(),
            has_webhook: webhook.is_some(),
            webhook: webhook.map(WebhookFields::from_webhook).unwrap_or_default(),
            ..Self::default()
        }
    }

    pub(super) fn from_form(form: &Form) -> Self {
        let text = |name: &str| form.get(name).replace("\r\n", "\n");
        let redirect = text("redirect");
        // A redirect of type webhook needs a webhook.
        let has_webhook = form.has("webhook") || redirect == "webhook";
        let names = form.get_all("header-name").map(str::trim);
        let headers = names.zip(form.get_all("header-value").map(str::trim));
        Self {
            label: text("label").trim().to_owned(),
            is_welcome: form.get("kind") == "welcomeMessage",
            message: text("message"),
            keyword: text("keyword").trim().to_owned(),
            option: text("option"),
            redirect_to: text("redirect-to"),
            redirect,
            has_webhook,
            webhook: WebhookFields {
                url: text("url").trim().to_owned(),
                is_disabled: form.has("url") && !form.has("enabled"),
                body: text("body"),
                headers: headers
                    .map(|(name, value)| Header { name: name.to_owned(), value: value.to_owned() })
                    .collect(),
                secret: text("secret").trim().to_owned(),
                timeout_ms: text("timeout-ms").trim().to_owned(),
                max_concurrency: text("max-concurrency").trim().to_owned(),
                rate_limit: text("rate-limit").trim().to_owned(),
                retry: text("retry"),
            },
        }
    }

    /// Masks the secret and the header values.
    pub(super) fn mask(&mut self) {
        let webhook = &mut self.webhook;
        webhook.headers.iter_mut().for_each(|header| header.value = MASK.to_owned());
        if !webhook.secret.is_empty() {
            webhook.secret = MASK.to_owned();
        }
    }

    /// If so, Menu Text and Redirect To are not available.
    pub(super) fn is_webhook_redirect(&self) -> bool {
        self.redirect == "webhook"
    }

    /// Labels and values, to list the differences in a conflict.
    pub(super) fn labeled_values(&self) -> Vec<(String, String)> {
        let mut named = vec![
            ("Label".to_owned(), self.label.clone()),
            ("Kind".to_owned(), if self.is_welcome { "Welcome Message".to_owned() } else { String::new() }),
            ("Message".to_owned(), self.message.clone()),
            ("Keyword".to_owned(), self.keyword.clone()),
            ("Redirect Type".to_owned(), self.redirect.clone()),
        ];
        if !self.is_webhook_redirect() {
            let texts = [("Menu Text", &self.option), ("Redirect To", &self.redirect_to)];
            named.extend(texts.map(|(name, text)| (name.to_owned(), text.clone())));
        }
        if !self.has_webhook {
            return named;
        }
        let webhook = &self.webhook;
        named.extend([
            ("URL".to_owned(), webhook.url.clone()),
            ("Enabled".to_owned(), if webhook.is_disabled { "no" } else { "yes" }.to_owned()),
            ("Body".to_owned(), webhook.body.clone()),
            ("Signing secret".to_owned(), webhook.secret.clone()),
            ("Time limit, ms".to_owned(), webhook.timeout_ms.clone()),
            ("Concurrent requests".to_owned(), webhook.max_concurrency.clone()),
            ("Requests per second".to_owned(), webhook.rate_limit.clone()),
            ("Retry policy".to_owned(), webhook.retry.clone()),
        ]);
        named.extend(webhook.headers.iter().map(|header| (format!("Header {}", header.name), header.value.clone())));
        named
    }

    /// The place after these fields are saved. A changed label or keyword moves it.
    pub(super) fn target_after_save(&self, target: &EditTarget) -> EditTarget {
        match target {
            EditTarget::NewSection | EditTarget::Section { .. } => EditTarget::Section { label: self.label.clone() },
            EditTarget::NewEntry { label } | EditTarget::Entry { label, .. } => {
                EditTarget::Entry { label: label.clone(), keyword: self.keyword.clone() }
            }
        }
    }

    /// Writes the fields into the document of a campaign. Values that can't be written are left out and reported.
    pub(super) fn write(&self, document: &mut Value, target: &EditTarget) -> WriteResult {
        let Some((node, path)) = target.node_in(document) else {
            return WriteResult {
                path: String::new(),
                violations: vec![Violation::new(
                    "$",
                    "This place no longer exists. It may have been renamed or deleted.",
                )],
            };
        };
        let node = object_mut(node);
        let mut violations = Vec::new();
        match target {
            EditTarget::NewSection | EditTarget::Section { .. } => {
                set_or_remove(node, "label", Some(json!(self.label)));
                set_or_remove(
                    node,
                    "kind",
                    Some(json!(if self.is_welcome { "welcomeMessage" } else { "interaction" })),
                );
                set_or_remove(node, "message", text_value(&self.message));
            }
            EditTarget::NewEntry { .. } | EditTarget::Entry { .. } => {
                let keyword = node.get("keyword").filter(|keyword| as_text(keyword) == self.keyword).cloned();
                set_or_remove(node, "keyword", Some(keyword.unwrap_or_else(|| keyword_value(&self.keyword))));
                set_or_remove(node, "option", text_value(&self.option).filter(|_| !self.is_webhook_redirect()));
            }
        }
        let redirect = text_value(&self.redirect).map(|kind| {
            let mut redirect = Map::from_iter([("type".to_owned(), kind)]);
            set_or_remove(&mut redirect, "to", text_value(&self.redirect_to).filter(|_| !self.is_webhook_redirect()));
            Value::Object(redirect)
        });
        set_or_remove(node, "redirect", redirect);
        if self.has_webhook {
            let webhook_violations = self.webhook.write(object_mut(node.entry("webhook").or_insert_with(|| json!({}))));
            violations.extend(
                webhook_violations.into_iter().map(|violation| prefix_path(&format!("{path}.webhook"), violation)),
            );
        } else {
            set_or_remove(node, "webhook", None);
        }
        if let EditTarget::Section { label } = target
            && *label != self.label
        {
            update_redirects(document, label, &self.label);
        }
        WriteResult { path, violations }
    }
}

#[derive(Debug)]
pub(super) struct WriteResult {
    /// The JSON path of the place.
    pub(super) path: String,
    /// Values that could not be written. All other violations are found when the document is parsed.
    pub(super) violations: Vec<Violation>,
}

impl WebhookFields {
    fn from_webhook(webhook: &Webhook) -> Self {
        let headers = webhook.headers.iter();
        Self {
            url: webhook.url.as_str().to_owned(),
            is_disabled: !webhook.enabled,
            body: if webhook.body.is_empty() { String::new() } else { indented_json(&webhook.body.to_value()) },
            headers: headers.map(|(name, value)| Header { name: name.clone(), value: as_text(value) }).collect(),
            secret: webhook.secret.clone().unwrap_or_default(),
            timeout_ms: webhook.timeout_ms.to_string(),
            max_concurrency: webhook.max_concurrency.map(|limit| limit.to_string()).unwrap_or_default(),
            rate_limit: webhook.rate_limit.as_ref().map(ToString::to_string).unwrap_or_default(),
            retry: if webhook.retry.is_empty() { String::new() } else { indented_json(&webhook.retry) },
        }
    }

    /// Returns violations of the values that were left out.
    fn write(&self, node: &mut Map<String, Value>) -> Vec<Violation> {
        let mut violations = Vec::new();
        let mut parse = |name: &str, text: &str| {
            if text.trim().is_empty() {
                return None;
            }
            let value = document::read_value(text.as_bytes(), "an object of JSON");
            value
                .map_err(|parse_violations| {
                    violations.extend(
                        parse_violations.into_iter().map(|violation| prefix_path(&format!("$.{name}"), violation)),
                    )
                })
                .ok()
        };
        let (body, retry) = (parse("body", &self.body), parse("retry", &self.retry));
        let mut headers = Map::new();
        for header in self.headers.iter().filter(|header| !header.is_empty()) {
            if headers.insert(header.name.clone(), Value::from(header.value.as_str())).is_some() {
                violations.push(Violation::new(
                    format!("$.headers[{}]", Value::from(header.name.as_str())),
                    "This header occurs twice. Remove one.",
                ));
            }
        }
        set_or_remove(node, "url", Some(json!(self.url)));
        set_or_remove(node, "enabled", Some(json!(!self.is_disabled)));
        set_or_remove(node, "body", body);
        set_or_remove(node, "headers", Some(Value::Object(headers)).filter(|_| !self.headers.is_empty()));
        set_or_remove(node, "secret", text_value(&self.secret));
        if self.secret.is_empty() {
            set_or_remove(node, "previousSecrets", None);
        }
        set_or_remove(node, "timeoutMs", number_value(&self.timeout_ms));
        set_or_remove(node, "maxConcurrency", number_value(&self.max_concurrency));
        set_or_remove(node, "rateLimit", number_value(&self.rate_limit));
        set_or_remove(node, "retry", retry);
        violations
    }
}

/// Changes redirects to a section after its label has changed.
fn update_redirects(document: &mut Value, old: &str, new: &str) {
    let sections = document["sections"].as_array_mut().into_iter().flatten();
    for section in sections {
        update_redirect(&mut section["redirect"], old, new);
        let menu = section["menu"].as_array_mut().into_iter().flatten();
        menu.for_each(|entry| update_redirect(&mut entry["redirect"], old, new));
    }
}

fn update_redirect(redirect: &mut Value, old: &str, new: &str) {
    if redirect["type"] == "interaction" && redirect["to"] == old {
        redirect["to"] = json!(new);
    }
}

/// A keyword becomes a number if it is a plain decimal integer without leading zeros.
fn keyword_value(text: &str) -> Value {
    let is_number = text.bytes().all(|byte| byte.is_ascii_digit()) && (1..=15).contains(&text.len());
    let is_number = is_number && (text == "0" || !text.starts_with('0'));
    if is_number { number_value(text).unwrap_or_default() } else { json!(text) }
}

/// A number. Other text stays a string, which the validation of the document rejects. `None` if blank.
fn number_value(text: &str) -> Option<Value> {
    let number = serde_json::from_str(text).ok().filter(Value::is_number);
    text_value(text).map(|text| number.unwrap_or(text))
}

/// `None` if blank.
fn text_value(text: &str) -> Option<Value> {
    Some(text).filter(|text| !text.trim().is_empty()).map(Value::from)
}

fn indented_json(value: &impl Serialize) -> String {
    serde_json::to_string_pretty(value).unwrap_or_default()
}

fn set_or_remove(node: &mut Map<String, Value>, name: &str, value: Option<Value>) {
    match value {
        Some(value) => drop(node.insert(name.to_owned(), value)),
        None => drop(node.shift_remove(name)),
    }
}

/// The object at a node. A node that is not an object is replaced by an empty one.
fn object_mut(node: &mut Value) -> &mut Map<String, Value> {
    if !node.is_object() {
        *node = json!({});
    }
    match node {
        Value::Object(fields) => fields,
        _ => unreachable!("the node was replaced by an object"),
    }
}

/// Puts the path of the parent node before the path of a violation.
fn prefix_path(path: &str, violation: Violation) -> Violation {
    Violation { path: violation.path.replacen('$', path, 1), ..violation }
}

/// A string without quotes. Any other value as JSON.
fn as_text(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

#[cfg(test)]
mod tests {
    use waypost_core::document::{EXAMPLE, read};
    use waypost_core::egress::HttpUrls;

    use super::*;

    fn targets(campaign: &Campaign) -> Vec<EditTarget> {
        let from_section = |section| std::iter::once(EditTarget::new(section, None));
        let of_menu = |section: &Section| {
            section.menu.iter().map(|entry| EditTarget::new(section, Some(entry))).collect::<Vec<_>>()
        };
        campaign.sections.iter().flat_map(|section| from_section(section).chain(of_menu(section))).collect()
    }

    fn document() -> Value {
        serde_json::to_value(read(EXAMPLE.as_bytes(), HttpUrls::Refused, None).expect("a campaign")).expect("JSON")
    }

    #[test]
    fn unchanged_fields_write_the_same_document() {
        let campaign = read(EXAMPLE.as_bytes(), HttpUrls::Refused, None).expect("a campaign");
        assert_eq!(targets(&campaign).len(), 8);
        for target in targets(&campaign) {
            let fields = EntryForm::from_campaign(&campaign, &target).expect("a place");
            let mut written = document();
            assert_eq!(fields.write(&mut written, &target).violations, []);
            let read = read(written.to_string().as_bytes(), HttpUrls::Refused, None);
            assert_eq!(read.as_ref(), Ok(&campaign), "{target:?}");
        }
    }

    #[test]
    fn values_that_the_form_does_not_show_are_kept() {
        let (campaign, mut written) =
            (read(EXAMPLE.as_bytes(), HttpUrls::Refused, None).expect("a campaign"), document());
        let (label, keyword) = ("Welcome Message".to_owned(), "4".to_owned());
        let target = EditTarget::Entry { label, keyword };
        written["sections"][0]["menu"][3]["webhook"]["previousSecrets"] = json!(["kept"]);
        let mut fields = EntryForm::from_campaign(&campaign, &target).expect("a place");
        fields.option = "Best offers".to_owned();
        fields.webhook.secret = "whsec_x".to_owned();
        let WriteResult { path, violations } = fields.write(&mut written, &target);
        assert_eq!(violations, []);
        let entry = &written["sections"][0]["menu"][3];
        assert_eq!(path, "$.sections[0].menu[3]");
        assert_eq!((&entry["option"], &entry["keyword"]), (&json!("Best offers"), &json!(4)));
        assert_eq!(entry["webhook"]["previousSecrets"], json!(["kept"]));
        assert_eq!(entry["webhook"]["id"], json!(campaign.sections[0].menu[3].webhook.as_ref().expect("one").id));
    }

    #[test]
    fn redirects_follow_a_renamed_section() {
        let mut written = document();
        let target = EditTarget::Section { label: "Offers".to_owned() };
        let fields = EntryForm {
            label: "Deals".to_owned(),
            ..EntryForm::from_campaign(&read(EXAMPLE.as_bytes(), HttpUrls::Refused, None).expect("a campaign"), &target)
                .expect("a place")
        };
        assert_eq!(fields.write(&mut written, &target).violations, []);
        assert_eq!(written["sections"][0]["menu"][3]["redirect"]["to"], "Deals");
        assert_eq!(written["sections"][0]["menu"][0]["redirect"]["to"], "Plans");
    }

    #[test]
    fn a_webhook_redirect_has_no_option_and_no_target() {
        let mut written = document();
        let target = EditTarget::NewEntry { label: "Plans".to_owned() };
        let form = "keyword=9&option=left+over&redirect=webhook&redirect-to=Offers&url=https%3A%2F%2Fexample.com%2F&enabled=on";
        let fields = EntryForm::from_form(&Form::parse(form.as_bytes()));
        assert_eq!(fields.write(&mut written, &target).path, "$.sections[1].menu[0]");
        let entry = &written["sections"][1]["menu"][0];
        assert_eq!(entry["redirect"], json!({ "type": "webhook" }));
        assert!(entry.get("option").is_none(), "{entry}");
        assert_eq!(entry["webhook"], json!({ "url": "https://example.com/", "enabled": true }));
    }

    #[test]
    fn invalid_json_and_duplicate_headers_are_reported_with_their_path() {
        let target = EditTarget::NewSection;
        let form = "label=x&webhook=on&url=u&body=%7B&retry=%7B%22a%22%3A1%2C%22a%22%3A2%7D\
                    &header-name=a&header-value=1&header-name=a&header-value=2&header-name=&header-value=";
        let WriteResult { path: target_path, violations } =
            EntryForm::from_form(&Form::parse(form.as_bytes())).write(&mut document(), &target);
        let paths: Vec<_> = violations.iter().map(|violation| violation.path.as_str()).collect();
        let path = "$.sections[3].webhook";
        assert_eq!(paths, [format!("{path}.body"), format!("{path}.retry.a"), format!("{path}.headers[\"a\"]")]);
        assert_eq!(target_path, "$.sections[3]");
    }

    #[test]
    fn keywords_that_look_like_integers_become_numbers() {
        for (text, keyword) in [
            ("1", json!(1)),
            ("0", json!(0)),
            ("007", json!("007")),
            ("1.5", json!("1.5")),
            ("-1", json!("-1")),
            ("yes", json!("yes")),
            ("", json!("")),
            ("1234567890123456", json!("1234567890123456")),
        ] {
            assert_eq!(keyword_value(text), keyword, "{text}");
        }
    }
}
