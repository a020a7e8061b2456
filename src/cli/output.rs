//! Standard output, whose reader may leave early (`waypost check | head`).

use std::io::Write as _;

/// Prints a line. Where nobody reads any more the command goes on to its end, unheard.
pub(in crate::cli) fn line(text: std::fmt::Arguments<'_>) {
    let _ = writeln!(std::io::stdout(), "{text}");
}

/// As `println!`, which panics where nobody reads any more.
macro_rules! say {
    ($($text:tt)*) => {
        $crate::cli::output::line(format_args!($($text)*))
    };
}
pub(in crate::cli) use say;
