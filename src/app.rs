//! The composition root: builds every part from the settings, runs them, and stops them in order.

use std::net::SocketAddr;
use std::panic;
use std::sync::{Arc, Weak};
use std::time::Duration;

use arc_swap::ArcSwap;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

use crate::broker::connection::ConnectionConfig;
use crate::broker::management::Management;
use crate::broker::names::Names;
use crate::broker::publisher::Publisher;
use crate::broker::topology::Topology;
use crate::broker::topology_keeper::TopologyKeeper;
use crate::broker::topology_status::TopologyStatus;
use crate::broker::{BrokerError, policies};
use crate::campaigns::Campaigns;
use crate::config::{BrokerConfig, Config};
use crate::dead_letters::DeadLetters;
use crate::dead_letters::supervisor::DeadLetterSupervisor;
use crate::http::ApiState;
use crate::http::listener::Listener;
use crate::metrics::Metrics;
use crate::metrics::history::History;
use crate::replays::Replays;
use crate::replays::runner::Runner;
use crate::sender::{Sender, SenderError, SenderSettings};
use crate::store::{Store, StoreError};
use crate::tls;
use crate::view_sync::{FollowError, Followers};
use crate::worker::Worker;
use crate::worker::consumer::Consumer;
use crate::worker::consumer_status::ConsumerStatus;
use crate::worker::endpoint_registry::EndpointRegistry;
use crate::worker::memory_budget::MemoryBudget;
use crate::worker::park_batcher::ParkBatcher;
use crate::worker::receipts::Receipts;
use crate::worker::retry_throttle::RetryThrottle;

/// How long callers of the API, and messages on their way to the broker, are waited for at the end.
const CLOSING_TIME: Duration = Duration::from_secs(3);

