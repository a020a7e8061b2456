//! Erasing: what dead letters tell of a person is shown and sent no more, on every node. The stream keeps its records until
//! retention removes them, and so does what a node has on disk.

use std::time::Instant;

use chrono::Utc;

use super::{DISCARD_TIME, DeadLetterError, DeadLetters, LETTERS_PER_MARK};
use crate::delivery::dead_letter::LetterState;
use crate::delivery::dead_letter::record::{DeadLetterRecord, Erase, OperatorAction};
use crate::delivery::ids::DeadLetterId;
use crate::store::dead_letters::RecordOutcome;

/// What an erasure has done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Erased {
    /// Letters looked at.
    pub looked_at: u64,
    /// Letters about the person that were erased, or would be.
    pub letters: u64,
    /// Letters about the person that are being replayed, and were left.
    pub replaying: u64,
    /// Where it began: before this offset. Letters from there on are not looked at.
    pub before: u64,
    /// Where it goes on: before this offset. None where it has come to the end.
    pub next: Option<u64>,
}

/// Whether to do what was asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EraseMode {
    /// Tell what it would do.
    Nothing,
    /// Do it.
    It,
}

impl DeadLetters {
    /// Erases what letters tell of the person with this phone number, those before the offset `before` and for a while.
    ///
    /// # Errors
    /// [`DeadLetterError`].
    pub async fn erase(
        &self,
        phone_number: &str,
        before: Option<u64>,
        doing: EraseMode,
        by: &str,
    ) -> Result<Erased, DeadLetterError> {
        let deadline = Instant::now() + DISCARD_TIME;
        let view = self.ready_view().await?;
        let before = match before {
            Some(before) => before,
            None => view.position()?.map_or(0, |position| position.offset + 1),
        };
        let mut erased = Erased { looked_at: 0, letters: 0, replaying: 0, before, next: Some(before) };
        loop {
            // To the end of a page at least.
            let page = tokio::task::block_in_place(|| {
                view.page_of_mentions(phone_number, erased.next, LETTERS_PER_MARK, deadline)
            })?;
            erased.looked_at += page.letters.len() as u64;
            let found = page.letters.iter().map(|kept| &kept.letter).filter(|letter| letter.is_about(phone_number));
            let (replaying, found): (Vec<_>, Vec<_>) = found.partition(|letter| letter.state == LetterState::Replaying);
            erased.replaying += replaying.len() as u64;
            let ids: Vec<DeadLetterId> = found.into_iter().map(|letter| letter.id.clone()).collect();
            match doing {
                EraseMode::Nothing => erased.letters += ids.len() as u64,
                EraseMode::It if ids.is_empty() => {}
                EraseMode::It => {
                    let verdict =
                        OperatorAction { by: by.to_owned(), at: Utc::now(), because: Some("erased".to_owned()) };
                    let found = ids.len() as u64;
                    if let RecordOutcome::Letters(letters) =
                        self.append(DeadLetterRecord::Erase(Erase { ids, verdict })).await?
                    {
                        erased.letters += letters;
                        // A replay has taken them since they were found.
                        erased.replaying += found.saturating_sub(letters);
                    }
                }
            }
            erased.next = page.next;
            if erased.next.is_none() || Instant::now() > deadline {
                return Ok(erased);
            }
        }
    }
}
