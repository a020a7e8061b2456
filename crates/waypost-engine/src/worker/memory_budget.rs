//! Limits the memory of messages and webhooks that are being processed.
//!
//! The window limits only the number of messages. A body can have a hundred bytes or a hundred megabytes, and takes
//! several times that when it is decoded, rendered and encoded again. Events and retries have separate budgets, so that
//! neither waits for the other.
//!
//! A webhook can have a megabyte of extra parameters. All its deliveries share one copy, which is counted once.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use waypost_core::campaign::{ExtraParameters, Webhook};
use waypost_core::dead_letter::DeadLetter;
use waypost_core::endpoint::Origin;
use waypost_core::ids::WebhookId;

use super::queue::ConsumedQueue;

/// Bytes of message bodies of one kind of queue that are processed at once. Other messages wait in the order of
/// arrival.
const MAX_MESSAGE_BYTES: usize = 32 * 1024 * 1024;

/// A batch of parked deliveries is a JSON array of up to a hundred deliveries, each of which may need a request and a
/// connection. So its bytes count this many times, and about 3,000 deliveries fill the budget.
const BATCH_WEIGHT: usize = 16;

/// Bytes of large extra parameters in attempts in flight. Each distinct text counts once.
const MAX_PARAMETER_BYTES: usize = 64 * 1024 * 1024;

/// The part of [`MAX_PARAMETER_BYTES`] that the webhooks of one endpoint may use.
const MAX_PARAMETER_BYTES_PER_ENDPOINT: usize = MAX_PARAMETER_BYTES / 4;

/// Bytes of large headers in requests in flight. A request has its headers twice: rendered, and as they are sent.
const MAX_HEADER_BYTES: usize = 32 * 1024 * 1024;

/// Bytes of large dead letters that are written at once. Each letter has copies as JSON and as AMQP frames.
const MAX_LETTER_BYTES: usize = 8 * 1024 * 1024;

/// Smaller extra parameters, headers and letters are not counted. Even a full window of them fits into memory.
const LARGE_BYTES: usize = 16 * 1024;

/// Semaphores count in units of this size, so that their permits fit into a `u32`.
const UNIT_BYTES: usize = 1024;

/// Cheap to clone.
#[derive(Clone)]
pub struct MemoryBudget {
    events: Arc<Semaphore>,
    retries: Arc<Semaphore>,
    letters: Arc<Semaphore>,
    headers: Arc<Semaphore>,
    parameters: Arc<Mutex<ParameterTotals>>,
}

impl Default for MemoryBudget {
    fn default() -> Self {
        let semaphore = |bytes: usize| Arc::new(Semaphore::new(bytes / UNIT_BYTES));
        Self {
            events: semaphore(MAX_MESSAGE_BYTES),
            retries: semaphore(MAX_MESSAGE_BYTES),
            letters: semaphore(MAX_LETTER_BYTES),
            headers: semaphore(MAX_HEADER_BYTES),
            parameters: Arc::default(),
        }
    }
}

impl MemoryBudget {
    /// Waits until a message body fits, first come, first served. A body larger than the budget takes all of it.
    pub(super) async fn acquire_for_message(&self, queue: ConsumedQueue, body: &[u8]) -> Option<OwnedSemaphorePermit> {
        let (semaphore, weight) = match queue {
            ConsumedQueue::Events => (&self.events, 1),
            ConsumedQueue::Retries if body.starts_with(b"[") => (&self.retries, BATCH_WEIGHT),
            ConsumedQueue::Retries => (&self.retries, 1),
        };
        acquire(semaphore, body.len() * weight, MAX_MESSAGE_BYTES).await
    }

    /// Waits until a dead letter may be written. A letter without a large body or large extra parameters does not wait.
    pub(super) async fn acquire_for_letter(&self, letter: &DeadLetter) -> Option<OwnedSemaphorePermit> {
        let parameters = letter.target.as_ref().map_or(0, |target| target.webhook.body.len());
        let body = letter.body.as_ref().or(letter.body_base64.as_ref()).map_or(0, String::len);
        let bytes = parameters + body;
        if bytes < LARGE_BYTES {
            return None;
        }
        acquire(&self.letters, bytes, MAX_LETTER_BYTES).await
    }

