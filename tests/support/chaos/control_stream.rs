//! The witness: a stream beside those of Waypost, that Waypost knows nothing of. What the broker has confirmed there and does
//! not have at the end, the broker has lost, and might have lost of Waypost's dead letters as well.

use lapin::ExchangeKind;
use lapin::options::{ExchangeDeclareOptions, QueueBindOptions, QueueDeclareOptions};
use lapin::types::{AMQPValue, FieldTable};

use super::ledger::{Ledger, PublishState};
use super::load::event_number;
use crate::support::Amqp;
use crate::support::amqp::Record;

/// What the witness says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ControlStreamResult {
    /// Records that the broker has confirmed.
    pub(crate) confirmed: usize,
    /// Those of them that it does not have.
    pub(crate) lost: Vec<u64>,
}

/// Declares an exchange and a stream of this name.
pub(crate) async fn declare_control_stream(amqp: &Amqp, name: &str) {
    let channel = amqp.channel().await;
    let options = ExchangeDeclareOptions { durable: true, ..ExchangeDeclareOptions::default() };
    let exchange = channel.exchange_declare(name.into(), ExchangeKind::Topic, options, FieldTable::default());
    exchange.await.expect("an exchange");
    let mut arguments = FieldTable::default();
    arguments.insert("x-queue-type".into(), AMQPValue::LongString("stream".into()));
    channel.queue_declare(name.into(), QueueDeclareOptions::durable(), arguments).await.expect("a stream");
    let (options, arguments) = (QueueBindOptions::default(), FieldTable::default());
    channel.queue_bind(name.into(), name.into(), "#".into(), options, arguments).await.expect("a binding");
}

/// Lays the publisher's record beside the stream.
pub(crate) fn check_control_stream(ledger: &Ledger, records: &[Record]) -> ControlStreamResult {
    let there: std::collections::BTreeSet<u64> =
        records.iter().filter_map(|record| event_number(&String::from_utf8_lossy(&record.body))).collect();
    let pages = ledger.lock_entries();
    let confirmed = pages.published.iter().filter(|(_, published)| **published == PublishState::Confirmed);
    let confirmed: Vec<u64> = confirmed.map(|(number, _)| *number).collect();
    let lost = confirmed.iter().copied().filter(|number| !there.contains(number)).collect();
    ControlStreamResult { confirmed: confirmed.len(), lost }
}
