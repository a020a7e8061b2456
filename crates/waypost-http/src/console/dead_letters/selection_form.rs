//! The selection of dead letters in a form: ticked ids, or all that match a filter. Hidden fields carry it from page to
//! page.

use chrono::{TimeDelta, Utc};
use serde_json::Value;
use waypost_core::dead_letter::filter::LetterFilter;
use waypost_core::dead_letter::selection::Selection;
use waypost_core::ids::DeadLetterId;
use waypost_core::violation::Violation;

use super::super::super::ApiState;
use super::super::super::problem::Problem;
use super::super::form::Form;
use super::super::labels;
use super::super::layout::CSRF_FIELD;
use super::super::links;
use crate::dead_letters::{count_letters, query};

/// Fields of forms with a selection, besides the fields of the filter.
const OTHER_FIELDS: [&str; 9] =
    [CSRF_FIELD, "which", "id", "cursor", "limit", "because", "ratePerSecond", "stopOnFailureRatio", "config"];

#[derive(Debug, Clone)]
pub(in super::super) struct SelectionForm(pub(in super::super) Selection);

impl SelectionForm {
    /// Reads a form. The field `which` says whether the selection is the `id`s or the filter. Without `which`, the
    /// `id`s are used if there are any, and otherwise the filter.
    ///
    /// # Errors
    /// Violations of the filter or the ids, and unknown fields: if an unknown condition was ignored, more letters would
    /// be selected than intended.
    pub(in super::super) fn read(form: &Form) -> Result<Self, Vec<Violation>> {
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
    pub(in super::super) fn is_empty(form: &Form) -> bool {
        form.get("which") == "ids" && !form.has("id")
    }

    /// Limits the selection to letters that exist now, and counts them. Letters that are created after the confirmation
    /// was shown are then not changed by it.
    ///
    /// # Errors
    /// If the view can't be read.
    pub(in super::super) async fn bounded(self, state: &ApiState) -> Result<(Self, u64), Problem> {
        match self.0 {
            Selection::Ids(ids) => {
                let count = ids.len() as u64;
                Ok((Self(Selection::Ids(ids)), count))
            }
            Selection::Filter(filter) => {
                let tally = count_letters(state, filter.or_pending()).await?;
                // `until` is exclusive, and times have milliseconds. The newest letter may have the clock of another
                // machine.
                let newest = tally.span.and_then(|(_, newest)| chrono::DateTime::from_timestamp_millis(newest));
                let end = newest.unwrap_or_else(Utc::now).checked_add_signed(TimeDelta::milliseconds(1));
                Ok((
                    Self(Selection::Filter(LetterFilter { until: filter.until.min(end).or(end), ..filter })),
                    tally.total,
                ))
            }
        }
    }

    /// Hidden fields that [`read`](Self::read) turns into the same selection.
    pub(in super::super) fn fields(&self) -> Vec<(&'static str, String)> {
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

    pub(in super::super) fn describe(&self) -> String {
        labels::describe_selection(&self.0)
    }

    /// The page the user came from: the list with the same filter, or the page of the letter.
    pub(in super::super) fn back_href(&self) -> String {
        match &self.0 {
            Selection::Ids(ids) if ids.len() == 1 => links::dead_letter(&ids[0]),
            Selection::Ids(_) => "/dead-letters".to_owned(),
            Selection::Filter(filter) => links::letter_list(filter),
        }
    }
}
