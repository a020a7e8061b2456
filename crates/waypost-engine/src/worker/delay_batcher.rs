//! Batches waiting deliveries: deliveries that go to the same delay queue are published as one message, whether they are
//! parked or wait for their next attempt. An outage can add thousands of deliveries in a second, and the broker's cost
//! is per message.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};
use tokio::time::sleep;
use waypost_broker::delay_queues::DelayQueue;
use waypost_broker::names::Names;
use waypost_broker::publisher::{Destination, OutboundMessage, PublishError, Publisher};

use crate::delivery_event::DeliveryEvent;
use crate::metrics::Metrics;

/// How long a delivery waits for others to join its message.
const BATCH_WINDOW: Duration = Duration::from_millis(8);

/// Deliveries in a message. If a worker dies while it processes them, they are all sent again.
const MAX_BATCH_DELIVERIES: usize = 100;

/// A batch of this size takes no more deliveries, so a message can be larger by one delivery.
const MAX_BATCH_BYTES: usize = 128 * 1024;

/// More than there can be deliveries in flight.
const CHANNEL_CAPACITY: usize = 4096;

/// Publishes waiting deliveries to the delay queues. Cheap to clone. Its task ends when the last clone is dropped.
#[derive(Clone)]
pub struct DelayBatcher(mpsc::Sender<DelayRequest>);

struct DelayRequest {
    delay_queue: DelayQueue,
    /// JSON.
    delivery: Vec<u8>,
    confirmed: oneshot::Sender<Result<(), PublishError>>,
}

impl DelayBatcher {
    pub fn start(publisher: Publisher, names: Names, metrics: Arc<Metrics>) -> Self {
        let (sender, requests) = mpsc::channel(CHANNEL_CAPACITY);
        tokio::spawn(run(publisher, names, metrics, requests));
        Self(sender)
    }

    /// Puts a delivery into a delay queue, and waits until the broker has confirmed it.
    pub(super) async fn put(&self, delay_queue: DelayQueue, delivery: Vec<u8>) -> Result<(), PublishError> {
        let (confirmed, confirmation) = oneshot::channel();
        let request = DelayRequest { delay_queue, delivery, confirmed };
        self.0.send(request).await.map_err(|_| PublishError::Stopping)?;
        confirmation.await.unwrap_or(Err(PublishError::Stopping))
    }
}

async fn run(publisher: Publisher, names: Names, metrics: Arc<Metrics>, mut requests: mpsc::Receiver<DelayRequest>) {
    while let Some(first) = requests.recv().await {
        let mut pending = vec![first];
        sleep(BATCH_WINDOW).await;
        while let Ok(next) = requests.try_recv() {
            pending.push(next);
        }
        // The message of a cancelled request was requeued. Its delivery must not be there twice.
        pending.retain(|request| !request.confirmed.is_closed());
        for batch in to_batches(pending) {
            tokio::spawn(publish(publisher.clone(), names.clone(), metrics.clone(), batch));
        }
    }
}

async fn publish(publisher: Publisher, names: Names, metrics: Arc<Metrics>, batch: Vec<DelayRequest>) {
    let Some(delay_queue) = batch.first().map(|request| request.delay_queue) else { return };
    let queue = Destination::Queue(names.delay(delay_queue));
    let message = OutboundMessage::new(queue, uuid::Uuid::now_v7().to_string(), encode_batch(&batch));
    let result = publisher.publish_with_retry(message).await;
    if result.is_ok() {
        DeliveryEvent::BatchDelayed.emit(&metrics);
    }
    for request in batch {
        // Fails if the request was cancelled.
        let _ = request.confirmed.send(result.clone());
    }
}

