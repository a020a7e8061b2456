//! An edit conflict: what another user changed after the page was opened.

use waypost_store::StoredCampaign;

use super::form::EntryForm;
use crate::console::campaign_version;
use crate::console::edit_target::EditTarget;
use crate::console::form::Form;
use crate::console::last_change::LastChange;
use crate::problem::Problem;

/// A place as it was when the editor's page was opened. The form has it in hidden fields.
pub(super) struct OpenedPlace {
    /// The version of the campaign.
    pub(super) version: u64,
    pub(super) fields: EntryForm,
}

impl OpenedPlace {
    pub(super) fn from_form(form: &Form) -> Result<Self, Problem> {
        let fields = serde_json::from_str(form.get("base")).unwrap_or_default();
        Ok(Self { version: campaign_version::from_form(form)?, fields })
    }

    /// Whether the place is unchanged in this version of the campaign. `fields` are those of the place in it.
    pub(super) fn is_current(&self, version: u64, fields: Option<&EntryForm>) -> bool {
        version == self.version || fields == Some(&self.fields)
    }

    /// Checks that the place is unchanged in `stored`. `yours` are the fields to save.
    pub(super) fn check(
        &self,
        stored: &StoredCampaign,
        target: &EditTarget,
        yours: &EntryForm,
    ) -> Result<(), EditConflict> {
        let current = EntryForm::from_campaign(&stored.campaign, target);
        if self.is_current(stored.version, current.as_ref()) {
            return Ok(());
        }
        let current = current.ok_or(EditConflict::PlaceDeleted)?;
        let last_change = stored.last_change(&target.campaign_node(), self.version);
        Err(EditConflict::PlaceChanged(Box::new(Conflict {
            last_change: last_change.map(LastChange::from),
            fields: differences(&self.fields, &current, yours),
            current: Self { version: stored.version, fields: current },
        })))
    }
}

/// What another user did to the place after the page was opened.
pub(super) enum EditConflict {
    /// Deleted or renamed.
    PlaceDeleted,
    PlaceChanged(Box<Conflict>),
}

pub(super) struct Conflict {
    /// The last change of the place since the page was opened, if it is known.
    pub(super) last_change: Option<LastChange>,
    pub(super) fields: Vec<Difference>,
    /// The place as it is stored now. The next save starts from it.
    pub(super) current: OpenedPlace,
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
    use chrono::{DateTime, Utc};
    use serde_json::json;
    use waypost_core::campaign::Campaign;
    use waypost_store::ChangeAuthor;

    use super::*;
    use crate::console::editor::form::{Header, WebhookFields};

    fn stored(version: u64, label: &str, message: &str) -> StoredCampaign {
        let document =
            json!({ "id": "1", "sections": [{ "label": label, "kind": "interaction", "message": message }] });
        let campaign: Campaign = serde_json::from_value(document).expect("a campaign");
        let nodes = vec![EditTarget::Section { label: label.to_owned() }.campaign_node()];
        let author = Some(ChangeAuthor { by: "ada".to_owned(), at: DateTime::<Utc>::UNIX_EPOCH, nodes });
        StoredCampaign { version, author, past_changes: Vec::new(), campaign }
    }

    #[test]
    fn only_a_change_of_the_same_place_is_a_conflict() {
        let target = EditTarget::Section { label: "a".to_owned() };
        let opened_fields = EntryForm::from_campaign(&stored(7, "a", "old").campaign, &target).expect("a place");
        let yours = EntryForm { message: "mine".to_owned(), ..opened_fields.clone() };
        let opened = OpenedPlace { version: 7, fields: opened_fields };
        assert!(opened.check(&stored(7, "a", "old"), &target, &yours).is_ok());
        assert!(opened.check(&stored(9, "a", "old"), &target, &yours).is_ok(), "another place was changed");
        let deleted = opened.check(&stored(9, "b", "old"), &target, &yours);
        assert!(matches!(deleted, Err(EditConflict::PlaceDeleted)));
        let Err(EditConflict::PlaceChanged(conflict)) = opened.check(&stored(9, "a", "new"), &target, &yours) else {
            panic!("no conflict");
        };
        assert_eq!(conflict.last_change.map(|change| change.by).as_deref(), Some("ada"));
        let [difference] = conflict.fields.as_slice() else { panic!("{:?}", conflict.fields) };
        assert_eq!([&*difference.base, &*difference.stored, &*difference.yours], ["old", "new", "mine"]);
        assert_eq!((conflict.current.version, conflict.current.fields.message.as_str()), (9, "new"));
    }

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
