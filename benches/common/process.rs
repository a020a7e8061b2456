//! Statistics of a process and of the machine, from Linux.

use std::path::{Path, PathBuf};
use std::time::Duration;

/// Linux reports CPU time in hundredths of a second, independent of the kernel's clock.
const TICK: Duration = Duration::from_millis(10);

/// A thread of this process: its path in `/proc`.
pub(crate) struct ThreadId(PathBuf);

/// The thread that calls this.
pub(crate) fn current_thread() -> ThreadId {
    ThreadId(Path::new("/proc").join(std::fs::read_link("/proc/thread-self").expect("the thread's path")))
}

/// The CPU time of a thread in user and kernel mode.
pub(crate) fn thread_cpu(thread: &ThreadId) -> Duration {
    cpu_in(&thread.0)
}

/// The CPU time of a process in user and kernel mode.
pub(crate) fn cpu(pid: u32) -> Duration {
    cpu_in(&folder(pid))
}

fn folder(pid: u32) -> PathBuf {
    Path::new("/proc").join(pid.to_string())
}

/// The CPU time of a process or thread, by its path in `/proc`.
fn cpu_in(folder: &Path) -> Duration {
    let stat = std::fs::read_to_string(folder.join("stat")).expect("the status");
    // The name, in parentheses, may contain spaces.
    let (_, fields) = stat.rsplit_once(") ").expect("fields after the name");
    let ticks = fields.split(' ').skip(11).take(2).map(|field| field.parse::<u32>().expect("ticks"));
    TICK * ticks.sum::<u32>()
}

/// The resident memory of a process, in bytes.
pub(crate) fn memory(pid: u32) -> u64 {
    status(pid, "VmRSS") * 1024
}

/// The number of threads of a process.
pub(crate) fn threads(pid: u32) -> u64 {
    status(pid, "Threads")
}

/// The number of open files of a process.
pub(crate) fn open_files(pid: u32) -> u64 {
    std::fs::read_dir(folder(pid).join("fd")).map_or(0, |files| files.count() as u64)
}

/// The peak resident memory of a process, in bytes.
pub(crate) fn peak_memory(pid: u32) -> u64 {
    status(pid, "VmHWM") * 1024
}

/// A number in a process's status, without its unit.
fn status(pid: u32, name: &str) -> u64 {
    let status = std::fs::read_to_string(folder(pid).join("status")).expect("the process's status");
    let value = |line: &str| line.strip_prefix(name)?.strip_prefix(':')?.split_whitespace().next()?.parse().ok();
    status.lines().find_map(value).unwrap_or_else(|| panic!("no {name} in the status"))
}

/// A description of the machine.
pub(crate) fn machine() -> String {
    let cores = std::thread::available_parallelism().map_or(0, std::num::NonZero::get);
    let field = |file: &str, name: &str| {
        let text = std::fs::read_to_string(file).unwrap_or_default();
        let line = text.lines().find_map(|line| line.strip_prefix(name)?.trim_start().strip_prefix(':'));
        line.unwrap_or("unknown").trim().to_owned()
    };
    let memory = field("/proc/meminfo", "MemTotal");
    let gigabytes = memory.trim_end_matches(" kB").parse::<u64>().unwrap_or_default() as f64 * 1024.0 / 1e9;
    format!("{cores} cores of {}, {gigabytes:.0} GB of memory", field("/proc/cpuinfo", "model name"))
}

/// The load of the machine during the last minute.
pub(crate) fn load() -> String {
    let load = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    load.split(' ').next().unwrap_or_default().to_owned()
}
