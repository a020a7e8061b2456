//! Progress bars of long commands. They are on standard error, and only if it is a terminal.

use std::io::IsTerminal as _;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

/// A bar up to `length`, or a counter if the length is unknown.
pub(super) fn bar(length: Option<u64>, template: &str) -> ProgressBar {
    let target = if is_visible() { ProgressDrawTarget::stderr() } else { ProgressDrawTarget::hidden() };
    let style = ProgressStyle::with_template(template);
    ProgressBar::with_draw_target(length, target).with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()))
}

pub(super) fn is_visible() -> bool {
    std::io::stderr().is_terminal()
}
