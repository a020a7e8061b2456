//! Checks of the machine: the clock, the limit of open files, the listen address, and the folder of the store.

use std::io::ErrorKind;
use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::time::{Duration, Instant, SystemTime};

use waypost_store::free_bytes;

use super::finding::DoctorFinding;
use crate::config::Config;

/// How long the clock is watched.
const CLOCK_WATCH_TIME: Duration = Duration::from_millis(500);

/// Above this difference between clock and elapsed time, the clock was set.
const MAX_CLOCK_STEP: Duration = Duration::from_millis(50);

/// 2026-01-01, in Unix seconds. A clock before it is wrong.
const EARLIEST_VALID_SECONDS: u64 = 1_767_225_600;

/// Free space below which the store is soon full.
const LOW_DISK_BYTES: u64 = 1024 * 1024 * 1024;

/// Free space below which the store counts as full.
const FULL_DISK_BYTES: u64 = 64 * 1024 * 1024;

/// About how many deliveries of batches of parked deliveries are in flight at once.
const PARKED_DELIVERIES: u64 = 3000;

/// Connections of the API, connections to the broker, and files of the store.
const OTHER_FILES: u64 = 512 + 64 + 256;

pub(super) fn findings(config: &Config) -> Vec<DoctorFinding> {
    let prefetch = u64::from(config.broker.prefetch);
    // Each delivery in flight may have its own connection. There are two queues of `prefetch` messages each, and a
    // batch of parked deliveries is one message.
    let needed = 2 * prefetch + PARKED_DELIVERIES + OTHER_FILES;
    let limits = std::fs::read_to_string("/proc/self/limits").ok();
    vec![
        clock(SystemTime::now(), clock_step()),
        open_files(limits.as_deref().and_then(open_files_limit), needed),
        listen_address(config.http.listen),
        store_folder(&config.store.path),
    ]
}

/// The difference between the clock and the elapsed time.
fn clock_step() -> Duration {
    let (started, clock) = (Instant::now(), SystemTime::now());
    std::thread::sleep(CLOCK_WATCH_TIME);
    let moved = SystemTime::now().duration_since(clock).unwrap_or_default();
    moved.abs_diff(started.elapsed())
}

fn clock(now: SystemTime, step: Duration) -> DoctorFinding {
    let seconds = now.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs();
    let time = humantime::format_rfc3339_seconds(now);
    let advice = "synchronise the clock by NTP: receivers refuse signatures that are five minutes off";
    if seconds < EARLIEST_VALID_SECONDS {
        DoctorFinding::bad("clock", format!("the clock shows {time}, which is in the past"), advice)
    } else if step > MAX_CLOCK_STEP {
        DoctorFinding::doubtful(
            "clock",
            format!("the clock jumped by {} ms during the check", step.as_millis()),
            advice,
        )
    } else {
        DoctorFinding::good("clock", format!("the clock shows {time} and is stable"))
    }
}

fn open_files(limit: Option<u64>, needed: u64) -> DoctorFinding {
    match limit {
        None => DoctorFinding::doubtful(
            "open files",
            "the limit can't be read here",
            "check that `ulimit -n` is large enough",
        ),
        Some(limit) if limit < needed => DoctorFinding::doubtful(
            "open files",
            format!("the limit is {limit}; with this broker.prefetch a worker may need {needed}"),
            "raise the limit (LimitNOFILE= of systemd, `ulimit -n`), or lower broker.prefetch",
        ),
        Some(limit) => DoctorFinding::good("open files", format!("the limit is {limit}; a worker may need {needed}")),
    }
}

/// The hard limit in `/proc/self/limits`. A worker raises its soft limit to the hard limit.
fn open_files_limit(limits: &str) -> Option<u64> {
    let line = limits.lines().find_map(|line| line.strip_prefix("Max open files"))?;
    let hard = line.split_whitespace().nth(1)?;
    if hard == "unlimited" { Some(u64::MAX) } else { hard.parse().ok() }
}

