//! Typed access to a document's values. Each value knows its path, and tells at once what is wrong with it.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::fmt::Write as _;
use std::hash::Hash;
use std::ops::RangeInclusive;
use std::time::Duration;

use chrono::{DateTime, Utc};
use serde_json::{Map, Value};

use super::super::duration::{self, TextDuration};
use super::super::timestamp;
use super::super::violation::{Violation, type_name};

/// The most faults that are kept of one document. More are counted only: a megabyte has room for half a million.
pub(super) const MAX_FAULTS: usize = 1000;

/// After so many bytes of them no more are kept either: a path repeats all the names above it, and they can be long.
pub(super) const MAX_FAULT_BYTES: usize = 512 * 1024;

/// The most characters that paths and messages show of a text taken from the document.
const MAX_SHOWN_CHARS: usize = 80;

/// The faults found so far. Shared by all nodes of a document, hence the cells.
#[derive(Default)]
pub(super) struct Faults {
    found: RefCell<Vec<Violation>>,
    bytes: Cell<usize>,
    left_out: Cell<usize>,
}

impl Faults {
    /// `path` is asked for only where the fault is kept.
    pub(super) fn add(&self, path: impl FnOnce() -> String, message: impl Into<String>) {
        let mut found = self.found.borrow_mut();
        if found.len() < MAX_FAULTS && self.bytes.get() < MAX_FAULT_BYTES {
            let fault = Violation::new(path(), message);
            self.bytes.set(self.bytes.get() + fault.path.len() + fault.message.len());
            found.push(fault);
        } else {
            self.left_out.set(self.left_out.get() + 1);
        }
    }

    /// What was read, if nothing is wrong with it.
    pub(super) fn none_or<T>(self, read: Option<T>) -> Result<T, Vec<Violation>> {
        let mut faults = self.found.into_inner();
        match (read, self.left_out.get()) {
            (Some(read), 0) if faults.is_empty() => Ok(read),
            (_, 0) => Err(faults),
            (_, left_out) => {
                faults.push(Violation::new("$", format!("{left_out} more faults are not listed: mend these first")));
                Err(faults)
            }
        }
    }
}

/// A value of the document, at its path.
pub(super) struct Node<'a> {
    value: &'a Value,
    path: String,
    faults: &'a Faults,
}

impl<'a> Node<'a> {
    pub(super) fn root(value: &'a Value, faults: &'a Faults) -> Self {
        Self { value, path: "$".to_owned(), faults }
    }

    pub(super) fn value(&self) -> &'a Value {
        self.value
    }

    pub(super) fn fault(&self, message: impl Into<String>) {
        self.faults.add(|| self.path.clone(), message);
    }

    /// A fault, in place of what could not be read.
    pub(super) fn refuse<T>(&self, message: impl Into<String>) -> Option<T> {
        self.fault(message);
        None
    }

    pub(super) fn expected<T>(&self, what: &str) -> Option<T> {
        self.refuse(format!("expected {what}, found {}", type_name(self.value)))
    }

    /// An object with no fields but the `known` ones. `what` it is, as in "a section".
    pub(super) fn object(&self, what: &str, known: &[&str]) -> Option<Object<'a>> {
        let object = self.names_to_values(what)?;
        for (name, field) in object.fields().filter(|(name, _)| !known.contains(name)) {
            let name = shortened(name);
            field.fault(match meant(&name, known) {
                Some(meant) => format!("unknown field `{name}`: did you mean `{meant}`?"),
                None => format!("unknown field `{name}`: {what} has {}; remove it", listed(known)),
            });
        }
        Some(object)
    }

    /// An object whose names are the author's own.
    pub(super) fn names_to_values(&self, what: &str) -> Option<Object<'a>> {
        match self.value {
            Value::Object(fields) => Some(Object { path: self.path.clone(), fields, faults: self.faults }),
            _ => self.expected(&format!("{what} (an object)")),
        }
    }

    pub(super) fn items(&self) -> Option<impl Iterator<Item = Node<'a>> + use<'a>> {
        let Value::Array(items) = self.value else {
            return self.expected("an array");
        };
        let (path, faults) = (self.path.clone(), self.faults);
        Some(items.iter().enumerate().map(move |(i, value)| Node { value, path: format!("{path}[{i}]"), faults }))
    }

    pub(super) fn text(&self) -> Option<&'a str> {
        self.value.as_str().or_else(|| self.expected("a string"))
    }

    /// Text whose length in characters is in `range`.
    pub(super) fn text_of(&self, range: RangeInclusive<usize>) -> Option<&'a str> {
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
        self.refuse(format!("must be one of {}", listed(&names)))
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

    /// A number for which `accepted` holds, which are those that `what` says.
    pub(super) fn number(&self, what: &str, accepted: impl Fn(f64) -> bool) -> Option<f64> {
        let Value::Number(number) = self.value else {
            return self.expected("a number");
        };
        // None where no float is as large; the numbers of a policy are finite.
        number.as_f64().filter(|number| accepted(*number)).or_else(|| self.refuse(format!("must be a number {what}")))
    }

    pub(super) fn time(&self) -> Option<DateTime<Utc>> {
        let time = timestamp::parse(self.text()?).ok();
        time.or_else(|| self.refuse("must be an RFC 3339 date, like 2024-06-18T23:26:14.206Z"))
    }

    pub(super) fn duration(&self, range: RangeInclusive<Duration>) -> Option<TextDuration> {
        let text = self.text_of(1..=MAX_SHOWN_CHARS)?;
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
pub(super) struct Object<'a> {
    path: String,
    fields: &'a Map<String, Value>,
    faults: &'a Faults,
}

