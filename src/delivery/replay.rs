//! Replays: durable jobs that send chosen dead letters again. What a replay is, and every decision of its course.
//!
//! ```text
//! created, and all its letters claimed ▶ sent, slice by slice ▶ done
//!                                        └ pause ⇄ resume, cancel; stopped by its failure ratio
//! ```
//!
//! A letter is sent once. Where that fails it is dead again, as a new letter; a replay retries nothing by itself.

pub mod target;

use chrono::{DateTime, Utc};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::dead_letter::filter::LetterFilter;
use super::ids::DeadLetterId;
pub use super::ids::{ReplayId, ReplayRef};
use super::timestamp;

/// The most letters sent between two records of it: so many are sent once more where a worker dies in between.
pub const SLICE: u32 = 100;

/// So many letters are sent and judged before any other, where the replay has a failure ratio to stop at.
pub const CANARY: u64 = 20;

/// The failure ratio is that of the latest letters: half of these at least, all of them at most.
const RECENT: u64 = 1000;

/// Requests of all replays in flight at once.
pub const REQUESTS: usize = 64;

/// Whether a replay may have one request more in flight: `own` are its own, `all` those of all replays, of which `running`
/// are at work. Nobody has more than a share, and one share is left for whoever comes next; so an endpoint that hangs holds
/// up its own replay only. One request each may have in any case.
pub fn may_begin(own: usize, all: usize, running: usize) -> bool {
    own == 0 || (all < REQUESTS && own < REQUESTS / (running + 1))
}

/// A replay, as the API shows it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Replay {
    /// Sorts by the time of creation.
    pub id: ReplayId,
    /// How it stands.
    pub state: ReplayState,
    /// Which letters, where they were chosen by a filter.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub filter: Option<LetterFilter>,
    /// Which letters, where they were named.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ids: Option<Vec<DeadLetterId>>,
    /// The most letters sent in a second.
    pub rate_per_second: Option<f64>,
    /// Where they are sent.
    pub config: ReplayConfig,
    /// Stops when so great a share of the latest letters has failed; 0 to 1.
    pub stop_on_failure_ratio: Option<f64>,
    /// Letters it has claimed: all that there were for it at its creation.
    pub total: u64,
    /// Letters sent so far: delivered, requeued or failed.
    pub sent: u64,
    /// Of these, those the receiver has.
    pub delivered: u64,
    /// Of these, unreadable events that are back on their queue: whether they can be read now, nobody here knows.
    #[serde(default)]
    pub requeued: u64,
    /// Of these, those that are dead again.
    pub failed: u64,
    /// When it was created.
    #[serde(with = "timestamp")]
    #[schemars(with = "DateTime<Utc>")]
    pub created_at: DateTime<Utc>,
    /// The name of the creator's token.
    pub created_by: String,
    /// When it ended.
    #[serde(with = "timestamp::optional", default)]
    #[schemars(with = "Option<DateTime<Utc>>")]
    pub ended_at: Option<DateTime<Utc>>,
}

/// How a replay stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ReplayState {
    /// It is sending.
    Running,
    /// It goes on when it is resumed.
    Paused,
    /// All its letters were sent.
    Done,
    /// Somebody has ended it.
    Cancelled,
    /// Its failure ratio has ended it.
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

    /// Whether it can still go on.
    pub fn is_open(self) -> bool {
        matches!(self, Self::Running | Self::Paused)
    }
}

/// By which configuration a letter is sent again.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum ReplayConfig {
    /// The webhook as it is now.
    #[default]
    Current,
    /// The webhook as it was at the letter's last attempt.
    Original,
}

/// What a replay can be told.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum ReplayCommand {
    /// Send no more until resumed.
    Pause,
    /// Go on.
    Resume,
    /// End, and give back what is unsent.
    Cancel,
}

impl ReplayCommand {
    /// The word of the API.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Pause => "pause",
            Self::Resume => "resume",
            Self::Cancel => "cancel",
        }
    }

    /// The state it leads to; `None` where it makes no sense.
    pub fn apply(self, state: ReplayState) -> Option<ReplayState> {
        match (self, state) {
            (Self::Pause, ReplayState::Running) => Some(ReplayState::Paused),
            (Self::Resume, ReplayState::Paused) => Some(ReplayState::Running),
            (Self::Cancel, ReplayState::Running | ReplayState::Paused) => Some(ReplayState::Cancelled),
            _ => None,
        }
    }
}

/// How sending a letter again went.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ReplayOutcome {
    /// The receiver has it.
    Delivered,
    /// It failed again.
    Dead,
    /// An unreadable event is back on the events queue, as it came.
    Requeued,
}

impl ReplayOutcome {
    /// Every outcome, for metrics that exist before they count.
    pub const ALL: [Self; 3] = [Self::Delivered, Self::Dead, Self::Requeued];

