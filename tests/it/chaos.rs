//! A short fault drill, like `make chaos` with a fixed seed.

use std::time::Duration;

use crate::support::chaos::fault::Fault;
use crate::support::chaos::{self, ChaosRun, ScheduleMode};
use crate::support::heavy;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_lost_in_a_short_drill() {
    let _turn = heavy().await;
    let drill = ChaosRun {
        seed: 1,
        duration: Duration::from_secs(20),
        mode: ScheduleMode::Concurrent,
        nodes: 3,
        workers: 2,
        publishers: 1,
        receivers: 4,
        events_per_second: 40,
        tls: false,
        // RabbitMQ's streams, and so dead letters, may lose records if all nodes are killed.
        excluded: vec![Fault::ClusterKilled],
    };
    let findings = chaos::run(&drill, |_| ()).await;
    let (account, pages) = (&findings.account, &findings.entries);
    assert!(
        findings.passed(),
        "{:?}; lost {:?}, contradictions {:?} and {:?}, incidents {:?}, after {:?}",
        findings.drained,
        account.lost,
        account.contradictions,
        findings.commands.contradictions,
        pages.incidents,
        pages.faults
    );
    // The drill must deliver events and inject faults.
    assert!(account.published > 200 && account.delivered > 200, "{account:?}");
    assert!(pages.faults.len() >= 8, "{:?}", pages.faults);
}
