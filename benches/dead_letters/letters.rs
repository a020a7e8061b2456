//! Generated letters: the same in each run except for the date, and as varied as those of many customers.

use chrono::{DateTime, TimeDelta, Utc};
use serde_json::{Value, json};
use waypost_core::campaign::Target;
use waypost_core::dead_letter::DeadLetter;
use waypost_core::document;
use waypost_core::egress::HttpUrls;
use waypost_core::event::{Keyword, StepEvent};
use waypost_core::ids::EventId;
use waypost_core::outcome::Cause;
use waypost_core::reason::DeadLetterReason;
use waypost_core::violation::Violation;
use waypost_core::{Attempt, Delivery, TraceContext, timestamp};

/// The number of campaigns with many letters. Each has five webhooks.
const CAMPAIGNS: u64 = 50;

/// A campaign that has only [`RARE_POSITIONS`] letters, all among the oldest.
pub(crate) const RARE_CAMPAIGN: &str = "99001";

/// The positions of the rare campaign's letters, in thousandths of all letters.
const RARE_POSITIONS: [u64; 5] = [3, 11, 12, 40, 71];

/// The positions of letters with status 418, in thousandths of all letters.
const TEAPOT_POSITIONS: [u64; 3] = [50, 310, 620];

/// Less than the retention, so that no letter expires.
const DAYS: i64 = 20;

/// Generates the letters one at a time.
pub(crate) struct LetterGenerator {
    count: u64,
    first: DateTime<Utc>,
    places: Vec<Origin>,
    rare: Origin,
}

/// The campaign and webhook of a letter.
struct Origin {
    campaign: String,
    label: String,
    option: Option<String>,
    keyword: Option<Keyword>,
    target: Target,
}

impl LetterGenerator {
    /// Generates `count` letters. The last one is dead now.
    pub(crate) fn new(count: u64) -> Self {
        let places = (0..CAMPAIGNS).flat_map(|number| origins(&campaign_id(number))).collect();
        let rare = origins(RARE_CAMPAIGN).remove(0);
        Self { count, first: Utc::now() - TimeDelta::days(DAYS), places, rare }
    }

    pub(crate) fn count(&self) -> u64 {
        self.count
    }

    /// The current campaigns, with all webhooks at this URL.
    pub(crate) fn campaigns(url: &str) -> Vec<Value> {
        let ids = (0..CAMPAIGNS).map(campaign_id).chain([RARE_CAMPAIGN.to_owned()]);
        ids.map(|id| document(&id, |webhook| format!("{url}{webhook}"))).collect()
    }

    /// The time at which this many thousandths of the letters are dead.
    pub(crate) fn at(&self, thousandth: u64) -> String {
        timestamp::text(&self.dead_at(self.part(thousandth)))
    }

    /// The number of letters with status 418, and the number of letters of the rare campaign.
    pub(crate) fn rarities(&self) -> (u64, u64) {
        (self.number_at(&TEAPOT_POSITIONS), self.number_at(&RARE_POSITIONS))
    }

    /// The phone number, event id and delivery id of a letter at this position, escaped for a query.
    pub(crate) fn identities(&self, thousandth: u64) -> (String, String, String) {
        let letters = (self.part(thousandth)..).map(|number| self.letter(number));
        let letter = letters.take(1_000).find(|letter| letter.event.is_some()).expect("a delivery");
        let phone = letter.event.map(|event| event.phone_number.replace('+', "%2B")).expect("a phone number");
        let (event, delivery) = (letter.event_id.expect("an event"), letter.delivery_id.expect("a delivery"));
        (phone, event.as_str().to_owned(), delivery.as_str().to_owned())
    }

    fn number_at(&self, places: &[u64]) -> u64 {
        let numbers: std::collections::BTreeSet<u64> = places.iter().map(|place| self.part(*place)).collect();
        numbers.len() as u64
    }

    fn part(&self, thousandth: u64) -> u64 {
        self.count * thousandth / 1000
    }

    fn dead_at(&self, number: u64) -> DateTime<Utc> {
        let span = TimeDelta::days(DAYS).num_milliseconds();
        self.first + TimeDelta::milliseconds((i128::from(span) * i128::from(number) / i128::from(self.count)) as i64)
    }

