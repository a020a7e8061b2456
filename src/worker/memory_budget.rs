//! How much memory messages and webhooks may take while they are dealt with.
//!
//! The window bounds the number of messages; a body can be a hundred bytes or a hundred megabytes, and decoded, rendered and
//! written again it takes several times that. Events and retries have a budget each, so that none waits for the other.
//!
//! A webhook can have a megabyte of extra parameters. All its deliveries share one copy, which is counted once.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::queue::Queue;
use crate::delivery::campaign::{ExtraParameters, Webhook};
use crate::delivery::dead_letter::DeadLetter;
use crate::delivery::endpoint::Origin;
use crate::delivery::ids::WebhookId;

/// Bytes of message bodies of a queue being dealt with at once. The others wait as they came.
const MESSAGE_BYTES: usize = 32 * 1024 * 1024;

/// What was parked together is one message, a JSON array of up to a hundred deliveries, each of which may have a request and a connection.
/// So it weighs so many times its bytes: some 3,000 deliveries at once fill the budget.
const WEIGHT_OF_MANY: usize = 16;

/// Bytes of large extra parameters in deliveries that are being attempted, each text counted once.
const PARAMETER_BYTES: usize = 64 * 1024 * 1024;

/// Of these, the most for the webhooks of one endpoint.
const PARAMETER_BYTES_OF_ENDPOINT: usize = PARAMETER_BYTES / 4;

/// Bytes of large headers in requests under way. A request has its headers twice: as they are rendered, and as they are sent.
const HEADER_BYTES: usize = 32 * 1024 * 1024;

/// Bytes of large extra parameters in dead letters being written at once. Each letter has a copy, as JSON and as AMQP frames.
const LETTER_BYTES: usize = 8 * 1024 * 1024;

/// Smaller extra parameters and headers are not counted: as many as the window has deliveries fit into memory.
const LARGE_BYTES: usize = 16 * 1024;

/// Message bytes are counted in these, so that all of them fit into a semaphore.
const UNIT_BYTES: usize = 1024;

/// The budget. Cheap to clone.
#[derive(Clone)]
pub struct MemoryBudget {
    events: Arc<Semaphore>,
    retries: Arc<Semaphore>,
    letters: Arc<Semaphore>,
    headers: Arc<Semaphore>,
    parameters: Arc<Mutex<Parameters>>,
}

impl Default for MemoryBudget {
    fn default() -> Self {
        let of = |bytes: usize| Arc::new(Semaphore::new(bytes / UNIT_BYTES));
        let (events, retries, letters) = (of(MESSAGE_BYTES), of(MESSAGE_BYTES), of(LETTER_BYTES));
        Self { events, retries, letters, headers: of(HEADER_BYTES), parameters: Arc::default() }
    }
}

impl MemoryBudget {
    /// Waits until a message body fits, in the order of asking. A body larger than the budget takes all of it.
    pub(super) async fn take_message(&self, queue: Queue, body: &[u8]) -> Option<OwnedSemaphorePermit> {
        let (budget, weight) = match queue {
            Queue::Events => (&self.events, 1),
            Queue::Retries if body.starts_with(b"[") => (&self.retries, WEIGHT_OF_MANY),
            Queue::Retries => (&self.retries, 1),
        };
        take(budget, body.len() * weight, MESSAGE_BYTES).await
    }

    /// Waits until a dead letter may be written, if its webhook's extra parameters or its body are large.
    pub(super) async fn take_letter(&self, letter: &DeadLetter) -> Option<OwnedSemaphorePermit> {
        let parameters = letter.target.as_ref().map_or(0, |target| target.webhook.body.len());
        let body = letter.body.as_ref().or(letter.body_base64.as_ref()).map_or(0, String::len);
        let bytes = parameters + body;
        if bytes < LARGE_BYTES {
            return None;
        }
        take(&self.letters, bytes, LETTER_BYTES).await
    }

    /// Holds a webhook's extra parameters and headers in memory for an attempt. If another attempt holds equal parameters, the
    /// webhook gets that copy in place of its own.
    ///
    /// `None` if they do not fit. The delivery then has to let go of the webhook and come back later.
    pub(super) fn hold(&self, webhook: &mut Arc<Webhook>) -> Option<Hold> {
        let header_bytes = 2 * header_bytes(webhook);
        let _headers = if header_bytes < LARGE_BYTES {
            None
        } else {
            let units = u32::try_from(header_bytes.div_ceil(UNIT_BYTES)).unwrap_or(u32::MAX);
            Some(self.headers.clone().try_acquire_many_owned(units).ok()?)
        };
        if webhook.body.len() < LARGE_BYTES {
            return Some(Hold { _headers, _held: None });
        }
        // Compared, and dropped, while nothing is locked: the end of a `MemoryUse` takes the lock itself.
        let other = self.lock().held.get(&webhook.id).and_then(Weak::upgrade);
        if let Some(held) = other.filter(|held| held.parameters == webhook.body) {
            if !held.parameters.is_same_text(&webhook.body) {
                Arc::make_mut(webhook).body = held.parameters.clone();
            }
            return Some(Hold { _headers, _held: Some(held) });
        }
        let held = self.lock().hold(webhook, &self.parameters)?;
        Some(Hold { _headers, _held: Some(held) })
    }