    /// Reserves memory for a webhook's extra parameters and headers during an attempt. If another attempt has equal
    /// parameters in memory, the webhook gets that copy instead of its own.
    ///
    /// `None` if they do not fit. The caller must then drop the webhook and try again later.
    pub(super) fn reserve(&self, webhook: &mut Arc<Webhook>) -> Option<Reservation> {
        let header_bytes = 2 * header_bytes(webhook);
        let _headers = if header_bytes < LARGE_BYTES {
            None
        } else {
            let units = u32::try_from(header_bytes.div_ceil(UNIT_BYTES)).unwrap_or(u32::MAX);
            Some(self.headers.clone().try_acquire_many_owned(units).ok()?)
        };
        if webhook.body.len() < LARGE_BYTES {
            return Some(Reservation { _headers, _parameters: None });
        }
        // Under one lock, or two attempts that begin at once would both add the parameters.
        let mut totals = self.lock();
        let latest = totals.latest.get(&webhook.id).and_then(Weak::upgrade);
        let shared = match &latest {
            Some(latest) if latest.has(&webhook.body) => Some(latest.clone()),
            _ => totals.add(webhook, &self.parameters),
        };
        // Unlocks before `latest` is dropped: the last use of parameters locks the totals when it is dropped.
        drop(totals);
        let shared = shared?;
        if !shared.parameters.is_same_text(&webhook.body) {
            Arc::make_mut(webhook).body = shared.parameters.clone();
        }
        Some(Reservation { _headers, _parameters: Some(shared) })
    }

