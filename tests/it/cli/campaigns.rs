//! Campaigns on the command line.

use std::process::{Command, Stdio};

use reqwest::Method;
use serde_json::json;

use super::{CliSandbox, assert_exit, campaign, json_items, parse_json, start_worker};
use crate::support::cli_process::CliProcess;
use crate::support::json::{find_by, section_mut, webhook_id};

#[tokio::test]
async fn campaigns_are_applied_listed_read_and_deleted() {
    let (waypost, shell) = (start_worker().await, CliSandbox::new());
    let printed = shell.run_against(&waypost, &["campaigns", "list"], "").await;
    assert_exit(&printed, 0, &[]);
    assert!(printed.stdout.contains("No campaigns yet"), "{printed:#?}");

    let file = shell.file("spring.json", campaign("spring", "http://127.0.0.1:9/a").to_string());
    let printed = shell.run_against(&waypost, &["campaigns", "apply", &file], "").await;
    assert_exit(&printed, 0, &[]);
    assert!(printed.stdout.starts_with("campaign spring created, version "), "{printed:#?}");
    let printed = shell.run_against(&waypost, &["campaigns", "apply", &file], "").await;
    assert!(printed.stdout.starts_with("campaign spring replaced, version "), "{printed:#?}");
    let autumn = campaign("autumn/2024 ü", "http://127.0.0.1:9/b").to_string();
    let printed = shell.run_against(&waypost, &["campaigns", "apply", "--json", "-"], &autumn).await;
    assert_exit(&printed, 0, &[]);
    let applied = parse_json(&printed.stdout);
    assert_eq!(applied["id"], "autumn/2024 ü");
    assert!(!webhook_id(&applied, "Ask", 4).is_empty(), "{applied:#}");

    let printed = shell.run_against(&waypost, &["campaigns", "list"], "").await;
    assert_exit(&printed, 0, &[]);
    for text in ["ID", "NAME", "spring", "autumn/2024 ü", "A campaign"] {
        assert!(printed.stdout.contains(text), "no {text}: {}", printed.stdout);
    }
    let listed = json_items(&shell.run_against(&waypost, &["campaigns", "list", "--json"], "").await.stdout, None);
    let ids: Vec<_> = listed.iter().map(|campaign| campaign["id"].as_str().expect("an id")).collect();
    assert_eq!(ids, ["autumn/2024 ü", "spring"]);
    let spring = find_by(&listed, "id", "spring");
    assert_eq!((&spring["sections"], &spring["webhooks"]), (&json!(1), &json!(3)), "{listed:#?}");

    let printed = shell.run_against(&waypost, &["campaigns", "get", "autumn/2024 ü"], "").await;
    assert_exit(&printed, 0, &[]);
    assert_eq!(parse_json(&printed.stdout), applied);

    // Without a terminal, the command can't ask for confirmation.
    let delete = ["campaigns", "delete", "autumn/2024 ü"];
    let effect = "delete campaign autumn/2024 ü “A campaign” with 1 section and 3 webhooks";
    let printed = shell.run_against(&waypost, &delete, "y\n").await;
    assert_exit(&printed, 2, &[effect, "--yes"]);
    assert_eq!(printed.stdout, "");
    let printed = shell.run_against(&waypost, &[&delete[..], &["--dry-run"]].concat(), "").await;
    assert_exit(&printed, 0, &[]);
    assert_eq!(printed.stdout, format!("would {effect}\n"));
    let printed = shell.run_against(&waypost, &[&delete[..], &["--dry-run", "--json"]].concat(), "").await;
    assert_eq!(parse_json(&printed.stdout)["webhooks"], 3, "{printed:#?}");
    let printed = shell.run_against(&waypost, &["campaigns", "get", "autumn/2024 ü"], "").await;
    assert_exit(&printed, 0, &[]);
    let printed = shell.run_against(&waypost, &[&delete[..], &["--yes"]].concat(), "").await;
    assert_exit(&printed, 0, &[]);
    assert!(printed.stderr.contains(&format!("This will {effect}.")), "{printed:#?}");
    for command in ["get", "delete"] {
        let printed = shell.run_against(&waypost, &["campaigns", command, "autumn/2024 ü"], "").await;
        assert_exit(&printed, 1, &["no such campaign"]);
    }
}

