//! Who made the last change of a campaign, and when.

use waypost_store::ChangeAuthor;

use super::layout::Time;

pub(super) struct LastChange {
    pub(super) by: String,
    pub(super) at: Time,
}

impl From<&ChangeAuthor> for LastChange {
    fn from(author: &ChangeAuthor) -> Self {
        Self { by: author.by.clone(), at: Time(author.at) }
    }
}
