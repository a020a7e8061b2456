//! Parses and validates a campaign document: the result is a [`Campaign`], or all violations at once. The ids of its
//! webhooks are assigned in a second step, because they depend on the campaigns that are stored.
//!
//! Each kind of node has one function with its rules. Parsing continues after a violation, so that every violation is
//! reported.

mod assign_ids;
mod duplicate_keys;
mod json_cursor;
mod webhook;
mod webhook_document;

use std::collections::HashSet;
use std::fmt::{self, Write as _};
use std::sync::Arc;

use serde_json::Value;
use url::Url;

use super::campaign::{Campaign, MenuEntry, Redirect, RedirectKind, Section, SectionKind, Webhook};
use super::egress::{EgressRules, HttpUrls};
use super::event::{Keyword, MAX_CAMPAIGN_ID_CHARS};
use super::violation::Violation;
pub use assign_ids::assign_ids;
use json_cursor::{DocumentViolations, FirstPaths, JsonNode, JsonObject, shortened};
pub use webhook_document::{WebhookDocument, read_value};

/// The campaign that the documentation has as its example.
pub const EXAMPLE: &str = include_str!("document/example.json");

pub const MAX_DOCUMENT_BYTES: usize = 1024 * 1024;

/// The rules for the URLs of webhooks.
#[derive(Debug, Clone, Copy)]
pub enum UrlPolicy<'a> {
    /// Only the scheme is checked.
    Scheme(HttpUrls),
    /// The egress rules are checked, as far as they apply to a URL without resolving its host.
    Egress(&'a EgressRules),
}

impl UrlPolicy<'_> {
    fn http_urls(self) -> HttpUrls {
        match self {
            Self::Scheme(http_urls) => http_urls,
            Self::Egress(rules) => rules.http_urls(),
        }
    }

    /// The reason to refuse a valid URL, if any.
    fn refuse(self, url: &Url) -> Option<String> {
        match self {
            Self::Scheme(_) => None,
            Self::Egress(rules) => rules.check(url).err().map(|forbidden| forbidden.to_string()),
        }
    }
}

/// Parses a campaign and gives ids to its webhooks: [`parse`] and [`assign_ids()`] for a campaign that is alone.
///
/// # Errors
/// All violations in the document.
pub fn read(bytes: &[u8], http_urls: HttpUrls, previous: Option<&Campaign>) -> Result<Campaign, Vec<Violation>> {
    let mut campaign = parse(bytes, UrlPolicy::Scheme(http_urls))?;
    assign_ids(&mut campaign, previous, &|_| false);
    Ok(campaign)
}

/// Parses a campaign. A webhook without an id in the document has the empty id until [`assign_ids()`].
///
/// # Errors
/// All violations in the document.
pub fn parse(bytes: &[u8], urls: UrlPolicy<'_>) -> Result<Campaign, Vec<Violation>> {
    let (text, value) = parse_json(bytes, "a campaign").map_err(|message| vec![Violation::new("$", message)])?;
    let violations = DocumentViolations::default();
    duplicate_keys::refuse(text, &violations);
    read_campaign(&value, urls, violations)
}

/// Like [`parse`], for a document that is JSON already. Its size is that of its compact text.
///
/// # Errors
/// Those of [`parse`], except duplicate keys: JSON values have none.
pub fn from_value(document: &Value, urls: UrlPolicy<'_>) -> Result<Campaign, Vec<Violation>> {
    check_size(text_bytes(document)).map_err(|message| vec![Violation::new("$", message)])?;
    read_campaign(document, urls, DocumentViolations::default())
}

fn read_campaign(
    document: &Value,
    urls: UrlPolicy<'_>,
    violations: DocumentViolations,
) -> Result<Campaign, Vec<Violation>> {
    let campaign = DocumentContext::new(document, urls).campaign(&JsonNode::root(document, &violations));
    violations.into_result(campaign)
}