    /// Letter `number`, counted from the oldest.
    pub(crate) fn letter(&self, number: u64) -> DeadLetter {
        let chance = LetterRng(number);
        let dead_at = self.dead_at(number);
        let is_at = |places: &[u64]| places.iter().any(|place| self.part(*place) == number);
        if is_at(&RARE_POSITIONS) {
            return delivery_letter(&self.rare, number, DeadLetterReason::Exhausted, Ending::Status(503), 12, dead_at);
        }
        let place = &self.places[chance.skewed(self.places.len())];
        if is_at(&TEAPOT_POSITIONS) {
            return delivery_letter(place, number, DeadLetterReason::Exhausted, Ending::Status(418), 3, dead_at);
        }
        // Webhooks have different retry policies.
        let attempts = [12, 12, 6, 3][chance.of(1, 4) as usize];
        let ending = chance.ending();
        match chance.of(2, 2000) {
            0 => malformed(number, dead_at),
            1..=2 => delivery_letter(place, number, DeadLetterReason::Gone, Ending::Status(410), 1, dead_at),
            3..=40 => delivery_letter(place, number, DeadLetterReason::ForbiddenAddress, Ending::Forbidden, 1, dead_at),
            41..=100 => delivery_letter(place, number, DeadLetterReason::WebhookDisabled, ending, 2, dead_at),
            101..=120 => delivery_letter(place, number, DeadLetterReason::WebhookDeleted, ending, 2, dead_at),
            _ => delivery_letter(place, number, DeadLetterReason::Exhausted, ending, attempts, dead_at),
        }
    }
}

/// The id of a campaign. Campaign 0 has the most letters, the last one the fewest.
pub(crate) fn campaign_id(number: u64) -> String {
    (13_000 + number * 10).to_string()
}

/// The id of a webhook. `number` is 0 to 4.
pub(crate) fn webhook_id(campaign: &str, number: u64) -> String {
    format!("crm-{campaign}-{number}")
}

/// The endpoint of a campaign.
pub(crate) fn endpoint(campaign: &str) -> String {
    format!("https://hooks.customer-{campaign}.example")
}

fn document(id: &str, url: impl Fn(&str) -> String) -> Value {
    let webhook = |number: u64| {
        let webhook = webhook_id(id, number);
        json!({
            "id": webhook, "url": url(&webhook), "headers": { "X-Api-Key": "a key of forty characters, or nearly so" },
            "body": { "source": "chatbot", "list": format!("Leads {id}"), "tags": ["campaign", id] },
        })
    };
    let entry = |keyword: u64, option: &str, number: u64| json!({ "keyword": keyword, "option": option, "webhook": webhook(number) });
    json!({ "id": id, "name": format!("Campaign {id}"), "sections": [
        { "label": "Welcome Message", "kind": "welcomeMessage", "message": "Hello! How can we help?",
          "menu": [entry(1, "Talk to sales", 1), entry(2, "Opening hours", 2)], "webhook": webhook(0) },
        { "label": "Offers", "menu": [entry(1, "Yes, send me the offer", 4)], "webhook": webhook(3) },
    ]})
}

/// The origins of a campaign's letters, with the webhooks as they were when the letters were written.
fn origins(campaign: &str) -> Vec<Origin> {
    let was = document(campaign, |webhook| format!("{}/crm/v2/{webhook}", endpoint(campaign)));
    let was = document::read(was.to_string().as_bytes(), HttpUrls::Refused, None).expect("the campaign has no faults");
    let origin = |place: waypost_core::campaign::WebhookPlace<'_>| {
        let mut target = place.target();
        target.mask();
        Origin {
            campaign: campaign.to_owned(),
            label: place.section.label.clone(),
            option: place.entry.and_then(|entry| entry.option.clone()),
            keyword: place.entry.map(|entry| entry.keyword.clone()),
            target,
        }
    };
    was.places().map(origin).collect()
}

/// How a delivery ended.
#[derive(Clone, Copy)]
enum Ending {
    Status(u16),
    Timeout,
    Connect,
    Forbidden,
}

