//! Names given twice in one object. JSON readers keep the last one and say nothing: a header or a webhook would be lost.

use std::collections::HashSet;
use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor};

use super::json_cursor::{Faults, with_field};

/// Reports each second field of a name in `text`, which is valid JSON.
pub(super) fn refuse(text: &str, faults: &Faults) {
    let search = Search { path: Path::Root, faults };
    if let Err(error) = search.deserialize(&mut serde_json::Deserializer::from_str(text)) {
        faults.add(|| "$".to_owned(), format!("not JSON that can be read: {error}"));
    }
}

/// A way into the document. It is written out only for a fault: a body may have half a million values.
#[derive(Clone, Copy)]
enum Path<'p> {
    Root,
    Field(&'p Path<'p>, &'p str),
    Item(&'p Path<'p>, usize),
}

impl Path<'_> {
    fn text(&self) -> String {
        match self {
            Self::Root => "$".to_owned(),
            Self::Field(parent, name) => with_field(&parent.text(), name),
            Self::Item(parent, index) => format!("{}[{index}]", parent.text()),
        }
    }
}

/// Reads a value for nothing but the names in it.
struct Search<'p> {
    path: Path<'p>,
    faults: &'p Faults,
}

impl<'de> DeserializeSeed<'de> for Search<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Search<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    // A number may come here as well: with arbitrary precision, serde_json gives some as an object of one field.
    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        let mut names = HashSet::new();
        while let Some(name) = map.next_key::<String>()? {
            let path = Path::Field(&self.path, &name);
            if names.contains(&name) {
                self.faults.add(|| path.text(), "given twice: remove one");
            }
            map.next_value_seed(Search { path, faults: self.faults })?;
            names.insert(name);
        }
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<(), A::Error> {
        let item = |index| Search { path: Path::Item(&self.path, index), faults: self.faults };
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
