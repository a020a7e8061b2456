//! Searches the view by filters: pages of letters, counts, and the ids of a selection.

use std::collections::HashMap;
use std::ops::ControlFlow;
use std::time::Instant;

use waypost_core::dead_letter::LetterState;
use waypost_core::dead_letter::filter::LetterFilter;
use waypost_core::ids::DeadLetterId;
use waypost_core::reason::DeadLetterReason;

use super::archive::SegmentReader;
use super::index_block::{CompiledFilter, IndexRow};
use super::letter_reader::{LetterReader, StoredLetter};
use super::location::{blocks_of, first_offset_of};
use super::{LetterView, MAX_READ_BYTES};
use crate::StoreError;

/// Blocks selected under one lock. A lock for the whole search would block writers.
const BLOCKS_PER_LOCK: usize = 512;

/// A page reads at least this many blocks, even after its deadline. So pages of a small view are always full.
const MIN_BLOCKS: usize = 64;

/// A page reads at least this many of the letters that it finds, even after its deadline.
const MIN_LETTERS: usize = 10;

/// A page of letters in descending order of offsets. This is the order of time, except for letters that several workers
/// write at the same time.
#[derive(Debug, Clone)]
pub struct LetterPage {
    pub letters: Vec<StoredLetter>,
    /// The next page has the letters before this offset. `None` on the last page.
    pub next: Option<u64>,
}

/// A page of letter ids in ascending order of offsets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LetterIdPage {
    /// Offset and id of each letter.
    pub letters: Vec<(u64, DeadLetterId)>,
    /// The first offset of the next page. `None` on the last page.
    pub next: Option<u64>,
}

/// The number of letters by state, reason and so on.
#[derive(Debug, Clone, Default)]
pub struct LetterCounts {
    pub total: u64,
    /// `dead_at` of the oldest and the newest letter, in milliseconds since 1970.
    pub span: Option<(i64, i64)>,
    pub states: HashMap<LetterState, u64>,
    pub reasons: HashMap<DeadLetterReason, u64>,
    /// By the status of the last attempt. `None` if there was no response.
    pub statuses: HashMap<Option<u16>, u64>,
    /// Without letters of unreadable events, which have no campaign.
    pub campaigns: HashMap<String, u64>,
    /// By webhook, then by campaign.
    pub webhooks: HashMap<String, HashMap<String, u64>>,
    /// Without letters that were never sent, which have no endpoint.
    pub endpoints: HashMap<String, u64>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum SearchOrder {
    OldestFirst,
    NewestFirst,
}

impl LetterView {
    /// The first `limit` letters that `filter` matches before the offset `before`, newest first. After `deadline` the
    /// page may have fewer letters.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn page(
        &self,
        filter: &LetterFilter,
        before: Option<u64>,
        limit: usize,
        deadline: Instant,
    ) -> Result<LetterPage, StoreError> {
        self.search_page(&CompiledFilter::from(filter), before, limit, deadline)
    }

    /// Letters that may be about the person with this phone number: letters of their events, and letters whose body may
    /// contain the number. The parameters are those of [`page`](Self::page).
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn page_mentioning(
        &self,
        phone_number: &str,
        before: Option<u64>,
        limit: usize,
        deadline: Instant,
    ) -> Result<LetterPage, StoreError> {
        self.search_page(&CompiledFilter::mentioning(phone_number), before, limit, deadline)
    }

    fn search_page(
        &self,
        filter: &CompiledFilter,
        before: Option<u64>,
        limit: usize,
        deadline: Instant,
    ) -> Result<LetterPage, StoreError> {
        let mut letters: Vec<StoredLetter> = Vec::new();
        let mut bytes = 0;
        let mut next = None;
        let mut read_error = None;
        let mut blocks = 0;
        let mut reader = LetterReader::new(self);
        self.search(filter, SearchOrder::NewestFirst, 0..before.unwrap_or(u64::MAX), |step| {
            let is_late = || blocks >= MIN_BLOCKS && Instant::now() > deadline;
            match step {
                // There is one more letter than the page can have, so there is a next page. The deadline counts here as
                // well: reading a letter may take longer than finding it.
                SearchStep::Letter(..)
                    if letters.len() == limit
                        || bytes > MAX_READ_BYTES
                        || letters.len() >= MIN_LETTERS && is_late() =>
                {
                    next = letters.last().map(|last| last.offset);
                    return ControlFlow::Break(());
                }
                SearchStep::Letter(offset, row) => match reader.read(offset, row) {
                    Ok(letter) => {
                        bytes += letter.as_ref().map_or(0, |letter| letter.bytes);
                        letters.extend(letter);
                    }
                    Err(error) => {
                        read_error = Some(error);
                        return ControlFlow::Break(());
                    }
                },
                SearchStep::BlockEnd(first) if is_late() => {
                    next = (first > 0).then_some(first);
                    return ControlFlow::Break(());
                }
                SearchStep::BlockEnd(_) => blocks += 1,
            }
            ControlFlow::Continue(())
        })?;
        if let Some(error) = read_error {
            return Err(error);
        }
        Ok(LetterPage { letters, next })
    }

