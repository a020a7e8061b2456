//! What the form of a place has in its fields: made from a campaign, and written back into its document.
//!
//! The document keeps what the form does not show, so nothing is lost by editing, and its rules are the only ones.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use super::super::form::Form;
use super::edit_target::{EditTarget, as_text};
use crate::delivery::campaign::{Campaign, MASK, MenuEntry, Redirect, RedirectKind, Section, SectionKind, Webhook};
use crate::delivery::document;
use crate::delivery::violation::Violation;

/// The fields, as text.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct EntryForm {
    /// Of a section.
    pub(super) label: String,
    pub(super) is_welcome: bool,
    pub(super) message: String,
    /// Of a menu entry.
    pub(super) keyword: String,
    pub(super) option: String,
    /// `interaction`, `campaign`, `webhook`, or nothing.
    pub(super) redirect: String,
    pub(super) redirect_to: String,
    pub(super) has_webhook: bool,
    /// What is in its fields, also while there is none: so nothing typed is lost by changing one's mind.
    pub(super) webhook: WebhookFields,
}

/// The fields of the webhook.
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

/// A row of the headers.
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
    /// Those of a place; the empty ones of a place that is new. None where there is no such place.
    pub(super) fn from_campaign(campaign: &Campaign, spot: &EditTarget) -> Option<Self> {
        match spot {
            EditTarget::NewSection => Some(Self::default()),
            EditTarget::NewEntry { .. } => spot.section_in(campaign).map(|_| Self::default()),
            EditTarget::Section { .. } => spot.section_in(campaign).map(Self::of_section),
            EditTarget::Entry { .. } => spot.entry_in(campaign).map(Self::of_entry),
        }
    }

    fn of_section(section: &Section) -> Self {
        Self {
            label: section.label.clone(),
            is_welcome: section.kind == SectionKind::WelcomeMessage,
            message: section.message.clone().unwrap_or_default(),
            ..Self::of_both(section.redirect.as_ref(), section.webhook.as_deref())
        }
    }

    fn of_entry(entry: &MenuEntry) -> Self {
        Self {
            keyword: entry.keyword.to_string(),
            option: entry.option.clone().unwrap_or_default(),
            ..Self::of_both(entry.redirect.as_ref(), entry.webhook.as_deref())
        }
    }

    fn of_both(redirect: Option<&Redirect>, webhook: Option<&Webhook>) -> Self {
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

    /// Those that a browser has sent.
    pub(super) fn of_form(form: &Form) -> Self {
        let text = |name: &str| form.get(name).replace("\r\n", "\n");
        let redirect = text("redirect");
        // A redirect to a webhook is nothing without it.
        let has_webhook = form.has("webhook") || redirect == "webhook";
        let names = form.all("header-name").map(str::trim);
        let headers = names.zip(form.all("header-value").map(str::trim));
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

    /// Takes out what only an editor sees.
    pub(super) fn mask(&mut self) {
        let webhook = &mut self.webhook;
        webhook.headers.iter_mut().for_each(|header| header.value = MASK.to_owned());
        if !webhook.secret.is_empty() {
            webhook.secret = MASK.to_owned();
        }
    }

    /// Whether the redirect is to the webhook: menu text and redirect to are not available then.
    pub(super) fn is_webhook_redirect(&self) -> bool {
        self.redirect == "webhook"
    }

    /// The fields by the names that people read, for comparing.
    pub(super) fn named(&self) -> Vec<(String, String)> {
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
            ("Time limit".to_owned(), webhook.timeout_ms.clone()),
            ("Requests at once".to_owned(), webhook.max_concurrency.clone()),
            ("Requests a second".to_owned(), webhook.rate_limit.clone()),
            ("Retry policy".to_owned(), webhook.retry.clone()),
        ]);
        named.extend(webhook.headers.iter().map(|header| (format!("Header {}", header.name), header.value.clone())));
        named
    }

    /// The spot where the place of `spot` is, once these are saved.
    pub(super) fn spot_after(&self, spot: &EditTarget) -> EditTarget {
        match spot {
            EditTarget::NewSection | EditTarget::Section { .. } => EditTarget::Section { label: self.label.clone() },
            EditTarget::NewEntry { label } | EditTarget::Entry { label, .. } => {
                EditTarget::Entry { label: label.clone(), keyword: self.keyword.clone() }
            }
        }
    }

    /// Writes the fields into the document of a campaign, at a spot. What can't be written at all is left out.
    pub(super) fn write(&self, document: &mut Value, spot: &EditTarget) -> TypedJson {
        let Some((node, path)) = spot.node_in(document) else {
            return TypedJson { path: String::new(), faults: vec![Violation::new("$", "this place is gone")] };
        };
        let node = object(node);
        let mut faults = Vec::new();
        match spot {
            EditTarget::NewSection | EditTarget::Section { .. } => {
                set(node, "label", Some(json!(self.label)));
                set(node, "kind", Some(json!(if self.is_welcome { "welcomeMessage" } else { "interaction" })));
                set(node, "message", text(&self.message));
            }
            EditTarget::NewEntry { .. } | EditTarget::Entry { .. } => {
                let keyword = node.get("keyword").filter(|keyword| as_text(keyword) == self.keyword).cloned();
                set(node, "keyword", Some(keyword.unwrap_or_else(|| keyword_of(&self.keyword))));
                set(node, "option", text(&self.option).filter(|_| !self.is_webhook_redirect()));
            }
        }
        let redirect = text(&self.redirect).map(|kind| {
            let mut redirect = Map::from_iter([("type".to_owned(), kind)]);
            set(&mut redirect, "to", text(&self.redirect_to).filter(|_| !self.is_webhook_redirect()));
            Value::Object(redirect)
        });
        set(node, "redirect", redirect);
        if self.has_webhook {
            let unwritten = self.webhook.write(object(node.entry("webhook").or_insert_with(|| json!({}))));
            faults.extend(unwritten.into_iter().map(|fault| within(&format!("{path}.webhook"), fault)));
        } else {
            set(node, "webhook", None);
        }
        if let EditTarget::Section { label } = spot
            && *label != self.label
        {
            follow_label(document, label, &self.label);
        }
        TypedJson { path, faults }
    }
}

