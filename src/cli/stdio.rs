//! Writes to standard output and standard error. A reader that leaves early (`waypost check | head`) is no failure.

use std::io::Write as _;

/// Prints a line. Ignores errors: the command continues if nobody reads its output.
pub(in crate::cli) fn write_line(text: std::fmt::Arguments<'_>) {
    let _ = writeln!(std::io::stdout(), "{text}");
}

/// Prints text that has its own line ends.
pub(in crate::cli) fn print(text: &str) {
    let _ = std::io::stdout().write_all(text.as_bytes());
}

pub(in crate::cli) fn write_error_line(text: std::fmt::Arguments<'_>) {
    let _ = writeln!(std::io::stderr(), "{text}");
}

/// Like `println!`, which panics if standard output is closed.
macro_rules! out {
    ($($text:tt)*) => {
        $crate::cli::stdio::write_line(format_args!($($text)*))
    };
}
pub(in crate::cli) use out;

/// Like `eprintln!`, which panics if standard error is closed.
macro_rules! note {
    ($($text:tt)*) => {
        $crate::cli::stdio::write_error_line(format_args!($($text)*))
    };
}
pub(in crate::cli) use note;
