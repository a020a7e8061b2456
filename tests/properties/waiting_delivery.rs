//! For any message of the retries queue: its deliveries can be requeued unchanged, alone and together, and given up, or
//! the message is malformed.

use waypost_core::dead_letter::DeadLetter;
use waypost_core::ids::ReceiptId;
use waypost_core::outcome::Cause;
use waypost_core::reason::DeadLetterReason;
use waypost_core::{ATTEMPTS_KEPT, Attempt, Delivery};

use super::{depth, is_kept, now, record};

/// Parameters of a document are not nested as deep as this (`MAX_BODY_DEPTH`), and the JSON parser stops at 128. A
/// deeper delivery of another program may be readable alone, but not in an array.
/// written deeper may be read alone and not in company.
const DEPTH_OF_OURS: usize = 64;

pub(crate) fn holds(body: &[u8]) {
    let Ok(deliveries) = Delivery::decode_waiting(body) else { return };
    assert!(!deliveries.is_empty(), "a message must have a delivery");
    let written: Vec<Vec<u8>> = deliveries.iter().map(is_kept).collect();
    if written.iter().any(|delivery| depth(delivery) > DEPTH_OF_OURS) {
        return;
    }
    for (delivery, written) in deliveries.iter().zip(&written) {
        assert_eq!(Delivery::decode_waiting(written).expect("one alone"), std::slice::from_ref(delivery));
    }
    // Waiting deliveries are combined like this. See `delay_batcher.rs`.
    let together = [b"[".as_slice(), &written.join(b",".as_slice()), b"]"].concat();
    assert_eq!(Delivery::decode_waiting(&together).expect("all together"), deliveries);
    deliveries.into_iter().for_each(goes_on);
}

/// A delivery can have another attempt, wait again, and be given up.
fn goes_on(mut delivery: Delivery) {
    let (made, kept) = (delivery.attempts_made, delivery.attempts.len());
    delivery.record(Attempt {
        at: now(),
        duration_ms: 1,
        status: Some(503),
        cause: Cause::Status5xx,
        error: None,
        answer: None,
    });
    assert_eq!(delivery.attempts_made, made.saturating_add(1));
    assert!(delivery.attempts.len() <= ATTEMPTS_KEPT.max(kept));
    is_kept(&delivery);
    let letter = DeadLetter::from_delivery(delivery.clone(), DeadLetterReason::Exhausted, now());
    assert_eq!(
        letter,
        DeadLetter::from_delivery(delivery.clone(), DeadLetterReason::Exhausted, now()),
        "a delivery must give one letter"
    );
    let received = |number| {
        let delivery = Delivery { receipt: Some(ReceiptId::new(1, number)), ..delivery.clone() };
        is_kept(&delivery);
        DeadLetter::from_delivery(delivery, DeadLetterReason::Exhausted, now()).id
    };
    assert_eq!(received(1), received(1), "copies of a message must give the same letter");
    assert_ne!(received(1), received(2), "two messages are two letters");
    assert_eq!(letter.delivery_id.as_ref(), Some(&delivery.id));
    assert_eq!(letter.event.as_ref(), Some(&delivery.event));
    record::is_a_letter(&letter);
}
