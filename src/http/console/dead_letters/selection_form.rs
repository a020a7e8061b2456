//! Which letters a form is about: some that were ticked, or all that a filter matches. The fields that say so travel in the
//! form's body.

use chrono::{TimeDelta, Utc};
use serde_json::Value;

use super::super::super::ApiState;
use super::super::super::problem::Problem;
use super::super::form::Form;
use super::super::labels;
use super::super::layout::CSRF_FIELD;
use super::super::links;
use crate::delivery::dead_letter::filter::LetterFilter;
use crate::delivery::dead_letter::selection::Selection;
use crate::delivery::ids::DeadLetterId;
use crate::delivery::violation::Violation;
use crate::http::dead_letters::{query, tally};

/// Fields of the forms that pick letters, beside those of the filter.
const OTHER_FIELDS: [&str; 9] =
    [CSRF_FIELD, "which", "id", "cursor", "limit", "because", "ratePerSecond", "stopOnFailureRatio", "config"];

/// The letters that were picked.
#[derive(Debug, Clone)]
pub(in super::super) struct SelectionForm(pub(in super::super) Selection);

impl SelectionForm {
    /// Reads a form: `which` says whether it means its `id`s or the filter in it. An address that says neither means the
    /// `id`s it has, or else the filter; one that has a name that is none of these means nothing at all: what it was to
    /// leave out would be picked with the rest.
    ///
    /// # Errors
    /// The faults.
    pub(in super::super) fn read(form: &Form) -> Result<Self, Vec<Violation>> {
        let known = |name: &str| LetterFilter::FIELDS.contains(&name) || OTHER_FIELDS.contains(&name);
        if let Some(unknown) = form.names().find(|name| !known(name)) {
            return Err(vec![Violation::new(format!("$.{unknown}"), "is none of the fields of a filter")]);
        }
        if form.get("which") == "ids" || !form.has("which") && form.has("id") {
            let ids = form.all("id").map(DeadLetterId::new).collect();
            return Selection::read(Some(ids), None).map(Self);
        }
        let given =
            LetterFilter::FIELDS.into_iter().filter_map(|name| Some((name.to_owned(), form.given(name)?.to_owned())));
        let filter = query::filter(given)?;
        let fields = match serde_json::to_value(filter) {
            Ok(Value::Object(fields)) => fields,
            // A filter is written as an object.
            _ => serde_json::Map::new(),
        };
        Selection::read(None, Some(fields)).map(Self)
    }

    /// Whether a form means letters that were ticked, and none were.
    pub(in super::super) fn is_empty(form: &Form) -> bool {
        form.get("which") == "ids" && !form.has("id")
    }

    /// The same letters and no later ones, and how many they are: what is asked about is what is done. Those that die
    /// meanwhile were not meant.
    ///
    /// # Errors
    /// Where the view can't be read.
    pub(in super::super) async fn bounded(self, http: &ApiState) -> Result<(Self, u64), Problem> {
        match self.0 {
            Selection::Ids(ids) => {
                let count = ids.len() as u64;
                Ok((Self(Selection::Ids(ids)), count))
            }
            Selection::Filter(filter) => {
                let tally = tally(http, filter.or_pending()).await?;
                // `until` is exclusive, and times have milliseconds. By the letters' clock, which may not be ours.
                let newest = tally.span.and_then(|(_, newest)| chrono::DateTime::from_timestamp_millis(newest));
                let end = newest.unwrap_or_else(Utc::now).checked_add_signed(TimeDelta::milliseconds(1));
                Ok((
                    Self(Selection::Filter(LetterFilter { until: filter.until.min(end).or(end), ..filter })),
                    tally.total,
                ))
            }
        }
    }

    /// The fields of a form that say the same.
    pub(in super::super) fn fields(&self) -> Vec<(&'static str, String)> {
        match &self.0 {
            Selection::Ids(ids) => {
                let ids = ids.iter().map(|id| ("id", id.to_string()));
                std::iter::once(("which", "ids".to_owned())).chain(ids).collect()
            }
            Selection::Filter(filter) => {
                let mut fields = query::fields(filter);
                fields.push(("which", "filter".to_owned()));
                fields
            }
        }
    }

    /// Which they are.
    pub(in super::super) fn in_words(&self) -> String {
        labels::which(&self.0)
    }

    /// Where they came from: the list with the same filter, or the letter itself.
    pub(in super::super) fn back(&self) -> String {
        match &self.0 {
            Selection::Ids(ids) if ids.len() == 1 => links::dead_letter(&ids[0]),
            Selection::Ids(_) => "/dead-letters".to_owned(),
            Selection::Filter(filter) => labels::list_of(filter),
        }
    }
}
