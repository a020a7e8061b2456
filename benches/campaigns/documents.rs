//! Generated campaigns of about 1.4 KB with four webhooks, and the records of the campaigns stream that write them.

use chrono::Utc;
use serde_json::{Value, json};
use waypost_core::campaign::Campaign;
use waypost_core::document;
use waypost_core::egress::HttpUrls;
use waypost_store::{Change, ChangeAuthor};

/// The campaigns of a stream without any other records: a change knows the offset of the change before it.
pub(crate) struct CampaignGenerator {
    campaigns: u64,
}

/// An odd number without a common factor with any count: ids come in no order.
const STEP: u64 = 7_368_787;

impl CampaignGenerator {
    pub(crate) fn new(campaigns: u64) -> Self {
        Self { campaigns }
    }

    pub(crate) fn count(&self) -> u64 {
        self.campaigns
    }

    /// The record at an offset. The first `count` records create the campaigns. Each round of further records changes
    /// each campaign once.
    pub(crate) fn record(&self, offset: u64) -> Vec<u8> {
        let (round, number) = (offset / self.campaigns, offset % self.campaigns * STEP % self.campaigns);
        let campaign = read(&document(number, round));
        let author = ChangeAuthor { by: "bench".to_owned(), at: Utc::now(), nodes: Vec::new() };
        let change = Change {
            id: campaign.id.clone(),
            expected_version: offset.checked_sub(self.campaigns),
            author: Some(author),
            campaign: Some(campaign),
        };
        serde_json::to_vec(&change).expect("a change is JSON")
    }
}

/// The document of a campaign in a round of changes.
pub(crate) fn document(number: u64, round: u64) -> Value {
    let sections: Vec<Value> = (0..4_u64).map(|place| section(number, round, place)).collect();
    json!({ "id": campaign_id(number), "name": campaign_name(number), "sections": sections })
}

pub(crate) fn campaign_id(number: u64) -> String {
    format!("campaign-{number:06}")
}

pub(crate) fn campaign_name(number: u64) -> String {
    format!("Streaming membership {number}")
}

fn section(number: u64, round: u64, place: u64) -> Value {
    // Hexadecimal digits that look random, as customers' paths and keys do.
    let digits = (number * 4 + place + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    let customer = number % 500;
    json!({
        "label": format!("Question {place}"), "kind": "interaction",
        "message": format!("Which of our plans do you want to know more about? ({round})"),
        "menu": [{
            "keyword": 1, "option": "Offers", "redirect": { "type": "interaction", "to": "Question 0" },
            "webhook": {
                "id": format!("wh_{digits:016x}"),
                "url": format!("https://customer-{customer}.example.com/hooks/{digits:x}"),
                "body": { "source": "chatbot" },
                "headers": { "X-Api-Key": format!("{:016x}", digits.rotate_left(17)) },
            },
        }],
    })
}

fn read(document: &Value) -> Campaign {
    document::read(document.to_string().as_bytes(), HttpUrls::Refused, None).expect("a valid document")
}
