//! What a receiver says is kept and shown, but for what it repeats of the request's secrets: values of custom headers, and
//! the signing secret.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::campaign::{MASK, Webhook};

/// Shorter ones are no secret, and in any text.
const MIN_CHARS: usize = 4;

/// Whether a text is all that was said.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Truncation {
    /// It is.
    Whole,
    /// It was cut off: what is at its end may go on.
    Beginning,
}

/// The text with a [`MASK`] in the place of each secret of the webhook.
pub fn masked(text: &str, extent: Truncation, webhook: &Webhook) -> String {
    let secrets = secrets(webhook);
    let mut masked = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        let found = secrets.iter().find(|secret| rest.starts_with(secret.as_str()));
        let is_cut = || {
            let cut = |secret: &String| secret.starts_with(rest);
            extent == Truncation::Beginning && rest.chars().nth(MIN_CHARS - 1).is_some() && secrets.iter().any(cut)
        };
        let length = match found {
            Some(secret) => secret.len(),
            None if is_cut() => rest.len(),
            None => {
                masked.push(first);
                rest = &rest[first.len_utf8()..];
                continue;
            }
        };
        masked.push_str(MASK);
        rest = &rest[length..];
    }
    masked
}

/// All that is to be masked, in every form in which a receiver may repeat it; the longest first.
fn secrets(webhook: &Webhook) -> Vec<String> {
    let values = webhook.headers.values().filter_map(|value| value.as_str());
    let mut secrets: Vec<String> = values.flat_map(parts).collect();
    for secret in webhook.secret.iter().chain(webhook.previous_secrets.iter().map(|previous| &previous.secret)) {
        secrets.extend(secret.strip_prefix("whsec_").map(str::to_owned));
        secrets.push(secret.clone());
    }
    // As a string of a JSON document has it; some writers of JSON escape slashes.
    let escaped = secrets.iter().map(|secret| serde_json::Value::from(secret.as_str()).to_string());
    let escaped: Vec<String> = escaped.map(|json| json[1..json.len() - 1].to_owned()).collect();
    secrets.extend(escaped.iter().map(|secret| secret.replace('/', "\\/")));
    secrets.extend(escaped);
    secrets.retain(|secret| secret.chars().count() >= MIN_CHARS && secret != MASK);
    secrets.sort_unstable_by(|one, other| other.len().cmp(&one.len()).then_with(|| one.cmp(other)));
    secrets.dedup();
    secrets
}

/// A header's value, and of `Bearer TOKEN` or `Basic CREDENTIALS` what follows the scheme, with the password that is in it.
fn parts(value: &str) -> Vec<String> {
    let mut parts = vec![value.to_owned()];
    if let Some((scheme, credentials)) = value.split_once(' ') {
        let credentials = credentials.trim();
        parts.push(credentials.to_owned());
        let decoded = STANDARD.decode(credentials).ok().and_then(|bytes| String::from_utf8(bytes).ok());
        if let Some(decoded) = decoded.filter(|_| scheme.eq_ignore_ascii_case("basic")) {
            parts.extend(decoded.split_once(':').map(|(_, password)| password.to_owned()));
            parts.push(decoded);
        }
    }
    parts
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn webhook(headers: Value, secret: Option<&str>) -> Webhook {
        let mut webhook =
            json!({ "id": "wh_1", "url": "https://example.com/", "enabled": true, "headers": headers, "timeoutMs": 1 });
        webhook["secret"] = json!(secret);
        serde_json::from_value(webhook).expect("a webhook")
    }

    #[test]
    fn what_is_repeated_of_the_secrets_is_masked() {
        let key = webhook(json!({ "X-Api-Key": "s3cretvalue", "X-Short": "abc" }), Some("whsec_c2lnbmluZw=="));
        let bearer = webhook(json!({ "Authorization": "Bearer tok-en" }), None);
        // ana:p4ssword
        let basic = webhook(json!({ "Authorization": "Basic YW5hOnA0c3N3b3Jk" }), None);
        let odd = webhook(json!({ "X-A": "he said \"no\"", "X-B": "long", "X-C": "longer one", "X-D": "a/b==" }), None);
        for (webhook, said, shown) in [
            (&key, "bad key: s3cretvalue", "bad key: ********"),
            (&key, "s3cretvalues3cretvalue!", "****************!"),
            (&key, "S3CRETVALUE s3cretvalu abc", "S3CRETVALUE s3cretvalu abc"),
            (&key, r#"{"secret":"whsec_c2lnbmluZw=="}"#, r#"{"secret":"********"}"#),
            (&key, "key c2lnbmluZw==", "key ********"),
            (&bearer, "no user for Bearer tok-en", "no user for ********"),
            (&bearer, r#"{"token":"tok-en"}"#, r#"{"token":"********"}"#),
            (&basic, "Basic YW5hOnA0c3N3b3Jk", "********"),
            (&basic, "ana:p4ssword or p4ssword", "******** or ********"),
            (&odd, r#"he said "no""#, "********"),
            (&odd, r#"{"a":"he said \"no\""}"#, r#"{"a":"********"}"#),
            (&odd, r#"["a\/b==","a/b=="]"#, r#"["********","********"]"#),
            // The whole of the longer one, not what is left behind the shorter.
            (&odd, "longer one, long", "********, ********"),
            (&odd, "ü\u{fffd}longü", "ü\u{fffd}********ü"),
            (&odd, "", ""),
        ] {
            assert_eq!(masked(said, Truncation::Whole, webhook), shown, "{said}");
        }
    }

    #[test]
    fn what_was_cut_off_at_its_end_is_masked_too() {
        let webhook = webhook(json!({ "X-Api-Key": "s3cretvalue" }), None);
        for (said, extent, shown) in [
            ("bad key: s3cretv", Truncation::Beginning, "bad key: ********"),
            ("bad key: s3cretv", Truncation::Whole, "bad key: s3cretv"),
            ("bad key: s3c", Truncation::Beginning, "bad key: s3c"),
            ("s3cretv, s3cre", Truncation::Beginning, "s3cretv, ********"),
        ] {
            assert_eq!(masked(said, extent, &webhook), shown, "{said}");
        }
    }

    #[test]
    fn what_is_masked_already_stays_as_it_is() {
        let mut webhook = webhook(json!({ "X-Api-Key": "s3cretvalue", "X-Stars": "****" }), Some("whsec_c2lnbmluZw=="));
        webhook.mask();
        assert_eq!(masked("******** s3cretvalue", Truncation::Whole, &webhook), "******** s3cretvalue");
    }
}
