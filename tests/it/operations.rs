//! Files for operators: recording rules and alerts, each with a runbook and tests; the configuration of Alertmanager;
//! the health check. Their own tools validate them.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use serde_json::Value;

use crate::support::json::{items_of, only};
use crate::support::tools::{
    all_output, parse_yaml, project_root, read_project_file, run, run_successfully, tool_command,
};
use crate::support::{Broker, Waypost, unique};
use crate::test_app::{TestApp, step_event};

const ALERTS: &str = "deploy/prometheus/alerts.yml";
const RECORDING_RULES: &str = "deploy/prometheus/recording.yml";

/// Files with tests of alerts. The name of each test begins with the alert.
const RULE_TESTS: [&str; 4] = ["objectives", "presence", "work", "state"];

/// All rules of a file.
pub(crate) fn rules(file: &str) -> Vec<Value> {
    let documents = parse_yaml(&read_project_file(file));
    items_of(&only(&documents)["groups"])
        .iter()
        .flat_map(|group| group["rules"].as_array().expect("rules").clone())
        .collect()
}

/// The text at a JSON pointer.
#[track_caller]
fn text<'a>(value: &'a Value, pointer: &str) -> &'a str {
    value.pointer(pointer).and_then(Value::as_str).unwrap_or_else(|| panic!("no {pointer} in {value:#}"))
}

/// The alerts by name. An alert with several windows has several rules.
fn alerts() -> BTreeMap<String, Vec<Value>> {
    let mut alerts: BTreeMap<String, Vec<Value>> = BTreeMap::new();
    for rule in rules(ALERTS) {
        alerts.entry(text(&rule, "/alert").to_owned()).or_default().push(rule);
    }
    assert!(alerts.len() > 10, "{alerts:?}");
    alerts
}

#[test]
fn prometheus_files_are_valid() {
    run_successfully(tool_command("promtool").args(["check", "rules", RECORDING_RULES, ALERTS]));
    // The rule files are at their paths in the container.
    run_successfully(tool_command("promtool").args([
        "check",
        "config",
        "--syntax-only",
        "deploy/prometheus/prometheus.yml",
    ]));
}

#[test]
fn objective_alerts_pass_their_tests() {
    run_rule_test("objectives");
}

#[test]
fn presence_alerts_pass_their_tests() {
    run_rule_test("presence");
}

#[test]
fn work_alerts_pass_their_tests() {
    run_rule_test("work");
}

#[test]
fn state_alerts_pass_their_tests() {
    run_rule_test("state");
}

fn run_rule_test(name: &str) {
    run_successfully(tool_command("promtool").args(["test", "rules", &format!("deploy/prometheus/tests/{name}.yml")]));
}

#[test]
fn every_alert_is_tested_firing_silent_in_low_traffic_and_without_series() {
    let mut cases: BTreeMap<String, Vec<(String, bool)>> = BTreeMap::new();
    for name in RULE_TESTS {
        let documents = parse_yaml(&read_project_file(&format!("deploy/prometheus/tests/{name}.yml")));
        for case in items_of(&only(&documents)["tests"]) {
            let (alert, situation) = text(case, "/name").split_once(": ").expect("ALERT: SITUATION");
            let fires = items_of(&case["alert_rule_test"]).iter().any(|test| !items_of(&test["exp_alerts"]).is_empty());
            cases.entry(alert.to_owned()).or_default().push((situation.to_owned(), fires));
        }
    }
    for alert in alerts().keys() {
        let cases = cases.remove(alert).unwrap_or_default();
        let has = |what: &dyn Fn(&(String, bool)) -> bool| cases.iter().any(what);
        assert!(has(&|(_, fires)| *fires), "no test in which {alert} fires");
        assert!(has(&|(_, fires)| !fires), "no test in which {alert} does not fire");
        assert!(has(&|(situation, _)| situation.contains("traffic")), "no test of {alert} with little traffic");
        assert!(has(&|(situation, _)| situation.contains("missing")), "no test of {alert} without its series");
    }
    assert!(cases.is_empty(), "tests of removed alerts: {cases:?}");
}

