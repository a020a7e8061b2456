//! The product as its users have it: the built program, run as a process, spoken to over HTTP and the command line.

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader, Read};
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use reqwest::header::{AUTHORIZATION, HeaderMap, HeaderValue};
use reqwest::{Client, Method};
use serde_json::Value;
use tempfile::TempDir;

use super::broker::{run_blocking, send_signal};
use super::unique::free_port;
use super::wait::{DEFAULT_TIMEOUT, poll_until};

const PROGRAM: &str = env!("CARGO_BIN_EXE_waypost");

/// So many of the last lines it printed are shown when a test fails.
const LOG_LINES_SHOWN: usize = 60;

/// `waypost serve`, with a store and a port of its own that it keeps over restarts. Dropped in a test that fails, it shows
/// the last it printed.
pub(crate) struct Waypost {
    environment: Vec<(String, String)>,
    port: u16,
    folder: TempDir,
    process: Mutex<Option<Child>>,
    lines: Arc<Mutex<Vec<String>>>,
    client: Client,
}

/// What the product answered to a request.
#[derive(Debug, Clone)]
pub(crate) struct Reply {
    pub(crate) status: u16,
    /// Names in lower case.
    pub(crate) headers: BTreeMap<String, String>,
    pub(crate) body: String,
}

impl Reply {
    /// The body as JSON; panics where it is none.
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    /// Checks that this is a refusal with this status, and its problem document.
    #[track_caller]
    pub(crate) fn expect_problem(&self, status: u16) -> Problem {
        assert_eq!(self.status, status, "{self:?}");
        assert_eq!(self.headers["content-type"], "application/problem+json", "{self:?}");
        let problem = self.json();
        assert_eq!(problem["status"], status, "{problem:#}");
        let text = |value: &Value, name: &str| match value[name].as_str() {
            Some(text) if !text.is_empty() => text.to_owned(),
            _ => panic!("no {name}: {problem:#}"),
        };
        for name in ["type", "title"] {
            text(&problem, name);
        }
        let violations = problem["errors"].as_array().cloned().unwrap_or_default();
        let path = |violation: &Value| {
            assert!(text(violation, "message").len() > 10, "no sentence: {problem:#}");
            text(violation, "path")
        };
        Problem { detail: text(&problem, "detail"), paths: violations.iter().map(path).collect() }
    }

    /// The paths of all violations of a refused document.
    #[track_caller]
    pub(crate) fn violation_paths(&self) -> Vec<String> {
        let Problem { paths, .. } = self.expect_problem(422);
        assert!(!paths.is_empty(), "no violations: {self:?}");
        paths
    }
}

/// Why a request was refused.
#[derive(Debug)]
pub(crate) struct Problem {
    pub(crate) detail: String,
    /// The path of each violation of a document or of a parameter.
    pub(crate) paths: Vec<String>,
}

