//! The rules of a webhook. No message repeats a header's value, a secret or a URL: they are customers' secrets.

use std::ops::RangeInclusive;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::HeaderName;
use serde_json::{Map, Number, Value};
use url::Url;

use super::HttpUrls;
use super::ids;
use super::reader::{FirstPlaces, Node};
use crate::delivery::campaign::{RetryOverrides, Webhook};
use crate::delivery::identity::WebhookId;
use crate::delivery::request::STANDARD_PARAMETERS;

const MAX_ID_CHARS: usize = 128;
const MAX_URL_CHARS: usize = 2048;
const MAX_HEADERS: usize = 50;
const MAX_HEADER_NAME_BYTES: usize = 256;
const MAX_HEADER_VALUE_BYTES: usize = 8 * 1024;
/// The most values within each other in an extra parameter. A webhook is stored inside of other JSON, and what reads it
/// there stops at 128.
const MAX_BODY_DEPTH: usize = 32;
const SECRET_BYTES: RangeInclusive<usize> = 24..=64;
const DEFAULT_TIMEOUT_MS: u64 = 15_000;
const MAX_TIMEOUT_MS: u64 = 30_000;
/// One request in about a quarter of an hour. A rate has no use below it, and its inverse must stay a duration.
const MIN_RATE_PER_SECOND: f64 = 0.001;
const MAX_ATTEMPTS: u32 = 1000;
/// The longest duration of a retry policy: `1y`, as humantime counts a year.
const MAX_RETRY_DURATION: Duration = Duration::from_secs(31_557_600);

/// Headers that Waypost or the connection sets, besides those with a [reserved prefix](RESERVED_PREFIXES).
const RESERVED_HEADERS: [&str; 13] = [
    "connection",
    "content-length",
    "content-type",
    "expect",
    "host",
    "keep-alive",
    "te",
    "traceparent",
    "tracestate",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "user-agent",
];
const RESERVED_PREFIXES: [&str; 2] = ["proxy-", "webhook-"];

/// Reads a webhook. One without an id of its own has [none yet](ids::none_yet).
pub(super) fn read<'a>(node: &Node<'a>, http_urls: HttpUrls, first_ids: &mut FirstPlaces<&'a str>) -> Option<Webhook> {
    const FIELDS: [&str; 10] =
        ["id", "url", "enabled", "body", "headers", "secret", "timeoutMs", "maxConcurrency", "rateLimit", "retry"];
    let webhook = node.object("a webhook", &FIELDS)?;
    let id = webhook.get("id").and_then(|id| self::id(&id, first_ids));
    let url = webhook.require("url").and_then(|url| self::url(&url, http_urls));
    let enabled = webhook.get("enabled").map_or(Some(true), |enabled| enabled.boolean());
    let body = webhook.get("body").and_then(|body| self::body(&body));
    let headers = webhook.get("headers").and_then(|headers| self::headers(&headers));
    let secret = webhook.get("secret").and_then(|secret| self::secret(&secret));
    let timeout_ms =
        webhook.get("timeoutMs").map_or(Some(DEFAULT_TIMEOUT_MS), |timeout| timeout.whole_number(1..=MAX_TIMEOUT_MS));
    let max_concurrency = webhook.get("maxConcurrency").and_then(|most| most.whole_number(1..=u32::MAX));
    let rate_limit = webhook.get("rateLimit").and_then(|rate| rate_limit(&rate));
    let retry = webhook.get("retry").and_then(|retry| self::retry(&retry));
    Some(Webhook {
        id: id.unwrap_or_else(ids::none_yet),
        url: url?.to_owned(),
        enabled: enabled?,
        body: body.unwrap_or_default(),
        headers: headers.unwrap_or_default(),
        secret,
        timeout_ms: timeout_ms?,
        max_concurrency,
        rate_limit,
        retry: retry.unwrap_or_default(),
    })
}

fn id<'a>(node: &Node<'a>, first_ids: &mut FirstPlaces<&'a str>) -> Option<WebhookId> {
    let id = node.text_of(1..=MAX_ID_CHARS)?;
    // An id is a segment of the API's paths, where `.` and `..` mean something else.
    let is_segment = id.chars().all(|c| c.is_ascii_alphanumeric() || "_.-".contains(c)) && !id.starts_with('.');
    if !is_segment {
        return node.refuse("an id has letters, digits, `_`, `-` and `.`, the last not in front; or leave it out");
    }
    first_ids.refuse_second(id, node, |first| {
        format!("the same id as {first}: leave one out, and that webhook gets a new one")
    });
    Some(WebhookId::new(id))
}

