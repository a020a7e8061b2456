//! The receivers of `examples/`, which verify with the libraries of Standard Webhooks: they accept signatures of
//! Waypost, also during a secret rotation, and nothing else. Languages that are not installed are skipped.

use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use reqwest::Method;
use serde_json::json;

use crate::support::json::webhook_id;
use crate::test_app::TestApp;

const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";

/// A running example with its URL.
struct Example {
    process: Child,
    url: String,
}

impl Example {
    fn start(command: &mut Command) -> Self {
        let command = command.arg("127.0.0.1:0").env("SECRET", SECRET).stdout(Stdio::piped());
        let mut process = command.spawn().expect("the example starts");
        let mut line = String::new();
        let stdout = process.stdout.as_mut().expect("stdout is piped");
        BufReader::new(stdout).read_line(&mut line).expect("its output is text");
        let address = line.trim().strip_prefix("listening on ").unwrap_or_else(|| panic!("unexpected output {line:?}"));
        Self { url: format!("http://{address}/"), process }
    }
}

impl Drop for Example {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn examples() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("examples")
}

/// The folder in which a command installed a library. `None`, with a message, if the command is missing or fails.
fn installed(language: &str, command: &mut Command) -> Option<PathBuf> {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("receivers").join(language);
    let done = folder.join("installed");
    if !done.exists() {
        std::fs::create_dir_all(&folder).expect("a folder");
        let status = command.current_dir(&folder).stdout(Stdio::null()).status();
        if !status.is_ok_and(|status| status.success()) {
            eprintln!("skipped: the library of the receiver in {language} can't be installed");
            return None;
        }
        std::fs::write(done, "").expect("written");
    }
    Some(folder)
}

async fn assert_accepts_only_signed(example: Example) {
    let app = TestApp::builder().tokens().without_campaign().start().await;
    let webhook = json!({ "url": example.url, "secret": SECRET });
    let put = app.put_campaign(&json!({ "id": "c", "sections": [{ "label": "l", "webhook": webhook }] })).await.json();
    let id = webhook_id(&put, "l", None);
    let path = format!("/v1/webhooks/{id}");
    let tested = async || {
        let tested = app.send_as("operator", Method::POST, &format!("{path}/test"), None).await.json();
        tested["response"]["status"].as_u64().unwrap_or_else(|| panic!("no answer: {tested:#}"))
    };
    assert_eq!(tested().await, 204, "signed with its secret");
    let event =
        json!({ "campaignId": "c", "label": "l", "phoneNumber": "1", "date": "2024-06-18T23:26:14Z", "response": "é" });
    app.publish(&event).await;
    app.waypost.wait_for_metric("waypost_deliveries_total{outcome=\"delivered\"}", 1.0).await;
    let rotate = format!("{path}/rotate-secret");
    app.send_as("editor", Method::POST, &rotate, None).await;
    assert_eq!(tested().await, 204, "the old and the new secret sign");
    let mut webhook = app.get_as("editor", &path).await.json();
    webhook.as_object_mut().expect("an object").remove("previousSecrets");
    assert_eq!(app.send_as("editor", Method::PUT, &path, Some(&webhook)).await.status, 200);
    assert_eq!(tested().await, 401, "only the new secret signs, which the receiver does not know");
    webhook.as_object_mut().expect("an object").remove("secret");
    assert_eq!(app.send_as("editor", Method::PUT, &path, Some(&webhook)).await.status, 200);
    assert_eq!(tested().await, 401, "not signed");
}

#[tokio::test]
async fn the_rust_receiver_accepts_only_signed_requests() {
    // Next to the folder of this test binary.
    let folder = std::env::current_exe().expect("this program").ancestors().nth(2).expect("a folder").join("examples");
    let program = folder.join("receive");
    // `cargo test` builds examples, but not with `--test it`. A nested build takes a minute, because Cargo selects other
    // features for it.
    if !is_newer(&program, &examples().join("receive.rs")) {
        let cargo = Command::new(env!("CARGO")).args(["build", "--quiet", "--locked", "--example", "receive"]).status();
        assert!(cargo.expect("cargo runs").success());
    }
    assert_accepts_only_signed(Example::start(&mut Command::new(program))).await;
}

/// Returns whether `program` was built after the last change of `source`.
fn is_newer(program: &Path, source: &Path) -> bool {
    let modified = |path: &Path| path.metadata().and_then(|metadata| metadata.modified());
    let source = modified(source).expect("the time of the source");
    modified(program).is_ok_and(|built| built >= source)
}

#[tokio::test]
async fn the_python_receiver_accepts_only_signed_requests() {
    let mut pip = Command::new("python3");
    pip.args([
        "-m",
        "pip",
        "install",
        "--quiet",
        "--disable-pip-version-check",
        "--target",
        "library",
        "standardwebhooks==1.1.0",
    ]);
    let Some(folder) = installed("python", &mut pip) else { return };
    let mut python = Command::new("python3");
    python.env("PYTHONPATH", folder.join("library")).arg(examples().join("receive.py"));
    assert_accepts_only_signed(Example::start(&mut python)).await;
}

#[tokio::test]
async fn the_javascript_receiver_accepts_only_signed_requests() {
    let mut npm = Command::new("npm");
    npm.args(["install", "--silent", "--no-audit", "--no-fund", "--prefix", ".", "standardwebhooks@1.0.0"]);
    let Some(folder) = installed("javascript", &mut npm) else { return };
    // Node searches libraries next to the file.
    std::fs::copy(examples().join("receive.mjs"), folder.join("receive.mjs")).expect("copied");
    assert_accepts_only_signed(Example::start(Command::new("node").arg(folder.join("receive.mjs")))).await;
}
