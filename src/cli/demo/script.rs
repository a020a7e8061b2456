//! The demo's campaign, with webhooks that lead to the demo's receivers, and the events of its users.

use chrono::Utc;
use serde_json::{Value, json};
use waypost_core::timestamp;

use super::receivers::DemoReceiver;
use crate::cli::client::Server;
use crate::cli::error::CliError;

pub(super) const CAMPAIGN_ID: &str = "13010";

pub(super) struct Script {
    document: Value,
}

/// A step event of a user.
pub(super) struct DemoStep {
    pub(super) event_id: String,
    event: Value,
}

impl DemoStep {
    pub(super) fn body(&self) -> Vec<u8> {
        self.event.to_string().into_bytes()
    }
}

impl Script {
    pub(super) fn new([agent, offers, survey, name]: &[DemoReceiver; 4]) -> Self {
        let document = json!({
            "id": CAMPAIGN_ID, "name": "Streaming membership",
            "sections": [
                { "label": "Welcome Message", "kind": "welcomeMessage", "message": "Choose an option…",
                  "menu": [
                    { "keyword": 1, "option": "Plans", "redirect": { "type": "interaction", "to": "Plans" } },
                    { "keyword": 2, "option": "Raffle", "redirect": { "type": "campaign", "to": "raffle-giveaway" } },
                    { "keyword": 3, "redirect": { "type": "webhook" }, "webhook": { "url": agent.url() } },
                    { "keyword": 4, "option": "Offers", "redirect": { "type": "interaction", "to": "Offers" },
                      "webhook": { "url": offers.url(), "enabled": true,
                                   "body": { "source": "chatbot" }, "headers": { "X-Api-Key": "demo-key" } } },
                    { "keyword": 5, "option": "Survey", "redirect": { "type": "campaign", "to": "web-polls" },
                      "webhook": { "url": survey.url() } } ] },
                { "label": "Plans", "kind": "interaction", "message": "1. One month  2. Six months  3. One year" },
                { "label": "Offers", "kind": "interaction", "message": "Your name?",
                  "redirect": { "type": "webhook" }, "webhook": { "url": name.url() } } ] });
        Self { document }
    }

    /// Applies the campaign as `waypost campaigns apply` does.
    pub(super) async fn apply(&self, api: &str) -> Result<(), CliError> {
        let client = Server::without_token(api)?.client()?;
        client.put_campaign(CAMPAIGN_ID, self.document.to_string().into_bytes(), None).await?;
        Ok(())
    }

    /// The step of user `number`. Most users choose from the menu, some answer with their name in the section Offers.
    pub(super) fn step(&self, number: u32) -> DemoStep {
        let menu = |keyword: u32, option: Option<&str>| {
            let mut step = json!({ "label": "Welcome Message", "response": keyword.to_string(), "keyword": keyword });
            if let Some(option) = option {
                step["option"] = option.into();
            }
            step
        };
        let mut event = match number % 20 {
            0 | 1 => menu(1, Some("Plans")),
            2 => menu(2, Some("Raffle")),
            3..=11 => menu(3, None),
            12..=16 => menu(4, Some("Offers")),
            17 => menu(5, Some("Survey")),
            _ => json!({ "label": "Offers", "response": "Ada" }),
        };
        let event_id = uuid::Uuid::now_v7().to_string();
        event["campaignId"] = CAMPAIGN_ID.into();
        event["phoneNumber"] = format!("+1555{number:07}").into();
        event["date"] = timestamp::text(&Utc::now()).into();
        event["eventId"] = event_id.as_str().into();
        DemoStep { event_id, event }
    }
}
