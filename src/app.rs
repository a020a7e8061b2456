//! The composition root: builds all parts from the settings, runs them, and stops them in order.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::panic;
use std::sync::{Arc, Weak};
use std::time::Duration;

use arc_swap::ArcSwap;
use tokio::net::TcpListener;
use tokio::task::{JoinError, JoinHandle};
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;
use waypost_broker::connection::ConnectionConfig;
use waypost_broker::management::Management;
use waypost_broker::names::Names;
use waypost_broker::publisher::Publisher;
use waypost_broker::tls;
use waypost_broker::topology::Topology;
use waypost_broker::topology_keeper::TopologyKeeper;
use waypost_broker::topology_status::TopologyStatus;
use waypost_broker::{BrokerError, policies};
use waypost_engine::campaigns::Campaigns;
use waypost_engine::dead_letter_supervisor::DeadLetterSupervisor;
use waypost_engine::dead_letters::DeadLetters;
use waypost_engine::events::EventPublisher;
use waypost_engine::metrics::Metrics;
use waypost_engine::metrics::history::History;
use waypost_engine::replays::Replays;
use waypost_engine::replays::runner::Runner;
use waypost_engine::sender::{Sender, SenderError, SenderSettings};
use waypost_engine::view_sync::{FollowError, Followers};
use waypost_engine::webhook_test::WebhookTester;
use waypost_engine::worker::Worker;
use waypost_engine::worker::consumer::Consumer;
use waypost_engine::worker::consumer_status::ConsumerStatus;
use waypost_engine::worker::delay_batcher::DelayBatcher;
use waypost_engine::worker::endpoint_registry::EndpointRegistry;
use waypost_engine::worker::memory_budget::MemoryBudget;
use waypost_engine::worker::receipts::Receipts;
use waypost_engine::worker::retry_slots::RetrySlots;
use waypost_http::api_state::ApiState;
use waypost_http::listener::Listener;
use waypost_store::{Store, StoreError};

use crate::config::{BrokerConfig, Config};

/// How long a stop waits for open API requests and for unconfirmed messages.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(3);