/// What came of writing fields into a document.
#[derive(Debug)]
pub(super) struct TypedJson {
    /// The path of their place.
    pub(super) path: String,
    /// Those of what can't be written. All others are found when the document is read.
    pub(super) faults: Vec<Violation>,
}

impl WebhookFields {
    fn from_webhook(webhook: &Webhook) -> Self {
        let headers = webhook.headers.iter();
        Self {
            url: webhook.url.as_str().to_owned(),
            is_disabled: !webhook.enabled,
            body: if webhook.body.is_empty() { String::new() } else { pretty(&webhook.body.to_value()) },
            headers: headers.map(|(name, value)| Header { name: name.clone(), value: as_text(value) }).collect(),
            secret: webhook.secret.clone().unwrap_or_default(),
            timeout_ms: webhook.timeout_ms.to_string(),
            max_concurrency: webhook.max_concurrency.map(|most| most.to_string()).unwrap_or_default(),
            rate_limit: webhook.rate_limit.as_ref().map(ToString::to_string).unwrap_or_default(),
            retry: if webhook.retry.is_empty() { String::new() } else { pretty(&webhook.retry) },
        }
    }

    /// Gives back the faults of what it has left out.
    fn write(&self, node: &mut Map<String, Value>) -> Vec<Violation> {
        let mut faults = Vec::new();
        let mut read = |name: &str, text: &str| {
            if text.trim().is_empty() {
                return None;
            }
            let value = document::read_value(text.as_bytes(), "an object of JSON");
            value
                .map_err(|found| faults.extend(found.into_iter().map(|fault| within(&format!("$.{name}"), fault))))
                .ok()
        };
        let (body, retry) = (read("body", &self.body), read("retry", &self.retry));
        let mut headers = Map::new();
        for header in self.headers.iter().filter(|header| !header.is_empty()) {
            if headers.insert(header.name.clone(), Value::from(header.value.as_str())).is_some() {
                faults.push(Violation::new(
                    format!("$.headers[{}]", Value::from(header.name.as_str())),
                    "this header is given twice: remove one",
                ));
            }
        }
        set(node, "url", Some(json!(self.url)));
        set(node, "enabled", Some(json!(!self.is_disabled)));
        set(node, "body", body);
        set(node, "headers", Some(Value::Object(headers)).filter(|_| !self.headers.is_empty()));
        set(node, "secret", text(&self.secret));
        if self.secret.is_empty() {
            set(node, "previousSecrets", None);
        }
        set(node, "timeoutMs", number(&self.timeout_ms));
        set(node, "maxConcurrency", number(&self.max_concurrency));
        set(node, "rateLimit", number(&self.rate_limit));
        set(node, "retry", retry);
        faults
    }
}

