//! A lost race, as its loser sees it: who changed what since the page was opened.

use super::form::EntryForm;
use crate::http::console::campaigns::Changed;
use crate::store::ChangeAuthor;

/// What somebody else has changed.
pub(super) struct Conflict {
    pub(super) changed: Option<Changed>,
    pub(super) fields: Vec<Difference>,
}

/// A field that is not as it was.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Difference {
    pub(super) field: String,
    pub(super) was: String,
    pub(super) is: String,
    pub(super) yours: String,
}

impl Conflict {
    /// `changed` is who changed the place since then, where that is known, `base` what the page was opened on, `now` what is
    /// stored, `yours` what is in the form.
    pub(super) fn new(changed: Option<&ChangeAuthor>, base: &EntryForm, now: &EntryForm, yours: &EntryForm) -> Self {
        Self { changed: changed.map(Changed::from), fields: differences(base, now, yours) }
    }
}

fn differences(base: &EntryForm, now: &EntryForm, yours: &EntryForm) -> Vec<Difference> {
    let (base, now, yours) = (base.named(), now.named(), yours.named());
    let value = |fields: &[(String, String)], name: &str| {
        fields.iter().find(|(field, _)| field == name).map_or_else(String::new, |(_, value)| value.clone())
    };
    let mut names: Vec<&String> = base.iter().chain(&now).map(|(name, _)| name).collect();
    let mut seen = std::collections::HashSet::new();
    names.retain(|name| seen.insert(*name));
    let differences = names.into_iter().map(|name| Difference {
        field: name.clone(),
        was: value(&base, name),
        is: value(&now, name),
        yours: value(&yours, name),
    });
    differences.filter(|difference| difference.was != difference.is).collect()
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
    fn what_somebody_else_has_changed_is_told_beside_ones_own() {
        let (base, now) = (fields("Plans", &[("a", "1")]), fields("Offers", &[("b", "2")]));
        let differences = differences(&base, &now, &fields("Prices", &[("a", "1")]));
        let told: Vec<_> = differences.iter().map(|it| [&*it.field, &*it.was, &*it.is, &*it.yours]).collect();
        assert_eq!(
            told,
            [["Menu Text", "Plans", "Offers", "Prices"], ["Header a", "1", "", "1"], ["Header b", "", "2", ""]]
        );
    }
}
