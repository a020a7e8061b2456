//! Formats values from outside (ids, labels, responses of receivers) for a terminal. Replaces control characters, so
//! that no text moves the cursor, reverses the text direction or sets the title.

use chrono::{DateTime, SecondsFormat, Utc};
use indicatif::HumanCount;

/// Stands for an absent value.
pub(super) const EMPTY: &str = "–";

/// One line of at most `max_chars` characters.
pub(super) fn line(text: &str, max_chars: usize) -> String {
    let mut line: String =
        text.chars().take(max_chars).map(|c| if c.is_whitespace() { ' ' } else { replace_control(c) }).collect();
    if text.chars().nth(max_chars).is_some() {
        line.pop();
        line.push('…');
    }
    line
}

/// All of a text, with line breaks and tabs replaced too.
pub(super) fn inline(text: &str) -> String {
    text.chars().map(replace_control).collect()
}

/// Keeps line breaks and tabs.
pub(super) fn lines(text: &str) -> String {
    text.replace("\r\n", "\n").chars().map(|c| if matches!(c, '\n' | '\t') { c } else { replace_control(c) }).collect()
}

/// A text on one line, or [`EMPTY`].
pub(super) fn text<'a>(text: impl Into<Option<&'a str>>, max_chars: usize) -> String {
    match text.into() {
        Some(text) if !text.is_empty() => line(text, max_chars),
        _ => EMPTY.to_owned(),
    }
}

/// With separators: `1,234`.
pub(super) fn count(count: u64) -> String {
    HumanCount(count).to_string()
}

/// `1 dead letter`, `1,234 dead letters`.
pub(super) fn dead_letters(count: u64) -> String {
    format!("{} dead letter{}", HumanCount(count), if count == 1 { "" } else { "s" })
}

/// An RFC 3339 time without its fraction of a second, or [`EMPTY`]. `--since` accepts the result.
pub(super) fn time<'a>(time: impl Into<Option<&'a DateTime<Utc>>>) -> String {
    time.into().map_or_else(|| EMPTY.to_owned(), |time| time.to_rfc3339_opts(SecondsFormat::Secs, true))
}

/// Quotes an argument for a shell if it needs quotes.
pub(super) fn shell_word(text: &str) -> String {
    let is_safe = |c: char| c.is_ascii_alphanumeric() || "-_./:@%+,=".contains(c);
    if !text.is_empty() && text.chars().all(is_safe) {
        return text.to_owned();
    }
    format!("'{}'", inline(text).replace('\'', "'\\''"))
}

/// Replaces control characters, and characters that change the text direction, with `·`.
fn replace_control(c: char) -> char {
    let changes_direction = matches!(c, '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    if c.is_control() || changes_direction { '·' } else { c }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn control_characters_are_replaced() {
        assert_eq!(line("\u{1b}[2J\u{1b}]0;title\u{7}a\nb\u{9b}c", 99), "·[2J·]0;title·a b·c");
        assert_eq!(inline("a\r\nb\u{202e}c"), "a··b·c");
        assert_eq!(lines("a\r\n\tb\u{202e}c\u{7f}\rd"), "a\n\tb·c··d");
    }

    #[test]
    fn long_texts_end_with_an_ellipsis() {
        assert_eq!((line("abcde", 5), line("abcdef", 5)), ("abcde".to_owned(), "abcd…".to_owned()));
        assert_eq!(line("üüüü", 3), "üü…");
    }

    #[test]
    fn values_are_formatted() {
        assert_eq!(
            (text("a", 9), text(None::<&str>, 9), text("", 9)),
            ("a".to_owned(), "–".to_owned(), "–".to_owned())
        );
        assert_eq!((count(1_234_567), count(0)), ("1,234,567".to_owned(), "0".to_owned()));
        assert_eq!(
            (dead_letters(1), dead_letters(1000)),
            ("1 dead letter".to_owned(), "1,000 dead letters".to_owned())
        );
        let at = waypost_core::timestamp::parse("2026-11-22T03:04:05.678Z").unwrap();
        assert_eq!((time(&at), time(None::<&DateTime<Utc>>)), ("2026-11-22T03:04:05Z".to_owned(), "–".to_owned()));
    }

    #[test]
    fn shell_words_are_quoted_if_needed() {
        for (text, quoted) in
            [("dl_a-B_9", "dl_a-B_9"), ("Welcome Message", "'Welcome Message'"), ("", "''"), ("it's", "'it'\\''s'")]
        {
            assert_eq!(shell_word(text), quoted);
        }
    }
}
