//! The yardstick: a program of the same libraries that consumes, posts and acknowledges, and does nothing else. It looks
//! the URL up by the message's routing key, posts the message's bytes as they came, and drops what fails.
//!
//! It is the benchmark's own program, started again with the command `bare-loop`, and has nothing of Waypost in it.

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

/// Acknowledgements are gathered this long.
const FLUSH_INTERVAL: Duration = Duration::from_millis(2);

/// What the loop is told.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// The broker's URL.
    broker: String,
    /// The queue to consume.
    queue: String,
    /// The file with the webhooks, by campaign.
    webhooks: PathBuf,
}

/// Consumes until its standard input closes, which is when whoever started it has gone.
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
                // Read to its end, so that the connection can be used again.
                let _ = answer.bytes().await;
            }
            let _ = finished.send(tag);
        });
    }
}

/// A message, as far as its acknowledgement goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    InHand,
    /// Finished since the last flush.
    Fresh,
    /// Finished before the last flush, behind one that is in hand.
    Stuck,
    Acknowledged,
}

/// One frame for the finished prefix, and single frames for what has waited behind an unfinished message.
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
            // The broker closes the channel on a tag that it has heard already.
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