fn listen_address(listen: SocketAddr) -> DoctorFinding {
    match TcpListener::bind(listen) {
        Ok(_) => DoctorFinding::good("address", format!("{listen} is free")),
        Err(error) if error.kind() == ErrorKind::AddrInUse => {
            let advice =
                "if the other program is not a worker, or to run a second worker, set http.listen to another port";
            DoctorFinding::doubtful("address", format!("a program already listens on {listen}"), advice)
        }
        Err(error) => {
            let advice = match error.kind() {
                ErrorKind::PermissionDenied => {
                    "set http.listen to a port over 1023, or give the worker CAP_NET_BIND_SERVICE"
                }
                _ => "set http.listen to an address of this machine",
            };
            DoctorFinding::bad("address", format!("{listen}: {error}"), advice)
        }
    }
}

fn store_folder(path: &Path) -> DoctorFinding {
    let name = path.display();
    // A worker creates a missing folder when it starts. Until then its nearest existing parent is checked.
    let existing = path.ancestors().find(|part| part.exists()).unwrap_or(Path::new("."));
    if !existing.is_dir() {
        let advice = "set store.path to a folder of the worker";
        return DoctorFinding::bad(
            "folder",
            format!("{name} can't be created: {} is a file", existing.display()),
            advice,
        );
    }
    if let Err(error) = tempfile::tempfile_in(existing) {
        let advice = "give the user that runs the worker the right to write there, or set store.path";
        return DoctorFinding::bad("folder", format!("{name} can't be written to: {error}"), advice);
    }
    let Some(free) = free_bytes(existing) else {
        return DoctorFinding::good("folder", format!("{name} can be written to"));
    };
    let detail = format!("{name} can be written to, and {} MB are free", free / 1_000_000);
    let advice =
        "free some space, or set store.path: the store grows with the number of dead letters (deadLetters.retention)";
    if free < FULL_DISK_BYTES {
        DoctorFinding::bad("folder", detail, advice)
    } else if free < LOW_DISK_BYTES {
        DoctorFinding::doubtful("folder", detail, advice)
    } else {
        DoctorFinding::good("folder", detail)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::doctor::finding::CheckResult;

    #[test]
    fn the_hard_limit_of_open_files_is_read() {
        let limits = "Limit                     Soft Limit           Hard Limit           Units\n\
                      Max processes             95990                95990                processes\n\
                      Max open files            1024                 524288               files\n";
        assert_eq!(open_files_limit(limits), Some(524_288));
        assert_eq!(
            open_files_limit("Max open files            unlimited            unlimited            files"),
            Some(u64::MAX)
        );
        assert_eq!(open_files_limit(""), None);
    }

    #[test]
    fn clock_open_files_and_folder_are_checked() {
        let today = SystemTime::UNIX_EPOCH + Duration::from_secs(EARLIEST_VALID_SECONDS + 1);
        assert_eq!(clock(today, Duration::ZERO).result, CheckResult::Good);
        assert_eq!(clock(today, Duration::from_secs(3)).result, CheckResult::Doubtful);
        assert_eq!(clock(SystemTime::UNIX_EPOCH, Duration::ZERO).result, CheckResult::Bad);
        assert_eq!(open_files(Some(1024), 2832).result, CheckResult::Doubtful);
        assert_eq!(open_files(Some(65_536), 2832).result, CheckResult::Good);
        assert_eq!(store_folder(Path::new("/proc/none/of/this")).result, CheckResult::Bad);
        for file in ["/proc/version", "/proc/version/view"] {
            let finding = store_folder(Path::new(file));
            assert!(
                finding.result == CheckResult::Bad && finding.detail.contains("/proc/version is a file"),
                "{finding:?}"
            );
        }
    }

    #[test]
    fn the_listen_address_is_checked() {
        let loopback = SocketAddr::from(([127, 0, 0, 1], 0));
        assert_eq!(listen_address(loopback).result, CheckResult::Good);
        let taken = TcpListener::bind(loopback).expect("a port");
        assert_eq!(listen_address(taken.local_addr().expect("its address")).result, CheckResult::Doubtful);
        // An address for documentation (RFC 5737). No machine has it.
        assert_eq!(listen_address(SocketAddr::from(([192, 0, 2, 1], 80))).result, CheckResult::Bad);
    }
}
