//! The normal form in which keywords and menu texts are compared.
//!
//! A text is normalized by NFKC and full Unicode case folding, without invisible characters and surrounding space. A
//! number becomes its shortest decimal text, so that `1`, `1.0` and `"１"` have the same normal form.

use std::borrow::Cow;
use std::fmt;

use icu_casemap::CaseMapper;
use icu_normalizer::ComposingNormalizerBorrowed;
use icu_properties::props::DefaultIgnorableCodePoint;
use icu_properties::{CodePointSetData, CodePointSetDataBorrowed};
use serde_json::Number;

/// A number gets an exponent if it would otherwise need more zeros than these.
const MAX_ZEROS: i64 = 1_000;

/// Case folding can produce a text that NFKC changes again, but rarely more than once.
const MAX_PASSES: usize = 8;

/// The normal form of a keyword or a menu text.
///
/// ASCII text is borrowed, and its case is ignored in comparisons. An event is compared with every entry of a menu, and
/// most of these comparisons must not allocate.
#[derive(Debug, Clone)]
pub struct NormalForm<'a>(Cow<'a, str>);

impl<'a> NormalForm<'a> {
    pub fn from_text(text: &'a str) -> Self {
        if text.is_ascii() { Self(Cow::Borrowed(text.trim())) } else { Self(Cow::Owned(normalize(text))) }
    }

    pub fn from_number(number: &'a Number) -> Self {
        Self(shortest_decimal(number.as_str()))
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Equal normal forms have the same text.
    pub fn into_text(self) -> String {
        let mut text = self.0.into_owned();
        // Other characters are already folded.
        text.make_ascii_lowercase();
        text
    }
}

impl PartialEq for NormalForm<'_> {
    fn eq(&self, other: &Self) -> bool {
        self.0.eq_ignore_ascii_case(&other.0)
    }
}

impl Eq for NormalForm<'_> {}

impl fmt::Display for NormalForm<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Repeats [`normalize_once`] until the text no longer changes.
fn normalize(text: &str) -> String {
    let mut current = normalize_once(text);
    let mut previous = Cow::Borrowed(text);
    for _ in 1..MAX_PASSES {
        if *previous == *current {
            break;
        }
        let next = normalize_once(&current);
        previous = Cow::Owned(std::mem::replace(&mut current, next));
    }
    current
}

fn normalize_once(text: &str) -> String {
    const INVISIBLE: CodePointSetDataBorrowed<'static> = CodePointSetData::new::<DefaultIgnorableCodePoint>();
    const NFKC: ComposingNormalizerBorrowed<'static> = ComposingNormalizerBorrowed::new_nfkc();
    let visible = text.chars().filter(|character| !INVISIBLE.contains(*character));
    let composed: String = NFKC.normalize_iter(visible).collect();
    let folded = CaseMapper::new().fold_string(&composed);
    folded.trim().to_owned()
}

/// The shortest decimal text of a JSON number: no exponent, no redundant zeros, no minus before zero. A number that
/// would need more than [`MAX_ZEROS`] zeros has an exponent. The text depends only on the value, unless the exponent
/// has more than 18 digits.
fn shortest_decimal(number: &str) -> Cow<'_, str> {
    let (sign, unsigned) = match number.strip_prefix('-') {
        Some(unsigned) => ("-", unsigned),
        None => ("", number),
    };
    let is_integer = unsigned != "0" && unsigned.bytes().all(|byte| byte.is_ascii_digit());
    let zeros = unsigned.len() - unsigned.trim_end_matches('0').len();
    if is_integer && zeros as i64 <= MAX_ZEROS {
        return Cow::Borrowed(number);
    }
    let (mantissa, exponent) = unsigned.split_once(['e', 'E']).unwrap_or((unsigned, ""));
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let all_digits = [whole, fraction].concat();
    let digits = all_digits.trim_start_matches('0');
    let leading_zeros = all_digits.len() - digits.len();
    let digits = digits.trim_end_matches('0');
    let Some(first) = digits.get(..1) else { return Cow::Borrowed("0") };
    let Some(exponent) = parse_exponent(exponent) else {
        return Cow::Owned(format!("{sign}{digits}e{}", exponent.trim_start_matches('+')));
    };
    // The value is 0.DIGITS × 10^point.
    let point = whole.len() as i64 - leading_zeros as i64 + exponent;
    let count = digits.len() as i64;
    let zeros = |count: i64| "0".repeat(usize::try_from(count).unwrap_or_default());
    let text = if point > 0 && point < count {
        let (whole, fraction) = digits.split_at(usize::try_from(point).unwrap_or_default());
        format!("{sign}{whole}.{fraction}")
    } else if (0..=MAX_ZEROS).contains(&(point - count)) {
        format!("{sign}{digits}{}", zeros(point - count))
    } else if (-MAX_ZEROS..=0).contains(&point) {
        format!("{sign}0.{}{digits}", zeros(-point))
    } else {
        let rest = &digits[1..];
        let separator = if rest.is_empty() { "" } else { "." };
        format!("{sign}{first}{separator}{rest}e{}", point - 1)
    };
    Cow::Owned(text)
}

