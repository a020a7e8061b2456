//! Formats an HTTP request for people.

use std::fmt::Write as _;

use waypost_core::request::RequestPreview;

use crate::cli::sanitize;

/// Request line, headers, an empty line, body; each line after `indent`.
pub(super) fn render(RequestPreview { method, url, headers, body }: &RequestPreview, indent: &str) -> String {
    let [method, url] = [method, url].map(|text| sanitize::text(&**text, usize::MAX));
    let mut text = format!("{indent}{method} {url}\n");
    for (name, value) in headers {
        let (name, value) = (sanitize::line(name, usize::MAX), sanitize::text(value.as_str(), usize::MAX));
        // Writing to a string can't fail.
        let _ = writeln!(text, "{indent}{name}: {value}");
    }
    text.push('\n');
    for line in sanitize::lines(body).lines() {
        let _ = writeln!(text, "{indent}{line}");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_is_shown_as_sent() {
        let request = RequestPreview {
            method: "POST".to_owned(),
            url: "https://example.com/hook".to_owned(),
            headers: ["content-type", "x-api-key"]
                .into_iter()
                .zip(["application/json", "********"])
                .map(|(name, value)| (name.to_owned(), value.into()))
                .collect(),
            body: "{\"a\":\"\u{9b}\"}".to_owned(),
        };
        assert_eq!(
            render(&request, "  "),
            "  POST https://example.com/hook\n  content-type: application/json\n  x-api-key: ********\n\n  {\"a\":\"·\"}\n"
        );
    }
}
