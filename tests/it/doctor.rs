//! `waypost doctor` and the problems that it detects.

use lapin::ExchangeKind;
use lapin::options::{ExchangeDeclareOptions, QueueDeclareOptions};
use lapin::types::FieldTable;
use serde_json::Value;

use super::test_app::{SLOW_TIMEOUT, TestApp};
use crate::support::broker::broker_version;
use crate::support::waypost::{CommandOutput, cli};
use crate::support::{Amqp, Broker, Receiver, Waypost, unique, wait_until};

/// Runs `waypost doctor` for a prefix, with more arguments.
async fn run_doctor(url: &str, prefix: &str, more: &[&str]) -> (Option<i32>, Vec<Value>) {
    let (url, prefix) = (format!("broker.url={url}"), format!("broker.prefix={prefix}"));
    let arguments = [&["doctor", "--json", "--set", &url, "--set", &prefix], more].concat();
    let CommandOutput { code, stdout, .. } = cli(&arguments).await;
    (code, serde_json::from_str(&stdout).unwrap_or_else(|error| panic!("{error}: {stdout}")))
}

/// The status of a check, and its message with the fix.
fn finding(findings: &[Value], check: &str) -> (String, String) {
    let finding = findings.iter().find(|finding| finding["check"] == check);
    let finding = finding.unwrap_or_else(|| panic!("no {check}: {findings:?}"));
    let text = |name: &str| finding[name].as_str().unwrap_or_default();
    (text("verdict").to_owned(), format!("{} {}", text("found"), text("advice")))
}

#[tokio::test]
async fn a_healthy_setup_passes() {
    let app = TestApp::start().await;
    let receiver = Receiver::start();
    let url = Broker::shared().await.url();
    let open = ["--set", "egress.allow=127.0.0.1", "--set", "egress.allowHttp=true", "--url", &receiver.url("/hook")];
    let (code, findings) = run_doctor(&url, &app.prefix, &open).await;
    assert_eq!(code, Some(0), "{findings:?}");
    for check in ["clock", "folder", "broker", "version", "streams", "rights", "queues", "bindings", "egress"] {
        assert_eq!(finding(&findings, check).0, "good", "{findings:?}");
    }
    assert!(finding(&findings, "queues").1.contains("0 messages are ready"), "{findings:?}");
    assert!(finding(&findings, "egress").1.contains("answers HEAD with 200"), "{findings:?}");
    assert!(receiver.requests().iter().all(|request| request.body.is_empty()), "the doctor sent a request with a body");
    // The doctor left nothing behind.
    assert!(Broker::shared().await.queues(&format!("{}.examination", app.prefix)).await.is_empty());
}

#[tokio::test]
async fn an_unreachable_broker_and_a_used_address_are_reported() {
    let url = "amqp://guest:guest@127.0.0.1:1/";
    let (code, findings) = run_doctor(url, "doctor", &["--url", "https://127.0.0.1/"]).await;
    assert_eq!(code, Some(1));
    let (verdict, words) = finding(&findings, "broker");
    assert!(verdict == "bad" && words.contains("Connection refused") && words.contains("broker.url"), "{words}");
    let (verdict, words) = finding(&findings, "egress");
    assert!(verdict == "bad" && words.contains("loopback") && words.contains("egress.allow"), "{words}");
}

#[tokio::test]
async fn blocked_publishing_is_reported() {
    let broker = Broker::private().await;
    broker.ctl(&["set_vm_memory_high_watermark", "absolute", "1MB"]).await;
    let (code, findings) = run_doctor(&broker.url(), "doctor", &[]).await;
    assert_eq!(code, Some(1));
    let (verdict, words) = finding(&findings, "rights");
    assert!(verdict == "bad" && words.contains("short of memory or disk"), "{words}");
    assert_eq!(finding(&findings, "queues").0, "good", "{findings:?}");
}

#[tokio::test]
async fn a_queue_mismatch_is_reported_with_both_values() {
    let (url, prefix) = (Broker::shared().await.url(), unique("doctor"));
    let channel = Amqp::connect(&url).await.channel().await;
    let retries = format!("{prefix}.retries");
    let declared =
        channel.queue_declare(retries.as_str().into(), QueueDeclareOptions::durable(), FieldTable::default());
    declared.await.expect("a classic queue");
    let (code, findings) = run_doctor(&url, &prefix, &[]).await;
    let (verdict, words) = finding(&findings, "queues");
    assert_eq!((code, &*verdict), (Some(1), "bad"));
    let (found, wanted) = ("the broker has none", format!("Waypost wants '{prefix}.dead-letters'"));
    assert!(words.contains(&retries) && words.contains(found) && words.contains(&wanted), "{words}");
}

