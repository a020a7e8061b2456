//! Typed access to the values of a JSON document. Each [`JsonNode`] has its path, and reports violations with this path.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::fmt::Write as _;
use std::hash::Hash;
use std::ops::RangeInclusive;
use std::time::Duration;

use chrono::{DateTime, Utc};
use serde_json::{Map, Value};

use crate::duration::{self, TextDuration};
use crate::suggestion::closest;
use crate::timestamp;
use crate::violation::{Violation, type_name};

/// Maximum number of violations that are kept. Further violations are only counted: 1 MiB can have half a million.
pub(super) const MAX_VIOLATIONS: usize = 1000;

/// Maximum size of the kept violations, because each path repeats the names of all its parents.
pub(super) const MAX_VIOLATION_BYTES: usize = 512 * 1024;

/// Maximum number of characters of a text from the document that paths and messages show.
const MAX_SHOWN_CHARS: usize = 80;

/// The violations found so far. All nodes of a document share them, so the fields are cells.
#[derive(Default)]
pub(super) struct DocumentViolations {
    list: RefCell<Vec<Violation>>,
    bytes: Cell<usize>,
    omitted: Cell<usize>,
}

impl DocumentViolations {
    /// `path` is only called if the violation is kept.
    pub(super) fn report(&self, path: impl FnOnce() -> String, message: impl Into<String>) {
        let mut list = self.list.borrow_mut();
        if list.len() < MAX_VIOLATIONS && self.bytes.get() < MAX_VIOLATION_BYTES {
            let violation = Violation::new(path(), message);
            self.bytes.set(self.bytes.get() + violation.path.len() + violation.message.len());
            list.push(violation);
        } else {
            self.omitted.set(self.omitted.get() + 1);
        }
    }

    /// Returns `read` if there is no violation.
    ///
    /// # Errors
    /// All violations.
    pub(super) fn into_result<T>(self, read: Option<T>) -> Result<T, Vec<Violation>> {
        let mut violations = self.list.into_inner();
        match (read, self.omitted.get()) {
            (Some(read), 0) if violations.is_empty() => Ok(read),
            (_, 0) => Err(violations),
            (_, omitted) => {
                violations.push(Violation::new("$", format!("{omitted} more errors are not listed: fix these first")));
                Err(violations)
            }
        }
    }
}

/// A value of the document with its path.
pub(super) struct JsonNode<'a> {
    value: &'a Value,
    path: String,
    violations: &'a DocumentViolations,
}

impl<'a> JsonNode<'a> {
    pub(super) fn root(value: &'a Value, violations: &'a DocumentViolations) -> Self {
        Self { value, path: "$".to_owned(), violations }
    }

    pub(super) fn value(&self) -> &'a Value {
        self.value
    }

    pub(super) fn report(&self, message: impl Into<String>) {
        self.violations.report(|| self.path.clone(), message);
    }

    /// Reports a violation and returns `None`.
    pub(super) fn refuse<T>(&self, message: impl Into<String>) -> Option<T> {
        self.report(message);
        None
    }

    pub(super) fn expected<T>(&self, what: &str) -> Option<T> {
        self.refuse(format!("expected {what}, found {}", type_name(self.value)))
    }

    /// An object that may only have the `known` fields. `what` names the object: "a section".
    pub(super) fn object(&self, what: &str, known: &[&str]) -> Option<JsonObject<'a>> {
        let object = self.any_object(what)?;
        for (name, field) in object.fields().filter(|(name, _)| !known.contains(name)) {
            let name = shortened(name);
            field.report(match closest(&name, known.iter().copied()) {
                Some(closest) => format!("unknown field `{name}`: did you mean `{closest}`?"),
                None => format!("unknown field `{name}`: {what} has {}; remove it", quoted_list(known)),
            });
        }
        Some(object)
    }

    /// An object that may have any fields.
    pub(super) fn any_object(&self, what: &str) -> Option<JsonObject<'a>> {
        match self.value {
            Value::Object(fields) => Some(JsonObject { path: self.path.clone(), fields, violations: self.violations }),
            _ => self.expected(&format!("{what} (an object)")),
        }
    }

    pub(super) fn items(&self) -> Option<impl Iterator<Item = JsonNode<'a>> + use<'a>> {
        let Value::Array(items) = self.value else {
            return self.expected("an array");
        };
        let (path, violations) = (self.path.clone(), self.violations);
        Some(items.iter().enumerate().map(move |(i, value)| JsonNode {
            value,
            path: format!("{path}[{i}]"),
            violations,
        }))
    }

    pub(super) fn text(&self) -> Option<&'a str> {
        self.value.as_str().or_else(|| self.expected("a string"))
    }

    /// Text whose length in characters is in `range`.
    pub(super) fn text_of_length(&self, range: RangeInclusive<usize>) -> Option<&'a str> {
        let text = self.text()?;
        if range.contains(&text.chars().count()) {
            return Some(text);
        }
        self.refuse(format!("must have {} to {} characters", range.start(), range.end()))
    }

    pub(super) fn text_not_blank(&self) -> Option<&'a str> {
        let text = self.text()?;
        if text.trim().is_empty() { self.refuse("must not be empty") } else { Some(text) }
    }

    pub(super) fn one_of<T: Copy>(&self, choices: &[(&str, T)]) -> Option<T> {
        let text = self.text()?;
        if let Some((_, choice)) = choices.iter().find(|(name, _)| *name == text) {
            return Some(*choice);
        }
        let names: Vec<_> = choices.iter().map(|(name, _)| *name).collect();
        self.refuse(format!("must be one of {}", quoted_list(&names)))
    }

    pub(super) fn boolean(&self) -> Option<bool> {
        self.value.as_bool().or_else(|| self.expected("true or false"))
    }

    pub(super) fn whole_number<T: TryFrom<u64> + PartialOrd + std::fmt::Display>(
        &self,
        range: RangeInclusive<T>,
    ) -> Option<T> {
        let Value::Number(number) = self.value else {
            return self.expected("a whole number");
        };
        number
            .as_u64()
            .and_then(|number| T::try_from(number).ok())
            .filter(|number| range.contains(number))
            .or_else(|| self.refuse(format!("must be a whole number from {} to {}", range.start(), range.end())))
    }

    /// A number for which `accepted` returns true. `what` describes these numbers.
    pub(super) fn number(&self, what: &str, accepted: impl Fn(f64) -> bool) -> Option<f64> {
        let Value::Number(number) = self.value else {
            return self.expected("a number");
        };
        // `as_f64` returns `None` for numbers that are too large for a float.
        number.as_f64().filter(|number| accepted(*number)).or_else(|| self.refuse(format!("must be a number {what}")))
    }

    pub(super) fn time(&self) -> Option<DateTime<Utc>> {
        let time = timestamp::parse(self.text()?).ok();
        time.or_else(|| self.refuse("must be an RFC 3339 date, like 2024-06-18T23:26:14.206Z"))
    }

    pub(super) fn duration(&self, range: RangeInclusive<Duration>) -> Option<TextDuration> {
        let text = self.text_of_length(1..=MAX_SHOWN_CHARS)?;
        match TextDuration::parse(text) {
            Ok(duration) if range.contains(&duration.value()) => Some(duration),
            Ok(_) => {
                let (shortest, longest) = (duration::text(*range.start()), duration::text(*range.end()));
                self.refuse(format!("must be a duration from {shortest} to {longest}"))
            }
            Err(message) => self.refuse(message),
        }
    }
}

