//! Parked deliveries travel together: those that wait about as long are one message. An endpoint that hangs has thousands of
//! them in a second, and a message costs the broker as much as a delivery.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};
use tokio::time::sleep;

use crate::broker::delay_queues::DelayTier;
use crate::broker::names::Names;
use crate::broker::publisher::{Destination, OutboundMessage, PublishError, Publisher};
use crate::metrics::Metrics;

/// A parked delivery waits this long for others.
const GATHERING: Duration = Duration::from_millis(8);

/// The most deliveries of a message: so many are sent once more where a worker dies in the middle of them.
const MOST: usize = 100;

/// And no more bytes than these, and a delivery.
const MOST_BYTES: usize = 128 * 1024;

/// Deliveries on their way to the ladder at once: more than are in hand.
const ROOM: usize = 4096;

/// Takes parked deliveries to the delay ladder. Cheap to clone; ends when the last clone is dropped.
#[derive(Clone)]
pub struct ParkBatcher(mpsc::Sender<Parked>);

struct Parked {
    rung: DelayTier,
    /// As JSON.
    delivery: Vec<u8>,
    taken: oneshot::Sender<Result<(), PublishError>>,
}

impl ParkBatcher {
    /// Starts the task that gathers.
    pub fn start(publisher: Publisher, names: Names, metrics: Arc<Metrics>) -> Self {
        let (parking, parked) = mpsc::channel(ROOM);
        tokio::spawn(gather(publisher, names, metrics, parked));
        Self(parking)
    }

    /// Puts a delivery on the ladder, and waits until the broker has it.
    pub(super) async fn park(&self, rung: DelayTier, delivery: Vec<u8>) -> Result<(), PublishError> {
        let (taken, answer) = oneshot::channel();
        let parked = Parked { rung, delivery, taken };
        self.0.send(parked).await.map_err(|_| PublishError::Stopping)?;
        answer.await.unwrap_or(Err(PublishError::Stopping))
    }
}

async fn gather(publisher: Publisher, names: Names, metrics: Arc<Metrics>, mut parked: mpsc::Receiver<Parked>) {
    while let Some(first) = parked.recv().await {
        let mut gathered = vec![first];
        sleep(GATHERING).await;
        while let Ok(next) = parked.try_recv() {
            gathered.push(next);
        }
        // Whose message has gone back to the broker meanwhile must not be there twice.
        gathered.retain(|parked| !parked.taken.is_closed());
        for bundle in bundles(gathered) {
            tokio::spawn(send(publisher.clone(), names.clone(), metrics.clone(), bundle));
        }
    }
}

async fn send(publisher: Publisher, names: Names, metrics: Arc<Metrics>, bundle: Vec<Parked>) {
    let Some(rung) = bundle.first().map(|parked| parked.rung) else { return };
    let to = Destination::Queue(names.delay(rung));
    let outgoing = OutboundMessage::new(to, uuid::Uuid::now_v7().to_string(), body(&bundle));
    let published = publisher.publish_with_retry(outgoing).await;
    if published.is_ok() {
        metrics.account.put_on_ladder.inc();
    }
    for parked in bundle {
        // Who has gone away does not want to know.
        let _ = parked.taken.send(published.clone());
    }
}

/// Deliveries that travel together: on the same rung, and not too many.
fn bundles(mut parked: Vec<Parked>) -> Vec<Vec<Parked>> {
    parked.sort_by_key(|parked| parked.rung.seconds());
    let mut bundles: Vec<Vec<Parked>> = Vec::new();
    let mut bytes = 0;
    for parked in parked {
        let has_room = |bundle: &&mut Vec<Parked>| {
            bundle.len() < MOST && bytes < MOST_BYTES && bundle.first().is_some_and(|first| first.rung == parked.rung)
        };
        match bundles.last_mut().filter(has_room) {
            Some(bundle) => {
                bytes += parked.delivery.len();
                bundle.push(parked);
            }
            None => {
                bytes = parked.delivery.len();
                bundles.push(vec![parked]);
            }
        }
    }
    bundles
}

/// One delivery as it is, several as a JSON array.
fn body(bundle: &[Parked]) -> Vec<u8> {
    match bundle {
        [one] => one.delivery.clone(),
        several => {
            let deliveries: Vec<&[u8]> = several.iter().map(|parked| parked.delivery.as_slice()).collect();
            [b"[".as_slice(), &deliveries.join(b",".as_slice()), b"]"].concat()
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::delivery::Delivery;
    use crate::delivery::document;
    use crate::delivery::egress::HttpUrls;
    use crate::delivery::event;

    /// A delivery of an event with this label and response.
    fn delivery(label: &str, response: &str) -> Delivery {
        let document = br#"{"id": "1", "sections": [{"label": "a", "webhook": {"url": "https://example.com/"}}]}"#;
        let campaign = document::read(document, HttpUrls::Refused, None).expect("a campaign");
        let event = serde_json::json!({
            "campaignId": "1", "label": label, "phoneNumber": "", "date": "2024-06-18T23:26:14Z", "response": response,
        });
        let event = event::decode(event.to_string().as_bytes(), None).expect("an event");
        Delivery::new(event, campaign.places().next().expect("a webhook").target(), None)
    }

    fn parked(rung: DelayTier, bytes: usize) -> Parked {
        Parked { rung, delivery: vec![b'1'; bytes], taken: oneshot::channel().0 }
    }

    /// Rung and number of deliveries of each bundle.
    fn bundled(parked: Vec<Parked>) -> Vec<(u32, usize)> {
        bundles(parked).iter().map(|bundle| (bundle[0].rung.seconds(), bundle.len())).collect()
    }

    #[test]
    fn what_waits_as_long_travels_together() {
        let rungs: Vec<DelayTier> = DelayTier::all().collect();
        let mixed = (0..450).map(|number| parked(rungs[number % 2], 10)).collect();
        assert_eq!(bundled(mixed), [(1, 100), (1, 100), (1, 25), (2, 100), (2, 100), (2, 25)]);
        let large = (0..5).map(|_| parked(rungs[0], 60 * 1024)).collect();
        assert_eq!(bundled(large), [(1, 3), (1, 2)]);
        assert_eq!(bundled(Vec::new()), []);
    }

    #[test]
    fn several_are_an_array() {
        assert_eq!(body(&[parked(DelayTier::LOWEST, 2)]), b"11");
        assert_eq!(body(&[parked(DelayTier::LOWEST, 2), parked(DelayTier::LOWEST, 1)]), b"[11,1]");
    }

    proptest! {
        /// Whatever events have in them: the comma and the brackets between deliveries are told from theirs.
        #[test]
        fn what_is_parked_is_read_when_it_is_due(texts in prop::collection::vec(("\\PC{0,9}", "[\\[\\]{},\"]{0,9}"), 1..9)) {
            let deliveries: Vec<Delivery> = texts.iter().map(|(label, response)| delivery(label, response)).collect();
            let bundle: Vec<Parked> = deliveries
                .iter()
                .map(|delivery| Parked { delivery: serde_json::to_vec(delivery).expect("JSON"), ..parked(DelayTier::LOWEST, 0) })
                .collect();
            prop_assert_eq!(Delivery::read_waiting(&body(&bundle)).expect("deliveries"), deliveries);
        }
    }
}
