//! Dead letters: in lists, and one with its history.

pub mod discard;
pub mod erase;
pub mod summary;

use schemars::JsonSchema;
use serde::{Deserialize, Deserializer, Serialize};
use waypost_core::dead_letter::DeadLetter;
use waypost_core::dead_letter::history::{OperatorAction, ReplayAttempt};
use waypost_core::request::RequestPreview;

use crate::flattened::read_twice;

/// A dead letter in a list. The webhook's configuration is omitted; `request` of a single dead letter shows the request
/// sent.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
#[schemars(rename = "DeadLetter")]
pub struct LetterSummaryResponse {
    #[serde(flatten)]
    pub letter: DeadLetter,
    #[serde(flatten)]
    #[schemars(skip)]
    null_fields: NullFields,
}

/// Fields that the record of a delivery omits. The response has them as null, or empty, if there was no attempt.
#[derive(Debug, Clone, PartialEq, Serialize)]
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
        let null_if = |is_omitted: bool| (is_omitted && letter.is_delivery()).then_some(());
        let null_fields = NullFields {
            status: null_if(letter.status.is_none()),
            cause: null_if(letter.cause.is_none()),
            first_attempt_at: null_if(letter.first_attempt_at.is_none()),
            attempts: null_if(letter.attempts.is_empty()).map(|()| []),
        };
        Self { letter: DeadLetter { target: None, ..letter }, null_fields }
    }
}

// A field that is null and a field that is absent mean the same.
impl<'de> Deserialize<'de> for LetterSummaryResponse {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        DeadLetter::deserialize(deserializer).map(Self::from)
    }
}

/// A dead letter and its history.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(rename = "DeadLetterDetail")]
pub struct LetterResponse {
    #[serde(flatten)]
    pub summary: LetterSummaryResponse,
    /// The request of the last attempt. Values of custom headers are not stored.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub request: Option<RequestPreview>,
    /// Its replays, oldest first.
    pub replays: Vec<ReplayAttempt>,
    /// Who discarded it, when and why.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub discard: Option<OperatorAction>,
    /// Who erased the person's data in it. It can't be sent again.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub erased: Option<OperatorAction>,
}

impl<'de> Deserialize<'de> for LetterResponse {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct Own {
            request: Option<RequestPreview>,
            replays: Vec<ReplayAttempt>,
            discard: Option<OperatorAction>,
            erased: Option<OperatorAction>,
        }
        let (summary, Own { request, replays, discard, erased }) = read_twice(deserializer)?;
        Ok(Self { summary, request, replays, discard, erased })
    }
}

#[cfg(test)]
mod tests {
    use chrono::DateTime;
    use serde_json::{Value, json, to_value};
    use waypost_core::event;
    use waypost_core::ids::DeliveryId;
    use waypost_core::reason::DeadLetterReason;

    use super::*;

    #[test]
    fn missing_fields_of_a_delivery_are_null_and_not_omitted() {
        let now = DateTime::UNIX_EPOCH;
        let unreadable = DeadLetter::from_body(b"?", Vec::new(), "1", DeadLetterReason::Malformed, now);
        let event = json!({ "campaignId": "c", "label": "a", "phoneNumber": "1", "date": "2024-06-18T23:26:14Z" });
        let event = event::decode(event.to_string().as_bytes(), None).expect("an event");
        let removed = DeadLetter { event: Some(event), ..unreadable.clone() };
        let delivery = DeadLetter { delivery_id: Some(DeliveryId::new("msg_1")), ..removed.clone() };
        let response = |letter: &DeadLetter| {
            let summary = letter.clone().into();
            let detail = LetterResponse { summary, request: None, replays: Vec::new(), discard: None, erased: None };
            to_value(detail).expect("JSON")
        };
        for name in ["status", "cause", "firstAttemptAt"] {
            assert_eq!(response(&delivery).get(name), Some(&Value::Null), "{name}");
            assert_eq!(
                [&unreadable, &removed].map(|letter| response(letter).get(name).cloned()),
                [None, None],
                "{name}"
            );
        }
        assert_eq!(
            (response(&delivery).get("attempts"), response(&unreadable).get("attempts")),
            (Some(&json!([])), None)
        );
        let answered = DeadLetter { status: Some(503), ..delivery };
        assert_eq!(response(&answered)["status"], 503);
    }
}
