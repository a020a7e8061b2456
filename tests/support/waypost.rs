//! A worker, used over HTTP and the command line. It runs as a process or on a thread of the test.

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use reqwest::header::{AUTHORIZATION, HeaderValue};
use reqwest::{Client, Method};
use serde_json::Value;
use tempfile::TempDir;

use super::broker::{run_blocking, send_signal};
use super::reply::Reply;
use super::unique::free_port;
use super::wait::{DEFAULT_TIMEOUT, poll_until, wait_until};
use super::worker_thread::WorkerThread;

const PROGRAM: &str = env!("CARGO_BIN_EXE_waypost");

/// The number of last log lines that a failing test prints.
const LOG_LINES_SHOWN: usize = 60;

/// A worker. Its store and port stay the same over restarts. In a failing test, dropping it prints the last log lines.
pub(crate) struct Waypost {
    environment: Vec<(String, String)>,
    port: u16,
    // Dropped before the folder.
    worker: Worker,
    folder: TempDir,
    lines: Arc<Mutex<Vec<String>>>,
    client: Client,
    authorization: Option<String>,
}

/// Where a worker runs.
#[derive(Debug, Clone, Copy)]
pub(crate) enum RunIn {
    /// `waypost serve`: for tests that kill it, send signals, read its log or measure its memory.
    Process,
    /// Starts faster, and a debugger sees both sides.
    Thread,
}

enum Worker {
    Process(Mutex<Option<Child>>),
    Thread(WorkerThread),
}

/// The output and exit code of a command.
#[derive(Debug, Clone)]
pub(crate) struct CommandOutput {
    pub(crate) code: Option<i32>,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Waypost {
    /// Starts the product and waits until it is ready.
    pub(crate) async fn start(broker_url: &str, prefix: &str) -> Self {
        Self::start_with(broker_url, prefix, &[]).await
    }

    /// Like [`start`](Self::start), with additional variables: `("WAYPOST_RETRY__INITIAL_DELAY", "1s")`.
    pub(crate) async fn start_with(broker_url: &str, prefix: &str, more: &[(&str, &str)]) -> Self {
        let waypost = Self::launch(broker_url, prefix, more);
        waypost.wait_until_ready().await;
        waypost
    }

    /// Like [`start_with`](Self::start_with), but the worker runs on a thread of the test.
    pub(crate) async fn start_in_thread(broker_url: &str, prefix: &str, more: &[(&str, &str)]) -> Self {
        let waypost = Self::launch_in(RunIn::Thread, broker_url, prefix, more);
        waypost.wait_until_ready().await;
        waypost
    }

    /// Starts the product without waiting until it is ready.
    pub(crate) fn launch(broker_url: &str, prefix: &str, more: &[(&str, &str)]) -> Self {
        Self::launch_in(RunIn::Process, broker_url, prefix, more)
    }

    /// Like [`launch`](Self::launch), as a process or on a thread.
    pub(crate) fn launch_in(place: RunIn, broker_url: &str, prefix: &str, more: &[(&str, &str)]) -> Self {
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
        if matches!(place, RunIn::Thread) {
            // The end of the test must not wait longer for a receiver that never answers.
            environment.insert("WAYPOST_SHUTDOWN__GRACE", "1s");
        }
        environment.extend(more.iter().copied());
        let environment: Vec<(String, String)> =
            environment.into_iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
        let lines = Arc::default();
        // The HTTP client and the worker need a crypto provider. Another test may have installed one.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let worker = match place {
            RunIn::Process => Worker::Process(Mutex::new(Some(spawn(&[], folder.path(), &environment, &lines)))),
            RunIn::Thread => Worker::Thread(WorkerThread::start(folder.path(), &environment, Arc::clone(&lines))),
        };
        Self { environment, port, worker, folder, lines, client: http_client(), authorization: None }
    }

    /// Sets the `Authorization` of further requests that have none.
    pub(crate) fn authenticate(&mut self, authorization: &str) {
        self.authorization = Some(authorization.to_owned());
    }

    pub(crate) async fn wait_until_ready(&self) {
        let ready = async || {
            match &self.worker {
                Worker::Process(_) => {
                    if let Some(status) = self.exit_status() {
                        panic!("the product ended ({status}) before it was ready");
                    }
                }
                Worker::Thread(thread) => assert!(!thread.has_ended(), "the worker ended before it was ready"),
            }
            let reply = self.client.get(self.url("/readyz")).send().await.ok()?;
            reply.status().is_success().then_some(())
        };
        assert!(poll_until(DEFAULT_TIMEOUT, ready).await.is_some(), "the product did not become ready");
    }

