//! The ledger of deliveries, and what is in flight. Each delivery that a worker begins to process is then delivered,
//! dead or in a delay queue, or its message is requeued. A difference that stays means that a defect has lost a delivery.

use prometheus::{IntCounter, IntCounterVec, IntGauge, Opts, Registry};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DeliverySource {
    Event,
    DelayQueue,
}

impl DeliverySource {
    const ALL: [Self; 2] = [Self::Event, Self::DelayQueue];

    fn as_str(self) -> &'static str {
        match self {
            Self::Event => "event",
            Self::DelayQueue => "ladder",
        }
    }
}

/// Why the message of a delivery is requeued.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RequeueCause {
    /// The local view could not be read.
    Store,
    /// The broker did not confirm the retry or the dead letter.
    Broker,
    /// A defect of Waypost, for example a panic.
    Bug,
    /// The worker stops, or lost the connection over which the message came.
    Interrupted,
}

impl RequeueCause {
    const ALL: [Self; 4] = [Self::Store, Self::Broker, Self::Bug, Self::Interrupted];

    fn as_str(self) -> &'static str {
        match self {
            Self::Store => "store",
            Self::Broker => "broker",
            Self::Bug => "bug",
            Self::Interrupted => "interrupted",
        }
    }
}

/// Counts deliveries, their requests in flight, and messages in the delay queues.
pub struct Ledger {
    /// Messages put into the delay queues. Deliveries that wait together are one message.
    pub(crate) put_into_delay_queues: IntCounter,
    /// Messages that came back from the delay queues and are settled.
    pub(crate) taken_from_delay_queues: IntCounter,
    /// Indexed by [`DeliverySource`].
    begun: [IntCounter; 2],
    in_flight: IntGauge,
    requests_in_flight: IntGauge,
    /// Indexed by [`RequeueCause`].
    requeued: [IntCounter; 4],
}

impl Ledger {
    pub(super) fn register(registry: &Registry) -> Result<Self, prometheus::Error> {
        let help = "Deliveries taken from the events queue (event) and from the delay queues (ladder)";
        let begun = IntCounterVec::new(Opts::new("waypost_deliveries_taken_total", help), &["from"])?;
        let in_flight = IntGauge::new(
            "waypost_deliveries_in_hand",
            "Deliveries in progress: received, and neither ended, delayed nor requeued",
        )?;
        let requests_in_flight = IntGauge::new("waypost_deliveries_in_flight", "HTTP requests in flight")?;
        let help = "Deliveries whose message was requeued, by cause";
        let returned = IntCounterVec::new(Opts::new("waypost_deliveries_given_back_total", help), &["blame"])?;
        let help = "Messages of retries and parked deliveries, put into the delay queues and taken from them";
        let ladder = IntCounterVec::new(Opts::new("waypost_ladder_messages_total", help), &["movement"])?;
        registry.register(Box::new(ladder.clone()))?;
        registry.register(Box::new(begun.clone()))?;
        registry.register(Box::new(in_flight.clone()))?;
        registry.register(Box::new(requests_in_flight.clone()))?;
        registry.register(Box::new(returned.clone()))?;
        let [put_into_delay_queues, taken_from_delay_queues] =
            ["put", "taken"].map(|movement| ladder.with_label_values(&[movement]));
        Ok(Self {
            put_into_delay_queues,
            taken_from_delay_queues,
            begun: DeliverySource::ALL.map(|source| begun.with_label_values(&[source.as_str()])),
            in_flight,
            requests_in_flight,
            requeued: RequeueCause::ALL.map(|cause| returned.with_label_values(&[cause.as_str()])),
        })
    }

    pub(super) fn begun(&self, source: DeliverySource) -> u64 {
        self.begun[source as usize].get()
    }

    pub(super) fn requeued(&self) -> u64 {
        self.requeued.iter().map(IntCounter::get).sum()
    }

    pub(super) fn in_flight(&self) -> u64 {
        u64::try_from(self.in_flight.get()).unwrap_or_default()
    }

    pub(super) fn requests_in_flight(&self) -> i64 {
        self.requests_in_flight.get()
    }

    /// Counts a delivery as in flight until the guard is dropped.
    pub fn begin(&self, source: DeliverySource) -> DeliveryGuard<'_> {
        self.begun[source as usize].inc();
        self.in_flight.inc();
        let end = DeliveryEnd::Requeued(RequeueCause::Interrupted);
        DeliveryGuard { ledger: self, end, has_request: false }
    }

    /// Counts only the requests of a delivery, which a replay sends and which comes from no queue.
    pub fn begin_replayed(&self) -> DeliveryGuard<'_> {
        DeliveryGuard { ledger: self, end: DeliveryEnd::NotCounted, has_request: false }
    }
}

