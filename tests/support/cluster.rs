//! A cluster of RabbitMQ nodes on this machine. Each is a [`Broker`], which a test can kill and start again. All share
//! a cookie and one epmd. In a [`Network`] each node has its own address and epmd.

use std::io::Write as _;
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use super::broker::{Broker, Membership, NODE_SCRIPT};
use super::network::{Host, Network};
use super::unique::{free_port, unique};
use super::wait::{DEFAULT_TIMEOUT, wait_until};

/// Runs epmd until its standard input closes, which happens at the latest when the test process ends.
const EPMD_SCRIPT: &str = "\"$0\" --epmd \"$1\" </dev/null >/dev/null 2>&1 & trap \"kill $!\" EXIT; read -r _";

/// The nodes of one cluster.
pub(crate) struct Cluster {
    nodes: Vec<Broker>,
    // Dropped after the nodes.
    _epmd: Option<Epmd>,
    network: Option<Network>,
}

impl Cluster {
    /// Starts a cluster of `count` nodes: the first alone, then the others, which join it.
    pub(crate) async fn start(count: usize) -> Self {
        let epmd = Epmd::start();
        wait_until("epmd", DEFAULT_TIMEOUT, async || TcpStream::connect(("127.0.0.1", epmd.port)).ok()).await;
        let (port, nothing) = (epmd.port, |_: &Path, _: usize| ());
        Self::start_on(vec![None; count], port, Some(epmd), None, nothing).await
    }

    /// Starts a cluster with one node on each host of a network. `prepare` writes into the folder of each node, by its
    /// number.
    pub(crate) async fn start_in(network: Network, prepare: impl Fn(&Path, usize) + Clone + Send + 'static) -> Self {
        let hosts = network.hosts().iter().cloned().map(Some).collect();
        Self::start_on(hosts, free_port(), None, Some(network), prepare).await
    }

    async fn start_on(
        hosts: Vec<Option<Host>>,
        epmd_port: u16,
        epmd: Option<Epmd>,
        network: Option<Network>,
        prepare: impl Fn(&Path, usize) + Clone + Send + 'static,
    ) -> Self {
        let (cookie, first_port, count) = (unique("cookie"), free_port(), hosts.len());
        let first_name = match &hosts[0] {
            Some(host) => format!("{first_port}@{}", host.namespace),
            None => first_port.to_string(),
        };
        let start = |(number, host): (usize, Option<Host>)| {
            let (cookie, prepare) = (cookie.clone(), prepare.clone());
            let join = (number > 0).then(|| first_name.clone());
            let port = if number > 0 { free_port() } else { first_port };
            Broker::member(port, Membership { epmd: epmd_port, join, host }, move |folder| {
                write_cookie(folder, &cookie);
                prepare(folder, number);
            })
        };
        let mut hosts = hosts.into_iter().enumerate();
        let mut nodes = vec![start(hosts.next().expect("a node")).await];
        nodes.extend(futures_util::future::join_all(hosts.map(start)).await);
        let cluster = Self { nodes, _epmd: epmd, network };
        wait_until("all nodes in one cluster", DEFAULT_TIMEOUT, async || {
            (cluster.running_nodes().await == count).then_some(())
        })
        .await;
        cluster
    }

    /// The network between the nodes, if they have one of their own.
    pub(crate) fn network(&self) -> Option<&Network> {
        self.network.as_ref()
    }

    /// The nodes in the order of their start.
    pub(crate) fn nodes(&self) -> &[Broker] {
        &self.nodes
    }

    /// The index of the node that leads a quorum queue. `None` if there is no leader or no node answers.
    pub(crate) async fn leader_of(&self, queue: &str) -> Option<usize> {
        let leader =
            self.ctl(&["list_queues", "--no-table-headers", "name", "leader"]).await?.lines().find_map(|line| {
                let (name, leader) = line.split_once('\t')?;
                (name == queue && !leader.trim().is_empty()).then(|| leader.trim().to_owned())
            })?;
        self.nodes.iter().position(|node| node.name() == leader)
    }

    /// Runs `rabbitmqctl` against the first node that answers. `None` if no node answers.
    pub(crate) async fn ctl(&self, arguments: &[&str]) -> Option<String> {
        for node in &self.nodes {
            if let Ok(answer) = node.try_ctl(arguments).await {
                return Some(answer);
            }
        }
        None
    }

    /// The number of running nodes that the first node sees, itself included.
    async fn running_nodes(&self) -> usize {
        let status = self.nodes[0].ctl(&["cluster_status", "--formatter", "json"]).await;
        let status: serde_json::Value = serde_json::from_str(&status).expect("JSON");
        status["running_nodes"].as_array().expect("the running nodes").len()
    }
}

fn write_cookie(folder: &Path, cookie: &str) {
    use std::os::unix::fs::OpenOptionsExt as _;
    let file = folder.join(".erlang.cookie");
    // Erlang rejects a cookie that others can read.
    let mut file = std::fs::OpenOptions::new().write(true).create_new(true).mode(0o400).open(file).expect("a file");
    file.write_all(cookie.as_bytes()).expect("the cookie is written");
}

/// Erlang's port mapper daemon.
struct Epmd {
    port: u16,
    shell: Child,
}

impl Epmd {
    fn start() -> Self {
        let port = free_port();
        let shell = Command::new("bash")
            .args(["-c", EPMD_SCRIPT, NODE_SCRIPT, &port.to_string()])
            .stdin(Stdio::piped())
            .spawn();
        Self { port, shell: shell.expect("bash runs") }
    }
}

impl Drop for Epmd {
    fn drop(&mut self) {
        drop(self.shell.stdin.take());
        let _ = self.shell.wait();
    }
}
