//! Encryption at rest: neither the disk nor the broker contains secrets in clear text.

use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::json;

use crate::support::amqp::Record;
use crate::support::json::webhook;
use crate::support::{Amqp, Broker, Receiver, Waypost, unique, wait_until};

const SECRET_HEADER_VALUE: &str = "hush-hush-header";
const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";

fn key(byte: u8) -> String {
    STANDARD.encode([byte; 32])
}

async fn start(prefix: &str, keys: &str) -> Waypost {
    Waypost::start_with(&Broker::shared().await.url(), prefix, &[("WAYPOST_SECRET_KEY", keys)]).await
}

async fn put(waypost: &Waypost, id: &str, receiver: &Receiver) {
    let signed = json!({ "url": receiver.url("/"), "headers": { "X-Key": SECRET_HEADER_VALUE }, "secret": SECRET });
    let campaign = json!({ "id": id, "sections": [{ "label": "l", "webhook": signed }] });
    let stored = waypost.put_campaign(&campaign).await.json();
    assert_eq!(webhook(&stored, "l", None)["headers"]["X-Key"], SECRET_HEADER_VALUE);
}

/// Launches a worker that can't start because of a key, and returns its error.
async fn expect_start_refused(prefix: &str, keys: &str, store: Option<&Waypost>) -> String {
    let mut environment = vec![("WAYPOST_SECRET_KEY", keys.to_owned())];
    if let Some(other) = store {
        environment.push(("WAYPOST_STORE__PATH", other.store_path().display().to_string()));
    }
    let environment: Vec<(&str, &str)> = environment.iter().map(|(name, value)| (*name, value.as_str())).collect();
    let waypost = Waypost::launch(&Broker::shared().await.url(), prefix, &environment);
    assert!(!waypost.wait_for_exit().await.success());
    waypost.log_lines().join("\n")
}

/// Returns whether any file in a folder contains these bytes.
fn folder_contains(folder: &Path, bytes: &[u8]) -> bool {
    std::fs::read_dir(folder).expect("a folder").any(|entry| {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            return folder_contains(&path, bytes);
        }
        std::fs::read(&path).expect("a file").windows(bytes.len()).any(|window| window == bytes)
    })
}

#[tokio::test]
async fn secrets_are_encrypted_in_broker_and_store() {
    let (prefix, receiver) = (unique("sealing"), Receiver::start());
    let waypost = start(&prefix, &key(1)).await;
    put(&waypost, "c", &receiver).await;
    let amqp = Amqp::connect(&Broker::shared().await.url()).await;
    let is_change = |record: &Record| record.body.len() > 2;
    let records = amqp.read_stream(&format!("{prefix}.campaigns"), |records| records.iter().any(is_change)).await;
    let log: String = records.iter().map(|record| String::from_utf8_lossy(&record.body).into_owned()).collect();
    assert!(log.contains("sealed:v1:") && !log.contains(SECRET_HEADER_VALUE) && !log.contains(SECRET), "{log}");

    // The secrets are still used, also after a restart, which writes everything to disk.
    waypost.terminate();
    waypost.wait_for_exit().await;
    for secret in [SECRET_HEADER_VALUE, &SECRET[6..]] {
        assert!(!folder_contains(&waypost.store_path(), secret.as_bytes()), "{secret} is on the disk");
    }
    waypost.restart().await;
    let event = json!({ "campaignId": "c", "label": "l", "phoneNumber": "1", "date": "2024-06-18T23:26:14Z" });
    amqp.publish_events(&prefix, &[event]).await;
    let requests = receiver.expect_any().await;
    assert_eq!(requests[0].header("x-key"), Some(SECRET_HEADER_VALUE));
    assert!(requests[0].header("webhook-signature").is_some());

    // A wrong or missing key prevents the start, with and without a view.
    waypost.terminate();
    waypost.wait_for_exit().await;
    for keys in [key(2), String::new()] {
        for store in [Some(&waypost), None] {
            let said = expect_start_refused(&prefix, &keys, store).await;
            assert!(said.contains("a secret of the campaign `c` is encrypted with the key"), "{said}");
            assert!(said.contains("WAYPOST_SECRET_KEY") && !said.contains(&key(2)), "{said}");
        }
    }
}

#[tokio::test]
async fn a_key_is_rotated_while_running() {
    let (prefix, receiver) = (unique("sealing"), Receiver::start());
    let old = start(&prefix, &key(1)).await;
    put(&old, "c", &receiver).await;
    let both = start(&prefix, &format!("{},{}", key(2), key(1))).await;
    // Encrypted with the old key and decrypted with both configured. After a put, it is encrypted with the new key.
    let campaign = both.get("/v1/campaigns/c").await.json();
    assert_eq!(webhook(&campaign, "l", None)["secret"], SECRET);
    old.terminate();
    old.wait_for_exit().await;
    both.put_campaign(&campaign).await;
    // The log still has the old record, but a worker without the old key ignores records that were replaced.
    let new = start(&prefix, &key(2)).await;
    assert_eq!(new.get("/v1/campaigns/c").await.json(), campaign);
    // A record that a worker can't decrypt ends the worker before it handles an event incorrectly.
    let old = start(&prefix, &format!("{},{}", key(1), key(2))).await;
    put(&old, "other", &receiver).await;
    let said = wait_until("the end of the worker that lacks the key", crate::test_app::SLOW_TIMEOUT, async || {
        let lines = new.log_lines().join("\n");
        lines.contains("a secret of the campaign `other` is encrypted with the key").then_some(lines)
    })
    .await;
    assert!(!said.contains(SECRET_HEADER_VALUE), "{said}");
    assert!(!new.wait_for_exit().await.success());
}

#[tokio::test]
async fn an_invalid_key_stops_the_start() {
    let said = expect_start_refused(&unique("sealing"), "hush", None).await;
    assert!(
        said.contains("WAYPOST_SECRET_KEY: key 1 is not the base64 of 32 bytes") && !said.contains("hush"),
        "{said}"
    );
}
