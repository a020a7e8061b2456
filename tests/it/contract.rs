//! The published schemas match the program.

use serde_json::{Value, json};
use tempfile::TempDir;

use super::test_app::{example_campaign, step_event};
use crate::support::Receiver;
use crate::support::waypost::cli;

/// The files in `docs/contract` are the program's output. `make contract` regenerates them.
#[tokio::test]
async fn the_committed_files_match_the_program() {
    for name in ["event", "campaign", "asyncapi"] {
        let path = format!("{}/docs/contract/{name}.json", env!("CARGO_MANIFEST_DIR"));
        let kept = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{path}: {error}"));
        assert_eq!(cli(&["contract", name]).await.stdout, kept, "{path} is outdated: run `make contract`");
    }
}

async fn printed(name: &str) -> Value {
    serde_json::from_str(&cli(&["contract", name]).await.stdout).expect("JSON")
}

/// The schemas accept valid documents and reject invalid ones.
#[tokio::test]
async fn the_schemas_accept_valid_documents() {
    let event = jsonschema::draft202012::new(&printed("event").await).expect("a schema");
    assert!(event.is_valid(&step_event().keyword(4).id("an-event").json()));
    assert!(!event.is_valid(&json!({ "campaignId": "13010", "label": "Plans" })));
    let document = example_campaign(&Receiver::start());
    let schema = jsonschema::draft202012::new(&printed("campaign").await).expect("a schema");
    assert!(schema.is_valid(&document), "{:?}", schema.iter_errors(&document).next());
    assert!(!schema.is_valid(&json!({ "id": "13010", "sections": [{ "kind": "interaction" }] })));
}

/// Every reference of the AsyncAPI document resolves, and its payload is the event's schema.
#[tokio::test]
async fn the_asyncapi_document_is_complete() {
    let document = printed("asyncapi").await;
    assert_eq!(document["asyncapi"], "3.0.0");
    assert_eq!(document["channels"]["events"]["bindings"]["amqp"]["exchange"]["name"], "waypost.events");
    let text = document.to_string();
    for reference in text.split("\"$ref\":\"#").skip(1) {
        let pointer = reference.split('"').next().expect("a pointer");
        assert!(document.pointer(pointer).is_some(), "{pointer} does not resolve");
    }
    assert!(!text.contains("$defs"), "the schemas must not use $defs");
    assert_eq!(document["components"]["schemas"]["StepEvent"]["required"], printed("event").await["required"]);
}

#[tokio::test]
async fn the_man_pages_are_generated() {
    let page = cli(&["man"]).await.stdout;
    assert!(page.contains(".TH waypost 1") && page.contains("dead\\-letters"), "{page}");
    let folder = TempDir::new().expect("a folder");
    assert_eq!(cli(&["man", "--output", &folder.path().display().to_string()]).await.code, Some(0));
    for name in ["waypost.1", "waypost-serve.1", "waypost-dead-letters-replay.1"] {
        assert!(folder.path().join(name).is_file(), "no {name}");
    }
}