/// The document follows a section to its new label: redirects to it lead there.
fn follow_label(document: &mut Value, old: &str, new: &str) {
    let sections = document["sections"].as_array_mut().into_iter().flatten();
    for section in sections {
        redirect_to(&mut section["redirect"], old, new);
        let menu = section["menu"].as_array_mut().into_iter().flatten();
        menu.for_each(|entry| redirect_to(&mut entry["redirect"], old, new));
    }
}

fn redirect_to(redirect: &mut Value, old: &str, new: &str) {
    if redirect["type"] == "interaction" && redirect["to"] == old {
        redirect["to"] = json!(new);
    }
}

/// A keyword as documents have it: a number where it is written like one.
fn keyword_of(text: &str) -> Value {
    let is_number = text.bytes().all(|byte| byte.is_ascii_digit()) && (1..=15).contains(&text.len());
    let is_number = is_number && (text == "0" || !text.starts_with('0'));
    if is_number { number(text).unwrap_or_default() } else { json!(text) }
}

/// The number of a field; what is none stays text, for the document's rules to refuse.
fn number(text: &str) -> Option<Value> {
    let number = serde_json::from_str(text).ok().filter(Value::is_number);
    self::text(text).map(|text| number.unwrap_or(text))
}

fn text(text: &str) -> Option<Value> {
    Some(text).filter(|text| !text.trim().is_empty()).map(Value::from)
}

fn pretty(value: &impl Serialize) -> String {
    serde_json::to_string_pretty(value).unwrap_or_default()
}

fn set(node: &mut Map<String, Value>, name: &str, value: Option<Value>) {
    match value {
        Some(value) => drop(node.insert(name.to_owned(), value)),
        None => drop(node.shift_remove(name)),
    }
}

/// The object at a node, made one where it is none.
fn object(node: &mut Value) -> &mut Map<String, Value> {
    if !node.is_object() {
        *node = json!({});
    }
    match node {
        Value::Object(fields) => fields,
        _ => unreachable!("it was made an object"),
    }
}

