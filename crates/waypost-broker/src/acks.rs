//! Acknowledges the messages of a channel, many in one frame.
//!
//! One frame acknowledges all messages up to the first unacknowledged one. Messages finished after that one wait a
//! moment, and then get a frame each. One frame for each message would cost the broker four times as much.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use lapin::Channel;
use lapin::options::{BasicAckOptions, BasicRejectOptions};
use tokio::sync::mpsc::{self, error::TryRecvError};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep};

/// A finished message waits this long for others, so that one frame acknowledges all of them.
const FLUSH_INTERVAL: Duration = Duration::from_millis(4);

/// A message finished after an unacknowledged one waits for this many flushes before it gets its own frame. Parking a
/// delivery takes less time, so one frame is usually enough for all.
const MAX_FLUSHES_BEHIND_HEAD: u64 = 10;

/// A message that is the first unacknowledged one for this long counts as hanging.
const HANGING_HEAD_AGE: Duration = Duration::from_millis(500);

/// A channel is stuck if its first unacknowledged message hangs and at least this many later messages needed their own
/// frame.
const STUCK_SINGLE_ACKS: usize = 64;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum AckDecision {
    Acknowledge,
    Requeue,
}

/// Takes the finished messages of one channel. Cheap to clone. The task ends when the last clone is dropped.
#[derive(Debug, Clone)]
pub struct Acks {
    decisions: mpsc::UnboundedSender<(u64, AckDecision)>,
}

/// The task that acknowledges the messages of one channel.
#[derive(Debug)]
pub struct AckTask {
    task: JoinHandle<()>,
    stuck: Arc<AtomicBool>,
}

/// Counts the unacknowledged messages of a channel.
#[derive(Debug)]
pub struct UnackedCount(mpsc::WeakUnboundedSender<(u64, AckDecision)>);

impl UnackedCount {
    /// The number of clones of [`Acks`]: each unacknowledged message holds one.
    pub fn count(&self) -> usize {
        self.0.strong_count()
    }
}

impl AckTask {
    /// Whether most messages need their own frame because an earlier message hangs.
    pub fn is_stuck(&self) -> bool {
        self.stuck.load(Ordering::Relaxed)
    }

    /// Waits until all clones of [`Acks`] are dropped and all acknowledgements are written.
    pub async fn wait(self) {
        // If the task panicked, messages are unacknowledged and the broker delivers them again.
        let _ = self.task.await;
    }
}

impl Acks {
    /// Starts a task that acknowledges on `channel`, which must have a single consumer: tags count from 1, and at most
    /// `prefetch` are unacknowledged. The task ends when all clones are dropped and everything is written, or when the
    /// channel fails. The broker delivers unacknowledged messages again.
    pub fn start(channel: Channel, prefetch: u16) -> (Self, AckTask) {
        // Holds at most `prefetch` decisions.
        let (sender, receiver) = mpsc::unbounded_channel();
        let stuck = Arc::new(AtomicBool::new(false));
        let task = tokio::spawn(run(channel, receiver, AckWindow::new(prefetch), stuck.clone()));
        (Self { decisions: sender }, AckTask { task, stuck })
    }

    pub fn unacked_count(&self) -> UnackedCount {
        UnackedCount(self.decisions.downgrade())
    }

    /// Call this only after the outcome of the message is durable.
    pub fn acknowledge(&self, tag: u64) {
        // Sending fails if the channel has closed. The broker then requeues the message anyway.
        let _ = self.decisions.send((tag, AckDecision::Acknowledge));
    }

    /// The broker delivers the message again and counts it against the delivery limit.
    pub fn requeue(&self, tag: u64) {
        let _ = self.decisions.send((tag, AckDecision::Requeue));
    }
}

async fn run(
    channel: Channel,
    mut decisions: mpsc::UnboundedReceiver<(u64, AckDecision)>,
    mut window: AckWindow,
    stuck: Arc<AtomicBool>,
) {
    let mut batch = Vec::new();
    let started = Instant::now();
    loop {
        if !window.has_finished() {
            let Some(first) = decisions.recv().await else { return };
            batch.push(first);
        }
        // Other messages finish meanwhile and do not wake this task.
        sleep(FLUSH_INTERVAL).await;
        let disconnected = loop {
            match decisions.try_recv() {
                Ok(decision) => batch.push(decision),
                Err(error) => break error == TryRecvError::Disconnected,
            }
        };
        if apply_decisions(&channel, &mut window, &mut batch, started.elapsed()).await.is_err() {
            return;
        }
        stuck.store(window.is_stuck(started.elapsed()), Ordering::Relaxed);
        if disconnected && !window.has_finished() {
            return;
        }
    }
}

