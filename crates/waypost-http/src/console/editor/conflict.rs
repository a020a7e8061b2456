//! An edit conflict: what another user changed after the page was opened.

use waypost_store::ChangeAuthor;

use super::form::EntryForm;
use crate::console::campaigns::LastChange;

pub(super) struct Conflict {
    pub(super) last_change: Option<LastChange>,
    pub(super) fields: Vec<Difference>,
}

/// A field whose stored value has changed.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Difference {
    pub(super) field: String,
    /// The value when the page was opened.
    pub(super) base: String,
    /// The value that is stored now.
    pub(super) stored: String,
    /// The value in the form.
    pub(super) yours: String,
}

impl Conflict {
    /// `last_change` is the last change of the place since the page was opened, if it is known. `base` has the values
    /// when the page was opened, `stored` those of now, and `yours` those in the form.
    pub(super) fn new(
        last_change: Option<&ChangeAuthor>,
        base: &EntryForm,
        stored: &EntryForm,
        yours: &EntryForm,
    ) -> Self {
        Self { last_change: last_change.map(LastChange::from), fields: differences(base, stored, yours) }
    }
}

fn differences(base: &EntryForm, stored: &EntryForm, yours: &EntryForm) -> Vec<Difference> {
    let (base, stored, yours) = (base.labeled_values(), stored.labeled_values(), yours.labeled_values());
    let value = |fields: &[(String, String)], name: &str| {
        fields.iter().find(|(field, _)| field == name).map_or_else(String::new, |(_, value)| value.clone())
    };
    let mut names: Vec<&String> = base.iter().chain(&stored).map(|(name, _)| name).collect();
    let mut seen_names = std::collections::HashSet::new();
    names.retain(|name| seen_names.insert(*name));
    let differences = names.into_iter().map(|name| Difference {
        field: name.clone(),
        base: value(&base, name),
        stored: value(&stored, name),
        yours: value(&yours, name),
    });
    differences.filter(|difference| difference.base != difference.stored).collect()
}

#[cfg(test)]
mod tests {
    use super::super::form::{Header, WebhookFields};
    use super::*;

    fn fields(option: &str, headers: &[(&str, &str)]) -> EntryForm {
        let headers =
            headers.iter().map(|(name, value)| Header { name: (*name).to_owned(), value: (*value).to_owned() });
        let webhook = WebhookFields { headers: headers.collect(), ..WebhookFields::default() };
        EntryForm { option: option.to_owned(), has_webhook: true, webhook, ..EntryForm::default() }
    }

    #[test]
    fn changes_of_another_user_are_listed_beside_ones_own() {
        let (base, stored) = (fields("Plans", &[("a", "1")]), fields("Offers", &[("b", "2")]));
        let differences = differences(&base, &stored, &fields("Prices", &[("a", "1")]));
        let rows: Vec<_> = differences
            .iter()
            .map(|difference| [&*difference.field, &*difference.base, &*difference.stored, &*difference.yours])
            .collect();
        assert_eq!(
            rows,
            [["Menu Text", "Plans", "Offers", "Prices"], ["Header a", "1", "", "1"], ["Header b", "", "2", ""]]
        );
    }
}
