//! The faults of a document beside the fields of the form they concern.

use serde_json::Value;

use crate::delivery::violation::Violation;

/// What is wrong, by field.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Errors {
    by_field: Vec<(String, String)>,
    rest: Vec<String>,
}

impl Errors {
    /// The faults of a document whose part at `path` the form has.
    pub(super) fn new(faults: Vec<Violation>, path: &str) -> Self {
        let mut errors = Self::default();
        for fault in faults {
            let field = fault.path.strip_prefix(path).and_then(|rest| field_of(rest, &fault.message));
            match field {
                Some(field) => errors.by_field.push(field),
                None => errors.rest.push(fault.to_string()),
            }
        }
        errors
    }

    /// The faults of a form whose fields have the names that end their paths.
    pub(super) fn of_fields(faults: Vec<Violation>, fields: &[&str]) -> Self {
        let mut errors = Self::default();
        for fault in faults {
            let name = fault.path.rsplit('.').next().filter(|name| fields.contains(name)).map(str::to_owned);
            match name {
                Some(name) => errors.by_field.push((name, fault.message)),
                None => errors.rest.push(fault.message),
            }
        }
        errors
    }

    pub(super) fn one(field: &str, message: &str) -> Self {
        Self { by_field: vec![(field.to_owned(), message.to_owned())], rest: Vec::new() }
    }

    /// What concerns no field.
    pub(super) fn rest_of(message: String) -> Self {
        Self { by_field: Vec::new(), rest: vec![message] }
    }

    /// Those of one field.
    pub(super) fn of_field(&self, field: &str) -> Vec<&str> {
        self.by_field.iter().filter(|(name, _)| name == field).map(|(_, message)| message.as_str()).collect()
    }

    /// Those that concern no field of the form.
    pub(super) fn rest(&self) -> &[String] {
        &self.rest
    }

    /// How much is wrong.
    pub(super) fn count(&self) -> usize {
        self.by_field.len() + self.rest.len()
    }

    /// Whether nothing is wrong.
    pub(super) fn is_empty(&self) -> bool {
        self.by_field.is_empty() && self.rest.is_empty()
    }
}

/// The field that shows the node at a path, and what to say there.
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
            let part = |field: &str| path.strip_prefix(&format!(".webhook.{field}"));
            let of_body = part("body").map(|part| part_of("body", part, message));
            let of_retry = || part("retry").map(|part| part_of("retry", part, message));
            of_body.or_else(of_retry).or_else(|| header_of(part("headers")?, message))
        }
    }
}

/// A part of a field that is JSON: the field says which.
fn part_of(field: &str, part: &str, message: &str) -> (String, String) {
    let part = part.trim_start_matches('.');
    let said = if part.is_empty() { message.to_owned() } else { format!("{part}: {message}") };
    (field.to_owned(), said)
}

/// `.name` or `["a-name"]`: the row of a header.
fn header_of(path: &str, message: &str) -> Option<(String, String)> {
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
    fn each_fault_is_beside_its_field() {
        let path = "$.sections[0].menu[2]";
        for (fault, field, message) in [
            (".webhook.url", "url", "m"),
            (".redirect.to", "redirect-to", "m"),
            (".webhook.body", "body", "m"),
            (".webhook.body.campaignId", "body", "campaignId: m"),
            (".webhook.retry.maxAttempts", "retry", "maxAttempts: m"),
            (".webhook.headers[\"X-Api-Key\"]", "header X-Api-Key", "m"),
            (".webhook.headers.host", "header host", "m"),
        ] {
            let errors = Errors::new(vec![Violation::new(format!("{path}{fault}"), "m")], path);
            assert_eq!(errors.of_field(field), [message], "{fault}: {errors:?}");
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
