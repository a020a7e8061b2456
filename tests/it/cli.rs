//! The command line: output, streams and exit codes (0 success, 1 failure, 2 usage error).

mod campaigns;
mod publish;
mod server;
mod settings;
mod usage;

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::support::cli_process::CliProcess;
use crate::support::waypost::CommandOutput;
use crate::support::{Broker, Waypost, unique};

/// A temporary working directory.
struct CliSandbox(TempDir);

impl CliSandbox {
    fn new() -> Self {
        Self(tempfile::Builder::new().prefix("waypost-shell-").tempdir().expect("a temporary folder"))
    }

    /// Writes a file, and returns its path.
    fn file(&self, name: &str, content: impl AsRef<[u8]>) -> String {
        let path = self.0.path().join(name);
        std::fs::write(&path, content).expect("a file in the folder");
        path.display().to_string()
    }

    async fn run(&self, environment: &[(&str, &str)], arguments: &[&str]) -> CommandOutput {
        CliProcess::start(self.0.path(), environment, arguments, b"").wait_for_exit().await
    }

    /// Runs a client command against a worker.
    async fn run_against(&self, waypost: &Waypost, arguments: &[&str], input: impl AsRef<[u8]>) -> CommandOutput {
        let server = waypost.url("");
        CliProcess::start(self.0.path(), &[("WAYPOST_SERVER", &server)], arguments, input.as_ref())
            .wait_for_exit()
            .await
    }
}

/// Asserts the exit code and that standard error contains each of `said`.
#[track_caller]
fn assert_exit(printed: &CommandOutput, code: i32, said: &[&str]) {
    assert_eq!(printed.code, Some(code), "{printed:#?}");
    for text in said {
        assert!(printed.stderr.contains(text), "stderr does not contain {text:?}: {printed:#?}");
    }
    assert!(!printed.stderr.contains("panicked"), "{printed:#?}");
}

/// Parses each line as JSON.
#[track_caller]
fn parse_json(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|error| panic!("{error}: {text}"))
}

fn json_items(text: &str, name: Option<&str>) -> Vec<Value> {
    let document = parse_json(text);
    let items = name.map_or(&document, |name| &document[name]);
    items.as_array().unwrap_or_else(|| panic!("no items in {text}")).clone()
}

/// A campaign with one section. Its menu has a number, a word and a numeric text as keywords, all with the same URL.
fn campaign(id: &str, url: &str) -> Value {
    let entry =
        |keyword: Value| json!({ "keyword": keyword, "option": format!("{keyword}!"), "webhook": { "url": url } });
    json!({ "id": id, "name": "A campaign", "sections": [
        { "label": "Ask", "menu": [entry(json!(4)), entry(json!("agent")), entry(json!("007"))] } ] })
}

/// Starts a worker with a unique prefix on the shared broker.
async fn start_worker() -> Waypost {
    Waypost::start_in_thread(&Broker::shared().await.url(), &unique("cli"), &[]).await
}
