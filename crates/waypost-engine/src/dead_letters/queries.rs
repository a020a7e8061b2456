//! What can be asked about dead letters.

use std::time::{Duration, Instant};

use chrono::{DateTime, Utc};
use waypost_core::dead_letter::DeadLetter;
use waypost_core::dead_letter::filter::LetterFilter;
use waypost_core::dead_letter::history::LetterHistory;
use waypost_core::dead_letter::selection::Selection;
use waypost_core::ids::DeadLetterId;
use waypost_core::request::RequestPreview;
use waypost_store::dead_letters::StateCounts;
use waypost_store::dead_letters::search::{LetterCounts, LetterPage};

use super::{DeadLetterError, DeadLetters};

/// How long the search for a page takes at most. The page ends where the search has ended.
const SEARCH_TIME_LIMIT: Duration = Duration::from_millis(25);

/// A dead letter with everything that is known about it.
#[derive(Debug, Clone)]
pub struct LetterDetail {
    pub letter: DeadLetter,
    pub history: LetterHistory,
    /// The request of the last attempt. `None` if the letter was erased.
    pub last_request: Option<RequestPreview>,
}

impl DeadLetters {
    /// Waits until letters can be read.
    ///
    /// # Errors
    /// [`DeadLetterError::Unavailable`] if the view is still being built after a timeout.
    pub async fn wait_until_readable(&self) -> Result<(), DeadLetterError> {
        self.ready_view().await.map(|_| ())
    }

    /// The first `limit` letters that match before the offset `before`, in the reverse order of the stream. If few of
    /// very many letters match, a page can be short and still have a next page.
    pub async fn page(
        &self,
        filter: &LetterFilter,
        before: Option<u64>,
        limit: usize,
    ) -> Result<LetterPage, DeadLetterError> {
        let view = self.ready_view().await?;
        let deadline = Instant::now() + SEARCH_TIME_LIMIT;
        Ok(tokio::task::block_in_place(|| view.page(filter, before, limit, deadline))?)
    }

    /// Counts the letters that match. Very many letters take long, so a blocking thread counts them.
    pub async fn count(&self, filter: LetterFilter) -> Result<LetterCounts, DeadLetterError> {
        let view = self.ready_view().await?.clone();
        Ok(tokio::task::spawn_blocking(move || view.count(&filter)).await??)
    }

    /// The number of all letters by state, also while the view is being built.
    pub fn state_counts(&self) -> StateCounts {
        self.view.counts()
    }

    /// # Errors
    /// [`DeadLetterError::NotFound`].
    pub async fn get(&self, id: &DeadLetterId) -> Result<LetterDetail, DeadLetterError> {
        let view = self.ready_view().await?;
        let stored = view.letter(id)?.ok_or_else(|| DeadLetterError::no_letter(id))?;
        let history = view.history(stored.offset)?;
        let last_request = stored.letter.last_request().filter(|_| history.erased.is_none());
        Ok(LetterDetail { letter: stored.letter, history, last_request })
    }

    /// Limits a selection to the letters that exist now, and counts them. So a confirmed selection does not change
    /// letters that were created after the confirmation was shown.
    pub async fn freeze(&self, selection: Selection) -> Result<(Selection, u64), DeadLetterError> {
        let filter = match selection {
            Selection::Filter(filter) => filter,
            Selection::Ids(ids) => {
                let count = ids.len() as u64;
                return Ok((Selection::Ids(ids), count));
            }
        };
        let counts = self.count(filter.or_pending()).await?;
        // The newest letter may have the clock of another machine.
        let newest = counts.span.and_then(|(_, newest)| DateTime::from_timestamp_millis(newest));
        Ok((Selection::Filter(filter.up_to(newest.unwrap_or_else(Utc::now))), counts.total))
    }
}
