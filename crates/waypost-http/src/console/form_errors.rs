//! Maps violations of a document to the form fields that show them.

use serde_json::Value;
use waypost_core::violation::Violation;

/// Error messages by field.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Errors {
    /// Field name and message.
    by_field: Vec<(String, String)>,
    /// Messages that belong to no field of the form.
    rest: Vec<String>,
}

impl Errors {
    /// Violations of a document. The form shows the node at `path`.
    pub(super) fn new(violations: Vec<Violation>, path: &str) -> Self {
        let mut errors = Self::default();
        for violation in violations {
            let field = violation.path.strip_prefix(path).and_then(|rest| field_of(rest, &violation.message));
            match field {
                Some(field) => errors.by_field.push(field),
                None => errors.rest.push(violation.to_string()),
            }
        }
        errors
    }

    /// Violations of a form. The last segment of a path is the name of the field.
    pub(super) fn of_fields(violations: Vec<Violation>, fields: &[&str]) -> Self {
        let mut errors = Self::default();
        for violation in violations {
            let name = violation.path.rsplit('.').next().filter(|name| fields.contains(name)).map(str::to_owned);
            match name {
                Some(name) => errors.by_field.push((name, violation.message)),
                None => errors.rest.push(violation.message),
            }
        }
        errors
    }

    pub(super) fn single(field: &str, message: &str) -> Self {
        Self { by_field: vec![(field.to_owned(), message.to_owned())], rest: Vec::new() }
    }

    /// A message that belongs to no field.
    pub(super) fn general(message: String) -> Self {
        Self { by_field: Vec::new(), rest: vec![message] }
    }

    pub(super) fn of_field(&self, field: &str) -> Vec<&str> {
        self.by_field.iter().filter(|(name, _)| name == field).map(|(_, message)| message.as_str()).collect()
    }

    pub(super) fn rest(&self) -> &[String] {
        &self.rest
    }

    pub(super) fn count(&self) -> usize {
        self.by_field.len() + self.rest.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.by_field.is_empty() && self.rest.is_empty()
    }
}

/// The field that shows the node at `path`, and the message to show there.
fn field_of(path: &str, message: &str) -> Option<(String, String)> {
    let plain = |field: &str| Some((field.to_owned(), message.to_owned()));
    match path {
        ".id" => plain("id"),
        ".name" => plain("name"),
        ".label" => plain("label"),
        ".kind" => plain("kind"),
        ".message" => plain("message"),
        ".keyword" => plain("keyword"),
        ".option" => plain("option"),
        ".redirect" | ".redirect.type" => plain("redirect"),
        ".redirect.to" => plain("redirect-to"),
        ".webhook" => plain("webhook"),
        ".webhook.url" => plain("url"),
        ".webhook.secret" | ".webhook.previousSecrets" => plain("secret"),
        ".webhook.timeoutMs" => plain("timeout-ms"),
        ".webhook.maxConcurrency" => plain("max-concurrency"),
        ".webhook.rateLimit" => plain("rate-limit"),
        ".webhook.headers" => plain("headers"),
        _ => {
            let subpath = |field: &str| path.strip_prefix(&format!(".webhook.{field}"));
            let body_error = subpath("body").map(|subpath| json_field_error("body", subpath, message));
            let retry_error = || subpath("retry").map(|subpath| json_field_error("retry", subpath, message));
            body_error.or_else(retry_error).or_else(|| header_error(subpath("headers")?, message))
        }
    }
}

/// An error inside a field that contains JSON. The message names the path inside it.
fn json_field_error(field: &str, subpath: &str, message: &str) -> (String, String) {
    let subpath = subpath.trim_start_matches('.');
    let message = if subpath.is_empty() { message.to_owned() } else { format!("{subpath}: {message}") };
    (field.to_owned(), message)
}

/// An error of a header row. `path` is `.name` or `["a-name"]`.
fn header_error(path: &str, message: &str) -> Option<(String, String)> {
    let quoted = path.strip_prefix('[').and_then(|path| path.strip_suffix(']'));
    let name = match quoted {
        Some(quoted) => serde_json::from_str::<Value>(quoted).ok()?.as_str()?.to_owned(),
        None => path.strip_prefix('.')?.to_owned(),
    };
    Some((format!("header {name}"), message.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn violations_are_mapped_to_their_fields() {
        let path = "$.sections[0].menu[2]";
        for (violation, field, message) in [
            (".webhook.url", "url", "m"),
            (".redirect.to", "redirect-to", "m"),
            (".webhook.body", "body", "m"),
            (".webhook.body.campaignId", "body", "campaignId: m"),
            (".webhook.retry.maxAttempts", "retry", "maxAttempts: m"),
            (".webhook.headers[\"X-Api-Key\"]", "header X-Api-Key", "m"),
            (".webhook.headers.host", "header host", "m"),
        ] {
            let errors = Errors::new(vec![Violation::new(format!("{path}{violation}"), "m")], path);
            assert_eq!(errors.of_field(field), [message], "{violation}: {errors:?}");
            assert!(errors.rest().is_empty());
        }
        for elsewhere in
            ["$", "$.sections[0].menu[20].keyword", "$.sections[1].redirect.to", "$.sections[0].menu[2].new"]
        {
            let errors = Errors::new(vec![Violation::new(elsewhere, "m")], path);
            assert_eq!(errors.rest(), [format!("{elsewhere}: m")]);
        }
    }
}
