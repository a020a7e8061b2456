//! What a worker says of itself beside its metrics: logs, on standard error, for people on a terminal and as JSON for
//! programs; and, where `telemetry.otlpEndpoint` is set, [`spans`] of the stages of each delivery.

mod export;
pub mod spans;

use std::io::IsTerminal as _;

use opentelemetry_sdk::trace::SdkTracerProvider;
use tracing::Dispatch;
use tracing_subscriber::filter::Directive;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{EnvFilter, Layer as _, Registry, fmt, reload};

use crate::config::{LogConfig, LogFormat, LogLevel, TelemetryConfig};

/// Heard whatever the settings and `RUST_LOG` say: the audit, which is no matter of taste, always; lapin never, because we
/// report its errors ourselves, and because it logs the bodies of messages; spans never, which would be made for each message
/// then (`waypost=info` is a prefix of their target).
const FIXED: [&str; 3] = ["waypost::audit=info", "lapin=off", "waypost_spans=off"];

/// No spans could be exported.
#[derive(Debug, thiserror::Error)]
#[error("telemetry.otlpEndpoint: {0}")]
pub struct TelemetryError(String);

/// What was started.
pub struct Telemetry {
    filter: reload::Handle<EnvFilter, Registry>,
    spans: Option<SdkTracerProvider>,
}

/// Starts logging, and exporting spans where that is configured. `RUST_LOG` overrides the level. Other libraries are heard from
/// `warn` on. A second start, as in tests, leaves the first one as it is.
///
/// # Errors
/// [`TelemetryError`].
pub fn start(log: &LogConfig, telemetry: &TelemetryConfig) -> Result<Telemetry, TelemetryError> {
    let spans = telemetry.otlp_endpoint.as_ref().map(export::provider).transpose()?;
    let (listening, filter) = listening(log, spans.as_ref());
    let _ = listening.try_init();
    Ok(Telemetry { filter, spans })
}

/// Who listens to what a worker says, and what the log leaves out of it. Without `spans` nobody is put in for them: to
/// `tracing_subscriber` a layer of nothing wants all that the log does not.
fn listening(log: &LogConfig, spans: Option<&SdkTracerProvider>) -> (Dispatch, reload::Handle<EnvFilter, Registry>) {
    let is_terminal = std::io::stderr().is_terminal();
    let is_human = match log.format {
        LogFormat::Auto => is_terminal,
        LogFormat::Human => true,
        LogFormat::Json => false,
    };
    let (filter, handle) = reload::Layer::new(filter(log.level));
    let lines = fmt::layer().with_writer(std::io::stderr);
    let lines = match is_human {
        true => lines.with_target(false).with_ansi(is_terminal).boxed(),
        false => lines.json().flatten_event(true).with_current_span(false).with_span_list(false).boxed(),
    };
    let logging = tracing_subscriber::registry().with(lines.with_filter(filter));
    let listening = match spans {
        Some(spans) => logging.with(export::layer(spans)).into(),
        None => logging.into(),
    };
    (listening, handle)
}

impl Telemetry {
    /// Logs from another level on.
    pub fn set_level(&self, level: LogLevel) {
        if let Err(error) = self.filter.reload(filter(level)) {
            tracing::warn!(%error, "the level of the log is as it was");
        }
    }

    /// Exports what is left.
    pub fn end(&self) {
        if let Some(Err(error)) = self.spans.as_ref().map(SdkTracerProvider::shutdown) {
            tracing::warn!(%error, "the last spans were not exported");
        }
    }
}

/// Whether `RUST_LOG` says what is logged, whatever `log.level` is.
pub fn is_chosen_by_environment() -> bool {
    EnvFilter::try_from_default_env().is_ok()
}

fn filter(level: LogLevel) -> EnvFilter {
    let chosen = EnvFilter::try_from_default_env()
        .unwrap_or_else(|_| EnvFilter::new(format!("warn,waypost={}", level.as_str())));
    let fixed = FIXED.iter().filter_map(|directive| directive.parse::<Directive>().ok());
    fixed.fold(chosen, EnvFilter::add_directive)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Making them costs more than all else that is done for a delivery.
    #[test]
    fn the_log_makes_no_spans() {
        for level in [LogLevel::Info, LogLevel::Trace] {
            let (listening, _filter) = listening(&LogConfig { level, format: LogFormat::Json }, None);
            tracing::dispatcher::with_default(&listening, || {
                assert!(spans::publish().is_disabled() && spans::event(None, 0, None).is_disabled(), "{level:?}");
            });
        }
    }
}
