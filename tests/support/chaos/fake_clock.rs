//! A clock of one worker that can jump. If `libfaketime` is installed, it changes the time of day of the process. The
//! monotonic clock stays correct, as if the system time were set.

use std::path::{Path, PathBuf};

use tempfile::TempDir;

/// The paths of the library in common distributions.
const LIBRARIES: [&str; 4] = [
    "/usr/lib/x86_64-linux-gnu/faketime/libfaketimeMT.so.1",
    "/usr/lib/aarch64-linux-gnu/faketime/libfaketimeMT.so.1",
    "/usr/lib64/faketime/libfaketimeMT.so.1",
    "/usr/lib/faketime/libfaketimeMT.so.1",
];

/// The clock of one process.
pub(crate) struct FakeClock {
    library: &'static str,
    offset: PathBuf,
    _folder: TempDir,
}

impl FakeClock {
    /// A correct clock. `None` if the library is not installed.
    pub(crate) fn new() -> Option<Self> {
        let library = LIBRARIES.into_iter().find(|library| Path::new(library).exists())?;
        let folder = tempfile::Builder::new().prefix("waypost-clock-").tempdir().expect("a temporary folder");
        let clock = Self { library, offset: folder.path().join("offset"), _folder: folder };
        clock.set_offset("+0");
        Some(clock)
    }

    /// Sets the offset from the real time in seconds (`+40` or `-40`).
    pub(crate) fn set_offset(&self, seconds: &str) {
        // Replaces the file atomically, so that no reader sees half of it.
        let next = self.offset.with_extension("next");
        std::fs::write(&next, seconds).expect("the offset is written");
        std::fs::rename(&next, &self.offset).expect("the offset file is renamed");
    }

    /// Environment variables for the process with this clock.
    pub(crate) fn environment(&self) -> Vec<(String, String)> {
        let offset = self.offset.display().to_string();
        let pairs = [
            ("LD_PRELOAD", self.library),
            ("FAKETIME_TIMESTAMP_FILE", &offset),
            ("FAKETIME_CACHE_DURATION", "1"),
            ("DONT_FAKE_MONOTONIC", "1"),
            ("FAKETIME_DONT_FAKE_MONOTONIC", "1"),
        ];
        pairs.map(|(name, value)| (name.to_owned(), value.to_owned())).into()
    }
}