#[test]
fn every_alert_has_a_runbook_and_every_runbook_an_alert() {
    let index = read_project_file("docs/runbooks/README.md");
    let mut pages: BTreeSet<String> = std::fs::read_dir(project_root().join("docs/runbooks"))
        .expect("a folder of runbooks")
        .filter_map(|entry| entry.ok()?.file_name().into_string().ok()?.strip_suffix(".md").map(str::to_owned))
        .filter(|name| name.starts_with("Waypost"))
        .collect();
    for (name, rules) in alerts() {
        for rule in rules {
            assert_eq!(text(&rule, "/annotations/runbook"), format!("docs/runbooks/{name}.md"));
            assert!(["page", "ticket"].contains(&text(&rule, "/labels/severity")), "{rule:#}");
            assert!(text(&rule, "/annotations/description").ends_with('.'), "no sentence: {rule:#}");
            assert!(!text(&rule, "/annotations/summary").is_empty());
        }
        assert!(pages.remove(&name), "no docs/runbooks/{name}.md");
        let page = read_project_file(&format!("docs/runbooks/{name}.md"));
        let has = |part: &str| page.lines().any(|line| line == part);
        for part in [["# ", name.as_str()].concat().as_str(), "## Meaning", "## Diagnose", "## Fix"] {
            assert!(has(part), "docs/runbooks/{name}.md has no line {part:?}");
        }
        assert!(index.contains(&format!("[{name}]({name}.md)")), "docs/runbooks/README.md does not name {name}");
    }
    assert!(pages.is_empty(), "runbooks of removed alerts: {pages:?}");
}

#[test]
fn the_alertmanager_example_is_valid() {
    let file = "deploy/alertmanager/alertmanager.yml";
    run_successfully(tool_command("amtool").args(["check-config", file]));
    let alerts = alerts();
    let words = read_project_file(file);
    let named = words.split(|c: char| !c.is_alphanumeric()).filter(|word| word.starts_with("Waypost"));
    let unknown: Vec<&str> = named.filter(|word| *word != "Waypost" && !alerts.contains_key(*word)).collect();
    assert!(unknown.is_empty(), "{file}: {unknown:?}");
}

#[test]
fn kubernetes_rules_match_prometheus_rules() {
    let printed = run_successfully(&mut tool_command("scripts/prometheus-rules-for-kubernetes"));
    let file = "deploy/kubernetes/overlays/production/prometheus-rules.yaml";
    assert!(printed == read_project_file(file), "scripts/prometheus-rules-for-kubernetes >{file}");
}

#[tokio::test]
async fn the_health_check_works_without_a_shell() {
    let broker = Broker::shared().await;
    let waypost = Waypost::start(&broker.url(), &unique("ready")).await;
    let printed = waypost.cli(&["ready"]).await;
    assert_eq!((printed.code, printed.stdout.as_str()), (Some(0), "ready\n"), "{printed:?}");
    let away = Waypost::launch("amqp://127.0.0.1:1", &unique("away"), &[]);
    away.wait_for_log_line("listening").await;
    let printed = away.cli(&["ready"]).await;
    assert_eq!(printed.code, Some(1), "{printed:?}");
    assert!(printed.stderr.contains("error: not connected to the broker"), "{printed:?}");
    away.kill().await;
    let printed = away.cli(&["ready"]).await;
    assert_eq!(printed.code, Some(1), "{printed:?}");
    assert!(printed.stderr.contains("no response from"), "{printed:?}");
}

#[tokio::test]
async fn the_objective_counts_first_attempts_only() {
    let app = TestApp::start().await;
    app.receiver.reply("/offers", [503, 200]);
    app.publish(step_event().keyword(4).id("twice")).await;
    app.waypost.wait_for_metric("waypost_deliveries_total{outcome=\"delivered\"}", 1.0).await;
    let metrics = app.waypost.metrics().await;
    assert_eq!(metrics["waypost_attempt_duration_seconds_count"], 2.0);
    assert_eq!(metrics["waypost_first_attempt_delay_seconds_count"], 1.0);
    // The event's date is years ago.
    assert_eq!(metrics["waypost_first_attempt_delay_seconds_bucket{le=\"5\"}"], 0.0);
    assert_eq!(metrics["waypost_publisher{link=\"up\"}"], 1.0);
    assert_eq!(metrics["waypost_publisher{link=\"down\"}"], 0.0);
    assert!(metrics["waypost_store_bytes"] > 0.0);
}

#[test]
fn the_secrets_of_compose_are_written_once() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let file = folder.path().join("env");
    let write = |file: &Path| run_successfully(tool_command("scripts/compose-secrets").arg(file));
    write(&file);
    let written = std::fs::read_to_string(&file).expect("a file");
    let again = run(tool_command("scripts/compose-secrets").arg(&file));
    assert!(all_output(&again).contains("exists already"), "{again:?}");
    assert_eq!(std::fs::read_to_string(&file).expect("a file"), written);
    let other = folder.path().join("other");
    write(&other);
    assert_ne!(std::fs::read_to_string(&other).expect("a file"), written, "generated secrets must differ");
}
