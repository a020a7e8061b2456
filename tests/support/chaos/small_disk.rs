//! A small disk for a worker's store, which the drill can fill. The disk is a tmpfs in the worker's mount namespace,
//! and disappears with the process. Needs root.

use std::io::Write as _;
use std::path::Path;
use std::process::Command;

/// Large enough for a worker to start.
const DISK_SIZE: &str = "size=24m";

/// Mounts the small disk at the store's path in a new mount namespace, and executes the product.
const MOUNT_SCRIPT: &str = "mount -t tmpfs -o \"$0\" tmpfs \"$1\" && shift && exec \"$@\"";

/// Returns whether this machine allows such a disk.
pub(crate) fn is_available() -> bool {
    let tried = Command::new("unshare").args(["-m", "sh", "-c", "mount -t tmpfs tmpfs /tmp"]).output();
    tried.is_ok_and(|output| output.status.success())
}

/// The launcher for a product with its store on a small disk.
pub(crate) fn launcher(store: &str) -> [&str; 7] {
    ["unshare", "-m", "sh", "-c", MOUNT_SCRIPT, DISK_SIZE, store]
}

/// Fills the disk of a process. Returns false if the process has no such disk because it has ended.
pub(crate) fn fill(pid: u32, store: &Path) -> bool {
    let seen_by_it = format!("/proc/{pid}/root{}", store.join("ballast").display());
    let Ok(mut ballast) = std::fs::File::create(seen_by_it) else { return false };
    let block = vec![0_u8; 4096];
    while ballast.write_all(&block).is_ok() {}
    true
}
