//! The machine: its clock, how many files may be open, the address to listen on, and the folder of the local view.

use std::io::ErrorKind;
use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::time::{Duration, Instant, SystemTime};

use super::Finding;
use crate::config::Config;
use crate::store::free_bytes;

/// The clock is watched for this long.
const WATCHED: Duration = Duration::from_millis(500);

/// It is being set if it differs by more from time that passes.
const LARGEST_STEP: Duration = Duration::from_millis(50);

/// No clock that is right shows less: 2026-01-01, in seconds.
const THE_PAST: u64 = 1_767_225_600;

/// Below this the view's folder is soon full.
const LITTLE_ROOM: u64 = 1024 * 1024 * 1024;

/// Below this it is.
const NO_ROOM: u64 = 64 * 1024 * 1024;

/// Deliveries that were parked together and are in hand at once, about.
const PARKED_TOGETHER: u64 = 3000;

/// Connections of the API, to the broker, files of the view.
const OTHER_FILES: u64 = 512 + 64 + 256;

pub(super) fn findings(config: &Config) -> Vec<Finding> {
    let window = u64::from(config.broker.prefetch);
    // Each delivery in hand may have a connection of its own: of each queue so many messages are in hand, and what was parked together is
    // one message of many deliveries.
    let needed = 2 * window + PARKED_TOGETHER + OTHER_FILES;
    let limits = std::fs::read_to_string("/proc/self/limits").ok();
    vec![
        clock(SystemTime::now(), step()),
        open_files(limits.as_deref().and_then(most_open_files), needed),
        address(config.http.listen),
        folder(&config.store.path),
    ]
}

/// How far the clock moves from the time that passes meanwhile.
fn step() -> Duration {
    let (began, clock) = (Instant::now(), SystemTime::now());
    std::thread::sleep(WATCHED);
    let moved = SystemTime::now().duration_since(clock).unwrap_or_default();
    moved.abs_diff(began.elapsed())
}

fn clock(now: SystemTime, step: Duration) -> Finding {
    let seconds = now.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs();
    let shown = humantime::format_rfc3339_seconds(now);
    let advice = "have it kept in step by NTP: receivers refuse signatures that are five minutes off";
    if seconds < THE_PAST {
        Finding::bad("clock", format!("it shows {shown}, which is past"), advice)
    } else if step > LARGEST_STEP {
        Finding::doubtful("clock", format!("it was moved by {} ms while being looked at", step.as_millis()), advice)
    } else {
        Finding::good("clock", format!("it shows {shown} and runs evenly"))
    }
}

fn open_files(most: Option<u64>, needed: u64) -> Finding {
    match most {
        None => {
            Finding::doubtful("open files", "their limit can't be read here", "see that `ulimit -n` is large enough")
        }
        Some(most) if most < needed => Finding::doubtful(
            "open files",
            format!("at most {most}, and with broker.prefetch as it is up to {needed} may be needed"),
            "raise the limit (LimitNOFILE= of systemd, `ulimit -n`), or lower broker.prefetch",
        ),
        Some(most) => Finding::good("open files", format!("at most {most}; up to {needed} may be needed")),
    }
}

/// The hard limit, of `/proc/self/limits`: a worker raises its soft one to it.
fn most_open_files(limits: &str) -> Option<u64> {
    let line = limits.lines().find_map(|line| line.strip_prefix("Max open files"))?;
    let hard = line.split_whitespace().nth(1)?;
    if hard == "unlimited" { Some(u64::MAX) } else { hard.parse().ok() }
}

fn address(listen: SocketAddr) -> Finding {
    match TcpListener::bind(listen) {
        Ok(_) => Finding::good("address", format!("{listen} is free")),
        Err(error) if error.kind() == ErrorKind::AddrInUse => {
            let advice = "where that is no worker, set http.listen to another port; so also for a second worker here";
            Finding::doubtful("address", format!("somebody listens on {listen} already"), advice)
        }
        Err(error) => {
            let advice = match error.kind() {
                ErrorKind::PermissionDenied => {
                    "set http.listen to a port over 1023, or give the worker CAP_NET_BIND_SERVICE"
                }
                _ => "set http.listen to an address of this machine",
            };
            Finding::bad("address", format!("{listen}: {error}"), advice)
        }
    }
}

fn folder(path: &Path) -> Finding {
    let shown = path.display();
    // A worker makes it when it starts: until then what counts is the folder it will be in.
    let there = path.ancestors().find(|part| part.exists()).unwrap_or(Path::new("."));
    if !there.is_dir() {
        let advice = "set store.path to a folder that is the worker's own";
        return Finding::bad("folder", format!("{shown} can't be made: {} is a file", there.display()), advice);
    }
    if let Err(error) = tempfile::tempfile_in(there) {
        let advice = "give the user that runs the worker the right to write there, or set store.path";
        return Finding::bad("folder", format!("{shown} can't be written to: {error}"), advice);
    }
    let Some(free) = free_bytes(there) else {
        return Finding::good("folder", format!("{shown} can be written to"));
    };
    let found = format!("{shown} can be written to, and {} MB are free", free / 1_000_000);
    let advice =
        "make room, or set store.path: the view grows with the dead letters that are kept (deadLetters.retention)";
    if free < NO_ROOM {
        Finding::bad("folder", found, advice)
    } else if free < LITTLE_ROOM {
        Finding::doubtful("folder", found, advice)
    } else {
        Finding::good("folder", found)
    }
}

#[cfg(test)]
mod tests {
    use super::super::CheckResult;
    use super::*;

    #[test]
    fn limits_are_read() {
        let limits = "Limit                     Soft Limit           Hard Limit           Units\n\
                      Max processes             95990                95990                processes\n\
                      Max open files            1024                 524288               files\n";
        assert_eq!(most_open_files(limits), Some(524_288));
        assert_eq!(
            most_open_files("Max open files            unlimited            unlimited            files"),
            Some(u64::MAX)
        );
        assert_eq!(most_open_files(""), None);
    }

    #[test]
    fn verdicts() {
        let today = SystemTime::UNIX_EPOCH + Duration::from_secs(THE_PAST + 1);
        assert_eq!(clock(today, Duration::ZERO).verdict, CheckResult::Good);
        assert_eq!(clock(today, Duration::from_secs(3)).verdict, CheckResult::Doubtful);
        assert_eq!(clock(SystemTime::UNIX_EPOCH, Duration::ZERO).verdict, CheckResult::Bad);
        assert_eq!(open_files(Some(1024), 2832).verdict, CheckResult::Doubtful);
        assert_eq!(open_files(Some(65_536), 2832).verdict, CheckResult::Good);
        assert_eq!(folder(Path::new("/proc/none/of/this")).verdict, CheckResult::Bad);
        for file in ["/proc/version", "/proc/version/view"] {
            let found = folder(Path::new(file));
            assert!(found.verdict == CheckResult::Bad && found.found.contains("/proc/version is a file"), "{found:?}");
        }
    }

    #[test]
    fn an_address_is_free_taken_or_of_another_machine() {
        let loopback = SocketAddr::from(([127, 0, 0, 1], 0));
        assert_eq!(address(loopback).verdict, CheckResult::Good);
        let taken = TcpListener::bind(loopback).expect("a port");
        assert_eq!(address(taken.local_addr().expect("its address")).verdict, CheckResult::Doubtful);
        // Of the block for documentation (RFC 5737): no machine has it.
        assert_eq!(address(SocketAddr::from(([192, 0, 2, 1], 80))).verdict, CheckResult::Bad);
    }
}
