//! Consumes messages from the broker. A session is one connection, from declaring the topology to the last
//! acknowledgement. When the connection is lost, a new session follows.
//!
//! The broker delivers no more messages than the window. Each message has a task, and is acknowledged when the task has
//! settled it. When the connection is lost, the tasks are aborted: the broker delivers their messages again, and a task
//! that continued would send each request twice.

use std::panic::AssertUnwindSafe;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt as _;
use futures_util::future::try_join_all;
use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use waypost_broker::BrokerError;
use waypost_broker::acks::Acks;
use waypost_broker::binding_probe::is_probe;
use waypost_broker::connection::{self, ConnectionConfig};
use waypost_broker::queue_stats;
use waypost_broker::reconnect::{ReconnectDelays, Session, SessionEnd, run_sessions};
use waypost_broker::rotating_consumer::{MessageSource, ReceivedMessage, RotatingConsumer};
use waypost_broker::subscription::Message;
use waypost_broker::topology::{MAX_REQUEUES, Topology};

use super::Worker;
use super::consumer_status::{ConsumerPhase, ConsumerStatus, MessageGuard};
use super::queue::ConsumedQueue;
use crate::campaigns::Campaigns;
use crate::campaigns::hold::StreamStatus;
use crate::delivery_event::DeliveryEvent;
use crate::view_sync::{FollowError, Follower, SyncState, watch};

/// A message that could not be settled is held this long before it is requeued. Otherwise a short failure of Waypost
/// would use up the number of times that the broker delivers a message.
const REQUEUE_PAUSE: Duration = Duration::from_secs(5);

pub struct Consumer {
    pub address: ConnectionConfig,
    pub topology: Topology,
    /// Followed on the same connection. Events wait until the configuration is current.
    pub campaigns: Campaigns,
    pub worker: Arc<Worker>,
    /// The number of events that may be in flight, and of retries in addition.
    pub window: u16,
    /// How long messages in flight may continue after a stop.
    pub grace: Duration,
    pub status: ConsumerStatus,
    /// Of the campaigns stream.
    pub follower: Follower,
}

impl Consumer {
    /// Consumes until `stop`, and connects again whenever the connection is lost.
    ///
    /// # Errors
    /// Errors that another connection can't solve: a permanent [`BrokerError`] before the first success, and a failed
    /// local store, which has to be opened again.
    pub async fn run(self, stop: CancellationToken) -> Result<(), FollowError> {
        let mut session = ConsumeSession { consumer: self, stop: stop.clone(), declaration: Declaration::Pending };
        run_sessions(&mut session, &stop).await
    }