/// Returns the document as text and as JSON, or an error message. `what` names the expected object.
fn parse_json<'a>(bytes: &'a [u8], what: &str) -> Result<(&'a str, Value), String> {
    check_size(bytes.len())?;
    let text = std::str::from_utf8(bytes)
        .map_err(|error| format!("not UTF-8 from byte {} on: save it as UTF-8", error.valid_up_to()))?;
    if text.trim().is_empty() {
        return Err(format!("empty: expected {what} as a JSON object"));
    }
    if text.starts_with('\u{feff}') {
        return Err("begins with a byte order mark: save it as UTF-8 without one".to_owned());
    }
    let value = serde_json::from_str(text).map_err(|error| format!("not valid JSON: {error}"))?;
    Ok((text, value))
}

fn check_size(bytes: usize) -> Result<(), String> {
    if bytes > MAX_DOCUMENT_BYTES {
        return Err(format!("too large ({bytes} bytes): a document has at most {MAX_DOCUMENT_BYTES} bytes. Split it"));
    }
    Ok(())
}

/// The length of the compact text of `document`, without building the text.
fn text_bytes(document: &Value) -> usize {
    let mut counter = ByteCounter(0);
    // Counting can't fail.
    let _ = write!(counter, "{document}");
    counter.0
}

struct ByteCounter(usize);

impl fmt::Write for ByteCounter {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.0 += text.len();
        Ok(())
    }
}

/// The parts of the document that the rules of a single node depend on.
struct DocumentContext<'a> {
    urls: UrlPolicy<'a>,
    /// The labels of all sections, which are the valid targets of redirects.
    labels: HashSet<&'a str>,
    first_welcome: FirstPaths<()>,
    first_labels: FirstPaths<&'a str>,
    first_webhook_ids: FirstPaths<&'a str>,
}

impl<'a> DocumentContext<'a> {
    fn new(value: &'a Value, urls: UrlPolicy<'a>) -> Self {
        let sections = value["sections"].as_array().into_iter().flatten();
        Self {
            urls,
            labels: sections.filter_map(|section| section["label"].as_str()).collect(),
            first_welcome: FirstPaths::default(),
            first_labels: FirstPaths::default(),
            first_webhook_ids: FirstPaths::default(),
        }
    }

    fn campaign(&mut self, node: &JsonNode<'a>) -> Option<Campaign> {
        let campaign = node.object("a campaign", &["id", "name", "sections"])?;
        let id = campaign.require("id").and_then(|id| id.text_of_length(1..=MAX_CAMPAIGN_ID_CHARS));
        let name = campaign.get("name").and_then(|name| name.text());
        let sections = campaign
            .require("sections")
            .and_then(|sections| sections.items())
            .map(|sections| sections.filter_map(|section| self.section(&section)).collect());
        Some(Campaign { id: id?.to_owned(), name: name.map(str::to_owned), sections: sections? })
    }

    fn section(&mut self, node: &JsonNode<'a>) -> Option<Section> {
        let section = node.object("a section", &["label", "kind", "message", "menu", "redirect", "webhook"])?;
        let label = section.require("label").and_then(|label| self.label(&label));
        let kind = section.get("kind").map_or(Some(SectionKind::Interaction), |kind| self.kind(&kind));
        let message = section.get("message").and_then(|message| message.text());
        let menu = section.get("menu").and_then(|menu| self.menu(&menu));
        let (redirect, webhook) = self.redirect_and_webhook(&section);
        Some(Section {
            label: label?.to_owned(),
            kind: kind?,
            message: message.map(str::to_owned),
            menu: menu.unwrap_or_default(),
            redirect,
            webhook: webhook.map(Arc::new),
        })
    }

