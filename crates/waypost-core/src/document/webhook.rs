//! Parses and validates a webhook. No message repeats a URL, a header value or a secret, because these are customers'
//! secrets.

use std::ops::RangeInclusive;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::{HeaderName, HeaderValue, Uri};
use serde_json::{Map, Number, Value};
use url::Url;

use super::assign_ids;
use super::json_cursor::{FirstPaths, JsonNode};
use super::url_policy::UrlPolicy;
use crate::campaign::PreviousSecret;
use crate::campaign::{ExtraParameters, MASK, RetryOverrides, Webhook};
use crate::egress::HttpUrls;
use crate::ids::WebhookId;
use crate::request::STANDARD_PARAMETERS;
use crate::secret_encryption::is_encrypted;
use crate::signing::MAX_PREVIOUS_SECRETS;

const MAX_ID_CHARS: usize = 128;
const MAX_URL_CHARS: usize = 2048;
const MAX_HEADERS: usize = 50;
const MAX_HEADER_NAME_BYTES: usize = 256;
const MAX_HEADER_VALUE_BYTES: usize = 8 * 1024;
/// Maximum nesting in an extra parameter. Webhooks are stored within other JSON, and serde_json reads at most 128
/// levels.
const MAX_BODY_DEPTH: usize = 32;
const SECRET_BYTES: RangeInclusive<usize> = 24..=64;
const DEFAULT_TIMEOUT_MS: u64 = 15_000;
const MAX_TIMEOUT_MS: u64 = 30_000;
/// About one request in 17 minutes. Lower rates are useless, and the inverse of a rate must fit a duration.
const MIN_RATE_PER_SECOND: f64 = 0.001;
const MAX_ATTEMPTS: u32 = 1000;
/// One year, as humantime counts it.
const MAX_RETRY_DURATION: Duration = Duration::from_secs(31_557_600);

/// Headers that Waypost or the connection sets. See also [`RESERVED_PREFIXES`].
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

