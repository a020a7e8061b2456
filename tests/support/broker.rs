//! RabbitMQ nodes, each run by `scripts/rabbitmq-node` in a temporary folder. The script ends its node when its
//! standard input closes: when the [`Broker`] is dropped or the test process ends.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read};
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, OnceLock};
use std::time::{Duration, Instant};

use tempfile::TempDir;

use super::network::Host;
use super::unique::free_port;
use super::wait::{DEFAULT_TIMEOUT, wait_until};

/// Runs the version that the variable `RABBITMQ` names.
pub(crate) const NODE_SCRIPT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/scripts/rabbitmq-node");

/// `PORT:FOLDER` of a node that test processes share (`scripts/with-test-broker`).
const SHARED_NODE_VARIABLE: &str = "TEST_BROKER";

/// A node ends within this time after a request. The script itself kills the node after ten seconds.
const STOP_TIMEOUT: Duration = Duration::from_secs(20);

/// The pause between two equal calls of `rabbitmqctl`. A test that polls repeats a call, and each call needs half a
/// second of CPU.
const CTL_INTERVAL: Duration = Duration::from_secs(1);

/// The cluster settings of a node.
#[derive(Debug, Clone)]
pub(super) struct Membership {
    /// The port of the epmd that all nodes share. In a network namespace each node has its own epmd on this port.
    pub(super) epmd: u16,
    /// The node to join at the first start, without `waypost-`: its port, or its port and namespace.
    pub(super) join: Option<String>,
    /// The network namespace of the node.
    pub(super) host: Option<Host>,
}

/// The version of all nodes, such as `4.3.6`.
pub(crate) fn broker_version() -> String {
    let output =
        Command::new(NODE_SCRIPT).arg("--version").output().unwrap_or_else(|error| panic!("{NODE_SCRIPT}: {error}"));
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).trim().to_owned()
}

/// A RabbitMQ node. Its port and folder stay the same over restarts.
pub(crate) struct Broker {
    folder: PathBuf,
    port: u16,
    plugins: &'static [&'static str],
    membership: Option<Membership>,
    script: Mutex<Option<Child>>,
    /// When each call of `rabbitmqctl` last ended, by its arguments.
    last_calls: Mutex<BTreeMap<String, Instant>>,
    // Dropped last: removes the folder if the script did not. `None` for a node of another process.
    _temporary: Option<TempDir>,
}

