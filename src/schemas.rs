//! Generates the published contracts from the Rust types: JSON Schemas of an event and a campaign, and the AsyncAPI
//! description of the events exchange.

use schemars::JsonSchema;
use schemars::generate::SchemaSettings;
use serde_json::{Value, json};
use waypost_broker::names::Names;
use waypost_core::campaign::Campaign;
use waypost_core::event::{MAX_EVENT_BYTES, StepEvent};

/// The JSON Schema (2020-12) of a step event.
pub fn event() -> Value {
    schema::<StepEvent>("Step event")
}

/// The JSON Schema (2020-12) of a campaign document.
pub fn campaign() -> Value {
    schema::<Campaign>("Campaign")
}

fn schema<T: JsonSchema>(title: &str) -> Value {
    let mut schema = SchemaSettings::draft2020_12().for_deserialize().into_generator().into_root_schema_for::<T>();
    schema.insert("title".to_owned(), title.into());
    schema.to_value()
}

/// The AsyncAPI 3.0 document of the events exchange, for publishers.
pub fn asyncapi() -> Value {
    let exchange = Names::new("waypost").events();
    let mut payload = event();
    let definitions = payload.as_object_mut().and_then(|payload| payload.remove("$defs")).unwrap_or_else(|| json!({}));
    let mut document = json!({
        "asyncapi": "3.0.0",
        "info": {
            "title": "Waypost",
            "version": env!("CARGO_PKG_VERSION"),
            "description": "A chatbot platform publishes step events; Waypost posts them to the webhooks of their campaigns.",
        },
        "defaultContentType": "application/json",
        "channels": { "events": {
            "address": "{campaignId}",
            "title": "Step events",
            "description": format!(
                "The topic exchange `{exchange}` (of the setting `broker.prefix`: `PREFIX.events`); the address is the \
                 routing key. Publish with confirms, `mandatory`, and `delivery_mode` 2; on any failure publish the same \
                 event again, with the same `eventId`."
            ),
            "parameters": { "campaignId": { "description": "The event's `campaignId`" } },
            "messages": { "stepEvent": { "$ref": "#/components/messages/stepEvent" } },
            "bindings": { "amqp": {
                "is": "routingKey",
                "exchange": { "name": exchange, "type": "topic", "durable": true, "autoDelete": false },
                "bindingVersion": "0.3.0",
            } },
        } },
        "operations": { "publishStepEvent": {
            "action": "receive",
            "channel": { "$ref": "#/channels/events" },
            "summary": "A user has reached a step of a campaign",
            "bindings": { "amqp": { "deliveryMode": 2, "mandatory": true, "bindingVersion": "0.3.0" } },
        } },
        "components": {
            "messages": { "stepEvent": {
                "name": "StepEvent",
                "title": "Step event",
                "summary": format!("A JSON object of at most {MAX_EVENT_BYTES} bytes"),
                "contentType": "application/json",
                "headers": {
                    "type": "object",
                    "properties": {
                        "traceparent": { "type": "string", "description": "W3C trace context, passed on to the receiver" },
                        "tracestate": { "type": "string", "description": "W3C trace context, passed on to the receiver" },
                    },
                },
                "payload": { "$ref": "#/components/schemas/StepEvent" },
                "bindings": { "amqp": { "contentEncoding": "utf-8", "bindingVersion": "0.3.0" } },
            } },
            "schemas": definitions,
        },
    });
    let text = serde_json::to_string(&payload).unwrap_or_default().replace("#/$defs/", "#/components/schemas/");
    document["components"]["schemas"]["StepEvent"] = serde_json::from_str(&text).unwrap_or_default();
    document
}
