//! Naming dead letters for a replay or a discard: by their ids, or by a filter.

use std::collections::HashSet;

use serde_json::{Map, Value};

use super::LetterState;
use super::filter::LetterFilter;
use crate::delivery::ids::DeadLetterId;
use crate::delivery::violation::Violation;

/// The most letters that can be named by their ids. More are chosen by a filter.
pub const MAX_IDS: usize = 10_000;

/// Which dead letters.
#[derive(Debug, Clone, PartialEq)]
pub enum Selection {
    /// These, each once.
    Ids(Vec<DeadLetterId>),
    /// Those that it matches; where it names no state, of these the [pending](LetterFilter::or_pending) ones.
    Filter(LetterFilter),
}

impl Selection {
    /// Reads the fields `ids` and `filter`, of which there must be one.
    ///
    /// # Errors
    /// All faults at once.
    pub fn read(ids: Option<Vec<DeadLetterId>>, filter: Option<Map<String, Value>>) -> Result<Self, Vec<Violation>> {
        let fault = |path: &str, message: &str| Err(vec![Violation::new(path, message)]);
        match (ids, filter) {
            (None, None) => fault("$", "says neither `ids` nor `filter`: an empty filter takes all that are pending"),
            (Some(_), Some(_)) => fault("$", "says `ids` and `filter`: send one of them"),
            (Some(ids), None) if ids.is_empty() => fault("$.ids", "names no dead letter"),
            (Some(ids), None) if ids.len() > MAX_IDS => {
                fault("$.ids", &format!("names more than {MAX_IDS} dead letters: use a filter"))
            }
            (Some(ids), None) => {
                let mut seen = HashSet::new();
                Ok(Self::Ids(ids.into_iter().filter(|id| seen.insert(id.clone())).collect()))
            }
            (None, Some(fields)) => match LetterFilter::read(fields, "$.filter")? {
                LetterFilter { state: Some(LetterState::Replaying), .. } => {
                    fault("$.filter.state", "what is being replayed is taken already; wait, or cancel that replay")
                }
                filter => Ok(Self::Filter(filter)),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn one_of_both() {
        let ids = |ids: &[&str]| Some(ids.iter().map(|id| DeadLetterId::new(*id)).collect::<Vec<_>>());
        let fields = |filter: Value| filter.as_object().cloned();
        let path = |choice: Result<Selection, Vec<Violation>>| choice.expect_err("a choice")[0].path.clone();
        assert_eq!(path(Selection::read(None, None)), "$");
        assert_eq!(path(Selection::read(ids(&["a"]), fields(json!({})))), "$");
        assert_eq!(path(Selection::read(ids(&[]), None)), "$.ids");
        assert_eq!(path(Selection::read(None, fields(json!({ "state": "replaying" })))), "$.filter.state");
        assert_eq!(path(Selection::read(None, fields(json!({ "status": "x" })))), "$.filter.status");
        assert_eq!(Selection::read(ids(&["a", "b", "a"]), None), Ok(Selection::Ids(ids(&["a", "b"]).expect("ids"))));
        let all = Selection::read(None, fields(json!({}))).expect("a choice");
        assert_eq!(all, Selection::Filter(LetterFilter::default()));
    }
}