/// Records the decisions in the window and writes the frames that are due.
async fn apply_decisions(
    channel: &Channel,
    window: &mut AckWindow,
    batch: &mut Vec<(u64, AckDecision)>,
    now: Duration,
) -> Result<(), lapin::Error> {
    for (tag, decision) in batch.drain(..) {
        match decision {
            AckDecision::Acknowledge => window.finish(tag),
            AckDecision::Requeue => {
                // RabbitMQ 4.3 and later do not count `basic.nack` against the delivery limit.
                channel.basic_reject(tag, BasicRejectOptions { requeue: true }).await?;
                window.remove(tag);
            }
        }
    }
    write_acks(channel, window.flush(now)).await
}

async fn write_acks(channel: &Channel, acks: Vec<Ack>) -> Result<(), lapin::Error> {
    for Ack { tag, multiple } in acks {
        channel.basic_ack(tag, BasicAckOptions { multiple }).await?;
    }
    Ok(())
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Ack {
    tag: u64,
    multiple: bool,
}

/// Decides which frames acknowledge the finished messages of a channel. Does no I/O.
#[derive(Debug, Default)]
struct AckWindow {
    highest_tag: u64,
    /// Tags up to `highest_tag`. At most the prefetch.
    unacked: BTreeSet<u64>,
    /// Not acknowledged yet. Each with the number of flushes before it finished.
    finished: BTreeMap<u64, u64>,
    /// More finished messages than this do not wait: the broker delivers no new messages in their place.
    max_finished: usize,
    flushes: u64,
    head: HeadMessage,
}

/// The first message that is neither finished nor requeued.
#[derive(Debug, Default)]
struct HeadMessage {
    tag: u64,
    /// When it became the first, on the clock of [`AckWindow::flush`].
    since: Duration,
    /// Later messages that were acknowledged with their own frame.
    single_acks: usize,
}

impl AckWindow {
    fn new(prefetch: u16) -> Self {
        Self { max_finished: usize::from(prefetch / 2), ..Self::default() }
    }

    fn finish(&mut self, tag: u64) {
        self.remove(tag);
        self.finished.insert(tag, self.flushes);
    }

    /// Removes a message that was finished or requeued.
    fn remove(&mut self, tag: u64) {
        self.unacked.extend(self.highest_tag + 1..=tag);
        self.highest_tag = self.highest_tag.max(tag);
        self.unacked.remove(&tag);
    }

    fn has_finished(&self) -> bool {
        !self.finished.is_empty()
    }

    /// The frames to write. `now` is the time since any fixed start.
    fn flush(&mut self, now: Duration) -> Vec<Ack> {
        // One frame acknowledges everything before the first one in `unacked`. The frame must name a tag that is not
        // acknowledged yet: the broker closes the channel on an unknown tag.
        let head = self.unacked.first().copied().unwrap_or(u64::MAX);
        if head != self.head.tag {
            self.head = HeadMessage { tag: head, since: now, single_acks: 0 };
        }
        let behind_head = self.finished.split_off(&head);
        let before_head = std::mem::replace(&mut self.finished, behind_head);
        let mut acks: Vec<Ack> =
            before_head.last_key_value().map(|(tag, _)| Ack { tag: *tag, multiple: true }).into_iter().collect();
        let mut excess = self.finished.len().saturating_sub(self.max_finished);
        let flushes = self.flushes;
        let single_acks = self.finished.extract_if(.., |_, finished_at| {
            let is_due = excess > 0 || flushes - *finished_at >= MAX_FLUSHES_BEHIND_HEAD;
            excess = excess.saturating_sub(usize::from(is_due));
            is_due
        });
        let before = acks.len();
        acks.extend(single_acks.map(|(tag, _)| Ack { tag, multiple: false }));
        self.head.single_acks += acks.len() - before;
        self.flushes += 1;
        acks
    }

    fn is_stuck(&self, now: Duration) -> bool {
        self.head.single_acks >= STUCK_SINGLE_ACKS && now.saturating_sub(self.head.since) >= HANGING_HEAD_AGE
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const NOW: Duration = Duration::from_secs(100);

    #[test]
    fn consecutive_messages_share_a_frame_and_an_unacknowledged_head_delays_the_rest_only_briefly() {
        let mut window = AckWindow::new(8);
        for tag in [1, 2, 3, 5, 6] {
            window.finish(tag);
        }
        assert_eq!(window.flush(NOW), [Ack { tag: 3, multiple: true }]);
        for _ in 1..MAX_FLUSHES_BEHIND_HEAD {
            assert_eq!(window.flush(NOW), [], "message 4 may still finish");
        }
        assert_eq!(window.flush(NOW), [Ack { tag: 5, multiple: false }, Ack { tag: 6, multiple: false }]);
        assert!(!window.has_finished());
        window.finish(4);
        window.finish(7);
        assert_eq!(window.flush(NOW), [Ack { tag: 7, multiple: true }]);
        (9..=13).for_each(|tag| window.finish(tag));
        assert_eq!(
            window.flush(NOW),
            [Ack { tag: 9, multiple: false }],
            "at most half of the prefetch waits behind message 8"
        );
    }

    #[test]
    fn a_hanging_head_makes_the_channel_stuck() {
        let mut window = AckWindow::new(1000);
        let mut tags = 2..;
        let mut flush = |window: &mut AckWindow, after: Duration, finished: usize| {
            tags.by_ref().take(finished).for_each(|tag| window.finish(tag));
            window.flush(NOW + after);
            window.is_stuck(NOW + after)
        };
        for _ in 0..5 * MAX_FLUSHES_BEHIND_HEAD {
            assert!(!flush(&mut window, Duration::ZERO, 3), "the head has not hung long enough");
        }
        assert!(!flush(&mut window, HANGING_HEAD_AGE - Duration::from_millis(1), 0));
        assert!(flush(&mut window, HANGING_HEAD_AGE, 0));
        window.finish(1);
        assert!(!flush(&mut window, HANGING_HEAD_AGE, 0), "the head has finished");
        let mut window = AckWindow::new(1000);
        window.finish(2);
        window.flush(NOW);
        assert!(!window.is_stuck(NOW + 2 * HANGING_HEAD_AGE), "only one message needed its own frame");
    }

    #[test]
    fn a_multiple_ack_never_names_a_tag_that_was_already_removed() {
        let mut window = AckWindow::new(512);
        window.remove(2);
        window.finish(1);
        assert_eq!(window.flush(NOW), [Ack { tag: 1, multiple: true }]);
        window.finish(3);
        assert_eq!(window.flush(NOW), [Ack { tag: 3, multiple: true }]);
    }

    proptest! {
        /// Compares with a model of the broker, which accepts no tag of an unfinished message and no unknown tag.
        #[test]
        fn every_finished_message_is_acknowledged_exactly_once(
            order in Just((1..=60_u64).collect::<Vec<_>>()).prop_shuffle(),
            flushes in proptest::collection::vec(any::<bool>(), 60),
        ) {
            let mut window = AckWindow::new(512);
            let mut finished = BTreeSet::new();
            let mut unacked: BTreeSet<u64> = (1..=60).collect();
            let mut apply = |acks: Vec<Ack>, finished: &BTreeSet<u64>| {
                for Ack { tag, multiple } in acks {
                    assert!(unacked.contains(&tag), "unknown tag {tag}");
                    let covered: Vec<u64> = if multiple { unacked.range(..=tag).copied().collect() } else { vec![tag] };
                    for tag in covered {
                        assert!(finished.contains(&tag), "{tag} is not finished");
                        unacked.remove(&tag);
                    }
                }
                unacked.is_empty()
            };
            for (tag, flush) in order.into_iter().zip(flushes) {
                window.finish(tag);
                finished.insert(tag);
                if flush {
                    apply(window.flush(NOW), &finished);
                }
            }
            prop_assert!(apply(window.flush(NOW), &finished), "something was never acknowledged");
        }
    }
}
