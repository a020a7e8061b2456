//! Escapes customers' texts for XML, and shortens them to the available width.

use std::fmt::{self, Write as _};

use unicode_width::UnicodeWidthChar as _;

/// Zero-width characters make a width limit alone insufficient.
const MAX_CHARACTERS: usize = 200;

/// Displays text within XML or HTML. Markup is escaped, and characters that XML forbids are replaced.
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

#[derive(Debug, Clone, Copy)]
pub(super) enum Font {
    Proportional,
    Monospaced,
}

/// The width of a character in hundredths of the font's size. An upper estimate, because fonts differ.
fn character_width(character: char, font: Font) -> i64 {
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

/// The width of a text in pixels, rounded up. `size` is the font's size in pixels.
pub(super) fn text_width(text: &str, size: i64, font: Font) -> i64 {
    let hundredths: i64 = text.chars().map(|character| character_width(character, font)).sum();
    (hundredths * size + 99) / 100
}

/// Cuts the end of a text that is wider than `max_width` pixels, and adds an ellipsis. Runs of white space become one
/// space.
pub(super) fn fit(text: &str, max_width: i64, size: i64, font: Font) -> String {
    let text = text.split_whitespace().collect::<Vec<_>>().join(" ");
    if text.chars().count() <= MAX_CHARACTERS && text_width(&text, size, font) <= max_width {
        return text;
    }
    let mut remaining = max_width * 100 - character_width('…', font) * size;
    let mut fitted = String::new();
    for character in text.chars().take(MAX_CHARACTERS) {
        remaining -= character_width(character, font) * size;
        if remaining < 0 {
            break;
        }
        fitted.push(character);
    }
    // A zero-width joiner at the end would join the ellipsis.
    fitted.truncate(fitted.trim_end_matches(|c: char| c == '\u{200d}' || c.is_whitespace()).len());
    fitted.push('…');
    fitted
}

/// Like [`fit`], but cuts the middle: the end of a URL tells more than its start.
pub(super) fn fit_ends(text: &str, max_width: i64, size: i64, font: Font) -> String {
    let cut_at_end = fit(text, max_width, size, font);
    if !cut_at_end.ends_with('…') {
        return cut_at_end;
    }
    let start = fit(text, max_width * 2 / 5, size, font);
    let mut remaining = (max_width - text_width(&start, size, font)) * 100;
    let mut end: Vec<char> = Vec::new();
    for character in text.chars().rev().take(MAX_CHARACTERS) {
        remaining -= character_width(character, font) * size;
        if remaining < 0 {
            break;
        }
        end.push(character);
    }
    start.chars().chain(end.into_iter().rev()).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn markup_is_escaped() {
        assert_eq!(
            Escaped("</script><img onerror='x'>&\"").to_string(),
            "&lt;/script&gt;&lt;img onerror=&#39;x&#39;&gt;&amp;&quot;"
        );
        assert_eq!(Escaped("a\nb\0c\u{ffff}").to_string(), "a b\u{fffd}c\u{fffd}");
    }

    #[test]
    fn long_texts_end_with_an_ellipsis() {
        let fit = |text: &str| fit(text, 60, 10, Font::Proportional);
        assert_eq!(fit("Plans"), "Plans");
        assert_eq!(fit(" a \n b "), "a b");
        assert_eq!(fit("One month, six months"), "One mont…");
        assert_eq!(fit("日本語日本語日本語"), "日本語…");
        assert_eq!(fit("👩‍👩‍👧‍👦👩‍👩‍👧‍👦"), "👩‍👩‍👧…");
    }

    #[test]
    fn the_middle_of_a_long_url_is_cut() {
        let fit = |text: &str| fit_ends(text, 100, 10, Font::Monospaced);
        assert_eq!(fit("a.example/hooks"), "a.example/hooks");
        assert_eq!(fit("hooks.example.com/v1/agent"), "hooks…m/v1/agent");
    }

    proptest! {
        #[test]
        fn fitted_text_is_not_wider_than_allowed(text: String, max_width in 50_i64..400, size in 10_i64..16) {
            for fit in [fit, fit_ends] {
                let fitted = fit(&text, max_width, size, Font::Proportional);
                prop_assert!(text_width(&fitted, size, Font::Proportional) <= max_width, "{fitted:?}");
                prop_assert!(fitted.chars().count() <= 2 * MAX_CHARACTERS + 1);
            }
        }
    }
}