/// Why Waypost could not start, or had to end.
#[derive(Debug, thiserror::Error)]
pub enum AppError {
    /// The address is taken, or not ours.
    #[error("can't listen on {address} (http.listen): {error}")]
    Listen {
        /// `http.listen`
        address: SocketAddr,
        /// Why.
        error: std::io::Error,
    },
    /// The local store can't be used.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The file of certificates can't be used.
    #[error("{path} (egress.caFile): {error}")]
    Certificates {
        /// `egress.caFile`
        path: String,
        /// Why.
        error: String,
    },
    /// The listener's certificate can't be used.
    #[error("http.certFile: {0}")]
    Tls(String),
    /// No client could be made.
    #[error(transparent)]
    Sender(#[from] SenderError),
    /// The broker's objects are not as Waypost needs them.
    #[error("{0}")]
    Broker(#[from] BrokerError),
    /// The listener failed.
    #[error("the HTTP listener failed: {0}")]
    Http(std::io::Error),
    /// Two metrics have one name.
    #[error("metrics: {0}")]
    Metrics(#[from] prometheus::Error),
}

impl From<FollowError> for AppError {
    fn from(error: FollowError) -> Self {
        match error {
            FollowError::Broker(error) => Self::Broker(error),
            FollowError::Store(error) => Self::Store(error),
            // The intake reads again instead of ending.
            error @ FollowError::Stalled { .. } => {
                Self::Broker(BrokerError::ChannelFailed { doing: "following", error: error.to_string() })
            }
        }
    }
}

/// Takes over settings while a worker runs. It does not keep the worker: publishing ends when nobody is left who could publish.
pub struct ReloadHandle(Weak<Worker>);

impl ReloadHandle {
    /// What can change from now on is as these settings say.
    pub fn adjust(&self, config: &Config) {
        let Some(worker) = self.0.upgrade() else { return };
        worker.policy.store(Arc::new(config.retry.clone()));
        worker.endpoints.set_limits(config.endpoint.limits);
    }
}

/// A worker, built but not running.
pub struct App {
    listener: Listener,
    address: SocketAddr,
    store: Store,
    http: ApiState,
    intake: Consumer,
    tail: DeadLetterSupervisor,
    keeper: TopologyKeeper,
    management: Option<Management>,
    publishing: tokio::task::JoinHandle<()>,
}

impl App {
    /// Builds everything that needs no broker; connecting is begun.
    ///
    /// # Errors
    /// [`AppError`].
    pub async fn build(config: &Config) -> Result<Self, AppError> {
        warn_if_unencrypted(config);
        let listen = config.http.listen;
        let listener = TcpListener::bind(listen).await.map_err(|error| AppError::Listen { address: listen, error })?;
        let address = listener.local_addr().map_err(AppError::Http)?;
        let tls = config.http.identity.as_ref().map(tls::Identity::server).transpose().map_err(AppError::Tls)?;
        let listener = Listener::new(listener, tls).map_err(AppError::Http)?;
        let metrics = Arc::new(Metrics::new()?);
        let store = Store::open(&config.store.path)?.with_keyring(config.keyring.clone())?;
        let sender = new_sender(config)?;

        let broker = broker_address(&config.broker);
        let names = Names::new(&config.broker.prefix);
        let topology = Topology {
            names: names.clone(),
            shards: config.broker.shards,
            dead_letter_retention: config.dead_letters.retention,
            status: TopologyStatus::default(),
        };
        let keeper = TopologyKeeper { address: broker.clone(), topology: topology.clone() };
        let management = config.broker.management_url.as_ref().map(|url| Management::new(url, &broker)).transpose();
        let management = management.unwrap_or_else(|error| {
            tracing::warn!(error, "broker policies not checked");
            None
        });
        let followers = Followers::default();
        let (publisher, publishing) = Publisher::start(broker.clone(), topology.clone());
        let (rules, keyring) = (config.egress.rules(), config.keyring.clone());
        let campaigns =
            Campaigns::new(store.clone(), publisher.clone(), names.clone(), rules, keyring, metrics.clone());
        let memory_budget = MemoryBudget::default();
        let retention = config.dead_letters.retention;
        let dead_letters =
            DeadLetters::new(store.letters.clone(), publisher.clone(), names.clone(), retention, metrics.clone())?;
        let worker = Arc::new(Worker {
            names: names.clone(),
            store: store.clone(),
            publisher: publisher.clone(),
            letters: dead_letters.appender(),
            sender,
            endpoints: EndpointRegistry::new(config.endpoint.limits, config.broker.prefetch),
            parking: ParkBatcher::start(publisher.clone(), names.clone(), metrics.clone()),
            receipts: Receipts::start(),
            policy: ArcSwap::from_pointee(config.retry.clone()),
            metrics: metrics.clone(),
            memory_budget: memory_budget.clone(),
        });
        let progress = ConsumerStatus::default();
        let replays = Replays::new(store.clone(), dead_letters.clone(), publisher.clone(), names.clone());
        let busy = usize::from(config.broker.prefetch) / 2;
        let runner = Runner::new(replays.clone(), worker.clone(), progress.clone(), busy, config.shutdown.grace);
        let tail = DeadLetterSupervisor {
            address: broker.clone(),
            topology: topology.clone(),
            dead_letters: dead_letters.clone(),
            runner: Arc::new(runner),
            follower: followers.dead_letters.clone(),
            configuration: campaigns.currency(),
        };
        let http = ApiState {
            store: store.clone(),
            campaigns: campaigns.clone(),
            dead_letters,
            replays,
            worker: worker.clone(),
            publisher,
            names,
            metrics,
            history: History::default(),
            progress: progress.clone(),
            topology: topology.status.clone(),
            followers: followers.clone(),
            tokens: config.http.tokens.clone().into(),
        };
        let intake = Consumer {
            address: broker,
            topology,
            campaigns,
            worker,
            window: config.broker.prefetch,
            grace: config.shutdown.grace,
            progress,
            memory_budget,
            follower: followers.campaigns,
            precedence: RetryThrottle::default(),
        };
        Ok(Self { listener, address, store, http, intake, tail, keeper, management, publishing })
    }

    /// What takes over settings while it runs.
    pub fn adjuster(&self) -> ReloadHandle {
        ReloadHandle(Arc::downgrade(&self.http.worker))
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Delivers until `stop`, then finishes what is in hand: first the intake, so that the API and the probes answer
    /// as long as anything happens.
    ///
    /// # Errors
    /// [`AppError::Broker`] where the broker's objects are not as they must be, [`AppError::Http`].
    pub async fn run(self, stop: CancellationToken) -> Result<(), AppError> {
        let Self { listener, address, store, http, intake, tail, keeper, management, publishing } = self;
        tracing::info!(%address, version = env!("CARGO_PKG_VERSION"), "listening");
        let stop_http = CancellationToken::new();
        let mut http = tokio::spawn(http.run(listener, stop_http.clone()));
        let policies = warn_of_policies(management, keeper.topology.clone());
        let _policies = AbortOnDropHandle::new(tokio::spawn(policies));
        let _keeper = AbortOnDropHandle::new(tokio::spawn(keeper.run(stop.clone())));
        // A task of its own: what it does with its view must not hold up deliveries.
        let settled = CancellationToken::new();
        let tail = AbortOnDropHandle::new(tokio::spawn(tail.run(stop.clone(), settled.clone())));
        let tail = async { tail.await.unwrap_or_else(|error| panic::resume_unwind(error.into_panic())) };
        // And one for deliveries: on the main thread each message would have to be woken up for on another.
        let intake = AbortOnDropHandle::new(tokio::spawn(intake.run(stop)));
        let intake = async {
            let ended = intake.await.unwrap_or_else(|error| panic::resume_unwind(error.into_panic()));
            settled.cancel();
            ended
        };
        // Both to their ends, unless one of them fails.
        let work = async { tokio::try_join!(intake, tail) };
        let ended = tokio::select! {
            ended = work => ended.map(|_| ()).map_err(AppError::from),
            ended = &mut http => return Err(AppError::Http(match ended {
                Ok(Err(error)) => error,
                Ok(Ok(())) => std::io::Error::other("it ended by itself"),
                Err(error) => std::io::Error::other(error),
            })),
        };
        stop_http.cancel();
        let close = async {
            // The task is over, or was: either way nobody is waiting for an answer any more.
            let _ = (&mut http).await;
            // Its last clones are gone with the intake and the API: it ends when all is confirmed.
            let _ = publishing.await;
        };
        if tokio::time::timeout(CLOSING_TIME, close).await.is_err() {
            tracing::warn!("stopping before all was answered or confirmed");
            http.abort();
        }
        if matches!(ended, Err(AppError::Store(_))) {
            // A sled that has failed hangs when it is flushed, and it is when its last clone is dropped.
            std::mem::forget(store);
            return ended;
        }
        if let Err(error) = store.flush().await {
            tracing::warn!(%error, "stopping: what is not written is read from the log again");
        }
        tracing::info!("stopped");
        ended
    }
}

fn warn_if_unencrypted(config: &Config) {
    if config.keyring.ids().next().is_none() {
        tracing::warn!("WAYPOST_SECRET_KEY is not set: header values and signing secrets are stored in the clear");
    }
}

/// Says at the start which policies of the broker harm a queue. Over AMQP they are invisible.
async fn warn_of_policies(management: Option<Management>, topology: Topology) {
    let Some(management) = management else { return };
    topology.status.until_declared().await;
    match management.policies(&topology).await {
        Ok(findings) => {
            let exempt = policies::exempting(&findings, management.vhost(), &topology.names).join("; ");
            for finding in &findings {
                tracing::warn!(queue = finding.queue, %finding, exempt, "broker policy harms a queue");
            }
        }
        Err(error) => tracing::warn!(error, "broker policies not checked"),
    }
}

/// The broker as the settings say it is reached.
pub(crate) fn broker_address(broker: &BrokerConfig) -> ConnectionConfig {
    ConnectionConfig::new(broker.url.clone()).with_tls(broker.authorities.clone(), broker.identity.clone())
}

/// What sends to webhooks under these settings.
pub(crate) fn new_sender(config: &Config) -> Result<Sender, AppError> {
    let extra_roots = match &config.egress.ca_file {
        None => Vec::new(),
        Some(path) => {
            let read = std::fs::read(path).map_err(|error| error.to_string());
            read.and_then(|pem| tls::authorities(&pem))
                .map_err(|error| AppError::Certificates { path: path.display().to_string(), error })?
        }
    };
    let settings = SenderSettings {
        rules: config.egress.rules(),
        connect_timeout: config.endpoint.connect_timeout,
        extra_roots,
        proxy: config.egress.proxy.clone(),
    };
    Ok(Sender::new(settings)?)
}
