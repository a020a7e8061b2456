//! The step event, which the platform publishes when a user reaches a step of a campaign, and its decoding.

use std::fmt;

use chrono::{DateTime, Utc};
use schemars::JsonSchema;
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::{Number, Value};

use super::ids::EventId;
use super::normal_form::NormalForm;
use super::schema_default::omitted_default;
use super::timestamp;
use super::violation::{Violation, type_name};

pub const MAX_EVENT_BYTES: usize = 256 * 1024;

pub const MAX_CAMPAIGN_ID_CHARS: usize = 128;

/// AMQP's limit of a routing key and of a message id.
const MAX_SHORT_STRING_BYTES: usize = 255;

/// A user reached a step of a campaign.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct StepEvent {
    /// The campaign's id.
    pub campaign_id: String,
    /// The label of the section.
    pub label: String,
    /// The user's phone number.
    pub phone_number: String,
    /// When the user reached the step.
    #[serde(with = "timestamp")]
    #[schemars(with = "DateTime<Utc>")]
    pub date: DateTime<Utc>,
    /// What the user answered.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub response: Option<String>,
    /// The menu text that the user chose.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub option: Option<String>,
    /// The keyword that the user typed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub keyword: Option<Keyword>,
    /// Identifies the event for de-duplication. The default is the AMQP `message_id`, or else a hash of the body.
    #[schemars(default = "omitted_default")]
    pub event_id: EventId,
}

impl StepEvent {
    /// The routing key of the event's message: the campaign's id.
    ///
    /// # Errors
    /// The violation if the id is too long for AMQP.
    pub fn routing_key(&self) -> Result<&str, Violation> {
        if self.campaign_id.len() <= MAX_SHORT_STRING_BYTES {
            return Ok(&self.campaign_id);
        }
        let message = format!("has more than {MAX_SHORT_STRING_BYTES} bytes, the limit of a routing key");
        Err(Violation::new("$.campaignId", message))
    }

    /// The id of the event's message: the event's id, so that an event without an `eventId` keeps its derived id.
    /// `None` if the id is too long for AMQP. Such an id is in the body, which takes precedence over the message id.
    pub fn message_id(&self) -> Option<&str> {
        Some(self.event_id.as_str()).filter(|id| id.len() <= MAX_SHORT_STRING_BYTES)
    }
}

/// A keyword. Its JSON type, text or number, is preserved.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(untagged)]
pub enum Keyword {
    /// `"yes"`
    Text(String),
    /// `1`. All digits are preserved.
    Number(Number),
}

impl Keyword {
    /// Returns `None` if the value is neither text nor a number.
    pub fn from_json(value: &Value) -> Option<Self> {
        match value {
            Value::String(text) => Some(Self::Text(text.clone())),
            Value::Number(number) => Some(Self::Number(number.clone())),
            _ => None,
        }
    }

    pub fn to_json(&self) -> Value {
        match self {
            Self::Text(text) => Value::String(text.clone()),
            Self::Number(number) => Value::Number(number.clone()),
        }
    }

    /// Whether both keywords have the same normal form.
    pub fn matches(&self, other: &Self) -> bool {
        self.normal_form() == other.normal_form()
    }

    pub fn normal_form(&self) -> NormalForm<'_> {
        match self {
            Self::Text(text) => NormalForm::from_text(text),
            Self::Number(number) => NormalForm::from_number(number),
        }
    }

    fn as_str(&self) -> &str {
        match self {
            Self::Text(text) => text,
            Self::Number(number) => number.as_str(),
        }
    }
}

impl fmt::Display for Keyword {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

// Uses `Value`, because untagged enums in serde do not support numbers of arbitrary precision.
impl<'de> Deserialize<'de> for Keyword {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let value = Value::deserialize(deserializer)?;
        Self::from_json(&value).ok_or_else(|| {
            serde::de::Error::custom(format!("a keyword is a string or a number, not {}", type_name(&value)))
        })
    }
}

/// The body with unchecked values, so that all violations can be reported at once.
#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct RawEvent {
    campaign_id: Value,
    label: Value,
    phone_number: Value,
    date: Value,
    response: Value,
    option: Value,
    keyword: Value,
    event_id: Value,
}

