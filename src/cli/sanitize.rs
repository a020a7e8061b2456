//! Words from outside (ids, labels, answers of receivers) as a terminal may show them: nothing in them moves its cursor,
//! turns its text around or sets its title.

use indicatif::HumanCount;
use serde_json::Value;

/// What is shown where there is nothing.
pub(super) const NOTHING: &str = "–";

/// On one line, and at most so many characters of it.
pub(super) fn line(text: &str, most: usize) -> String {
    let mut line: String = text.chars().take(most).map(|c| if c.is_whitespace() { ' ' } else { shown(c) }).collect();
    if text.chars().nth(most).is_some() {
        line.pop();
        line.push('…');
    }
    line
}

/// On as many lines as it has.
pub(super) fn lines(text: &str) -> String {
    text.replace("\r\n", "\n").chars().map(|c| if matches!(c, '\n' | '\t') { c } else { shown(c) }).collect()
}

/// A text or a number of a document on one line; where it has none, a dash.
pub(super) fn field(value: &Value, most: usize) -> String {
    match value {
        Value::String(text) if !text.is_empty() => line(text, most),
        Value::Number(number) => number.to_string(),
        _ => NOTHING.to_owned(),
    }
}

/// A count as people read it: `1,234`.
pub(super) fn count(value: &Value) -> String {
    HumanCount(value.as_u64().unwrap_or_default()).to_string()
}

/// `1 dead letter`, `1,234 dead letters`.
pub(super) fn dead_letters(count: u64) -> String {
    format!("{} dead letter{}", HumanCount(count), if count == 1 { "" } else { "s" })
}

/// A time of a document to the second: still one that `--since` takes.
pub(super) fn time(value: &Value) -> String {
    let text = field(value, 40);
    match text.split_once('.') {
        Some((second, rest)) if rest.ends_with('Z') => format!("{second}Z"),
        _ => text,
    }
}

/// A word of a command as a shell reads it.
pub(super) fn shell_word(text: &str) -> String {
    let is_safe = |c: char| c.is_ascii_alphanumeric() || "-_./:@%+,=".contains(c);
    if !text.is_empty() && text.chars().all(is_safe) {
        return text.to_owned();
    }
    format!("'{}'", text.chars().map(shown).collect::<String>().replace('\'', "'\\''"))
}

/// Control characters, and those that change the direction of what follows, leave a mark in their place.
fn shown(c: char) -> char {
    let turns = matches!(c, '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    if c.is_control() || turns { '·' } else { c }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_receivers_answer_does_not_draw_on_the_terminal() {
        assert_eq!(line("\u{1b}[2J\u{1b}]0;title\u{7}a\nb\u{9b}c", 99), "·[2J·]0;title·a b·c");
        assert_eq!(lines("a\r\n\tb\u{202e}c\u{7f}\rd"), "a\n\tb·c··d");
    }

    #[test]
    fn long_texts_end_in_an_ellipsis() {
        assert_eq!((line("abcde", 5), line("abcdef", 5)), ("abcde".to_owned(), "abcd…".to_owned()));
        assert_eq!(line("üüüü", 3), "üü…");
    }

    #[test]
    fn fields() {
        assert_eq!((field(&json!("a"), 9), field(&json!(500), 9)), ("a".to_owned(), "500".to_owned()));
        assert_eq!((field(&json!(null), 9), field(&json!(""), 9)), ("–".to_owned(), "–".to_owned()));
        assert_eq!((count(&json!(1_234_567)), count(&json!(null))), ("1,234,567".to_owned(), "0".to_owned()));
        assert_eq!(
            (dead_letters(1), dead_letters(1000)),
            ("1 dead letter".to_owned(), "1,000 dead letters".to_owned())
        );
        assert_eq!(time(&json!("2026-11-22T03:04:05.678Z")), "2026-11-22T03:04:05Z");
        assert_eq!(time(&json!("2026-11-22T03:04:05Z")), "2026-11-22T03:04:05Z");
        assert_eq!(time(&json!(null)), "–");
    }

    #[test]
    fn words_for_a_shell() {
        for (text, word) in
            [("dl_a-B_9", "dl_a-B_9"), ("Welcome Message", "'Welcome Message'"), ("", "''"), ("it's", "'it'\\''s'")]
        {
            assert_eq!(shell_word(text), word);
        }
    }
}
