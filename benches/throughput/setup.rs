//! The setup of a scenario: endpoints, queues, campaigns, and the workers, which run in turn.

use std::fs::File;
use std::path::PathBuf;
use std::process::{Child, Stdio};
use std::time::Duration;

use chrono::{TimeDelta, Utc};
use futures_util::StreamExt as _;
use lapin::options::{QueueDeclareOptions, QueuePurgeOptions};
use lapin::types::FieldTable;
use tempfile::TempDir;
use waypost_broker::delay_queues::DelayQueue;
use waypost_broker::names::Names;

use super::common::certificates::Authority;
use super::common::load::{Load, Scenario};
use super::common::receiver::Receiver;
use super::support::amqp::Message;
use super::support::{Amqp, Broker, Waypost, unique, wait_until, wait_until_stable};
use super::workers::Worker;

/// Concurrent requests that store campaigns.
const CONCURRENT_PUTS: usize = 16;

const WAIT_TIMEOUT: Duration = Duration::from_secs(60);

/// A scenario without a running worker.
pub(crate) struct BenchSetup {
    pub(crate) scenario: Scenario,
    pub(crate) receiver: Receiver,
    pub(crate) load: Load,
    pub(crate) amqp: Amqp,
    pub(crate) names: Names,
    prefix: String,
    broker_url: String,
    waypost: Waypost,
    /// Contains the file of webhooks for the workers other than Waypost.
    folder: TempDir,
}

pub(crate) struct RunningWorker<'a> {
    pub(crate) pid: u32,
    process: Process<'a>,
}

enum Process<'a> {
    Waypost(&'a Waypost),
    Child(Child),
}

impl BenchSetup {
    /// Starts the endpoints. Runs Waypost to declare its queues and store the campaigns.
    pub(crate) async fn start(broker: &Broker, scenario: Scenario) -> Self {
        let receiver = Receiver::start(&scenario.behaviors(), scenario.transport);
        let load = Load::new(scenario, receiver.urls());
        let (prefix, broker_url) = (unique("throughput"), broker.url());
        let authority = receiver.authority().map(|authority| authority.file().display().to_string());
        let settings: Vec<(&str, &str)> =
            authority.iter().map(|file| ("WAYPOST_EGRESS__CA_FILE", file.as_str())).collect();
        let waypost = Waypost::start_with(&broker_url, &prefix, &settings).await;
        let puts = futures_util::stream::iter(load.campaigns())
            .map(async |campaign| drop(waypost.put_campaign(&campaign).await));
        puts.buffer_unordered(CONCURRENT_PUTS).collect::<()>().await;
        waypost.terminate();
        waypost.wait_for_exit().await;
        let folder = tempfile::Builder::new().prefix("waypost-bench-").tempdir().expect("a temporary folder");
        let amqp = Amqp::connect(&broker_url).await;
        let stage =
            Self { scenario, receiver, load, amqp, names: Names::new(&prefix), prefix, broker_url, waypost, folder };
        serde_json::to_writer(File::create(stage.webhooks_file()).expect("a file"), &stage.load.webhooks())
            .expect("the webhooks are written");
        stage
    }

    /// Deletes the broker objects.
    pub(crate) async fn delete_objects(self, broker: &Broker) {
        self.amqp.delete_objects(broker, &self.prefix).await;
    }

    /// Publishes a backlog of events.
    pub(crate) async fn publish(&self, events: u64, done: impl Fn()) {
        let messages = (0..events).map(|number| {
            done();
            let event = self.load.event(number, 0);
            Message::raw(event.body).key(&event.key)
        });
        self.amqp.publish(&self.names.events(), messages).await;
    }

    /// Publishes retries that are due, for the first `endpoints` endpoints.
    pub(crate) async fn publish_retries(&self, retries: u64, endpoints: u64, done: impl Fn()) {
        let queue = self.names.retries();
        let messages = (0..retries).map(|number| {
            done();
            let endpoint = usize::try_from(number % endpoints).expect("endpoints fit into memory");
            let due = Utc::now() - TimeDelta::seconds(1);
            Message::raw(self.load.waiting(number, endpoint, 1, due)).key(&queue)
        });
        self.amqp.publish("", messages).await;
    }

    pub(crate) async fn start_worker(&self, worker: Worker) -> RunningWorker<'_> {
        let Some(mut program) = worker.program() else {
            self.waypost.restart().await;
            return RunningWorker { pid: self.waypost.pid(), process: Process::Waypost(&self.waypost) };
        };
        program.arg(&self.broker_url).arg(self.names.events()).arg(self.webhooks_file());
        if let Some(authority) = self.receiver.authority() {
            program.envs(Authority::environment(&authority.file()));
        }
        // The worker ends when its standard input closes, at the latest when this process ends.
        let child = program.stdin(Stdio::piped()).spawn().expect("the worker starts");
        RunningWorker { pid: child.id(), process: Process::Child(child) }
    }

    fn webhooks_file(&self) -> PathBuf {
        self.folder.path().join("webhooks.json")
    }

    /// Waits until the events queue has a consumer.
    pub(crate) async fn wait_for_consumer(&self) {
        wait_until("a consumer", WAIT_TIMEOUT, async || (self.consumers().await > 0).then_some(())).await;
    }

    /// Kills the worker, and empties all queues.
    pub(crate) async fn stop(&self, running: RunningWorker<'_>) {
        match running.process {
            Process::Waypost(waypost) => waypost.kill().await,
            Process::Child(mut child) => {
                child.kill().expect("the worker can be killed");
                child.wait().expect("the worker ends");
            }
        }
        wait_until("the end of the consumer", WAIT_TIMEOUT, async || (self.consumers().await == 0).then_some(())).await;
        let queues: Vec<String> = DelayQueue::all()
            .map(|rung| self.names.delay(rung))
            .chain([self.names.retries(), self.names.events()])
            .collect();
        // Unacknowledged messages return, and expired messages move on, with a delay.
        let channel = self.amqp.channel().await;
        wait_until_stable("empty queues", 5, async || {
            let mut purged = 0;
            for queue in &queues {
                let count = channel.queue_purge(queue.as_str().into(), QueuePurgeOptions::default()).await;
                purged += count.expect("the queue is emptied");
            }
            // Each poll returns a new value until nothing is purged.
            (purged, (purged > 0).then(std::time::Instant::now))
        })
        .await;
        channel.close(200, "done".into()).await.expect("the channel closes");
    }

    async fn consumers(&self) -> u32 {
        let channel = self.amqp.channel().await;
        let options = QueueDeclareOptions { passive: true, ..QueueDeclareOptions::durable() };
        let queue = channel.queue_declare(self.names.events().into(), options, FieldTable::default()).await;
        let consumers = queue.expect("the events queue").consumer_count();
        channel.close(200, "done".into()).await.expect("the channel closes");
        consumers
    }
}
