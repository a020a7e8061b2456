//! Progress for people who wait.

use indicatif::{ProgressBar, ProgressStyle};

/// A progress bar on a terminal, otherwise a line.
pub(crate) fn bar(length: u64, doing: &str) -> ProgressBar {
    let style = ProgressStyle::with_template(&format!("{{bar:30}} {{human_pos}}/{{human_len}} {doing} {{msg}}"));
    let bar = ProgressBar::new(length).with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
    if bar.is_hidden() {
        eprintln!("{doing}");
    }
    bar
}
