//! The form in which keywords and menu texts are compared.
//!
//! Of a text: NFKC, full Unicode case folding, without invisible characters and without surrounding space.
//! Of a number: its shortest decimal text, so that `1`, `1.0` and `"１"` have the same form.

use std::borrow::Cow;
use std::fmt;

use icu_casemap::CaseMapper;
use icu_normalizer::ComposingNormalizerBorrowed;
use icu_properties::props::DefaultIgnorableCodePoint;
use icu_properties::{CodePointSetData, CodePointSetDataBorrowed};
use serde_json::Number;

/// A number with an exponent is written out only if that takes no more zeros than these.
const MAX_ZEROS: i64 = 1_000;

/// Folding can make a text that NFKC changes again, but not often.
const MAX_PASSES: usize = 8;

/// The normal form of a keyword or a menu text. ASCII is borrowed, and compared ignoring case: an event is compared with
/// every entry of a menu, and most of these comparisons must not copy.
#[derive(Debug, Clone)]
pub struct NormalForm<'a>(Cow<'a, str>);

impl<'a> NormalForm<'a> {
    /// That of a text.
    pub fn of_text(text: &'a str) -> Self {
        if text.is_ascii() { Self(Cow::Borrowed(text.trim())) } else { Self(Cow::Owned(folded(text))) }
    }

    /// That of a number.
    pub fn of_number(number: &'a Number) -> Self {
        Self(shortest(number.as_str()))
    }

