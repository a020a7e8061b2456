//! Reads a stream from its first record to its last, from every node that has a copy. RabbitMQ 3.10 may leave a copy behind, or a
//! node without one, after the node was killed.

use std::time::Duration;

use super::scene::Scene;
use crate::support::Amqp;
use crate::support::amqp::Record;
use crate::support::until::poll;

/// After so long without a record a stream is taken to be at its end: nothing writes to it any more.
const QUIET: Duration = Duration::from_secs(3);

/// For a node to have its copy again.
const PATIENCE: Duration = Duration::from_secs(60);

/// The records of the copy that has most. Panics if no node has one.
pub(crate) async fn read(scene: &Scene, stream: &str) -> Vec<Record> {
    let copies = scene.cluster.nodes().iter().enumerate().map(async |(number, node)| {
        // The node may pause itself, and then the connection is lost.
        let read = async || {
            let amqp = Amqp::until_connected(&node.url()).await;
            amqp.read_stream_until_quiet(stream, QUIET).await.ok()
        };
        let copy = poll(PATIENCE, read).await;
        if copy.is_none() {
            scene.books.remark(&format!("node {number} has no copy of {stream} that can be read"));
        }
        copy
    });
    let copies = futures_util::future::join_all(copies).await;
    let mut copies: Vec<_> = copies.into_iter().flatten().collect();
    assert!(!copies.is_empty(), "no node has a copy of {stream} that can be read");
    copies.sort_by_key(Vec::len);
    let lengths: Vec<usize> = copies.iter().map(Vec::len).collect();
    if lengths.first() != lengths.last() {
        scene.books.remark(&format!("the nodes' copies of {stream} are not equal: they have {lengths:?} records"));
    }
    copies.pop().unwrap_or_default()
}
