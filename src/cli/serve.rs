//! `waypost serve`: a worker, until SIGTERM or Ctrl-C.

use clap::Args;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

use super::{Failure, Settings};
use crate::app::App;
use crate::telemetry;

#[derive(Args)]
pub(super) struct Serve {
    #[command(flatten)]
    settings: Settings,
}

impl Serve {
    pub(super) async fn run(self) -> Result<(), Failure> {
        let config = self.settings.load()?;
        telemetry::start(&config.log);
        let stop = CancellationToken::new();
        stop_on_signals(stop.clone())?;
        let app = App::build(&config).await.map_err(Failure::of)?;
        app.run(stop).await.map_err(Failure::of)
    }
}

/// Cancels `stop` at the first SIGTERM or SIGINT; at the second the process ends at once.
pub(super) fn stop_on_signals(stop: CancellationToken) -> Result<(), Failure> {
    let mut terminate = signal(SignalKind::terminate()).map_err(Failure::of)?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(Failure::of)?;
    tokio::spawn(async move {
        for last in [false, true] {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
            if last {
                std::process::exit(1);
            }
            tracing::info!("asked to stop; once more to stop at once");
            stop.cancel();
        }
    });
    Ok(())
}
