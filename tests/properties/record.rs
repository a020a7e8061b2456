//! For any record of the dead-letter log: it is a letter or a change of state that survives a round trip, or it is
//! skipped. Any bytes can be stored as a letter.

use waypost_core::dead_letter::{BODY_BYTES_KEPT, DeadLetter};
use waypost_core::dead_letter_record::DeadLetterRecord;
use waypost_core::ids::DeadLetterId;
use waypost_core::reason::DeadLetterReason;
use waypost_core::replay::{ReplayId, ReplayRef};
use waypost_core::violation::Violation;

use super::{depth, is_kept, now};

pub(crate) fn holds(bytes: &[u8]) {
    match DeadLetterRecord::decode(bytes) {
        Ok(Some(mark)) => {
            let written = mark.clone().encode().expect("serializable");
            assert_eq!(DeadLetterRecord::decode(&written).expect("a record"), Some(mark.clone()));
            assert_eq!(mark.encode().expect("serializable"), written);
        }
        Ok(None) => {
            if let Ok(letter) = serde_json::from_slice::<DeadLetter>(bytes) {
                is_a_letter(&letter);
            }
        }
        Err(_) => {}
    }
    is_kept_whole(bytes);
}

/// Every letter survives a round trip, and is never read as a change of state.
pub(super) fn is_a_letter(letter: &DeadLetter) {
    let written = is_kept(letter);
    assert_eq!(DeadLetterRecord::decode(&written).expect("a record"), None, "a letter was read as a change of state");
    // The parser stops at 128, and a replay is written with the same limit.
    assert!(depth(&written) <= 128);
    let link = ReplayRef { dead_letter: letter.id.clone(), replay: ReplayId::new("rp_1") };
    let again = letter.clone().unsent(DeadLetterReason::WebhookDeleted).with_replay(link.clone());
    assert_eq!(again.id, letter.clone().with_replay(link).id, "a replay adds at most one letter for each letter");
    assert_ne!(again.id, letter.id);
    assert_eq!((&again.event, &again.target), (&letter.event, &letter.target));
    is_kept(&again);
}

/// A malformed message is stored byte for byte, and replayed unchanged.
fn is_kept_whole(body: &[u8]) {
    let faults = vec![Violation::new("$", "not JSON")];
    let letter = |seen| DeadLetter::from_body(body, faults.clone(), seen, DeadLetterReason::Malformed, now());
    let one = letter("seen-1");
    assert_ne!(one.id, letter("seen-2").id, "two messages with equal bodies are two letters");
    assert_ne!(one.id, DeadLetterId::new(""));
    assert!(one.body.is_none() || std::str::from_utf8(body).is_ok());
    assert!(one.body.is_some() != one.body_base64.is_some());
    if body.len() < BODY_BYTES_KEPT {
        assert_eq!(one.whole_body().as_deref(), Some(body));
    }
    is_a_letter(&one);
}
