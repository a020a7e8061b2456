//! Selects the dead letters of a replay or a discard: by ids, or by a filter.

use std::collections::HashSet;

use serde_json::{Map, Value};

use super::LetterState;
use super::filter::LetterFilter;
use crate::ids::DeadLetterId;
use crate::violation::Violation;

pub const MAX_IDS: usize = 10_000;

#[derive(Debug, Clone, PartialEq)]
pub enum Selection {
    /// Without duplicates.
    Ids(Vec<DeadLetterId>),
    /// If the filter has no state, only [pending](LetterFilter::or_pending) letters are selected.
    Filter(LetterFilter),
}

impl Selection {
    /// Reads the fields `ids` and `filter`. Exactly one of them must be present.
    ///
    /// # Errors
    /// All violations.
    pub fn read(ids: Option<Vec<DeadLetterId>>, filter: Option<Map<String, Value>>) -> Result<Self, Vec<Violation>> {
        let violation = |path: &str, message: &str| Err(vec![Violation::new(path, message)]);
        match (ids, filter) {
            (None, None) => violation(
                "$",
                "has neither `ids` nor `filter`: add one of them. An empty filter selects all pending dead letters",
            ),
            (Some(_), Some(_)) => violation("$", "has both `ids` and `filter`: remove one of them"),
            (Some(ids), None) if ids.is_empty() => violation("$.ids", "is empty: add the id of a dead letter"),
            (Some(ids), None) if ids.len() > MAX_IDS => {
                violation("$.ids", &format!("has more than {MAX_IDS} ids: use a filter instead"))
            }
            (Some(ids), None) => {
                let mut seen = HashSet::new();
                Ok(Self::Ids(ids.into_iter().filter(|id| seen.insert(id.clone())).collect()))
            }
            (None, Some(fields)) => match LetterFilter::read(fields, "$.filter")? {
                LetterFilter { state: Some(LetterState::Replaying), .. } => violation(
                    "$.filter.state",
                    "letters that are being replayed cannot be selected: wait for that replay, or cancel it",
                ),
                filter => Ok(Self::Filter(filter)),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_selection_has_ids_or_a_filter() {
        let ids = |ids: &[&str]| Some(ids.iter().map(|id| DeadLetterId::new(*id)).collect::<Vec<_>>());
        let fields = |filter: Value| filter.as_object().cloned();
        let path = |selection: Result<Selection, Vec<Violation>>| selection.expect_err("a violation")[0].path.clone();
        assert_eq!(path(Selection::read(None, None)), "$");
        assert_eq!(path(Selection::read(ids(&["a"]), fields(json!({})))), "$");
        assert_eq!(path(Selection::read(ids(&[]), None)), "$.ids");
        assert_eq!(path(Selection::read(None, fields(json!({ "state": "replaying" })))), "$.filter.state");
        assert_eq!(path(Selection::read(None, fields(json!({ "status": "x" })))), "$.filter.status");
        assert_eq!(Selection::read(ids(&["a", "b", "a"]), None), Ok(Selection::Ids(ids(&["a", "b"]).expect("ids"))));
        let selection = Selection::read(None, fields(json!({}))).expect("a selection");
        assert_eq!(selection, Selection::Filter(LetterFilter::default()));
    }
}
