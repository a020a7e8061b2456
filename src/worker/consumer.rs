//! Taking messages in: a session on one connection, from its topology to its last acknowledgement, and a new one
//! whenever it is lost.
//!
//! The broker gives out no more messages than the window; each has a task of its own, and is acknowledged when that
//! has settled it. When the connection is lost the tasks are aborted: the broker gives their messages out again, and
//! a task that went on would make a second delivery of each.

use std::panic::AssertUnwindSafe;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use backoff::backoff::Backoff as _;
use futures_util::FutureExt as _;
use futures_util::future::try_join_all;
use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::Worker;
use super::consumer_status::{ConsumerStatus, MessageGuard, Phase};
use super::memory_budget::MemoryBudget;
use super::queue::Queue;
use super::retry_throttle::RetryThrottle;
use crate::broker::BrokerError;
use crate::broker::acks::Acks;
use crate::broker::connection::{self, ConnectionConfig, reconnect_delays};
use crate::broker::probe::is_probe;
use crate::broker::queue_stats;
use crate::broker::rotating_consumer::{DeliveryOrigin, ReceivedMessage, RotatingConsumer};
use crate::broker::subscription::Message;
use crate::broker::topology::{MAX_RETURNS, Topology};
use crate::campaigns::Campaigns;
use crate::campaigns::hold::LogStatus;
use crate::view_sync::{FollowError, Follower, SyncState, watch};

/// A message that could not be settled is held this long before it goes back, so that a trouble of ours that passes
/// does not use up the number of times the broker gives a message out.
const REQUEUE_PAUSE: Duration = Duration::from_secs(5);

/// Takes messages in, and has them delivered.
pub struct Consumer {
    /// The broker.
    pub address: ConnectionConfig,
    /// What is declared there.
    pub topology: Topology,
    /// Followed on the same connection; events wait until it is current.
    pub campaigns: Campaigns,
    /// What deals with a message.
    pub worker: Arc<Worker>,
    /// Messages in hand at once: events, and as many retries again.
    pub window: u16,
    /// How long attempts in flight may go on after a stop.
    pub grace: Duration,
    /// Where it is told how things stand.
    pub progress: ConsumerStatus,
    /// Whether the campaigns log is read as it grows.
    pub follower: Follower,
    /// Of all messages being dealt with.
    pub memory_budget: MemoryBudget,
    /// Of fresh events before retries.
    pub precedence: RetryThrottle,
}

/// How a session ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum SessionEnd {
    /// By a stop.
    Stopped,
    /// The view must be read again, or may lack campaigns.
    ViewOutdated,
}

impl Consumer {
    /// Consumes until `stop`, over as many connections as that takes.
    ///
    /// # Errors
    /// What another connection does not mend: [`BrokerError::Mismatch`] at the first one, and a local store that fails,
    /// which stays failed until it is opened anew.
    pub async fn run(self, stop: CancellationToken) -> Result<(), FollowError> {
        let mut delays = reconnect_delays();
        let mut declared = false;
        loop {
            let ended = self.session(&stop, &mut delays, &mut declared).await;
            self.campaigns.connection_lost();
            self.worker.metrics.broker_connected.set(0);
            self.worker.metrics.forget_queue_depths();
            let error = match ended {
                Ok(SessionEnd::Stopped) => return Ok(()),
                Ok(SessionEnd::ViewOutdated) => continue,
                Err(error @ FollowError::Store(_)) => return Err(error),
                Err(FollowError::Broker(error)) if !declared && error.is_permanent() => return Err(error.into()),
                Err(error) => error,
            };
            self.follower.failed(&error);
            self.progress.enter(Phase::Connecting { trouble: error.to_string() });
            let delay = delays.next_backoff().unwrap_or(delays.max_interval);
            tracing::warn!(%error, ?delay, "not consuming; connecting again");
            tokio::select! {
                () = tokio::time::sleep(delay) => {}
                () = stop.cancelled() => return Ok(()),
            }
        }
    }

