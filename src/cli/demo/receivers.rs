//! The demo's receivers: HTTP servers that accept, fail or refuse requests, and record them.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, Uri};
use axum::routing::post;
use chrono::{TimeDelta, Utc};
use serde_json::Value;
use tokio::net::TcpListener;
use waypost_core::timestamp;

use crate::cli::error::CliError;

/// How a receiver answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Behaviour {
    /// Always 200.
    Healthy,
    /// 503 to the first two attempts of a delivery, then 200.
    FailsTwice,
    /// Always 410.
    Gone,
    /// Always 500.
    Broken,
}

impl Behaviour {
    pub(super) fn label(self) -> &'static str {
        match self {
            Self::Healthy => "healthy",
            Self::FailsTwice => "fails twice (503), then 200",
            Self::Gone => "gone (410)",
            Self::Broken => "always fails (500)",
        }
    }

    fn status(self, attempt: u32) -> StatusCode {
        match self {
            Self::FailsTwice if attempt <= 2 => StatusCode::SERVICE_UNAVAILABLE,
            Self::Healthy | Self::FailsTwice => StatusCode::OK,
            Self::Gone => StatusCode::GONE,
            Self::Broken => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }
}

#[derive(Clone)]
pub(super) struct DemoReceiver {
    pub(super) name: &'static str,
    pub(super) behaviour: Behaviour,
    pub(super) address: SocketAddr,
    record: Arc<Mutex<Record>>,
}

#[derive(Default)]
pub(super) struct Record {
    /// The number of requests.
    pub(super) attempts: u64,
    /// By `webhook-id`.
    pub(super) deliveries: HashMap<String, DeliveryRecord>,
    /// The text of the first request.
    pub(super) sample: Option<String>,
}

#[derive(Default)]
pub(super) struct DeliveryRecord {
    pub(super) attempts: u32,
    /// From the event's date to the first 200.
    latency: Option<TimeDelta>,
}

impl Record {
    /// The ids and latencies of the deliveries that were answered with 200.
    pub(super) fn accepted(&self) -> impl Iterator<Item = (&String, TimeDelta)> {
        self.deliveries.iter().filter_map(|(id, delivery)| delivery.latency.map(|latency| (id, latency)))
    }
}

impl DemoReceiver {
    pub(super) async fn start(name: &'static str, behaviour: Behaviour) -> Result<Self, CliError> {
        let listener = TcpListener::bind("127.0.0.1:0").await.map_err(CliError::new)?;
        let address = listener.local_addr().map_err(CliError::new)?;
        let receiver = Self { name, behaviour, address, record: Arc::default() };
        let router = Router::new().route("/hooks/{name}", post(receive)).with_state(receiver.clone());
        tokio::spawn(async move { axum::serve(listener, router).await });
        Ok(receiver)
    }

    pub(super) fn url(&self) -> String {
        format!("http://{}/hooks/{}", self.address, self.name)
    }

    pub(super) fn record(&self) -> MutexGuard<'_, Record> {
        self.record.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn receive(State(receiver): State<DemoReceiver>, uri: Uri, headers: HeaderMap, body: Bytes) -> StatusCode {
    let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default().to_owned();
    let mut record = receiver.record();
    record.attempts += 1;
    let delivery = record.deliveries.entry(text("webhook-id")).or_default();
    delivery.attempts += 1;
    let status = receiver.behaviour.status(delivery.attempts);
    if status == StatusCode::OK {
        let body: Value = serde_json::from_slice(&body).unwrap_or_default();
        let date = body["date"].as_str().and_then(|date| timestamp::parse(date).ok()).unwrap_or_else(Utc::now);
        delivery.latency.get_or_insert_with(|| Utc::now() - date);
    }
    if record.sample.is_none() {
        let mut sample = format!("POST {uri} HTTP/1.1\n");
        for (name, value) in &headers {
            sample.push_str(&format!("{name}: {}\n", value.to_str().unwrap_or("…")));
        }
        sample.push_str(&format!("\n{}", String::from_utf8_lossy(&body)));
        record.sample = Some(sample);
    }
    status
}
