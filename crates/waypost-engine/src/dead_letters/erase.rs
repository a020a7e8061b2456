//! Erasure of a person's data: workers no longer show or send the erased dead letters. The stream and the workers'
//! disks keep the records until the retention removes them.

use std::time::Instant;

use chrono::Utc;
use waypost_core::dead_letter::LetterState;
use waypost_core::dead_letter::phone_number::PhoneNumber;
use waypost_core::dead_letter::phone_search::PhoneSearch;
use waypost_core::dead_letter::record::{DeadLetterRecord, Erase, OperatorAction};
use waypost_core::ids::DeadLetterId;
use waypost_core::violation::Violation;
use waypost_store::dead_letters::RecordOutcome;

use super::{DeadLetterError, DeadLetters, LETTERS_PER_RECORD, REQUEST_TIME_LIMIT};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EraseOutcome {
    /// Letters examined.
    pub examined: u64,
    /// Letters about the person that were erased; in a dry run, that would be erased.
    pub letters: u64,
    /// Letters about the person that were not erased because they are being replayed.
    pub replaying: u64,
    /// The search began before this offset. Letters from this offset on are not examined.
    pub before: u64,
    /// The search continues before this offset. `None` at the end.
    pub next: Option<u64>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EraseMode {
    DryRun,
    Apply,
}

impl DeadLetters {
    /// Erases letters about the person with this phone number, from the offset `before` backwards, up to a time limit.
    pub async fn erase(
        &self,
        phone_number: &PhoneNumber,
        before: Option<u64>,
        mode: EraseMode,
        by: &str,
    ) -> Result<EraseOutcome, DeadLetterError> {
        let deadline = Instant::now() + REQUEST_TIME_LIMIT;
        let phone_search = PhoneSearch::new(phone_number.as_str()).map_err(|error| {
            DeadLetterError::Invalid(vec![Violation::new("$.phoneNumber", format!("can't be searched for: {error}"))])
        })?;
        let view = self.ready_view().await?;
        let before = match before {
            Some(before) => before,
            None => view.position()?.map_or(0, |position| position.offset + 1),
        };
        let mut outcome = EraseOutcome { examined: 0, letters: 0, replaying: 0, before, next: Some(before) };
        loop {
            // One page is examined even after the deadline.
            let page = tokio::task::block_in_place(|| {
                view.page_mentioning(phone_number.as_str(), outcome.next, LETTERS_PER_RECORD, deadline)
            })?;
            outcome.examined += page.letters.len() as u64;
            let matching =
                page.letters.iter().map(|stored| &stored.letter).filter(|letter| phone_search.matches(letter));
            let (replaying, matching): (Vec<_>, Vec<_>) =
                matching.partition(|letter| letter.state == LetterState::Replaying);
            outcome.replaying += replaying.len() as u64;
            let ids: Vec<DeadLetterId> = matching.into_iter().map(|letter| letter.id.clone()).collect();
            match mode {
                EraseMode::DryRun => outcome.letters += ids.len() as u64,
                EraseMode::Apply if ids.is_empty() => {}
                EraseMode::Apply => {
                    let action = OperatorAction {
                        by: by.to_owned(),
                        at: Utc::now(),
                        operator_reason: Some("erased".to_owned()),
                    };
                    let matching = ids.len() as u64;
                    if let RecordOutcome::Letters(letters) =
                        self.append(DeadLetterRecord::Erase(Erase { ids, action })).await?
                    {
                        outcome.letters += letters;
                        // A replay has claimed the other letters since the search.
                        outcome.replaying += matching.saturating_sub(letters);
                    }
                }
            }
            outcome.next = page.next;
            if outcome.next.is_none() || Instant::now() > deadline {
                return Ok(outcome);
            }
        }
    }
}