    /// Whether nothing is left of it.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Its text, the same for equal forms.
    pub fn into_text(self) -> String {
        let mut text = self.0.into_owned();
        // Nothing else is left to fold.
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

/// The form of a text, by passes that end when one changes nothing.
fn folded(text: &str) -> String {
    let mut form = pass(text);
    let mut before = Cow::Borrowed(text);
    for _ in 1..MAX_PASSES {
        if *before == *form {
            break;
        }
        let next = pass(&form);
        before = Cow::Owned(std::mem::replace(&mut form, next));
    }
    form
}

fn pass(text: &str) -> String {
    const INVISIBLE: CodePointSetDataBorrowed<'static> = CodePointSetData::new::<DefaultIgnorableCodePoint>();
    const NFKC: ComposingNormalizerBorrowed<'static> = ComposingNormalizerBorrowed::new_nfkc();
    let visible = text.chars().filter(|character| !INVISIBLE.contains(*character));
    let composed: String = NFKC.normalize_iter(visible).collect();
    let folded = CaseMapper::new().fold_string(&composed);
    folded.trim().to_owned()
}

/// The shortest decimal text of a JSON number: no exponent, no zeros that say nothing, no minus before zero. A number that
/// would take more than [`MAX_ZEROS`] has an exponent instead. Its form, too, depends on nothing but its value, as long
/// as the exponent has at most 18 digits.
fn shortest(number: &str) -> Cow<'_, str> {
    let (sign, unsigned) = match number.strip_prefix('-') {
        Some(unsigned) => ("-", unsigned),
        None => ("", number),
    };
    let is_whole = unsigned != "0" && unsigned.bytes().all(|byte| byte.is_ascii_digit());
    let zeros = unsigned.len() - unsigned.trim_end_matches('0').len();
    if is_whole && zeros as i64 <= MAX_ZEROS {
        return Cow::Borrowed(number);
    }
    let (mantissa, exponent) = unsigned.split_once(['e', 'E']).unwrap_or((unsigned, ""));
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let written = [whole, fraction].concat();
    let digits = written.trim_start_matches('0');
    let leading = written.len() - digits.len();
    let digits = digits.trim_end_matches('0');
    let Some(first) = digits.get(..1) else { return Cow::Borrowed("0") };
    let Some(exponent) = power_of_ten(exponent) else {
        return Cow::Owned(format!("{sign}{digits}e{}", exponent.trim_start_matches('+')));
    };
    // The value is 0.DIGITS times ten to this power.
    let point = whole.len() as i64 - leading as i64 + exponent;
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

/// The exponent of a number; `None` if it has more than 18 digits.
fn power_of_ten(exponent: &str) -> Option<i64> {
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

    fn form(text: &str) -> String {
        NormalForm::of_text(text).into_text()
    }

    fn number(text: &str) -> String {
        let number: Number = serde_json::from_str(text).expect("a number");
        NormalForm::of_number(&number).into_text()
    }

    #[test]
    fn texts_that_look_alike_are_the_same() {
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
            assert_eq!(NormalForm::of_text(one), NormalForm::of_text(other), "{one:?} {other:?}");
            assert_eq!(form(one), form(other), "{one:?} {other:?}");
        }
        for (one, other) in [("1", "1.0"), ("a b", "ab"), ("a  b", "a b"), ("e", "é"), ("yes", "yes!"), ("i", "ı")] {
            assert_ne!(NormalForm::of_text(one), NormalForm::of_text(other), "{one:?} {other:?}");
        }
        assert!(NormalForm::of_text(" \u{200b}\u{200f} \u{fe0f}").is_empty());
    }

    /// An event is compared with each entry of a menu.
    #[test]
    fn what_is_usual_is_not_copied() {
        let number: Number = serde_json::from_str("4").expect("a number");
        for form in [NormalForm::of_text(" Offers "), NormalForm::of_number(&number)] {
            assert!(matches!(form.0, Cow::Borrowed(_)), "{form}");
        }
    }

    #[test]
    fn a_number_is_its_shortest_decimal_text() {
        for (written, expected) in [
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
            assert_eq!(number(written), expected, "{written}");
        }
        assert_eq!(number("1e400"), format!("1{}", "0".repeat(400)));
        assert_eq!(number("1e1000").len(), 1001);
        assert_eq!(number("1e1001"), "1e1001");
        assert_eq!(number(&format!("1{}", "0".repeat(1001))), "1e1001", "however it was written");
        assert_eq!(number(&format!("1{}.0", "0".repeat(1001))), "1e1001", "however it was written");
    }

    /// Each character, alone and within a text: its form is the form of itself and of its other cases.
    #[test]
    fn the_form_of_a_form_is_itself() {
        for character in ('\0'..=char::MAX).filter(|character| !character.is_ascii()) {
            let text = format!("a{character}\u{301}");
            for text in [character.to_string(), text] {
                let once = form(&text);
                assert_eq!(form(&once), once, "{text:?} U+{:04X}", u32::from(character));
            }
        }
    }

    proptest! {
        #[test]
        fn forms_are_compared_as_their_texts(one in "[ \ta-cA-C4kK\u{212a}ſσΣςßé\u{301}\u{200d}\u{a0}]{0,4}",
            other in "[ \ta-cA-C4kK\u{212a}ſσΣςßé\u{301}\u{200d}\u{a0}]{0,4}")
        {
            for (one, other) in [(&one, &other), (&one, &one.to_uppercase()), (&one, &format!(" {} ", one.to_lowercase()))] {
                let are_same = NormalForm::of_text(one) == NormalForm::of_text(other);
                prop_assert_eq!(are_same, form(one) == form(other), "{:?} {:?}", one, other);
            }
        }

        #[test]
        fn any_texts_form_is_its_own(text: String) {
            let once = form(&text);
            prop_assert_eq!(form(&once), once);
        }

        /// Whichever way a value is written.
        #[test]
        fn a_values_form_does_not_depend_on_its_exponent(digits in "[1-9][0-9]{0,20}", zeros in 0_usize..30) {
            let written = [
                digits.clone(),
                format!("{digits}.0"),
                format!("{digits}{}e-{zeros}", "0".repeat(zeros)),
                format!("0.{}{digits}E{}", "0".repeat(zeros), zeros + digits.len()),
            ];
            for text in written {
                prop_assert_eq!(number(&text), digits.clone(), "{}", text);
            }
        }
    }
}
