//! Ends a benchmark by SIGTERM or Ctrl-C.

use std::process::ExitCode;

use tokio::signal::unix::{SignalKind, signal};

/// Runs `work` until it ends or a signal comes. A signal drops `work`, which ends everything that it started, and gives
/// the exit code.
pub(crate) async fn until_interrupted<T>(work: impl Future<Output = T>) -> Result<T, ExitCode> {
    let mut terminate = signal(SignalKind::terminate()).expect("a signal handler");
    tokio::select! {
        result = work => Ok(result),
        _ = terminate.recv() => Err(ExitCode::from(143)),
        _ = tokio::signal::ctrl_c() => Err(ExitCode::from(130)),
    }
}