/// `https://host/path`. The text is looked at as well as the parsed URL, because the parser mends what it can: it takes
/// `https:host`, backslashes and line breaks.
fn url<'a>(node: &Node<'a>, http_urls: HttpUrls) -> Option<&'a str> {
    let text = node.text_of(1..=MAX_URL_CHARS)?;
    let (scheme, rest) = text.split_once("://").unwrap_or(("", text));
    let authority = rest.split(['/', '\\', '?', '#']).next().unwrap_or_default();
    let is_http = scheme.eq_ignore_ascii_case("http");

    let mut wrong = Vec::new();
    if is_http && http_urls == HttpUrls::Refused {
        wrong.push("use https://host/path; plain http is allowed only where the setting egress.allowHttp is true");
    } else if !is_http && !scheme.eq_ignore_ascii_case("https") {
        wrong.push("must be like https://host/path");
    }
    if authority.is_empty() {
        wrong.push("the host is missing: write it like https://host/path");
    }
    if authority.contains('@') {
        wrong.push("credentials have no place in a URL: send them in a header instead");
    }
    if text.contains('#') {
        wrong.push("a fragment is never sent: remove `#` and what follows");
    }
    if text.contains(|c: char| c.is_whitespace() || c.is_control() || c == '\\') {
        wrong.push("spaces, line breaks and backslashes have no place in a URL: percent-encode or remove them");
    }
    wrong.iter().for_each(|sentence| node.fault(*sentence));
    if !wrong.is_empty() {
        return None;
    }
    match Url::parse(text) {
        Ok(url) if url.has_host() => Some(text),
        Ok(_) => node.refuse("the host is missing: write it like https://host/path"),
        Err(error) => node.refuse(format!("not a URL ({error}): write it like https://host/path")),
    }
}

fn body(node: &Node<'_>) -> Option<Map<String, Value>> {
    let body = node.names_to_values("extra parameters by name")?;
    for (name, parameter) in body.fields() {
        if STANDARD_PARAMETERS.contains(&name) {
            parameter.fault("every request has this parameter already: choose another name");
        }
        if depth(parameter.value()) > MAX_BODY_DEPTH {
            parameter.fault(format!("more than {MAX_BODY_DEPTH} arrays and objects within each other: flatten it"));
        }
    }
    node.value().as_object().cloned()
}

/// How many arrays and objects are within each other. The parser has limited it to what recursion can take.
fn depth(value: &Value) -> usize {
    match value {
        Value::Array(items) => 1 + items.iter().map(depth).max().unwrap_or(0),
        Value::Object(fields) => 1 + fields.values().map(depth).max().unwrap_or(0),
        _ => 0,
    }
}

fn headers(node: &Node<'_>) -> Option<Map<String, Value>> {
    let headers = node.names_to_values("header values by name")?;
    let mut first_names = FirstPlaces::default();
    let mut count = 0;
    for (name, value) in headers.fields() {
        header_name(name, &value, &mut first_names);
        header_value(&value);
        count += 1;
    }
    if count > MAX_HEADERS {
        node.fault(format!("{count} headers: a webhook has at most {MAX_HEADERS}"));
    }
    node.value().as_object().cloned()
}

fn header_name(name: &str, node: &Node<'_>, first_names: &mut FirstPlaces<String>) {
    if name.len() > MAX_HEADER_NAME_BYTES {
        return node.fault(format!("the name is too long: at most {MAX_HEADER_NAME_BYTES} characters"));
    }
    let Ok(parsed) = HeaderName::from_bytes(name.as_bytes()) else {
        return node.fault("HTTP does not allow this header name: use letters, digits and `-`");
    };
    let name = parsed.as_str();
    if RESERVED_HEADERS.contains(&name) || RESERVED_PREFIXES.iter().any(|prefix| name.starts_with(prefix)) {
        node.fault("this header is reserved, Waypost or the connection sets it: remove it");
    }
    first_names.refuse_second(name.to_owned(), node, |first| {
        format!("the same header as {first}, upper and lower case are one: remove one")
    });
}

fn header_value(node: &Node<'_>) {
    let Some(value) = node.text() else { return };
    if value.len() > MAX_HEADER_VALUE_BYTES {
        node.fault(format!("the value is too long: at most {MAX_HEADER_VALUE_BYTES} bytes"));
    }
    // HTTP allows bytes beyond ASCII, but they mean something else to each receiver.
    if !value.bytes().all(|byte| matches!(byte, b'\t' | b' '..=b'~')) {
        node.fault("not a header value: use visible ASCII characters, spaces and tabs");
    }
    if value.trim_matches([' ', '\t']) != value {
        node.fault("HTTP cuts space around a header value: remove it in front and at the end");
    }
}

fn secret(node: &Node<'_>) -> Option<String> {
    let secret = node.text()?;
    let key = secret.strip_prefix("whsec_").and_then(|encoded| STANDARD.decode(encoded).ok());
    if key.is_some_and(|key| SECRET_BYTES.contains(&key.len())) {
        return Some(secret.to_owned());
    }
    let (least, most) = (SECRET_BYTES.start(), SECRET_BYTES.end());
    node.refuse(format!("a secret is `whsec_` and the base64 of {least} to {most} random bytes"))
}

