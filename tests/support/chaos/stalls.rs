//! How long deliveries stood still: gaps between what the receivers accepted, and which faults they fall to.

use std::collections::BTreeMap;
use std::time::Duration;

use super::books::{Answered, Happened, Pages};
use super::fault::Fault;

/// What came of a kind of fault.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Effect {
    pub(crate) times: usize,
    /// The longest that deliveries stood still: from a fault's beginning to the next delivery, or from one delivery to the
    /// next where the first came while the fault lasted.
    pub(crate) longest_stall: Duration,
}

/// The effect of each kind of fault. Faults of several lanes overlap: a stall counts for all that it may be due to.
pub(crate) fn effects(pages: &Pages) -> BTreeMap<Fault, Effect> {
    let deliveries = deliveries(pages);
    let mut effects: BTreeMap<Fault, Effect> = BTreeMap::new();
    for happened in &pages.happened {
        let effect = effects.entry(happened.fault).or_default();
        effect.times += 1;
        effect.longest_stall = effect.longest_stall.max(stall(&deliveries, happened));
    }
    effects
}

/// The longest gap between two deliveries of the whole drill, as far as it lies before a moment: there events end, and with
/// them what could be delivered.
pub(crate) fn longest_gap(pages: &Pages, until: Duration) -> Duration {
    let deliveries = deliveries(pages);
    let within = deliveries.windows(2).filter(|pair| pair[0] < until);
    within.map(|pair| pair[1].min(until) - pair[0]).max().unwrap_or_default()
}

/// The moments at which something was delivered, in their order.
fn deliveries(pages: &Pages) -> Vec<Duration> {
    let accepted = pages.receipts.iter().filter(|receipt| receipt.answered == Answered::Accepted);
    let mut deliveries: Vec<Duration> = accepted.map(|receipt| receipt.at).collect();
    deliveries.sort_unstable();
    deliveries
}

fn stall(deliveries: &[Duration], happened: &Happened) -> Duration {
    let first = deliveries.partition_point(|at| *at < happened.begins);
    let after = deliveries[first..].iter().take_while(|at| **at <= happened.ends).count();
    // The last one that came while it lasted, and the first one after it.
    let last = (first + after + 1).min(deliveries.len());
    let mut before = happened.begins;
    let mut longest = Duration::ZERO;
    for at in &deliveries[first..last] {
        longest = longest.max(*at - before);
        before = *at;
    }
    longest
}

#[cfg(test)]
mod tests {
    use super::super::books::Receipt;
    use super::super::load::{Errand, Hook};
    use super::*;

    fn seconds(times: &[u64]) -> Vec<Duration> {
        times.iter().copied().map(Duration::from_secs).collect()
    }

    fn lasting(begins: u64, ends: u64) -> Happened {
        let fault = Fault::NodeKilled;
        Happened { fault, begins: Duration::from_secs(begins), ends: Duration::from_secs(ends) }
    }

    #[test]
    fn a_stall_begins_with_the_fault_or_while_it_lasts() {
        let deliveries = seconds(&[1, 2, 9, 10, 30, 31, 60]);
        let stall = |begins, ends| stall(&deliveries, &lasting(begins, ends)).as_secs();
        assert_eq!(stall(3, 4), 6, "from the beginning to the next");
        assert_eq!(stall(8, 11), 20, "it began while the fault lasted");
        assert_eq!(stall(1, 2), 7);
        assert_eq!(stall(61, 62), 0, "nothing was to come any more");
    }

    #[test]
    fn refused_requests_are_no_deliveries() {
        let receipt = |at: u64, answered| Receipt {
            errand: Errand { event: at, hook: Hook::Section },
            webhook_id: "a".into(),
            at: Duration::from_secs(at),
            answered,
        };
        let receipts =
            vec![receipt(9, Answered::Accepted), receipt(1, Answered::Accepted), receipt(4, Answered::Refused)];
        let pages = Pages { receipts, happened: vec![lasting(2, 3), lasting(8, 9)], ..Pages::default() };
        let effect = Effect { times: 2, longest_stall: Duration::from_secs(7) };
        assert_eq!(effects(&pages), BTreeMap::from([(Fault::NodeKilled, effect)]));
        assert_eq!(longest_gap(&pages, Duration::from_secs(10)), Duration::from_secs(8));
        assert_eq!(longest_gap(&pages, Duration::from_secs(3)), Duration::from_secs(2));
    }
}
