//! How long deliveries stopped: the gaps between accepted requests, and the faults that overlap them.

use std::collections::BTreeMap;
use std::time::Duration;

use super::fault::Fault;
use super::ledger::{InjectedFault, LedgerEntries, ReceiverAnswer};

/// The effect of a kind of fault.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct FaultEffect {
    pub(crate) count: usize,
    /// The longest time without a delivery: from the start of a fault to the next delivery, or between two deliveries
    /// of which the first was during the fault.
    pub(crate) longest_stall: Duration,
}

/// The effect of each kind of fault. Faults of several lanes overlap, and a stall counts for each of them.
pub(crate) fn fault_effects(pages: &LedgerEntries) -> BTreeMap<Fault, FaultEffect> {
    let deliveries = delivery_times(pages);
    let mut effects: BTreeMap<Fault, FaultEffect> = BTreeMap::new();
    for happened in &pages.faults {
        let effect = effects.entry(happened.fault).or_default();
        effect.count += 1;
        effect.longest_stall = effect.longest_stall.max(longest_stall(&deliveries, happened));
    }
    effects
}

/// The longest gap between two deliveries before `until`, when publishing ends.
pub(crate) fn longest_gap(pages: &LedgerEntries, until: Duration) -> Duration {
    let deliveries = delivery_times(pages);
    let within = deliveries.windows(2).filter(|pair| pair[0] < until);
    within.map(|pair| pair[1].min(until) - pair[0]).max().unwrap_or_default()
}

/// The times of all deliveries, in order.
fn delivery_times(pages: &LedgerEntries) -> Vec<Duration> {
    let accepted = pages.requests.iter().filter(|receipt| receipt.answer == ReceiverAnswer::Accepted);
    let mut deliveries: Vec<Duration> = accepted.map(|receipt| receipt.at).collect();
    deliveries.sort_unstable();
    deliveries
}

fn longest_stall(deliveries: &[Duration], happened: &InjectedFault) -> Duration {
    let first = deliveries.partition_point(|at| *at < happened.started_at);
    let after = deliveries[first..].iter().take_while(|at| **at <= happened.ended_at).count();
    // The last delivery during the fault, and the first after it.
    let last = (first + after + 1).min(deliveries.len());
    let mut before = happened.started_at;
    let mut longest = Duration::ZERO;
    for at in &deliveries[first..last] {
        longest = longest.max(*at - before);
        before = *at;
    }
    longest
}

#[cfg(test)]
mod tests {
    use super::super::ledger::ReceivedRequest;
    use super::super::load::{ExpectedDelivery, WebhookKind};
    use super::*;

    fn seconds(times: &[u64]) -> Vec<Duration> {
        times.iter().copied().map(Duration::from_secs).collect()
    }

    fn lasting(begins: u64, ends: u64) -> InjectedFault {
        let fault = Fault::NodeKilled;
        InjectedFault { fault, started_at: Duration::from_secs(begins), ended_at: Duration::from_secs(ends) }
    }

    #[test]
    fn a_stall_begins_with_the_fault_or_while_it_lasts() {
        let deliveries = seconds(&[1, 2, 9, 10, 30, 31, 60]);
        let stall = |begins, ends| longest_stall(&deliveries, &lasting(begins, ends)).as_secs();
        assert_eq!(stall(3, 4), 6, "from the start of the fault to the next delivery");
        assert_eq!(stall(8, 11), 20, "the stall began during the fault");
        assert_eq!(stall(1, 2), 7);
        assert_eq!(stall(61, 62), 0, "no delivery was expected any more");
    }

    #[test]
    fn refused_requests_are_no_deliveries() {
        let receipt = |at: u64, answered| ReceivedRequest {
            delivery: ExpectedDelivery { event: at, webhook: WebhookKind::Section },
            webhook_id: "a".into(),
            at: Duration::from_secs(at),
            answer: answered,
        };
        let receipts = vec![
            receipt(9, ReceiverAnswer::Accepted),
            receipt(1, ReceiverAnswer::Accepted),
            receipt(4, ReceiverAnswer::Rejected),
        ];
        let pages = LedgerEntries {
            requests: receipts,
            faults: vec![lasting(2, 3), lasting(8, 9)],
            ..LedgerEntries::default()
        };
        let effect = FaultEffect { count: 2, longest_stall: Duration::from_secs(7) };
        assert_eq!(fault_effects(&pages), BTreeMap::from([(Fault::NodeKilled, effect)]));
        assert_eq!(longest_gap(&pages, Duration::from_secs(10)), Duration::from_secs(8));
        assert_eq!(longest_gap(&pages, Duration::from_secs(3)), Duration::from_secs(2));
    }
}
