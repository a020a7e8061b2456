//! Where the pages of single things are.

use super::form::escaped;
use crate::delivery::ids::{DeadLetterId, ReplayId};

pub(super) fn campaign(id: &str) -> String {
    format!("/campaigns/{}", escaped(id))
}

pub(super) fn dead_letter(id: &DeadLetterId) -> String {
    format!("/dead-letters/{}", escaped(id.as_str()))
}

pub(super) fn replay(id: &ReplayId) -> String {
    format!("/replays/{}", escaped(id.as_str()))
}
