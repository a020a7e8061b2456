//! Reloading settings, exporting spans, and attributing failures.

use std::collections::BTreeMap;
use std::path::PathBuf;

use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::trace::v1::Span;
use prost::Message as _;
use serde_json::{Map, Value};

use super::test_app::{SLOW_TIMEOUT, TestApp, step_event};
use crate::support::amqp::Message;
use crate::support::json::{find_by, items_of};
use crate::support::{Answer, Receiver, wait_until};

/// Writes the settings file of a worker, and reloads it.
fn reload(app: &TestApp, settings: &str) {
    std::fs::write(settings_file(app), settings).expect("a file in the folder");
    app.waypost.reload();
}

fn settings_file(app: &TestApp) -> PathBuf {
    app.waypost.store_path().parent().expect("the worker's folder").join("waypost.toml")
}

/// SIGHUP applies the settings that can change, rejects the others by name, and ignores an invalid file.
#[tokio::test]
async fn settings_are_reloaded() {
    let app = TestApp::builder().process().start().await;
    app.receiver.reply("/offers", 500);
    reload(&app, "[retry]\nmaxAttempts = 1\n[log]\nlevel = 'debug'\n[broker]\nprefetch = 7\n");
    let line = app.waypost.wait_for_log_line("settings reloaded").await;
    assert!(line.contains("retry.maxAttempts: 12 → 1") && line.contains("log.level: info → debug"), "{line}");
    let line = app.waypost.wait_for_log_line("settings changes need a restart").await;
    assert!(line.contains("broker.prefetch: 1000 → 7") && !line.contains("retry"), "{line}");
    app.publish(step_event().keyword(4).id("reloaded")).await;
    let letters = app.dead_letters(1).await;
    let letter = find_by(&letters, "eventId", "reloaded");
    assert_eq!((&letter["reason"], letter["attempts"].as_array().map(Vec::len)), (&"exhausted".into(), Some(1)));
    app.waypost.wait_for_log_line("event resolved").await;

    reload(&app, "[retry]\nmaxAttempts = 0\njiter = 1\n");
    let line = app.waypost.wait_for_log_line("settings not reloaded").await;
    assert!(line.contains("retry.maxAttempts") && line.contains("retry.jiter"), "{line}");
    app.publish(step_event().keyword(4).id("not-reloaded")).await;
    let letters = app.dead_letters(2).await;
    assert_eq!(items_of(&find_by(&letters, "eventId", "not-reloaded")["attempts"]).len(), 1);

    std::fs::remove_file(settings_file(&app)).expect("the file");
    app.waypost.reload();
    let line = app.waypost.wait_for_log_line("waypost.toml: cannot be read").await;
    assert!(line.contains("settings not reloaded"), "{line}");
}

/// SIGHUP applies endpoint limits.
#[tokio::test]
async fn endpoint_limits_are_reloaded() {
    let app = TestApp::builder().process().start().await;
    reload(&app, "[endpoint]\nmaxConcurrency = 2\n");
    app.waypost.wait_for_log_line("endpoint.maxConcurrency: 64 → 2").await;
    app.receiver.reply("/offers", Answer::never());
    for number in 0..20 {
        app.publish(step_event().keyword(4).id(&format!("limited-{number}"))).await;
    }
    app.waypost.wait_for_metric("waypost_deliveries_parked_total{reason=\"concurrency\"}", 18.0).await;
    assert_eq!(app.receiver.requests().len(), 2);
}

const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
const PARENT: &str = "00f067aa0ba902b7";

