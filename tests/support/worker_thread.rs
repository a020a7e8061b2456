//! A worker in the process of the test, on a thread with its own runtime.

use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use tokio::runtime::{Builder, Runtime};
use tokio_util::sync::CancellationToken;
use tracing::Dispatch;
use tracing_subscriber::EnvFilter;
use waypost::app::App;
use waypost::config::Config;

/// As in `waypost serve`. The subscriber of a test only shows why the test fails.
const LOG_FILTER: &str = "warn,waypost=info,lapin=off,waypost_spans=off";

/// Store operations that outlive the worker's tasks get this time.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(5);

/// Dropping this stops the worker as SIGTERM does, and waits until its store is closed.
pub(crate) struct WorkerThread {
    stop: CancellationToken,
    thread: Option<JoinHandle<()>>,
}

impl WorkerThread {
    /// Starts a worker with settings from `environment` only. Panics if they are invalid. Log lines go to `lines`.
    pub(crate) fn start(folder: &Path, environment: &[(String, String)], lines: Arc<Mutex<Vec<String>>>) -> Self {
        let config = Config::load_from(folder, None, environment.iter().cloned(), &[]);
        let config = config.unwrap_or_else(|error| panic!("{error}"));
        let stop = CancellationToken::new();
        let stopped = stop.clone();
        let work = move || {
            let log = subscriber(lines);
            let _log = tracing::dispatcher::set_default(&log);
            let runtime = runtime(log);
            let work = async { App::build(&config).await?.run(stopped).await };
            if let Err(error) = runtime.block_on(Box::pin(work)) {
                panic!("the worker failed: {error}");
            }
            runtime.shutdown_timeout(CLOSE_TIMEOUT);
        };
        let thread = std::thread::Builder::new().name("worker".to_owned()).spawn(work).expect("a thread");
        Self { stop, thread: Some(thread) }
    }

    /// Returns whether the worker failed.
    pub(crate) fn has_ended(&self) -> bool {
        self.thread.as_ref().is_none_or(JoinHandle::is_finished)
    }
}

impl Drop for WorkerThread {
    fn drop(&mut self) {
        self.stop.cancel();
        if let Some(thread) = self.thread.take() {
            // A panic of the thread was already printed.
            let _ = thread.join();
        }
    }
}

/// A runtime whose threads log to `log`. The product blocks in place, so one thread is not enough.
fn runtime(log: Dispatch) -> Runtime {
    // Without the guard, the subscriber stays until the end of the thread.
    let set_log = move || std::mem::forget(tracing::dispatcher::set_default(&log));
    Builder::new_multi_thread().worker_threads(2).enable_all().on_thread_start(set_log).build().expect("a runtime")
}

fn subscriber(lines: Arc<Mutex<Vec<String>>>) -> Dispatch {
    let writer = move || LineWriter(Arc::clone(&lines));
    tracing_subscriber::fmt().json().with_env_filter(EnvFilter::new(LOG_FILTER)).with_writer(writer).finish().into()
}

/// Receives each log line in one piece.
struct LineWriter(Arc<Mutex<Vec<String>>>);

impl io::Write for LineWriter {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        let text = String::from_utf8_lossy(line).trim_end().to_owned();
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(text);
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
