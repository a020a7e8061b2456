//! Running commands of the product, to send them signals or read their output.

use std::io::{Read, Write as _};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError};

use super::wait::{DEFAULT_TIMEOUT, wait_until};
use super::waypost::CommandOutput;

/// A running command with a clean environment. It is killed when it is dropped.
pub(crate) struct CliProcess {
    child: Child,
    stdout: PipeOutput,
    stderr: PipeOutput,
}

impl CliProcess {
    /// Starts a command. `input` is its standard input.
    pub(crate) fn start(folder: &Path, environment: &[(&str, &str)], arguments: &[&str], input: &[u8]) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_waypost"));
        command.args(arguments).current_dir(folder).env_clear().envs(environment.iter().copied());
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().expect("the program starts");
        let stdout = PipeOutput::collect(child.stdout.take().expect("stdout is piped"));
        let stderr = PipeOutput::collect(child.stderr.take().expect("stderr is piped"));
        let (mut stdin, input) = (child.stdin.take().expect("stdin is piped"), input.to_owned());
        // A command that does not read its input closes the pipe early.
        std::thread::spawn(move || stdin.write_all(&input));
        Self { child, stdout, stderr }
    }

    /// Waits until the command ends.
    pub(crate) async fn wait_for_exit(mut self) -> CommandOutput {
        let status = wait_until("the end of the program", DEFAULT_TIMEOUT, async || {
            // The output is complete once all writers have closed it.
            let over = self.stdout.is_closed() && self.stderr.is_closed();
            self.child.try_wait().expect("its status").filter(|_| over)
        });
        let code = status.await.code();
        CommandOutput { code, stdout: self.stdout.text(), stderr: self.stderr.text() }
    }

    /// Waits until standard error contains `text`.
    pub(crate) async fn wait_for_stderr(&self, text: &str) {
        wait_until(text, DEFAULT_TIMEOUT, async || self.stderr.text().contains(text).then_some(())).await;
    }

    /// Sends SIGTERM.
    pub(crate) fn terminate(&self) {
        self.signal("-TERM");
    }

    /// Sends SIGINT, as Ctrl-C does.
    pub(crate) fn interrupt(&self) {
        self.signal("-INT");
    }

    fn signal(&self, signal: &str) {
        let status = Command::new("kill").args([signal, &self.child.id().to_string()]).status().expect("kill runs");
        assert!(status.success(), "kill: {status}");
    }
}

impl Drop for CliProcess {
    fn drop(&mut self) {
        // The process has usually ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            eprintln!("--- output of the program:\n{}{}\n---", self.stdout.text(), self.stderr.text());
        }
    }
}

/// The bytes read from a pipe, and whether it is closed.
#[derive(Clone, Default)]
struct PipeOutput(Arc<Mutex<(Vec<u8>, bool)>>);

impl PipeOutput {
    fn collect(mut pipe: impl Read + Send + 'static) -> Self {
        let output = Self::default();
        let written = output.clone();
        std::thread::spawn(move || {
            let mut piece = [0; 4096];
            while let Ok(length @ 1..) = pipe.read(&mut piece) {
                written.with(|(bytes, _)| bytes.extend_from_slice(&piece[..length]));
            }
            written.with(|(_, over)| *over = true);
        });
        output
    }

    fn with<T>(&self, work: impl FnOnce(&mut (Vec<u8>, bool)) -> T) -> T {
        work(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn text(&self) -> String {
        self.with(|(bytes, _)| String::from_utf8_lossy(bytes).into_owned())
    }

    fn is_closed(&self) -> bool {
        self.with(|(_, over)| *over)
    }
}