/// Decodes an event from the body of a message. `message_id` is the AMQP property, used if the body has no `eventId`.
///
/// # Errors
/// All violations in the body.
pub fn decode(body: &[u8], message_id: Option<&str>) -> Result<StepEvent, Vec<Violation>> {
    let raw = parse(body).map_err(|message| vec![Violation::new("$", message)])?;
    let mut violations = EventViolations(Vec::new());
    let campaign_id = violations.required_text("campaignId", raw.campaign_id).and_then(|id| violations.campaign_id(id));
    let label = violations.required_text("label", raw.label);
    let phone_number = violations.required_text("phoneNumber", raw.phone_number);
    let date = violations.required_text("date", raw.date).and_then(|date| violations.date(&date));
    let response = violations.text("response", raw.response);
    let option = violations.text("option", raw.option);
    let keyword = violations.keyword(raw.keyword);
    let event_id = violations.text("eventId", raw.event_id);
    let (Some(campaign_id), Some(label), Some(phone_number), Some(date), true) =
        (campaign_id, label, phone_number, date, violations.0.is_empty())
    else {
        return Err(violations.0);
    };
    let event_id = match (event_id, message_id) {
        (Some(id), _) if !id.is_empty() => EventId::new(id),
        (_, Some(id)) if !id.is_empty() => EventId::new(id),
        _ => EventId::from_body(body),
    };
    Ok(StepEvent { campaign_id, label, phone_number, date, response, option, keyword, event_id })
}

fn parse(body: &[u8]) -> Result<RawEvent, String> {
    if body.len() > MAX_EVENT_BYTES {
        return Err(format!("too large ({} bytes): an event has at most {MAX_EVENT_BYTES} bytes", body.len()));
    }
    let text = std::str::from_utf8(body).map_err(|error| format!("not UTF-8 from byte {} on", error.valid_up_to()))?;
    let invalid = |error: serde_json::Error| format!("not valid JSON: {error}");
    // A derived `Deserialize` of a struct also accepts an array of the fields in order, so objects are checked first.
    if !text.trim_ascii_start().starts_with('{') {
        let value = serde_json::from_str(text).map_err(invalid)?;
        return Err(format!("an event is a JSON object, not {}", type_name(&value)));
    }
    serde_json::from_str(text).map_err(invalid)
}

/// Collects violations. Each method returns the valid value, or adds a violation and returns `None`.
struct EventViolations(Vec<Violation>);

impl EventViolations {
    fn add<T>(&mut self, name: &str, message: impl Into<String>) -> Option<T> {
        self.0.push(Violation::new(format!("$.{name}"), message));
        None
    }

    fn text(&mut self, name: &str, value: Value) -> Option<String> {
        match value {
            Value::String(text) => Some(text),
            Value::Null => None,
            other => self.add(name, format!("expected a string, found {}", type_name(&other))),
        }
    }

    fn required_text(&mut self, name: &str, value: Value) -> Option<String> {
        match value {
            Value::Null => self.add(name, "missing; it is required"),
            other => self.text(name, other),
        }
    }

    fn campaign_id(&mut self, id: String) -> Option<String> {
        if (1..=MAX_CAMPAIGN_ID_CHARS).contains(&id.chars().count()) {
            return Some(id);
        }
        self.add("campaignId", format!("a campaign id has 1 to {MAX_CAMPAIGN_ID_CHARS} characters"))
    }

    fn date(&mut self, text: &str) -> Option<DateTime<Utc>> {
        match timestamp::parse(text) {
            Ok(date) => Some(date),
            Err(error) => self.add("date", format!("{error}; write it like 2024-06-18T23:26:14.206Z")),
        }
    }

