//! Reading the view by filters: pages, counts, and the letters of a replay.

use std::collections::HashMap;
use std::ops::ControlFlow;
use std::time::Instant;

use super::archive::Segments;
use super::index_block::{CompiledFilter, IndexRow};
use super::letter_reader::LetterReader;
use super::location::{blocks_of, first_of};
use super::{LetterView, MAX_BYTES, StoredLetter};
use crate::delivery::dead_letter::LetterState;
use crate::delivery::dead_letter::filter::LetterFilter;
use crate::delivery::ids::DeadLetterId;
use crate::delivery::reason::DeadLetterReason;
use crate::store::StoreError;

/// Blocks looked up at once, so that no writer waits for a long search.
const BLOCKS_AT_ONCE: usize = 512;

/// So many blocks are read whatever the time: the pages of a small view are never short.
const BLOCKS_BEFORE_DEADLINE: usize = 64;

/// A page that finds so many letters at all has them, however late it is.
const LEAST: usize = 10;

/// A page of letters, the latest of the log first. That is the order of time but for what workers write at once, and the
/// same whatever the page's size.
#[derive(Debug, Clone)]
pub struct LetterPage {
    /// The letters.
    pub letters: Vec<StoredLetter>,
    /// Where the next page begins: before this offset. None where there is nothing more.
    pub next: Option<u64>,
}

/// Letters found for a replay, oldest first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SelectedLetters {
    /// Offset and id of each.
    pub letters: Vec<(u64, DeadLetterId)>,
    /// Where the search goes on; none where it has come to the end.
    pub next: Option<u64>,
}

/// The letters that a filter matches, counted.
#[derive(Debug, Clone, Default)]
pub struct LetterCounts {
    /// All of them.
    pub total: u64,
    /// Milliseconds since 1970 at which the first and the last was given up.
    pub span: Option<(i64, i64)>,
    /// By state.
    pub states: HashMap<LetterState, u64>,
    /// By reason.
    pub reasons: HashMap<DeadLetterReason, u64>,
    /// By the status of the last attempt; none where there was no answer.
    pub statuses: HashMap<Option<u16>, u64>,
    /// By campaign; unreadable events have none.
    pub campaigns: HashMap<String, u64>,
    /// By webhook, and then by campaign.
    pub webhooks: HashMap<String, HashMap<String, u64>>,
    /// By endpoint; what was never sent has none.
    pub endpoints: HashMap<String, u64>,
}

/// In which order to search.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Direction {
    OldestFirst,
    NewestFirst,
}