    fn lock(&self) -> MutexGuard<'_, Parameters> {
        self.parameters.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn take(budget: &Arc<Semaphore>, bytes: usize, most: usize) -> Option<OwnedSemaphorePermit> {
    let units = bytes.div_ceil(UNIT_BYTES).clamp(1, most / UNIT_BYTES);
    // The semaphore is never closed.
    budget.clone().acquire_many_owned(u32::try_from(units).unwrap_or(u32::MAX)).await.ok()
}

fn header_bytes(webhook: &Webhook) -> usize {
    webhook.headers.iter().map(|(name, value)| name.len() + value.as_str().map_or(0, str::len)).sum()
}

/// Extra parameters and headers are held for as long as this lives.
pub(crate) struct Hold {
    _headers: Option<OwnedSemaphorePermit>,
    _held: Option<Arc<MemoryUse>>,
}

/// The extra parameters of an attempt's webhook, shared by all its attempts.
struct MemoryUse {
    parameters: ExtraParameters,
    webhook: WebhookId,
    endpoint: Origin,
    all: Arc<Mutex<Parameters>>,
}

/// Large extra parameters in memory.
#[derive(Default)]
struct Parameters {
    bytes: usize,
    bytes_by_endpoint: HashMap<Origin, usize>,
    /// The latest of each webhook; older ones may be held as well.
    held: HashMap<WebhookId, Weak<MemoryUse>>,
}

impl Parameters {
    fn hold(&mut self, webhook: &Webhook, all: &Arc<Mutex<Self>>) -> Option<Arc<MemoryUse>> {
        let bytes = webhook.body.len();
        let endpoint = &webhook.url.place().endpoint;
        let of_endpoint = self.bytes_by_endpoint.get(endpoint).copied().unwrap_or_default();
        if self.bytes + bytes > PARAMETER_BYTES || of_endpoint + bytes > PARAMETER_BYTES_OF_ENDPOINT {
            return None;
        }
        self.bytes += bytes;
        self.bytes_by_endpoint.insert(endpoint.clone(), of_endpoint + bytes);
        let held = Arc::new(MemoryUse {
            parameters: webhook.body.clone(),
            webhook: webhook.id.clone(),
            endpoint: endpoint.clone(),
            all: all.clone(),
        });
        self.held.insert(webhook.id.clone(), Arc::downgrade(&held));
        Some(held)
    }
}

impl Drop for MemoryUse {
    fn drop(&mut self) {
        let mut all = self.all.lock().unwrap_or_else(PoisonError::into_inner);
        let bytes = self.parameters.len();
        all.bytes = all.bytes.saturating_sub(bytes);
        if let Some(of_endpoint) = all.bytes_by_endpoint.get_mut(&self.endpoint) {
            *of_endpoint = of_endpoint.saturating_sub(bytes);
            if *of_endpoint == 0 {
                all.bytes_by_endpoint.remove(&self.endpoint);
            }
        }
        if all.held.get(&self.webhook).is_some_and(|held| held.strong_count() == 0) {
            all.held.remove(&self.webhook);
        }
    }
}

#[cfg(test)]
mod tests {
    use chrono::DateTime;
    use futures_util::FutureExt as _;
    use serde_json::json;

    use super::*;
    use crate::delivery::dead_letter::BODY_BYTES_KEPT;
    use crate::delivery::reason::DeadLetterReason;

    #[test]
    fn a_message_that_does_not_fit_waits() {
        let budget = MemoryBudget::default();
        let take = |queue, body: &[u8]| budget.take_message(queue, body).now_or_never().flatten();
        let (half, too_large) = (vec![b'{'; MESSAGE_BYTES / 2], vec![b'{'; MESSAGE_BYTES * 2]);
        let taken = take(Queue::Events, &half).expect("room");
        assert!(take(Queue::Events, &too_large).is_none());
        drop(taken);
        let all = take(Queue::Events, &too_large).expect("room for what is larger than all of it");
        assert!(take(Queue::Events, b"").is_none());
        assert!(take(Queue::Retries, b"").is_some(), "retries have their own");
        drop(all);
        let many = vec![b'['; MESSAGE_BYTES / WEIGHT_OF_MANY];
        let all = take(Queue::Retries, &many).expect("room");
        assert!(take(Queue::Retries, b"{").is_none(), "what was parked together weighs more");
        drop(all);
    }

