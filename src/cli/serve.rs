//! `waypost serve`: a worker, until SIGTERM or Ctrl-C. At SIGHUP it reads its settings again.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use clap::Args;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio_util::sync::CancellationToken;

use super::{CliError, Settings};
use crate::app::{App, ReloadHandle};
use crate::config::Config;
use crate::reload::{self, Changes};
use crate::telemetry::{self, Telemetry};

/// The last spans may take so long, after all else is done.
const LAST_SPANS: Duration = Duration::from_secs(1);

#[derive(Args)]
pub(super) struct Serve {
    #[command(flatten)]
    settings: Settings,
}

impl Serve {
    pub(super) async fn run(mut self) -> Result<(), CliError> {
        // From now on: it would end the process until somebody listens.
        let reloading = signal(SignalKind::hangup()).map_err(CliError::new)?;
        let config = self.settings.load_again()?;
        let telemetry = telemetry::start(&config.log, &config.telemetry).map_err(CliError::new)?;
        // Each request needs a connection, and many systems begin with 1024 open files.
        if let Err(error) = rlimit::increase_nofile_limit(u64::MAX) {
            tracing::warn!(%error, "limit of open files not raised");
        }
        let stop = CancellationToken::new();
        stop_on_signals(stop.clone())?;
        let app = App::build(&config).await.map_err(CliError::new)?;
        let telemetry = Arc::new(telemetry);
        let reload = self.reload(config, app.adjuster(), telemetry.clone(), reloading);
        let ended = tokio::select! {
            ended = app.run(stop) => ended.map_err(CliError::new),
            never = reload => match never {},
        };
        // It waits for the collector, which may hang.
        let exported = tokio::task::spawn_blocking(move || telemetry.end());
        if tokio::time::timeout(LAST_SPANS, exported).await.is_err() {
            tracing::warn!("the last spans were not exported in time");
        }
        ended
    }

    /// Reads the settings again at each SIGHUP, and takes over what can change while a worker runs.
    async fn reload(
        &mut self,
        mut config: Config,
        adjuster: ReloadHandle,
        telemetry: Arc<Telemetry>,
        mut signals: Signal,
    ) -> Infallible {
        loop {
            if signals.recv().await.is_none() {
                std::future::pending::<()>().await;
            }
            let new = match self.settings.load_again() {
                Ok(new) => new,
                Err(CliError::Failed(faults) | CliError::Usage(faults)) => {
                    tracing::error!(faults, "the settings are as they were: those that were to be read have faults");
                    continue;
                }
            };
            let Changes { taken, refused } = Changes::between(&config, &new);
            config = reload::merged(&config, new);
            adjuster.adjust(&config);
            telemetry.set_level(config.log.level);
            tracing::info!(?taken, "settings read again");
            if telemetry::is_chosen_by_environment() && taken.iter().any(|change| change.starts_with("log.level:")) {
                tracing::warn!(
                    "what is logged stays as it is: RUST_LOG is set, and log.level counts only where it is not"
                );
            }
            if !refused.is_empty() {
                tracing::warn!(?refused, "these settings change only with another start of the worker");
            }
        }
    }
}

/// Cancels `stop` at the first SIGTERM or SIGINT; at the second the process ends at once.
pub(super) fn stop_on_signals(stop: CancellationToken) -> Result<(), CliError> {
    let mut terminate = signal(SignalKind::terminate()).map_err(CliError::new)?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(CliError::new)?;
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