/// A script passes `--json` to every command whose output it parses.
#[tokio::test]
async fn a_campaign_is_read_as_json() {
    let (waypost, shell) = (start_worker().await, CliSandbox::new());
    waypost.put_campaign(&campaign("spring", "http://127.0.0.1:9/a")).await;
    let printed = shell.run_against(&waypost, &["campaigns", "get", "--json", "spring"], "").await;
    assert_exit(&printed, 0, &[]);
    assert_eq!(parse_json(&printed.stdout)["id"], "spring");
}

/// The list has more than one page of the API.
#[tokio::test]
async fn a_list_has_all_pages() {
    let (waypost, shell) = (start_worker().await, CliSandbox::new());
    let names: Vec<String> = (0..101).map(|number| format!("c{number:03}")).collect();
    let puts = names.iter().map(|name| {
        let (waypost, campaign) = (&waypost, campaign(name, "http://127.0.0.1:9/a"));
        async move { waypost.put_campaign(&campaign).await }
    });
    futures_util::future::join_all(puts).await;
    let listed = json_items(&shell.run_against(&waypost, &["campaigns", "list", "--json"], "").await.stdout, None);
    let ids: Vec<_> = listed.iter().map(|campaign| campaign["id"].as_str().expect("an id")).collect();
    assert_eq!(ids, names);
}

#[tokio::test]
async fn a_refused_file_is_reported_with_all_violations_and_others_are_applied() {
    let (waypost, shell) = (start_worker().await, CliSandbox::new());
    let mut bad = campaign("bad", "ftp://example.com/hook");
    section_mut(&mut bad, "Ask")["redirect"] = json!({ "type": "interaction", "to": "Nowhere" });
    let bad = shell.file("bad.json", bad.to_string());
    let good = shell.file("good.json", campaign("good", "http://127.0.0.1:9/a").to_string());
    let no_json = shell.file("no.json", "not JSON");
    let no_id = shell.file("no-id.json", "{}");
    let files = ["campaigns", "apply", &bad, &no_json, &no_id, "missing.json", &good];
    let printed = shell.run_against(&waypost, &files, "").await;
    let faults = [
        "bad.json",
        "$.sections[0].redirect.to: ",
        "$.sections[0].menu[0].webhook.url: ",
        "$.sections[0].menu[1].webhook.url: ",
        "no.json",
        "no-id.json",
        "$.id",
        "missing.json",
    ];
    assert_exit(&printed, 1, &faults);
    assert!(printed.stdout.contains("campaign good created"), "{printed:#?}");
    assert!(!printed.stderr.contains("good.json"), "{printed:#?}");
    assert_eq!(waypost.get("/v1/campaigns/bad").await.status, 404);
}

#[tokio::test]
async fn a_change_of_an_old_version_is_refused() {
    let (waypost, shell) = (start_worker().await, CliSandbox::new());
    let file = shell.file("c.json", campaign("c", "http://127.0.0.1:9/a").to_string());
    let first = waypost.put_campaign(&campaign("c", "http://127.0.0.1:9/a")).await.headers["etag"].clone();
    // With or without quotes.
    let version = first.trim_matches('"');
    assert_exit(&shell.run_against(&waypost, &["campaigns", "apply", "--if-match", version, &file], "").await, 0, &[]);
    for stale in [&first, version] {
        for command in [&["apply", &file], &["delete", "c"]] {
            let mut arguments = vec!["campaigns", command[0], "--if-match", stale, command[1]];
            arguments.extend((command[0] == "delete").then_some("--yes"));
            assert_exit(&shell.run_against(&waypost, &arguments, "").await, 1, &["has changed since"]);
        }
    }
    let two = ["campaigns", "apply", "--if-match", version, &file, &file];
    assert_exit(&shell.run_against(&waypost, &two, "").await, 2, &["--if-match"]);
    let current = waypost.get("/v1/campaigns/c").await.headers["etag"].clone();
    assert_exit(
        &shell.run_against(&waypost, &["campaigns", "delete", "--yes", "--if-match", &current, "c"], "").await,
        0,
        &[],
    );
}

