//! Measurements, and Markdown tables.

use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::time::{Duration, Instant};

use comfy_table::{CellAlignment, Table, presets};
use indicatif::HumanCount;

/// The durations of a repeated operation.
#[derive(Default)]
pub(crate) struct Times(Vec<Duration>);

impl Times {
    pub(crate) fn add(&mut self, time: Duration) {
        self.0.push(time);
    }

    /// Runs `what` `times` times.
    pub(crate) async fn of<T>(times: usize, mut what: impl AsyncFnMut(usize) -> T) -> Self {
        let mut taken = Self::default();
        for time in 0..times {
            let began = Instant::now();
            what(time).await;
            taken.add(began.elapsed());
        }
        taken
    }

    pub(crate) fn worst(&self) -> Duration {
        self.0.iter().max().copied().unwrap_or_default()
    }

    /// The count, p50, p99 and maximum, as cells.
    pub(crate) fn cells(&self) -> [String; 4] {
        let mut sorted = self.0.clone();
        sorted.sort_unstable();
        let at = |part: usize| sorted.get((sorted.len() * part / 100).min(sorted.len().saturating_sub(1))).copied();
        let cell = |time: Option<Duration>| milliseconds(time.unwrap_or_default());
        [self.0.len().to_string(), cell(at(50)), cell(at(99)), milliseconds(self.worst())]
    }
}

pub(crate) fn table(name: &str, titles: &[&str], rows: impl IntoIterator<Item = Vec<String>>) {
    let mut table = Table::new();
    table.load_style(presets::ASCII_MARKDOWN).set_header(titles);
    for column in table.column_iter_mut().skip(1) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    for row in rows {
        table.add_row(row);
    }
    println!("\n{name}\n\n{table}");
}

/// `12.3 ms`
pub(crate) fn milliseconds(time: Duration) -> String {
    format!("{:.1} ms", time.as_secs_f64() * 1e3)
}

/// `12.3 s`
pub(crate) fn seconds(time: Duration) -> String {
    format!("{:.1} s", time.as_secs_f64())
}

/// `1,234/s`
pub(crate) fn rate(count: u64, time: Duration) -> String {
    format!("{}/s", HumanCount((count as f64 / time.as_secs_f64()) as u64))
}

/// `123 MB`
pub(crate) fn megabytes(bytes: u64) -> String {
    format!("{} MB", HumanCount(bytes.div_ceil(1_000_000)))
}

/// The current and peak resident memory of a process, in bytes.
pub(crate) fn memory(pid: u32) -> (u64, u64) {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("the process's status");
    let field = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name)).expect("its memory");
        line.trim().trim_end_matches(" kB").parse::<u64>().expect("a number") * 1024
    };
    (field("VmRSS:"), field("VmHWM:"))
}

/// The size of a folder on disk, in bytes. Skips files that disappear meanwhile.
pub(crate) fn disk(folder: &Path) -> u64 {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let size = |entry: std::fs::DirEntry| match entry.metadata() {
        Ok(metadata) if metadata.is_dir() => disk(&entry.path()),
        Ok(metadata) => metadata.blocks() * 512,
        Err(_) => 0,
    };
    entries.map(size).sum()
}

/// A description of the machine.
pub(crate) fn machine() -> String {
    let cores = std::thread::available_parallelism().map_or(0, std::num::NonZero::get);
    let memory = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let total = memory.lines().find_map(|line| line.strip_prefix("MemTotal:"));
    let kilobytes = total.and_then(|total| total.trim().trim_end_matches(" kB").parse::<u64>().ok());
    format!("{cores} cores, {} of memory, load {}", megabytes(kilobytes.unwrap_or_default() * 1024), load())
}

/// The load of the machine during the last minute.
pub(crate) fn load() -> String {
    let load = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    load.split(' ').next().unwrap_or_default().to_owned()
}
