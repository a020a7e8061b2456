//! Progress of what takes long: drawn on a terminal only, and on standard error, so that the output stays the result.

use std::io::IsTerminal as _;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

/// A bar over `length`, or a counter where nobody knows how much there is.
pub(super) fn bar(length: Option<u64>, template: &str) -> ProgressBar {
    let target = if is_seen() { ProgressDrawTarget::stderr() } else { ProgressDrawTarget::hidden() };
    let style = ProgressStyle::with_template(template);
    ProgressBar::with_draw_target(length, target).with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()))
}

/// Whether there is somebody to see it.
pub(super) fn is_seen() -> bool {
    std::io::stderr().is_terminal()
}
