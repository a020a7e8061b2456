//! The account of deliveries: each that is taken in hand is delivered, dead, on the ladder, or given back. A delivery that
//! is none of these has been lost by a mistake of ours, and shows as a difference that stays.

use prometheus::{IntCounter, IntCounterVec, IntGauge, Opts, Registry};

/// Where a delivery that is taken in hand comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Origin {
    /// A fresh event.
    Event,
    /// The delay ladder: it is due again.
    Ladder,
}

impl Origin {
    const ALL: [Self; 2] = [Self::Event, Self::Ladder];

    /// The metric label.
    fn as_str(self) -> &'static str {
        match self {
            Self::Event => "event",
            Self::Ladder => "ladder",
        }
    }
}

/// Why a delivery goes back to the broker with nothing done for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RequeueCause {
    /// The local view could not be read.
    Store,
    /// The broker did not take its retry or its dead letter.
    Broker,
    /// A mistake in this program: a panic, for one.
    Bug,
    /// This worker stops, or lost the connection that it came by.
    Interrupted,
}

impl RequeueCause {
    const ALL: [Self; 4] = [Self::Store, Self::Broker, Self::Bug, Self::Interrupted];

    /// The metric label.
    fn as_str(self) -> &'static str {
        match self {
            Self::Store => "store",
            Self::Broker => "broker",
            Self::Bug => "bug",
            Self::Interrupted => "interrupted",
        }
    }
}

/// Counts deliveries in hand, and messages on the ladder.
pub struct Ledger {
    /// Messages put on the delay ladder: a retry each, and what is parked together as one.
    pub put_on_ladder: IntCounter,
    /// Messages that came back from it and are settled.
    pub taken_from_ladder: IntCounter,
    /// By [`Origin`]'s number.
    taken: [IntCounter; 2],
    in_hand: IntGauge,
    /// By [`RequeueCause`]'s number.
    given_back: [IntCounter; 4],
}

impl Ledger {
    pub(super) fn register(registry: &Registry) -> Result<Self, prometheus::Error> {
        let help = "Deliveries taken in hand, by where they came from";
        let taken = IntCounterVec::new(Opts::new("waypost_deliveries_taken_total", help), &["from"])?;
        let in_hand = IntGauge::new(
            "waypost_deliveries_in_hand",
            "Deliveries taken, and not yet ended, put on the ladder or given back",
        )?;
        let help = "Deliveries whose message went back to the broker, which gives it out again, by what is to be blamed for it";
        let given_back = IntCounterVec::new(Opts::new("waypost_deliveries_given_back_total", help), &["blame"])?;
        let help = "Messages of retries and parked deliveries, put on the delay ladder and taken from it";
        let ladder = IntCounterVec::new(Opts::new("waypost_ladder_messages_total", help), &["movement"])?;
        registry.register(Box::new(ladder.clone()))?;
        registry.register(Box::new(taken.clone()))?;
        registry.register(Box::new(in_hand.clone()))?;
        registry.register(Box::new(given_back.clone()))?;
        let [put_on_ladder, taken_from_ladder] = ["put", "taken"].map(|movement| ladder.with_label_values(&[movement]));
        Ok(Self {
            put_on_ladder,
            taken_from_ladder,
            taken: Origin::ALL.map(|origin| taken.with_label_values(&[origin.as_str()])),
            in_hand,
            given_back: RequeueCause::ALL.map(|blame| given_back.with_label_values(&[blame.as_str()])),
        })
    }

    /// Deliveries taken so far.
    pub(super) fn taken(&self, origin: Origin) -> u64 {
        self.taken[origin as usize].get()
    }

    /// Deliveries given back so far.
    pub(super) fn given_back(&self) -> u64 {
        self.given_back.iter().map(IntCounter::get).sum()
    }

    /// Deliveries in hand now.
    pub(super) fn in_hand(&self) -> u64 {
        u64::try_from(self.in_hand.get()).unwrap_or_default()
    }

    /// A delivery is taken in hand.
    pub fn take(&self, origin: Origin) -> DeliveryGuard<'_> {
        self.taken[origin as usize].inc();
        self.in_hand.inc();
        DeliveryGuard { account: self, end: End::GivenBack(RequeueCause::Interrupted) }
    }
}

/// A delivery in hand, for as long as it lives.
pub struct DeliveryGuard<'a> {
    account: &'a Ledger,
    end: End,
}

/// What becomes of it when it leaves the hand.
enum End {
    /// Delivered, dead, or on the ladder, and counted there.
    Settled,
    /// Anything else, also where its task is aborted.
    GivenBack(RequeueCause),
}

impl DeliveryGuard<'_> {
    /// Its outcome is durable.
    pub fn settled(mut self) {
        self.end = End::Settled;
    }

    /// It could not be settled.
    pub fn given_back(mut self, blame: RequeueCause) {
        self.end = End::GivenBack(blame);
    }
}

impl Drop for DeliveryGuard<'_> {
    fn drop(&mut self) {
        self.account.in_hand.dec();
        let End::GivenBack(blame) = self.end else { return };
        let blame = if std::thread::panicking() { RequeueCause::Bug } else { blame };
        self.account.given_back[blame as usize].inc();
    }
}
