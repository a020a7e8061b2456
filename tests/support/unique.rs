//! What must not collide between tests that run side by side: names, and TCP ports.

use std::collections::BTreeSet;
use std::hash::{BuildHasher, RandomState};
use std::net::TcpListener;
use std::sync::Mutex;

/// Ports given out lie here: below the ephemeral ports of Linux (32768 and up) and macOS (49152 and up), so that no
/// outgoing connection takes one while its owner is being restarted.
const PORT_RANGE: std::ops::Range<u16> = 20_000..32_000;

/// Far more than a test takes.
const PORTS_OF_SLOT: u16 = 1_000;

/// A name that no other test has, to be used as a broker prefix.
pub(crate) fn unique(name: &str) -> String {
    format!("{name}-{:08x}", random() & 0xffff_ffff)
}

/// The part of [`PORT_RANGE`] for one of the test processes that run at the same time. cargo-nextest numbers them; without
/// it there is one process.
fn ports_of_process() -> std::ops::Range<u16> {
    let slot = std::env::var("NEXTEST_TEST_GLOBAL_SLOT").ok().and_then(|slot| slot.parse::<u16>().ok());
    let Some(slot) = slot else { return PORT_RANGE };
    let parts = (PORT_RANGE.end - PORT_RANGE.start) / PORTS_OF_SLOT;
    let start = PORT_RANGE.start + slot % parts * PORTS_OF_SLOT;
    start..start + PORTS_OF_SLOT
}

/// A port of 127.0.0.1 that nobody listens on, and that no other test is given.
pub(crate) fn free_port() -> u16 {
    static TAKEN: Mutex<BTreeSet<u16>> = Mutex::new(BTreeSet::new());
    let mut given = TAKEN.lock().expect("no test panics while it holds the ports");
    let range = ports_of_process();
    loop {
        let span = u64::from(range.end - range.start);
        let port = range.start + u16::try_from(random() % span).expect("the span of ports fits");
        if !given.contains(&port) && TcpListener::bind(("127.0.0.1", port)).is_ok() {
            given.insert(port);
            return port;
        }
    }
}

/// The standard library's only source of chance: the keys of its hash maps.
fn random() -> u64 {
    RandomState::new().hash_one(0)
}
