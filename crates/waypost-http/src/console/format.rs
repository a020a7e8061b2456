//! Formats counts, rates, durations and shares for display.

use std::fmt;

use indicatif::HumanCount;

/// Shown instead of an unknown number.
pub(super) const UNKNOWN: &str = "–";

/// Displays `40,000`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Count(pub(super) u64);

impl fmt::Display for Count {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        HumanCount(self.0).fmt(f)
    }
}

impl askama::filters::HtmlSafe for Count {}

pub(super) fn count(count: u64) -> String {
    Count(count).to_string()
}

/// A rate per second. Small rates have one decimal.
pub(super) fn rate(rate: f64) -> String {
    if rate > 0.0 && rate < 9.95 {
        return if rate < 0.05 { "under 0.1".to_owned() } else { format!("{rate:.1}") };
    }
    count(rate.round() as u64)
}

/// A duration in a fitting unit, with two or three significant digits.
pub(super) fn seconds(seconds: f64) -> String {
    let ms = seconds * 1000.0;
    match seconds {
        _ if ms < 9.95 => format!("{ms:.1} ms"),
        _ if ms < 999.5 => format!("{ms:.0} ms"),
        _ if seconds < 9.95 => format!("{seconds:.1} s"),
        _ if seconds < 120.0 => format!("{seconds:.0} s"),
        _ if seconds < 7_200.0 => format!("{:.0} min", seconds / 60.0),
        _ if seconds < 172_800.0 => format!("{:.0} h", seconds / 3_600.0),
        _ => format!("{:.0} days", seconds / 86_400.0),
    }
}

/// A share from 0 to 1 in percent. Only exactly 0 is shown as `0 %`, and only exactly 1 as `100 %`.
pub(super) fn percent(share: f64) -> String {
    match share * 100.0 {
        percent if percent > 0.0 && percent < 1.0 => "under 1 %".to_owned(),
        percent if percent > 99.0 && percent < 100.0 => "over 99 %".to_owned(),
        percent => format!("{percent:.0} %"),
    }
}

/// The length of a bar in percent. At least 1 if `count` is not 0, so that the bar is visible.
pub(super) fn bar_percent(count: u64, total: u64) -> u64 {
    let percent = u128::from(count) * 100 / u128::from(total.max(1));
    u64::try_from(percent).unwrap_or(100).clamp(u64::from(count > 0), 100)
}

/// `one endpoint`, `3 endpoints`
pub(super) fn counted(number: u64, one: &str, many: &str) -> String {
    if number == 1 { format!("one {one}") } else { format!("{} {many}", Count(number)) }
}

/// Indents JSON. Other text stays unchanged.
pub(super) fn indented(text: &str) -> String {
    serde_json::from_str::<serde_json::Value>(text).map_or_else(|_| text.to_owned(), |value| format!("{value:#}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_formatted_for_people() {
        let counts = [0, 7, 999, 1000, 12_345, 1_234_567].map(|count| Count(count).to_string());
        assert_eq!(counts, ["0", "7", "999", "1,000", "12,345", "1,234,567"]);
        let lengths =
            [bar_percent(0, 0), bar_percent(0, 9), bar_percent(1, 1_000_000), bar_percent(1, 2), bar_percent(9, 9)];
        assert_eq!(lengths, [0, 0, 1, 50, 100]);
        let rates = [0.0, 0.01, 0.2, 9.94, 9.96, 1234.4].map(rate);
        assert_eq!(rates, ["0", "under 0.1", "0.2", "9.9", "10", "1,234"]);
        let times = [0.0, 0.0025, 0.0123, 0.9994, 1.0, 9.96, 119.0, 600.0, 20_000.0, 172_800.0].map(seconds);
        assert_eq!(times, ["0.0 ms", "2.5 ms", "12 ms", "999 ms", "1.0 s", "10 s", "119 s", "10 min", "6 h", "2 days"]);
        let shares = [0.0, 0.001, 0.25, 0.995, 1.0].map(percent);
        assert_eq!(shares, ["0 %", "under 1 %", "25 %", "over 99 %", "100 %"]);
        assert_eq!(
            [1, 0, 4000].map(|number| counted(number, "letter", "letters")),
            ["one letter", "0 letters", "4,000 letters"]
        );
    }
}
