//! What the handlers of the API and the console work with.

use std::path::Path;
use std::sync::Arc;

use waypost_broker::names::Names;
use waypost_broker::publisher::Publisher;
use waypost_broker::topology_status::TopologyStatus;
use waypost_core::access::Token;
use waypost_engine::campaigns::Campaigns;
use waypost_engine::dead_letters::DeadLetters;
use waypost_engine::events::EventPublisher;
use waypost_engine::metrics::Metrics;
use waypost_engine::metrics::history::History;
use waypost_engine::replays::Replays;
use waypost_engine::view_sync::Followers;
use waypost_engine::webhook_test::WebhookTester;
use waypost_engine::worker::consumer_status::ConsumerStatus;
use waypost_engine::worker::endpoint_registry::EndpointRegistry;

/// The state of all handlers: services of `waypost-engine`, and what the probes and the overview show. Cheap to clone.
#[derive(Clone)]
pub struct ApiState {
    pub campaigns: Campaigns,
    pub dead_letters: DeadLetters,
    pub replays: Replays,
    pub events: EventPublisher,
    pub webhook_tester: WebhookTester,
    pub endpoints: EndpointRegistry,
    pub publisher: Publisher,
    pub names: Names,
    pub metrics: Arc<Metrics>,
    pub history: History,
    pub consumer_status: ConsumerStatus,
    pub topology: TopologyStatus,
    pub followers: Followers,
    /// Damaged stores that were moved aside are in this folder, too.
    pub store_folder: Arc<Path>,
    /// If empty, everyone on this machine is an editor.
    pub tokens: Arc<[Token]>,
}
