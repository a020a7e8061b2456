//! A network for the nodes of a cluster: each node has a namespace and an address, and the test can inject faults
//! between them. `scripts/node-network` creates the network, and removes it when this process ends. Needs root.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::IpAddr;
use std::path::PathBuf;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::{Arc, Mutex};

use tempfile::TempDir;

use super::broker::run_blocking;

const SCRIPT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/scripts/node-network");

/// A network namespace with an address.
#[derive(Debug, Clone)]
pub(crate) struct Host {
    pub(crate) namespace: String,
    pub(crate) address: IpAddr,
    /// A hosts file with the names and addresses of all hosts.
    pub(crate) hosts: PathBuf,
}

/// A fault between hosts, identified by their numbers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum NetworkFault {
    /// The host can't reach the others. This machine still reaches it.
    Partition(usize),
    /// Packets from the first host to the second are lost.
    OneWayPartition(usize, usize),
    /// The percentage of the host's packets that are lost, in each direction.
    Loss(usize, u8),
    /// The packets of the host are delayed.
    Delay(usize),
    /// A process of the host, given by its id, writes to its disk slowly.
    SlowDisk(usize, String),
}

/// How packets are delayed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Delay {
    /// About 100 ms for each packet.
    Netem,
    /// A link of 1 Mbit/s with a queue of 400 ms, if the kernel has no netem.
    NarrowLink,
}

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
    /// Creates a network of `count` hosts.
    ///
    /// # Errors
    ///
    /// Returns why this machine can't create it.
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

    pub(crate) fn hosts(&self) -> &[Host] {
        &self.hosts
    }

    /// How [`NetworkFault::Delay`] works on this machine.
    pub(crate) fn delay(&self) -> Delay {
        self.delay
    }

    /// Returns whether [`NetworkFault::SlowDisk`] works on this machine.
    pub(crate) fn throttles_disk(&self) -> bool {
        self.throttles_disk
    }

    /// Starts a fault.
    ///
    /// # Errors
    ///
    /// Returns the message of the script.
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
            let mut script = script.lock().expect("the lock of the script");
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
            // The script removes the network when this closes.
            drop(script.process.stdin.take());
            let _ = script.process.wait();
        }
    }
}