    /// One connection, until it is lost, or until `stop` or the end of the view and the last acknowledgement.
    async fn session(
        &self,
        stop: &CancellationToken,
        delays: &mut backoff::ExponentialBackoff,
        declared: &mut bool,
    ) -> Result<SessionEnd, FollowError> {
        let prepare = async {
            let connection = self.address.connect("waypost worker").await?;
            self.topology.declare(&connection).await?;
            let queues = self.topology.event_queues(&connection).await?;
            *declared = true;
            self.progress.enter(Phase::CatchingUp);
            let log = self.campaigns.open(&connection).await?;
            Ok::<_, FollowError>((connection, queues, log))
        };
        let (connection, queues, log) = tokio::select! {
            prepared = prepare => prepared?,
            () = stop.cancelled() => return Ok(SessionEnd::Stopped),
        };
        let names = &self.topology.names;
        let mut follow = pin!(self.campaigns.follow(log));
        let mut currency = self.campaigns.currency();
        let campaigns = names.campaigns();
        let watch = async {
            loop {
                match watch(&self.follower, &connection, &campaigns, || self.worker.store.position()).await {
                    // The view is kept as it is, and the log compared with it.
                    Err(FollowError::Stalled { .. })
                        if !matches!(*self.campaigns.log_status().borrow(), LogStatus::Following) => {}
                    ended => break ended,
                }
            }
        };
        let mut watch = pin!(watch);
        let ended = tokio::select! {
            ended = &mut follow => Some(ended?),
            ended = &mut watch => match ended? {},
            _ = currency.wait_for(|currency| *currency == SyncState::Current) => None,
            () = stop.cancelled() => return Ok(SessionEnd::Stopped),
        };
        if ended.is_some() {
            connection::close(&connection).await;
            return Ok(SessionEnd::ViewOutdated);
        }
        // Cancelled by `stop`, and when events must not be resolved by the view any more.
        let pause = stop.child_token();
        let retries_queue = names.retries();
        let consume = async {
            let mut events = Vec::new();
            for (queue, window) in queues.iter().zip(windows(self.window, self.topology.shards, queues.len())) {
                events.push(RotatingConsumer::open(&connection, queue, window).await?);
            }
            let retries = RotatingConsumer::open(&connection, &retries_queue, self.window).await?;
            delays.reset();
            self.worker.metrics.broker_connected.set(1);
            self.follower.alive();
            self.progress.enter(Phase::Consuming);
            tracing::info!(?queues, window = self.window, "consuming");
            let events = events.into_iter().map(|events| self.consume(events, Queue::Events, &pause));
            tokio::try_join!(try_join_all(events), self.consume(retries, Queue::Retries, &pause))
        };
        let depths = queue_stats::watch(&connection, names, &queues, |queue, depth| {
            self.worker.metrics.queue_depth(queue, depth.messages);
            if queue == retries_queue || queues.iter().any(|events| events == queue) {
                self.progress.ready(queue, depth.messages);
            }
            // A worker consumes each queue once.
            if queue == queues[0] {
                self.worker.endpoints.set_workers(depth.consumers);
                self.worker.metrics.workers.set(i64::from(depth.consumers));
            }
        });
        let mut consume = pin!(consume);
        let ended = tokio::select! {
            ended = &mut follow => {
                ended?;
                pause.cancel();
                consume.await?;
                SessionEnd::ViewOutdated
            }
            ended = depths => match ended? {},
            ended = &mut watch => match ended {
                Ok(never) => match never {},
                Err(error @ FollowError::Stalled { .. }) => {
                    tracing::warn!(%error, "configuration may be outdated, reading again");
                    pause.cancel();
                    consume.await?;
                    SessionEnd::ViewOutdated
                }
                Err(error) => return Err(error),
            },
            consumed = &mut consume => { consumed?; SessionEnd::Stopped }
        };
        connection::close(&connection).await;
        Ok(ended)
    }