    /// The first `limit` letters that `filter` matches in a range of offsets, oldest first.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn find(
        &self,
        filter: &LetterFilter,
        offsets: std::ops::Range<u64>,
        limit: usize,
    ) -> Result<LetterIdPage, StoreError> {
        let mut page = LetterIdPage { letters: Vec::new(), next: None };
        self.search(&CompiledFilter::from(filter), SearchOrder::OldestFirst, offsets, |step| {
            if let SearchStep::Letter(offset, row) = step {
                if page.letters.len() == limit {
                    page.next = Some(offset);
                    return ControlFlow::Break(());
                }
                page.letters.push((offset, row.letter_id()));
            }
            ControlFlow::Continue(())
        })?;
        Ok(page)
    }

    /// Calls `visit` with the row of every letter that `filter` matches, oldest first.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn for_each_row(&self, filter: &LetterFilter, mut visit: impl FnMut(&IndexRow<'_>)) -> Result<(), StoreError> {
        self.search(&CompiledFilter::from(filter), SearchOrder::OldestFirst, 0..u64::MAX, |step| {
            if let SearchStep::Letter(_, row) = step {
                visit(row);
            }
            ControlFlow::Continue(())
        })
    }

    /// Counts the letters that `filter` matches.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn count(&self, filter: &LetterFilter) -> Result<LetterCounts, StoreError> {
        let mut counts = LetterCounts::default();
        self.for_each_row(filter, |row| counts.add(row))?;
        Ok(counts)
    }

    /// Counts the letters with these ids.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn count_ids(&self, ids: &[DeadLetterId]) -> Result<LetterCounts, StoreError> {
        let mut counts = LetterCounts::default();
        for id in ids {
            self.with_row(id, |row| counts.add(row))?;
        }
        Ok(counts)
    }

    /// Calls `visit` for each matching letter and each end of a block, until it breaks.
    fn search(
        &self,
        filter: &CompiledFilter,
        direction: SearchOrder,
        offsets: std::ops::Range<u64>,
        mut visit: impl FnMut(SearchStep<'_>) -> ControlFlow<()>,
    ) -> Result<(), StoreError> {
        let mut blocks = blocks_of(&offsets);
        let mut segments = SegmentReader::new(&self.archive);
        loop {
            let numbers = self.take_matching_blocks(filter, &mut blocks, direction);
            if numbers.is_empty() {
                return Ok(());
            }
            for number in numbers {
                let Some(loaded) = self.load_block(number, &mut segments)? else { continue };
                let block = loaded.decode()?;
                let mut rows: Vec<(u64, &IndexRow<'_>)> = block.rows(number).collect();
                rows.retain(|(offset, row)| offsets.contains(offset) && filter.matches(row));
                if direction == SearchOrder::NewestFirst {
                    rows.reverse();
                }
                let flow = rows.into_iter().try_for_each(|(offset, row)| visit(SearchStep::Letter(offset, row)));
                if flow.is_break() || visit(SearchStep::BlockEnd(first_offset_of(number))).is_break() {
                    return Ok(());
                }
            }
        }
    }

    /// Takes the next blocks that may match the filter out of `blocks`.
    fn take_matching_blocks(
        &self,
        filter: &CompiledFilter,
        blocks: &mut std::ops::Range<u64>,
        direction: SearchOrder,
    ) -> Vec<u64> {
        if blocks.is_empty() {
            return Vec::new();
        }
        let zones = self.zones();
        let mut zones =
            zones.range(blocks.clone()).filter(|(_, zone)| zone.may_match(filter)).map(|(number, _)| *number);
        let numbers: Vec<u64> = match direction {
            SearchOrder::OldestFirst => zones.by_ref().take(BLOCKS_PER_LOCK).collect(),
            SearchOrder::NewestFirst => zones.rev().take(BLOCKS_PER_LOCK).collect(),
        };
        if let Some(last) = numbers.last() {
            match direction {
                SearchOrder::OldestFirst => blocks.start = last + 1,
                SearchOrder::NewestFirst => blocks.end = *last,
            }
        }
        numbers
    }
}

enum SearchStep<'a> {
    /// The offset and row of a matching letter.
    Letter(u64, &'a IndexRow<'a>),
    /// The first offset of the block that was searched.
    BlockEnd(u64),
}

impl LetterCounts {
    fn add(&mut self, row: &IndexRow<'_>) {
        self.total += 1;
        let (first, last) = self.span.unwrap_or((row.dead_at, row.dead_at));
        self.span = Some((first.min(row.dead_at), last.max(row.dead_at)));
        *self.states.entry(row.state).or_default() += 1;
        *self.reasons.entry(row.reason).or_default() += 1;
        *self.statuses.entry(row.status).or_default() += 1;
        if !row.campaign.is_empty() {
            update_entry(&mut self.campaigns, &row.campaign, |count| *count += 1);
        }
        if !row.webhook.is_empty() {
            update_entry(&mut self.webhooks, &row.webhook, |campaigns| {
                update_entry(campaigns, &row.campaign, |count| *count += 1)
            });
        }
        if !row.endpoint.is_empty() {
            update_entry(&mut self.endpoints, &row.endpoint, |count| *count += 1);
        }
    }
}

/// Updates the entry of `name`. Allocates a key only for a new entry.
fn update_entry<T: Default>(entries: &mut HashMap<String, T>, name: &str, update: impl FnOnce(&mut T)) {
    match entries.get_mut(name) {
        Some(entry) => update(entry),
        None => update(entries.entry(name.to_owned()).or_default()),
    }
}
