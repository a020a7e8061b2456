//! Publishes events at a steady pace, each stamped with the time when it was due.

use std::time::{Duration, Instant};

use lapin::options::{BasicPublishOptions, ConfirmSelectOptions};
use lapin::{BasicProperties, Channel, Confirmation, PublisherConfirm};
use tokio::sync::mpsc;

use super::load::Load;

/// The interval of the publisher's turns. All events that are due in a turn are published at once.
const PUBLISH_INTERVAL: Duration = Duration::from_millis(1);

/// A pace: warm-up events, then measured events.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Pace {
    pub(crate) per_second: f64,
    pub(crate) warm_up: Duration,
    pub(crate) measured: Duration,
}

impl Pace {
    /// The number of measured events. They have the lowest numbers.
    pub(crate) fn events(self) -> u64 {
        (self.per_second * self.measured.as_secs_f64()) as u64
    }

    /// Publishes to the exchange at this pace. `done` is called for each measured event. Returns once the broker has
    /// confirmed all events.
    ///
    /// The stamp is the time when an event was due, not when it was published. If the machine is too busy to publish in
    /// time, the delay counts, as it would for the sender of the event.
    pub(crate) async fn publish(self, channel: Channel, exchange: &str, load: &Load, epoch: Instant, done: impl Fn()) {
        channel.confirm_select(ConfirmSelectOptions::default()).await.expect("confirms");
        let (published, confirms) = mpsc::unbounded_channel();
        let confirmed = tokio::spawn(confirmed(confirms));
        let mut turns = self.turns();
        let total = (self.per_second * (self.warm_up + self.measured).as_secs_f64()) as u64;
        let first_measured = total - self.events().min(total);
        let mut next = 0;
        while let Some(PublishTurn { due, until }) = turns.recv().await {
            let stamp = due.saturating_duration_since(epoch).as_micros() as u64;
            while next < until.min(total) {
                // Warm-up events have numbers that the receiver ignores.
                let number = if next < first_measured { u64::from(u32::MAX) + next } else { next - first_measured };
                let event = load.event(number, stamp);
                let properties = BasicProperties::default().with_delivery_mode(2);
                let options = BasicPublishOptions { mandatory: true, ..BasicPublishOptions::default() };
                let sent = channel.basic_publish(exchange.into(), event.key.into(), options, &event.body, properties);
                let _ = published.send(sent.await.expect("the event is sent"));
                if next >= first_measured {
                    done();
                }
                next += 1;
            }
        }
        drop(published);
        confirmed.await.expect("all confirms");
        channel.close(200, "done".into()).await.expect("the channel closes");
    }

    /// Sends turns from a thread, because its sleep is accurate to 0.1 ms. A runtime's timer is accurate to 1 or 2 ms.
    fn turns(self) -> mpsc::UnboundedReceiver<PublishTurn> {
        let (turns, taken) = mpsc::unbounded_channel();
        let begin = Instant::now();
        let last = (self.warm_up + self.measured).div_duration_f64(PUBLISH_INTERVAL).ceil() as u32;
        std::thread::spawn(move || {
            for turn in 1..=last {
                let due = begin + PUBLISH_INTERVAL * turn;
                std::thread::sleep(due.saturating_duration_since(Instant::now()));
                let until = (self.per_second * (PUBLISH_INTERVAL * turn).as_secs_f64()).ceil() as u64;
                if turns.send(PublishTurn { due, until }).is_err() {
                    return;
                }
            }
        });
        taken
    }
}

struct PublishTurn {
    due: Instant,
    /// The total number of events to publish by then.
    until: u64,
}

async fn confirmed(mut confirms: mpsc::UnboundedReceiver<PublisherConfirm>) {
    while let Some(confirm) = confirms.recv().await {
        let confirm = confirm.await.expect("the broker's confirm");
        assert!(matches!(confirm, Confirmation::Ack(None)), "an event was rejected or not routed: {confirm:?}");
    }
}