fn rate_limit(node: &Node<'_>) -> Option<Number> {
    node.number("of requests a second, 0.001 or more", |rate| rate >= MIN_RATE_PER_SECOND)?;
    // As it was written: the float may be another number.
    node.value().as_number().cloned()
}

fn retry(node: &Node<'_>) -> Option<RetryOverrides> {
    const FIELDS: [&str; 7] =
        ["initialDelay", "multiplier", "maxDelay", "jitter", "maxAttempts", "maxAge", "permanentStatuses"];
    const DELAYS: RangeInclusive<Duration> = Duration::from_millis(1)..=MAX_RETRY_DURATION;
    let retry = node.object("a retry policy", &FIELDS)?;
    let at_least_one = |number| number >= 1.0;
    let share = |number| (0.0..=1.0).contains(&number);
    Some(RetryOverrides {
        initial_delay: retry.get("initialDelay").and_then(|delay| delay.duration(DELAYS)),
        multiplier: retry.get("multiplier").and_then(|number| number.number("of 1 or more", at_least_one)),
        max_delay: retry.get("maxDelay").and_then(|delay| delay.duration(DELAYS)),
        jitter: retry.get("jitter").and_then(|number| number.number("from 0 to 1", share)),
        max_attempts: retry.get("maxAttempts").and_then(|most| most.whole_number(1..=MAX_ATTEMPTS)),
        max_age: retry.get("maxAge").and_then(|age| age.duration(Duration::ZERO..=MAX_RETRY_DURATION)),
        permanent_statuses: retry
            .get("permanentStatuses")
            .and_then(|statuses| Some(statuses.items()?.filter_map(|status| status.whole_number(100..=599)).collect())),
    })
}

#[cfg(test)]
mod tests {
    use super::super::tests::{assert_refused, refused};
    use super::*;
    use crate::delivery::campaign::Campaign;
    use crate::delivery::fault::Fault;

