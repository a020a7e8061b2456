//! A worker's store on a small disk of its own, to be filled up. The disk is a tmpfs that only this process can see: it is
//! gone when the process is, however that ends. Needs root.

use std::io::Write as _;
use std::path::Path;
use std::process::Command;

/// Large enough to start with.
const DISK_SIZE: &str = "size=24m";

/// Becomes the product in a mount namespace of its own, with the small disk at the store's place.
const MOUNT_SCRIPT: &str = "mount -t tmpfs -o \"$0\" tmpfs \"$1\" && shift && exec \"$@\"";

/// Whether a small disk can be had here.
pub(crate) fn is_available() -> bool {
    let tried = Command::new("unshare").args(["-m", "sh", "-c", "mount -t tmpfs tmpfs /tmp"]).output();
    tried.is_ok_and(|output| output.status.success())
}

/// What starts the product with its store there.
pub(crate) fn launcher(store: &str) -> [&str; 7] {
    ["unshare", "-m", "sh", "-c", MOUNT_SCRIPT, DISK_SIZE, store]
}

/// Fills the disk of a process until there is no room for anything; false where it has none, for it has ended.
pub(crate) fn fill(pid: u32, store: &Path) -> bool {
    let seen_by_it = format!("/proc/{pid}/root{}", store.join("ballast").display());
    let Ok(mut ballast) = std::fs::File::create(seen_by_it) else { return false };
    let block = vec![0_u8; 4096];
    while ballast.write_all(&block).is_ok() {}
    true
}
