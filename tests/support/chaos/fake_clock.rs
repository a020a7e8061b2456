//! A clock that can be made to jump, of one worker only: `libfaketime`, where it is installed, gives that process another
//! time of day. Its monotonic clock stays as it is, as a real one does when the time of day is set.

use std::path::{Path, PathBuf};

use tempfile::TempDir;

/// Where distributions put the library.
const LIBRARIES: [&str; 4] = [
    "/usr/lib/x86_64-linux-gnu/faketime/libfaketimeMT.so.1",
    "/usr/lib/aarch64-linux-gnu/faketime/libfaketimeMT.so.1",
    "/usr/lib64/faketime/libfaketimeMT.so.1",
    "/usr/lib/faketime/libfaketimeMT.so.1",
];

/// The clock of a process.
pub(crate) struct FakeClock {
    library: &'static str,
    offset: PathBuf,
    _folder: TempDir,
}

impl FakeClock {
    /// One that goes right; none where the library is missing.
    pub(crate) fn new() -> Option<Self> {
        let library = LIBRARIES.into_iter().find(|library| Path::new(library).exists())?;
        let folder = tempfile::Builder::new().prefix("waypost-clock-").tempdir().expect("a temporary folder");
        let clock = Self { library, offset: folder.path().join("offset"), _folder: folder };
        clock.set_offset("+0");
        Some(clock)
    }

    /// Makes it so many seconds more (`+40`) or less (`-40`) than it is.
    pub(crate) fn set_offset(&self, seconds: &str) {
        // In one step: a reader must not find half of it.
        let next = self.offset.with_extension("next");
        std::fs::write(&next, seconds).expect("the offset is written");
        std::fs::rename(&next, &self.offset).expect("the offset is put in place");
    }

    /// What the process whose clock it is to be has in its environment.
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
