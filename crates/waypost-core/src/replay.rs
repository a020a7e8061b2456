//! Replays: durable jobs that send selected dead letters again. This module has their state and its transitions.
//!
//! ```text
//! created, then all letters claimed ▶ sent in batches ▶ done
//!                                     └ pause ⇄ resume, cancel, or stopped by the failure ratio
//! ```
//!
//! Each letter is sent once. If that fails, the result is a new dead letter. A replay does not retry.
//!
//! [`claims`] decides which letters a replay claims and releases, and [`target`] where a letter is sent.

pub mod claims;
pub mod target;

use chrono::{DateTime, Utc};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::dead_letter::filter::LetterFilter;
pub use super::dead_letter::history::ReplayOutcome;
use super::ids::DeadLetterId;
pub use super::ids::{ReplayId, ReplayRef};
use super::timestamp;

/// Maximum number of letters sent before their results are recorded. If a worker dies in between, they are sent again.
pub const MAX_BATCH_LETTERS: u32 = 100;

/// The size of the first batch if the replay has a failure ratio. The next letters follow only after its evaluation.
pub const CANARY_LETTERS: u64 = 20;

/// The failure ratio covers between half and all of this number of recent letters.
const RECENT_LETTERS: u64 = 1000;

/// Maximum number of requests in flight of all replays together.
pub const MAX_REQUESTS_IN_FLIGHT: usize = 64;

/// Whether a replay may start another request. `own` and `all` are the requests in flight of this replay and of all
/// `running` replays.
///
/// Every replay may have one request in flight. Above that it is limited to an equal share, and one share is reserved
/// for the next replay. An endpoint that hangs therefore delays only its own replay.
pub fn may_start_request(own: usize, all: usize, running: usize) -> bool {
    own == 0 || (all < MAX_REQUESTS_IN_FLIGHT && own < MAX_REQUESTS_IN_FLIGHT / (running + 1))
}

/// A replay, as in the API.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Replay {
    /// Ids sort by the time of creation.
    pub id: ReplayId,
    /// The replay's state.
    pub state: ReplayState,
    /// The filter, if the letters were selected by a filter.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub filter: Option<LetterFilter>,
    /// The ids, if the letters were selected by id.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ids: Option<Vec<DeadLetterId>>,
    /// Maximum number of dead letters sent per second.
    pub rate_per_second: Option<f64>,
    /// The configuration with which the letters are sent.
    pub config: ReplayConfig,
    /// The replay stops when this share of the recent letters has failed, from 0 to 1.
    pub stop_on_failure_ratio: Option<f64>,
    /// The number of letters claimed when the replay was created.
    pub total: u64,
    /// The number of letters sent so far: delivered, requeued or failed.
    pub sent: u64,
    /// The number of sent letters that a receiver accepted.
    pub delivered: u64,
    /// The number of unreadable events that were put back into the queue of events. Their outcome is unknown.
    #[serde(default)]
    pub requeued: u64,
    /// The number of sent letters that failed again.
    pub failed: u64,
    /// When the replay was created.
    #[serde(with = "timestamp")]
    #[schemars(with = "DateTime<Utc>")]
    pub created_at: DateTime<Utc>,
    /// The name of the creator's token.
    pub created_by: String,
    /// When the replay ended.
    #[serde(with = "timestamp::optional", default)]
    #[schemars(with = "Option<DateTime<Utc>>")]
    pub ended_at: Option<DateTime<Utc>>,
}

impl Replay {
    /// Masks the phone number of the filter if `is_erased` holds for it.
    pub fn mask_person(&mut self, is_erased: impl Fn(&str) -> bool) {
        if let Some(filter) = &mut self.filter
            && filter.phone_number.as_deref().is_some_and(is_erased)
        {
            *filter = filter.masked();
        }
    }
}

/// A running or paused replay can be controlled. All other states are final.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ReplayState {
    /// Letters are being sent.
    Running,
    /// No letters are sent until the replay is resumed.
    Paused,
    /// All letters were sent.
    Done,
    /// An operator ended the replay.
    Cancelled,
    /// The failure ratio ended the replay.
    Stopped,
}

impl ReplayState {
    /// The name in the API.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Running => "running",
            Self::Paused => "paused",
            Self::Done => "done",
            Self::Cancelled => "cancelled",
            Self::Stopped => "stopped",
        }
    }

    /// Whether the replay has not ended.
    pub fn is_open(self) -> bool {
        matches!(self, Self::Running | Self::Paused)
    }
}

/// The configuration with which a letter is sent again.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum ReplayConfig {
    /// The current configuration of the webhook.
    #[default]
    Current,
    /// The configuration of the webhook at the letter's last attempt.
    Original,
}

impl ReplayConfig {
    /// The name in the API.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Current => "current",
            Self::Original => "original",
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum ReplayCommand {
    Pause,
    Resume,
    /// Ends the replay. Its unsent letters become pending again.
    Cancel,
}

impl ReplayCommand {
    /// The name in the API.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Pause => "pause",
            Self::Resume => "resume",
            Self::Cancel => "cancel",
        }
    }

    /// The next state, or `None` if the command is not possible in `state`.
    pub fn apply(self, state: ReplayState) -> Option<ReplayState> {
        match (self, state) {
            (Self::Pause, ReplayState::Running) => Some(ReplayState::Paused),
            (Self::Resume, ReplayState::Paused) => Some(ReplayState::Running),
            (Self::Cancel, ReplayState::Running | ReplayState::Paused) => Some(ReplayState::Cancelled),
            _ => None,
        }
    }
}