#[tokio::test]
async fn a_campaign_is_drawn() {
    let (waypost, shell) = (start_worker().await, CliSandbox::new());
    let mut document = campaign("autumn/2024 ü", "http://127.0.0.1:9/hook");
    document["name"] = json!("Autumn </title><script>");
    section_mut(&mut document, "Ask")["webhook"] =
        json!({ "url": "http://127.0.0.1:9/own", "secret": "whsec_MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=" });
    assert_exit(&shell.run_against(&waypost, &["campaigns", "apply", "-"], document.to_string()).await, 0, &[]);

    let printed = shell.run_against(&waypost, &["campaigns", "graph", "autumn/2024 ü"], "").await;
    assert_exit(&printed, 0, &[]);
    let picture = roxmltree::Document::parse(&printed.stdout).expect("XML");
    let said: Vec<&str> = picture.descendants().filter_map(|element| element.attribute("aria-label")).collect();
    let row = "4 4!: with the underlying webhook http://127.0.0.1:9/hook";
    assert!(said.contains(&"Flow of the campaign Autumn </title><script>") && said.contains(&row), "{said:#?}");
    assert!(!printed.stdout.contains("whsec"), "{printed:#?}");

    let arguments = ["campaigns", "graph", "autumn/2024 ü", "--output", "autumn.svg"];
    let kept = shell.run_against(&waypost, &arguments, "").await;
    assert_exit(&kept, 0, &[]);
    assert_eq!(kept.stdout, "");
    let file = std::fs::read_to_string(shell.0.path().join("autumn.svg")).expect("the picture");
    assert_eq!(file, printed.stdout);

    let flowchart =
        shell.run_against(&waypost, &["campaigns", "graph", "autumn/2024 ü", "--format", "mermaid"], "").await;
    assert_exit(&flowchart, 0, &[]);
    assert!(flowchart.stdout.starts_with("flowchart LR\n"), "{flowchart:#?}");
    assert_eq!(flowchart.stdout.matches(" -.-o ").count(), 4, "{flowchart:#?}");

    assert_exit(&shell.run_against(&waypost, &["campaigns", "graph", "nobody"], "").await, 1, &["no such campaign"]);
}

#[tokio::test]
async fn a_campaign_in_a_file_is_drawn_without_a_server() {
    let shell = CliSandbox::new();
    let document = campaign("c", "http://example.com/hook").to_string();
    let file = shell.file("c.json", &document);
    let printed = shell.run(&[], &["campaigns", "graph", "--file", &file]).await;
    assert_exit(&printed, 0, &[]);
    assert!(printed.stdout.starts_with("<svg "), "{printed:#?}");
    let from_input = ["campaigns", "graph", "--file", "-"];
    let from_input = CliProcess::start(shell.0.path(), &[], &from_input, document.as_bytes()).wait_for_exit().await;
    assert_eq!((from_input.code, from_input.stdout), (Some(0), printed.stdout));

    let broken = shell.file(
        "broken.json",
        r#"{ "id": "c", "sections": [ { "label": "A", "redirect": { "type": "interaction", "to": "B" } } ] }"#,
    );
    let printed = shell.run(&[], &["campaigns", "graph", "--file", &broken]).await;
    assert_exit(&printed, 1, &["broken.json", "$.sections[0].redirect.to"]);
    let two = shell.file("two.json", format!("{document}\n{document}"));
    assert_exit(&shell.run(&[], &["campaigns", "graph", "--file", &two]).await, 2, &["several"]);
    let nowhere = ["campaigns", "graph", "--file", &file, "--output", "nowhere/c.svg"];
    assert_exit(&shell.run(&[], &nowhere).await, 1, &["nowhere/c.svg"]);
    assert_exit(&shell.run(&[], &["campaigns", "graph", "--file", "missing.json"]).await, 1, &["missing.json"]);
}

/// `waypost campaigns list | head -1` closes the pipe after one line.
#[tokio::test]
async fn a_closed_output_pipe_is_not_an_error() {
    let (waypost, shell) = (start_worker().await, CliSandbox::new());
    let reply = waypost.send(Method::PUT, "/v1/campaigns/c", Some(&campaign("c", "http://127.0.0.1:9/a"))).await;
    assert_eq!(reply.status, 201);
    let script = "\"$0\" campaigns get c | true; echo \"${PIPESTATUS[0]}\"";
    let mut command = Command::new("bash");
    command.args(["-c", script, env!("CARGO_BIN_EXE_waypost")]).current_dir(shell.0.path());
    command.env("WAYPOST_SERVER", waypost.url("")).stdin(Stdio::null());
    let output = tokio::task::spawn_blocking(move || command.output()).await.expect("it ran").expect("bash runs");
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(!stderr.contains("panicked"), "{stderr}");
}