    /// Kills the process (`kill -9`), and waits until it ends.
    pub(crate) async fn kill(&self) {
        self.lock_process().as_mut().expect("a running product").kill().expect("the product can be killed");
        self.wait_for_exit().await;
    }

    /// Sends SIGTERM; see [`wait_for_exit`](Self::wait_for_exit).
    pub(crate) fn terminate(&self) {
        let pid = self.lock_process().as_ref().expect("a running product").id();
        send_signal("-TERM", &pid.to_string());
    }

    /// Sends SIGHUP: the product reads its settings again.
    pub(crate) fn reload(&self) {
        send_signal("-HUP", &self.pid().to_string());
    }

    /// Suspends the process (SIGSTOP). [`resume`](Self::resume) continues it.
    pub(crate) fn suspend(&self) {
        send_signal("-STOP", &self.pid().to_string());
    }

    /// Continues the process after [`suspend`](Self::suspend).
    pub(crate) fn resume(&self) {
        send_signal("-CONT", &self.pid().to_string());
    }

    /// Waits until the process ends and all its output is collected.
    pub(crate) async fn wait_for_exit(&self) -> ExitStatus {
        self.wait_for_exit_within(DEFAULT_TIMEOUT).await
    }

    /// Panics if the process still runs after `deadline`.
    pub(crate) async fn wait_for_exit_within(&self, deadline: Duration) -> ExitStatus {
        let Some(status) = poll_until(deadline, async || self.exit_status()).await else {
            panic!("the product did not end within {deadline:?}");
        };
        // Each thread that collects output holds a clone until its pipe is closed.
        wait_until("the end of the output", DEFAULT_TIMEOUT, async || {
            (Arc::strong_count(&self.lines) == 1).then_some(())
        })
        .await;
        *self.lock_process() = None;
        status
    }

    /// Starts the product again with the same store, port and environment, and waits until it is ready.
    pub(crate) async fn restart(&self) {
        self.relaunch(&[]);
        self.wait_until_ready().await;
    }

    /// Like [`restart`](Self::restart), but does not wait. `launcher` is a program with arguments that executes the
    /// product, or empty.
    pub(crate) fn relaunch(&self, launcher: &[&str]) {
        let mut process = self.lock_process();
        assert!(process.is_none(), "the product is running");
        *process = Some(spawn(launcher, self.folder.path(), &self.environment, &self.lines));
    }

    /// The exit status, if the process ended and [`wait_for_exit`](Self::wait_for_exit) has not returned it.
    pub(crate) fn take_exit_status(&self) -> Option<ExitStatus> {
        let mut process = self.lock_process();
        let status = process.as_mut()?.try_wait().expect("the product's status");
        if status.is_some() {
            *process = None;
        }
        status
    }

    /// Returns whether the process was started and its end has not been observed.
    pub(crate) fn is_running(&self) -> bool {
        self.lock_process().is_some()
    }

