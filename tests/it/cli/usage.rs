//! Usage errors, help and completions.

use std::collections::BTreeSet;

use super::{CliSandbox, assert_exit, parse_json};

#[tokio::test]
async fn usage_errors_exit_with_2() {
    let shell = CliSandbox::new();
    let events = shell.file("events.ndjson", "");
    let misused: [&[&str]; 39] = [
        &[],
        &["deliver"],
        &["--bogus"],
        &["check", "--bogus"],
        &["check", "--set", "log.level"],
        &["demo", "--events", "0"],
        &["demo", "--events", "many"],
        &["campaigns"],
        &["campaigns", "get"],
        &["campaigns", "apply"],
        &["campaigns", "graph"],
        &["campaigns", "graph", "c", "--file", &events],
        &["campaigns", "graph", "c", "--format", "png"],
        &["publish"],
        &["publish", "--campaign", "c"],
        &["publish", "--campaign", "c", "--label", "l"],
        &["publish", &events, "--campaign", "c", "--label", "l", "--phone", "1"],
        &["campaigns", "list", "--server", "not a url"],
        &["dead-letters"],
        &["dead-letters", "list", "--reason", "tired"],
        &["dead-letters", "list", "--state", "lost"],
        &["dead-letters", "list", "--status", "5xx"],
        &["dead-letters", "list", "--since", "yesterday"],
        &["dead-letters", "list", "--since", "1h", "--until", "2h"],
        &["dead-letters", "list", "--limit", "0"],
        &["dead-letters", "show"],
        &["dead-letters", "show", ".."],
        &["dead-letters", "discard", "--because", "no id, no filter"],
        &["dead-letters", "discard", "--all"],
        &["dead-letters", "discard", "--campaign", "c"],
        &["dead-letters", "list", "--endpoint", "example.com"],
        &["erase"],
        &["dead-letters", "replay"],
        &["dead-letters", "replay", "dl_1", "--all"],
        &["dead-letters", "replay", "--all", "--rate", "0"],
        &["dead-letters", "replay", "--all", "--stop-on-failure-ratio", "1.5"],
        &["dead-letters", "replay", "--all", "--config", "old"],
        &["replays"],
        &["replays", "follow"],
    ];
    for arguments in misused {
        let printed = shell.run(&[], arguments).await;
        assert_eq!(printed.code, Some(2), "{arguments:?}: {printed:#?}");
        assert!(!printed.stderr.is_empty(), "{arguments:?} prints nothing");
    }
}

/// Options that would have no effect are errors.
#[tokio::test]
async fn event_options_conflict_with_a_file() {
    let shell = CliSandbox::new();
    let events = shell.file("events.ndjson", "");
    for option in ["--label", "--phone", "--date", "--response", "--option", "--keyword", "--event-id"] {
        let printed = shell.run(&[], &["publish", &events, option, "1"]).await;
        assert_eq!(printed.code, Some(2), "{option}: {printed:#?}");
    }
}

#[tokio::test]
async fn every_command_explains_itself() {
    let shell = CliSandbox::new();
    let mut commands = vec![Vec::new()];
    let mut explained = BTreeSet::new();
    while let Some(command) = commands.pop() {
        let arguments: Vec<&str> = command.iter().map(String::as_str).chain(["--help"]).collect();
        let printed = shell.run(&[], &arguments).await;
        assert_exit(&printed, 0, &[]);
        assert!(printed.stdout.contains("Usage: waypost"), "{command:?}: {printed:#?}");
        let of_dead_letters = ["dead-letters", "replays"].contains(&arguments[0]) && command.len() == 2;
        assert!(!of_dead_letters || printed.stdout.contains("Example"), "{command:?}: {printed:#?}");
        let listed = printed.stdout.lines().skip_while(|line| *line != "Commands:").skip(1);
        for line in listed.take_while(|line| !line.is_empty()) {
            // A continuation line is indented further.
            let name = line.strip_prefix("  ").filter(|line| !line.starts_with(' '));
            let name = name.and_then(|line| line.split_whitespace().next()).filter(|name| *name != "help");
            commands.extend(name.map(|name| command.iter().cloned().chain([name.to_owned()]).collect()));
        }
        explained.insert(command.join(" "));
    }
    for command in [
        "serve",
        "demo",
        "check",
        "campaigns list",
        "campaigns get",
        "campaigns apply",
        "campaigns delete",
        "campaigns graph",
        "publish",
        "dead-letters list",
        "dead-letters show",
        "dead-letters summary",
        "dead-letters export",
        "dead-letters discard",
        "dead-letters replay",
        "replays list",
        "replays show",
        "replays follow",
        "replays pause",
        "replays resume",
        "replays cancel",
        "erase",
    ] {
        assert!(explained.contains(command), "{command} is not in {explained:?}");
    }
    let version = shell.run(&[], &["--version"]).await;
    assert_exit(&version, 0, &[]);
    assert_eq!(version.stdout.trim(), concat!("waypost ", env!("CARGO_PKG_VERSION")));
}

#[tokio::test]
async fn each_shell_completes_every_command() {
    let shell = CliSandbox::new();
    for name in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let printed = shell.run(&[], &["completions", name]).await;
        assert_exit(&printed, 0, &[]);
        for command in ["serve", "campaigns", "publish", "explain", "openapi", "keyword"] {
            assert!(printed.stdout.contains(command), "{name} does not know {command}");
        }
    }
    assert_exit(&shell.run(&[], &["completions", "tcsh"]).await, 2, &["tcsh", "bash"]);
    let document = parse_json(&shell.run(&[], &["openapi"]).await.stdout);
    assert_eq!(document["openapi"], "3.1.0");
}
