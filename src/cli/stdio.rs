//! Standard output and standard error, whose readers may leave early (`waypost check | head`).

use std::io::Write as _;

/// Prints a line. Where nobody reads any more the command goes on to its end, unheard.
pub(in crate::cli) fn line(text: std::fmt::Arguments<'_>) {
    let _ = writeln!(std::io::stdout(), "{text}");
}

/// Prints a text that ends its own last line.
pub(in crate::cli) fn print(text: &str) {
    let _ = std::io::stdout().write_all(text.as_bytes());
}

/// A line on standard error.
pub(in crate::cli) fn note(text: std::fmt::Arguments<'_>) {
    let _ = writeln!(std::io::stderr(), "{text}");
}

/// As `println!`, which panics where nobody reads any more.
macro_rules! say {
    ($($text:tt)*) => {
        $crate::cli::stdio::line(format_args!($($text)*))
    };
}
pub(in crate::cli) use say;

/// As `eprintln!`, which panics where nobody reads any more.
macro_rules! tell {
    ($($text:tt)*) => {
        $crate::cli::stdio::note(format_args!($($text)*))
    };
}
pub(in crate::cli) use tell;