    fn keyword(&mut self, value: Value) -> Option<Keyword> {
        match value {
            Value::Null => None,
            Value::String(text) => Some(Keyword::Text(text)),
            Value::Number(number) => Some(Keyword::Number(number)),
            other => self.add("keyword", format!("a keyword is a string or a number, not {}", type_name(&other))),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    /// An event with every field.
    fn complete_event() -> Value {
        json!({
            "campaignId": "13010", "label": "Welcome Message", "phoneNumber": "5511999990000",
            "date": "2024-06-18T23:26:14.206Z", "response": "4", "option": "Offers", "keyword": 4, "eventId": "event-1",
        })
    }

    fn event_with(name: &str, value: Value) -> Vec<u8> {
        let mut event = complete_event();
        event[name] = value;
        event.to_string().into_bytes()
    }

    fn decode_ok(body: &[u8]) -> StepEvent {
        decode(body, None).unwrap_or_else(|violations| panic!("refused: {violations:?}"))
    }

    fn violations(body: &[u8]) -> Vec<Violation> {
        decode(body, None).expect_err("the body was accepted")
    }

    #[test]
    fn a_complete_event_is_decoded() {
        let event = decode_ok(complete_event().to_string().as_bytes());
        assert_eq!(event.campaign_id, "13010");
        assert_eq!(event.label, "Welcome Message");
        assert_eq!(event.phone_number, "5511999990000");
        assert_eq!(timestamp::text(&event.date), "2024-06-18T23:26:14.206Z");
        assert_eq!(event.response.as_deref(), Some("4"));
        assert_eq!(event.option.as_deref(), Some("Offers"));
        assert_eq!(event.keyword, Some(Keyword::Number(4.into())));
        assert_eq!(event.event_id, EventId::new("event-1"));
    }

    #[test]
    fn amqp_limits_the_bytes_of_the_routing_key_and_of_the_message_id() {
        for (campaign_id, is_short) in
            [("13010".to_owned(), true), ("é".repeat(127) + "x", true), ("é".repeat(128), false)]
        {
            let event = decode_ok(&event_with("campaignId", campaign_id.as_str().into()));
            match event.routing_key() {
                Ok(routing_key) => assert!(is_short && routing_key == campaign_id, "{campaign_id}"),
                Err(violation) => assert!(!is_short && violation.path == "$.campaignId", "{violation}"),
            }
        }
        for (event_id, is_short) in [("event-1".to_owned(), true), ("x".repeat(255), true), ("x".repeat(256), false)] {
            let event = decode_ok(&event_with("eventId", event_id.as_str().into()));
            assert_eq!(event.message_id(), is_short.then_some(event_id.as_str()), "{event_id}");
        }
    }

    #[test]
    fn optional_fields_may_be_absent_or_null_and_unknown_ones_are_ignored() {
        let deep = format!("{}{}", "[".repeat(10_000), "]".repeat(10_000));
        for rest in [
            String::new(),
            r#","response":null,"option":null,"keyword":null,"eventId":null"#.to_owned(),
            r#","channel":"whatsapp","campaign_id":7,"nested":{"label":1}"#.to_owned(),
            // Ignored values cannot exhaust the stack.
            format!(r#","extra":{deep}"#),
        ] {
            let body =
                format!(r#"{{"campaignId":"1","label":"","phoneNumber":"","date":"2024-06-18T23:26:14Z"{rest}}}"#);
            let event = decode_ok(body.as_bytes());
            assert_eq!((event.response, event.option, event.keyword), (None, None, None), "{rest:.80}");
            assert_eq!(event.event_id, EventId::from_body(body.as_bytes()));
        }
    }

    #[test]
    fn invalid_bodies_are_refused() {
        let in_order = br#"["13010", "Welcome Message", "5511", "2024-06-18T23:26:14Z", null, null, null, null]"#;
        let deep = format!("{}{}", "[".repeat(10_000), "]".repeat(10_000));
        let deep_label = format!(r#"{{"label":{deep}}}"#);
        let large = event_with("response", "x".repeat(300 * 1024).into());
        let bodies: [(&[u8], &str); 16] = [
            (b"", "not valid JSON"),
            (b"  \n", "not valid JSON"),
            (b"null", "an event is a JSON object, not null"),
            (b"true", "not a boolean"),
            (b"[]", "not an array"),
            (in_order, "not an array"),
            (b"\"{}\"", "not a string"),
            (b"13010", "not a number"),
            (b"{", "not valid JSON"),
            (b"{} {}", "not valid JSON"),
            (b"{'label': 'x'}", "not valid JSON"),
            (b"{\"label\": \"\xff\"}", "not UTF-8 from byte 11 on"),
            (b"{\"ignored\": \"\xff\"}", "not UTF-8 from byte 13 on"),
            (&large, "at most 262144 bytes"),
            (deep.as_bytes(), "recursion limit"),
            (deep_label.as_bytes(), "recursion limit"),
        ];
        for (body, expected) in bodies {
            let start = String::from_utf8_lossy(&body[..body.len().min(80)]);
            match violations(body).as_slice() {
                [violation] => {
                    assert_eq!(violation.path, "$", "{start}");
                    assert!(violation.message.contains(expected), "{start}: {violation}");
                }
                several => panic!("{start}: {several:?}"),
            }
        }
        assert!(violations(br#"{"label": "a", "label": "b"}"#)[0].message.contains("duplicate field `label`"));
    }

    #[test]
    fn the_largest_body_is_accepted() {
        let response_bytes = MAX_EVENT_BYTES - event_with("response", "".into()).len();
        let mut body = event_with("response", "x".repeat(response_bytes).into());
        assert_eq!(body.len(), MAX_EVENT_BYTES);
        assert!(decode(&body, None).is_ok());
        body.push(b' ');
        assert!(decode(&body, None).is_err());
    }

    #[test]
    fn fields_of_a_wrong_type_are_refused() {
        let wrong = [json!(true), json!(["x"]), json!({ "x": 1 })];
        let number = [json!(7)];
        for name in ["campaignId", "label", "phoneNumber", "date", "response", "option", "eventId"] {
            for value in wrong.iter().chain(&number) {
                let message = format!("expected a string, found {}", type_name(value));
                assert_eq!(
                    violations(&event_with(name, value.clone())),
                    [Violation::new(format!("$.{name}"), message)]
                );
            }
        }
        for value in wrong {
            let message = format!("a keyword is a string or a number, not {}", type_name(&value));
            assert_eq!(violations(&event_with("keyword", value)), [Violation::new("$.keyword", message)]);
        }
    }

    #[test]
    fn missing_required_fields_are_refused() {
        for name in ["campaignId", "label", "phoneNumber", "date"] {
            let mut event = complete_event();
            event.as_object_mut().expect("an object").remove(name);
            let expected = [Violation::new(format!("$.{name}"), "missing; it is required")];
            assert_eq!(violations(event.to_string().as_bytes()), expected);
            assert_eq!(violations(&event_with(name, Value::Null)), expected);
        }
    }

    #[test]
    fn all_violations_are_reported_at_once() {
        let body = json!({ "campaignId": "", "phoneNumber": 55, "date": "yesterday", "keyword": [], "option": 1 });
        let paths: Vec<_> =
            violations(body.to_string().as_bytes()).into_iter().map(|violation| violation.path).collect();
        assert_eq!(paths, ["$.campaignId", "$.label", "$.phoneNumber", "$.date", "$.option", "$.keyword"]);
    }

    #[test]
    fn campaign_ids_are_counted_in_characters() {
        for (id, accepted) in [("é".repeat(128), true), ("é".repeat(129), false), (String::new(), false)] {
            let result = decode(&event_with("campaignId", id.clone().into()), None);
            assert_eq!(result.is_ok(), accepted, "{} characters", id.chars().count());
        }
    }

    #[test]
    fn dates_are_parsed_and_normalized() {
        for (date, expected) in [
            ("2024-06-18T23:26:14.206Z", Some("2024-06-18T23:26:14.206Z")),
            ("2024-06-18T23:26:14Z", Some("2024-06-18T23:26:14.000Z")),
            ("2024-06-18T20:26:14.206-03:00", Some("2024-06-18T23:26:14.206Z")),
            ("2024-06-19T04:56:14.206+05:30", Some("2024-06-18T23:26:14.206Z")),
            ("2024-06-18t23:26:14.206999z", Some("2024-06-18T23:26:14.206Z")),
            ("2016-12-31T23:59:60Z", Some("2016-12-31T23:59:59.999Z")),
            ("2016-12-31T20:59:60.25-03:00", Some("2016-12-31T23:59:59.999Z")),
            ("2016-12-31T23:59:60+01:00", None),
            ("2024-06-18T23:26:60Z", None),
            ("2024-06-18T23:26:61Z", None),
            ("0000-01-01T00:00:00Z", Some("0000-01-01T00:00:00.000Z")),
            ("9999-12-31T23:59:59Z", Some("9999-12-31T23:59:59.000Z")),
            ("0000-01-01T00:00:00+00:01", None),
            ("9999-12-31T23:59:59-00:01", None),
            ("2024-06-18T23:26:14", None),
            ("2024-06-18", None),
            ("2024-02-30T00:00:00Z", None),
            ("1718753174", None),
            ("18/06/2024 23:26", None),
            ("", None),
        ] {
            match (decode(&event_with("date", date.into()), None), expected) {
                (Ok(event), Some(expected)) => {
                    assert_eq!(timestamp::text(&event.date), expected, "{date}")
                }
                (Err(violations), None) => {
                    assert_eq!(violations.len(), 1, "{date}");
                    assert_eq!(violations[0].path, "$.date");
                    assert!(violations[0].message.starts_with("not an RFC 3339 date"), "{date}: {}", violations[0]);
                }
                (result, _) => panic!("{date}: {result:?}"),
            }
        }
    }

    #[test]
    fn a_keyword_keeps_its_type_and_digits() {
        for keyword in ["4", "1.50", "-0", "0.10", "123456789012345678901234567890", "\"4\"", "\" Yes \"", "\"\""] {
            let body = complete_event().to_string().replace(r#""keyword":4"#, &format!(r#""keyword":{keyword}"#));
            let event = decode_ok(body.as_bytes());
            assert_eq!(serde_json::to_string(&event.keyword).expect("JSON"), keyword);
            let stored = serde_json::to_vec(&event).expect("JSON");
            assert_eq!(serde_json::from_slice::<StepEvent>(&stored).expect("an event"), event);
        }
    }

    #[test]
    fn keywords_match_by_their_normal_forms() {
        let keyword = |value: Value| Keyword::from_json(&value).expect("a keyword");
        for (one, other, matches) in [
            (json!(1), json!("1"), true),
            (json!(1), json!(" 1 "), true),
            (json!("Yes"), json!("yES\n"), true),
            (json!("AÇÃO"), json!("ação"), true),
            (json!(1), json!(1.0), true),
            (json!(1), json!("１"), true),
            (json!(1.0), json!("１"), true),
            (json!(1), json!("1.0"), false),
            (json!("1.0"), json!(1.0), false),
            (json!("Größe"), json!("GRÖSSE"), true),
            (json!("yes"), json!("yes!"), false),
        ] {
            assert_eq!(keyword(one.clone()).matches(&keyword(other.clone())), matches, "{one} {other}");
        }
    }

    #[test]
    fn the_event_id_defaults_to_the_message_id_and_then_to_a_hash() {
        let with_id = |id: &str| event_with("eventId", id.into());
        let without_id = event_with("eventId", Value::Null);
        let derived = EventId::from_body(&without_id);
        for (body, message_id, expected) in [
            (with_id("e"), Some("m"), EventId::new("e")),
            (with_id("e"), None, EventId::new("e")),
            (without_id.clone(), Some("m"), EventId::new("m")),
            (with_id(""), Some("m"), EventId::new("m")),
            (without_id.clone(), None, derived.clone()),
            (without_id.clone(), Some(""), derived),
            (with_id(""), None, EventId::from_body(&with_id(""))),
        ] {
            let event = decode(&body, message_id).expect("an event");
            assert_eq!(event.event_id, expected, "{message_id:?}");
        }
    }

    /// Any JSON. Some keys are the names of an event's fields.
    fn any_json() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<f64>().prop_map(Value::from),
            any::<String>().prop_map(Value::from),
            Just(json!("2024-06-18T23:26:14Z")),
        ];
        let name = prop_oneof![
            proptest::sample::select(vec![
                "campaignId",
                "label",
                "phoneNumber",
                "date",
                "response",
                "option",
                "keyword",
                "eventId",
            ])
            .prop_map(str::to_owned),
            any::<String>(),
        ];
        leaf.prop_recursive(3, 32, 8, move |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..8).prop_map(Value::from),
                prop::collection::vec((name.clone(), inner), 0..8)
                    .prop_map(|fields| fields.into_iter().collect::<Value>()),
            ]
        })
    }

    proptest! {
        #[test]
        fn random_bytes_are_refused(body: Vec<u8>) {
            prop_assert!(!violations(&body).is_empty());
        }

        #[test]
        fn any_json_is_decoded_or_refused(value in any_json()) {
            match decode(value.to_string().as_bytes(), Some("m")) {
                Ok(event) => prop_assert!(value.is_object() && !event.campaign_id.is_empty()),
                Err(violations) => prop_assert!(!violations.is_empty()),
            }
        }

        #[test]
        fn a_truncated_or_changed_event_does_not_panic(at in 0usize..200, byte: u8, truncate: bool) {
            let mut body = complete_event().to_string().into_bytes();
            let at = at % body.len();
            if truncate { body.truncate(at) } else { body[at] = byte }
            let _ = decode(&body, None);
        }

        #[test]
        fn an_event_survives_a_round_trip(
            texts in prop::array::uniform5(any::<String>()),
            milliseconds in -62_167_219_200_000i64..=253_402_300_799_999,
            keyword in prop::option::of(prop_oneof![any::<i64>().prop_map(Value::from), any::<String>().prop_map(Value::from)]),
        ) {
            let [label, phone_number, response, option, event_id] = texts;
            let date = DateTime::from_timestamp_millis(milliseconds).expect("in range");
            let body = json!({
                "campaignId": "1", "label": label, "phoneNumber": phone_number, "date": timestamp::text(&date),
                "response": response, "option": option, "keyword": keyword, "eventId": event_id,
            });
            let event = decode_ok(body.to_string().as_bytes());
            prop_assert_eq!(event.date, date);
            let stored = serde_json::to_vec(&event).expect("JSON");
            prop_assert_eq!(serde_json::from_slice::<StepEvent>(&stored).expect("an event"), event);
        }
    }
}
