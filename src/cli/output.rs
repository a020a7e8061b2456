//! Standard output, whose reader may leave early (`waypost check | head`).

use std::io::Write as _;

/// Prints a line. Where nobody reads any more there is nothing left to do: the process ends, and not in error.
pub(in crate::cli) fn line(text: std::fmt::Arguments<'_>) {
    if writeln!(std::io::stdout(), "{text}").is_err() {
        std::process::exit(0);
    }
}

/// As `println!`, which panics where nobody reads any more.
macro_rules! say {
    ($($text:tt)*) => {
        $crate::cli::output::line(format_args!($($text)*))
    };
}
pub(in crate::cli) use say;