    fn label(&mut self, node: &JsonNode<'a>) -> Option<&'a str> {
        let label = node.text_not_blank()?;
        self.first_labels.refuse_duplicate(label, node, |first| {
            format!("the same label as {first}: give each section its own label")
        });
        Some(label)
    }

    fn kind(&mut self, node: &JsonNode<'a>) -> Option<SectionKind> {
        let kinds = [("welcomeMessage", SectionKind::WelcomeMessage), ("interaction", SectionKind::Interaction)];
        let kind = node.one_of(&kinds)?;
        if kind == SectionKind::WelcomeMessage {
            self.first_welcome.refuse_duplicate((), node, |first| {
                format!("a second Welcome Message, the first is {first}: a campaign has only one. Use `interaction`")
            });
        }
        Some(kind)
    }

    fn menu(&mut self, node: &JsonNode<'a>) -> Option<Vec<MenuEntry>> {
        let mut first_keywords = FirstPaths::default();
        Some(node.items()?.filter_map(|entry| self.entry(&entry, &mut first_keywords)).collect())
    }

    fn entry(&mut self, node: &JsonNode<'a>, first_keywords: &mut FirstPaths<String>) -> Option<MenuEntry> {
        let entry = node.object("a menu entry", &["keyword", "option", "redirect", "webhook"])?;
        let keyword = entry.require("keyword").and_then(|node| keyword(&node, first_keywords));
        let option = entry.get("option");
        let (redirect, webhook) = self.redirect_and_webhook(&entry);
        if let Some(option) = &option
            && is_webhook(redirect.as_ref())
        {
            option.report("a menu entry with a redirect of type `webhook` has no menu text: remove `option`");
        }
        let option = option.and_then(|option| option.text()).map(str::to_owned);
        Some(MenuEntry { keyword: keyword?, option, redirect, webhook: webhook.map(Arc::new) })
    }

    fn redirect_and_webhook(&mut self, parent: &JsonObject<'a>) -> (Option<Redirect>, Option<Webhook>) {
        let redirect = parent.get("redirect").and_then(|redirect| self.redirect(&redirect));
        let webhook = parent.get("webhook");
        if webhook.is_none() && is_webhook(redirect.as_ref()) {
            parent.missing("webhook", "a redirect of type `webhook` needs a `webhook` next to it");
        }
        let webhook = webhook.and_then(|webhook| webhook::read(&webhook, self.urls, &mut self.first_webhook_ids));
        (redirect, webhook)
    }

    fn redirect(&self, node: &JsonNode<'a>) -> Option<Redirect> {
        let redirect = node.object("a redirect", &["type", "to"])?;
        let kinds = [
            ("interaction", RedirectKind::Interaction),
            ("campaign", RedirectKind::Campaign),
            ("webhook", RedirectKind::Webhook),
        ];
        let kind = redirect.require("type").and_then(|kind| kind.one_of(&kinds));
        let to = redirect.get("to");
        let Some(kind) = kind else {
            return to.and_then(|to| to.text()).and(None);
        };
        let to = match kind {
            RedirectKind::Interaction | RedirectKind::Campaign if to.is_none() => {
                redirect.missing("to", "name the section's label or the campaign that this redirect leads to");
                None
            }
            RedirectKind::Interaction => to.and_then(|to| self.section_label(&to)),
            RedirectKind::Campaign => to.and_then(|to| to.text_not_blank()),
            RedirectKind::Webhook => {
                to.and_then(|to| to.refuse("a redirect of type `webhook` leads to the webhook next to it: remove `to`"))
            }
        };
        Some(Redirect { kind, to: to.map(str::to_owned) })
    }

    fn section_label(&self, node: &JsonNode<'a>) -> Option<&'a str> {
        let to = node.text_not_blank()?;
        if self.labels.contains(to) {
            return Some(to);
        }
        let to = shortened(to);
        node.refuse(format!("no section of this campaign has the label `{to}`: add it, or name one that exists"))
    }
}

fn keyword(node: &JsonNode<'_>, first_keywords: &mut FirstPaths<String>) -> Option<Keyword> {
    let Some(keyword) = Keyword::from_json(node.value()) else {
        return node.expected("a string or a number");
    };
    let form = keyword.normal_form();
    if form.is_empty() {
        return node.refuse("the keyword is empty or invisible: write what the user types");
    }
    first_keywords.refuse_duplicate(form.into_text(), node, |first| {
        format!(
            "keyword already used at {first}. Case, spaces, invisible characters and number formats are ignored. Give \
             each entry its own keyword"
        )
    });
    Some(keyword)
}

fn is_webhook(redirect: Option<&Redirect>) -> bool {
    redirect.is_some_and(|redirect| redirect.kind == RedirectKind::Webhook)
}

#[cfg(test)]
pub(crate) mod tests;
