//! The ledger of deliveries. Each delivery that a worker begins to process is then delivered, dead, in a delay queue,
//! or its message is requeued. A difference that stays means that a defect has lost a delivery.

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

/// Counts deliveries in flight, and messages in the delay queues.
pub struct Ledger {
    /// Messages put into the delay queues. Deliveries that are parked together are one message.
    pub(crate) put_into_delay_queues: IntCounter,
    /// Messages that came back from the delay queues and are settled.
    pub(crate) taken_from_delay_queues: IntCounter,
    /// Indexed by [`DeliverySource`].
    begun: [IntCounter; 2],
    in_flight: IntGauge,
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
        let help = "Deliveries whose message was requeued, by cause";
        let returned = IntCounterVec::new(Opts::new("waypost_deliveries_given_back_total", help), &["blame"])?;
        let help = "Messages of retries and parked deliveries, put into the delay queues and taken from them";
        let ladder = IntCounterVec::new(Opts::new("waypost_ladder_messages_total", help), &["movement"])?;
        registry.register(Box::new(ladder.clone()))?;
        registry.register(Box::new(begun.clone()))?;
        registry.register(Box::new(in_flight.clone()))?;
        registry.register(Box::new(returned.clone()))?;
        let [put_into_delay_queues, taken_from_delay_queues] =
            ["put", "taken"].map(|movement| ladder.with_label_values(&[movement]));
        Ok(Self {
            put_into_delay_queues,
            taken_from_delay_queues,
            begun: DeliverySource::ALL.map(|source| begun.with_label_values(&[source.as_str()])),
            in_flight,
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

    /// Counts a delivery as in flight until the guard is dropped.
    pub fn begin(&self, source: DeliverySource) -> DeliveryGuard<'_> {
        self.begun[source as usize].inc();
        self.in_flight.inc();
        DeliveryGuard { ledger: self, end: DeliveryEnd::Requeued(RequeueCause::Interrupted) }
    }
}

/// A delivery in flight.
pub struct DeliveryGuard<'a> {
    ledger: &'a Ledger,
    end: DeliveryEnd,
}

enum DeliveryEnd {
    /// Delivered, dead, or in a delay queue, and counted there.
    Settled,
    /// Anything else. A task that is aborted leaves the default, [`RequeueCause::Interrupted`].
    Requeued(RequeueCause),
}

impl DeliveryGuard<'_> {
    /// The delivery's outcome is durable.
    pub fn settled(mut self) {
        self.end = DeliveryEnd::Settled;
    }

    /// The delivery could not be settled.
    pub fn requeued(mut self, cause: RequeueCause) {
        self.end = DeliveryEnd::Requeued(cause);
    }
}

impl Drop for DeliveryGuard<'_> {
    fn drop(&mut self) {
        self.ledger.in_flight.dec();
        let DeliveryEnd::Requeued(cause) = self.end else { return };
        let cause = if std::thread::panicking() { RequeueCause::Bug } else { cause };
        self.ledger.requeued[cause as usize].inc();
    }
}
