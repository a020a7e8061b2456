//! Acknowledgements, coalesced: one frame for all messages finished in a row, single frames only for those stuck
//! behind a slow one. One frame a message costs the broker four times as much.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use lapin::Channel;
use lapin::options::{BasicAckOptions, BasicRejectOptions};
use tokio::sync::mpsc::{self, error::TryRecvError};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep};

/// A finished message waits this long for its neighbours.
const FLUSH_INTERVAL: Duration = Duration::from_millis(2);

/// One stuck behind an unfinished message waits for so many of these intervals that that one is finished as well: a delivery
/// that is parked takes less, and then one frame is enough for all.
const STUCK_LOOKS: u64 = 20;

/// A message that is the first unfinished one for so long hangs.
const HANGING: Duration = Duration::from_millis(500);

/// Where one hangs, and so many have had a frame of their own because of it, the channel is stuck.
const MANY_SINGLE: usize = 64;

/// What becomes of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum AckDecision {
    Acknowledge,
    Requeue,
}

/// Where finished messages of one channel are reported. Cheap to clone; the last clone dropped ends the flushing.
#[derive(Debug, Clone)]
pub struct Acks {
    verdicts: mpsc::UnboundedSender<(u64, AckDecision)>,
}

/// The acknowledging of one channel.
#[derive(Debug)]
pub struct AckTask {
    task: JoinHandle<()>,
    stuck: Arc<AtomicBool>,
}

/// How many messages of a channel are unfinished.
#[derive(Debug)]
pub struct Outstanding(mpsc::WeakUnboundedSender<(u64, AckDecision)>);

impl Outstanding {
    /// The messages in hand, each of which has a clone of [`Acks`].
    pub fn count(&self) -> usize {
        self.0.strong_count()
    }
}

impl AckTask {
    /// Whether most messages need a frame of their own, because an earlier one hangs.
    pub fn is_stuck(&self) -> bool {
        self.stuck.load(Ordering::Relaxed)
    }

    /// Waits until all clones of [`Acks`] are dropped and everything is written.
    pub async fn ended(self) {
        // A task that was aborted or has panicked leaves messages unacknowledged: they come again.
        let _ = self.task.await;
    }
}

impl Acks {
    /// Starts acknowledging on `channel`, whose only consumer's tags count from 1, no more than `prefetch` at a time. It ends when
    /// all clones are dropped and everything is written, or when the channel fails: what is unacknowledged then comes again.
    pub fn start(channel: Channel, prefetch: u16) -> (Self, AckTask) {
        // Unbounded, but holding no more than the channel's prefetch.
        let (sender, receiver) = mpsc::unbounded_channel();
        let stuck = Arc::new(AtomicBool::new(false));
        let task = tokio::spawn(run(channel, receiver, AckWindow::new(prefetch), stuck.clone()));
        (Self { verdicts: sender }, AckTask { task, stuck })
    }

    /// Counts the messages that are unfinished.
    pub fn unfinished(&self) -> Outstanding {
        Outstanding(self.verdicts.downgrade())
    }

    /// The outcome of the message is durable.
    pub fn acknowledge(&self, tag: u64) {
        // A closed channel has taken its unacknowledged messages back: there is nobody to tell.
        let _ = self.verdicts.send((tag, AckDecision::Acknowledge));
    }

    /// The message could not be dealt with: the broker gives it out again, and counts.
    pub fn requeue(&self, tag: u64) {
        let _ = self.verdicts.send((tag, AckDecision::Requeue));
    }
}

async fn run(
    channel: Channel,
    mut verdicts: mpsc::UnboundedReceiver<(u64, AckDecision)>,
    mut window: AckWindow,
    stuck: Arc<AtomicBool>,
) {
    let mut batch = Vec::new();
    let started = Instant::now();
    loop {
        if !window.has_finished() {
            let Some(first) = verdicts.recv().await else { return };
            batch.push(first);
        }
        // Its neighbours finish meanwhile, and wake nobody.
        sleep(FLUSH_INTERVAL).await;
        let ended = loop {
            match verdicts.try_recv() {
                Ok(verdict) => batch.push(verdict),
                Err(empty_or_ended) => break empty_or_ended == TryRecvError::Disconnected,
            }
        };
        if settle(&channel, &mut window, &mut batch, started.elapsed()).await.is_err() {
            return;
        }
        stuck.store(window.is_stuck(started.elapsed()), Ordering::Relaxed);
        if ended && !window.has_finished() {
            return;
        }
    }
}

/// Takes verdicts into the window, and writes what is to be written now.
async fn settle(
    channel: &Channel,
    window: &mut AckWindow,
    batch: &mut Vec<(u64, AckDecision)>,
    now: Duration,
) -> Result<(), lapin::Error> {
    for (tag, verdict) in batch.drain(..) {
        match verdict {
            AckDecision::Acknowledge => window.finish(tag),
            AckDecision::Requeue => {
                // Not `basic.nack`, which RabbitMQ no longer counts against the delivery limit from 4.3 on.
                channel.basic_reject(tag, BasicRejectOptions { requeue: true }).await?;
                window.settled(tag);
            }
        }
    }
    write(channel, window.flush(now)).await
}

async fn write(channel: &Channel, acks: Vec<Ack>) -> Result<(), lapin::Error> {
    for Ack { tag, multiple } in acks {
        channel.basic_ack(tag, BasicAckOptions { multiple }).await?;
    }
    Ok(())
}

/// One acknowledgement frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Ack {
    tag: u64,
    multiple: bool,
}