/// An object of the document.
pub(super) struct JsonObject<'a> {
    path: String,
    fields: &'a Map<String, Value>,
    violations: &'a DocumentViolations,
}

impl<'a> JsonObject<'a> {
    /// The field, or `None` if it is absent or null.
    pub(super) fn get(&self, name: &str) -> Option<JsonNode<'a>> {
        let value = self.fields.get(name).filter(|value| !value.is_null())?;
        Some(JsonNode { value, path: field_path(&self.path, name), violations: self.violations })
    }

    pub(super) fn require(&self, name: &str) -> Option<JsonNode<'a>> {
        let field = self.get(name);
        if field.is_none() {
            self.missing(name, "it is required");
        }
        field
    }

    pub(super) fn missing(&self, name: &str, message: &str) {
        self.violations.report(|| field_path(&self.path, name), format!("missing; {message}"));
    }

    pub(super) fn fields(&self) -> impl Iterator<Item = (&'a str, JsonNode<'a>)> {
        self.fields.iter().map(|(name, value)| {
            (name.as_str(), JsonNode { value, path: field_path(&self.path, name), violations: self.violations })
        })
    }
}

/// The path of the first occurrence of each key, to refuse duplicates.
pub(super) struct FirstPaths<K>(HashMap<K, String>);

// Not derived, because the derived implementation requires `K: Default`.
impl<K> Default for FirstPaths<K> {
    fn default() -> Self {
        Self(HashMap::new())
    }
}

impl<K: Eq + Hash> FirstPaths<K> {
    /// Records the path of `key`, or reports a violation if `key` occurred before. `message` builds the message from
    /// the first path.
    pub(super) fn refuse_duplicate(&mut self, key: K, node: &JsonNode<'_>, message: impl Fn(&str) -> String) {
        match self.0.entry(key) {
            Entry::Occupied(first) => node.report(message(first.get())),
            Entry::Vacant(slot) => {
                slot.insert(node.path.clone());
            }
        }
    }
}

/// `path.name`, or `path["a name"]` if the name is not an identifier.
pub(super) fn field_path(path: &str, name: &str) -> String {
    let name = shortened(name);
    let mut path = path.to_owned();
    let is_identifier = !name.starts_with(|c: char| c.is_ascii_digit())
        && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
        && !name.is_empty();
    // Writing to a string can't fail.
    let _ = if is_identifier { write!(path, ".{name}") } else { write!(path, "[{}]", Value::from(name)) };
    path
}

/// Cuts a text of the document after [`MAX_SHOWN_CHARS`].
pub(super) fn shortened(text: &str) -> String {
    match text.char_indices().nth(MAX_SHOWN_CHARS) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}

/// `a`, `b` and `c`.
pub(super) fn quoted_list(names: &[&str]) -> String {
    let quoted: Vec<_> = names.iter().map(|name| format!("`{name}`")).collect();
    match quoted.split_last() {
        Some((last, [])) => last.clone(),
        Some((last, rest)) => format!("{} and {last}", rest.join(", ")),
        None => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_are_not_identifiers_are_quoted_in_paths() {
        for (name, path) in [
            ("url", "$.url"),
            ("X_9", "$.X_9"),
            ("X-Api-Key", r#"$["X-Api-Key"]"#),
            ("9", r#"$["9"]"#),
            ("", r#"$[""]"#),
            ("a\"\n", r#"$["a\"\n"]"#),
        ] {
            assert_eq!(field_path("$", name), path);
        }
    }
}
