//! The platform's part: publishes events at a steady pace, through whatever befalls its connection, and writes down of each
//! whether the broker has confirmed it. What is not confirmed is not published again.

use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use lapin::options::{BasicPublishOptions, ConfirmSelectOptions};
use lapin::{BasicProperties, Channel, Confirmation, Connection, ConnectionProperties};
use tokio::time::{Instant, MissedTickBehavior, interval, sleep_until, timeout};

use super::ledger::{Ledger, PublishState};
use super::load::{self, PublishedEvent};

/// So many events are on their way at once; more wait until some are confirmed.
const MAX_UNCONFIRMED: usize = 64;

/// What takes longer than this has failed: opening a connection, or handing an event to it.
const OPERATION_TIMEOUT: Duration = Duration::from_secs(10);

/// No confirm for so long, and some are awaited: the connection is given up. RabbitMQ 4.3.6 can stop confirming what a channel publishes to
/// a stream whose leader it has lost.
const CONFIRM_TIMEOUT: Duration = Duration::from_secs(30);

/// Confirms that have not come so long after the last event are not waited for. A stalled connection is found to be dead
/// by its heartbeat before.
const FINAL_CONFIRMS_TIMEOUT: Duration = Duration::from_secs(60);

/// Between two tries to connect.
const RECONNECT_PAUSE: Duration = Duration::from_millis(250);

/// A publisher: which events are its own, and where they go.
pub(crate) struct Publisher<'a> {
    pub(crate) broker_url: String,
    pub(crate) exchange: String,
    pub(crate) receivers: usize,
    /// Events have these numbers: the first, and then each so many later.
    pub(crate) next_event: u64,
    pub(crate) step: u64,
    pub(crate) pause: Duration,
    pub(crate) until: Duration,
    pub(crate) ledger: &'a Ledger,
}

/// Why a session with the broker is over.
enum SessionEnd {
    Done,
    Lost,
}

impl Publisher<'_> {
    /// Publishes until it is time to end; returns once every event is confirmed, or given up.
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

    /// Publishes until the end or until the connection is lost.
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
                    // Until the confirm is there.
                    self.ledger.lock_entries().published.insert(number, PublishState::Unconfirmed);
                    match timeout(OPERATION_TIMEOUT, send(channel, &self.exchange, event)).await {
                        Ok(Ok(confirm)) => unconfirmed.push(async move { (number, confirm.await) }),
                        Ok(Err(_)) | Err(_) => break SessionEnd::Lost,
                    }
                }
            }
        };
        // What is on its way may still be confirmed; on a lost connection all fail at once.
        let rest = async {
            while let Some((number, confirmed)) = unconfirmed.next().await {
                self.record_confirm(number, &confirmed);
            }
        };
        let _ = timeout(FINAL_CONFIRMS_TIMEOUT, rest).await;
        over
    }

    /// Writes down how it went with an event; false where the connection is lost.
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