    /// A document of one webhook.
    fn document(webhook: &str) -> String {
        format!(r#"{{"id": "1", "sections": [{{"label": "a", "webhook": {webhook}}}]}}"#)
    }

    fn read(webhook: &str, http_urls: HttpUrls) -> Result<Campaign, Vec<Fault>> {
        super::super::read(document(webhook).as_bytes(), http_urls, None)
    }

    /// Webhooks with `fields` beside the URL, and the one fault of each: its path under the webhook, words of the message.
    fn assert_each_refused(rows: &[(&str, &str, &str)]) {
        for (fields, path, words) in rows {
            let text = document(&format!(r#"{{"url": "https://example.com/hook", {fields}}}"#));
            assert_refused(&text, &[(&format!("$.sections[0].webhook{path}"), words)]);
        }
    }

    fn assert_each_accepted(rows: &[&str]) {
        for fields in rows {
            let result = read(&format!(r#"{{"url": "https://example.com/hook", {fields}}}"#), HttpUrls::Refused);
            assert!(result.is_ok(), "{fields}: {result:?}");
        }
    }

    #[test]
    fn urls() {
        let long = format!("https://example.com/{}", "x".repeat(2049 - "https://example.com/".len()));
        for (url, words) in [
            ("http://example.com/hook", "use https://host/path; plain http is allowed only where"),
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
            ("", "1 to 2048 characters"),
            (&long, "1 to 2048 characters"),
        ] {
            let faults = refused(&document(&format!(r#"{{"url": "{url}"}}"#)));
            assert!(faults.iter().all(|(path, _)| path == "$.sections[0].webhook.url"), "{url}: {faults:?}");
            assert!(faults.iter().any(|(_, message)| message.contains(words)), "{url}: {faults:?}");
            assert!(!faults.iter().any(|(_, message)| message.contains("key")), "{faults:?}");
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
            assert_eq!(campaign.places().next().expect("a webhook").webhook.url, url, "as it was written");
        }
        assert!(read(r#"{"url": "http://example.com/"}"#, HttpUrls::Allowed).is_ok());
        assert!(read(r#"{"url": "https://example.com/"}"#, HttpUrls::Allowed).is_ok());
        assert!(read(r#"{"url": "ftp://example.com/"}"#, HttpUrls::Allowed).is_err());
    }

    #[test]
    fn fields() {
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
            (r#""id": "a/b""#, ".id", "an id has letters, digits"),
            (r#""id": "é""#, ".id", "an id has letters, digits"),
            (r#""id": "..""#, ".id", "an id has letters, digits"),
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
    fn bodies() {
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
        assert_each_refused(&[(&nested(MAX_BODY_DEPTH + 1), ".body.x", "more than 32 arrays and objects")]);
        assert_each_accepted(&[
            r#""body": {}"#,
            r#""body": {"source": "chatbot", "Label": null, "nested": {"label": [1, {"date": true}]}, "": 1}"#,
            &nested(MAX_BODY_DEPTH),
        ]);
    }

    #[test]
    fn headers() {
        assert_each_refused(&[
            (r#""headers": ["X-Api-Key: k"]"#, ".headers", "found an array"),
            (r#""headers": {"X_Key": 1}"#, ".headers.X_Key", "expected a string, found a number"),
            (r#""headers": {"X_Key": null}"#, ".headers.X_Key", "expected a string, found null"),
            (r#""headers": {"": "v"}"#, r#".headers[""]"#, "does not allow this header name"),
            (r#""headers": {"X Key": "v"}"#, r#".headers["X Key"]"#, "does not allow this header name"),
            (r#""headers": {"X-Key:": "v"}"#, r#".headers["X-Key:"]"#, "does not allow this header name"),
            (r#""headers": {"Größe": "v"}"#, r#".headers["Größe"]"#, "does not allow this header name"),
            (r#""headers": {"a": "v\r\nEvil: 1"}"#, ".headers.a", "not a header value"),
            (r#""headers": {"a": "\u0000"}"#, ".headers.a", "not a header value"),
            (r#""headers": {"a": "größe"}"#, ".headers.a", "not a header value"),
            (r#""headers": {"a": " v"}"#, ".headers.a", "space around a header value"),
            (r#""headers": {"a": "v\t"}"#, ".headers.a", "space around a header value"),
            (
                r#""headers": {"xa": "1", "XA": "2"}"#,
                ".headers.XA",
                "the same header as $.sections[0].webhook.headers.xa",
            ),
            (r#""headers": {"xa": "1", "xa": "2"}"#, ".headers.xa", "given twice"),
        ]);
        for name in RESERVED_HEADERS.into_iter().chain(["proxy-authorization", "webhook-id", "webhook-x"]) {
            for name in [name.to_owned(), name.to_uppercase()] {
                let faults = refused(&document(&format!(r#"{{"url": "https://e.x/", "headers": {{"{name}": "v"}}}}"#)));
                assert_eq!(faults.len(), 1, "{name}");
                assert!(faults[0].1.contains("reserved"), "{name}: {faults:?}");
            }
        }
        let many = |count| {
            let headers: Vec<_> = (0..count).map(|i| format!(r#""x{i}": "v""#)).collect();
            format!(r#""headers": {{{}}}"#, headers.join(", "))
        };
        let long_name = |length| format!(r#""headers": {{"{}": "v"}}"#, "x".repeat(length));
        let long_value = |length| format!(r#""headers": {{"x": "{}"}}"#, "v".repeat(length));
        let shown = format!(".headers[\"{}…\"]", "x".repeat(80));
        assert_each_refused(&[
            (&many(51), ".headers", "51 headers: a webhook has at most 50"),
            (&long_name(257), &shown, "at most 256"),
            (&long_value(8193), ".headers.x", "at most 8192 bytes"),
        ]);
        assert_each_accepted(&[
            r#""headers": {}"#,
            r#""headers": {"Authorization": "Bearer a b\tc", "X-Api_Key!": "", "Content-Language": "pt"}"#,
            &many(50),
            &long_name(256),
            &long_value(8192),
        ]);
    }

    #[test]
    fn secrets() {
        let of_bytes = |count: usize| format!(r#""secret": "whsec_{}""#, STANDARD.encode(vec![7; count]));
        let words = "a secret is `whsec_` and the base64 of 24 to 64 random bytes";
        assert_each_refused(&[
            (&of_bytes(23), ".secret", words),
            (&of_bytes(65), ".secret", words),
            (r#""secret": "MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw""#, ".secret", words),
            (r#""secret": "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2La-aSw""#, ".secret", words),
            (r#""secret": "whsec_""#, ".secret", words),
            (r#""secret": 7"#, ".secret", "expected a string"),
        ]);
        assert_each_accepted(&[
            &of_bytes(24),
            &of_bytes(32),
            &of_bytes(64),
            r#""secret": "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw""#,
        ]);
    }

    #[test]
    fn retries() {
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

    /// What a refused document says is shown, logged and kept: secrets are not.
    #[test]
    fn no_message_repeats_a_secret() {
        let text = document(
            r#"{"url": "http://u:hush@e.x/?token=hush#hush", "secret": "whsec_hush", "body": {"date": "hush"},
                "headers": {"a": " hush\n", "host": "hush", "b": ["hush"], "x y": "hush"}}"#,
        );
        let faults = refused(&text);
        assert!(faults.len() >= 8, "{faults:#?}");
        assert!(!faults.iter().any(|(path, message)| path.contains("hush") || message.contains("hush")), "{faults:#?}");
    }
}