impl Broker {
    /// The node that tests share: the node of `scripts/with-test-broker`, or a node of this process, started at first
    /// use. Each test uses its own prefix ([`unique`](super::unique())), and does not change the node.
    pub(crate) async fn shared() -> &'static Self {
        static SHARED: OnceLock<Broker> = OnceLock::new();
        let start = || match std::env::var(SHARED_NODE_VARIABLE) {
            Ok(node) => Self::running_at(&node),
            Err(_) => Self::start_new(&[]),
        };
        run_blocking(move || SHARED.get_or_init(start)).await
    }

    /// A node that another process started. `node` is `PORT:FOLDER`.
    fn running_at(node: &str) -> Self {
        let parts = node.split_once(':').and_then(|(port, folder)| Some((port.parse().ok()?, folder)));
        let (port, folder) = parts.unwrap_or_else(|| panic!("{SHARED_NODE_VARIABLE} is not PORT:FOLDER: {node}"));
        let (plugins, membership, script) = (&[][..], None, Mutex::new(None));
        let folder = folder.into();
        Self { folder, port, plugins, membership, script, last_calls: Mutex::default(), _temporary: None }
    }

    /// A node of this test, which may kill, stop or block it.
    pub(crate) async fn private() -> Self {
        run_blocking(|| Self::start_new(&[])).await
    }

    /// Like [`private`](Self::private), with plugins.
    pub(crate) async fn private_with(plugins: &'static [&'static str]) -> Self {
        run_blocking(|| Self::start_new(plugins)).await
    }

    /// Like [`private`](Self::private), with lines for `rabbitmq.conf`. `config` receives a free port for them.
    pub(crate) async fn private_configured(config: impl FnOnce(u16) -> String + Send + 'static) -> (Self, u16) {
        let port = free_port();
        let start = move || {
            let temporary = temporary_folder();
            std::fs::write(temporary.path().join("rabbitmq.conf"), config(port)).expect("rabbitmq.conf is written");
            Self::start_in(temporary, free_port(), &[], None)
        };
        (run_blocking(start).await, port)
    }

    /// Like [`private`](Self::private), with plugins. `prepare` writes settings into the node's folder and receives a
    /// free port for them.
    pub(crate) async fn private_prepared(
        plugins: &'static [&'static str],
        prepare: impl FnOnce(&Path, u16) + Send + 'static,
    ) -> (Self, u16) {
        let port = free_port();
        let start = move || {
            let temporary = temporary_folder();
            prepare(temporary.path(), port);
            Self::start_in(temporary, free_port(), plugins, None)
        };
        (run_blocking(start).await, port)
    }

    /// Returns a node with the management plugin, and the address of the management API.
    pub(crate) async fn private_managed() -> (Self, String) {
        let prepare = |folder: &Path, port: u16| {
            let config = format!("management.tcp.port = {port}\nmanagement.tcp.ip = 127.0.0.1\n");
            std::fs::write(folder.join("rabbitmq.conf"), config).expect("written");
        };
        let (broker, port) = Self::private_prepared(&["rabbitmq_management"], prepare).await;
        (broker, format!("http://127.0.0.1:{port}"))
    }

    /// A node of a cluster. `prepare` writes shared files into its folder.
    pub(super) async fn member(
        port: u16,
        membership: Membership,
        prepare: impl FnOnce(&Path) + Send + 'static,
    ) -> Self {
        let start = move || {
            let temporary = temporary_folder();
            prepare(temporary.path());
            Self::start_in(temporary, port, &[], Some(membership))
        };
        run_blocking(start).await
    }

    fn start_new(plugins: &'static [&'static str]) -> Self {
        Self::start_in(temporary_folder(), free_port(), plugins, None)
    }

    fn start_in(
        temporary: TempDir,
        port: u16,
        plugins: &'static [&'static str],
        membership: Option<Membership>,
    ) -> Self {
        let folder = temporary.path().to_owned();
        let script = Mutex::new(Some(run_script(&folder, port, plugins, membership.as_ref())));
        Self { folder, port, plugins, membership, script, last_calls: Mutex::default(), _temporary: Some(temporary) }
    }

    /// The AMQP URL, for `WAYPOST_BROKER__URL`.
    pub(crate) fn url(&self) -> String {
        format!("amqp://guest:guest@{}/%2f", self.address())
    }

    /// The address of the AMQP listener.
    pub(crate) fn address(&self) -> SocketAddr {
        SocketAddr::new(self.host().map_or(Ipv4Addr::LOCALHOST.into(), |host| host.address), self.port)
    }

    /// The Erlang node name, as `scripts/rabbitmq-node` sets it.
    pub(crate) fn name(&self) -> String {
        format!("waypost-{}@{}", self.port, self.host().map_or("localhost", |host| &host.namespace))
    }

    fn host(&self) -> Option<&Host> {
        self.membership.as_ref()?.host.as_ref()
    }

    /// The port of the AMQP listener.
    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    /// Kills the node with `kill -9`, like a power cut, and waits until the process ends.
    pub(crate) async fn kill(&self) {
        // RabbitMQ confirms a declaration about a second before the new queue is in its register on disk (3.10.8, ra
        // 2.2.0). A node killed in between restarts with an empty queue. Waypost makes no promise about that.
        wait_until("the register of quorum queues", DEFAULT_TIMEOUT, async || {
            self.all_queues_registered().then_some(())
        })
        .await;
        send_signal("-KILL", &self.pid());
        self.wait_for_exit().await;
    }

    /// The folder of the node's queues and streams.
    pub(crate) fn data_path(&self) -> PathBuf {
        self.folder.join("data")
    }

    /// The log of the node since its first start. Erlang may write bytes that are not UTF-8.
    pub(crate) fn log(&self) -> String {
        let log = std::fs::read(self.folder.join("log")).expect("the log of the node");
        String::from_utf8_lossy(&log).into_owned()
    }

    /// Suspends the process (SIGSTOP). [`resume`](Self::resume) continues it.
    pub(crate) fn suspend(&self) {
        send_signal("-STOP", &self.pid());
    }

    /// Continues the process after [`suspend`](Self::suspend).
    pub(crate) fn resume(&self) {
        send_signal("-CONT", &self.pid());
    }

    /// The process id of the Erlang VM.
    pub(crate) fn pid(&self) -> String {
        std::fs::read_to_string(self.folder.join("pid")).expect("the pid of the node").trim().to_owned()
    }

    /// Stops the node cleanly, and waits until the process ends.
    pub(crate) async fn stop(&self) {
        let pid = self.script.lock().expect("the script's handle").as_ref().expect("a running node").id();
        send_signal("-TERM", &pid.to_string());
        self.wait_for_exit().await;
    }

    /// Starts the node after [`kill`](Self::kill) or [`stop`](Self::stop), with the same data and port.
    pub(crate) async fn start(&self) {
        assert!(self.script.lock().expect("the script's handle").is_none(), "the node is running");
        let (folder, port, plugins, membership) =
            (self.folder.clone(), self.port, self.plugins, self.membership.clone());
        let script = run_blocking(move || run_script(&folder, port, plugins, membership.as_ref())).await;
        *self.script.lock().expect("the script's handle") = Some(script);
    }

    /// Runs `rabbitmqctl` against the node and returns its output. Panics on an error. Takes about a second.
    pub(crate) async fn ctl(&self, arguments: &[&str]) -> String {
        self.try_ctl(arguments).await.unwrap_or_else(|error| panic!("{error}"))
    }

    /// Like [`ctl`](Self::ctl), for a node that may be down.
    pub(crate) async fn try_ctl(&self, arguments: &[&str]) -> Result<String, String> {
        self.pace(arguments).await;
        let output = self.run_ctl(arguments).await;
        self.last_calls.lock().expect("the times of calls").insert(arguments.join(" "), Instant::now());
        output
    }

    /// Waits until [`CTL_INTERVAL`] has passed since the same call.
    async fn pace(&self, arguments: &[&str]) {
        let last = self.last_calls.lock().expect("the times of calls").get(&arguments.join(" ")).copied();
        if let Some(last) = last {
            tokio::time::sleep_until((last + CTL_INTERVAL).into()).await;
        }
    }

    async fn run_ctl(&self, arguments: &[&str]) -> Result<String, String> {
        let mut command = Command::new(self.folder.join("rabbitmqctl"));
        command.arg("--silent").args(arguments).stdin(Stdio::null());
        let output = run_blocking(move || command.output()).await.expect("rabbitmqctl runs");
        if output.status.success() {
            return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
        }
        let error = String::from_utf8_lossy(&output.stderr);
        Err(format!("rabbitmqctl {arguments:?}: {}: {error}", output.status))
    }

    /// The queues and streams of a prefix, each with its number of messages, unacknowledged ones included. RabbitMQ
    /// updates the numbers every five seconds. [`Amqp::depth`](super::Amqp::depth) is exact.
    pub(crate) async fn queues(&self, prefix: &str) -> BTreeMap<String, u64> {
        let listing = self.ctl(&["list_queues", "--no-table-headers", "name", "messages"]).await;
        let parse = |line: &str| {
            let (name, messages) = line.split_once('\t')?;
            Some((name.to_owned(), messages.trim().parse().unwrap_or(0)))
        };
        listing.lines().filter_map(parse).filter(|(name, _)| name.starts_with(&format!("{prefix}."))).collect()
    }

    /// Returns whether `names.dets` of every Raft system lists each queue on disk. A queue on disk is a folder beside
    /// that file, with the name of the queue's registration.
    fn all_queues_registered(&self) -> bool {
        let folders = |folder: PathBuf| {
            let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
            entries.map(|entry| entry.path()).filter(|path| path.is_dir())
        };
        let systems = ["quorum", "coordination"].map(|system| folders(self.folder.join("data").join(system)));
        systems.into_iter().flatten().all(|system| {
            let register = std::fs::read(system.join("names.dets")).unwrap_or_default();
            folders(system).all(|queue| {
                let name = queue.file_name().unwrap_or_default().as_encoded_bytes();
                register.windows(name.len()).any(|window| window == name)
            })
        })
    }

    async fn wait_for_exit(&self) {
        wait_until("the end of the node", STOP_TIMEOUT, async || {
            let mut script = self.script.lock().expect("the script's handle");
            let status = script.as_mut().expect("a running node").try_wait().expect("the script's status");
            status.map(|_| *script = None)
        })
        .await;
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        if let Some(mut script) = self.script.lock().ok().and_then(|mut script| script.take()) {
            // The script ends the node when this closes.
            drop(script.stdin.take());
            let _ = script.wait();
        }
    }
}

