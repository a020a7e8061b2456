//! Masks secrets in the responses of receivers. A response is stored and shown, and may repeat the values of custom
//! headers or the signing secret.

use std::ops::Range;

use aho_corasick::{AhoCorasick, AhoCorasickKind, MatchKind};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::campaign::{MASK, Webhook};

/// Shorter values are not masked: they are hardly secret, and occur in any text.
const MIN_SECRET_CHARS: usize = 4;

/// Whether the end of a text was cut off.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Truncation {
    Complete,
    /// The text may end in the middle of a secret.
    Truncated,
}

/// Replaces each secret of the webhook by [`MASK`].
pub fn mask_secrets(text: &str, truncation: Truncation, webhook: &Webhook) -> String {
    mask(text, truncation, &secrets(webhook))
}

fn mask(text: &str, truncation: Truncation, secrets: &[String]) -> String {
    // A longer secret can only be in the text if it was truncated. Leaving it out keeps the automaton small.
    let whole: Vec<&String> = secrets.iter().filter(|secret| secret.len() <= text.len()).collect();
    if secrets.is_empty() || whole.is_empty() && truncation == Truncation::Complete {
        return text.to_owned();
    }
    let automaton = AhoCorasick::builder()
        .match_kind(MatchKind::LeftmostLongest)
        // The fastest to build. It is used once.
        .kind(Some(AhoCorasickKind::NoncontiguousNFA))
        .build(whole);
    let Ok(automaton) = automaton else {
        // There are too many secrets for an automaton. None of them must be shown.
        return MASK.to_owned();
    };
    let mut masked = String::with_capacity(text.len());
    let mut position = 0;
    for secret in automaton.find_iter(text) {
        let gap = position..secret.start();
        if let Some(start) = truncated_secret(text, gap.clone(), truncation, secrets) {
            return masked + &text[position..start] + MASK;
        }
        masked.push_str(&text[gap]);
        masked.push_str(MASK);
        position = secret.end();
    }
    match truncated_secret(text, position..text.len(), truncation, secrets) {
        Some(start) => masked + &text[position..start] + MASK,
        None => masked + &text[position..],
    }
}

/// The first position in `gap` from which the rest of the text is the beginning of a secret.
fn truncated_secret(text: &str, gap: Range<usize>, truncation: Truncation, secrets: &[String]) -> Option<usize> {
    if truncation == Truncation::Complete {
        return None;
    }
    gap.filter(|start| text.is_char_boundary(*start)).find(|start| {
        let rest = &text[*start..];
        rest.chars().nth(MIN_SECRET_CHARS - 1).is_some() && secrets.iter().any(|secret| secret.starts_with(rest))
    })
}

/// The secrets in every form in which a receiver may repeat them.
fn secrets(webhook: &Webhook) -> Vec<String> {
    let values = webhook.headers.values().filter_map(|value| value.as_str());
    let mut secrets: Vec<String> = values.flat_map(value_and_credentials).collect();
    for secret in webhook.secret.iter().chain(webhook.previous_secrets.iter().map(|previous| &previous.secret)) {
        secrets.extend(secret.strip_prefix("whsec_").map(str::to_owned));
        secrets.push(secret.clone());
    }
    // Escaped as in a JSON string. Some JSON encoders also escape slashes.
    let escaped = secrets.iter().map(|secret| serde_json::Value::from(secret.as_str()).to_string());
    let escaped: Vec<String> = escaped.map(|json| json[1..json.len() - 1].to_owned()).collect();
    secrets.extend(escaped.iter().map(|secret| secret.replace('/', "\\/")));
    secrets.extend(escaped);
    secrets.retain(|secret| secret.chars().count() >= MIN_SECRET_CHARS && secret != MASK);
    secrets.sort_unstable();
    secrets.dedup();
    secrets
}