#[tokio::test]
async fn an_exchange_mismatch_is_reported() {
    let (url, prefix) = (Broker::shared().await.url(), unique("doctor"));
    let channel = Amqp::connect(&url).await.channel().await;
    let (events, durable) =
        (format!("{prefix}.events"), ExchangeDeclareOptions { durable: true, ..Default::default() });
    let declared =
        channel.exchange_declare(events.as_str().into(), ExchangeKind::Direct, durable, FieldTable::default());
    declared.await.expect("a direct exchange");
    let (code, findings) = run_doctor(&url, &prefix, &[]).await;
    let (verdict, words) = finding(&findings, "queues");
    assert_eq!((code, &*verdict), (Some(1), "bad"));
    assert!(words.contains(&format!("exchange {events}")) && words.contains("'topic'"), "{words}");
}

#[tokio::test]
async fn the_version_and_unchecked_policies_are_reported() {
    let (url, prefix) = (Broker::shared().await.url(), unique("doctor"));
    let (code, findings) = run_doctor(&url, &prefix, &[]).await;
    assert_eq!(code, Some(0), "{findings:?}");
    let (verdict, words) = finding(&findings, "version");
    assert!(verdict == "good" && words.contains("RabbitMQ 3.") | words.contains("RabbitMQ 4."), "{words}");
    let (verdict, words) = finding(&findings, "policies");
    assert_eq!(verdict, "doubtful");
    for part in ["broker.managementUrl", "list_policies -p '/'", "list_operator_policies -p '/'"] {
        assert!(words.contains(part), "{words}");
    }
}

#[tokio::test]
async fn an_unbound_exchange_is_reported_without_a_worker() {
    let (url, prefix) = (Broker::shared().await.url(), unique("doctor"));
    let worker = Waypost::start(&url, &prefix).await;
    worker.kill().await;
    assert_eq!(finding(&run_doctor(&url, &prefix, &[]).await.1, "bindings").0, "good");
    let (channel, events) = (Amqp::connect(&url).await.channel().await, format!("{prefix}.events"));
    let unbound =
        channel.queue_unbind(events.as_str().into(), events.as_str().into(), "#".into(), FieldTable::default());
    unbound.await.expect("unbound");
    let (code, findings) = run_doctor(&url, &prefix, &[]).await;
    let (verdict, words) = finding(&findings, "bindings");
    assert_eq!((code, &*verdict), (Some(1), "bad"), "{words}");
    assert!(words.contains("events reach no queue") && words.contains("start a worker"), "{words}");
}