/// A delivery in flight. The counts are right even if its task is aborted.
pub struct DeliveryGuard<'a> {
    ledger: &'a Ledger,
    end: DeliveryEnd,
    has_request: bool,
}

enum DeliveryEnd {
    /// Delivered, dead, or in a delay queue, and counted there.
    Settled,
    /// Anything else. A task that is aborted leaves the default, [`RequeueCause::Interrupted`].
    Requeued(RequeueCause),
    /// The ledger has not counted that it began.
    NotCounted,
}

impl DeliveryGuard<'_> {
    pub fn request_started(&mut self) {
        self.has_request = true;
        self.ledger.requests_in_flight.inc();
    }

    pub fn request_ended(&mut self) {
        if std::mem::take(&mut self.has_request) {
            self.ledger.requests_in_flight.dec();
        }
    }

    /// The delivery's outcome is durable.
    pub fn settled(self) {
        self.end_with(DeliveryEnd::Settled);
    }

    /// The delivery could not be settled.
    pub fn requeued(self, cause: RequeueCause) {
        self.end_with(DeliveryEnd::Requeued(cause));
    }

    /// What was not counted at its beginning is not counted at its end.
    fn end_with(mut self, end: DeliveryEnd) {
        if !matches!(self.end, DeliveryEnd::NotCounted) {
            self.end = end;
        }
    }
}

impl Drop for DeliveryGuard<'_> {
    fn drop(&mut self) {
        self.request_ended();
        let cause = match self.end {
            DeliveryEnd::NotCounted => return,
            DeliveryEnd::Settled => None,
            DeliveryEnd::Requeued(_) if std::thread::panicking() => Some(RequeueCause::Bug),
            DeliveryEnd::Requeued(cause) => Some(cause),
        };
        self.ledger.in_flight.dec();
        if let Some(cause) = cause {
            self.ledger.requeued[cause as usize].inc();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::future::pending;
    use std::panic::{AssertUnwindSafe, catch_unwind};

    use futures_util::FutureExt as _;

    use super::*;

    fn ledger() -> Ledger {
        Ledger::register(&Registry::new()).expect("metrics")
    }

    /// Deliveries in flight, requests in flight, and requeued deliveries by [`RequeueCause`].
    fn counts(ledger: &Ledger) -> (u64, i64, [u64; 4]) {
        let requeued = std::array::from_fn(|index| ledger.requeued[index].get());
        (ledger.in_flight(), ledger.requests_in_flight(), requeued)
    }

    #[test]
    fn a_delivery_is_in_flight_until_it_ends() {
        let ledger = ledger();
        let mut first = ledger.begin(DeliverySource::Event);
        let second = ledger.begin(DeliverySource::DelayQueue);
        assert_eq!((ledger.begun(DeliverySource::Event), ledger.begun(DeliverySource::DelayQueue)), (1, 1));
        first.request_started();
        assert_eq!(counts(&ledger), (2, 1, [0; 4]));
        first.request_ended();
        first.request_ended();
        assert_eq!(counts(&ledger), (2, 0, [0; 4]), "a request ends once");
        first.settled();
        second.requeued(RequeueCause::Broker);
        assert_eq!(counts(&ledger), (0, 0, [0, 1, 0, 0]));
    }

    #[test]
    fn a_task_that_is_aborted_during_a_request_ends_both() {
        let ledger = ledger();
        let mut attempt = Box::pin(async {
            let mut guard = ledger.begin(DeliverySource::Event);
            guard.request_started();
            pending::<()>().await;
            guard.settled();
        });
        assert!(attempt.as_mut().now_or_never().is_none());
        assert_eq!(counts(&ledger), (1, 1, [0; 4]));
        drop(attempt);
        assert_eq!(counts(&ledger), (0, 0, [0, 0, 0, 1]));
    }

    #[test]
    fn a_panic_during_a_request_is_a_bug() {
        let ledger = ledger();
        let panics = || {
            let mut guard = ledger.begin(DeliverySource::Event);
            guard.request_started();
            panic!("as intended");
        };
        assert!(catch_unwind(AssertUnwindSafe(panics)).is_err());
        assert_eq!(counts(&ledger), (0, 0, [0, 0, 1, 0]));
    }

    #[test]
    fn of_a_replay_only_the_request_is_counted() {
        let ledger = ledger();
        let mut guard = ledger.begin_replayed();
        guard.request_started();
        assert_eq!(counts(&ledger), (0, 1, [0; 4]));
        drop(guard);
        assert_eq!(counts(&ledger), (0, 0, [0; 4]));
        assert_eq!((ledger.begun(DeliverySource::Event), ledger.begun(DeliverySource::DelayQueue)), (0, 0));
    }
}
