//! Logs: for people on a terminal, as JSON for programs, always on standard error.

use std::io::IsTerminal as _;

use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::Directive;

use crate::config::{LogConfig, LogFormat};

/// Heard whatever the settings and `RUST_LOG` say: the audit, which is no matter of taste, always; lapin never, because we
/// report its errors ourselves, and because it logs the bodies of messages.
const FIXED: [&str; 2] = ["waypost::audit=info", "lapin=off"];

/// Starts logging. `RUST_LOG` overrides the level. Other libraries are heard from `warn` on.
pub fn start(log: &LogConfig) {
    let chosen = EnvFilter::try_from_default_env()
        .unwrap_or_else(|_| EnvFilter::new(format!("warn,waypost={}", log.level.as_str())));
    let fixed = FIXED.iter().filter_map(|directive| directive.parse::<Directive>().ok());
    let filter = fixed.fold(chosen, EnvFilter::add_directive);
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
