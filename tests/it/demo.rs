//! `waypost demo` accounts for every event, and leaves nothing behind, however it ends.

use std::net::TcpListener;
use std::path::Path;

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::support::cli_process::CliProcess;
use crate::support::waypost::CommandOutput;
use crate::support::{Broker, unique};

/// An empty virtual host of the shared broker, and an empty folder for temporary files. The test checks that the demo
/// leaves both empty.
struct DemoFolder {
    broker: &'static Broker,
    vhost: String,
    folder: TempDir,
}

impl DemoFolder {
    async fn new() -> Self {
        let (broker, vhost) = (Broker::shared().await, unique("demo"));
        broker.ctl(&["add_vhost", &vhost]).await;
        broker.ctl(&["set_permissions", "-p", &vhost, "guest", ".*", ".*", ".*"]).await;
        let folder = tempfile::Builder::new().prefix("waypost-demo-test-").tempdir().expect("a temporary folder");
        Self { broker, vhost, folder }
    }

    fn start(&self, arguments: &[&str]) -> CliProcess {
        let url = self.broker.url().replace("%2f", &self.vhost);
        let temporary = self.folder.path().display().to_string();
        let environment = [("WAYPOST_BROKER__URL", url.as_str()), ("TMPDIR", &temporary)];
        CliProcess::start(Path::new("/"), &environment, &[&["demo"], arguments].concat(), b"")
    }

    /// The files, queues and exchanges that the demo left.
    async fn leftovers(&self) -> Vec<String> {
        let queues = self.broker.ctl(&["list_queues", "-p", &self.vhost, "--no-table-headers", "name"]).await;
        let exchanges = self.broker.ctl(&["list_exchanges", "-p", &self.vhost, "--no-table-headers", "name"]).await;
        let files = std::fs::read_dir(self.folder.path()).expect("the folder").filter_map(Result::ok);
        let files = files.map(|entry| entry.path().display().to_string());
        // Every virtual host has RabbitMQ's own exchanges, one of them without a name.
        let named = queues.lines().chain(exchanges.lines()).map(str::trim);
        let named = named.filter(|name| !name.is_empty() && !name.starts_with("amq."));
        named.map(str::to_owned).chain(files).collect()
    }
}

#[track_caller]
fn assert_exit(printed: &CommandOutput, code: i32, said: &str) {
    assert_eq!(printed.code, Some(code), "{printed:#?}");
    assert!(printed.stderr.contains(said), "stderr does not contain {said:?}: {printed:#?}");
    assert!(!printed.stderr.contains("panicked"), "{printed:#?}");
}

#[tokio::test]
async fn every_event_is_accounted_for_and_nothing_is_left_behind() {
    let clean = DemoFolder::new().await;
    let printed = clean.start(&["--events", "300", "--json"]).wait_for_exit().await;
    assert_exit(&printed, 0, "");
    let account: Value = serde_json::from_str(&printed.stdout).expect("one JSON document");
    let parts = ["published", "noWebhook", "delivered", "dead", "waiting", "contradictions"];
    let parts: serde_json::Map<_, _> = parts.map(|part| (part.to_owned(), account[part].clone())).into_iter().collect();
    // Of twenty users, three choose an option without a webhook, fourteen a webhook that finally answers 200, one a
    // webhook that answers 410, and two a broken webhook.
    let expected = json!({ "published": 300, "noWebhook": 45, "delivered": 210, "dead": { "exhausted": 30, "gone": 15 },
        "waiting": 0, "contradictions": 0 });
    assert_eq!(Value::from(parts), expected, "{account:#}");
    // One attempt, three attempts, one attempt, and four attempts.
    let attempts = 135 + 3 * 75 + 15 + 4 * 30;
    assert!(account["attempts"].as_u64().is_some_and(|made| made >= attempts), "{account:#}");
    assert_eq!(clean.leftovers().await, [""; 0]);
}

#[tokio::test]
async fn the_text_output_matches_the_json_output() {
    let clean = DemoFolder::new().await;
    let printed = clean.start(&["--events", "20"]).wait_for_exit().await;
    assert_exit(&printed, 0, "in flight 0");
    for words in ["all deliveries are accounted for", "dead: gone", "dead: exhausted", "webhook-id: ", "x-api-key: "] {
        assert!(printed.stdout.contains(words), "no {words:?}: {}", printed.stdout);
    }
}

#[tokio::test]
async fn an_interrupted_demo_leaves_nothing_behind() {
    let clean = DemoFolder::new().await;
    let run = clean.start(&["--events", "200"]);
    run.wait_for_stderr("published ").await;
    run.terminate();
    assert_exit(&run.wait_for_exit().await, 1, "stopped before the end");
    assert_eq!(clean.leftovers().await, [""; 0]);
}

#[tokio::test]
async fn a_failed_start_leaves_nothing_behind() {
    let clean = DemoFolder::new().await;
    let file = tempfile::NamedTempFile::new().expect("a file");
    std::fs::write(file.path(), "-----BEGIN CERTIFICATE-----\nnot one\n-----END CERTIFICATE-----\n")
        .expect("its content");
    let setting = format!("egress.caFile={}", file.path().display());
    let printed = clean.start(&["--set", &setting]).wait_for_exit().await;
    assert_eq!(printed.code, Some(1), "{printed:#?}");
    assert_eq!(clean.leftovers().await, [""; 0]);
}

/// The demo controls some settings, and refuses to start if one is set.
#[tokio::test]
async fn settings_that_the_demo_controls_are_refused() {
    let clean = DemoFolder::new().await;
    for (setting, value) in [("broker.prefix", "mine"), ("http.listen", "127.0.0.1:1"), ("store.path", "/nowhere")] {
        let printed = clean.start(&["--set", &format!("{setting}={value}")]).wait_for_exit().await;
        assert_exit(&printed, 2, setting);
    }
    assert_eq!(clean.leftovers().await, [""; 0]);
}

#[tokio::test]
async fn a_missing_broker_is_reported() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let temporary = folder.path().display().to_string();
    let nobody = TcpListener::bind("127.0.0.1:0").expect("a port").local_addr().expect("its address");
    let url = format!("amqp://guest:open-sesame@{nobody}/%2f");
    let environment = [("WAYPOST_BROKER__URL", url.as_str()), ("TMPDIR", &temporary)];
    let printed = CliProcess::start(Path::new("/"), &environment, &["demo", "--json"], b"").wait_for_exit().await;
    assert_exit(&printed, 1, &nobody.to_string());
    assert_exit(&printed, 1, "The demo needs a RabbitMQ");
    assert!(printed.stderr.contains("WAYPOST_BROKER__URL"), "{printed:#?}");
    assert!(!printed.stderr.contains("open-sesame"), "the password is shown: {printed:#?}");
    assert_eq!(printed.stdout, "");
    assert_eq!(std::fs::read_dir(folder.path()).expect("the folder").count(), 0);
}