/// A replay and its progress. The progress is the same on every worker, because each applies the same records.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ReplayProgress {
    pub replay: Replay,
    pub claims: ClaimState,
    /// The number of claimed letters that are unsent.
    pub left: u64,
    recent: RecentResults,
    /// The time of the latest record.
    #[serde(with = "timestamp")]
    pub updated_at: DateTime<Utc>,
}

/// The counts of recent letters that were delivered or failed. They are halved at [`RECENT_LETTERS`].
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
struct RecentResults {
    sent: u64,
    failed: u64,
}

/// Whether a replay has claimed all its letters. A claimed letter is not available to other replays.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum ClaimState {
    #[serde(rename = "unfinished")]
    Incomplete,
    #[serde(rename = "made")]
    Complete,
}

impl ReplayProgress {
    pub fn new(replay: Replay) -> Self {
        let (claims, recent, updated_at) = (ClaimState::Incomplete, RecentResults::default(), replay.created_at);
        Self { replay, claims, left: 0, recent, updated_at }
    }

    /// Maximum number of letters to send before their results are recorded. `None` if the replay is not running.
    pub fn next_batch_size(&self) -> Option<u32> {
        (self.replay.state == ReplayState::Running && self.claims == ClaimState::Complete).then(|| self.batch_size())
    }

    /// A batch takes at most about a second, so that the progress of a slow replay is visible. The canary letters are a
    /// batch of their own.
    fn batch_size(&self) -> u32 {
        let one_second = self
            .replay
            .rate_per_second
            .map_or(MAX_BATCH_LETTERS, |rate| (rate.ceil() as u32).clamp(1, MAX_BATCH_LETTERS));
        let canary = CANARY_LETTERS.saturating_sub(self.evaluated_letters());
        match u32::try_from(canary) {
            Ok(canary) if canary > 0 && self.replay.stop_on_failure_ratio.is_some() => one_second.min(canary),
            _ => one_second,
        }
    }

    /// Adds `letters` to the claimed total.
    pub fn add_claimed(&mut self, letters: u64) {
        self.replay.total += letters;
        self.left += letters;
    }

    /// Records that all letters are claimed. A replay without letters is done.
    pub fn finish_claiming(&mut self) {
        self.claims = ClaimState::Complete;
        self.end_if_all_sent(self.replay.created_at);
    }

    fn count_result(&mut self, outcome: ReplayOutcome) {
        let replay = &mut self.replay;
        replay.sent += 1;
        match outcome {
            ReplayOutcome::Delivered => replay.delivered += 1,
            ReplayOutcome::Dead => {
                replay.failed += 1;
                self.recent.failed += 1;
            }
            // Neither a success nor a failure, because no receiver was involved.
            ReplayOutcome::Requeued => {
                replay.requeued += 1;
                return;
            }
        }
        self.recent.sent += 1;
        if self.recent.sent >= RECENT_LETTERS {
            self.recent = RecentResults { sent: self.recent.sent / 2, failed: self.recent.failed / 2 };
        }
    }

    /// Records that claimed letters were released unsent, or that their retention has ended.
    pub fn record_released(&mut self, letters: u64) {
        self.left = self.left.saturating_sub(letters);
    }

    /// Ends the replay if it fails too often or all letters are sent. Call this after each recorded batch.
    pub fn evaluate(&mut self, at: DateTime<Utc>) {
        if !self.replay.state.is_open() {
            return;
        }
        self.updated_at = at;
        if self.fails_too_often() {
            self.end(ReplayState::Stopped, at);
        }
        self.end_if_all_sent(at);
    }

    /// # Errors
    /// The current state, if the command is not possible in it.
    pub fn control(&mut self, command: ReplayCommand, at: DateTime<Utc>) -> Result<(), ReplayState> {
        let state = command.apply(self.replay.state).ok_or(self.replay.state)?;
        self.updated_at = at;
        if state.is_open() {
            self.replay.state = state;
        } else {
            self.end(state, at);
        }
        Ok(())
    }

    /// The number of letters that count for the failure ratio.
    fn evaluated_letters(&self) -> u64 {
        self.replay.delivered + self.replay.failed
    }

    fn fails_too_often(&self) -> bool {
        let Some(ratio) = self.replay.stop_on_failure_ratio else { return false };
        let min_letters = CANARY_LETTERS.min(self.replay.total.saturating_sub(self.replay.requeued));
        self.evaluated_letters() >= min_letters
            && self.recent.failed > 0
            && self.recent.failed as f64 >= ratio * self.recent.sent as f64
    }

    fn end_if_all_sent(&mut self, at: DateTime<Utc>) {
        if self.replay.state.is_open() && self.claims == ClaimState::Complete && self.left == 0 {
            self.end(ReplayState::Done, at);
        }
    }

    fn end(&mut self, state: ReplayState, at: DateTime<Utc>) {
        self.replay.state = state;
        self.replay.ended_at = Some(at);
    }
}

#[cfg(test)]
mod tests;
