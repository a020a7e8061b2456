//! Erases a person's data in dead letters.

use std::fmt;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The parameters of an erasure.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schemars(rename = "ErasureOrder")]
pub struct EraseRequest {
    /// The person's phone number, as in events.
    pub phone_number: String,
    /// The `next` of the previous response. Or the `from` of a dry run, to skip dead letters written since then.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cursor: Option<String>,
    /// Only count the dead letters, and change nothing.
    #[serde(default)]
    pub dry_run: bool,
}

/// Without the phone number, which must not get into a log.
impl fmt::Debug for EraseRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EraseRequest")
            .field("cursor", &self.cursor)
            .field("dry_run", &self.dry_run)
            .finish_non_exhaustive()
    }
}

/// The result of an erasure.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(rename = "Erasure")]
pub struct EraseResponse {
    /// The number of dead letters examined.
    pub looked_at: u64,
    /// The number of dead letters about the person that were erased.
    pub erased: u64,
    /// The number of dead letters about the person that were not erased because they are being replayed. Send the
    /// request again after the replay has ended.
    pub replaying: u64,
    /// Where the search began. Send it as `cursor` to search the same dead letters again, without newer ones.
    pub from: String,
    /// Send it as `cursor` to search the remaining dead letters. Null at the end.
    pub next: Option<String>,
}

#[cfg(test)]
mod tests {
    use super::EraseRequest;

    #[test]
    fn the_debug_output_has_no_phone_number() {
        let request = EraseRequest { phone_number: "+15550100".to_owned(), cursor: None, dry_run: true };
        assert_eq!(format!("{request:?}"), "EraseRequest { cursor: None, dry_run: true, .. }");
    }
}