#[tokio::test]
async fn policies_are_named_with_what_they_lose_and_how_to_exempt_the_queues() {
    let (broker, management) = Broker::private_managed().await;
    let url = broker.url();
    let worker = Waypost::start_with(&url, "waypost", &[("WAYPOST_BROKER__MANAGEMENT_URL", &management)]).await;
    let setting = format!("broker.managementUrl={management}");
    let look = async || run_doctor(&url, "waypost", &["--set", &setting]).await.1;
    let findings = look().await;
    for check in ["bindings", "policies", "held messages"] {
        assert_eq!(finding(&findings, check).0, "good", "{check}: {findings:?}");
    }

    let definition = r#"{"max-length":100,"overflow":"drop-head"}"#;
    broker.ctl(&["set_policy", "--apply-to", "queues", "short", ".*", definition]).await;
    // This policy also applies to streams.
    broker.ctl(&["set_operator_policy", "--apply-to", "queues", "old", ".*", r#"{"max-length-bytes":50000000}"#]).await;
    let words = wait_until("the effective policies", SLOW_TIMEOUT, async || {
        let (verdict, words) = finding(&look().await, "policies");
        // RabbitMQ applies a policy to one queue after the other.
        let parts = [
            "max-length: 100",
            "waypost.events",
            "campaigns: operator policy old",
            "policy short",
            "the oldest event is removed",
        ];
        let is_complete = parts.iter().all(|part| words.contains(part)) && printed_commands(&words).len() == 3;
        (verdict == "bad" && is_complete).then_some(words)
    })
    .await;
    // A starting worker reports the same.
    worker.kill().await;
    worker.restart().await;
    worker.wait_for_log_line("broker policy harms a queue").await;

    // The printed commands exempt the queues.
    let commands = printed_commands(&words);
    let of_kind = |kind: &str| commands.iter().filter(|command| command[0] == kind).count();
    assert_eq!((of_kind("set_policy"), of_kind("set_operator_policy"), commands.len()), (1, 2, 3), "{words}");
    for command in &commands {
        let arguments: Vec<&str> = command.iter().map(String::as_str).collect();
        broker.ctl(&arguments).await;
    }
    wait_until("the queues to be exempt", SLOW_TIMEOUT, async || {
        (finding(&look().await, "policies").0 == "good").then_some(())
    })
    .await;
}

/// The arguments of every `rabbitmqctl` command in a text. Each command ends with a policy definition.
fn printed_commands(text: &str) -> Vec<Vec<String>> {
    let arguments = |command: &str| {
        let (command, _) = command.split_once("}'").expect("a definition");
        let words = format!("{command}}}'");
        words.split(' ').map(|word| word.trim_matches('\'').to_owned()).collect::<Vec<_>>()
    };
    text.split("rabbitmqctl ").skip(1).map(arguments).collect()
}

#[tokio::test]
async fn a_broker_without_streams_is_reported_first() {
    if !broker_version().starts_with("3.") {
        eprintln!("skipped: since 4.0 a broker always has streams");
        return;
    }
    let prepare = |folder: &std::path::Path, _| {
        let config = "[{rabbit,[{forced_feature_flags_on_init,[quorum_queue]}]}].\n";
        std::fs::write(folder.join("advanced.config"), config).expect("written");
    };
    let (broker, _) = Broker::private_prepared(&[], prepare).await;
    let (code, findings) = run_doctor(&broker.url(), "doctor", &[]).await;
    let (verdict, words) = finding(&findings, "streams");
    assert_eq!((code, &*verdict), (Some(1), "bad"), "{words}");
    assert!(words.contains("cannot be used: it has no streams"), "{words}");
    assert!(
        findings.iter().all(|finding| finding["check"] != "queues"),
        "queues are not checked without streams: {findings:?}"
    );
}

#[tokio::test]
async fn unreadable_settings_are_reported() {
    let (code, findings) = run_doctor("amqp://127.0.0.1:1/", "doctor", &["--set", "broker.prefetch=none"]).await;
    let (verdict, words) = finding(&findings, "settings");
    assert_eq!((code, &*verdict, findings.len()), (Some(1), "bad", 1));
    assert!(words.contains("broker.prefetch"), "{words}");
}

#[tokio::test]
async fn wrong_login_vhost_and_plugin_are_distinguished() {
    let broker = Broker::private().await;
    let (url, none) = (broker.url(), [].as_slice());
    let wrong = url.replace("guest:guest", "guest:wrong");
    let (_, words) = finding(&run_doctor(&wrong, "doctor", none).await.1, "broker");
    assert!(words.contains("password"), "{words}");
    let elsewhere = format!("{}none", url.trim_end_matches("%2f"));
    let (_, words) = finding(&run_doctor(&elsewhere, "doctor", none).await.1, "broker");
    assert!(words.contains("add_vhost"), "{words}");
    let (_, findings) = run_doctor(&url, "doctor", &["--set", "broker.shards=4"]).await;
    assert_eq!(
        (finding(&findings, "rights").0, finding(&findings, "queues").0),
        ("good".to_owned(), "good".to_owned())
    );
    let (verdict, words) = finding(&findings, "plugin");
    assert!(verdict == "bad" && words.contains("rabbitmq-plugins enable"), "{words}");
}

#[tokio::test]
async fn a_missing_permission_is_reported() {
    let (broker, user) = (Broker::shared().await, unique("doctor"));
    broker.ctl(&["add_user", &user, "secret"]).await;
    broker.ctl(&["set_permissions", &user, "^$", ".*", ".*"]).await;
    let url = broker.url().replace("guest:guest", &format!("{user}:secret"));
    let (code, findings) = run_doctor(&url, "doctor", &[]).await;
    let (verdict, words) = finding(&findings, "rights");
    assert_eq!((code, &*verdict), (Some(1), "bad"));
    assert!(words.contains("the configure permission") && words.contains("set_permissions"), "{words}");
}
