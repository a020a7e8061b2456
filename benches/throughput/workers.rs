//! The workers: the bare loop, Waypost, and handwritten workers (`benches/peers`).

use std::path::{Path, PathBuf};
use std::process::Command;

use clap::ValueEnum;

use super::load::Scenario;

/// The folder in which `scripts/bench-peers` installs the handwritten workers.
const PEERS: &str = concat!(env!("CARGO_TARGET_TMPDIR"), "/peers");

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Worker {
    /// The baseline.
    Bare,
    /// `waypost serve`.
    Waypost,
    /// Handwritten in JavaScript.
    Node,
    /// Handwritten in Python.
    Python,
}

impl Worker {
    /// The name in tables.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Bare => "bare loop",
            Self::Waypost => "Waypost",
            Self::Node => "Node, by hand",
            Self::Python => "Python, by hand",
        }
    }

    /// Returns whether the worker runs in a scenario. Handwritten workers skip scenarios with hanging endpoints,
    /// because they would only wait.
    pub(crate) fn takes_part_in(self, scenario: Scenario) -> bool {
        match self {
            Self::Bare | Self::Waypost => true,
            Self::Node | Self::Python => scenario.hanging == 0,
        }
    }

    /// Returns whether the worker can run on this machine.
    pub(crate) fn is_installed(self) -> bool {
        let installed = |peer: &str| Path::new(PEERS).join(peer).join("installed").exists();
        match self {
            Self::Bare | Self::Waypost => true,
            Self::Node => installed("node"),
            Self::Python => installed("python"),
        }
    }

    /// The command without its arguments: the broker's URL, the queue, and the file of webhooks. `None` for Waypost,
    /// which starts differently.
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
