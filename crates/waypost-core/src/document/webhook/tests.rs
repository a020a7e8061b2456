//! Tests of the rules for webhooks, field by field.

use super::*;
use crate::campaign::Campaign;
use crate::document::tests::{assert_refused, violations_of};
use crate::violation::Violation;

/// A document of one webhook.
fn document(webhook: &str) -> String {
    format!(r#"{{"id": "1", "sections": [{{"label": "a", "webhook": {webhook}}}]}}"#)
}

fn read(webhook: &str, http_urls: HttpUrls) -> Result<Campaign, Vec<Violation>> {
    crate::document::read(document(webhook).as_bytes(), http_urls, None)
}

/// Each row has fields next to the URL, and their only violation: the path below the webhook and a part of the message.
fn assert_each_refused(rows: &[(&str, &str, &str)]) {
    for (fields, path, message_part) in rows {
        let text = document(&format!(r#"{{"url": "https://example.com/hook", {fields}}}"#));
        assert_refused(&text, &[(&format!("$.sections[0].webhook{path}"), message_part)]);
    }
}

fn assert_each_accepted(rows: &[&str]) {
    for fields in rows {
        let result = read(&format!(r#"{{"url": "https://example.com/hook", {fields}}}"#), HttpUrls::Refused);
        assert!(result.is_ok(), "{fields}: {result:?}");
    }
}

#[test]
fn urls_are_validated() {
    let long = format!("https://example.com/{}", "x".repeat(2049 - "https://example.com/".len()));
    for (url, message_part) in [
        ("http://example.com/hook", "use https://host/path; plain http is allowed only if"),
        ("HTTP://example.com/hook", "egress.allowHttp"),
        ("ftp://example.com/hook", "must be like https://host/path"),
        ("example.com/hook", "must be like https://host/path"),
        ("/hook", "must be like"),
        ("https:example.com/hook", "must be like"),
        ("https:/example.com/hook", "must be like"),
        ("https://", "the host is missing"),
        ("https:///hook", "the host is missing"),
        ("https://?x", "the host is missing"),
        ("https://:443/hook", "not a URL"),
        ("https://user@example.com/", "credentials"),
        ("https://user:key@example.com/", "credentials"),
        ("https://@example.com/", "credentials"),
        ("https://example.com/#top", "fragment"),
        ("https://example.com/#", "fragment"),
        (" https://example.com/", "must be like"),
        ("https://example.com/ ", "spaces"),
        ("https://exam\\nple.com/", "line breaks"),
        ("https://example.com\\\\hook", "backslashes"),
        ("https://example.com:99999/", "not a URL (invalid port number)"),
        ("https://exa[mple.com/", "not a URL"),
        ("https://exa{mple.com/", "HTTP can't request this URL"),
        ("", "1 to 2048 characters"),
        (&long, "1 to 2048 characters"),
    ] {
        let violations = violations_of(&document(&format!(r#"{{"url": "{url}"}}"#)));
        assert!(violations.iter().all(|(path, _)| path == "$.sections[0].webhook.url"), "{url}: {violations:?}");
        assert!(violations.iter().any(|(_, message)| message.contains(message_part)), "{url}: {violations:?}");
        assert!(!violations.iter().any(|(_, message)| message.contains("key")), "{violations:?}");
    }
    assert_refused(&document("{}"), &[("$.sections[0].webhook.url", "missing; it is required")]);
    assert_refused(&document(r#"{"url": 1}"#), &[("$.sections[0].webhook.url", "expected a string")]);
    for url in [
        "https://example.com",
        "https://example.com/",
        "HTTPS://Example.com:8443/a/b?c=d&e=%20@",
        "https://münchen.example/straße",
        "https://[2001:db8::1]/hook",
        "https://192.0.2.1/hook",
        &long[..2048],
    ] {
        let campaign = read(&format!(r#"{{"url": "{url}"}}"#), HttpUrls::Refused).expect(url);
        assert_eq!(campaign.places().next().expect("a webhook").webhook.url.as_str(), url, "as it was written");
    }
    assert!(read(r#"{"url": "http://example.com/"}"#, HttpUrls::Allowed).is_ok());
    assert!(read(r#"{"url": "https://example.com/"}"#, HttpUrls::Allowed).is_ok());
    assert!(read(r#"{"url": "ftp://example.com/"}"#, HttpUrls::Allowed).is_err());
}

#[test]
fn fields_are_validated() {
    assert_each_refused(&[
        (r#""header": {}"#, ".header", "unknown field `header`: did you mean `headers`?"),
        (r#""timeout": 5"#, ".timeout", "did you mean `timeoutMs`?"),
        (r#""max_concurrency": 5"#, ".max_concurrency", "did you mean `maxConcurrency`?"),
        (r#""method": "PUT""#, ".method", "a webhook has `id`, `url`,"),
        (r#""enabled": "yes""#, ".enabled", "expected true or false, found a string"),
        (r#""timeoutMs": 0"#, ".timeoutMs", "must be a whole number from 1 to 30000"),
        (r#""timeoutMs": 30001"#, ".timeoutMs", "must be a whole number from 1 to 30000"),
        (r#""timeoutMs": 1.5"#, ".timeoutMs", "must be a whole number"),
        (r#""timeoutMs": -1"#, ".timeoutMs", "must be a whole number"),
        (r#""timeoutMs": "5s""#, ".timeoutMs", "expected a whole number, found a string"),
        (r#""maxConcurrency": 0"#, ".maxConcurrency", "must be a whole number from 1"),
        (r#""maxConcurrency": 4294967296"#, ".maxConcurrency", "to 4294967295"),
        (r#""rateLimit": 0"#, ".rateLimit", "requests a second"),
        (r#""rateLimit": -1"#, ".rateLimit", "requests a second"),
        (r#""rateLimit": 1e-400"#, ".rateLimit", "0.001 or more"),
        (r#""rateLimit": 1e400"#, ".rateLimit", "must be a number"),
        (r#""rateLimit": "10/s""#, ".rateLimit", "expected a number, found a string"),
        (r#""id": """#, ".id", "1 to 128 characters"),
        (r#""id": 5"#, ".id", "expected a string"),
        (r#""id": "a/b""#, ".id", "an id may have letters, digits"),
        (r#""id": "é""#, ".id", "an id may have letters, digits"),
        (r#""id": "..""#, ".id", "an id may have letters, digits"),
    ]);
    assert_each_accepted(&[
        r#""enabled": false"#,
        r#""timeoutMs": 1, "maxConcurrency": 1, "rateLimit": 0.5, "id": "A-b_c.9""#,
        r#""timeoutMs": 30000, "maxConcurrency": 4294967295, "rateLimit": 100000"#,
        r#""id": null, "enabled": null, "body": null, "headers": null, "secret": null, "timeoutMs": null,
           "maxConcurrency": null, "rateLimit": null, "retry": null"#,
    ]);
    let ids = r#"{"id": "1", "sections": [{"label": "a", "webhook": {"id": "x", "url": "https://e.x/"}},
        {"label": "b", "menu": [{"keyword": 1, "webhook": {"id": "x", "url": "https://e.x/"}}]}]}"#;
    assert_refused(ids, &[("$.sections[1].menu[0].webhook.id", "the same id as $.sections[0].webhook.id")]);
}

#[test]
fn bodies_are_validated() {
    assert_each_refused(&[
        (r#""body": []"#, ".body", "expected extra parameters by name (an object), found an array"),
        (r#""body": "a=b""#, ".body", "found a string"),
        (r#""body": {"a": 1, "a": 2}"#, ".body.a", "given twice"),
        (r#""body": {"b": [{"a": 1, "a": 2}]}"#, ".body.b[0].a", "given twice"),
    ]);
    for name in STANDARD_PARAMETERS {
        let path = format!(".body.{name}");
        assert_each_refused(&[(&format!(r#""body": {{"{name}": 1}}"#), &path, "choose another name")]);
    }
    let nested = |depth| format!(r#""body": {{"x": {}{}}}"#, "[".repeat(depth), "]".repeat(depth));
    assert_each_refused(&[(&nested(MAX_BODY_DEPTH + 1), ".body.x", "nested more than 32 levels deep")]);
    assert_each_accepted(&[
        r#""body": {}"#,
        r#""body": {"source": "chatbot", "Label": null, "nested": {"label": [1, {"date": true}]}, "": 1}"#,
        &nested(MAX_BODY_DEPTH),
    ]);
}

#[test]
fn headers_are_validated() {
    assert_each_refused(&[
        (r#""headers": ["X-Api-Key: k"]"#, ".headers", "found an array"),
        (r#""headers": {"X_Key": 1}"#, ".headers.X_Key", "expected a string, found a number"),
        (r#""headers": {"X_Key": null}"#, ".headers.X_Key", "expected a string, found null"),
        (r#""headers": {"": "v"}"#, r#".headers[""]"#, "does not allow this header name"),
        (r#""headers": {"X Key": "v"}"#, r#".headers["X Key"]"#, "does not allow this header name"),
        (r#""headers": {"X-Key:": "v"}"#, r#".headers["X-Key:"]"#, "does not allow this header name"),
        (r#""headers": {"Größe": "v"}"#, r#".headers["Größe"]"#, "does not allow this header name"),
        (r#""headers": {"a": "v\r\nEvil: 1"}"#, ".headers.a", "HTTP does not allow this header value"),
        (r#""headers": {"a": "\u0000"}"#, ".headers.a", "HTTP does not allow this header value"),
        (r#""headers": {"a": "********"}"#, ".headers.a", "this is the mask"),
        (r#""headers": {"a": " v"}"#, ".headers.a", "space around a header value"),
        (r#""headers": {"a": "v\t"}"#, ".headers.a", "space around a header value"),
        (r#""headers": {"xa": "1", "XA": "2"}"#, ".headers.XA", "duplicate of $.sections[0].webhook.headers.xa"),
        (r#""headers": {"xa": "1", "xa": "2"}"#, ".headers.xa", "given twice"),
    ]);
    for name in RESERVED_HEADERS.into_iter().chain(["proxy-authorization", "webhook-id", "webhook-x"]) {
        for name in [name.to_owned(), name.to_uppercase()] {
            let violations =
                violations_of(&document(&format!(r#"{{"url": "https://e.x/", "headers": {{"{name}": "v"}}}}"#)));
            assert_eq!(violations.len(), 1, "{name}");
            assert!(violations[0].1.contains("reserved"), "{name}: {violations:?}");
        }
    }
    let headers_with_count = |count| {
        let headers: Vec<_> = (0..count).map(|i| format!(r#""x{i}": "v""#)).collect();
        format!(r#""headers": {{{}}}"#, headers.join(", "))
    };
    let long_name = |length| format!(r#""headers": {{"{}": "v"}}"#, "x".repeat(length));
    let long_value = |length| format!(r#""headers": {{"x": "{}"}}"#, "v".repeat(length));
    let path = format!(".headers[\"{}…\"]", "x".repeat(80));
    assert_each_refused(&[
        (&headers_with_count(51), ".headers", "51 headers: a webhook has at most 50"),
        (&long_name(257), &path, "at most 256"),
        (&long_value(8193), ".headers.x", "at most 8192 bytes"),
    ]);
    assert_each_accepted(&[
        r#""headers": {}"#,
        r#""headers": {"Authorization": "Bearer a b\tc", "X-Api_Key!": "", "Content-Language": "pt"}"#,
        &headers_with_count(50),
        &long_name(256),
        &long_value(8192),
    ]);
}

#[test]
fn secrets_are_validated() {
    let secret_of = |count: usize| format!(r#""secret": "whsec_{}""#, STANDARD.encode(vec![7; count]));
    let message_part = "a secret is `whsec_` and the base64 of 24 to 64 random bytes";
    assert_each_refused(&[
        (&secret_of(23), ".secret", message_part),
        (&secret_of(65), ".secret", message_part),
        (r#""secret": "MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw""#, ".secret", message_part),
        (r#""secret": "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2La-aSw""#, ".secret", message_part),
        (r#""secret": "whsec_""#, ".secret", message_part),
        (r#""secret": 7"#, ".secret", "expected a string"),
    ]);
    assert_each_accepted(&[
        &secret_of(24),
        &secret_of(32),
        &secret_of(64),
        r#""secret": "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw""#,
    ]);
}

#[test]
fn retry_policies_are_validated() {
    assert_each_refused(&[
        (r#""retry": 3"#, ".retry", "expected a retry policy (an object)"),
        (r#""retry": {"attempts": 3}"#, ".retry.attempts", "a retry policy has `initialDelay`"),
        (r#""retry": {"maxAttempt": 3}"#, ".retry.maxAttempt", "did you mean `maxAttempts`?"),
        (r#""retry": {"initialDelay": 5}"#, ".retry.initialDelay", "expected a string"),
        (r#""retry": {"initialDelay": "5"}"#, ".retry.initialDelay", "write a number and a unit"),
        (r#""retry": {"initialDelay": "0s"}"#, ".retry.initialDelay", "from 1ms to 1year"),
        (r#""retry": {"maxDelay": "0s"}"#, ".retry.maxDelay", "from 1ms to 1year"),
        (r#""retry": {"maxAge": "2y"}"#, ".retry.maxAge", "from 0s to 1year"),
        (r#""retry": {"multiplier": 0.9}"#, ".retry.multiplier", "of 1 or more"),
        (r#""retry": {"multiplier": "3"}"#, ".retry.multiplier", "expected a number"),
        (r#""retry": {"jitter": -0.1}"#, ".retry.jitter", "from 0 to 1"),
        (r#""retry": {"jitter": 1.1}"#, ".retry.jitter", "from 0 to 1"),
        (r#""retry": {"maxAttempts": 0}"#, ".retry.maxAttempts", "from 1 to 1000"),
        (r#""retry": {"maxAttempts": 1001}"#, ".retry.maxAttempts", "from 1 to 1000"),
        (r#""retry": {"permanentStatuses": 410}"#, ".retry.permanentStatuses", "expected an array"),
        (r#""retry": {"permanentStatuses": [410, 99]}"#, ".retry.permanentStatuses[1]", "from 100 to 599"),
        (r#""retry": {"permanentStatuses": [600]}"#, ".retry.permanentStatuses[0]", "from 100 to 599"),
        (r#""retry": {"permanentStatuses": ["4xx"]}"#, ".retry.permanentStatuses[0]", "expected a whole number"),
    ]);
    assert_each_accepted(&[
        r#""retry": {}"#,
        r#""retry": {"initialDelay": "250ms", "multiplier": 1, "maxDelay": "6h", "jitter": 0, "maxAttempts": 1,
                     "maxAge": "2d", "permanentStatuses": []}"#,
        r#""retry": {"jitter": 1, "maxAge": "0s", "maxDelay": "1y", "maxAttempts": 1000, "permanentStatuses": [100, 599]}"#,
    ]);
}

/// Messages are shown, logged and stored.
#[test]
fn no_message_repeats_a_secret() {
    let text = document(
        r#"{"url": "http://u:hush@e.x/?token=hush#hush", "secret": "whsec_hush", "body": {"date": "hush"},
            "headers": {"a": " hush\n", "host": "hush", "b": ["hush"], "x y": "hush"}}"#,
    );
    let violations = violations_of(&text);
    assert!(violations.len() >= 8, "{violations:#?}");
    assert!(
        !violations.iter().any(|(path, message)| path.contains("hush") || message.contains("hush")),
        "{violations:#?}"
    );
}
