//! Formats an HTTP request for people.

use std::fmt::Write as _;

use serde_json::Value;

use crate::cli::sanitize;

/// Request line, headers, an empty line, body; each line after `indent`.
pub(super) fn render(request: &Value, indent: &str) -> String {
    let field = |name: &str| sanitize::field(&request[name], usize::MAX);
    let mut text = format!("{indent}{} {}\n", field("method"), field("url"));
    for (name, value) in request["headers"].as_object().into_iter().flatten() {
        // Writing to a string can't fail.
        let _ = writeln!(text, "{indent}{}: {}", sanitize::line(name, usize::MAX), sanitize::field(value, usize::MAX));
    }
    let body = match &request["body"] {
        Value::Null => return text,
        Value::String(body) => body.clone(),
        other => other.to_string(),
    };
    text.push('\n');
    for line in sanitize::lines(&body).lines() {
        let _ = writeln!(text, "{indent}{line}");
    }
    text
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_request_is_shown_as_sent() {
        let headers = json!({ "content-type": "application/json", "x-api-key": "********" });
        let request = json!({ "method": "POST", "url": "https://example.com/hook", "headers": headers, "body": "{\"a\":\"\u{9b}\"}" });
        assert_eq!(
            render(&request, "  "),
            "  POST https://example.com/hook\n  content-type: application/json\n  x-api-key: ********\n\n  {\"a\":\"·\"}\n"
        );
        let other = json!({ "method": "POST", "url": "https://example.com/hook", "body": { "a": 1 } });
        assert_eq!(render(&other, ""), "POST https://example.com/hook\n\n{\"a\":1}\n");
    }
}
