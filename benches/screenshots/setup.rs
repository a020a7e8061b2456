//! The sample data: campaigns of a small service, with successful, failed and waiting deliveries.

use serde_json::{Value, json};
use waypost_core::replay::ReplayState;

use crate::support::dead_letters::text_field;
use crate::support::json::newest;
use crate::support::{Amqp, Answer, Broker, Receiver, Waypost};

const PREFIX: &str = "waypost";

/// Deliveries must fail within seconds.
const FAST_RETRIES: [(&str, &str); 3] =
    [("WAYPOST_RETRY__INITIAL_DELAY", "1s"), ("WAYPOST_RETRY__MULTIPLIER", "2"), ("WAYPOST_RETRY__MAX_ATTEMPTS", "4")];

/// A page to capture.
pub(crate) struct Page {
    /// The prefix of the file names.
    pub(crate) name: &'static str,
    pub(crate) path: String,
}

/// A worker with sample data.
pub(crate) struct ScreenshotSetup {
    pub(crate) waypost: Waypost,
    /// The id of a pending dead letter.
    letter: String,
    /// The id of a finished replay.
    replay: String,
    _receiver: Receiver,
    _broker: Broker,
}

impl ScreenshotSetup {
    pub(crate) async fn start() -> Self {
        let broker = Broker::private().await;
        let waypost = Waypost::start_with(&broker.url(), PREFIX, &FAST_RETRIES).await;
        let receiver = Receiver::start();
        receiver.reply("/offers", Answer::status(410).body("this list has been closed"));
        receiver.reply("/survey", Answer::status(503).body("down for maintenance"));
        for campaign in campaigns(&receiver) {
            waypost.put_campaign(&campaign).await;
        }
        let amqp = Amqp::connect(&broker.url()).await;
        amqp.publish_events(PREFIX, &events()).await;
        // Four for the offers, four for the survey, and a malformed event.
        waypost.wait_for_letter_count("state=pending", 9).await;
        let replay = waypost.create_replay(&json!({ "filter": { "reason": "gone" } })).await;
        waypost.wait_for_replay(&replay, ReplayState::Done).await;
        let letters = waypost.letters("state=pending&reason=exhausted").await;
        let letter = text_field(newest(&letters), "id").to_owned();
        Self { waypost, letter, replay, _receiver: receiver, _broker: broker }
    }

    /// The pages with the names of their files.
    pub(crate) fn pages(&self) -> Vec<Page> {
        let pages = [
            ("overview", "/".to_owned()),
            ("campaign", "/campaigns/13010".to_owned()),
            ("editor", "/campaigns/13010/edit?label=Welcome+Message&keyword=4".to_owned()),
            ("flow", "/campaigns/13010/flow".to_owned()),
            ("dead-letters", "/dead-letters".to_owned()),
            ("dead-letter", format!("/dead-letters/{}", self.letter)),
            ("replay", format!("/replays/{}", self.replay)),
            ("endpoints", "/endpoints".to_owned()),
        ];
        pages.map(|(name, path)| Page { name, path }).into()
    }
}

fn campaigns(receiver: &Receiver) -> [Value; 2] {
    let membership = json!({ "id": "13010", "name": "Streaming membership", "sections": [
        { "label": "Welcome Message", "kind": "welcomeMessage", "message": "Choose an option", "menu": [
            { "keyword": 1, "option": "Plans", "redirect": { "type": "interaction", "to": "Plans" } },
            { "keyword": 2, "option": "Raffle Giveaway", "redirect": { "type": "campaign", "to": "raffle-giveaway" } },
            { "keyword": 3, "redirect": { "type": "webhook" }, "webhook": { "url": receiver.url("/agent") } },
            { "keyword": 4, "option": "Offers", "redirect": { "type": "interaction", "to": "Offers" },
              "webhook": { "url": receiver.url("/offers"), "body": { "source": "chatbot" },
                           "headers": { "X-Api-Key": "a-key-of-the-customer" } } },
            { "keyword": 5, "option": "Survey", "redirect": { "type": "campaign", "to": "web-polls" },
              "webhook": { "url": receiver.url("/survey") } } ] },
        { "label": "Plans", "kind": "interaction", "message": "1. One month  2. Six months  3. One year" },
        { "label": "Offers", "kind": "interaction", "message": "Your name?",
          "redirect": { "type": "webhook" }, "webhook": { "url": receiver.url("/name") } } ] });
    let polls = json!({ "id": "web-polls", "name": "Web polls", "sections": [
        { "label": "Welcome Message", "kind": "welcomeMessage", "message": "How do you like it?",
          "webhook": { "url": receiver.url("/polls"), "enabled": false } } ] });
    [membership, polls]
}

/// Four events for each keyword, and one without a date.
fn events() -> Vec<Value> {
    let chose = |number: usize| {
        json!({ "campaignId": "13010", "label": "Welcome Message", "phoneNumber": format!("+1555010{number:04}"),
                "date": "2024-06-18T20:26:14.206-03:00", "response": "yes, please", "keyword": 3 + number % 3,
                "eventId": format!("step-{number:04}") })
    };
    let mut events: Vec<Value> = (0..12).map(chose).collect();
    events.push(json!({ "campaignId": "13010", "label": "Plans", "phoneNumber": "+15550100099" }));
    events
}
