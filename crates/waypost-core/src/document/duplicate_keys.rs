//! Finds duplicate keys in objects. serde_json silently keeps the last value, so a header or a webhook could be lost.

use std::collections::HashSet;
use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor};

use super::json_cursor::{DocumentViolations, field_path};

/// Reports each duplicate key in `text`, which is valid JSON.
pub(super) fn refuse(text: &str, violations: &DocumentViolations) {
    let visitor = DuplicateKeyVisitor { path: Path::Root, violations };
    if let Err(error) = visitor.deserialize(&mut serde_json::Deserializer::from_str(text)) {
        violations.report(|| "$".to_owned(), format!("not valid JSON: {error}"));
    }
}

/// A JSON path. Only formatted for a violation, because a document can have half a million values.
#[derive(Clone, Copy)]
enum Path<'p> {
    Root,
    Field(&'p Path<'p>, &'p str),
    Item(&'p Path<'p>, usize),
}

impl Path<'_> {
    fn to_text(self) -> String {
        match self {
            Self::Root => "$".to_owned(),
            Self::Field(parent, name) => field_path(&parent.to_text(), name),
            Self::Item(parent, index) => format!("{}[{index}]", parent.to_text()),
        }
    }
}

struct DuplicateKeyVisitor<'p> {
    path: Path<'p>,
    violations: &'p DocumentViolations,
}

impl<'de> DeserializeSeed<'de> for DuplicateKeyVisitor<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for DuplicateKeyVisitor<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    // Also called for numbers: with `arbitrary_precision`, serde_json passes some as an object with one field.
    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        let mut names = HashSet::new();
        while let Some(name) = map.next_key::<String>()? {
            let path = Path::Field(&self.path, &name);
            if names.contains(&name) {
                self.violations.report(|| path.to_text(), "given twice: remove one");
            }
            map.next_value_seed(DuplicateKeyVisitor { path, violations: self.violations })?;
            names.insert(name);
        }
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<(), A::Error> {
        let item = |index| DuplicateKeyVisitor { path: Path::Item(&self.path, index), violations: self.violations };
        let mut index = 0;
        while seq.next_element_seed(item(index))?.is_some() {
            index += 1;
        }
        Ok(())
    }

    fn visit_u64<E>(self, _: u64) -> Result<(), E> {
        Ok(())
    }

    fn visit_i64<E>(self, _: i64) -> Result<(), E> {
        Ok(())
    }

    fn visit_f64<E>(self, _: f64) -> Result<(), E> {
        Ok(())
    }

    fn visit_str<E>(self, _: &str) -> Result<(), E> {
        Ok(())
    }

    fn visit_bool<E>(self, _: bool) -> Result<(), E> {
        Ok(())
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
    }
}
