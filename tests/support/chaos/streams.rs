//! Reads a whole stream from every node that has a copy. After a node was killed, its copy may be outdated or missing
//! in RabbitMQ 3.10.

use std::time::Duration;

use super::setup::ChaosSetup;
use crate::support::Amqp;
use crate::support::amqp::Record;
use crate::support::wait::poll_until;

/// The stream ends if no record arrives for this time, because nothing writes to it any more.
const QUIET_TIME: Duration = Duration::from_secs(3);

/// A node needs this long at most to restore its copy.
const COPY_TIMEOUT: Duration = Duration::from_secs(60);

/// The records of the longest copy. Panics if no node has a copy.
pub(crate) async fn read_longest_copy(setup: &ChaosSetup, stream: &str) -> Vec<Record> {
    let copies = setup.cluster.nodes().iter().enumerate().map(async |(number, node)| {
        // The node may pause itself, which closes the connection.
        let read = async || {
            let amqp = Amqp::connect_with_retry(&node.url()).await;
            amqp.read_stream_until_quiet(stream, QUIET_TIME).await.ok()
        };
        let copy = poll_until(COPY_TIMEOUT, read).await;
        if copy.is_none() {
            setup.ledger.record_note(&format!("node {number} has no copy of {stream} that can be read"));
        }
        copy
    });
    let copies = futures_util::future::join_all(copies).await;
    let mut copies: Vec<_> = copies.into_iter().flatten().collect();
    assert!(!copies.is_empty(), "no node has a readable copy of {stream}");
    copies.sort_by_key(Vec::len);
    let lengths: Vec<usize> = copies.iter().map(Vec::len).collect();
    if lengths.first() != lengths.last() {
        setup
            .ledger
            .record_note(&format!("the nodes' copies of {stream} are not equal: they have {lengths:?} records"));
    }
    copies.pop().unwrap_or_default()
}
