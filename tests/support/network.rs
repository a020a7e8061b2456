//! A network for the nodes of a cluster: a namespace and an address for each, and faults between them. `scripts/node-network` makes it,
//! and removes it when this process has ended, however that comes. Needs root.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::IpAddr;
use std::path::PathBuf;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::{Arc, Mutex};

use tempfile::TempDir;

use super::broker::run_blocking;

const SCRIPT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/scripts/node-network");

/// A namespace with an address.
#[derive(Debug, Clone)]
pub(crate) struct Host {
    pub(crate) namespace: String,
    pub(crate) address: IpAddr,
    /// The file that has the names and addresses of all hosts.
    pub(crate) hosts: PathBuf,
}

/// A fault between hosts, which are named by their numbers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum NetworkFault {
    /// The host is cut off from the others. This machine still reaches it.
    Partition(usize),
    /// What the first sends to the second is lost.
    OneWayPartition(usize, usize),
    /// So many of a hundred packets of the host are lost, in each direction.
    Loss(usize, u8),
    /// The packets of the host are late.
    Delay(usize),
    /// A process of the host, by its id, writes to its disk slowly.
    SlowDisk(usize, String),
}

/// How packets are made late.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Delay {
    /// Each by about 100 ms.
    Netem,
    /// The link takes 1 Mbit/s and holds up to 400 ms of it, because the kernel has no netem.
    NarrowLink,
}

/// The network.
pub(crate) struct Network {
    hosts: Vec<Host>,
    delay: Delay,
    throttles_disk: bool,
    script: Arc<Mutex<Script>>,
    _folder: TempDir,
}

struct Script {
    process: Child,
    answers: BufReader<ChildStdout>,
}

impl Network {
    /// Makes one of so many hosts.
    ///
    /// # Errors
    /// Why there can be none here.
    pub(crate) async fn start(count: usize) -> Result<Self, String> {
        run_blocking(move || Self::start_blocking(count)).await
    }

    fn start_blocking(count: usize) -> Result<Self, String> {
        let folder = tempfile::Builder::new().prefix("waypost-network-").tempdir().expect("a temporary folder");
        let mut process = Command::new(SCRIPT)
            .arg(count.to_string())
            .arg(folder.path())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap_or_else(|error| panic!("{SCRIPT}: {error}"));
        let mut answers = BufReader::new(process.stdout.take().expect("the script's output is piped"));
        let mut hosts = Vec::new();
        let able = loop {
            let mut line = String::new();
            answers.read_line(&mut line).expect("the script's output is text");
            match line.trim().split_once(' ') {
                Some(("ready", able)) => break able.to_owned(),
                Some((namespace, address)) => hosts.push(Host {
                    namespace: namespace.to_owned(),
                    address: address.parse().expect("an address"),
                    hosts: folder.path().join("hosts"),
                }),
                None => {
                    let mut trouble = String::new();
                    let stderr = process.stderr.as_mut().expect("the script's errors are piped");
                    stderr.read_to_string(&mut trouble).expect("the script's errors are text");
                    let _ = process.wait();
                    return Err(trouble.trim().trim_start_matches("node-network: ").to_owned());
                }
            }
        };
        Ok(Self {
            hosts,
            delay: if able.contains("delay=netem") { Delay::Netem } else { Delay::NarrowLink },
            throttles_disk: able.contains("throttle=disk"),
            script: Arc::new(Mutex::new(Script { process, answers })),
            _folder: folder,
        })
    }

    /// Its hosts.
    pub(crate) fn hosts(&self) -> &[Host] {
        &self.hosts
    }

    /// How [`NetworkFault::Delay`] comes about here.
    pub(crate) fn delay(&self) -> Delay {
        self.delay
    }

    /// Whether [`NetworkFault::SlowDisk`] is possible here.
    pub(crate) fn throttles_disk(&self) -> bool {
        self.throttles_disk
    }

    /// Begins a fault.
    ///
    /// # Errors
    /// What came in the way.
    pub(crate) async fn inject(&self, fault: &NetworkFault) -> Result<(), String> {
        self.send_command(match fault {
            NetworkFault::Partition(host) => format!("partition {host}"),
            NetworkFault::OneWayPartition(from, to) => format!("one-way {from} {to}"),
            NetworkFault::Loss(host, percent) => format!("loss {host} {percent}"),
            NetworkFault::Delay(host) => format!("delay {host}"),
            NetworkFault::SlowDisk(host, pid) => format!("disk {host} {pid}"),
        })
        .await
    }

    /// Ends all faults.
    pub(crate) async fn heal(&self) {
        self.send_command("heal".to_owned()).await.expect("the network is healed");
    }

    async fn send_command(&self, command: String) -> Result<(), String> {
        let script = Arc::clone(&self.script);
        let tell = move || {
            let mut script = script.lock().expect("no one panics with the script in hand");
            let stdin = script.process.stdin.as_mut().expect("the script's input is piped");
            writeln!(stdin, "{command}").map_err(|error| error.to_string())?;
            let mut answer = String::new();
            script.answers.read_line(&mut answer).map_err(|error| error.to_string())?;
            if answer.trim() == "done" { Ok(()) } else { Err(format!("{command}: {}", answer.trim())) }
        };
        run_blocking(tell).await
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        if let Ok(mut script) = self.script.lock() {
            // The script removes all of it when this closes.
            drop(script.process.stdin.take());
            let _ = script.process.wait();
        }
    }
}
