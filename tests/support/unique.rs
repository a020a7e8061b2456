//! What must not collide between tests that run side by side: names, and TCP ports.

use std::collections::BTreeSet;
use std::hash::{BuildHasher, RandomState};
use std::net::TcpListener;
use std::sync::Mutex;

/// Ports given out lie here: below the ephemeral ports of Linux (32768 and up) and macOS (49152 and up), so that no
/// outgoing connection takes one while its owner is being restarted.
const PORT_RANGE: std::ops::Range<u16> = 20_000..32_000;

/// A name that no other test has, to be used as a broker prefix.
pub(crate) fn unique(name: &str) -> String {
    format!("{name}-{:08x}", random() & 0xffff_ffff)
}

/// A port of 127.0.0.1 that nobody listens on, and that no other test of this process is given.
pub(crate) fn free_port() -> u16 {
    static TAKEN: Mutex<BTreeSet<u16>> = Mutex::new(BTreeSet::new());
    let mut given = TAKEN.lock().expect("no test panics while it holds the ports");
    loop {
        let span = u64::from(PORT_RANGE.end - PORT_RANGE.start);
        let port = PORT_RANGE.start + u16::try_from(random() % span).expect("the span of ports fits");
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