/// Why Waypost could not start, or had to stop.
#[derive(Debug, thiserror::Error)]
pub enum AppError {
    #[error("can't listen on {address} (http.listen): {error}")]
    Listen { address: SocketAddr, error: std::io::Error },
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("{path} (egress.caFile): {error}")]
    Certificates { path: String, error: String },
    #[error("http.certFile: {0}")]
    Tls(String),
    #[error(transparent)]
    Sender(#[from] SenderError),
    #[error("{0}")]
    Broker(#[from] BrokerError),
    #[error("the HTTP listener failed: {0}")]
    Http(std::io::Error),
    /// Two metrics have the same name.
    #[error("metrics: {0}")]
    Metrics(#[from] prometheus::Error),
}

impl From<FollowError> for AppError {
    fn from(error: FollowError) -> Self {
        match error {
            FollowError::Broker(error) => Self::Broker(error),
            FollowError::Store(error) => Self::Store(error),
            // The consumer connects again instead.
            error @ FollowError::Stalled { .. } => {
                Self::Broker(BrokerError::ChannelFailed { operation: "following", error: error.to_string() })
            }
        }
    }
}

/// Applies changed settings to a running worker. The reference is weak: the publisher ends only after the worker is
/// dropped.
pub struct ReloadHandle(Weak<Worker>);

impl ReloadHandle {
    pub fn apply(&self, config: &Config) {
        let Some(worker) = self.0.upgrade() else { return };
        worker.retry_policy.store(Arc::new(config.retry.clone()));
        worker.endpoints.set_limits(config.endpoint.limits);
    }
}

/// All parts of a worker, built but not running yet.
pub struct App {
    listener: Listener,
    address: SocketAddr,
    store: Store,
    api: ApiState,
    consumer: Consumer,
    supervisor: DeadLetterSupervisor,
    keeper: TopologyKeeper,
    management: Option<Management>,
    publisher_task: JoinHandle<()>,
}

impl App {
    /// Builds all parts, and starts to connect to the broker.
    pub async fn build(config: &Config) -> Result<Self, AppError> {
        warn_if_unencrypted(config);
        let listen_address = config.http.listen;
        let listener = TcpListener::bind(listen_address)
            .await
            .map_err(|error| AppError::Listen { address: listen_address, error })?;
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
        let keeper = TopologyKeeper { broker: broker.clone(), topology: topology.clone() };
        let management = config.broker.management_url.as_ref().map(|url| Management::new(url, &broker)).transpose();
        let management = management.unwrap_or_else(|error| {
            tracing::warn!(error, "broker policies not checked");
            None
        });
        let followers = Followers::default();
        let (publisher, publisher_task) = Publisher::start(broker.clone(), topology.clone());
        let (rules, keyring) = (config.egress.rules(), config.keyring.clone());
        let campaigns =
            Campaigns::new(store.clone(), publisher.clone(), names.clone(), rules, keyring, metrics.clone());
        let retention = config.dead_letters.retention;
        let dead_letters =
            DeadLetters::new(store.letters.clone(), publisher.clone(), names.clone(), retention, metrics.clone())?;
        let worker = Arc::new(Worker {
            names: names.clone(),
            store: store.clone(),
            publisher: publisher.clone(),
            dead_letter_writer: dead_letters.appender(),
            sender,
            endpoints: EndpointRegistry::new(config.endpoint.limits, config.broker.prefetch),
            delay_batcher: DelayBatcher::start(publisher.clone(), names.clone(), metrics.clone()),
            receipts: Receipts::start(),
            retry_policy: ArcSwap::from_pointee(config.retry.clone()),
            metrics: metrics.clone(),
            memory_budget: MemoryBudget::default(),
            retry_slots: RetrySlots::default(),
        });
        let consumer_status = ConsumerStatus::default();
        let replays = Replays::new(store.clone(), dead_letters.clone(), publisher.clone(), names.clone());
        let busy_threshold = usize::from(config.broker.prefetch) / 2;
        let runner = Runner::new(
            replays.clone(),
            worker.clone(),
            consumer_status.clone(),
            busy_threshold,
            config.shutdown.grace,
        );
        let supervisor = DeadLetterSupervisor {
            broker: broker.clone(),
            topology: topology.clone(),
            dead_letters: dead_letters.clone(),
            runner: Arc::new(runner),
            follower: followers.dead_letters.clone(),
            configuration: campaigns.sync_state(),
        };
        let api = ApiState {
            campaigns: campaigns.clone(),
            dead_letters,
            replays,
            events: EventPublisher::new(publisher.clone(), names.clone()),
            webhook_tester: WebhookTester::new(worker.clone()),
            endpoints: worker.endpoints.clone(),
            publisher,
            names,
            metrics,
            history: History::default(),
            consumer_status: consumer_status.clone(),
            topology: topology.status.clone(),
            followers: followers.clone(),
            store_folder: config.store.path.as_path().into(),
            tokens: config.http.tokens.clone().into(),
        };
        let consumer = Consumer {
            address: broker,
            topology,
            campaigns,
            worker,
            window: config.broker.prefetch,
            grace: config.shutdown.grace,
            status: consumer_status,
            follower: followers.campaigns,
        };
        Ok(Self { listener, address, store, api, consumer, supervisor, keeper, management, publisher_task })
    }

    pub fn reload_handle(&self) -> ReloadHandle {
        ReloadHandle(Arc::downgrade(&self.consumer.worker))
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Delivers until `stop`, then finishes the work in progress. The consumer stops first, so the API and the probes
    /// answer until the end.
    ///
    /// # Errors
    /// [`AppError::Broker`] if the broker's objects are not as required; [`AppError::Store`]; [`AppError::Http`].
    pub async fn run(self, stop: CancellationToken) -> Result<(), AppError> {
        let Self { listener, address, store, api, consumer, supervisor, keeper, management, mut publisher_task } = self;
        tracing::info!(%address, version = env!("CARGO_PKG_VERSION"), "listening");
        let stop_http = CancellationToken::new();
        let mut http = tokio::spawn(waypost_http::serve(api, listener, stop_http.clone()));
        let policies = warn_of_policies(management, keeper.topology.clone());
        let _policies = AbortOnDropHandle::new(tokio::spawn(policies));
        let mut keeper = AbortOnDropHandle::new(tokio::spawn(keeper.run(stop.clone())));
        // A separate task, because work on the dead-letter view must not delay deliveries.
        let settled = CancellationToken::new();
        let supervisor = AbortOnDropHandle::new(tokio::spawn(supervisor.run(stop.clone(), settled.clone())));
        let supervisor = async { supervisor.await.unwrap_or_else(|error| panic::resume_unwind(error.into_panic())) };
        // The consumer too: on the main thread, each message would cost a wakeup of another thread.
        let consumer = AbortOnDropHandle::new(tokio::spawn(consumer.run(stop)));
        let consumer = async {
            let result = consumer.await.unwrap_or_else(|error| panic::resume_unwind(error.into_panic()));
            settled.cancel();
            result
        };
        // Waits for the end of both, unless one fails.
        let work = async { tokio::try_join!(consumer, supervisor) };
        let result = tokio::select! {
            result = work => result.map(|_| ()).map_err(AppError::from),
            result = &mut http => return Err(AppError::Http(match result {
                Ok(Err(error)) => error,
                Ok(Ok(())) => std::io::Error::other("it ended unexpectedly"),
                Err(error) => std::io::Error::other(error),
            })),
            never = resume_panic(&mut publisher_task) => match never {},
            never = resume_panic(&mut keeper) => match never {},
        };
        stop_http.cancel();
        let close = async {
            // A failure of the listener no longer matters.
            let _ = (&mut http).await;
            // The consumer and the API have dropped their publishers, so this ends when all messages are confirmed.
            let _ = publisher_task.await;
        };
        if tokio::time::timeout(CLOSE_TIMEOUT, close).await.is_err() {
            tracing::warn!("stopping before all requests were answered and all messages confirmed");
            http.abort();
        }
        if matches!(result, Err(AppError::Store(_))) {
            // A failed sled hangs when it is flushed, and dropping the last clone flushes it.
            std::mem::forget(store);
            return result;
        }
        if let Err(error) = store.flush().await {
            tracing::warn!(%error, "store not flushed; unwritten records are read again at the next start");
        }
        tracing::info!("stopped");
        result
    }
}

/// Continues the panic of a task. Without that task, the worker would take events that it can't finish. Pending if the
/// task ends normally.
async fn resume_panic(task: impl Future<Output = Result<(), JoinError>>) -> Infallible {
    if let Err(error) = task.await
        && let Ok(panic) = error.try_into_panic()
    {
        panic::resume_unwind(panic);
    }
    std::future::pending().await
}

fn warn_if_unencrypted(config: &Config) {
    if config.keyring.ids().next().is_none() {
        tracing::warn!("WAYPOST_SECRET_KEY is not set: header values and signing secrets are stored unencrypted");
    }
}

/// Warns at the start about broker policies that harm a queue. They are not visible over AMQP.
async fn warn_of_policies(management: Option<Management>, topology: Topology) {
    let Some(management) = management else { return };
    topology.status.wait_until_declared().await;
    match management.policies(&topology).await {
        Ok(findings) => {
            let exempt = policies::exemption_commands(&findings, management.vhost(), &topology.names).join("; ");
            for finding in &findings {
                tracing::warn!(queue = finding.queue, %finding, exempt, "broker policy harms a queue");
            }
        }
        Err(error) => tracing::warn!(error, "broker policies not checked"),
    }
}

pub(crate) fn broker_address(broker: &BrokerConfig) -> ConnectionConfig {
    ConnectionConfig::new(broker.url.clone()).with_tls(broker.authorities.clone(), broker.identity.clone())
}

pub(crate) fn new_sender(config: &Config) -> Result<Sender, AppError> {
    let extra_roots = match &config.egress.ca_file {
        None => Vec::new(),
        Some(path) => {
            let pem = std::fs::read(path).map_err(|error| error.to_string());
            pem.and_then(|pem| tls::authorities(&pem))
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

#[cfg(test)]
mod tests {
    use super::{JoinError, resume_panic};

    async fn ending(task: impl FnOnce() + Send + 'static) -> Result<(), JoinError> {
        tokio::spawn(async move { task() }).await
    }

    #[tokio::test]
    #[should_panic(expected = "as intended")]
    async fn the_panic_of_a_task_continues() {
        let never = resume_panic(ending(|| panic!("as intended"))).await;
        match never {}
    }

    #[tokio::test]
    async fn a_task_that_ends_normally_stops_nothing() {
        let other = tokio::task::yield_now();
        tokio::select! {
            biased;
            never = resume_panic(ending(|| ())) => match never {},
            () = async { ending(|| ()).await.expect("no panic"); other.await } => {}
        }
    }
}