/// What a command printed, and how it ended.
#[derive(Debug, Clone)]
pub(crate) struct CommandOutput {
    pub(crate) code: Option<i32>,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Waypost {
    /// Starts the product at a broker and waits until it is ready.
    pub(crate) async fn start(broker_url: &str, prefix: &str) -> Self {
        Self::start_with(broker_url, prefix, &[]).await
    }

    /// As [`start`](Self::start), with more of the environment: `("WAYPOST_RETRY__INITIAL_DELAY", "1s")`.
    pub(crate) async fn start_with(broker_url: &str, prefix: &str, more: &[(&str, &str)]) -> Self {
        let waypost = Self::launch(broker_url, prefix, more);
        waypost.wait_until_ready().await;
        waypost
    }

    /// Starts the product without waiting, for when it is not to become ready.
    pub(crate) fn launch(broker_url: &str, prefix: &str, more: &[(&str, &str)]) -> Self {
        let folder = tempfile::Builder::new().prefix("waypost-store-").tempdir().expect("a temporary folder");
        let port = free_port();
        let store = folder.path().join("data").display().to_string();
        let listen = format!("127.0.0.1:{port}");
        let mut environment = BTreeMap::from([
            ("WAYPOST_BROKER__URL", broker_url),
            ("WAYPOST_BROKER__PREFIX", prefix),
            ("WAYPOST_HTTP__LISTEN", &listen),
            ("WAYPOST_STORE__PATH", &store),
            ("WAYPOST_EGRESS__ALLOW_HTTP", "true"),
            ("WAYPOST_EGRESS__ALLOW", "127.0.0.0/8"),
        ]);
        environment.extend(more.iter().copied());
        let environment = environment.into_iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
        let waypost = Self {
            environment,
            port,
            folder,
            process: Mutex::new(None),
            lines: Arc::default(),
            client: http_client(None),
        };
        waypost.spawn(&[]);
        waypost
    }

    /// From now on sends each request with this `Authorization`, unless it brings its own.
    pub(crate) fn authenticate(&mut self, authorization: &str) {
        self.client = http_client(Some(authorization));
    }

    /// Waits until it is ready.
    pub(crate) async fn wait_until_ready(&self) {
        let ready = async || {
            if let Some(status) = self.exit_status() {
                panic!("the product ended ({status}) before it was ready");
            }
            let reply = self.client.get(self.url("/readyz")).send().await.ok()?;
            reply.status().is_success().then_some(())
        };
        assert!(poll_until(DEFAULT_TIMEOUT, ready).await.is_some(), "the product did not become ready");
    }

    /// Kills it (`kill -9`), and waits until it is gone.
    pub(crate) async fn kill(&self) {
        self.lock_process().as_mut().expect("a running product").kill().expect("the product can be killed");
        self.wait_for_exit().await;
    }

    /// Asks it to end (SIGTERM); see [`wait_for_exit`](Self::wait).
    pub(crate) fn terminate(&self) {
        let pid = self.lock_process().as_ref().expect("a running product").id();
        send_signal("-TERM", &pid.to_string());
    }

    /// Sends SIGHUP: it reads its settings again.
    pub(crate) fn reload(&self) {
        send_signal("-HUP", &self.pid().to_string());
    }

    /// Has it stand still (SIGSTOP), until [`resume`](Self::thaw).
    pub(crate) fn suspend(&self) {
        send_signal("-STOP", &self.pid().to_string());
    }

    /// Has it go on after [`suspend`](Self::freeze).
    pub(crate) fn resume(&self) {
        send_signal("-CONT", &self.pid().to_string());
    }

    /// Waits for its end, and tells how it ended.
    pub(crate) async fn wait_for_exit(&self) -> ExitStatus {
        self.wait_for_exit_within(DEFAULT_TIMEOUT).await
    }

    /// Panics if the process runs after `deadline`.
    pub(crate) async fn wait_for_exit_within(&self, deadline: Duration) -> ExitStatus {
        let Some(status) = poll_until(deadline, async || self.exit_status()).await else {
            panic!("the product did not end within {deadline:?}");
        };
        *self.lock_process() = None;
        status
    }

    /// Starts it again after its end, with the same store, port and environment, and waits until it is ready.
    pub(crate) async fn restart(&self) {
        self.spawn(&[]);
        self.wait_until_ready().await;
    }

    /// As [`restart`](Self::restart), but waits for nothing, and has `launcher`, a program and its arguments, become the
    /// product; an empty one is none.
    pub(crate) fn relaunch(&self, launcher: &[&str]) {
        self.spawn(launcher);
    }

    /// How it has ended, where it has without [`wait_for_exit`](Self::wait) having been told.
    pub(crate) fn take_exit_status(&self) -> Option<ExitStatus> {
        let mut process = self.lock_process();
        let status = process.as_mut()?.try_wait().expect("the product's status");
        if status.is_some() {
            *process = None;
        }
        status
    }

    /// Whether it was started, and has not been seen to have ended.
    pub(crate) fn is_running(&self) -> bool {
        self.lock_process().is_some()
    }

    /// The folder of its local view (`store.path`).
    pub(crate) fn store_path(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    /// The process's id.
    pub(crate) fn pid(&self) -> u32 {
        self.lock_process().as_ref().expect("a running product").id()
    }

    /// The URL of a path.
    pub(crate) fn url(&self, path: &str) -> String {
        format!("http://127.0.0.1:{}{path}", self.port)
    }

    /// Sends a request, with a JSON body where there is one.
    pub(crate) async fn send(&self, method: Method, path: &str, body: Option<&Value>) -> Reply {
        self.send_as(None, method, path, body).await
    }

    /// As [`send`](Self::send), with an `Authorization` of its own where one is given.
    pub(crate) async fn send_as(
        &self,
        authorization: Option<&str>,
        method: Method,
        path: &str,
        body: Option<&Value>,
    ) -> Reply {
        let mut headers = Vec::new();
        headers.extend(authorization.map(|authorization| (AUTHORIZATION.as_str(), authorization)));
        headers.extend(body.map(|_| ("content-type", "application/json")));
        self.send_with(method, path, &headers, body.map(Value::to_string).unwrap_or_default()).await
    }

    /// Sends a request with headers and a body of any kind.
    pub(crate) async fn send_with(
        &self,
        method: Method,
        path: &str,
        headers: &[(&str, &str)],
        body: impl Into<Vec<u8>>,
    ) -> Reply {
        let mut request = self.client.request(method.clone(), self.url(path));
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let body = body.into();
        if !body.is_empty() {
            request = request.body(body);
        }
        let reply = match request.send().await {
            Ok(reply) => reply,
            Err(error) => panic!("{method} {path}: {error:?}"),
        };
        let status = reply.status().as_u16();
        let text = |value: &HeaderValue| String::from_utf8_lossy(value.as_bytes()).into_owned();
        let headers = reply.headers().iter().map(|(name, value)| (name.to_string(), text(value))).collect();
        let body = reply.text().await.unwrap_or_else(|error| panic!("{method} {path}: {error:?}"));
        Reply { status, headers, body }
    }

    /// `GET` of a path.
    pub(crate) async fn get(&self, path: &str) -> Reply {
        self.send(Method::GET, path, None).await
    }

    /// Stores a campaign, which must be accepted.
    pub(crate) async fn put_campaign(&self, campaign: &Value) -> Reply {
        let id = campaign["id"].as_str().expect("a campaign has an id");
        let reply = self.send(Method::PUT, &format!("/v1/campaigns/{id}"), Some(campaign)).await;
        assert!((200..300).contains(&reply.status), "the campaign was refused: {reply:?}");
        reply
    }

    /// All metrics, by name with labels as they are printed: `waypost_deliveries_total{outcome="dead"}`.
    pub(crate) async fn metrics(&self) -> BTreeMap<String, f64> {
        let text = self.get("/metrics").await.body;
        let lines = text.lines().filter(|line| !line.starts_with('#'));
        lines
            .filter_map(|line| line.rsplit_once(' '))
            .map(|(name, value)| (name.to_owned(), parse_metric(value)))
            .collect()
    }

    /// One metric, named as in [`metrics`](Self::metrics); 0 where nothing has been counted yet.
    pub(crate) async fn metric(&self, name: &str) -> f64 {
        self.metrics().await.get(name).copied().unwrap_or_default()
    }

    /// Waits until a metric is at least this.
    pub(crate) async fn wait_for_metric(&self, name: &str, least: f64) {
        let reached = async || (self.metric(name).await >= least).then_some(());
        if poll_until(DEFAULT_TIMEOUT, reached).await.is_none() {
            let metrics = self.metrics().await;
            panic!("{name} did not reach {least}; metrics: {metrics:#?}");
        }
    }

    /// Runs a client command of the product against this server.
    pub(crate) async fn cli(&self, arguments: &[&str]) -> CommandOutput {
        let mut command = waypost_command(&[]);
        command.args(arguments).env("WAYPOST_SERVER", self.url("")).current_dir(self.folder.path());
        output_of(command).await
    }

    /// What it has printed so far, over all its runs.
    pub(crate) fn log_lines(&self) -> Vec<String> {
        lock(&self.lines).clone()
    }

    /// Waits for a line it prints that contains `text`.
    pub(crate) async fn wait_for_log_line(&self, text: &str) -> String {
        let found = async || self.log_lines().into_iter().find(|line| line.contains(text));
        match poll_until(DEFAULT_TIMEOUT, found).await {
            Some(line) => line,
            None => panic!("the product did not print {text:?}"),
        }
    }

    fn spawn(&self, launcher: &[&str]) {
        let mut process = self.lock_process();
        assert!(process.is_none(), "the product is running");
        let mut command = waypost_command(launcher);
        command.arg("serve").current_dir(self.folder.path()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.envs(self.environment.iter().cloned()).spawn().expect("the product starts");
        collect_lines(child.stdout.take().expect("its output is piped"), Arc::clone(&self.lines));
        collect_lines(child.stderr.take().expect("its errors are piped"), Arc::clone(&self.lines));
        *process = Some(child);
    }

    fn lock_process(&self) -> MutexGuard<'_, Option<Child>> {
        lock(&self.process)
    }

    fn exit_status(&self) -> Option<ExitStatus> {
        self.lock_process().as_mut().expect("a product that was started").try_wait().expect("the product's status")
    }

    fn last_log_lines(&self) -> String {
        let lines = lock(&self.lines);
        lines[lines.len().saturating_sub(LOG_LINES_SHOWN)..].join("\n")
    }
}

impl Drop for Waypost {
    fn drop(&mut self) {
        if let Some(mut child) = self.lock_process().take() {
            let _ = child.kill();
            let _ = child.wait();
        }
        if std::thread::panicking() {
            eprintln!("--- the last the product (port {}) printed:\n{}\n---", self.port, self.last_log_lines());
        }
    }
}

/// The program, with nothing of the caller's own settings, and nothing to read; begun by a launcher where there is one.
fn waypost_command(launcher: &[&str]) -> Command {
    let mut words = launcher.iter().copied().chain([PROGRAM]);
    let mut command = Command::new(words.next().unwrap_or(PROGRAM));
    command.args(words);
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("WAYPOST_") || name == "RUST_LOG" {
            command.env_remove(name);
        }
    }
    command.stdin(Stdio::null());
    command
}

/// Gathers what a process prints, line by line, until it closes its end.
fn collect_lines(output: impl Read + Send + 'static, lines: Arc<Mutex<Vec<String>>>) {
    std::thread::spawn(move || {
        for line in BufReader::new(output).split(b'\n') {
            let Ok(line) = line else { return };
            lock(&lines).push(String::from_utf8_lossy(&line).into_owned());
        }
    });
}

/// Runs a command of the product that needs no server.
pub(crate) async fn cli(arguments: &[&str]) -> CommandOutput {
    let mut command = waypost_command(&[]);
    command.args(arguments);
    output_of(command).await
}

async fn output_of(mut command: Command) -> CommandOutput {
    let output = run_blocking(move || command.output()).await.expect("the product runs");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    CommandOutput { code: output.status.code(), stdout: text(&output.stdout), stderr: text(&output.stderr) }
}

fn http_client(authorization: Option<&str>) -> Client {
    // The client refuses to be built without one, though it speaks to 127.0.0.1 in the clear. Another test may have been first.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let authorization = authorization.map(|value| HeaderValue::from_str(value).expect("a header's value"));
    let headers: HeaderMap = authorization.into_iter().map(|value| (AUTHORIZATION, value)).collect();
    // A redirect is an answer like any other.
    let redirect = reqwest::redirect::Policy::none();
    Client::builder().no_proxy().redirect(redirect).default_headers(headers).build().expect("an HTTP client")
}

fn parse_metric(text: &str) -> f64 {
    text.parse().unwrap_or_else(|_| panic!("a metric is not a number: {text:?}"))
}

/// What these locks guard is whole even where a test panicked with one in hand.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
