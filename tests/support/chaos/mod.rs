//! The fault drill: workers and a RabbitMQ cluster with publishers and receivers, and a schedule of faults that is
//! derived from a seed. At the end all faults are over, and the account shows what happened to every event. It uses the
//! records of publishers, receivers and the broker only, and nothing that a worker reports.
//!
//! Pure modules: [`schedule`] (when which fault starts), [`load`] (the published events), [`account`],
//! [`command_account`], [`missing_letters`] and [`stall_metrics`] (the results).
//!
//! Modules with I/O: [`setup`] starts all processes, [`publisher`], [`receivers`] and [`operator`] take part,
//! [`injector`] injects faults, [`drain`] waits for the end, and [`views`] reads the final views of the workers.

pub(crate) mod account;
pub(crate) mod command_account;
mod control_stream;
mod dead_letters;
mod drain;
mod fake_clock;
pub(crate) mod fault;
mod injector;
pub(crate) mod ledger;
mod load;
mod missing_letters;
mod operator;
mod publisher;
mod receivers;
mod rng;
mod schedule;
mod setup;
mod small_disk;
pub(crate) mod stall_metrics;
mod streams;
mod tls;
mod views;

use std::time::Duration;

use futures_util::future::join_all;
use tokio::time::interval;

use super::network::{Delay, Network};
use super::{Amqp, Broker, Waypost};
use account::Account;
use command_account::CommandAccount;
pub(crate) use control_stream::ControlStreamResult;
pub(crate) use drain::DrainResult;
use fault::Fault;
use ledger::{Ledger, LedgerEntries, PublishState, ReceiverAnswer};
use operator::Operator;
use publisher::Publisher;
pub(crate) use schedule::ScheduleMode;
use setup::ChaosSetup;
use views::WorkerView;

/// The parameters of a drill.
#[derive(Debug, Clone)]
pub(crate) struct ChaosRun {
    /// Determines all random choices.
    pub(crate) seed: u64,
    /// How long events are published and faults are injected.
    pub(crate) duration: Duration,
    pub(crate) mode: ScheduleMode,
    pub(crate) nodes: usize,
    pub(crate) workers: usize,
    pub(crate) publishers: usize,
    pub(crate) receivers: usize,
    /// The total of all publishers.
    pub(crate) events_per_second: u32,
    /// Whether the workers use TLS to the broker.
    pub(crate) tls: bool,
    /// Faults to leave out.
    pub(crate) excluded: Vec<Fault>,
}

/// A drill with more events than this does not log each delivery, because the lines would fill the memory.
const MAX_LOGGED_EVENTS: u64 = 100_000;

impl ChaosRun {
    /// Returns whether the workers log each delivery.
    fn logs_deliveries(&self) -> bool {
        u64::from(self.events_per_second) * self.duration.as_secs() <= MAX_LOGGED_EVENTS
    }
}

#[derive(Debug, Clone)]
pub(crate) struct Progress {
    pub(crate) elapsed: Duration,
    pub(crate) published: usize,
    pub(crate) accepted: usize,
    pub(crate) faults: usize,
    /// The current faults or steps.
    pub(crate) in_progress: Vec<String>,
}

#[derive(Debug)]
pub(crate) struct ChaosResult {
    pub(crate) account: Account,
    /// What happened to replays, discards and changes of campaigns, and whether workers show every dead letter.
    pub(crate) commands: CommandAccount,
    pub(crate) entries: LedgerEntries,
    pub(crate) drained: DrainResult,
    /// How packets were delayed. `None` if the nodes had no network of their own.
    pub(crate) delay: Option<Delay>,
    /// Shows whether the broker itself lost records.
    pub(crate) control_stream: ControlStreamResult,
    /// Faults that were excluded or are impossible on this machine.
    pub(crate) excluded: Vec<Fault>,
    /// The output of each worker.
    pub(crate) logs: Vec<Vec<String>>,
    /// The log of each broker node.
    pub(crate) node_logs: Vec<String>,
}

impl ChaosResult {
    /// Returns whether nothing was lost, workers show every dead letter, all work is finished, and nothing unexpected
    /// happened.
    pub(crate) fn passed(&self) -> bool {
        self.account.is_balanced()
            && self.commands.contradictions.is_empty()
            && self.entries.incidents.is_empty()
            && matches!(self.drained, DrainResult::Drained { .. })
    }
}