    /// The folder of the local view (`store.path`).
    pub(crate) fn store_path(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    pub(crate) fn pid(&self) -> u32 {
        self.lock_process().as_ref().expect("a running product").id()
    }

    pub(crate) fn url(&self, path: &str) -> String {
        format!("http://127.0.0.1:{}{path}", self.port)
    }

    /// Sends a request with an optional JSON body.
    pub(crate) async fn send(&self, method: Method, path: &str, body: Option<&Value>) -> Reply {
        self.send_as(None, method, path, body).await
    }

    /// Like [`send`](Self::send), with an optional `Authorization`.
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

    /// Sends a request with headers and a body of any type.
    pub(crate) async fn send_with(
        &self,
        method: Method,
        path: &str,
        headers: &[(&str, &str)],
        body: impl Into<Vec<u8>>,
    ) -> Reply {
        let mut headers = headers.to_vec();
        if !headers.iter().any(|(name, _)| name.eq_ignore_ascii_case(AUTHORIZATION.as_str())) {
            headers.extend(self.authorization.iter().map(|value| (AUTHORIZATION.as_str(), value.as_str())));
        }
        self.send_exactly(method, path, &headers, body).await
    }

    /// Like [`send_with`](Self::send_with), without the `Authorization` of [`authenticate`](Self::authenticate).
    pub(crate) async fn send_exactly(
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

    pub(crate) async fn get(&self, path: &str) -> Reply {
        self.send(Method::GET, path, None).await
    }

    /// Stores a campaign. Panics if the request is refused.
    pub(crate) async fn put_campaign(&self, campaign: &Value) -> Reply {
        let id = campaign["id"].as_str().expect("a campaign has an id");
        let reply = self.send(Method::PUT, &format!("/v1/campaigns/{id}"), Some(campaign)).await;
        assert!((200..300).contains(&reply.status), "the campaign was refused: {reply:?}");
        reply
    }

    /// All metrics by name with labels, as exposed: `waypost_deliveries_total{outcome="dead"}`.
    pub(crate) async fn metrics(&self) -> BTreeMap<String, f64> {
        let text = self.get("/metrics").await.body;
        let lines = text.lines().filter(|line| !line.starts_with('#'));
        lines
            .filter_map(|line| line.rsplit_once(' '))
            .map(|(name, value)| (name.to_owned(), parse_metric(value)))
            .collect()
    }

    /// One metric, named as in [`metrics`](Self::metrics). 0 if it does not exist yet.
    pub(crate) async fn metric(&self, name: &str) -> f64 {
        self.metrics().await.get(name).copied().unwrap_or_default()
    }

    /// The sum of all metrics with this name, whatever their labels.
    pub(crate) async fn metric_sum(&self, name: &str) -> f64 {
        let metrics = self.metrics().await;
        metrics.iter().filter(|(metric, _)| metric.split('{').next() == Some(name)).map(|(_, value)| value).sum()
    }

    /// Waits until a metric is at least `least`.
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

    /// The lines printed so far, over all starts.
    #[track_caller]
    pub(crate) fn log_lines(&self) -> Vec<String> {
        // A thread has another subscriber than the product.
        drop(self.lock_process());
        lock(&self.lines).clone()
    }

    /// Waits for a printed line that contains `text`.
    pub(crate) async fn wait_for_log_line(&self, text: &str) -> String {
        let found = async || self.log_lines().into_iter().find(|line| line.contains(text));
        match poll_until(DEFAULT_TIMEOUT, found).await {
            Some(line) => line,
            None => panic!("the product did not print {text:?}"),
        }
    }

    #[track_caller]
    fn lock_process(&self) -> MutexGuard<'_, Option<Child>> {
        match &self.worker {
            Worker::Process(process) => lock(process),
            Worker::Thread(_) => panic!("the worker runs on a thread: start it with `TestApp::builder().process()`"),
        }
    }

    fn exit_status(&self) -> Option<ExitStatus> {
        self.lock_process().as_mut().expect("a running product").try_wait().expect("the product's status")
    }

    fn last_log_lines(&self) -> String {
        let lines = lock(&self.lines);
        lines[lines.len().saturating_sub(LOG_LINES_SHOWN)..].join("\n")
    }
}

impl Drop for Waypost {
    fn drop(&mut self) {
        if let Worker::Process(process) = &self.worker
            && let Some(mut child) = lock(process).take()
        {
            let _ = child.kill();
            let _ = child.wait();
        }
        if std::thread::panicking() {
            eprintln!("--- last output of the product (port {}):\n{}\n---", self.port, self.last_log_lines());
        }
    }
}

/// The program with a clean environment and no standard input, executed by `launcher` if that is not empty.
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

/// Starts `waypost serve` by `launcher`, or directly if that is empty.
fn spawn(launcher: &[&str], folder: &Path, environment: &[(String, String)], lines: &Arc<Mutex<Vec<String>>>) -> Child {
    let mut command = waypost_command(launcher);
    command.arg("serve").current_dir(folder).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.envs(environment.iter().cloned()).spawn().expect("the product starts");
    collect_lines(child.stdout.take().expect("stdout is piped"), Arc::clone(lines));
    collect_lines(child.stderr.take().expect("stderr is piped"), Arc::clone(lines));
    child
}

/// Collects the lines that a process prints until it closes the pipe.
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

fn http_client() -> Client {
    // Redirects are returned, not followed.
    let redirect = reqwest::redirect::Policy::none();
    Client::builder().no_proxy().redirect(redirect).build().expect("an HTTP client")
}

fn parse_metric(text: &str) -> f64 {
    text.parse().unwrap_or_else(|_| panic!("a metric is not a number: {text:?}"))
}

/// A test that panics poisons the lock, but the data stay consistent.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
