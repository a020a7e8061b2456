//! A campaign with its version and its past changes.

use serde::{Deserialize, Serialize};
use waypost_core::campaign::Campaign;
use waypost_core::campaign::diff::CampaignNode;

use super::change::ChangeAuthor;

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct StoredCampaign {
    /// The offset of the last change in the stream, which is the same on every node.
    pub version: u64,
    /// Who made the last change. `None` if the change is older than this field.
    #[serde(rename = "made", default, skip_serializing_if = "Option::is_none")]
    pub author: Option<ChangeAuthor>,
    /// The changes before the last one, newest first, at most 20.
    #[serde(rename = "earlier", default, skip_serializing_if = "Vec::is_empty")]
    pub past_changes: Vec<PastChange>,
    pub campaign: Campaign,
}

/// A change before the last one.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PastChange {
    /// The version that the change created.
    pub version: u64,
    #[serde(rename = "made")]
    pub author: ChangeAuthor,
}

const MAX_PAST_CHANGES: usize = 20;

/// The past changes of the next version: the last change and the past changes of this version.
pub(super) fn past_changes(version: u64, author: Option<ChangeAuthor>, earlier: Vec<PastChange>) -> Vec<PastChange> {
    let last = author.map(|author| PastChange { version, author });
    last.into_iter().chain(earlier).take(MAX_PAST_CHANGES).collect()
}

impl StoredCampaign {
    /// The author of the last change to a node after version `since`, if it is still recorded.
    pub fn last_change(&self, node: &CampaignNode, since: u64) -> Option<&ChangeAuthor> {
        let last = self.author.as_ref().map(|author| (self.version, author));
        let changes = last.into_iter().chain(self.past_changes.iter().map(|past| (past.version, &past.author)));
        let mut newer = changes.take_while(|(version, _)| *version > since);
        newer.find(|(_, author)| author.nodes.contains(node)).map(|(_, author)| author)
    }
}