/// A webhook without an id gets the placeholder [`assign_ids::unassigned`].
pub(super) fn read<'a>(
    node: &JsonNode<'a>,
    urls: UrlPolicy<'_>,
    first_ids: &mut FirstPaths<&'a str>,
) -> Option<Webhook> {
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
        previous.report(
            "`previousSecrets` is only allowed together with `secret`: add `secret`, or remove `previousSecrets`",
        );
    }
    let timeout_ms =
        webhook.get("timeoutMs").map_or(Some(DEFAULT_TIMEOUT_MS), |timeout| timeout.whole_number(1..=MAX_TIMEOUT_MS));
    let max_concurrency = webhook.get("maxConcurrency").and_then(|number| number.whole_number(1..=u32::MAX));
    let rate_limit = webhook.get("rateLimit").and_then(|rate| rate_limit(&rate));
    let retry = webhook.get("retry").and_then(|retry| self::retry(&retry));
    Some(Webhook {
        id: id.unwrap_or_else(assign_ids::unassigned),
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

fn id<'a>(node: &JsonNode<'a>, first_ids: &mut FirstPaths<&'a str>) -> Option<WebhookId> {
    let id = node.text_of_length(1..=MAX_ID_CHARS)?;
    // An id is a segment of API paths, where `.` and `..` have a special meaning.
    let is_path_segment = id.chars().all(|c| c.is_ascii_alphanumeric() || "_.-".contains(c)) && !id.starts_with('.');
    if !is_path_segment {
        return node
            .refuse("an id may have letters, digits, `_`, `-` and `.`, but not start with `.`: change or remove it");
    }
    first_ids.refuse_duplicate(id, node, |first| {
        format!("the same id as {first}. Remove one of the two ids: Waypost then assigns a new one")
    });
    Some(WebhookId::new(id))
}

/// `https://host/path`. The text is checked as well as the parsed URL, because the parser corrects errors: it accepts
/// `https:host`, backslashes and line breaks.
fn url<'a>(node: &JsonNode<'a>, urls: UrlPolicy<'_>) -> Option<&'a str> {
    let text = node.text_of_length(1..=MAX_URL_CHARS)?;
    let (scheme, rest) = text.split_once("://").unwrap_or(("", text));
    let authority = rest.split(['/', '\\', '?', '#']).next().unwrap_or_default();
    let is_http = scheme.eq_ignore_ascii_case("http");

    let mut problems = Vec::new();
    if is_http && urls.http_urls() == HttpUrls::Refused {
        problems.push("use https://host/path; plain http is allowed only if the setting egress.allowHttp is true");
    } else if !is_http && !scheme.eq_ignore_ascii_case("https") {
        problems.push("must be like https://host/path");
    }
    if authority.is_empty() {
        problems.push("the host is missing: write it like https://host/path");
    }
    if authority.contains('@') {
        problems.push("a URL must not have credentials: send them in a header instead");
    }
    if text.contains('#') {
        problems
            .push("a URL must not have a fragment, because HTTP does not send it: remove `#` and the text after it");
    }
    if text.contains(|c: char| c.is_whitespace() || c.is_control() || c == '\\') {
        problems.push("a URL must not have spaces, line breaks or backslashes: percent-encode or remove them");
    }
    problems.iter().for_each(|message| node.report(*message));
    if !problems.is_empty() {
        return None;
    }
    match Url::parse(text) {
        // The URL becomes the URI of an HTTP request, whose grammar is stricter.
        Ok(url) if Uri::try_from(url.as_str()).is_ok() => match urls.refuse(&url) {
            Some(forbidden) => node.refuse(forbidden),
            None => Some(text),
        },
        Ok(_) => node.refuse("HTTP can't request this URL: percent-encode its unusual characters"),
        Err(error) => node.refuse(format!("not a URL ({error}): write it like https://host/path")),
    }
}

fn body(node: &JsonNode<'_>) -> Option<ExtraParameters> {
    let body = node.any_object("extra parameters by name")?;
    for (name, parameter) in body.fields() {
        if STANDARD_PARAMETERS.contains(&name) {
            parameter.report("every request already has this parameter: choose another name");
        }
        if depth(parameter.value()) > MAX_BODY_DEPTH {
            parameter.report(format!("nested more than {MAX_BODY_DEPTH} levels deep: flatten it"));
        }
    }
    node.value().as_object().map(ExtraParameters::from)
}

/// The nesting of arrays and objects. Recursion is safe because the parser limits the depth.
fn depth(value: &Value) -> usize {
    match value {
        Value::Array(items) => 1 + items.iter().map(depth).max().unwrap_or(0),
        Value::Object(fields) => 1 + fields.values().map(depth).max().unwrap_or(0),
        _ => 0,
    }
}

fn headers(node: &JsonNode<'_>) -> Option<Map<String, Value>> {
    let headers = node.any_object("header values by name")?;
    let mut first_names = FirstPaths::default();
    let mut count = 0;
    for (name, value) in headers.fields() {
        header_name(name, &value, &mut first_names);
        header_value(&value);
        count += 1;
    }
    if count > MAX_HEADERS {
        node.report(format!("{count} headers: a webhook has at most {MAX_HEADERS}"));
    }
    node.value().as_object().cloned()
}

fn header_name(name: &str, node: &JsonNode<'_>, first_names: &mut FirstPaths<String>) {
    if name.len() > MAX_HEADER_NAME_BYTES {
        return node.report(format!("the name is too long: at most {MAX_HEADER_NAME_BYTES} characters"));
    }
    let Ok(parsed) = HeaderName::from_bytes(name.as_bytes()) else {
        return node.report("HTTP does not allow this header name: use letters, digits and `-`");
    };
    let name = parsed.as_str();
    if RESERVED_HEADERS.contains(&name) || RESERVED_PREFIXES.iter().any(|prefix| name.starts_with(prefix)) {
        node.report("this header is reserved, because Waypost or the connection sets it: remove it");
    }
    first_names.refuse_duplicate(name.to_owned(), node, |first| {
        format!("duplicate of {first}: header names are case-insensitive. Remove one of the two")
    });
}

fn header_value(node: &JsonNode<'_>) {
    let Some(value) = node.text().filter(|value| !is_encrypted(value)) else { return };
    if value.len() > MAX_HEADER_VALUE_BYTES {
        node.report(format!("the value is too long: at most {MAX_HEADER_VALUE_BYTES} bytes"));
    }
    if HeaderValue::from_str(value).is_err() {
        node.report("HTTP does not allow this header value: use no control characters and no line breaks");
    }
    if value == MASK {
        node.report("this is the mask shown in place of the value: write the value itself, or remove the header");
    }
    if value.trim_matches([' ', '\t']) != value {
        node.report("HTTP removes space around a header value: remove it at the start and the end");
    }
}

fn secret(node: &JsonNode<'_>) -> Option<String> {
    let secret = node.text()?;
    if is_encrypted(secret) {
        return Some(secret.to_owned());
    }
    let key = secret.strip_prefix("whsec_").and_then(|encoded| STANDARD.decode(encoded).ok());
    if key.is_some_and(|key| SECRET_BYTES.contains(&key.len())) {
        return Some(secret.to_owned());
    }
    let (min, max) = (SECRET_BYTES.start(), SECRET_BYTES.end());
    node.refuse(format!("a secret is `whsec_` and the base64 of {min} to {max} random bytes"))
}

/// Clients that read a webhook send its previous secrets back.
fn previous_secrets(node: &JsonNode<'_>) -> Option<Vec<PreviousSecret>> {
    let previous: Vec<PreviousSecret> = node
        .items()?
        .filter_map(|previous| {
            let previous = previous.object("a previous secret", &["secret", "until"])?;
            let secret = previous.require("secret").and_then(|secret| self::secret(&secret));
            let until = previous.require("until").and_then(|until| until.time());
            Some(PreviousSecret { secret: secret?, until: until? })
        })
        .collect();
    if previous.len() > MAX_PREVIOUS_SECRETS {
        return node.refuse(format!("at most {MAX_PREVIOUS_SECRETS} previous secrets are allowed: remove the oldest"));
    }
    Some(previous)
}

fn rate_limit(node: &JsonNode<'_>) -> Option<Number> {
    node.number("of requests a second, 0.001 or more", |rate| rate >= MIN_RATE_PER_SECOND)?;
    // As written, because a float can be less precise.
    node.value().as_number().cloned()
}

fn retry(node: &JsonNode<'_>) -> Option<RetryOverrides> {
    const FIELDS: [&str; 7] =
        ["initialDelay", "multiplier", "maxDelay", "jitter", "maxAttempts", "maxAge", "permanentStatuses"];
    const DELAY_RANGE: RangeInclusive<Duration> = Duration::from_millis(1)..=MAX_RETRY_DURATION;
    let retry = node.object("a retry policy", &FIELDS)?;
    let is_one_or_more = |number| number >= 1.0;
    let is_ratio = |number| (0.0..=1.0).contains(&number);
    Some(RetryOverrides {
        initial_delay: retry.get("initialDelay").and_then(|delay| delay.duration(DELAY_RANGE)),
        multiplier: retry.get("multiplier").and_then(|number| number.number("of 1 or more", is_one_or_more)),
        max_delay: retry.get("maxDelay").and_then(|delay| delay.duration(DELAY_RANGE)),
        jitter: retry.get("jitter").and_then(|number| number.number("from 0 to 1", is_ratio)),
        max_attempts: retry.get("maxAttempts").and_then(|number| number.whole_number(1..=MAX_ATTEMPTS)),
        max_age: retry.get("maxAge").and_then(|age| age.duration(Duration::ZERO..=MAX_RETRY_DURATION)),
        permanent_statuses: retry
            .get("permanentStatuses")
            .and_then(|statuses| Some(statuses.items()?.filter_map(|status| status.whole_number(100..=599)).collect())),
    })
}

#[cfg(test)]
mod tests;