fn delivery_letter(
    origin: &Origin,
    number: u64,
    reason: DeadLetterReason,
    ending: Ending,
    attempts: u32,
    dead_at: DateTime<Utc>,
) -> DeadLetter {
    let chance = LetterRng(number);
    let waits = |attempt: u32| TimeDelta::seconds(10 * ((1 << (attempts - 1)) - (1 << attempt)));
    let event = StepEvent {
        campaign_id: origin.campaign.clone(),
        label: origin.label.clone(),
        phone_number: format!("+1555{:07}", chance.of(3, 10_000_000)),
        date: dead_at - waits(0) - TimeDelta::seconds(2),
        response: Some(origin.keyword.as_ref().map_or_else(|| "hello".to_owned(), ToString::to_string)),
        option: origin.option.clone(),
        keyword: origin.keyword.clone(),
        event_id: EventId::new(format!("event-{number}")),
    };
    let trace = TraceContext {
        traceparent: format!("00-{:016x}{:016x}-{:016x}-01", chance.draw(4), chance.draw(5), chance.draw(6)),
        tracestate: None,
    };
    let mut delivery = Delivery::new(event, origin.target.clone(), number.is_multiple_of(2).then_some(trace));
    for attempt in 0..attempts {
        let (status, cause, error, answer, duration_ms) = ending.describe(chance.of(7, 400));
        let at = dead_at - waits(attempt) - TimeDelta::milliseconds(duration_ms as i64);
        delivery.record(Attempt { at, duration_ms, status, cause, error, answer });
    }
    DeadLetter::from_delivery(delivery, reason, dead_at)
}

impl Ending {
    fn describe(self, milliseconds: u64) -> (Option<u16>, Cause, Option<String>, Option<String>, u64) {
        let none = |cause, error: &str, duration| (None, cause, Some(error.to_owned()), None, duration);
        match self {
            Self::Status(status) => {
                let answer = format!("{{\"error\":\"{status}\",\"message\":\"upstream: please try again later\"}}");
                (Some(status), Cause::from_status(status), None, Some(answer), milliseconds)
            }
            Self::Timeout => none(Cause::Timeout, "no answer within 15 s", 15_000),
            Self::Connect => none(Cause::Connect, "no connection: Connection refused (os error 111)", 3),
            Self::Forbidden => none(Cause::ForbiddenAddress, "10.0.0.7 is not public, and not allowed", 1),
        }
    }
}

fn malformed(number: u64, dead_at: DateTime<Utc>) -> DeadLetter {
    let body = format!("{{\"campaignId\":\"13000\",\"label\":\"Offers\",\"phoneNumber\":null,\"number\":{number}");
    let faults = vec![Violation::new("$", "not valid JSON: EOF while parsing an object")];
    DeadLetter::from_body(body.as_bytes(), faults, &number.to_string(), DeadLetterReason::Malformed, dead_at)
}

/// Pseudo-random numbers for one letter.
struct LetterRng(u64);

impl LetterRng {
    /// The number `nth`, mixed as in SplitMix64.
    fn draw(&self, nth: u64) -> u64 {
        let mut mixed =
            (self.0 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ (nth + 1).wrapping_mul(0xd1b5_4a32_d192_ed03);
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number below `end`.
    fn of(&self, nth: u64, end: u64) -> u64 {
        self.draw(nth) % end
    }

    /// A number below `end`. Low numbers are more frequent: of 250, the first is thirty times as frequent as the last.
    fn skewed(&self, end: usize) -> usize {
        const STEPS: u64 = 1_000_000;
        let step = self.of(0, STEPS);
        (end as u64 * step * (step + STEPS / 100) / (STEPS * (STEPS + STEPS / 100))) as usize
    }

    fn ending(&self) -> Ending {
        match self.of(8, 100) {
            0..=39 => Ending::Status(503),
            40..=54 => Ending::Status(500),
            55..=64 => Ending::Status(502),
            65..=74 => Ending::Status(429),
            75..=79 => Ending::Status(404),
            80..=91 => Ending::Timeout,
            _ => Ending::Connect,
        }
    }
}
