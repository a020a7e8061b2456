//! A stream as anybody can read it who knows AMQP, from its first record to its last: of every node, for each has a copy, and
//! RabbitMQ 3.10 may leave one behind after its node was killed.

use std::time::Duration;

use super::scene::Scene;
use crate::support::amqp::Record;
use crate::support::{Amqp, until};

/// After so long without a record a stream is taken to be at its end: nothing writes to it any more.
const QUIET: Duration = Duration::from_secs(3);

/// For a node to have its copy again.
const PATIENCE: Duration = Duration::from_secs(60);

/// The records of the copy that has most.
pub(crate) async fn read(scene: &Scene, stream: &str) -> Vec<Record> {
    let copies = scene.cluster.nodes().iter().map(async |node| {
        // The node may pause itself, and then the connection is lost.
        let read = async || {
            let amqp = Amqp::until_connected(&node.url()).await;
            amqp.read_stream_until_quiet(stream, QUIET).await.ok()
        };
        until("a copy of the stream", PATIENCE, read).await
    });
    let mut copies = futures_util::future::join_all(copies).await;
    copies.sort_by_key(Vec::len);
    let lengths: Vec<usize> = copies.iter().map(Vec::len).collect();
    if lengths.first() != lengths.last() {
        scene.books.remark(&format!("the nodes' copies of {stream} are not equal: they have {lengths:?} records"));
    }
    copies.pop().unwrap_or_default()
}