    /// Consumes over one connection until it is lost, `stop` is cancelled, or the view is outdated. In the last two
    /// cases it finishes the messages in flight. The view is outdated if it must be read again, or if campaigns may be
    /// missing from it. The next session reads it.
    async fn session(
        &self,
        stop: &CancellationToken,
        delays: &mut ReconnectDelays,
        declaration: &mut Declaration,
    ) -> Result<SessionEnd, FollowError> {
        let prepare = async {
            let connection = self.address.connect("waypost worker").await?;
            self.topology.declare(&connection).await?;
            let queues = self.topology.event_queues(&connection).await?;
            *declaration = Declaration::Done;
            self.status.set_phase(ConsumerPhase::CatchingUp);
            let log = self.campaigns.open(&connection).await?;
            Ok::<_, FollowError>((connection, queues, log))
        };
        let (connection, queues, log) = tokio::select! {
            prepared = prepare => prepared?,
            () = stop.cancelled() => return Ok(SessionEnd::Stopped),
        };
        let names = &self.topology.names;
        let mut follow = pin!(self.campaigns.follow(log));
        let mut sync_state = self.campaigns.sync_state();
        let campaigns = names.campaigns();
        let watch = async {
            loop {
                match watch(&self.follower, &connection, &campaigns, || self.worker.store.position()).await {
                    // The stream is being compared with the view, so the follower makes no progress.
                    Err(FollowError::Stalled { .. })
                        if !matches!(*self.campaigns.stream_status().borrow(), StreamStatus::Following) => {}
                    result => break result,
                }
            }
        };
        let mut watch = pin!(watch);
        let outdated = tokio::select! {
            result = &mut follow => Some(result?),
            result = &mut watch => match result? {},
            _ = sync_state.wait_for(|state| *state == SyncState::Current) => None,
            () = stop.cancelled() => return Ok(SessionEnd::Stopped),
        };
        if outdated.is_some() {
            connection::close(&connection).await;
            return Ok(SessionEnd::Restart);
        }
        // Cancelled by `stop`, and when the view is outdated and must not be used to resolve events.
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
            self.follower.record_progress();
            self.status.set_phase(ConsumerPhase::Consuming);
            tracing::info!(?queues, window = self.window, "consuming");
            let events = events.into_iter().map(|events| self.consume(events, ConsumedQueue::Events, &pause, stop));
            tokio::try_join!(try_join_all(events), self.consume(retries, ConsumedQueue::Retries, &pause, stop))
        };
        let depths = queue_stats::watch(&connection, names, &queues, |queue, depth| {
            self.worker.metrics.set_queue_depth(queue, depth.messages);
            if queue == retries_queue || queues.iter().any(|events| events == queue) {
                self.status.set_ready(queue, depth.messages);
            }
            // Each worker consumes each queue once, so the consumers of one queue are the workers.
            if queue == queues[0] {
                self.worker.endpoints.set_workers(depth.consumers);
                self.worker.metrics.workers.set(i64::from(depth.consumers));
            }
        });
        let mut consume = pin!(consume);
        let end = tokio::select! {
            result = &mut follow => {
                result?;
                pause.cancel();
                consume.await?;
                SessionEnd::Restart
            }
            result = depths => match result? {},
            result = &mut watch => match result {
                Ok(never) => match never {},
                Err(error @ FollowError::Stalled { .. }) => {
                    tracing::warn!(%error, "configuration may be outdated, reading it again");
                    pause.cancel();
                    consume.await?;
                    SessionEnd::Restart
                }
                Err(error) => return Err(error),
            },
            result = &mut consume => { result?; SessionEnd::Stopped }
        };
        connection::close(&connection).await;
        Ok(end)
    }

    /// Consumes a queue until `pause`, then finishes the messages in flight. `stop` is cancelled too if the worker
    /// stops.
    async fn consume(
        &self,
        mut messages: RotatingConsumer<'_>,
        queue: ConsumedQueue,
        pause: &CancellationToken,
        stop: &CancellationToken,
    ) -> Result<(), BrokerError> {
        // If the connection is lost, this future is dropped and with it the set, which aborts the tasks.
        let mut tasks = JoinSet::new();
        loop {
            tokio::select! {
                received = messages.next() => self.begin(queue, received?, &mut tasks),
                () = pause.cancelled() => break,
            }
            while let Some(received) = messages.next_arrived() {
                self.begin(queue, received?, &mut tasks);
            }
            // Removes tasks that have ended. Waiting for them would wake this task up for each one.
            while tasks.try_join_next().is_some() {}
        }
        self.status.set_phase(if stop.is_cancelled() { ConsumerPhase::Draining } else { ConsumerPhase::CatchingUp });
        tracing::info!(?queue, in_flight = tasks.len(), grace = ?self.grace, "draining, finishing messages in flight");
        let finish = async {
            messages.cancel().await;
            while tasks.join_next().await.is_some() {}
        };
        if timeout(self.grace, finish).await.is_err() {
            tracing::warn!(?queue, returned = tasks.len(), "drain timed out, unacknowledged messages requeued");
        }
        tasks.shutdown().await;
        messages.finish().await;
        Ok(())
    }

    /// Begins to process a message in a task of its own.
    fn begin(&self, queue: ConsumedQueue, received: ReceivedMessage, tasks: &mut JoinSet<()>) {
        let ReceivedMessage { message, acks, source } = received;
        if source == MessageSource::Recovered {
            self.worker.metrics.messages_recovered.inc();
        }
        if queue == ConsumedQueue::Events && is_probe(&message.body) {
            // A probe is not an event. Counting it as progress would hide that messages hang.
            acks.acknowledge(message.tag);
            return;
        }
        let (message, guard) = (Box::new(message), self.status.begin_message());
        tasks.spawn(settle(self.worker.clone(), queue, message, acks, guard));
    }
}

struct ConsumeSession {
    consumer: Consumer,
    stop: CancellationToken,
    declaration: Declaration,
}

/// Whether a session has declared the topology.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Declaration {
    Pending,
    Done,
}

impl Session for ConsumeSession {
    type Error = FollowError;
    type Fatal = FollowError;

    async fn run(&mut self, delays: &mut ReconnectDelays) -> Result<SessionEnd, FollowError> {
        let end = self.consumer.session(&self.stop, delays, &mut self.declaration).await;
        self.consumer.campaigns.connection_lost();
        self.consumer.worker.metrics.broker_connected.set(0);
        self.consumer.worker.metrics.clear_queue_depths();
        end
    }

