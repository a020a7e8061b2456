//! Which deliveries wait, and how they are spread over the delay queues.

use std::time::Duration;

/// Deliveries in a message. It is the limit of a worker.
pub(crate) const BATCH: u64 = 100;

/// No delivery is due earlier after the return, because it may be sent a little early. Its request would fail then.
const FIRST_DUE: Duration = Duration::from_secs(1);

/// The deliveries that wait.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Outage {
    pub(crate) deliveries: u64,
    pub(crate) endpoints: usize,
    /// The part of the deliveries that is parked, from 0 to 1.
    pub(crate) parked: f64,
    /// All are due within this time after the endpoints have come back.
    pub(crate) due_within: Duration,
}

/// Deliveries that are due at the same time.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct DueGroup {
    pub(crate) deliveries: Vec<WaitingDelivery>,
    /// From the return of the endpoints until the deliveries are due.
    pub(crate) due_after: Duration,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct WaitingDelivery {
    pub(crate) number: u64,
    pub(crate) endpoint: usize,
    /// 0 for a parked delivery.
    pub(crate) attempts: u32,
}

impl Outage {
    /// The deliveries in the order in which they are put into the delay queues. Parked deliveries are due in groups, as
    /// if they had returned together before. Each delivery between two attempts has a time of its own. These times are
    /// spread evenly, in a mixed order.
    pub(crate) fn groups(self) -> impl Iterator<Item = DueGroup> {
        let parked = (self.deliveries as f64 * self.parked) as u64;
        let batches = parked.div_ceil(BATCH);
        let batch = move |batch: u64| (batch * BATCH..parked.min((batch + 1) * BATCH), 0, batch, batches);
        let retries = self.deliveries - parked;
        // One to four attempts: the delays of the default settings reach two minutes then.
        let retry = move |retry: u64| {
            let number = parked + retry;
            (number..number + 1, 1 + (retry % 4) as u32, retry, retries)
        };
        (0..batches).map(batch).chain((0..retries).map(retry)).map(move |(numbers, attempts, index, of)| {
            let delivery = |number| WaitingDelivery { number, endpoint: self.endpoint(number), attempts };
            DueGroup {
                deliveries: numbers.map(delivery).collect(),
                due_after: FIRST_DUE + self.due_within.saturating_sub(FIRST_DUE).mul_f64(scattered(index, of)),
            }
        })
    }

    fn endpoint(self, number: u64) -> usize {
        usize::try_from(number % self.endpoints as u64).expect("endpoints fit into memory")
    }
}

/// Maps 0 to `count` evenly to 0 to 1, in an order in which neighbours are far apart.
fn scattered(index: u64, count: u64) -> f64 {
    // Multiples of the golden ratio fill an interval evenly.
    const GOLDEN: f64 = 0.618_033_988_749_895;
    if count <= 1 { 0.5 } else { (index as f64 * GOLDEN).fract() }
}
