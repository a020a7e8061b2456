//! The control stream: a stream that Waypost does not use. If the broker lost confirmed records of this stream, it may
//! have lost dead letters too.

use lapin::ExchangeKind;
use lapin::options::{ExchangeDeclareOptions, QueueBindOptions, QueueDeclareOptions};
use lapin::types::{AMQPValue, FieldTable};

use super::ledger::{Ledger, PublishState};
use super::load::event_number;
use crate::support::Amqp;
use crate::support::amqp::Record;

/// The result of reading the control stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ControlStreamResult {
    /// Records that the broker confirmed.
    pub(crate) confirmed: usize,
    /// The confirmed records that the broker does not have.
    pub(crate) lost: Vec<u64>,
}

/// Declares an exchange and a stream with the same name.
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

/// Compares the confirmed records of the publisher with the records of the stream.
pub(crate) fn check_control_stream(ledger: &Ledger, records: &[Record]) -> ControlStreamResult {
    let there: std::collections::BTreeSet<u64> =
        records.iter().filter_map(|record| event_number(&String::from_utf8_lossy(&record.body))).collect();
    let pages = ledger.lock_entries();
    let confirmed = pages.published.iter().filter(|(_, published)| **published == PublishState::Confirmed);
    let confirmed: Vec<u64> = confirmed.map(|(number, _)| *number).collect();
    let lost = confirmed.iter().copied().filter(|number| !there.contains(number)).collect();
    ControlStreamResult { confirmed: confirmed.len(), lost }
}