/// Groups requests by delay queue, within the limits of a batch.
fn to_batches(mut requests: Vec<DelayRequest>) -> Vec<Vec<DelayRequest>> {
    requests.sort_by_key(|request| request.delay_queue.seconds());
    let mut batches: Vec<Vec<DelayRequest>> = Vec::new();
    let mut bytes = 0;
    for request in requests {
        let has_room = |batch: &&mut Vec<DelayRequest>| {
            batch.len() < MAX_BATCH_DELIVERIES
                && bytes < MAX_BATCH_BYTES
                && batch.first().is_some_and(|first| first.delay_queue == request.delay_queue)
        };
        match batches.last_mut().filter(has_room) {
            Some(batch) => {
                bytes += request.delivery.len();
                batch.push(request);
            }
            None => {
                bytes = request.delivery.len();
                batches.push(vec![request]);
            }
        }
    }
    batches
}

/// Encodes one delivery as a JSON object, several as a JSON array.
fn encode_batch(batch: &[DelayRequest]) -> Vec<u8> {
    match batch {
        [single] => single.delivery.clone(),
        several => {
            let deliveries: Vec<&[u8]> = several.iter().map(|request| request.delivery.as_slice()).collect();
            [b"[".as_slice(), &deliveries.join(b",".as_slice()), b"]"].concat()
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use waypost_core::Delivery;
    use waypost_core::document;
    use waypost_core::egress::HttpUrls;
    use waypost_core::event;

    use super::*;

    fn delivery(label: &str, response: &str) -> Delivery {
        let document = br#"{"id": "1", "sections": [{"label": "a", "webhook": {"url": "https://example.com/"}}]}"#;
        let campaign = document::read(document, HttpUrls::Refused, None).expect("a campaign");
        let event = serde_json::json!({
            "campaignId": "1", "label": label, "phoneNumber": "", "date": "2024-06-18T23:26:14Z", "response": response,
        });
        let event = event::decode(event.to_string().as_bytes(), None).expect("an event");
        Delivery::new(event, campaign.places().next().expect("a webhook").target(), None)
    }

    fn request(delay_queue: DelayQueue, bytes: usize) -> DelayRequest {
        DelayRequest { delay_queue, delivery: vec![b'1'; bytes], confirmed: oneshot::channel().0 }
    }

    /// Delay in seconds and number of deliveries of each batch.
    fn batch_sizes(requests: Vec<DelayRequest>) -> Vec<(u32, usize)> {
        to_batches(requests).iter().map(|batch| (batch[0].delay_queue.seconds(), batch.len())).collect()
    }

    #[test]
    fn deliveries_with_the_same_delay_share_a_batch_up_to_its_limits() {
        let delay_queues: Vec<DelayQueue> = DelayQueue::all().collect();
        let mixed = (0..450).map(|number| request(delay_queues[number % 2], 10)).collect();
        assert_eq!(batch_sizes(mixed), [(1, 100), (1, 100), (1, 25), (2, 100), (2, 100), (2, 25)]);
        let large = (0..5).map(|_| request(delay_queues[0], 60 * 1024)).collect();
        assert_eq!(batch_sizes(large), [(1, 3), (1, 2)]);
        assert_eq!(batch_sizes(Vec::new()), []);
    }

    #[test]
    fn several_deliveries_are_encoded_as_an_array() {
        assert_eq!(encode_batch(&[request(DelayQueue::SHORTEST, 2)]), b"11");
        assert_eq!(encode_batch(&[request(DelayQueue::SHORTEST, 2), request(DelayQueue::SHORTEST, 1)]), b"[11,1]");
    }

    proptest! {
        /// Commas and brackets within events are not confused with those between deliveries.
        #[test]
        fn an_encoded_batch_can_be_decoded(texts in prop::collection::vec(("\\PC{0,9}", "[\\[\\]{},\"]{0,9}"), 1..9)) {
            let deliveries: Vec<Delivery> = texts.iter().map(|(label, response)| delivery(label, response)).collect();
            let batch: Vec<DelayRequest> = deliveries
                .iter()
                .map(|delivery| {
                    let delivery = serde_json::to_vec(delivery).expect("JSON");
                    DelayRequest { delivery, ..request(DelayQueue::SHORTEST, 0) }
                })
                .collect();
            prop_assert_eq!(Delivery::decode_waiting(&encode_batch(&batch)).expect("deliveries"), deliveries);
        }
    }
}
