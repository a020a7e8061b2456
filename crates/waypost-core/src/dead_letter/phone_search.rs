//! Finds the dead letters about the person with a phone number.

use aho_corasick::{AhoCorasick, AhoCorasickKind, BuildError};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::DeadLetter;

/// Built once for all letters. It has no `Debug`, because phone numbers are never logged.
#[derive(Clone)]
pub struct PhoneSearch {
    phone_number: String,
    /// Every form in which the body of a message may contain the number.
    forms: AhoCorasick,
}

impl PhoneSearch {
    /// # Errors
    /// [`BuildError`] for a phone number of gigabytes.
    pub fn new(phone_number: &str) -> Result<Self, BuildError> {
        // Some JSON encoders escape the plus sign.
        let escaped = |plus| phone_number.replace('+', plus);
        let forms = [phone_number.to_owned(), escaped("\\u002B"), escaped("\\u002b")];
        // The default kind would take hundreds of megabytes if the number were as long as a request may be.
        let forms = AhoCorasick::builder().kind(Some(AhoCorasickKind::ContiguousNFA)).build(forms)?;
        Ok(Self { phone_number: phone_number.to_owned(), forms })
    }

    /// Whether the letter's event has the phone number, or its unreadable body contains the number.
    pub fn matches(&self, letter: &DeadLetter) -> bool {
        let decoded = || STANDARD.decode(letter.body_base64.as_ref()?).ok();
        letter.event.as_ref().is_some_and(|event| event.phone_number == self.phone_number)
            || letter.body.as_ref().is_some_and(|body| self.forms.is_match(body))
            || decoded().is_some_and(|body| self.forms.is_match(&body))
    }
}

#[cfg(test)]
mod tests {
    use chrono::DateTime;
    use proptest::prelude::*;

    use super::*;
    use crate::reason::DeadLetterReason;

    fn letter(body: &[u8]) -> DeadLetter {
        DeadLetter::from_body(body, Vec::new(), "1", DeadLetterReason::Malformed, DateTime::UNIX_EPOCH)
    }

    /// The same by comparing every form at every position.
    fn naive(phone_number: &str, body: &[u8]) -> bool {
        let forms = ["+", "\\u002B", "\\u002b"].map(|plus| phone_number.replace('+', plus));
        forms.iter().any(|form| body.windows(form.len()).any(|window| window == form.as_bytes()))
    }

    #[test]
    fn a_number_is_found_in_text_and_in_bytes() {
        let search = PhoneSearch::new("+5511999990000").expect("a search");
        for (body, expected) in [
            (&b"to +5511999990000!"[..], true),
            (br#"{"phoneNumber":"\u002B5511999990000""#, true),
            (br#"{"phoneNumber":"\u002b5511999990000""#, true),
            (b"\xff\xfe+5511999990000", true),
            (b"5511999990000", false),
            (b"+551199999000", false),
            (b"", false),
        ] {
            assert_eq!(search.matches(&letter(body)), expected, "{}", body.escape_ascii());
        }
        assert!(letter(b"\xff+1").body_base64.is_some(), "the case with bytes is base64");
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2000))]
        #[test]
        fn a_number_is_found_as_if_compared_form_by_form(
            phone_number in prop::collection::vec(prop::sample::select(vec!["+", "1", "2"]), 1..4),
            body in prop::collection::vec(prop::sample::select(vec![&b"+"[..], b"1", b"2", b"\\u002b", b"\\u002B", b"\xff"]), 0..12),
        ) {
            let (phone_number, body) = (phone_number.concat(), body.concat());
            let search = PhoneSearch::new(&phone_number).expect("a search");
            prop_assert_eq!(search.matches(&letter(&body)), naive(&phone_number, &body));
        }
    }
}
