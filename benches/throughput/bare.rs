//! The baseline: a program of the same libraries that only consumes, posts and acknowledges. It looks the URL up by the
//! message's routing key, posts the message's bytes unchanged, and drops failures.
//!
//! The benchmark's own binary runs it with the command `bare-loop`. It uses no code of Waypost.

use std::collections::{HashMap, VecDeque};
use std::path::PathBuf;
use std::time::Duration;

use futures_util::StreamExt as _;
use lapin::options::{BasicAckOptions, BasicConsumeOptions, BasicQosOptions};
use lapin::types::FieldTable;
use lapin::{Channel, Connection, ConnectionProperties};
use reqwest::header::CONTENT_TYPE;
use reqwest::{Client, Url};
use serde_json::Value;
use tokio::sync::mpsc;
use tokio::time::MissedTickBehavior;

use super::{PREFETCH, TIMEOUT};

/// Acknowledgements are batched for this time.
const FLUSH_INTERVAL: Duration = Duration::from_millis(2);

/// The arguments of the bare loop.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// The broker's URL.
    broker: String,
    /// The queue to consume.
    queue: String,
    /// The file with the webhooks, by campaign.
    webhooks: PathBuf,
}

/// Consumes until standard input closes, which happens when the parent process ends.
pub(crate) async fn run(arguments: Arguments) {
    std::thread::spawn(|| {
        let _ = std::io::copy(&mut std::io::stdin(), &mut std::io::sink());
        std::process::exit(0);
    });
    let _ = rustls::crypto::ring::default_provider().install_default();
    let webhooks = std::fs::read(&arguments.webhooks).expect("the file of webhooks");
    let webhooks: HashMap<String, Value> = serde_json::from_slice(&webhooks).expect("JSON");
    let url = |webhook: &Value| Url::parse(webhook["url"].as_str().expect("a URL")).expect("a URL");
    let urls: HashMap<String, Url> = webhooks.iter().map(|(id, webhook)| (id.clone(), url(webhook))).collect();
    let client = Client::builder().no_proxy().timeout(TIMEOUT).build().expect("an HTTP client");

    let connection = Connection::connect(&arguments.broker, ConnectionProperties::default()).await.expect("a broker");
    let channel = connection.create_channel().await.expect("a channel");
    channel.basic_qos(PREFETCH, BasicQosOptions::default()).await.expect("a window");
    let consumer =
        channel.basic_consume(arguments.queue.into(), "".into(), BasicConsumeOptions::default(), FieldTable::default());
    let mut consumer = consumer.await.expect("a consumer");
    let (finished, tags) = mpsc::unbounded_channel();
    tokio::spawn(acknowledge(channel, tags));
    while let Some(message) = consumer.next().await {
        let message = message.expect("a message");
        let url = urls[message.routing_key.as_str()].clone();
        let request = client.post(url).header(CONTENT_TYPE, "application/json").body(message.data);
        let (tag, finished) = (message.delivery_tag, finished.clone());
        tokio::spawn(async move {
            if let Ok(answer) = request.send().await {
                // Reading the whole body allows reuse of the connection.
                let _ = answer.bytes().await;
            }
            let _ = finished.send(tag);
        });
    }
}

/// The acknowledgement state of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    InHand,
    /// Finished since the last flush.
    Fresh,
    /// Finished before the last flush, behind an unfinished message.
    Stuck,
    Acknowledged,
}

/// Acknowledges the finished prefix with one frame, and messages that waited behind an unfinished one with single
/// frames.
async fn acknowledge(channel: Channel, mut tags: mpsc::UnboundedReceiver<u64>) {
    let (mut first, mut window) = (1_u64, VecDeque::<State>::new());
    let mut finished = Vec::new();
    let mut flush = tokio::time::interval(FLUSH_INTERVAL);
    flush.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        let waiting = window.iter().any(|state| matches!(state, State::Fresh | State::Stuck));
        if !waiting && tags.recv_many(&mut finished, 4096).await == 0 {
            return;
        }
        flush.tick().await;
        while let Ok(tag) = tags.try_recv() {
            finished.push(tag);
        }
        for tag in finished.drain(..) {
            let place = usize::try_from(tag - first).expect("a window fits into memory");
            if window.len() <= place {
                window.resize(place + 1, State::InHand);
            }
            window[place] = State::Fresh;
        }
        let mut prefix = None;
        while let Some(state) = window.pop_front_if(|state| *state != State::InHand) {
            // The broker closes the channel if a tag is acknowledged twice.
            if state != State::Acknowledged {
                prefix = Some(first);
            }
            first += 1;
        }
        if let Some(tag) = prefix {
            channel.basic_ack(tag, BasicAckOptions { multiple: true }).await.expect("an acknowledgement");
        }
        for (tag, state) in (first..).zip(&mut window) {
            match state {
                State::Stuck => {
                    channel.basic_ack(tag, BasicAckOptions { multiple: false }).await.expect("an acknowledgement");
                    *state = State::Acknowledged;
                }
                State::Fresh => *state = State::Stuck,
                State::InHand | State::Acknowledged => {}
            }
        }
    }
}