    /// Works a queue off until `stop`, then finishes what is in hand.
    async fn consume(
        &self,
        mut messages: RotatingConsumer<'_>,
        queue: Queue,
        stop: &CancellationToken,
    ) -> Result<(), BrokerError> {
        // Dropped with this future where the connection is lost, which aborts the tasks.
        let mut tasks = JoinSet::new();
        loop {
            tokio::select! {
                taken = messages.next() => {
                    let ReceivedMessage { message, acks, arrival } = taken?;
                    if arrival == DeliveryOrigin::Recovered {
                        self.worker.metrics.messages_recovered.inc();
                    }
                    let hand = MessageContext {
                        memory_budget: self.memory_budget.clone(),
                        precedence: self.precedence.clone(),
                        in_hand: self.progress.take(),
                    };
                    tasks.spawn(settle(self.worker.clone(), queue, message, acks, hand));
                }
                () = stop.cancelled() => break,
            }
            // Those that have ended, without being woken up for each.
            while tasks.try_join_next().is_some() {}
        }
        self.progress.enter(Phase::Draining);
        tracing::info!(?queue, in_hand = tasks.len(), grace = ?self.grace, "stopping: finishing what is in hand");
        let finish = async {
            messages.cancel().await;
            while tasks.join_next().await.is_some() {}
        };
        if timeout(self.grace, finish).await.is_err() {
            tracing::warn!(?queue, given_back = tasks.len(), "stopping: the rest goes back to the broker");
        }
        tasks.shutdown().await;
        messages.finish().await;
        Ok(())
    }
}

/// The windows of the queues of events: those that there are to be share the one there is. What is left over from a time of more
/// shards is to be worked off, and holds a tenth as many beside them.
fn windows(window: u16, shards: u32, queues: usize) -> impl Iterator<Item = u16> {
    let each = (u32::from(window) / shards.max(1)).clamp(1, u32::from(window));
    let each = u16::try_from(each).unwrap_or(window);
    let shards = usize::try_from(shards).unwrap_or(usize::MAX);
    (0..queues).map(move |queue| if queue < shards { each } else { (each / 10).max(1) })
}

/// What a message in hand takes its turn with.
struct MessageContext {
    memory_budget: MemoryBudget,
    precedence: RetryThrottle,
    in_hand: MessageGuard,
}

/// Has a message dealt with, and acknowledges it once its outcome is durable.
async fn settle(worker: Arc<Worker>, queue: Queue, mut message: Message, acks: Acks, hand: MessageContext) {
    let tag = message.tag;
    if queue == Queue::Events && is_probe(&message.body) {
        // No event, so no progress either: it must not hide that events hang.
        return acks.acknowledge(tag);
    }
    match queue {
        Queue::Events => hand.precedence.event_started(),
        Queue::Retries => hand.precedence.turn().await,
    }
    let _memory = hand.memory_budget.take_message(queue, &message.body).await;
    let deal = async {
        match queue {
            _ if message.returns >= MAX_RETURNS => worker.dead_letter_poison(queue, &mut message).await,
            Queue::Events => worker.handle_event(&mut message).await,
            Queue::Retries => worker.retry(&mut message).await,
        }
    };
    match AssertUnwindSafe(deal).catch_unwind().await {
        Ok(Ok(())) => {
            hand.in_hand.settled();
            if queue == Queue::Retries {
                worker.metrics.account.taken_from_ladder.inc();
            }
            return acks.acknowledge(tag);
        }
        Ok(Err(error)) => {
            tracing::error!(?queue, %error, "a message could not be settled; it goes back to the broker")
        }
        // The panic has said where. What panics each time is dead-lettered after `MAX_RETURNS` returns.
        Err(_) => tracing::error!(?queue, "a message made the worker panic; it goes back to the broker"),
    }
    tokio::time::sleep(REQUEUE_PAUSE).await;
    acks.requeue(tag);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shards_share_the_window_and_what_is_left_over_takes_little() {
        let of = |window, shards, queues| windows(window, shards, queues).collect::<Vec<_>>();
        assert_eq!(of(1000, 1, 1), [1000]);
        assert_eq!(of(1000, 4, 4), [250; 4]);
        assert_eq!(of(1000, 1, 4), [1000, 100, 100, 100]);
        assert_eq!(of(2, 4, 5), [1; 5]);
    }
}
