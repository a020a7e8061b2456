//! The selection of dead letters in a form: ticked ids, or all that match a filter. Hidden fields carry it from page to
//! page.

use serde_json::Value;
use waypost_core::dead_letter::filter::LetterFilter;
use waypost_core::dead_letter::selection::Selection;
use waypost_core::ids::DeadLetterId;
use waypost_core::violation::Violation;

use crate::console::form::Form;
use crate::console::labels;
use crate::console::layout::CSRF_FIELD;
use crate::console::links;
use crate::dead_letters::query;

/// Fields of forms with a selection, besides the fields of the filter.
const OTHER_FIELDS: [&str; 9] =
    [CSRF_FIELD, "which", "id", "cursor", "limit", "because", "ratePerSecond", "stopOnFailureRatio", "config"];

#[derive(Debug, Clone)]
pub(in crate::console) struct SelectionForm(pub(in crate::console) Selection);

impl SelectionForm {
    /// Reads a form. The field `which` says whether the selection is the `id`s or the filter. Without `which`, the
    /// `id`s are used if there are any, and otherwise the filter.
    ///
    /// # Errors
    /// Violations of the filter or the ids, and unknown fields: if an unknown condition was ignored, more letters would
    /// be selected than intended.
    pub(in crate::console) fn read(form: &Form) -> Result<Self, Vec<Violation>> {
        let known = |name: &str| LetterFilter::FIELDS.contains(&name) || OTHER_FIELDS.contains(&name);
        if let Some(unknown) = form.names().find(|name| !known(name)) {
            return Err(vec![Violation::new(
                format!("$.{unknown}"),
                "Unknown field. Only fields of the filter are allowed.",
            )]);
        }
        if form.get("which") == "ids" || !form.has("which") && form.has("id") {
            let ids = form.get_all("id").map(DeadLetterId::new).collect();
            return Selection::read(Some(ids), None).map(Self);
        }
        let fields = LetterFilter::FIELDS
            .into_iter()
            .filter_map(|name| Some((name.to_owned(), form.get_non_blank(name)?.to_owned())));
        let filter = query::filter(fields)?;
        let fields = match serde_json::to_value(filter) {
            Ok(Value::Object(fields)) => fields,
            // A filter always serializes to an object.
            _ => serde_json::Map::new(),
        };
        Selection::read(None, Some(fields)).map(Self)
    }

    /// Whether the form selects ticked letters but none is ticked.
    pub(in crate::console) fn is_empty(form: &Form) -> bool {
        form.get("which") == "ids" && !form.has("id")
    }

    /// Hidden fields that [`read`](Self::read) turns into the same selection.
    pub(in crate::console) fn fields(&self) -> Vec<(&'static str, String)> {
        match &self.0 {
            Selection::Ids(ids) => {
                let ids = ids.iter().map(|id| ("id", id.to_string()));
                std::iter::once(("which", "ids".to_owned())).chain(ids).collect()
            }
            Selection::Filter(filter) => {
                let mut fields = filter.fields();
                fields.push(("which", "filter".to_owned()));
                fields
            }
        }
    }

    pub(in crate::console) fn describe(&self) -> String {
        labels::describe_selection(&self.0)
    }

    /// The page the user came from: the list with the same filter, or the page of the letter.
    pub(in crate::console) fn back_href(&self) -> String {
        match &self.0 {
            Selection::Ids(ids) if ids.len() == 1 => links::dead_letter(&ids[0]),
            Selection::Ids(_) => "/dead-letters".to_owned(),
            Selection::Filter(filter) => links::letter_list(filter),
        }
    }
}
