//! The operations of the API, one method for each.
//!
//! All of them fail with [`ClientError::Unreachable`] or [`ClientError::Refused`], or if the answer is not JSON.

use reqwest::Method;
use serde::Serialize;
use waypost_core::campaign::Campaign;
use waypost_core::dead_letter::filter::LetterFilter;
use waypost_core::explain::Explanation;
use waypost_core::replay::ReplayCommand;

use super::{Answer, Client, ClientError, ETag, Pages, Request, Versioned};
use crate::campaigns::CampaignSummary;
use crate::configuration::{ConfigurationResponse, DecisionResponse};
use crate::dead_letters::discard::{DiscardPreview, DiscardRequest, DiscardResponse};
use crate::dead_letters::erase::{EraseRequest, EraseResponse};
use crate::dead_letters::summary::DeadLetterSummary;
use crate::dead_letters::{LetterResponse, LetterSummaryResponse};
use crate::endpoints::EndpointResponse;
use crate::events::PublishedEvent;
use crate::replays::{CreateReplay, ReplayPreviewResponse, ReplayResponse};
use crate::webhooks::{RotationRequest, TestRequest, WebhookResponse, WebhookTestResult};

impl Client {
    /// The campaigns, by id.
    pub fn campaigns(&self) -> Pages<'_, CampaignSummary> {
        Pages::new(self, "campaigns", Vec::new())
    }

    pub async fn campaign(&self, id: &str) -> Result<Versioned<Campaign>, ClientError> {
        self.versioned(Request::new(Method::GET, &["campaigns", id])).await
    }

    /// Creates or replaces a campaign. `document` is sent unchanged.
    pub async fn put_campaign(
        &self,
        id: &str,
        document: Vec<u8>,
        if_match: Option<&ETag>,
    ) -> Result<Versioned<Campaign>, ClientError> {
        let segments = ["campaigns", id];
        self.versioned(Request { if_match, body: Some(document), ..Request::new(Method::PUT, &segments) }).await
    }

    pub async fn delete_campaign(&self, id: &str, if_match: Option<&ETag>) -> Result<(), ClientError> {
        self.send(Request { if_match, ..Request::new(Method::DELETE, &["campaigns", id]) }).await.map(drop)
    }

    pub async fn configuration(&self) -> Result<Answer<ConfigurationResponse>, ClientError> {
        self.answer(Request::new(Method::GET, &["configuration"])).await
    }

    pub async fn restore_configuration(&self) -> Result<Answer<DecisionResponse>, ClientError> {
        self.answer(Request::new(Method::POST, &["configuration", "restore"])).await
    }

    pub async fn accept_empty_configuration(&self) -> Result<Answer<DecisionResponse>, ClientError> {
        self.answer(Request::new(Method::POST, &["configuration", "accept-empty"])).await
    }

    pub async fn webhook(&self, id: &str) -> Result<Versioned<WebhookResponse>, ClientError> {
        self.versioned(Request::new(Method::GET, &["webhooks", id])).await
    }

    /// Replaces a webhook in its place. `document` is sent unchanged.
    pub async fn put_webhook(
        &self,
        id: &str,
        document: Vec<u8>,
        if_match: Option<&ETag>,
    ) -> Result<Versioned<WebhookResponse>, ClientError> {
        let segments = ["webhooks", id];
        self.versioned(Request { if_match, body: Some(document), ..Request::new(Method::PUT, &segments) }).await
    }

    pub async fn delete_webhook(&self, id: &str, if_match: Option<&ETag>) -> Result<(), ClientError> {
        self.send(Request { if_match, ..Request::new(Method::DELETE, &["webhooks", id]) }).await.map(drop)
    }

    pub async fn rotate_secret(
        &self,
        id: &str,
        rotation: &RotationRequest,
    ) -> Result<Versioned<WebhookResponse>, ClientError> {
        let segments = ["webhooks", id, "rotate-secret"];
        self.versioned(Request { body: Some(json(rotation)), ..Request::new(Method::POST, &segments) }).await
    }

    /// Sends one request to the webhook.
    pub async fn test_webhook(&self, id: &str, test: &TestRequest) -> Result<Answer<WebhookTestResult>, ClientError> {
        self.post(&["webhooks", id, "test"], json(test)).await
    }

    /// `event` is a step event as JSON, and is published unchanged.
    pub async fn publish(&self, event: Vec<u8>) -> Result<Answer<PublishedEvent>, ClientError> {
        self.post(&["events"], event).await
    }

    /// `event` is a step event as JSON.
    pub async fn explain(&self, event: Vec<u8>) -> Result<Answer<Explanation>, ClientError> {
        self.post(&["explain"], event).await
    }

    /// The dead letters that match, newest in the stream first.
    pub fn dead_letters(&self, filter: &LetterFilter) -> Pages<'_, LetterSummaryResponse> {
        Pages::new(self, "dead-letters", filter.fields())
    }

    pub async fn dead_letter_summary(&self, filter: &LetterFilter) -> Result<Answer<DeadLetterSummary>, ClientError> {
        let query = filter.fields();
        self.answer(Request { query: &query, ..Request::new(Method::GET, &["dead-letters", "summary"]) }).await
    }

    pub async fn dead_letter(&self, id: &str) -> Result<Answer<LetterResponse>, ClientError> {
        self.answer(Request::new(Method::GET, &["dead-letters", id])).await
    }

    /// Discards for a few seconds. Repeat the request while the answer says that there are more.
    pub async fn discard(&self, request: &DiscardRequest) -> Result<Answer<DiscardResponse>, ClientError> {
        let request = DiscardRequest { dry_run: None, ..request.clone() };
        self.post(&["dead-letters", "discard"], json(&request)).await
    }

    /// Counts what [`Self::discard`] would discard.
    pub async fn preview_discard(&self, request: &DiscardRequest) -> Result<Answer<DiscardPreview>, ClientError> {
        let request = DiscardRequest { dry_run: Some(true), ..request.clone() };
        self.post(&["dead-letters", "discard"], json(&request)).await
    }

    /// Searches some dead letters. Repeat the request with `next` as cursor, until it is null.
    pub async fn erase(&self, request: &EraseRequest) -> Result<Answer<EraseResponse>, ClientError> {
        self.post(&["dead-letters", "erase"], json(request)).await
    }

    pub async fn create_replay(&self, request: &CreateReplay) -> Result<Answer<ReplayResponse>, ClientError> {
        let request = CreateReplay { dry_run: None, ..request.clone() };
        self.post(&["replays"], json(&request)).await
    }

    /// Says what [`Self::create_replay`] would do.
    pub async fn preview_replay(&self, request: &CreateReplay) -> Result<Answer<ReplayPreviewResponse>, ClientError> {
        let request = CreateReplay { dry_run: Some(true), ..request.clone() };
        self.post(&["replays"], json(&request)).await
    }

    /// The replays, newest first.
    pub fn replays(&self) -> Pages<'_, ReplayResponse> {
        Pages::new(self, "replays", Vec::new())
    }

    pub async fn replay(&self, id: &str) -> Result<Answer<ReplayResponse>, ClientError> {
        self.answer(Request::new(Method::GET, &["replays", id])).await
    }

    pub async fn control_replay(
        &self,
        id: &str,
        command: ReplayCommand,
    ) -> Result<Answer<ReplayResponse>, ClientError> {
        self.answer(Request::new(Method::POST, &["replays", id, command.as_str()])).await
    }

    /// The recently used endpoints of this worker, the worst first.
    pub fn endpoints(&self) -> Pages<'_, EndpointResponse> {
        Pages::new(self, "endpoints", Vec::new())
    }

    async fn post<T>(&self, segments: &[&str], body: Vec<u8>) -> Result<Answer<T>, ClientError> {
        self.answer(Request { body: Some(body), ..Request::new(Method::POST, segments) }).await
    }

    async fn answer<T>(&self, request: Request<'_>) -> Result<Answer<T>, ClientError> {
        Answer::from_bytes(&self.send(request).await?.body)
    }

    async fn versioned<T>(&self, request: Request<'_>) -> Result<Versioned<T>, ClientError> {
        let response = self.send(request).await?;
        let answer = Answer::from_bytes(&response.body)?;
        Ok(Versioned { status: response.status, etag: response.etag, answer })
    }
}

/// The types of requests can always be written: all their keys are strings.
fn json(request: &impl Serialize) -> Vec<u8> {
    serde_json::to_vec(request).unwrap_or_default()
}
