//! A chromedriver with its browser, run by `scripts/web-driver` in a temporary folder. The script watches its standard input, whose
//! other end is held here: both end when their [`Driver`] is dropped, and when the test process ends, however that comes.

use std::io::{BufRead as _, BufReader, Read as _};
use std::process::{Child, Command, Stdio};

use tempfile::TempDir;

const SCRIPT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/scripts/web-driver");

/// The process, and where it listens.
pub(super) struct Driver {
    script: Child,
    port: u16,
    // Last to be dropped: removes the folder where the script has not.
    _temporary: TempDir,
}

impl Driver {
    /// Starts one and waits until it listens; panics with what it said where it does not start.
    pub(super) fn start() -> Self {
        let temporary = tempfile::Builder::new().prefix("waypost-browser-").tempdir().expect("a temporary folder");
        let mut script = Command::new(SCRIPT)
            .arg(temporary.path())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap_or_else(|error| panic!("{SCRIPT}: {error}"));
        let mut line = String::new();
        let stdout = script.stdout.as_mut().expect("the script's output is piped");
        BufReader::new(stdout).read_line(&mut line).expect("the script's output is text");
        let Some(port) = line.strip_prefix("ready ").and_then(|port| port.trim().parse().ok()) else {
            let mut trouble = String::new();
            let stderr = script.stderr.as_mut().expect("the script's errors are piped");
            stderr.read_to_string(&mut trouble).expect("the script's errors are text");
            let _ = script.wait();
            panic!("no browser could be started:\n{trouble}");
        };
        Self { script, port, _temporary: temporary }
    }

    /// Where it takes commands.
    pub(super) fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }
}

impl Drop for Driver {
    fn drop(&mut self) {
        // The script ends driver and browser at once when this closes.
        drop(self.script.stdin.take());
        let _ = self.script.wait();
    }
}
