//! Texts of others in a picture: made to fit, and made harmless.

use std::fmt::{self, Write as _};

use unicode_width::UnicodeWidthChar as _;

/// Nobody reads more characters than these in a picture, however little room they take.
const MOST_CHARACTERS: usize = 200;

/// A text within markup: what has a meaning in XML or HTML is escaped, and what may not be in XML at all is replaced.
pub(super) struct Escaped<'a>(pub(super) &'a str);

impl fmt::Display for Escaped<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for character in self.0.chars() {
            match character {
                '&' => f.write_str("&amp;")?,
                '<' => f.write_str("&lt;")?,
                '>' => f.write_str("&gt;")?,
                '"' => f.write_str("&quot;")?,
                '\'' => f.write_str("&#39;")?,
                '\t' | '\n' | '\r' => f.write_char(' ')?,
                '\0'..='\x1f' | '\x7f'..='\u{9f}' | '\u{fffe}' | '\u{ffff}' => f.write_char('\u{fffd}')?,
                other => f.write_char(other)?,
            }
        }
        Ok(())
    }
}

/// The fonts that texts are made to fit for.
#[derive(Debug, Clone, Copy)]
pub(super) enum Font {
    /// Letters differ in width.
    Proportional,
    /// They don't.
    Monospaced,
}

/// The width of a character in hundredths of the font's size. On the large side, for fonts differ.
fn width(character: char, font: Font) -> i64 {
    match (character.width().unwrap_or(0), font) {
        (0, _) => 0,
        (1, Font::Monospaced) => 62,
        (1, Font::Proportional) => match character {
            'i' | 'j' | 'l' | 'I' | '.' | ',' | ':' | ';' | '\'' | '|' | '!' | '·' => 32,
            ' ' | 'f' | 'r' | 't' | '(' | ')' | '[' | ']' | '/' | '-' | '"' => 42,
            'm' | 'w' | 'M' | 'W' | '@' | '%' | '…' | '—' => 100,
            'A'..='Z' | '&' | '+' | '=' | '<' | '>' | '~' => 75,
            ' '..='~' => 60,
            _ => 72,
        },
        // Emoji are wider than ideographs.
        (_, _) => 130,
    }
}

/// The width of a text, in whole pixels.
pub(super) fn width_of(text: &str, size: i64, font: Font) -> i64 {
    let hundredths: i64 = text.chars().map(|character| width(character, font)).sum();
    (hundredths * size + 99) / 100
}

/// As much of a text as there is room for, with an ellipsis where some is left out.
pub(super) fn fit(text: &str, room: i64, size: i64, font: Font) -> String {
    let text = text.split_whitespace().collect::<Vec<_>>().join(" ");
    if text.chars().count() <= MOST_CHARACTERS && width_of(&text, size, font) <= room {
        return text;
    }
    let mut left = room * 100 - width('…', font) * size;
    let mut kept = String::new();
    for character in text.chars().take(MOST_CHARACTERS) {
        left -= width(character, font) * size;
        if left < 0 {
            break;
        }
        kept.push(character);
    }
    // A joiner would have nothing to join.
    kept.truncate(kept.trim_end_matches(|c: char| c == '\u{200d}' || c.is_whitespace()).len());
    kept.push('…');
    kept
}

/// As [`fit`], but what is left out is in the middle: the end of a URL says more than what all have in common.
pub(super) fn fit_ends(text: &str, room: i64, size: i64, font: Font) -> String {
    let whole = fit(text, room, size, font);
    if !whole.ends_with('…') {
        return whole;
    }
    let beginning = fit(text, room * 2 / 5, size, font);
    let mut left = (room - width_of(&beginning, size, font)) * 100;
    let mut end: Vec<char> = Vec::new();
    for character in text.chars().rev().take(MOST_CHARACTERS) {
        left -= width(character, font) * size;
        if left < 0 {
            break;
        }
        end.push(character);
    }
    beginning.chars().chain(end.into_iter().rev()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn markup_is_text() {
        assert_eq!(
            Escaped("</script><img onerror='x'>&\"").to_string(),
            "&lt;/script&gt;&lt;img onerror=&#39;x&#39;&gt;&amp;&quot;"
        );
        assert_eq!(Escaped("a\nb\0c\u{ffff}").to_string(), "a b\u{fffd}c\u{fffd}");
    }

    #[test]
    fn texts_are_cut_where_the_room_ends() {
        let fit = |text: &str| fit(text, 60, 10, Font::Proportional);
        assert_eq!(fit("Plans"), "Plans");
        assert_eq!(fit(" a \n b "), "a b");
        assert_eq!(fit("One month, six months"), "One mont…");
        assert_eq!(fit("日本語日本語日本語"), "日本語…");
        assert_eq!(fit("👩‍👩‍👧‍👦👩‍👩‍👧‍👦"), "👩‍👩‍👧…");
    }

    #[test]
    fn of_a_url_the_ends_are_kept() {
        let fit = |text: &str| fit_ends(text, 100, 10, Font::Monospaced);
        assert_eq!(fit("a.example/hooks"), "a.example/hooks");
        assert_eq!(fit("hooks.example.com/v1/agent"), "hooks…m/v1/agent");
    }

    proptest! {
        #[test]
        fn what_fits_is_no_wider(text: String, room in 50_i64..400, size in 10_i64..16) {
            for fit in [fit, fit_ends] {
                let fitted = fit(&text, room, size, Font::Proportional);
                prop_assert!(width_of(&fitted, size, Font::Proportional) <= room, "{fitted:?}");
                prop_assert!(fitted.chars().count() <= 2 * MOST_CHARACTERS + 1);
            }
        }
    }
}
