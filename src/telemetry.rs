//! Logs: for people on a terminal, as JSON for programs, always on standard error.

use std::io::IsTerminal as _;

use tracing_subscriber::EnvFilter;

use crate::config::{LogConfig, LogFormat};

/// Starts logging. `RUST_LOG` overrides the level. The audit is written at any level of the settings. Other libraries are heard from `warn` on; lapin never, because we
/// report its errors ourselves, and because it logs the bodies of messages.
pub fn start(log: &LogConfig) {
    let mut filter = EnvFilter::try_from_default_env()
        .unwrap_or_else(|_| EnvFilter::new(format!("warn,waypost={},waypost::audit=info", log.level.as_str())));
    if let Ok(silence) = "lapin=off".parse() {
        filter = filter.add_directive(silence);
    }
    let human = match log.format {
        LogFormat::Auto => std::io::stderr().is_terminal(),
        LogFormat::Human => true,
        LogFormat::Json => false,
    };
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    // A second start, as in tests, leaves the first one as it is.
    let _ = if human {
        builder.with_target(false).with_ansi(std::io::stderr().is_terminal()).try_init()
    } else {
        builder.json().flatten_event(true).with_current_span(false).with_span_list(false).try_init()
    };
}
