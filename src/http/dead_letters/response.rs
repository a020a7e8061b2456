//! Dead letters as the API shows them.

use schemars::JsonSchema;
use serde::Serialize;

use crate::delivery::Delivery;
use crate::delivery::campaign::Secrets;
use crate::delivery::dead_letter::DeadLetter;
use crate::delivery::dead_letter::record::{LetterHistory, OperatorAction, ReplayAttempt};
use crate::delivery::request::{self, RequestPreview};

/// A dead letter in a list: without the webhook's configuration, of which `request` shows what was sent.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "DeadLetter")]
pub(super) struct LetterSummaryResponse {
    #[serde(flatten)]
    letter: DeadLetter,
    #[serde(flatten)]
    #[schemars(skip)]
    lacks: NullFields,
}

/// What its record leaves out of a delivery, and a reader looks for: null where no attempt has given it.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct NullFields {
    #[serde(skip_serializing_if = "Option::is_none")]
    status: Option<()>,
    #[serde(skip_serializing_if = "Option::is_none")]
    cause: Option<()>,
    #[serde(skip_serializing_if = "Option::is_none")]
    first_attempt_at: Option<()>,
    #[serde(skip_serializing_if = "Option::is_none")]
    attempts: Option<[(); 0]>,
}

impl From<DeadLetter> for LetterSummaryResponse {
    fn from(letter: DeadLetter) -> Self {
        let lacks = |is_left_out: bool| (is_left_out && letter.is_of_delivery()).then_some(());
        let lacks = NullFields {
            status: lacks(letter.status.is_none()),
            cause: lacks(letter.cause.is_none()),
            first_attempt_at: lacks(letter.first_attempt_at.is_none()),
            attempts: lacks(letter.attempts.is_empty()).map(|()| []),
        };
        Self { letter: DeadLetter { target: None, ..letter }, lacks }
    }
}

/// A dead letter, and what became of it.
#[derive(Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(rename = "DeadLetterDetail")]
pub(super) struct LetterResponse {
    #[serde(flatten)]
    letter: LetterSummaryResponse,
    /// As it was sent at the last attempt; values of custom headers are not kept.
    #[serde(skip_serializing_if = "Option::is_none")]
    request: Option<RequestPreview>,
    /// Each time it was sent again, oldest first.
    replays: Vec<ReplayAttempt>,
    /// Who gave it up.
    #[serde(skip_serializing_if = "Option::is_none")]
    discard: Option<OperatorAction>,
    /// Who erased what it told of a person. It can't be sent again.
    #[serde(skip_serializing_if = "Option::is_none")]
    erased: Option<OperatorAction>,
}

impl LetterResponse {
    pub(super) fn from_letter(
        letter: DeadLetter,
        LetterHistory { replays, discard, erased, .. }: LetterHistory,
    ) -> Self {
        let request = sent(&letter).filter(|_| erased.is_none());
        Self { request, letter: letter.into(), replays, discard, erased }
    }
}

/// The request of the last attempt. What of it is secret is not kept.
pub(in crate::http) fn sent(letter: &DeadLetter) -> Option<RequestPreview> {
    let (event, target, last) = (letter.event.clone()?, letter.target.clone()?, letter.attempts.last()?);
    let mut delivery = Delivery::new(event, target, letter.trace.clone());
    delivery.id = letter.delivery_id.clone()?;
    Some(request::render(&delivery, last.at).shown(Secrets::Masked))
}

#[cfg(test)]
mod tests {
    use chrono::DateTime;
    use serde_json::{Value, json, to_value};

    use super::*;
    use crate::delivery::event;
    use crate::delivery::ids::DeliveryId;
    use crate::delivery::reason::DeadLetterReason;

    #[test]
    fn what_a_delivery_has_not_had_is_null_and_not_left_out() {
        let now = DateTime::UNIX_EPOCH;
        let unreadable = DeadLetter::of_body(b"?", Vec::new(), "1", DeadLetterReason::Malformed, now);
        let event = json!({ "campaignId": "c", "label": "a", "phoneNumber": "1", "date": "2024-06-18T23:26:14Z" });
        let event = event::decode(event.to_string().as_bytes(), None).expect("an event");
        let removed = DeadLetter { event: Some(event), ..unreadable.clone() };
        let delivery = DeadLetter { delivery_id: Some(DeliveryId::new("msg_1")), ..removed.clone() };
        let shown = |letter: &DeadLetter| {
            to_value(LetterResponse::from_letter(letter.clone(), LetterHistory::default())).expect("JSON")
        };
        for name in ["status", "cause", "firstAttemptAt"] {
            assert_eq!(shown(&delivery).get(name), Some(&Value::Null), "{name}");
            assert_eq!([&unreadable, &removed].map(|letter| shown(letter).get(name).cloned()), [None, None], "{name}");
        }
        assert_eq!((shown(&delivery).get("attempts"), shown(&unreadable).get("attempts")), (Some(&json!([])), None));
        let answered = DeadLetter { status: Some(503), ..delivery };
        assert_eq!(shown(&answered)["status"], 503);
    }
}