fn hex(id: &[u8]) -> String {
    id.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn spans(collector: &Receiver) -> Vec<Span> {
    let requests = collector.requests();
    let exports = requests.iter().filter(|request| request.path() == "/v1/traces");
    let exports = exports.map(|request| ExportTraceServiceRequest::decode(request.body.clone()).expect("OTLP"));
    let resources = exports.flat_map(|export| export.resource_spans);
    resources.flat_map(|resource| resource.scope_spans).flat_map(|scope| scope.spans).collect()
}

/// The trace of a publisher continues through the stages of a delivery and its wait for a retry, up to the receiver.
#[tokio::test]
async fn a_trace_is_continued_to_the_receiver() {
    let collector = Receiver::start();
    let app = TestApp::builder().process().set("telemetry.otlpEndpoint", collector.url("")).start().await;
    app.receiver.reply("/offers", [503, 200]);
    let traceparent = format!("00-{TRACE}-{PARENT}-01");
    let event = Message::event(&step_event().keyword(4).id("traced").json()).header("traceparent", &traceparent);
    app.amqp.publish(&format!("{}.events", app.prefix), [event]).await;
    let requests = app.receiver.expect_any().at_least(2).within(SLOW_TIMEOUT).await;
    assert!(requests.iter().all(|request| request.header("traceparent") == Some(&*traceparent)), "{requests:?}");
    let line = app.waypost.wait_for_log_line("attempt failed").await;
    assert!(line.contains(TRACE) && line.contains("receiver_5xx"), "{line}");

    let spans = wait_until("the spans at the collector", SLOW_TIMEOUT, async || {
        let spans = spans(&collector);
        (spans.iter().filter(|span| span.name == "attempt").count() >= 2).then_some(spans)
    })
    .await;
    assert!(spans.iter().all(|span| hex(&span.trace_id) == TRACE), "{spans:#?}");
    let by_id: BTreeMap<String, &Span> = spans.iter().map(|span| (hex(&span.span_id), span)).collect();
    let parent = |span: &Span| by_id.get(&hex(&span.parent_span_id)).map(|parent| parent.name.clone());
    let of = |name: &str| spans.iter().filter(|span| span.name == name).collect::<Vec<_>>();
    for outermost in [of("event")[0], of("retry")[0]] {
        assert_eq!(hex(&outermost.parent_span_id), PARENT, "{outermost:#?}");
    }
    let parents: Vec<_> = of("attempt").into_iter().map(parent).collect();
    assert!(parents.contains(&Some("event".to_owned())) && parents.contains(&Some("retry".to_owned())), "{parents:?}");
    for (stage, parent_name) in [("publish", "event"), ("resolve", "event"), ("connect", "attempt")] {
        assert_eq!(parent(of(stage)[0]).as_deref(), Some(parent_name), "{stage}: {spans:#?}");
    }
    let text = format!("{spans:?}");
    assert!(text.contains("IntValue(503)"), "a status is a number: {text}");
    assert!(!text.contains("+15550001") && !text.contains("/offers"), "a span contains personal data: {text}");
}

/// Each log line about an event or a delivery has the fields of docs/LOGGING.md, and no secret.
#[tokio::test]
async fn log_fields_match_the_documentation() {
    let app = TestApp::builder().process().set("log.level", "debug").set("retry.maxAttempts", 1).start().await;
    app.receiver.reply("/offers", 500);
    let events = format!("{}.events", app.prefix);
    let mut unreadable = step_event().keyword(4).id("unreadable").json();
    unreadable["date"] = "yesterday".into();
    let traceparent = format!("00-{TRACE}-{PARENT}-01");
    let messages = [step_event().keyword(4).id("fails").json(), step_event().keyword(3).id("works").json(), unreadable];
    let messages = messages.iter().map(|event| Message::event(event).header("traceparent", &traceparent));
    app.amqp.publish(&events, messages).await;

    let page = include_str!("../../docs/LOGGING.md");
    let common = ["delivery", "event", "trace", "campaign", "label", "webhook", "endpoint"];
    for (message, without) in [
        ("event resolved", &["delivery", "webhook", "endpoint"][..]),
        ("delivered", &[]),
        ("attempt failed", &[]),
        ("dead", &["endpoint"]),
        ("malformed message dead-lettered", &common[..]),
    ] {
        let line = app.waypost.wait_for_log_line(&format!("\"message\":\"{message}\"")).await;
        let line: Map<String, Value> = serde_json::from_str(&line).expect("a line is a JSON object");
        assert!(page.contains(&format!("| `{message}` |")), "docs/LOGGING.md has no row of {message:?}");
        for field in line.keys() {
            assert!(page.contains(&format!("`{field}`")), "docs/LOGGING.md does not list {field} of {line:?}");
        }
        for field in common.iter().filter(|field| !without.contains(field)) {
            assert!(message == "dead" || line.contains_key(*field), "{field} is missing in {line:?}");
        }
        assert_eq!(line["target"], "waypost::deliveries", "{line:?}");
    }
    let text = app.waypost.log_lines().join("\n");
    assert!(
        !text.contains("+15550001") && !text.contains("/offers") && !text.contains("yesterday"),
        "the log contains personal data: {text}"
    );
}

/// Failures are counted by who caused them, and the phases of attempts are timed.
#[tokio::test]
async fn log_lines_name_who_caused_a_failure() {
    let app = TestApp::builder().process().set("retry.maxAttempts", 1).start().await;
    app.receiver.reply("/offers", 500);
    app.receiver.reply("/survey", 404);
    app.receiver.reply("/agent", Answer::reset());
    for keyword in [3, 4, 5] {
        app.publish(step_event().keyword(keyword).id(&format!("blamed-{keyword}"))).await;
    }
    app.dead_letters(3).await;
    for blame in ["receiver_5xx", "receiver_4xx", "receiver_reset"] {
        app.waypost.wait_for_metric(&format!("waypost_attempt_failures_total{{blame=\"{blame}\"}}"), 1.0).await;
    }
    for stage_of in ["connect", "first_byte"] {
        let name = format!("waypost_attempt_stage_duration_seconds_count{{stage=\"{stage_of}\"}}");
        app.waypost.wait_for_metric(&name, 1.0).await;
    }
    let quiet = "waypost_attempt_failures_total{blame=\"timeout_answering\"}";
    assert_eq!(app.waypost.metric(quiet).await, 0.0);
}
