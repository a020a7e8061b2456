//! Tests a webhook with one request. A test is not a delivery: it is not counted, not retried, and creates no dead
//! letter.

use std::sync::Arc;

use chrono::Utc;
use serde_json::{Map, Value};
use waypost_core::campaign::{SecretVisibility, WebhookPlace};
use waypost_core::request::{self, RequestPreview};
use waypost_core::test_event::test_event;
use waypost_core::violation::Violation;
use waypost_core::{Attempt, Delivery};

use crate::worker::Worker;

/// Sends tests. Cheap to clone.
#[derive(Clone)]
pub struct WebhookTester(Arc<Worker>);

/// The result of a test.
#[derive(Debug, Clone)]
pub struct WebhookTest {
    pub request: RequestPreview,
    pub response: Attempt,
}

/// A delivery of a test event to the webhook of `place`, which need not be stored. The fields in `overrides` replace the
/// generated fields of the event.
///
/// # Errors
/// The violations in `overrides`, with paths below `$.event`.
pub fn test_delivery(
    campaign: &str,
    place: &WebhookPlace<'_>,
    overrides: Map<String, Value>,
) -> Result<Delivery, Vec<Violation>> {
    let event = test_event(overrides, campaign, place, Utc::now(), &uuid::Uuid::now_v7().to_string())?;
    Ok(Delivery::new(event, place.target(), None))
}

impl WebhookTester {
    pub fn new(worker: Arc<Worker>) -> Self {
        Self(worker)
    }

    /// Sends a [`test_delivery`], even if the webhook is disabled.
    pub async fn send(&self, delivery: &Delivery, secrets: SecretVisibility) -> WebhookTest {
        let (response, _) = self.0.send_request(delivery).await;
        let request = request::render(delivery, response.at).preview(secrets);
        WebhookTest { request, response }
    }
}
