//! The participants of a drill: a cluster, workers, receivers, and a proxy on every connection to the broker.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use super::fake_clock::FakeClock;
use super::fault::Fault;
use super::ledger::Ledger;
use super::receivers::FaultyReceiver;
use super::rng::mix;
use super::schedule::Participants;
use super::tls::{self, Tls};
use super::{ChaosRun, control_stream, small_disk};
use crate::support::network::Network;
use crate::support::{Amqp, Broker, Cluster, Proxy, Waypost, unique, wait_until};

/// The worker whose clock can jump.
const FAKE_CLOCK_WORKER: usize = 0;

/// Logs each event and each delivery, to explain a loss.
const LOG_FILTER: &str = "waypost=info,waypost::deliveries=debug";

/// Enough for requests in flight: the timeout of a webhook is a second.
const WORKER_SETTINGS: [(&str, &str); 1] = [("WAYPOST_SHUTDOWN__GRACE", "3s")];

/// For a start on a busy machine.
const START_TIMEOUT: Duration = Duration::from_secs(120);

pub(crate) struct ChaosSetup {
    pub(crate) prefix: String,
    pub(crate) ledger: Arc<Ledger>,
    // Dropped first, because workers would log errors without a broker.
    pub(crate) workers: Vec<Waypost>,
    pub(crate) receivers: Vec<FaultyReceiver>,
    /// First those of the workers, then those of the publishers.
    pub(crate) proxies: Vec<Proxy>,
    /// The proxy of the publisher to the control stream. No fault affects it.
    pub(crate) control_proxy: Proxy,
    /// The clock of the first worker.
    pub(crate) clock: Option<FakeClock>,
    pub(crate) cluster: Cluster,
    _tls: Option<Tls>,
}

impl ChaosSetup {
    /// Starts everything and stores the campaigns.
    pub(crate) async fn start(drill: &ChaosRun) -> Self {
        let ledger = Arc::new(Ledger::new());
        let tls = drill.tls.then(Tls::new);
        let cluster = match Network::start(drill.nodes).await {
            Ok(network) => {
                let listeners = tls.as_ref().map(|tls| tls.listeners(network.hosts()));
                Cluster::start_in(network, move |folder, node| {
                    if let Some(listeners) = &listeners {
                        std::fs::write(folder.join("rabbitmq.conf"), &listeners[node]).expect("written");
                    }
                })
                .await
            }
            Err(why) => {
                assert!(tls.is_none(), "TLS needs a network of the nodes' own: {why}");
                ledger
                    .record_note(&format!("the nodes share this machine's network, so there is no fault of it: {why}"));
                Cluster::start(drill.nodes).await
            }
        };
        let addresses: Vec<SocketAddr> = cluster.nodes().iter().map(Broker::address).collect();
        let of_workers: Vec<SocketAddr> = match tls {
            Some(_) => addresses.iter().map(|address| SocketAddr::new(address.ip(), tls::PORT)).collect(),
            None => addresses.clone(),
        };
        // Each connection starts at another node, and tries the next node if that one is down.
        let line = |number: usize| {
            let addresses = if number < drill.workers { &of_workers } else { &addresses };
            let first = number % addresses.len();
            Proxy::start_with_fallbacks([&addresses[first..], &addresses[..first]].concat())
        };
        let proxies: Vec<Proxy> = (0..drill.workers + drill.publishers).map(line).collect();
        let (prefix, clock) = (unique("chaos"), FakeClock::new());
        let environment = |worker: usize| {
            let settings = WORKER_SETTINGS.map(|(name, value)| (name.to_owned(), value.to_owned()));
            let clock = clock.iter().filter(|_| worker == FAKE_CLOCK_WORKER).flat_map(FakeClock::environment);
            let log = drill.logs_deliveries().then(|| ("RUST_LOG".to_owned(), LOG_FILTER.to_owned()));
            settings
                .into_iter()
                .chain(log)
                .chain(clock)
                .chain(tls.iter().flat_map(Tls::environment))
                .collect::<Vec<_>>()
        };
        let launch = |worker: usize| {
            let environment = environment(worker);
            let environment: Vec<(&str, &str)> =
                environment.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
            let url = match &tls {
                // The name in the certificate.
                Some(_) => format!("amqps://guest:guest@localhost:{}/%2f", proxies[worker].address().port()),
                None => proxies[worker].amqp_url(),
            };
            Waypost::launch(&url, &prefix, &environment)
        };
        let workers: Vec<Waypost> = (0..drill.workers).map(launch).collect();
        for worker in &workers {
            wait_until("the workers", START_TIMEOUT, async || is_ready(worker).await.then_some(())).await;
        }
        let control_proxy = line(drill.workers);
        control_stream::declare_control_stream(
            &Amqp::connect(&cluster.nodes()[0].url()).await,
            &control_stream_name(&prefix),
        )
        .await;
        let receivers: Vec<FaultyReceiver> =
            (0..drill.receivers as u64).map(|number| FaultyReceiver::start(mix(drill.seed, number), &ledger)).collect();
        for (number, endpoint) in receivers.iter().enumerate() {
            workers[0].put_campaign(&endpoint.campaign(number, 0)).await;
        }
        for worker in &workers {
            let known = async || {
                let campaigns = worker.get("/v1/campaigns").await.json();
                (campaigns["items"].as_array()?.len() == receivers.len()).then_some(())
            };
            wait_until("all campaigns at every worker", START_TIMEOUT, known).await;
        }
        // The time of the setup does not count.
        ledger.restart_clock();
        Self { prefix, ledger, workers, receivers, proxies, control_proxy, clock, cluster, _tls: tls }
    }

    /// Restarts workers that exited unexpectedly, and records that.
    pub(crate) fn restart_ended_workers(&self) {
        for (number, worker) in self.workers.iter().enumerate() {
            if let Some(status) = worker.take_exit_status() {
                self.ledger.record_incident(&format!("worker {number} ended by itself with {status}"));
                worker.relaunch(&[]);
            }
        }
    }

    /// The participants for the schedule, and the faults that are excluded or impossible on this machine.
    pub(crate) fn participants(&self, drill: &ChaosRun) -> Participants {
        let mut left_out = drill.excluded.clone();
        if self.clock.is_none() {
            left_out.extend([Fault::ClockAhead, Fault::ClockBehind]);
        }
        if !left_out.contains(&Fault::DiskFull) && !small_disk::is_available() {
            left_out.push(Fault::DiskFull);
        }
        match self.cluster.network() {
            None => left_out.extend(Fault::NETWORK_FAULTS),
            Some(network) if !network.throttles_disk() => left_out.push(Fault::NodeDiskSlow),
            Some(_) => {}
        }
        Participants {
            workers: self.workers.len(),
            nodes: self.cluster.nodes().len(),
            connections: self.proxies.len(),
            receivers: self.receivers.len(),
            excluded: left_out,
        }
    }

    pub(crate) fn events(&self) -> String {
        format!("{}.events", self.prefix)
    }

    /// The name of the control stream and of its exchange.
    pub(crate) fn control_stream(&self) -> String {
        control_stream_name(&self.prefix)
    }

    pub(crate) fn dead_letters(&self) -> String {
        format!("{}.dead-letters", self.prefix)
    }
}

fn control_stream_name(prefix: &str) -> String {
    format!("control-{prefix}")
}

/// Returns whether a worker runs and is ready.
pub(crate) async fn is_ready(worker: &Waypost) -> bool {
    reqwest::get(worker.url("/readyz")).await.is_ok_and(|reply| reply.status().is_success())
}
