//! `waypost demo` as whoever tries Waypost first meets it: it accounts for every event, and leaves nothing behind,
//! however it ends.

use std::net::TcpListener;
use std::path::Path;

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::cli::Run;
use crate::support::waypost::Printed;
use crate::support::{Broker, unique};

/// A virtual host of the shared broker with nothing in it, and a folder for temporary files: what a demo leaves behind
/// is all there is in them.
struct Clean {
    broker: &'static Broker,
    vhost: String,
    folder: TempDir,
}

impl Clean {
    async fn new() -> Self {
        let (broker, vhost) = (Broker::shared().await, unique("demo"));
        broker.ctl(&["add_vhost", &vhost]).await;
        broker.ctl(&["set_permissions", "-p", &vhost, "guest", ".*", ".*", ".*"]).await;
        let folder = tempfile::Builder::new().prefix("waypost-demo-test-").tempdir().expect("a temporary folder");
        Self { broker, vhost, folder }
    }

    fn start(&self, arguments: &[&str]) -> Run {
        let url = self.broker.url().replace("%2f", &self.vhost);
        let temporary = self.folder.path().display().to_string();
        let environment = [("WAYPOST_BROKER__URL", url.as_str()), ("TMPDIR", &temporary)];
        Run::start(Path::new("/"), &environment, &[&["demo"], arguments].concat(), b"")
    }

    /// What is left, now that the demo has ended.
    async fn left_behind(&self) -> Vec<String> {
        let queues = self.broker.ctl(&["list_queues", "-p", &self.vhost, "--no-table-headers", "name"]).await;
        let exchanges = self.broker.ctl(&["list_exchanges", "-p", &self.vhost, "--no-table-headers", "name"]).await;
        let files = std::fs::read_dir(self.folder.path()).expect("the folder").filter_map(Result::ok);
        let files = files.map(|entry| entry.path().display().to_string());
        // Every virtual host has exchanges of RabbitMQ's own, one of them without a name.
        let named = queues.lines().chain(exchanges.lines()).map(str::trim);
        let named = named.filter(|name| !name.is_empty() && !name.starts_with("amq."));
        named.map(str::to_owned).chain(files).collect()
    }
}

#[track_caller]
fn ended(printed: &Printed, code: i32, said: &str) {
    assert_eq!(printed.code, Some(code), "{printed:#?}");
    assert!(printed.stderr.contains(said), "it does not say {said:?}: {printed:#?}");
    assert!(!printed.stderr.contains("panicked"), "{printed:#?}");
}

#[tokio::test]
async fn every_event_is_accounted_for_and_nothing_is_left_behind() {
    let clean = Clean::new().await;
    let printed = clean.start(&["--events", "300", "--json"]).end().await;
    ended(&printed, 0, "");
    let account: Value = serde_json::from_str(&printed.stdout).expect("one JSON document");
    let parts = ["published", "noWebhook", "delivered", "dead", "waiting", "contradictions"];
    let parts: serde_json::Map<_, _> = parts.map(|part| (part.to_owned(), account[part].clone())).into_iter().collect();
    // Of each twenty users three take what has no webhook, fourteen a webhook that answers with 200 at last, one a
    // webhook that is gone, and two a broken one.
    let expected = json!({ "published": 300, "noWebhook": 45, "delivered": 210, "dead": { "exhausted": 30, "gone": 15 },
        "waiting": 0, "contradictions": 0 });
    assert_eq!(Value::from(parts), expected, "{account:#}");
    // Once each, three times, once, and four times.
    let attempts = 135 + 3 * 75 + 15 + 4 * 30;
    assert!(account["attempts"].as_u64().is_some_and(|made| made >= attempts), "{account:#}");
    assert_eq!(clean.left_behind().await, [""; 0]);
}

#[tokio::test]
async fn for_people_it_tells_the_same_in_words() {
    let clean = Clean::new().await;
    let printed = clean.start(&["--events", "20"]).end().await;
    ended(&printed, 0, "in flight 0");
    for words in ["all deliveries are accounted for", "dead: gone", "dead: exhausted", "webhook-id: ", "x-api-key: "] {
        assert!(printed.stdout.contains(words), "no {words:?}: {}", printed.stdout);
    }
}

#[tokio::test]
async fn stopped_in_the_middle_it_leaves_nothing_behind() {
    let clean = Clean::new().await;
    let run = clean.start(&["--events", "200"]);
    run.until_stderr("published ").await;
    run.terminate();
    ended(&run.end().await, 1, "stopped before the end");
    assert_eq!(clean.left_behind().await, [""; 0]);
}

#[tokio::test]
async fn where_its_worker_can_not_start_it_leaves_nothing_behind() {
    let clean = Clean::new().await;
    let file = tempfile::NamedTempFile::new().expect("a file");
    std::fs::write(file.path(), "-----BEGIN CERTIFICATE-----\nnot one\n-----END CERTIFICATE-----\n")
        .expect("its content");
    let setting = format!("egress.caFile={}", file.path().display());
    let printed = clean.start(&["--set", &setting]).end().await;
    assert_eq!(printed.code, Some(1), "{printed:#?}");
    assert_eq!(clean.left_behind().await, [""; 0]);
}

/// Some settings are the demo's own: whoever gives one is told so, at once.
#[tokio::test]
async fn settings_of_its_own_are_not_to_be_given() {
    let clean = Clean::new().await;
    for (setting, value) in [("broker.prefix", "mine"), ("http.listen", "127.0.0.1:1"), ("store.path", "/nowhere")] {
        let printed = clean.start(&["--set", &format!("{setting}={value}")]).end().await;
        ended(&printed, 2, setting);
    }
    assert_eq!(clean.left_behind().await, [""; 0]);
}

#[tokio::test]
async fn without_a_broker_it_says_what_it_needs() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let temporary = folder.path().display().to_string();
    let nobody = TcpListener::bind("127.0.0.1:0").expect("a port").local_addr().expect("its address");
    let url = format!("amqp://guest:open-sesame@{nobody}/%2f");
    let environment = [("WAYPOST_BROKER__URL", url.as_str()), ("TMPDIR", &temporary)];
    let printed = Run::start(Path::new("/"), &environment, &["demo", "--json"], b"").end().await;
    ended(&printed, 1, &nobody.to_string());
    ended(&printed, 1, "The demo needs a RabbitMQ");
    assert!(printed.stderr.contains("WAYPOST_BROKER__URL"), "{printed:#?}");
    assert!(!printed.stderr.contains("open-sesame"), "the password is shown: {printed:#?}");
    assert_eq!(printed.stdout, "");
    assert_eq!(std::fs::read_dir(folder.path()).expect("the folder").count(), 0);
}