/// Returns `None` if the exponent has more than 18 digits.
fn parse_exponent(exponent: &str) -> Option<i64> {
    let (is_negative, digits) = match exponent.strip_prefix('-') {
        Some(digits) => (true, digits),
        None => (false, exponent.strip_prefix('+').unwrap_or(exponent)),
    };
    let digits = digits.trim_start_matches('0');
    let value = match digits.len() {
        0 => 0,
        1..=18 => digits.parse::<i64>().ok()?,
        _ => return None,
    };
    Some(if is_negative { -value } else { value })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn normalized(text: &str) -> String {
        NormalForm::from_text(text).into_text()
    }

    fn normalized_number(text: &str) -> String {
        let number: Number = serde_json::from_str(text).expect("a number");
        NormalForm::from_number(&number).into_text()
    }

    #[test]
    fn texts_that_look_alike_are_equal() {
        for (one, other) in [
            ("Yes", " yES\n"),
            ("1", "１"),
            ("1", "①"),
            ("ação", "AC\u{327}A\u{303}O"),
            ("straße", "STRASSE"),
            ("ΣΑΣ", "σας"),
            ("K", "\u{212a}"),
            ("ok", "\u{feff}o\u{200b}k\u{200e}"),
            ("ok", "\u{200b} ok \u{200b}"),
            ("ok", "o\u{ad}k\u{2060}"),
            ("ok", "\u{2066}ok\u{2069}"),
            ("❤", "❤\u{fe0f}"),
            ("ok", "\u{a0}ok\u{3000}"),
            ("a b", "a\u{a0}b"),
            ("ﬁn", "FIN"),
        ] {
            assert_eq!(NormalForm::from_text(one), NormalForm::from_text(other), "{one:?} {other:?}");
            assert_eq!(normalized(one), normalized(other), "{one:?} {other:?}");
        }
        for (one, other) in [("1", "1.0"), ("a b", "ab"), ("a  b", "a b"), ("e", "é"), ("yes", "yes!"), ("i", "ı")] {
            assert_ne!(NormalForm::from_text(one), NormalForm::from_text(other), "{one:?} {other:?}");
        }
        assert!(NormalForm::from_text(" \u{200b}\u{200f} \u{fe0f}").is_empty());
    }

    #[test]
    fn ascii_text_and_plain_numbers_are_not_copied() {
        let number: Number = serde_json::from_str("4").expect("a number");
        for form in [NormalForm::from_text(" Offers "), NormalForm::from_number(&number)] {
            assert!(matches!(form.0, Cow::Borrowed(_)), "{form}");
        }
    }

    #[test]
    fn a_number_becomes_its_shortest_decimal_text() {
        for (input, expected) in [
            ("1", "1"),
            ("1.0", "1"),
            ("1e0", "1"),
            ("10e-1", "1"),
            ("0.10", "0.1"),
            ("1e2", "100"),
            ("1E+2", "100"),
            ("100", "100"),
            ("100.00", "100"),
            ("12.50e1", "125"),
            ("12.345e1", "123.45"),
            ("-0", "0"),
            ("-0.0e5", "0"),
            ("0e999999999999999999999", "0"),
            ("-1.50", "-1.5"),
            ("5e-3", "0.005"),
            ("123456789012345678901234567890", "123456789012345678901234567890"),
            ("123456789012345678901234567890.0", "123456789012345678901234567890"),
            ("1.5e1000000000", "1.5e1000000000"),
            ("15e999999999", "1.5e1000000000"),
            ("1e-1000000000", "1e-1000000000"),
            ("1e99999999999999999999", "1e99999999999999999999"),
            ("10e+99999999999999999999", "1e99999999999999999999"),
        ] {
            assert_eq!(normalized_number(input), expected, "{input}");
        }
        assert_eq!(normalized_number("1e400"), format!("1{}", "0".repeat(400)));
        assert_eq!(normalized_number("1e1000").len(), 1001);
        assert_eq!(normalized_number("1e1001"), "1e1001");
        assert_eq!(normalized_number(&format!("1{}", "0".repeat(1001))), "1e1001", "independent of the notation");
        assert_eq!(normalized_number(&format!("1{}.0", "0".repeat(1001))), "1e1001", "independent of the notation");
    }

    /// For each character, alone and within a text.
    #[test]
    fn normalizing_twice_changes_nothing() {
        for character in ('\0'..=char::MAX).filter(|character| !character.is_ascii()) {
            let text = format!("a{character}\u{301}");
            for text in [character.to_string(), text] {
                let once = normalized(&text);
                assert_eq!(normalized(&once), once, "{text:?} U+{:04X}", u32::from(character));
            }
        }
    }

    proptest! {
        #[test]
        fn equality_agrees_with_the_normalized_texts(one in "[ \ta-cA-C4kK\u{212a}ſσΣςßé\u{301}\u{200d}\u{a0}]{0,4}",
            other in "[ \ta-cA-C4kK\u{212a}ſσΣςßé\u{301}\u{200d}\u{a0}]{0,4}")
        {
            for (one, other) in [(&one, &other), (&one, &one.to_uppercase()), (&one, &format!(" {} ", one.to_lowercase()))] {
                let is_equal = NormalForm::from_text(one) == NormalForm::from_text(other);
                prop_assert_eq!(is_equal, normalized(one) == normalized(other), "{:?} {:?}", one, other);
            }
        }

        #[test]
        fn normalizing_any_text_twice_changes_nothing(text: String) {
            let once = normalized(&text);
            prop_assert_eq!(normalized(&once), once);
        }

        #[test]
        fn equal_numbers_have_the_same_text_in_any_notation(digits in "[1-9][0-9]{0,20}", zeros in 0_usize..30) {
            let notations = [
                digits.clone(),
                format!("{digits}.0"),
                format!("{digits}{}e-{zeros}", "0".repeat(zeros)),
                format!("0.{}{digits}E{}", "0".repeat(zeros), zeros + digits.len()),
            ];
            for text in notations {
                prop_assert_eq!(normalized_number(&text), digits.clone(), "{}", text);
            }
        }
    }
}
