//! Logs and traces. Logs go to standard error: as text on a terminal, otherwise as JSON. If `telemetry.otlpEndpoint` is
//! set, [`spans`](waypost_engine::spans) of each delivery are exported.

mod export;

use std::io::IsTerminal as _;

use opentelemetry_sdk::trace::SdkTracerProvider;
use tracing::Dispatch;
use tracing_subscriber::filter::Directive;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{EnvFilter, Layer as _, Registry, fmt, reload};

pub use self::export::TelemetryError;
use crate::config::{LogConfig, LogFormat, LogLevel, TelemetryConfig};

/// Filter directives that neither the settings nor `RUST_LOG` can change. The audit is always logged. lapin is silent:
/// it logs the bodies of messages, and Waypost reports its errors. Spans stay out of the log (`waypost=info` matches
/// their target).
const FIXED_DIRECTIVES: [&str; 3] = ["waypost::audit=info", "lapin=off", "waypost_spans=off"];

pub struct Telemetry {
    filter: reload::Handle<EnvFilter, Registry>,
    span_provider: Option<SdkTracerProvider>,
}

/// Starts logging, and the export of spans if configured. `RUST_LOG` overrides the level. Other libraries log from
/// `warn` up. A second start in the same process, as in tests, has no effect.
pub fn start(log: &LogConfig, telemetry: &TelemetryConfig) -> Result<Telemetry, TelemetryError> {
    let span_provider = telemetry.otlp_endpoint.as_ref().map(export::provider).transpose()?;
    let (subscriber, filter) = subscriber(log, span_provider.as_ref());
    let _ = subscriber.try_init();
    Ok(Telemetry { filter, span_provider })
}

/// The subscriber, and the handle that changes its filter. Without `span_provider` there is no span layer at all: an
/// empty layer would enable everything that the log filters out.
fn subscriber(
    log: &LogConfig,
    span_provider: Option<&SdkTracerProvider>,
) -> (Dispatch, reload::Handle<EnvFilter, Registry>) {
    let is_terminal = std::io::stderr().is_terminal();
    let is_human = match log.format {
        LogFormat::Auto => is_terminal,
        LogFormat::Human => true,
        LogFormat::Json => false,
    };
    let (filter, handle) = reload::Layer::new(filter(log.level));
    let layer = fmt::layer().with_writer(std::io::stderr);
    let layer = match is_human {
        true => layer.with_target(false).with_ansi(is_terminal).boxed(),
        false => layer.json().flatten_event(true).with_current_span(false).with_span_list(false).boxed(),
    };
    let registry = tracing_subscriber::registry().with(layer.with_filter(filter));
    let subscriber = match span_provider {
        Some(provider) => registry.with(export::layer(provider)).into(),
        None => registry.into(),
    };
    (subscriber, handle)
}

impl Telemetry {
    pub fn set_level(&self, level: LogLevel) {
        if let Err(error) = self.filter.reload(filter(level)) {
            tracing::warn!(%error, "log level not changed");
        }
    }

    /// Exports the remaining spans.
    pub fn shutdown(&self) {
        if let Some(Err(error)) = self.span_provider.as_ref().map(SdkTracerProvider::shutdown) {
            tracing::warn!(%error, "last spans not exported");
        }
    }
}

/// Whether `RUST_LOG` overrides `log.level`.
pub fn is_level_set_by_environment() -> bool {
    EnvFilter::try_from_default_env().is_ok()
}

fn filter(level: LogLevel) -> EnvFilter {
    let configured = EnvFilter::try_from_default_env()
        .unwrap_or_else(|_| EnvFilter::new(format!("warn,waypost={}", level.as_str())));
    let fixed = FIXED_DIRECTIVES.iter().filter_map(|directive| directive.parse::<Directive>().ok());
    fixed.fold(configured, EnvFilter::add_directive)
}

#[cfg(test)]
mod tests {
    use waypost_engine::spans;

    use super::*;

    /// Creating spans costs more than everything else in a delivery.
    #[test]
    fn no_spans_are_created_without_an_exporter() {
        for level in [LogLevel::Info, LogLevel::Trace] {
            let (subscriber, _filter) = subscriber(&LogConfig { level, format: LogFormat::Json }, None);
            tracing::dispatcher::with_default(&subscriber, || {
                assert!(spans::publish().is_disabled() && spans::event(None, 0, None).is_disabled(), "{level:?}");
            });
        }
    }
}