/// Runs a drill. `watch` receives the progress about once a second. Dropping the future ends everything it started.
pub(crate) async fn run(drill: &ChaosRun, watch: impl Fn(Progress)) -> ChaosResult {
    let setup = ChaosSetup::start(drill).await;
    let cast = setup.participants(drill);
    let plan = schedule::build_schedule(drill.seed, drill.duration, drill.mode, &cast);
    let control_ledger = Ledger::new();
    let busy = async {
        let ledger = &setup.ledger;
        let publishing = join_all((0..drill.publishers).map(|number| publisher(drill, &setup, number).run()));
        let publishing = ledger.track("publishing", publishing);
        let control = control_publisher(drill, &setup, &control_ledger).run();
        let control = ledger.track("publishing to the control stream", control);
        let injecting = join_all(plan.iter().map(|lane| injector::inject_faults(&setup, lane)));
        let operating = ledger.track("giving orders", Operator::new(&setup, drill.seed, drill.duration).run());
        tokio::join!(publishing, control, injecting, operating);
        let drained = ledger.track("settling", drain::wait_until_drained(&setup)).await;
        let (dead_letters, control_stream) = (setup.dead_letters(), setup.control_stream());
        // A running replay may still write letters.
        ledger.track("waiting for replays", views::read_when_equal(&setup, |_| true)).await;
        let streams = async {
            (
                streams::read_longest_copy(&setup, &dead_letters).await,
                streams::read_longest_copy(&setup, &control_stream).await,
            )
        };
        let (dead_letters, control_stream) = ledger.track("reading the streams", streams).await;
        let (letters, strange) = dead_letters::parse_dead_letters(&dead_letters);
        let is_complete = |views: &[WorkerView]| missing_letters::missing_letters(&letters, views).is_empty();
        let views = ledger.track("reading what workers show", views::read_when_equal(&setup, is_complete)).await;
        ledger.lock_entries().incidents.extend(strange);
        (drained, views, letters, control_stream)
    };
    let watching = async {
        let mut turns = interval(Duration::from_secs(1));
        loop {
            turns.tick().await;
            watch(progress(&setup.ledger));
            setup.receivers.iter().for_each(receivers::FaultyReceiver::clear_requests);
        }
    };
    let (drained, views, letters, control_stream) = tokio::select! {
        done = busy => done,
        () = watching => unreachable!("watching has no end"),
    };
    let pages = setup.ledger.lock_entries().clone();
    ChaosResult {
        account: account::build_account(&pages, &letters),
        commands: command_account::build_account(&pages, &letters, &views),
        entries: pages,
        drained,
        control_stream: control_stream::check_control_stream(&control_ledger, &control_stream),
        excluded: cast.excluded,
        delay: setup.cluster.network().map(Network::delay),
        logs: setup.workers.iter().map(Waypost::log_lines).collect(),
        node_logs: setup.cluster.nodes().iter().map(Broker::log).collect(),
    }
}

fn publisher<'a>(drill: &ChaosRun, setup: &'a ChaosSetup, number: usize) -> Publisher<'a> {
    let publishers = u32::try_from(drill.publishers).expect("fewer than 2^32 publishers");
    Publisher {
        // Two missed heartbeats close a connection.
        broker_url: format!("{}?heartbeat=5", setup.proxies[drill.workers + number].amqp_url()),
        exchange: setup.events(),
        receivers: drill.receivers,
        next_event: number as u64,
        step: u64::from(publishers),
        pause: Duration::from_secs(1) * publishers / drill.events_per_second,
        until: drill.duration,
        ledger: &setup.ledger,
    }
}

/// Publishes far more records than there are dead letters.
fn control_publisher<'a>(drill: &ChaosRun, setup: &ChaosSetup, ledger: &'a Ledger) -> Publisher<'a> {
    Publisher {
        broker_url: format!("{}?heartbeat=5", setup.control_proxy.amqp_url()),
        exchange: setup.control_stream(),
        receivers: drill.receivers,
        next_event: 0,
        step: 1,
        pause: Duration::from_millis(50),
        until: drill.duration,
        ledger,
    }
}

fn progress(ledger: &Ledger) -> Progress {
    let pages = ledger.lock_entries();
    let confirmed = pages.published.values().filter(|published| **published == PublishState::Confirmed).count();
    let accepted = pages.requests.iter().filter(|receipt| receipt.answer == ReceiverAnswer::Accepted).count();
    Progress {
        elapsed: ledger.elapsed(),
        published: confirmed,
        accepted,
        faults: pages.faults.len(),
        in_progress: pages.in_progress.clone(),
    }
}