/// A fault of a part, at the place of the part.
fn within(path: &str, fault: Violation) -> Violation {
    Violation { path: fault.path.replacen('$', path, 1), ..fault }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::delivery::document::tests::example;

    fn spots(campaign: &Campaign) -> Vec<EditTarget> {
        let of_section = |section| std::iter::once(EditTarget::new(section, None));
        let of_menu = |section: &Section| {
            section.menu.iter().map(|entry| EditTarget::new(section, Some(entry))).collect::<Vec<_>>()
        };
        campaign.sections.iter().flat_map(|section| of_section(section).chain(of_menu(section))).collect()
    }

    fn document() -> Value {
        serde_json::to_value(example()).expect("JSON")
    }

    #[test]
    fn what_is_not_touched_is_written_as_it_was() {
        let campaign = example();
        assert_eq!(spots(&campaign).len(), 8);
        for spot in spots(&campaign) {
            let fields = EntryForm::from_campaign(&campaign, &spot).expect("a place");
            let mut written = document();
            assert_eq!(fields.write(&mut written, &spot).faults, []);
            let read = document::read(written.to_string().as_bytes(), crate::delivery::egress::HttpUrls::Refused, None);
            assert_eq!(read.as_ref(), Ok(&campaign), "{spot:?}");
        }
    }

    #[test]
    fn what_the_form_does_not_show_is_kept() {
        let (campaign, mut written) = (example(), document());
        let (label, keyword) = ("Welcome Message".to_owned(), "4".to_owned());
        let spot = EditTarget::Entry { label, keyword };
        written["sections"][0]["menu"][3]["webhook"]["previousSecrets"] = json!(["kept"]);
        let mut fields = EntryForm::from_campaign(&campaign, &spot).expect("a place");
        fields.option = "Best offers".to_owned();
        fields.webhook.secret = "whsec_x".to_owned();
        let TypedJson { path, faults } = fields.write(&mut written, &spot);
        assert_eq!(faults, []);
        let entry = &written["sections"][0]["menu"][3];
        assert_eq!(path, "$.sections[0].menu[3]");
        assert_eq!((&entry["option"], &entry["keyword"]), (&json!("Best offers"), &json!(4)));
        assert_eq!(entry["webhook"]["previousSecrets"], json!(["kept"]));
        assert_eq!(entry["webhook"]["id"], json!(campaign.sections[0].menu[3].webhook.as_ref().expect("one").id));
    }

    #[test]
    fn redirects_follow_a_section_to_its_new_label() {
        let mut written = document();
        let spot = EditTarget::Section { label: "Offers".to_owned() };
        let fields =
            EntryForm { label: "Deals".to_owned(), ..EntryForm::from_campaign(&example(), &spot).expect("a place") };
        assert_eq!(fields.write(&mut written, &spot).faults, []);
        assert_eq!(written["sections"][0]["menu"][3]["redirect"]["to"], "Deals");
        assert_eq!(written["sections"][0]["menu"][0]["redirect"]["to"], "Plans");
    }

    #[test]
    fn a_redirect_to_a_webhook_has_no_text_and_leads_nowhere_else() {
        let mut written = document();
        let spot = EditTarget::NewEntry { label: "Plans".to_owned() };
        let form = "keyword=9&option=left+over&redirect=webhook&redirect-to=Offers&url=https%3A%2F%2Fexample.com%2F&enabled=on";
        let fields = EntryForm::of_form(&Form::read(form.as_bytes()));
        assert_eq!(fields.write(&mut written, &spot).path, "$.sections[1].menu[0]");
        let entry = &written["sections"][1]["menu"][0];
        assert_eq!(entry["redirect"], json!({ "type": "webhook" }));
        assert!(entry.get("option").is_none(), "{entry}");
        assert_eq!(entry["webhook"], json!({ "url": "https://example.com/", "enabled": true }));
    }

    #[test]
    fn what_is_no_json_and_what_is_given_twice_has_its_place() {
        let spot = EditTarget::NewSection;
        let form = "label=x&webhook=on&url=u&body=%7B&retry=%7B%22a%22%3A1%2C%22a%22%3A2%7D\
                    &header-name=a&header-value=1&header-name=a&header-value=2&header-name=&header-value=";
        let TypedJson { path: at, faults } =
            EntryForm::of_form(&Form::read(form.as_bytes())).write(&mut document(), &spot);
        let paths: Vec<_> = faults.iter().map(|fault| fault.path.as_str()).collect();
        let path = "$.sections[3].webhook";
        assert_eq!(paths, [format!("{path}.body"), format!("{path}.retry.a"), format!("{path}.headers[\"a\"]")]);
        assert_eq!(at, "$.sections[3]");
    }

    #[test]
    fn keywords_are_numbers_where_they_look_like_some() {
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
            assert_eq!(keyword_of(text), keyword, "{text}");
        }
    }
}