fn temporary_folder() -> TempDir {
    tempfile::Builder::new().prefix("waypost-broker-").tempdir().expect("a temporary folder")
}

/// Starts the script and waits for the node. Panics with the end of the node's log if the node does not start.
fn run_script(folder: &Path, port: u16, plugins: &[&str], membership: Option<&Membership>) -> Child {
    let mut command = Command::new(NODE_SCRIPT);
    if let Some(host) = membership.and_then(|membership| membership.host.as_ref()) {
        command.args(["--in", &host.namespace]).arg(&host.hosts);
    }
    command.arg("--temporary");
    if let Some(Membership { epmd, join, .. }) = membership {
        command.env("ERL_EPMD_PORT", epmd.to_string());
        command.args(join.iter().flat_map(|name| ["--join", name]));
    }
    let mut script = command
        .arg(folder)
        .arg(port.to_string())
        .args(plugins)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap_or_else(|error| panic!("{NODE_SCRIPT}: {error}"));
    let mut line = String::new();
    let stdout = script.stdout.as_mut().expect("the script's output is piped");
    BufReader::new(stdout).read_line(&mut line).expect("the script's output is text");
    if line.trim() != "ready" {
        let mut trouble = String::new();
        let stderr = script.stderr.as_mut().expect("the script's errors are piped");
        stderr.read_to_string(&mut trouble).expect("the script's errors are text");
        let _ = script.wait();
        panic!("RabbitMQ did not start:\n{trouble}");
    }
    script
}

/// Uses the command `kill`, because the crate forbids unsafe code.
pub(super) fn send_signal(signal: &str, pid: &str) {
    let status = Command::new("kill").args([signal, pid]).status().expect("kill runs");
    assert!(status.success(), "kill {signal} {pid}: {status}");
}

/// Runs blocking work outside the test's runtime.
pub(super) async fn run_blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    match tokio::task::spawn_blocking(work).await {
        Ok(done) => done,
        Err(failure) => std::panic::resume_unwind(failure.into_panic()),
    }
}
