//! The log lines of a worker that reads many changes: one a second, not one for each change.

use std::time::{Duration, Instant};

/// Time between two lines.
const INTERVAL: Duration = Duration::from_secs(1);

/// Counts the changes since the last line.
pub(super) struct CatchUpLog {
    last_line: Instant,
    changes: u64,
}

impl CatchUpLog {
    pub(super) fn new() -> Self {
        Self { last_line: Instant::now(), changes: 0 }
    }

    /// Counts changes that were applied by `now`. Returns the number to log, if it is time for a line.
    pub(super) fn count(&mut self, changes: u64, now: Instant) -> Option<u64> {
        self.changes += changes;
        if self.changes == 0 || now.duration_since(self.last_line) < INTERVAL {
            return None;
        }
        self.last_line = now;
        Some(std::mem::take(&mut self.changes))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_written_at_most_once_a_second_and_counts_all_changes() {
        let mut log = CatchUpLog::new();
        let start = log.last_line;
        for (milliseconds, changes, expected) in [
            (0, 5, None),
            (999, 2, None),
            (1000, 3, Some(10)),
            (1500, 4, None),
            (2100, 0, Some(4)),
            (9000, 0, None),
            (9000, 1, Some(1)),
        ] {
            let logged = log.count(changes, start + Duration::from_millis(milliseconds));
            assert_eq!(logged, expected, "{milliseconds} ms");
        }
    }
}
