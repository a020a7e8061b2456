//! Who takes part: a cluster, workers, receivers, and a proxy on every connection to the broker.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use super::books::Books;
use super::chance::mixed;
use super::clock::Clock;
use super::fault::Fault;
use super::receivers::Endpoint;
use super::schedule::Cast;
use super::tls::{self, Tls};
use super::{Drill, small_disk, witness};
use crate::support::network::Network;
use crate::support::{Amqp, Broker, Cluster, Proxy, Waypost, unique, until};

/// The worker whose clock can jump.
const WITH_A_CLOCK: usize = 0;

/// A line for each event and each delivery, by which a loss can be explained.
const LOG: &str = "waypost=info,waypost::deliveries=debug";

/// Time enough for what is in hand: a webhook has a second.
const SETTINGS: [(&str, &str); 1] = [("WAYPOST_SHUTDOWN__GRACE", "3s")];

/// For a start on a busy machine.
const PATIENCE: Duration = Duration::from_secs(120);

/// All that takes part.
pub(crate) struct Scene {
    pub(crate) prefix: String,
    pub(crate) books: Arc<Books>,
    // The workers end first: they would only tell of a broker that is gone.
    pub(crate) workers: Vec<Waypost>,
    pub(crate) endpoints: Vec<Endpoint>,
    /// Of the workers, and then of the publishers.
    pub(crate) lines: Vec<Proxy>,
    /// Past which nothing is done to the publisher that writes to the witness.
    pub(crate) witness_line: Proxy,
    /// Of the first worker.
    pub(crate) clock: Option<Clock>,
    pub(crate) cluster: Cluster,
    _tls: Option<Tls>,
}

impl Scene {
    /// Starts all of them, and stores the campaigns.
    pub(crate) async fn set(drill: &Drill) -> Self {
        let books = Arc::new(Books::open());
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
                books.remark(&format!("the nodes share this machine's network, so there is no fault of it: {why}"));
                Cluster::start(drill.nodes).await
            }
        };
        let addresses: Vec<SocketAddr> = cluster.nodes().iter().map(Broker::address).collect();
        let of_workers: Vec<SocketAddr> = match tls {
            Some(_) => addresses.iter().map(|address| SocketAddr::new(address.ip(), tls::PORT)).collect(),
            None => addresses.clone(),
        };
        // Each begins with another node, and goes to the next where that one is away.
        let line = |number: usize| {
            let addresses = if number < drill.workers { &of_workers } else { &addresses };
            let first = number % addresses.len();
            Proxy::to_first_of([&addresses[first..], &addresses[..first]].concat())
        };
        let lines: Vec<Proxy> = (0..drill.workers + drill.publishers).map(line).collect();
        let (prefix, clock) = (unique("chaos"), Clock::new());
        let environment = |worker: usize| {
            let settings = SETTINGS.map(|(name, value)| (name.to_owned(), value.to_owned()));
            let clock = clock.iter().filter(|_| worker == WITH_A_CLOCK).flat_map(Clock::environment);
            let log = drill.logs_deliveries().then(|| ("RUST_LOG".to_owned(), LOG.to_owned()));
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
                Some(_) => format!("amqps://guest:guest@localhost:{}/%2f", lines[worker].address().port()),
                None => lines[worker].amqp_url(),
            };
            Waypost::launch(&url, &prefix, &environment)
        };
        let workers: Vec<Waypost> = (0..drill.workers).map(launch).collect();
        for worker in &workers {
            until("the workers", PATIENCE, async || is_ready(worker).await.then_some(())).await;
        }
        let witness_line = line(drill.workers);
        witness::declare(&Amqp::connect(&cluster.nodes()[0].url()).await, &witness_name(&prefix)).await;
        let endpoints: Vec<Endpoint> =
            (0..drill.receivers as u64).map(|number| Endpoint::start(mixed(drill.seed, number), &books)).collect();
        for (number, endpoint) in endpoints.iter().enumerate() {
            workers[0].put_campaign(&endpoint.campaign(number, 0)).await;
        }
        for worker in &workers {
            let known = async || {
                let campaigns = worker.get("/v1/campaigns").await.json();
                (campaigns["items"].as_array()?.len() == endpoints.len()).then_some(())
            };
            until("all campaigns at every worker", PATIENCE, known).await;
        }
        // What took time to set up is no part of the drill.
        books.begin();
        Self { prefix, books, workers, endpoints, lines, witness_line, clock, cluster, _tls: tls }
    }

    /// Starts workers again that have ended though nobody told them to, and writes that down.
    pub(crate) fn mind_workers(&self) {
        for (number, worker) in self.workers.iter().enumerate() {
            if let Some(status) = worker.ended_by_itself() {
                self.books.incident(&format!("worker {number} ended by itself with {status}"));
                worker.relaunch(&[]);
            }
        }
    }

    /// For the schedule: who there is, and what is not to be done, or can't be done here.
    pub(crate) fn cast(&self, drill: &Drill) -> Cast {
        let mut left_out = drill.left_out.clone();
        if self.clock.is_none() {
            left_out.extend([Fault::ClockAhead, Fault::ClockBehind]);
        }
        if !left_out.contains(&Fault::DiskFull) && !small_disk::is_possible() {
            left_out.push(Fault::DiskFull);
        }
        match self.cluster.network() {
            None => left_out.extend(Fault::OF_THE_NETWORK),
            Some(network) if !network.throttles_disk() => left_out.push(Fault::NodeDiskSlow),
            Some(_) => {}
        }
        Cast {
            workers: self.workers.len(),
            nodes: self.cluster.nodes().len(),
            lines: self.lines.len(),
            receivers: self.endpoints.len(),
            left_out,
        }
    }

    /// The queue of events.
    pub(crate) fn events(&self) -> String {
        format!("{}.events", self.prefix)
    }

    /// The stream of the witness, and the exchange that leads there.
    pub(crate) fn witness(&self) -> String {
        witness_name(&self.prefix)
    }

    /// The stream of dead letters.
    pub(crate) fn dead_letters(&self) -> String {
        format!("{}.dead-letters", self.prefix)
    }
}

fn witness_name(prefix: &str) -> String {
    format!("witness-{prefix}")
}

/// Whether a worker is running and says that it is ready.
pub(crate) async fn is_ready(worker: &Waypost) -> bool {
    reqwest::get(worker.url("/readyz")).await.is_ok_and(|reply| reply.status().is_success())
}