    fn lock(&self) -> MutexGuard<'_, ParameterTotals> {
        self.parameters.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn acquire(semaphore: &Arc<Semaphore>, bytes: usize, max_bytes: usize) -> Option<OwnedSemaphorePermit> {
    let units = bytes.div_ceil(UNIT_BYTES).clamp(1, max_bytes / UNIT_BYTES);
    // Fails only if the semaphore is closed, which it never is.
    semaphore.clone().acquire_many_owned(u32::try_from(units).unwrap_or(u32::MAX)).await.ok()
}

fn header_bytes(webhook: &Webhook) -> usize {
    webhook.headers.iter().map(|(name, value)| name.len() + value.as_str().map_or(0, str::len)).sum()
}

/// Counts an attempt's extra parameters and headers until it is dropped.
pub(crate) struct Reservation {
    _headers: Option<OwnedSemaphorePermit>,
    _parameters: Option<Arc<ParameterUse>>,
}

/// The extra parameters of a webhook, shared by all its attempts.
struct ParameterUse {
    parameters: ExtraParameters,
    webhook: WebhookId,
    endpoint: Origin,
    totals: Arc<Mutex<ParameterTotals>>,
}

impl ParameterUse {
    /// Equal parameters are usually the same text. Comparing others takes up to 0.1 ms.
    fn has(&self, parameters: &ExtraParameters) -> bool {
        self.parameters.is_same_text(parameters) || self.parameters == *parameters
    }
}

/// The large extra parameters in memory.
#[derive(Default)]
struct ParameterTotals {
    bytes: usize,
    bytes_by_endpoint: HashMap<Origin, usize>,
    /// The latest parameters of each webhook. Attempts may still hold older ones: if another attempt with the older ones
    /// begins, they count again.
    latest: HashMap<WebhookId, Weak<ParameterUse>>,
}

impl ParameterTotals {
    fn add(&mut self, webhook: &Webhook, totals: &Arc<Mutex<Self>>) -> Option<Arc<ParameterUse>> {
        let bytes = webhook.body.len();
        let endpoint = &webhook.url.receiver_key().endpoint;
        let endpoint_bytes = self.bytes_by_endpoint.get(endpoint).copied().unwrap_or_default();
        if self.bytes + bytes > MAX_PARAMETER_BYTES || endpoint_bytes + bytes > MAX_PARAMETER_BYTES_PER_ENDPOINT {
            return None;
        }
        self.bytes += bytes;
        self.bytes_by_endpoint.insert(endpoint.clone(), endpoint_bytes + bytes);
        let added = Arc::new(ParameterUse {
            parameters: webhook.body.clone(),
            webhook: webhook.id.clone(),
            endpoint: endpoint.clone(),
            totals: totals.clone(),
        });
        self.latest.insert(webhook.id.clone(), Arc::downgrade(&added));
        Some(added)
    }
}

impl Drop for ParameterUse {
    fn drop(&mut self) {
        let mut totals = self.totals.lock().unwrap_or_else(PoisonError::into_inner);
        let bytes = self.parameters.len();
        totals.bytes = totals.bytes.saturating_sub(bytes);
        if let Some(endpoint_bytes) = totals.bytes_by_endpoint.get_mut(&self.endpoint) {
            *endpoint_bytes = endpoint_bytes.saturating_sub(bytes);
            if *endpoint_bytes == 0 {
                totals.bytes_by_endpoint.remove(&self.endpoint);
            }
        }
        if totals.latest.get(&self.webhook).is_some_and(|latest| latest.strong_count() == 0) {
            totals.latest.remove(&self.webhook);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Barrier;

    use chrono::DateTime;
    use futures_util::FutureExt as _;
    use serde_json::json;
    use waypost_core::dead_letter::BODY_BYTES_KEPT;
    use waypost_core::reason::DeadLetterReason;

    use super::*;

    #[test]
    fn a_message_that_does_not_fit_waits() {
        let budget = MemoryBudget::default();
        let acquire = |queue, body: &[u8]| budget.acquire_for_message(queue, body).now_or_never().flatten();
        let (half, too_large) = (vec![b'{'; MAX_MESSAGE_BYTES / 2], vec![b'{'; MAX_MESSAGE_BYTES * 2]);
        let permit = acquire(ConsumedQueue::Events, &half).expect("it fits");
        assert!(acquire(ConsumedQueue::Events, &too_large).is_none());
        drop(permit);
        let permit = acquire(ConsumedQueue::Events, &too_large).expect("a body larger than the budget gets all of it");
        assert!(acquire(ConsumedQueue::Events, b"").is_none());
        assert!(acquire(ConsumedQueue::Retries, b"").is_some(), "retries have a budget of their own");
        drop(permit);
        let batch = vec![b'['; MAX_MESSAGE_BYTES / BATCH_WEIGHT];
        let permit = acquire(ConsumedQueue::Retries, &batch).expect("it fits");
        assert!(acquire(ConsumedQueue::Retries, b"{").is_none(), "the bytes of a batch count several times");
        drop(permit);
    }

    fn parameters(bytes: usize) -> ExtraParameters {
        [("text".to_owned(), "x".repeat(bytes).into())].into_iter().collect()
    }

    /// A webhook with an id and extra parameters of its own, whose endpoint has this number.
    fn webhook(endpoint: usize, number: usize, bytes: usize) -> Arc<Webhook> {
        let (id, url) = (format!("wh_{endpoint}_{number}"), format!("https://host-{endpoint}.example/"));
        let webhook = json!({ "id": id, "url": url, "enabled": true, "timeoutMs": 1 });
        let webhook: Webhook = serde_json::from_value(webhook).expect("a webhook");
        Arc::new(Webhook { body: parameters(bytes), ..webhook })
    }

    const MEGABYTE: usize = 1_000_000;

    #[test]
    fn attempts_of_one_webhook_share_its_parameters() {
        let budget = MemoryBudget::default();
        let (mut first, mut copy) = (webhook(1, 1, MEGABYTE), webhook(1, 1, MEGABYTE));
        let reservations: Vec<Reservation> =
            (0..1000).map(|_| budget.reserve(&mut first.clone()).expect("it fits")).collect();
        let copy_reservation = budget.reserve(&mut copy).expect("it fits");
        assert!(copy.body.is_same_text(&first.body), "a second copy was kept");
        let bytes = first.body.len();
        assert_eq!(budget.lock().bytes, bytes);
        // After the webhook has changed, both versions are in memory.
        let mut changed = webhook(1, 1, MEGABYTE + 1);
        let changed_reservation = budget.reserve(&mut changed).expect("it fits");
        assert_eq!(budget.lock().bytes, bytes + changed.body.len());
        drop(reservations);
        drop(copy_reservation);
        assert_eq!(budget.lock().bytes, changed.body.len());
        assert!(budget.reserve(&mut changed.clone()).is_some());
        drop(changed_reservation);
        let totals = budget.lock();
        assert_eq!((totals.bytes, totals.bytes_by_endpoint.len(), totals.latest.len()), (0, 0, 0));
        drop(totals);
        budget.reserve(&mut first).expect("it fits");
    }

    #[test]
    fn attempts_that_begin_at_once_count_parameters_once() {
        let budget = MemoryBudget::default();
        let threads = 4;
        let barrier = Barrier::new(threads);
        for number in 0..500 {
            let webhook = webhook(1, number, LARGE_BYTES);
            std::thread::scope(|scope| {
                for _ in 0..threads {
                    scope.spawn(|| {
                        barrier.wait();
                        let reservation = budget.reserve(&mut webhook.clone());
                        barrier.wait();
                        assert_eq!(budget.lock().bytes, webhook.body.len());
                        barrier.wait();
                        drop(reservation);
                    });
                }
            });
        }
        assert_eq!(budget.lock().bytes, 0);
    }

    #[test]
    fn requests_with_large_headers_are_bounded() {
        let budget = MemoryBudget::default();
        let with_headers = |count: usize| {
            let headers = (0..count).map(|number| (format!("X-{number}"), "x".repeat(8000).into())).collect();
            Arc::new(Webhook { headers, ..Webhook::clone(&webhook(1, 1, 10)) })
        };
        let (mut large, mut small) = (with_headers(50), with_headers(1));
        let reservations: Vec<Reservation> = (0..1000).map_while(|_| budget.reserve(&mut large)).collect();
        assert!((30..50).contains(&reservations.len()), "{}", reservations.len());
        assert!(budget.reserve(&mut small).is_some());
        drop(reservations);
        assert!(budget.reserve(&mut large).is_some());
    }

    #[test]
    fn parameters_are_bounded_for_each_endpoint_and_in_total() {
        let budget = MemoryBudget::default();
        let reserve = |endpoint, number| budget.reserve(&mut webhook(endpoint, number, MEGABYTE));
        let fill = |endpoint| (0..100).map_while(|number| reserve(endpoint, number)).collect::<Vec<_>>();
        let first = fill(1);
        assert_eq!(first.len(), MAX_PARAMETER_BYTES_PER_ENDPOINT / MEGABYTE);
        let others: Vec<Reservation> = (2..10).flat_map(fill).collect();
        assert_eq!(first.len() + others.len(), MAX_PARAMETER_BYTES / MEGABYTE);
        assert!(budget.reserve(&mut webhook(1, 100, LARGE_BYTES / 2)).is_some(), "small parameters always fit");
        drop(first);
        assert!(reserve(11, 1).is_some());
    }

    #[test]
    fn large_letters_are_bounded() {
        let budget = MemoryBudget::default();
        let letter = |bytes: usize| {
            DeadLetter::from_body(&vec![b'x'; bytes], Vec::new(), "", DeadLetterReason::Malformed, DateTime::UNIX_EPOCH)
        };
        let acquire = |letter: &DeadLetter| budget.acquire_for_letter(letter).now_or_never();
        let large = letter(BODY_BYTES_KEPT);
        let permits: Vec<_> = (0..100).map_while(|_| acquire(&large)).collect();
        assert_eq!(permits.len(), MAX_LETTER_BYTES / BODY_BYTES_KEPT);
        assert!(acquire(&letter(10)).is_some(), "a small letter does not wait");
        drop(permits);
        let too_large = DeadLetter { body: Some("x".repeat(2 * MAX_LETTER_BYTES)), ..letter(1) };
        assert!(acquire(&too_large).is_some());
    }
}