/// A header's value and its parts: the credentials after a scheme such as `Bearer`, and the decoded password of
/// `Basic`.
fn value_and_credentials(value: &str) -> Vec<String> {
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
    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::*;

    fn webhook(headers: Value, secret: Option<&str>) -> Webhook {
        let mut webhook =
            json!({ "id": "wh_1", "url": "https://example.com/", "enabled": true, "headers": headers, "timeoutMs": 1 });
        webhook["secret"] = json!(secret);
        serde_json::from_value(webhook).expect("a webhook")
    }

    #[test]
    fn repeated_secrets_are_masked() {
        let key = webhook(json!({ "X-Api-Key": "s3cretvalue", "X-Short": "abc" }), Some("whsec_c2lnbmluZw=="));
        let bearer = webhook(json!({ "Authorization": "Bearer tok-en" }), None);
        // ana:p4ssword
        let basic = webhook(json!({ "Authorization": "Basic YW5hOnA0c3N3b3Jk" }), None);
        let odd = webhook(json!({ "X-A": "he said \"no\"", "X-B": "long", "X-C": "longer one", "X-D": "a/b==" }), None);
        for (webhook, answer, expected) in [
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
            // The longer secret is masked as a whole.
            (&odd, "longer one, long", "********, ********"),
            (&odd, "ü\u{fffd}longü", "ü\u{fffd}********ü"),
            (&odd, "", ""),
        ] {
            assert_eq!(mask_secrets(answer, Truncation::Complete, webhook), expected, "{answer}");
        }
    }

    #[test]
    fn a_truncated_secret_at_the_end_is_masked() {
        let webhook = webhook(json!({ "X-Api-Key": "s3cretvalue" }), None);
        for (answer, truncation, expected) in [
            ("bad key: s3cretv", Truncation::Truncated, "bad key: ********"),
            ("bad key: s3cretv", Truncation::Complete, "bad key: s3cretv"),
            ("bad key: s3c", Truncation::Truncated, "bad key: s3c"),
            ("s3cretv, s3cre", Truncation::Truncated, "s3cretv, ********"),
        ] {
            assert_eq!(mask_secrets(answer, truncation, &webhook), expected, "{answer}");
        }
    }

    #[test]
    fn masked_text_does_not_change() {
        let mut webhook = webhook(json!({ "X-Api-Key": "s3cretvalue", "X-Stars": "****" }), Some("whsec_c2lnbmluZw=="));
        webhook.mask();
        assert_eq!(mask_secrets("******** s3cretvalue", Truncation::Complete, &webhook), "******** s3cretvalue");
    }
    /// The same by comparing every secret at every position.
    fn naive(text: &str, truncation: Truncation, secrets: &[String]) -> String {
        let mut masked = String::new();
        let mut rest = text;
        while let Some(first) = rest.chars().next() {
            let longest = secrets.iter().filter(|secret| rest.starts_with(secret.as_str())).map(String::len).max();
            let is_truncated_secret = truncation == Truncation::Truncated
                && rest.chars().count() >= MIN_SECRET_CHARS
                && secrets.iter().any(|secret| secret.starts_with(rest));
            let length = longest.or(is_truncated_secret.then_some(rest.len()));
            match length {
                Some(_) => masked.push_str(MASK),
                None => masked.push(first),
            }
            rest = &rest[length.unwrap_or(first.len_utf8())..];
        }
        masked
    }

    /// Few different characters, so that secrets overlap.
    fn texts(characters: impl Into<prop::collection::SizeRange>) -> impl Strategy<Value = String> {
        let character = prop::sample::select(vec!['a', 'b', '*', 'ü']);
        prop::collection::vec(character, characters).prop_map(String::from_iter)
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2000))]
        #[test]
        fn all_secrets_are_masked_as_if_compared_one_by_one(
            text in texts(0..40),
            secrets in prop::collection::vec(texts(4..9), 0..5),
            truncation in prop::sample::select(vec![Truncation::Complete, Truncation::Truncated]),
        ) {
            prop_assert_eq!(mask(&text, truncation, &secrets), naive(&text, truncation, &secrets));
        }
    }
}
