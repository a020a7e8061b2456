//! Names and TCP ports that do not collide between concurrent tests.

use std::collections::BTreeSet;
use std::hash::{BuildHasher, RandomState};
use std::net::TcpListener;
use std::sync::Mutex;

/// The range is below the ephemeral ports of Linux (from 32768) and macOS (from 49152). So no outgoing connection uses
/// a port while its owner restarts.
const PORT_RANGE: std::ops::Range<u16> = 20_000..32_000;

/// Far more than a test process needs.
const PORTS_OF_SLOT: u16 = 1_000;

/// A name that no other test uses, for a broker prefix.
pub(crate) fn unique(name: &str) -> String {
    format!("{name}-{:08x}", random() & 0xffff_ffff)
}

/// The part of [`PORT_RANGE`] for one of the concurrent test processes. cargo-nextest numbers them. Without
/// cargo-nextest there is only one process.
fn ports_of_process() -> std::ops::Range<u16> {
    let slot = std::env::var("NEXTEST_TEST_GLOBAL_SLOT").ok().and_then(|slot| slot.parse::<u16>().ok());
    let Some(slot) = slot else { return PORT_RANGE };
    let parts = (PORT_RANGE.end - PORT_RANGE.start) / PORTS_OF_SLOT;
    let start = PORT_RANGE.start + slot % parts * PORTS_OF_SLOT;
    start..start + PORTS_OF_SLOT
}

/// A port of 127.0.0.1 that nobody listens on and that no other test uses.
pub(crate) fn free_port() -> u16 {
    static TAKEN: Mutex<BTreeSet<u16>> = Mutex::new(BTreeSet::new());
    let mut given = TAKEN.lock().expect("the lock of the ports");
    let range = ports_of_process();
    loop {
        let span = u64::from(range.end - range.start);
        let port = range.start + u16::try_from(random() % span).expect("an offset below the number of ports");
        if !given.contains(&port) && TcpListener::bind(("127.0.0.1", port)).is_ok() {
            given.insert(port);
            return port;
        }
    }
}

/// The keys of hash maps are the only random numbers in the standard library.
fn random() -> u64 {
    RandomState::new().hash_one(0)
}