    fn parameters(bytes: usize) -> ExtraParameters {
        [("text".to_owned(), "x".repeat(bytes).into())].into_iter().collect()
    }

    /// A webhook with an id and extra parameters of its own, at an endpoint of this number.
    fn webhook(endpoint: usize, number: usize, bytes: usize) -> Arc<Webhook> {
        let webhook = json!({ "id": format!("wh_{endpoint}_{number}"), "url": format!("https://host-{endpoint}.example/"),
            "enabled": true, "timeoutMs": 1 });
        let webhook: Webhook = serde_json::from_value(webhook).expect("a webhook");
        Arc::new(Webhook { body: parameters(bytes), ..webhook })
    }

    const MEGABYTE: usize = 1_000_000;

    #[test]
    fn attempts_of_one_webhook_share_its_parameters() {
        let budget = MemoryBudget::default();
        let (mut one, mut copy) = (webhook(1, 1, MEGABYTE), webhook(1, 1, MEGABYTE));
        let holds: Vec<Hold> = (0..1000).map(|_| budget.hold(&mut one.clone()).expect("room")).collect();
        let another = budget.hold(&mut copy).expect("room");
        assert!(copy.body.is_same_text(&one.body), "a copy was kept beside the one that is held");
        let bytes = one.body.len();
        assert_eq!(budget.lock().bytes, bytes);
        // Configured anew meanwhile: both are in memory.
        let mut changed = webhook(1, 1, MEGABYTE + 1);
        let new = budget.hold(&mut changed).expect("room");
        assert_eq!(budget.lock().bytes, bytes + changed.body.len());
        drop(holds);
        drop(another);
        assert_eq!(budget.lock().bytes, changed.body.len());
        assert!(budget.hold(&mut changed.clone()).is_some());
        drop(new);
        let all = budget.lock();
        assert_eq!((all.bytes, all.bytes_by_endpoint.len(), all.held.len()), (0, 0, 0));
        drop(all);
        budget.hold(&mut one).expect("room");
    }

    #[test]
    fn requests_with_large_headers_are_bounded() {
        let budget = MemoryBudget::default();
        let with_headers = |count: usize| {
            let headers = (0..count).map(|number| (format!("X-{number}"), "x".repeat(8000).into())).collect();
            Arc::new(Webhook { headers, ..Webhook::clone(&webhook(1, 1, 10)) })
        };
        let (mut large, mut small) = (with_headers(50), with_headers(1));
        let holds: Vec<Hold> = (0..1000).map_while(|_| budget.hold(&mut large)).collect();
        assert!((30..50).contains(&holds.len()), "{}", holds.len());
        assert!(budget.hold(&mut small).is_some());
        drop(holds);
        assert!(budget.hold(&mut large).is_some());
    }

    #[test]
    fn one_endpoint_leaves_room_for_the_others_and_all_together_are_bounded() {
        let budget = MemoryBudget::default();
        let hold = |endpoint, number| budget.hold(&mut webhook(endpoint, number, MEGABYTE));
        let fill = |endpoint| (0..100).map_while(|number| hold(endpoint, number)).collect::<Vec<_>>();
        let of_one = fill(1);
        assert_eq!(of_one.len(), PARAMETER_BYTES_OF_ENDPOINT / MEGABYTE);
        let of_others: Vec<Hold> = (2..10).flat_map(fill).collect();
        assert_eq!(of_one.len() + of_others.len(), PARAMETER_BYTES / MEGABYTE);
        assert!(budget.hold(&mut webhook(1, 100, LARGE_BYTES / 2)).is_some(), "small ones always fit");
        drop(of_one);
        assert!(hold(11, 1).is_some());
    }

    #[test]
    fn letters_with_large_parameters_take_turns() {
        let budget = MemoryBudget::default();
        let letter = |bytes: usize| {
            DeadLetter::of_body(&vec![b'x'; bytes], Vec::new(), "", DeadLetterReason::Malformed, DateTime::UNIX_EPOCH)
        };
        let take = |letter: &DeadLetter| budget.take_letter(letter).now_or_never();
        let large = letter(BODY_BYTES_KEPT);
        let taken: Vec<_> = (0..100).map_while(|_| take(&large)).collect();
        assert_eq!(taken.len(), LETTER_BYTES / BODY_BYTES_KEPT);
        assert!(take(&letter(10)).is_some(), "a small one waits for nobody");
        drop(taken);
        let whole = DeadLetter { body: Some("x".repeat(2 * LETTER_BYTES)), ..letter(1) };
        assert!(take(&whole).is_some());
    }
}
