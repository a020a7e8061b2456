//! Memory use with a backlog: publishes events, starts a worker, and reports the peak resident memory after all
//! deliveries.
//!
//! ```text
//! cargo bench --bench backlog            # 1,000,000 events
//! cargo bench --bench backlog -- 100000
//! ```

#[path = "../tests/support/mod.rs"]
mod support;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use axum::Router;
use axum::routing::post;
use indicatif::ProgressBar;
use serde_json::json;

use support::amqp::Message;
use support::{Amqp, Broker, Waypost, wait_until};

const PREFIX: &str = "backlog";

/// The number of events that are published before their confirms are awaited.
const BATCH: u64 = 10_000;

const WAIT_TIMEOUT: Duration = Duration::from_secs(1_800);

#[tokio::main]
async fn main() {
    let count = std::env::args().filter_map(|argument| argument.parse().ok()).next().unwrap_or(1_000_000);
    let broker = Broker::private().await;
    let received = Arc::new(AtomicU64::new(0));
    let url = receiver(received.clone()).await;

    // A first run declares the queues and stores the campaign.
    let waypost = Waypost::start(&broker.url(), PREFIX).await;
    let section =
        json!({ "label": "Welcome Message", "webhook": { "url": url, "headers": { "X-Api-Key": "the-key" } } });
    waypost.put_campaign(&json!({ "id": "13010", "sections": [section] })).await;
    waypost.terminate();
    waypost.wait_for_exit().await;

    eprintln!("publishing {count} events");
    let amqp = Amqp::connect(&broker.url()).await;
    let bar = ProgressBar::new(count);
    for first in (0..count).step_by(BATCH as usize) {
        let batch = (first..count.min(first + BATCH)).map(|number| {
            Message::event(
                &json!({ "campaignId": "13010", "label": "Welcome Message", "phoneNumber": format!("+1555{number:07}"),
                "date": "2024-06-18T23:26:14.206Z", "response": "hello", "eventId": format!("event-{number}") }),
            )
        });
        amqp.publish(&format!("{PREFIX}.events"), batch).await;
        bar.inc(BATCH);
    }
    bar.finish_and_clear();

    eprintln!("delivering them");
    let began = Instant::now();
    waypost.restart().await;
    let bar = ProgressBar::new(count);
    wait_until("all deliveries", WAIT_TIMEOUT, async || {
        let so_far = received.load(Ordering::Relaxed);
        bar.set_position(so_far);
        (so_far >= count).then_some(())
    })
    .await;
    bar.finish_and_clear();
    let seconds = began.elapsed().as_secs_f64();
    let (kilobytes, rate) = (peak_memory(waypost.pid()), count as f64 / seconds);
    println!("backlog of {count} events: peak RSS {:.1} MB, {rate:.0} deliveries/s", kilobytes as f64 * 1024.0 / 1e6);
}

/// A receiver that only counts requests, on its own runtime.
async fn receiver(received: Arc<AtomicU64>) -> String {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let url = format!("http://{}/", listener.local_addr().expect("an address"));
    let count = move |_: axum::body::Bytes| {
        received.fetch_add(1, Ordering::Relaxed);
        std::future::ready(())
    };
    let router = Router::new().route("/", post(count));
    tokio::spawn(async move { axum::serve(listener, router).await });
    url
}

/// The peak resident memory of a process, in units of 1024 bytes.
fn peak_memory(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("the process's status");
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).expect("VmHWM in the status");
    line.trim().trim_end_matches(" kB").parse().expect("a number")
}
