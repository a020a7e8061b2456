//! The baselines: programs that only consume, post and acknowledge. They look the URL up by the message's routing key,
//! post the message's bytes unchanged, and drop failures.
//!
//! A process has one allocator. So the benchmark itself runs the loop with reqwest and the system's allocator, and
//! `bare_loop.rs` is a program with Waypost's allocator that runs the others.

mod acks;
mod by_hand;

use std::collections::HashMap;
use std::path::PathBuf;
use std::time::Duration;

use futures_util::StreamExt as _;
use http::header::{CONTENT_TYPE, HeaderMap, HeaderValue};
use lapin::options::{BasicConsumeOptions, BasicQosOptions};
use lapin::types::FieldTable;
use lapin::{Connection, ConnectionProperties};
use serde_json::Value;
use tokio::sync::mpsc;
use tracing::Span;
use url::Url;
use waypost_core::egress::{AllowRule, EgressRules, HttpUrls};
use waypost_core::request::Request;
use waypost_core::webhook_url::WebhookUrl;
use waypost_engine::sender::{Sender, SenderSettings};

use by_hand::Sockets;

/// The prefetch of all workers. It is Waypost's default.
const PREFETCH: u16 = 1000;

/// The request timeout of all workers. It is Waypost's default.
const TIMEOUT: Duration = Duration::from_secs(15);

/// The connect timeout of Waypost.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// The arguments of a baseline.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// How requests are sent.
    client: ClientKind,
    /// The broker's URL.
    broker: String,
    /// The queue to consume.
    queue: String,
    /// The file with the webhooks, by campaign.
    webhooks: PathBuf,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum ClientKind {
    /// The library reqwest.
    Reqwest,
    /// The HTTP client of Waypost.
    Waypost,
    /// Requests and responses written and read by hand.
    ByHand,
}

/// Posts bodies to the webhooks of campaigns.
enum Client {
    Reqwest { client: reqwest::Client, urls: HashMap<String, Url> },
    Waypost { sender: Sender, headers: HeaderMap, urls: HashMap<String, WebhookUrl> },
    ByHand(HashMap<String, Sockets>),
}

/// Receives the tags of finished messages.
type Finished = mpsc::UnboundedSender<u64>;

/// Consumes until standard input closes, which happens when the parent process ends.
pub(crate) async fn run(arguments: Arguments) {
    std::thread::spawn(|| {
        let _ = std::io::copy(&mut std::io::stdin(), &mut std::io::sink());
        std::process::exit(0);
    });
    let _ = rustls::crypto::ring::default_provider().install_default();
    let webhooks = std::fs::read(&arguments.webhooks).expect("the file of webhooks");
    let webhooks: HashMap<String, Value> = serde_json::from_slice(&webhooks).expect("JSON");
    let url = |webhook: &Value| webhook["url"].as_str().expect("a URL").to_owned();
    let urls: HashMap<String, String> = webhooks.iter().map(|(id, webhook)| (id.clone(), url(webhook))).collect();
    let (finished, tags) = mpsc::unbounded_channel();
    let client = Client::new(arguments.client, urls, &finished);

    let connection = Connection::connect(&arguments.broker, ConnectionProperties::default()).await.expect("a broker");
    let channel = connection.create_channel().await.expect("a channel");
    channel.basic_qos(PREFETCH, BasicQosOptions::default()).await.expect("a window");
    let consumer =
        channel.basic_consume(arguments.queue.into(), "".into(), BasicConsumeOptions::default(), FieldTable::default());
    let mut consumer = consumer.await.expect("a consumer");
    tokio::spawn(acks::acknowledge(channel, tags));
    while let Some(message) = consumer.next().await {
        let message = message.expect("a message");
        client.post(message.routing_key.as_str(), message.data, message.delivery_tag, &finished);
    }
}

impl Client {
    fn new(kind: ClientKind, urls: HashMap<String, String>, finished: &Finished) -> Self {
        let parse = |url: &str| Url::parse(url).expect("a URL");
        match kind {
            ClientKind::Reqwest => {
                let client = reqwest::Client::builder().no_proxy().timeout(TIMEOUT).build().expect("an HTTP client");
                Self::Reqwest { client, urls: urls.into_iter().map(|(id, url)| (id, parse(&url))).collect() }
            }
            ClientKind::Waypost => {
                let loopback = AllowRule::Network("127.0.0.0/8".parse().expect("a network"));
                let sender = Sender::new(SenderSettings {
                    rules: EgressRules::new(HttpUrls::Allowed, vec![loopback]),
                    connect_timeout: CONNECT_TIMEOUT,
                    extra_roots: Vec::new(),
                    proxy: None,
                });
                Self::Waypost {
                    sender: sender.expect("a sender"),
                    headers: HeaderMap::from_iter([(CONTENT_TYPE, HeaderValue::from_static("application/json"))]),
                    urls: urls.into_iter().map(|(id, url)| (id, WebhookUrl::from(url))).collect(),
                }
            }
            ClientKind::ByHand => {
                let endpoints = urls.len();
                let open = |url: &str| Sockets::open(&parse(url), endpoints, finished);
                Self::ByHand(urls.iter().map(|(id, url)| (id.clone(), open(url))).collect())
            }
        }
    }

    /// Posts a body in the background.
    fn post(&self, campaign: &str, body: Vec<u8>, tag: u64, finished: &Finished) {
        match self {
            Self::Reqwest { client, urls } => {
                let request = client.post(urls[campaign].clone()).header(CONTENT_TYPE, "application/json").body(body);
                let finished = finished.clone();
                tokio::spawn(async move {
                    if let Ok(answer) = request.send().await {
                        // Reading the whole body allows reuse of the connection.
                        let _ = answer.bytes().await;
                    }
                    let _ = finished.send(tag);
                });
            }
            Self::Waypost { sender, headers, urls } => {
                let request = Request { url: urls[campaign].clone(), headers: headers.clone(), body: body.into() };
                let (sender, finished) = (sender.clone(), finished.clone());
                tokio::spawn(async move {
                    let _ = sender.send(request, TIMEOUT, &Span::none()).await;
                    let _ = finished.send(tag);
                });
            }
            Self::ByHand(endpoints) => endpoints[campaign].post(body, tag),
        }
    }
}
