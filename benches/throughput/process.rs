//! Statistics of a process and of the machine, from Linux.

use std::time::Duration;

/// Linux reports CPU time in hundredths of a second, independent of the kernel's clock.
const TICK: Duration = Duration::from_millis(10);

/// The CPU time of a process in user and kernel mode.
pub(crate) fn cpu(pid: u32) -> Duration {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).expect("the process's status");
    // The name, in parentheses, may contain spaces.
    let (_, fields) = stat.rsplit_once(") ").expect("fields after the name");
    let ticks = fields.split(' ').skip(11).take(2).map(|field| field.parse::<u32>().expect("ticks"));
    TICK * ticks.sum::<u32>()
}

/// The peak resident memory of a process, in bytes.
pub(crate) fn peak_memory(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("the process's status");
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).expect("VmHWM in the status");
    line.trim().trim_end_matches(" kB").parse::<u64>().expect("a number") * 1024
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
