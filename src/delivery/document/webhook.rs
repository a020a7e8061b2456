//! The rules of a webhook. No message repeats a header's value, a secret or a URL: they are customers' secrets.

use std::ops::RangeInclusive;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::{HeaderName, HeaderValue, Uri};
use serde_json::{Map, Number, Value};
use url::Url;

use super::assign_ids;
use super::json_cursor::{FirstPlaces, Node};
use super::{HttpUrls, UrlPolicy};
use crate::delivery::campaign::PreviousSecret;
use crate::delivery::campaign::{ExtraParameters, MASK, RetryOverrides, Webhook};
use crate::delivery::ids::WebhookId;
use crate::delivery::request::STANDARD_PARAMETERS;
use crate::delivery::secret_encryption::is_sealed;
use crate::delivery::signing::MOST_PREVIOUS;

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

/// Reads a webhook. One without an id of its own has [none yet](assign_ids::none_yet).
pub(super) fn read<'a>(node: &Node<'a>, urls: UrlPolicy<'_>, first_ids: &mut FirstPlaces<&'a str>) -> Option<Webhook> {
    const FIELDS: [&str; 11] = [
        "id",
        "url",
        "enabled",
        "body",
        "headers",
        "secret",
        "previousSecrets",
        "timeoutMs",
        "maxConcurrency",
        "rateLimit",
        "retry",
    ];
    let webhook = node.object("a webhook", &FIELDS)?;
    let id = webhook.get("id").and_then(|id| self::id(&id, first_ids));
    let url = webhook.require("url").and_then(|url| self::url(&url, urls));
    let enabled = webhook.get("enabled").map_or(Some(true), |enabled| enabled.boolean());
    let body = webhook.get("body").and_then(|body| self::body(&body));
    let headers = webhook.get("headers").and_then(|headers| self::headers(&headers));
    let secret = webhook.get("secret").and_then(|secret| self::secret(&secret));
    let previous_secrets = webhook.get("previousSecrets").and_then(|previous| previous_secrets(&previous));
    if let Some(previous) = webhook.get("previousSecrets")
        && webhook.get("secret").is_none()
    {
        previous.fault("previous secrets sign beside a present one only: give `secret` as well, or remove them");
    }
    let timeout_ms =
        webhook.get("timeoutMs").map_or(Some(DEFAULT_TIMEOUT_MS), |timeout| timeout.whole_number(1..=MAX_TIMEOUT_MS));
    let max_concurrency = webhook.get("maxConcurrency").and_then(|most| most.whole_number(1..=u32::MAX));
    let rate_limit = webhook.get("rateLimit").and_then(|rate| rate_limit(&rate));
    let retry = webhook.get("retry").and_then(|retry| self::retry(&retry));
    Some(Webhook {
        id: id.unwrap_or_else(assign_ids::none_yet),
        url: url?.to_owned().into(),
        enabled: enabled?,
        body: body.unwrap_or_default(),
        headers: headers.unwrap_or_default(),
        secret,
        previous_secrets: previous_secrets.unwrap_or_default(),
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
fn url<'a>(node: &Node<'a>, urls: UrlPolicy<'_>) -> Option<&'a str> {
    let text = node.text_of(1..=MAX_URL_CHARS)?;
    let (scheme, rest) = text.split_once("://").unwrap_or(("", text));
    let authority = rest.split(['/', '\\', '?', '#']).next().unwrap_or_default();
    let is_http = scheme.eq_ignore_ascii_case("http");

    let mut wrong = Vec::new();
    if is_http && urls.http_urls() == HttpUrls::Refused {
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
        // What is sent is an HTTP request's URI, and its grammar is the narrower one.
        Ok(url) if Uri::try_from(url.as_str()).is_ok() => match urls.refuse(&url) {
            Some(forbidden) => node.refuse(forbidden),
            None => Some(text),
        },
        Ok(_) => node.refuse("HTTP can't request this URL: percent-encode its unusual characters"),
        Err(error) => node.refuse(format!("not a URL ({error}): write it like https://host/path")),
    }
}

fn body(node: &Node<'_>) -> Option<ExtraParameters> {
    let body = node.names_to_values("extra parameters by name")?;
    for (name, parameter) in body.fields() {
        if STANDARD_PARAMETERS.contains(&name) {
            parameter.fault("every request has this parameter already: choose another name");
        }
        if depth(parameter.value()) > MAX_BODY_DEPTH {
            parameter.fault(format!("more than {MAX_BODY_DEPTH} arrays and objects within each other: flatten it"));
        }
    }
    node.value().as_object().map(ExtraParameters::from)
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
    let Some(value) = node.text().filter(|value| !is_sealed(value)) else { return };
    if value.len() > MAX_HEADER_VALUE_BYTES {
        node.fault(format!("the value is too long: at most {MAX_HEADER_VALUE_BYTES} bytes"));
    }
    if HeaderValue::from_str(value).is_err() {
        node.fault("HTTP does not allow this header value: use no control characters and no line breaks");
    }
    if value == MASK {
        node.fault("this is the mask shown in the place of the value: write the value itself, or remove the header");
    }
    if value.trim_matches([' ', '\t']) != value {
        node.fault("HTTP cuts space around a header value: remove it in front and at the end");
    }
}

fn secret(node: &Node<'_>) -> Option<String> {
    let secret = node.text()?;
    if is_sealed(secret) {
        return Some(secret.to_owned());
    }
    let key = secret.strip_prefix("whsec_").and_then(|encoded| STANDARD.decode(encoded).ok());
    if key.is_some_and(|key| SECRET_BYTES.contains(&key.len())) {
        return Some(secret.to_owned());
    }
    let (least, most) = (SECRET_BYTES.start(), SECRET_BYTES.end());
    node.refuse(format!("a secret is `whsec_` and the base64 of {least} to {most} random bytes"))
}

/// Those that still sign after a rotation, as whoever has read them sends them back.
fn previous_secrets(node: &Node<'_>) -> Option<Vec<PreviousSecret>> {
    let previous: Vec<PreviousSecret> = node
        .items()?
        .filter_map(|previous| {
            let previous = previous.object("a previous secret", &["secret", "until"])?;
            let secret = previous.require("secret").and_then(|secret| self::secret(&secret));
            let until = previous.require("until").and_then(|until| until.time());
            Some(PreviousSecret { secret: secret?, until: until? })
        })
        .collect();
    if previous.len() > MOST_PREVIOUS {
        return node.refuse(format!("at most {MOST_PREVIOUS} previous secrets sign beside the present one"));
    }
    Some(previous)
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
mod tests;