    /// The metric label.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Delivered => "delivered",
            Self::Dead => "dead",
            Self::Requeued => "requeued",
        }
    }
}

/// A replay with what is known of its course: the same on every node, for each applies the same records.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ReplayProgress {
    /// As the API shows it.
    pub replay: Replay,
    /// Whether it has claimed its letters.
    pub claims: ClaimState,
    /// Claimed letters that are unsent.
    pub left: u64,
    /// How the latest letters went.
    recent: RecentResults,
    /// When something was last recorded of it.
    #[serde(with = "timestamp")]
    pub updated_at: DateTime<Utc>,
}

/// The latest letters that were delivered or failed, counted; what is older counts half.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
struct RecentResults {
    sent: u64,
    failed: u64,
}

/// Whether a replay has claimed its letters: no other takes them then.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum ClaimState {
    /// Not all.
    Unfinished,
    /// All there were.
    Made,
}

impl ReplayProgress {
    /// A job that has claimed nothing yet.
    pub fn new(replay: Replay) -> Self {
        let (claims, recent, updated_at) = (ClaimState::Unfinished, RecentResults::default(), replay.created_at);
        Self { replay, claims, left: 0, recent, updated_at }
    }

    /// How many letters are to be sent next, at most, before that is recorded; none where nothing is, now or ever.
    pub fn next_slice(&self) -> Option<u32> {
        (self.replay.state == ReplayState::Running && self.claims == ClaimState::Made).then(|| self.slice())
    }

    /// Whether letters are still claimed that it will not send any more.
    pub fn is_to_release(&self) -> bool {
        !self.replay.state.is_open() && self.left > 0
    }

    /// A slice takes about a second, so that a slow replay shows its course; and the canary is a slice of its own.
    fn slice(&self) -> u32 {
        let a_second = self.replay.rate_per_second.map_or(SLICE, |rate| (rate.ceil() as u32).clamp(1, SLICE));
        let canary = CANARY.saturating_sub(self.judged());
        match u32::try_from(canary) {
            Ok(canary) if canary > 0 && self.replay.stop_on_failure_ratio.is_some() => a_second.min(canary),
            _ => a_second,
        }
    }

    /// So many letters more were claimed.
    pub fn claimed(&mut self, letters: u64) {
        self.replay.total += letters;
        self.left += letters;
    }

    /// All were claimed. Where there were none it is done.
    pub fn all_claimed(&mut self) {
        self.claims = ClaimState::Made;
        self.end_if_all_sent(self.replay.created_at);
    }

    /// A claimed letter was sent.
    pub fn sent(&mut self, outcome: ReplayOutcome) {
        self.left = self.left.saturating_sub(1);
        self.sent_unclaimed(outcome);
    }

    /// A letter was sent that it has not claimed, or not any longer: as many as before are left.
    pub fn sent_unclaimed(&mut self, outcome: ReplayOutcome) {
        let replay = &mut self.replay;
        replay.sent += 1;
        match outcome {
            ReplayOutcome::Delivered => replay.delivered += 1,
            ReplayOutcome::Dead => {
                replay.failed += 1;
                self.recent.failed += 1;
            }
            // Neither a success nor a failure: no receiver has been asked.
            ReplayOutcome::Requeued => {
                replay.requeued += 1;
                return;
            }
        }
        self.recent.sent += 1;
        if self.recent.sent >= RECENT {
            self.recent = RecentResults { sent: self.recent.sent / 2, failed: self.recent.failed / 2 };
        }
    }

    /// Claimed letters were given back unsent, or are not kept any longer.
    pub fn released(&mut self, letters: u64) {
        self.left = self.left.saturating_sub(letters);
    }

    /// Decides whether it ends here, after a slice was recorded. Nothing is decided of one that has ended.
    pub fn judge(&mut self, at: DateTime<Utc>) {
        if !self.replay.state.is_open() {
            return;
        }
        self.updated_at = at;
        if self.fails_too_often() {
            self.end(ReplayState::Stopped, at);
        }
        self.end_if_all_sent(at);
    }

    /// Does as it is told, or tells the state in which that makes no sense.
    ///
    /// # Errors
    /// Its state.
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

    /// Letters by which it can be told how it goes.
    fn judged(&self) -> u64 {
        self.replay.delivered + self.replay.failed
    }

    fn fails_too_often(&self) -> bool {
        let Some(ratio) = self.replay.stop_on_failure_ratio else { return false };
        let enough = CANARY.min(self.replay.total.saturating_sub(self.replay.requeued));
        self.judged() >= enough
            && self.recent.failed > 0
            && self.recent.failed as f64 >= ratio * self.recent.sent as f64
    }

    fn end_if_all_sent(&mut self, at: DateTime<Utc>) {
        if self.replay.state.is_open() && self.claims == ClaimState::Made && self.left == 0 {
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