/// Decides which frames acknowledge the finished messages of a channel.
#[derive(Debug, Default)]
struct AckWindow {
    /// The highest tag heard of.
    highest: u64,
    /// Tags up to the highest that are not finished: no more than the channel's window.
    unfinished: BTreeSet<u64>,
    /// Finished and not yet acknowledged, each with the number of the flush before which it finished.
    finished: BTreeMap<u64, u64>,
    /// No more finished messages wait: the broker gives out no others in their place.
    most_finished: usize,
    flushes: u64,
    head: Head,
}

/// The first unfinished message.
#[derive(Debug, Default)]
struct Head {
    tag: u64,
    /// Since when it is the first, by the clock that [`AckWindow::flush`] is given.
    since: Duration,
    /// Messages after it that were acknowledged by themselves.
    overtaken: usize,
}

impl AckWindow {
    fn new(prefetch: u16) -> Self {
        Self { most_finished: usize::from(prefetch / 2), ..Self::default() }
    }

    fn finish(&mut self, tag: u64) {
        self.settled(tag);
        self.finished.insert(tag, self.flushes);
    }

    /// Was settled by a frame of its own.
    fn settled(&mut self, tag: u64) {
        self.unfinished.extend(self.highest + 1..=tag);
        self.highest = self.highest.max(tag);
        self.unfinished.remove(&tag);
    }

    fn has_finished(&self) -> bool {
        !self.finished.is_empty()
    }

    /// The frames to write `now`, a time since any one moment.
    fn flush(&mut self, now: Duration) -> Vec<Ack> {
        // Everything before the first unfinished message goes in one frame. It names a tag that is still to be
        // acknowledged, for the broker closes the channel on one that it does not know any more.
        let head = self.unfinished.first().copied().unwrap_or(u64::MAX);
        if head != self.head.tag {
            self.head = Head { tag: head, since: now, overtaken: 0 };
        }
        let stuck = self.finished.split_off(&head);
        let row = std::mem::replace(&mut self.finished, stuck);
        let mut acks: Vec<Ack> =
            row.last_key_value().map(|(tag, _)| Ack { tag: *tag, multiple: true }).into_iter().collect();
        // Of too many only those that are too many.
        let mut excess = self.finished.len().saturating_sub(self.most_finished);
        let flushes = self.flushes;
        let overtaking = self.finished.extract_if(.., |_, since| {
            let goes = excess > 0 || flushes - *since >= STUCK_LOOKS;
            excess = excess.saturating_sub(usize::from(goes));
            goes
        });
        let before = acks.len();
        acks.extend(overtaking.map(|(tag, _)| Ack { tag, multiple: false }));
        self.head.overtaken += acks.len() - before;
        self.flushes += 1;
        acks
    }

    fn is_stuck(&self, now: Duration) -> bool {
        self.head.overtaken >= MANY_SINGLE && now.saturating_sub(self.head.since) >= HANGING
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const NOW: Duration = Duration::from_secs(100);

    #[test]
    fn a_row_is_one_frame_and_a_slow_head_holds_nobody_up() {
        let mut window = AckWindow::new(8);
        for tag in [1, 2, 3, 5, 6] {
            window.finish(tag);
        }
        assert_eq!(window.flush(NOW), [Ack { tag: 3, multiple: true }]);
        for _ in 1..STUCK_LOOKS {
            assert_eq!(window.flush(NOW), [], "the slow one may yet finish");
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
            "no more than half of what the broker gives out waits behind the 8"
        );
    }

    #[test]
    fn a_head_that_hangs_makes_it_stuck() {
        let mut window = AckWindow::new(1000);
        let mut tags = 2..;
        let mut flush = |window: &mut AckWindow, after: Duration, finished: usize| {
            tags.by_ref().take(finished).for_each(|tag| window.finish(tag));
            window.flush(NOW + after);
            window.is_stuck(NOW + after)
        };
        for _ in 0..2 * STUCK_LOOKS {
            assert!(!flush(&mut window, Duration::ZERO, 3), "it may only be slow");
        }
        assert!(!flush(&mut window, HANGING - Duration::from_millis(1), 0));
        assert!(flush(&mut window, HANGING, 0));
        window.finish(1);
        assert!(!flush(&mut window, HANGING, 0), "it has finished");
        let mut window = AckWindow::new(1000);
        window.finish(2);
        window.flush(NOW);
        assert!(!window.is_stuck(NOW + 2 * HANGING), "few need a frame");
    }

    #[test]
    fn the_frame_for_many_never_names_a_tag_settled_alone() {
        let mut window = AckWindow::new(512);
        window.settled(2);
        window.finish(1);
        assert_eq!(window.flush(NOW), [Ack { tag: 1, multiple: true }]);
        window.finish(3);
        assert_eq!(window.flush(NOW), [Ack { tag: 3, multiple: true }]);
    }

    proptest! {
        /// Against a model of the broker: each message is acknowledged exactly once, none unfinished, no unknown tag.
        #[test]
        fn every_finished_message_is_acknowledged_once(
            order in Just((1..=60_u64).collect::<Vec<_>>()).prop_shuffle(),
            flushes in proptest::collection::vec(any::<bool>(), 60),
        ) {
            let mut window = AckWindow::new(512);
            let mut finished = BTreeSet::new();
            let mut outstanding: BTreeSet<u64> = (1..=60).collect();
            let mut apply = |acks: Vec<Ack>, finished: &BTreeSet<u64>| {
                for Ack { tag, multiple } in acks {
                    assert!(outstanding.contains(&tag), "unknown tag {tag}");
                    let covered: Vec<u64> = if multiple { outstanding.range(..=tag).copied().collect() } else { vec![tag] };
                    for tag in covered {
                        assert!(finished.contains(&tag), "{tag} is not finished");
                        outstanding.remove(&tag);
                    }
                }
                outstanding.is_empty()
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
