//! `waypost serve`: runs a worker until SIGTERM or Ctrl-C. SIGHUP reloads the settings.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use clap::Args;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio_util::sync::CancellationToken;

use super::error::CliError;
use super::settings::Settings;
use crate::app::{App, ReloadHandle};
use crate::config::Config;
use crate::reload::{self, Changes};
use crate::telemetry::{self, Telemetry};

/// How long the export of the last spans may take at the end.
const SPAN_EXPORT_TIMEOUT: Duration = Duration::from_secs(1);

#[derive(Args)]
pub(super) struct Serve {
    #[command(flatten)]
    settings: Settings,
}

impl Serve {
    pub(super) async fn run(mut self) -> Result<(), CliError> {
        // Before anything else: without a handler SIGHUP ends the process.
        let reload_signals = signal(SignalKind::hangup()).map_err(CliError::new)?;
        let config = self.settings.load_and_pin_file()?;
        let telemetry = telemetry::start(&config.log, &config.telemetry).map_err(CliError::new)?;
        // Each request needs a connection, and many systems begin with 1024 open files.
        if let Err(error) = rlimit::increase_nofile_limit(u64::MAX) {
            tracing::warn!(%error, "limit of open files not raised");
        }
        let stop = CancellationToken::new();
        stop_on_signals(stop.clone())?;
        let app = App::build(&config).await.map_err(CliError::new)?;
        let telemetry = Arc::new(telemetry);
        let reload = self.reload(config, app.reload_handle(), telemetry.clone(), reload_signals);
        let result = tokio::select! {
            result = app.run(stop) => result.map_err(CliError::new),
            never = reload => match never {},
        };
        // The collector may hang.
        let export = tokio::task::spawn_blocking(move || telemetry.shutdown());
        if tokio::time::timeout(SPAN_EXPORT_TIMEOUT, export).await.is_err() {
            tracing::warn!("export of the last spans timed out");
        }
        result
    }

    /// Reloads the settings at each SIGHUP, and applies those that can change while a worker runs.
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
            let new = match self.settings.load_and_pin_file() {
                Ok(new) => new,
                Err(CliError::Failed(errors) | CliError::Usage(errors)) => {
                    tracing::error!(errors, "settings not reloaded, the old ones stay");
                    continue;
                }
            };
            let Changes { applied, needs_restart } = Changes::between(&config, &new);
            config = reload::merge(&config, new);
            adjuster.apply(&config);
            telemetry.set_level(config.log.level);
            tracing::info!(?applied, "settings reloaded");
            if telemetry::is_level_set_by_environment() && applied.iter().any(|change| change.starts_with("log.level:"))
            {
                tracing::warn!("log.level ignored, RUST_LOG is set");
            }
            if !needs_restart.is_empty() {
                tracing::warn!(?needs_restart, "settings changes need a restart");
            }
        }
    }
}

/// Cancels `stop` at the first SIGTERM or SIGINT. The second one ends the process at once.
pub(super) fn stop_on_signals(stop: CancellationToken) -> Result<(), CliError> {
    let mut terminate = signal(SignalKind::terminate()).map_err(CliError::new)?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(CliError::new)?;
    tokio::spawn(async move {
        for is_second in [false, true] {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
            if is_second {
                std::process::exit(1);
            }
            tracing::info!("stop requested, a second signal stops at once");
            stop.cancel();
        }
    });
    Ok(())
}
