//! The page of the editor, and what its template asks of it.

use askama::Template;
use waypost_core::request::RequestPreview;
use waypost_engine::webhook_test::WebhookTest;

use super::conflict::Conflict;
use super::form::{EntryForm, Header};
use crate::console::edit_target::EditTarget;
use crate::console::form_errors::Errors;
use crate::console::layout::Layout;

#[derive(Template)]
#[template(path = "editor.html")]
pub(super) struct EditorPage {
    pub(super) layout: Layout,
    pub(super) campaign: String,
    pub(super) campaign_href: String,
    pub(super) title: String,
    pub(super) target: EditTarget,
    pub(super) fields: EntryForm,
    pub(super) errors: Errors,
    /// The fields as JSON when the page was first opened, to detect conflicts.
    pub(super) base: String,
    pub(super) version: u64,
    pub(super) preview: Option<Preview>,
    pub(super) test_result: Option<WebhookTest>,
    pub(super) conflict: Option<Conflict>,
    pub(super) notice: Option<String>,
    /// Why the form was not saved.
    pub(super) rejection: Option<String>,
    /// Suggested targets of the redirect.
    pub(super) suggestions: Vec<String>,
    /// Whether the stored place has a webhook, whatever the form has.
    pub(super) is_webhook_stored: bool,
    pub(super) may_edit: bool,
    pub(super) may_test: bool,
    pub(super) focus: Option<Focus>,
}

/// Which element gets the focus after a header row was added or removed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Focus {
    /// The key field of this row.
    Row(usize),
    AddHeader,
}

pub(super) struct Preview {
    request: RequestPreview,
    body: String,
}

impl Preview {
    pub(super) fn new(request: RequestPreview) -> Self {
        let indented = serde_json::from_str::<serde_json::Value>(&request.body)
            .and_then(|body| serde_json::to_string_pretty(&body));
        Self { body: indented.unwrap_or_else(|_| request.body.clone()), request }
    }
}

impl EditorPage {
    /// The URL of an action of the editor, such as `/check`.
    fn action(&self, action: &str) -> String {
        let edit = self.target.editor_href(&self.campaign);
        match edit.split_once('?') {
            Some((path, query)) => format!("{path}{action}?{query}"),
            None => edit,
        }
    }

    /// The name of a header, or its row number if it has no name yet.
    fn header_label(&self, header: &Header, number: &usize) -> String {
        if header.name.is_empty() { number.to_string() } else { header.name.clone() }
    }

    fn is_new_row(&self, row: &usize) -> bool {
        self.focus == Some(Focus::Row(*row))
    }

    fn is_row_removed(&self) -> bool {
        self.focus == Some(Focus::AddHeader)
    }

    fn header_errors(&self, header: &Header) -> Vec<&str> {
        self.errors.of_field(&format!("header {}", header.name))
    }

    /// Whether a field of the collapsed section has errors.
    fn has_collapsed_errors(&self) -> bool {
        ["secret", "timeout-ms", "max-concurrency", "rate-limit", "retry"]
            .iter()
            .any(|field| !self.errors.of_field(field).is_empty())
    }

    /// The response body of a test. Empty if there is none.
    fn test_response_body<'a>(&self, test_result: &'a WebhookTest) -> &'a str {
        test_result.response.answer.as_deref().unwrap_or_default()
    }
}
