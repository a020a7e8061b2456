//! A thread with its own runtime for the servers of the tests. A test that blocks its runtime does not slow the server.

use std::future::Future;
use std::thread::JoinHandle;

use tokio::sync::oneshot;

/// Dropping this ends the thread and all its tasks.
pub(crate) struct BackgroundServer {
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl BackgroundServer {
    /// Runs the future that `serve` returns, and all tasks that it spawns.
    pub(crate) fn start<F: Future<Output = ()>>(name: &str, serve: impl FnOnce() -> F + Send + 'static) -> Self {
        let (stop, stopped) = oneshot::channel();
        let body = move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
            runtime.block_on(async move {
                tokio::select! {
                    () = serve() => (),
                    _ = stopped => (),
                }
            });
        };
        let thread = std::thread::Builder::new().name(name.to_owned()).spawn(body).expect("a thread");
        Self { stop: Some(stop), thread: Some(thread) }
    }
}

impl Drop for BackgroundServer {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            // A panic of the thread was already printed.
            let _ = thread.join();
        }
    }
}
