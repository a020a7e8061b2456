//! Who delivers: the bare loop, Waypost, and the workers written by hand (`benches/peers`).

use std::path::{Path, PathBuf};
use std::process::Command;

use clap::ValueEnum;

use super::load::Scenario;

/// Where `scripts/bench-peers` has installed the workers written by hand.
const PEERS: &str = concat!(env!("CARGO_TARGET_TMPDIR"), "/peers");

/// A worker.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Worker {
    /// A program of the same libraries that does nothing else.
    Bare,
    /// `waypost serve`.
    Waypost,
    /// Written by hand in JavaScript.
    Node,
    /// Written by hand in Python.
    Python,
}

impl Worker {
    /// Its name in the tables.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Bare => "bare loop",
            Self::Waypost => "Waypost",
            Self::Node => "Node, by hand",
            Self::Python => "Python, by hand",
        }
    }

    /// Whether it takes part in a scenario. What those written by hand do about endpoints that hang is no question: they
    /// wait.
    pub(crate) fn takes_part_in(self, scenario: Scenario) -> bool {
        match self {
            Self::Bare | Self::Waypost => true,
            Self::Node | Self::Python => scenario.hanging == 0,
        }
    }

    /// Whether it can be started here.
    pub(crate) fn is_installed(self) -> bool {
        let installed = |peer: &str| Path::new(PEERS).join(peer).join("installed").exists();
        match self {
            Self::Bare | Self::Waypost => true,
            Self::Node => installed("node"),
            Self::Python => installed("python"),
        }
    }

    /// What starts it, but for its arguments: the broker's URL, the queue, and the file of webhooks. None for Waypost, which
    /// is started by other means.
    pub(crate) fn program(self) -> Option<Command> {
        let peer = |file: &str| PathBuf::from(PEERS).join(file);
        match self {
            Self::Bare => {
                let mut command = Command::new(std::env::current_exe().expect("this program"));
                command.arg("bare-loop");
                Some(command)
            }
            Self::Waypost => None,
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