    fn failed(&mut self, error: FollowError, delay: Duration) -> Result<(), FollowError> {
        if is_fatal(&error, self.declaration) {
            return Err(error);
        }
        self.consumer.follower.record_error(&error);
        self.consumer.status.set_phase(ConsumerPhase::Connecting { error: error.to_string() });
        tracing::warn!(%error, ?delay, "not consuming, reconnecting");
        Ok(())
    }
}

/// Whether another connection can't solve the error. Once the topology was declared, an operator may solve a permanent
/// error of the broker while the worker runs.
fn is_fatal(error: &FollowError, declaration: Declaration) -> bool {
    match error {
        FollowError::Store(_) => true,
        FollowError::Broker(error) => declaration == Declaration::Pending && error.is_permanent(),
        FollowError::Stalled { .. } => false,
    }
}

/// Divides the window among the event queues. Queues left by a larger `broker.shards` are only drained, and each gets a
/// tenth of a queue's share in addition.
fn windows(window: u16, shards: u32, queues: usize) -> impl Iterator<Item = u16> {
    let share = (u32::from(window) / shards.max(1)).clamp(1, u32::from(window));
    let share = u16::try_from(share).unwrap_or(window);
    let shards = usize::try_from(shards).unwrap_or(usize::MAX);
    (0..queues).map(move |queue| if queue < shards { share } else { (share / 10).max(1) })
}

/// Processes a message. Acknowledges it once its outcome is durable, else requeues it.
async fn settle(worker: Arc<Worker>, queue: ConsumedQueue, message: Box<Message>, acks: Acks, guard: MessageGuard) {
    let tag = message.tag;
    if queue == ConsumedQueue::Events {
        worker.retry_slots.event_started();
    }
    let _memory = worker.memory_budget.acquire_for_message(queue, &message.body).await;
    let process = async {
        match queue {
            _ if message.requeues >= MAX_REQUEUES => Box::pin(worker.dead_letter_poison(queue, message)).await,
            ConsumedQueue::Events => worker.handle_event(message).await,
            ConsumedQueue::Retries => worker.handle_retry(message).await,
        }
    };
    match AssertUnwindSafe(pin!(process)).catch_unwind().await {
        Ok(Ok(())) => {
            guard.settled();
            if queue == ConsumedQueue::Retries {
                DeliveryEvent::DelayedMessageSettled.emit(&worker.metrics);
            }
            return acks.acknowledge(tag);
        }
        Ok(Err(error)) => {
            tracing::error!(?queue, %error, "message not settled, will requeue")
        }
        // The panic has logged its location. A message that always panics is dead-lettered after it was requeued
        // `MAX_REQUEUES` times.
        Err(_) => tracing::error!(?queue, "message processing panicked, will requeue"),
    }
    tokio::time::sleep(REQUEUE_PAUSE).await;
    acks.requeue(tag);
}

#[cfg(test)]
mod tests {
    use waypost_store::StoreError;

    use super::*;

    #[test]
    fn an_error_that_another_connection_cannot_solve_is_fatal() {
        let permanent = || FollowError::Broker(BrokerError::PluginMissing { setting: "broker.shards", plugin: "p" });
        let lost = BrokerError::ChannelFailed { operation: "publishing", error: "closed".to_owned() };
        let store = FollowError::Store(StoreError::from(std::io::Error::other("disk full")));
        for (error, before, after) in [
            (permanent(), true, false),
            (lost.into(), false, false),
            (FollowError::Stalled { log: "campaigns".to_owned() }, false, false),
            (store, true, true),
        ] {
            assert_eq!(is_fatal(&error, Declaration::Pending), before, "{error} before the topology is declared");
            assert_eq!(is_fatal(&error, Declaration::Done), after, "{error} after the topology was declared");
        }
    }

    #[test]
    fn shards_share_the_window_and_queues_to_drain_get_a_tenth() {
        let windows_of = |window, shards, queues| windows(window, shards, queues).collect::<Vec<_>>();
        assert_eq!(windows_of(1000, 1, 1), [1000]);
        assert_eq!(windows_of(1000, 4, 4), [250; 4]);
        assert_eq!(windows_of(1000, 1, 4), [1000, 100, 100, 100]);
        assert_eq!(windows_of(2, 4, 5), [1; 5]);
    }
}
