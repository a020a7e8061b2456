//! A chromedriver with its browser, run by `scripts/web-driver` in a temporary folder. The script ends both when its
//! standard input closes: when the [`Driver`] is dropped or the test process ends.

use std::io::{BufRead as _, BufReader, Read as _};
use std::process::{Child, Command, Stdio};

use tempfile::TempDir;

const SCRIPT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/scripts/web-driver");

pub(super) struct Driver {
    script: Child,
    port: u16,
    // Dropped last: removes the folder if the script did not.
    _temporary: TempDir,
}

impl Driver {
    /// Starts a driver and waits until it listens. Panics with the script's errors if it does not start.
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
            panic!("could not start a browser:\n{trouble}");
        };
        Self { script, port, _temporary: temporary }
    }

    /// The URL for WebDriver commands.
    pub(super) fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }
}

impl Drop for Driver {
    fn drop(&mut self) {
        // The script ends the driver and the browser when this closes.
        drop(self.script.stdin.take());
        let _ = self.script.wait();
    }
}
