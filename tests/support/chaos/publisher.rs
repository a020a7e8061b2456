//! Publishes events at a steady rate despite connection failures, and records whether the broker confirmed each event.
//! Unconfirmed events are not published again.

use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use lapin::options::{BasicPublishOptions, ConfirmSelectOptions};
use lapin::{BasicProperties, Channel, Confirmation, Connection, ConnectionProperties};
use tokio::time::{Instant, MissedTickBehavior, interval, sleep_until, timeout};

use super::ledger::{Ledger, PublishState};
use super::load::{self, PublishedEvent};

/// Publishing pauses at this number of unconfirmed events.
const MAX_UNCONFIRMED: usize = 64;

/// The timeout of opening a connection and of sending an event.
const OPERATION_TIMEOUT: Duration = Duration::from_secs(10);

/// The publisher closes a connection on which no confirm arrives for this time. RabbitMQ 4.3.6 can stop confirming
/// messages to a stream after the stream's leader was lost.
const CONFIRM_TIMEOUT: Duration = Duration::from_secs(30);

/// The publisher waits this long for the last confirms. Before that, the heartbeat detects a stalled connection.
const FINAL_CONFIRMS_TIMEOUT: Duration = Duration::from_secs(60);

/// The pause between two connection attempts.
const RECONNECT_PAUSE: Duration = Duration::from_millis(250);

/// A publisher and the numbers of its events.
pub(crate) struct Publisher<'a> {
    pub(crate) broker_url: String,
    pub(crate) exchange: String,
    pub(crate) receivers: usize,
    /// The number of the next event. The publisher skips the numbers of the other publishers.
    pub(crate) next_event: u64,
    pub(crate) step: u64,
    pub(crate) pause: Duration,
    pub(crate) until: Duration,
    pub(crate) ledger: &'a Ledger,
}

/// Why a session with the broker ended.
enum SessionEnd {
    Done,
    Lost,
}

impl Publisher<'_> {
    /// Publishes until the deadline. Returns once every event is confirmed or given up.
    pub(crate) async fn run(mut self) {
        while self.ledger.elapsed() < self.until {
            match timeout(OPERATION_TIMEOUT, self.connect()).await {
                Ok(Ok((connection, channel))) => {
                    let over = self.session(&channel).await;
                    let _ = timeout(RECONNECT_PAUSE, connection.close(200, "done".into())).await;
                    if matches!(over, SessionEnd::Done) {
                        return;
                    }
                }
                Ok(Err(_)) | Err(_) => tokio::time::sleep(RECONNECT_PAUSE).await,
            }
        }
    }

    async fn connect(&self) -> lapin::Result<(Connection, Channel)> {
        let properties = ConnectionProperties::default().with_connection_name("platform".into());
        let connection = Connection::connect(&self.broker_url, properties).await?;
        let channel = connection.create_channel().await?;
        channel.confirm_select(ConfirmSelectOptions::default()).await?;
        Ok((connection, channel))
    }

    /// Publishes until the deadline or until the connection is lost.
    async fn session(&mut self, channel: &Channel) -> SessionEnd {
        let mut unconfirmed = FuturesUnordered::new();
        let mut turns = interval(self.pause);
        turns.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut heard = Instant::now();
        let over = loop {
            if unconfirmed.is_empty() {
                heard = Instant::now();
            }
            tokio::select! {
                () = sleep_until(heard + CONFIRM_TIMEOUT) => break SessionEnd::Lost,
                Some((number, confirmed)) = unconfirmed.next() => {
                    heard = Instant::now();
                    if !self.record_confirm(number, &confirmed) {
                        break SessionEnd::Lost;
                    }
                }
                _ = turns.tick(), if unconfirmed.len() < MAX_UNCONFIRMED => {
                    if self.ledger.elapsed() >= self.until {
                        break SessionEnd::Done;
                    }
                    let number = self.next_event;
                    self.next_event += self.step;
                    let event = load::build_event(number, self.receivers);
                    // Until the confirm arrives.
                    self.ledger.lock_entries().published.insert(number, PublishState::Unconfirmed);
                    match timeout(OPERATION_TIMEOUT, send(channel, &self.exchange, event)).await {
                        Ok(Ok(confirm)) => unconfirmed.push(async move { (number, confirm.await) }),
                        Ok(Err(_)) | Err(_) => break SessionEnd::Lost,
                    }
                }
            }
        };
        // Sent events may still be confirmed. On a lost connection all fail immediately.
        let rest = async {
            while let Some((number, confirmed)) = unconfirmed.next().await {
                self.record_confirm(number, &confirmed);
            }
        };
        let _ = timeout(FINAL_CONFIRMS_TIMEOUT, rest).await;
        over
    }

    /// Records the result of an event. Returns false if the connection is lost.
    fn record_confirm(&self, number: u64, confirmed: &lapin::Result<Confirmation>) -> bool {
        if matches!(confirmed, Ok(Confirmation::Ack(None))) {
            self.ledger.lock_entries().published.insert(number, PublishState::Confirmed);
        }
        confirmed.is_ok()
    }
}

async fn send(channel: &Channel, exchange: &str, event: PublishedEvent) -> lapin::Result<lapin::PublisherConfirm> {
    let mut properties = BasicProperties::default().with_delivery_mode(2);
    if let Some(id) = event.message_id {
        properties = properties.with_message_id(id.into());
    }
    let options = BasicPublishOptions { mandatory: true, ..BasicPublishOptions::default() };
    channel.basic_publish(exchange.into(), event.routing_key.into(), options, &event.body, properties).await
}