impl<'a> Object<'a> {
    /// The field, if it is there. One that is null is as if it were not.
    pub(super) fn get(&self, name: &str) -> Option<Node<'a>> {
        let value = self.fields.get(name).filter(|value| !value.is_null())?;
        Some(Node { value, path: with_field(&self.path, name), faults: self.faults })
    }

    pub(super) fn require(&self, name: &str) -> Option<Node<'a>> {
        let field = self.get(name);
        if field.is_none() {
            self.missing(name, "it is required");
        }
        field
    }

    pub(super) fn missing(&self, name: &str, sentence: &str) {
        self.faults.add(|| with_field(&self.path, name), format!("missing; {sentence}"));
    }

    pub(super) fn fields(&self) -> impl Iterator<Item = (&'a str, Node<'a>)> {
        self.fields.iter().map(|(name, value)| {
            (name.as_str(), Node { value, path: with_field(&self.path, name), faults: self.faults })
        })
    }
}

/// Where each of some values was given first: what must differ is checked against it.
pub(super) struct FirstPlaces<K>(HashMap<K, String>);

// Derived, it would ask for keys that have a default.
impl<K> Default for FirstPlaces<K> {
    fn default() -> Self {
        Self(HashMap::new())
    }
}

impl<K: Eq + Hash> FirstPlaces<K> {
    /// Notes that `node` gives `key`. If another did before, that is a fault of this one; `sentence` makes it from
    /// the path of the first.
    pub(super) fn refuse_second(&mut self, key: K, node: &Node<'_>, sentence: impl Fn(&str) -> String) {
        match self.0.entry(key) {
            Entry::Occupied(first) => node.fault(sentence(first.get())),
            Entry::Vacant(place) => {
                place.insert(node.path.clone());
            }
        }
    }
}

/// `path.name`, or `path["a name"]` where the name is more than letters, digits and underscores.
pub(super) fn with_field(path: &str, name: &str) -> String {
    let name = shortened(name);
    let mut path = path.to_owned();
    let is_plain = !name.starts_with(|c: char| c.is_ascii_digit())
        && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
        && !name.is_empty();
    // Writing to a string can't fail.
    let _ = if is_plain { write!(path, ".{name}") } else { write!(path, "[{}]", Value::from(name)) };
    path
}

/// A text of the document, cut where it would flood an answer.
pub(super) fn shortened(text: &str) -> String {
    match text.char_indices().nth(MAX_SHOWN_CHARS) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}

/// `a`, `b` and `c`.
pub(super) fn listed(names: &[&str]) -> String {
    let quoted: Vec<_> = names.iter().map(|name| format!("`{name}`")).collect();
    match quoted.split_last() {
        Some((last, [])) => last.clone(),
        Some((last, rest)) => format!("{} and {last}", rest.join(", ")),
        None => String::new(),
    }
}

/// The known field an unknown one was probably meant to be: the closest, if it is close.
fn meant<'k>(name: &str, known: &[&'k str]) -> Option<&'k str> {
    let plain = |name: &str| name.to_lowercase().replace(['_', '-', ' '], "");
    let name = plain(name);
    let distances = known.iter().map(|known| (strsim::levenshtein(&name, &plain(known)), *known));
    let (distance, closest) = distances.min_by_key(|(distance, _)| *distance)?;
    // Two edits make any short name out of any other.
    let is_close = distance <= 2 && 2 * distance < closest.len();
    is_close.then_some(closest)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths() {
        for (name, path) in [
            ("url", "$.url"),
            ("X_9", "$.X_9"),
            ("X-Api-Key", r#"$["X-Api-Key"]"#),
            ("9", r#"$["9"]"#),
            ("", r#"$[""]"#),
            ("a\"\n", r#"$["a\"\n"]"#),
        ] {
            assert_eq!(with_field("$", name), path);
        }
    }

    #[test]
    fn what_an_unknown_field_was_meant_to_be() {
        let known = ["id", "url", "headers", "timeoutMs", "to"];
        for (name, expected) in [
            ("header", Some("headers")),
            ("Headers", Some("headers")),
            ("haeders", Some("headers")),
            ("timeout", Some("timeoutMs")),
            ("timeout_ms", Some("timeoutMs")),
            ("uri", Some("url")),
            ("ID", Some("id")),
            ("it", None),
            ("if", None),
            ("method", None),
            ("", None),
        ] {
            assert_eq!(meant(name, &known), expected, "{name}");
        }
    }
}
