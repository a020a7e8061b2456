//! The workers: the baselines, Waypost, and handwritten workers (`benches/peers`).

use std::path::{Path, PathBuf};
use std::process::Command;

use clap::ValueEnum;

use super::common::load::Scenario;
use super::common::receiver::Transport;

/// The folder in which `scripts/bench-peers` installs the handwritten workers.
const PEERS: &str = concat!(env!("CARGO_TARGET_TMPDIR"), "/peers");

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Worker {
    /// The bare loop with reqwest and the system's allocator.
    Bare,
    /// The bare loop with Waypost's HTTP client and allocator.
    SameClient,
    /// The bare loop with HTTP by hand and Waypost's allocator.
    ByHand,
    /// `waypost serve`.
    Waypost,
    /// Handwritten in Go.
    Go,
    /// Handwritten in JavaScript.
    Node,
    /// Handwritten in Python.
    Python,
}

impl Worker {
    /// The name in tables.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Bare => "bare loop, reqwest",
            Self::SameClient => "bare loop, same client",
            Self::ByHand => "HTTP by hand",
            Self::Waypost => "Waypost",
            Self::Go => "Go, by hand",
            Self::Node => "Node, by hand",
            Self::Python => "Python, by hand",
        }
    }

    /// Returns whether the worker runs in a scenario. Of the others, only the loop with reqwest runs with hanging
    /// endpoints, to show that it would only wait. Handwritten clients run without TLS.
    pub(crate) fn takes_part_in(self, scenario: Scenario) -> bool {
        match self {
            Self::Bare | Self::Waypost => true,
            Self::SameClient => scenario.hanging == 0,
            Self::ByHand | Self::Go | Self::Node | Self::Python => {
                scenario.hanging == 0 && scenario.transport == Transport::Plain
            }
        }
    }

    /// Why the worker can't run on this machine.
    pub(crate) fn missing(self) -> Option<&'static str> {
        const PEER: &str = "is not installed (`make bench` installs it)";
        let peer = |peer: &str| (!Path::new(PEERS).join(peer).join("installed").exists()).then_some(PEER);
        match self {
            Self::Bare | Self::Waypost => None,
            Self::SameClient | Self::ByHand => {
                (!bare_loop().exists()).then_some("is not built (`make bench` builds it)")
            }
            Self::Go => peer("go"),
            Self::Node => peer("node"),
            Self::Python => peer("python"),
        }
    }

    /// The command without its last arguments: the broker's URL, the queue, and the file of webhooks. `None` for
    /// Waypost, which starts differently.
    pub(crate) fn program(self) -> Option<Command> {
        let peer = |file: &str| PathBuf::from(PEERS).join(file);
        let command = |program: PathBuf, arguments: &[&str]| {
            let mut command = Command::new(program);
            command.args(arguments);
            Some(command)
        };
        match self {
            Self::Bare => command(std::env::current_exe().expect("this program"), &["bare-loop", "reqwest"]),
            Self::SameClient => command(bare_loop(), &["waypost"]),
            Self::ByHand => command(bare_loop(), &["by-hand"]),
            Self::Waypost => None,
            Self::Go => command(peer("go/worker"), &[]),
            Self::Node => {
                let mut command = Command::new("node");
                command.arg(peer("node/worker.mjs"));
                Some(command)
            }
            Self::Python => {
                let mut command = Command::new(peer("python/venv/bin/python"));
                command.arg(peer("python/worker.py"));
                Some(command)
            }
        }
    }
}

/// The program of `bare_loop.rs`, beside the product.
fn bare_loop() -> PathBuf {
    Path::new(env!("CARGO_BIN_EXE_waypost")).with_file_name("examples").join("bare-loop")
}