impl LetterView {
    /// The letters that `filter` matches, from before the offset `before`, at most `limit`. After `deadline` it ends
    /// where it has come to, which may be before the page is full.
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
        self.page_of(&CompiledFilter::from(filter), before, limit, deadline)
    }

    /// Letters that may be about the person with this phone number: of their events, and those whose body may contain it.
    /// Otherwise as [`page`](Self::page).
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn page_of_mentions(
        &self,
        phone_number: &str,
        before: Option<u64>,
        limit: usize,
        deadline: Instant,
    ) -> Result<LetterPage, StoreError> {
        self.page_of(&CompiledFilter::mentions(phone_number), before, limit, deadline)
    }

    fn page_of(
        &self,
        wanted: &CompiledFilter,
        before: Option<u64>,
        limit: usize,
        deadline: Instant,
    ) -> Result<LetterPage, StoreError> {
        let mut letters: Vec<StoredLetter> = Vec::new();
        let mut bytes = 0;
        let mut next = None;
        let mut failed = None;
        let mut blocks = 0;
        let mut reader = LetterReader::new(self);
        self.search(wanted, Direction::NewestFirst, 0..before.unwrap_or(u64::MAX), |found| {
            let late = || blocks >= BLOCKS_BEFORE_DEADLINE && Instant::now() > deadline;
            match found {
                // One more than asked for, or than there is time or room for: so there is a next page. To read a letter that
                // lies far from the others takes longer than to find it.
                Step::Letter(..) if letters.len() == limit || bytes > MAX_BYTES || letters.len() >= LEAST && late() => {
                    next = letters.last().map(|last| last.offset);
                    return ControlFlow::Break(());
                }
                Step::Letter(offset, row) => match reader.letter(offset, row) {
                    Ok(letter) => {
                        bytes += letter.as_ref().map_or(0, |letter| letter.bytes);
                        letters.extend(letter);
                    }
                    Err(error) => {
                        failed = Some(error);
                        return ControlFlow::Break(());
                    }
                },
                Step::Block(first) if late() => {
                    next = (first > 0).then_some(first);
                    return ControlFlow::Break(());
                }
                Step::Block(_) => blocks += 1,
            }
            ControlFlow::Continue(())
        })?;
        if let Some(error) = failed {
            return Err(error);
        }
        Ok(LetterPage { letters, next })
    }

    /// Letters that `filter` matches, oldest first, with offsets in `offsets`, at most `limit`.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn find(
        &self,
        filter: &LetterFilter,
        offsets: std::ops::Range<u64>,
        limit: usize,
    ) -> Result<SelectedLetters, StoreError> {
        let mut found = SelectedLetters { letters: Vec::new(), next: None };
        self.search(&CompiledFilter::from(filter), Direction::OldestFirst, offsets, |step| {
            if let Step::Letter(offset, row) = step {
                if found.letters.len() == limit {
                    found.next = Some(offset);
                    return ControlFlow::Break(());
                }
                found.letters.push((offset, row.letter_id()));
            }
            ControlFlow::Continue(())
        })?;
        Ok(found)
    }

    /// Shows the row of every letter that `filter` matches.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn each(&self, filter: &LetterFilter, mut show: impl FnMut(&IndexRow<'_>)) -> Result<(), StoreError> {
        self.search(&CompiledFilter::from(filter), Direction::OldestFirst, 0..u64::MAX, |step| {
            if let Step::Letter(_, row) = step {
                show(row);
            }
            ControlFlow::Continue(())
        })
    }

    /// Counts the letters that `filter` matches.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn tally(&self, filter: &LetterFilter) -> Result<LetterCounts, StoreError> {
        let mut tally = LetterCounts::default();
        self.each(filter, |row| tally.add(row))?;
        Ok(tally)
    }

    /// Counts the letters with these ids.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn tally_of(&self, ids: &[DeadLetterId]) -> Result<LetterCounts, StoreError> {
        let mut tally = LetterCounts::default();
        for id in ids {
            self.row(id, |row| tally.add(row))?;
        }
        Ok(tally)
    }

    fn search(
        &self,
        wanted: &CompiledFilter,
        direction: Direction,
        offsets: std::ops::Range<u64>,
        mut step: impl FnMut(Step<'_>) -> ControlFlow<()>,
    ) -> Result<(), StoreError> {
        // No block beyond: a page that ends where its time is over begins the next one in another block.
        let mut blocks = blocks_of(&offsets);
        let mut volumes = Segments::new(&self.archive);
        loop {
            let numbers = self.blocks_that_may_have(wanted, &mut blocks, direction);
            if numbers.is_empty() {
                return Ok(());
            }
            for number in numbers {
                let Some(loaded) = self.load(number, &mut volumes)? else { continue };
                let block = loaded.block()?;
                let mut rows: Vec<(u64, &IndexRow<'_>)> = block.rows(number).collect();
                rows.retain(|(offset, row)| offsets.contains(offset) && wanted.has(row));
                if direction == Direction::NewestFirst {
                    rows.reverse();
                }
                let flow = rows.into_iter().try_for_each(|(offset, row)| step(Step::Letter(offset, row)));
                if flow.is_break() || step(Step::Block(first_of(number))).is_break() {
                    return Ok(());
                }
            }
        }
    }

    /// The next blocks to read, taken out of `blocks`.
    fn blocks_that_may_have(
        &self,
        wanted: &CompiledFilter,
        blocks: &mut std::ops::Range<u64>,
        direction: Direction,
    ) -> Vec<u64> {
        if blocks.is_empty() {
            return Vec::new();
        }
        let zones = self.zones();
        let mut zones =
            zones.range(blocks.clone()).filter(|(_, zone)| zone.may_have(wanted)).map(|(number, _)| *number);
        let numbers: Vec<u64> = match direction {
            Direction::OldestFirst => zones.by_ref().take(BLOCKS_AT_ONCE).collect(),
            Direction::NewestFirst => zones.rev().take(BLOCKS_AT_ONCE).collect(),
        };
        if let Some(last) = numbers.last() {
            match direction {
                Direction::OldestFirst => blocks.start = last + 1,
                Direction::NewestFirst => blocks.end = *last,
            }
        }
        numbers
    }
}

/// What a search comes across.
enum Step<'a> {
    /// A letter, at this offset.
    Letter(u64, &'a IndexRow<'a>),
    /// The end of a block whose first offset this is.
    Block(u64),
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
            with(&mut self.campaigns, &row.campaign, |count| *count += 1);
        }
        if !row.webhook.is_empty() {
            with(&mut self.webhooks, &row.webhook, |campaigns| with(campaigns, &row.campaign, |count| *count += 1));
        }
        if !row.endpoint.is_empty() {
            with(&mut self.endpoints, &row.endpoint, |count| *count += 1);
        }
    }
}

/// Changes the entry of `name`, without making a key each time.
fn with<T: Default>(entries: &mut HashMap<String, T>, name: &str, change: impl FnOnce(&mut T)) {
    match entries.get_mut(name) {
        Some(entry) => change(entry),
        None => change(entries.entry(name.to_owned()).or_default()),
    }
}
