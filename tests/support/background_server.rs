//! A thread with a runtime of its own, for the servers the tests bring along: a test that blocks its runtime or fills its
//! processor does not slow them, and they end with the value that owns them.

use std::future::Future;
use std::thread::JoinHandle;

use tokio::sync::oneshot;

/// Owns the thread; ends it, and all its tasks, when dropped.
pub(crate) struct BackgroundServer {
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl BackgroundServer {
    /// Runs the future that `serve` makes, and whatever it spawns.
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
            // Its panic, if any, has been printed already.
            let _ = thread.join();
        }
    }
}
