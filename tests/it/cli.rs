//! The command line: output, streams and exit codes (0 success, 1 failure, 2 usage error).

use std::collections::{BTreeMap, BTreeSet};
use std::io::{Read, Write as _};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError};

use reqwest::Method;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::support::json::{find_by, section_mut, webhook_id};
use crate::support::waypost::CommandOutput;
use crate::support::{Broker, DEFAULT_TIMEOUT, Receiver, Waypost, unique, wait_until};

/// A running command with a clean environment. It is killed when it is dropped.
pub(crate) struct CliProcess {
    child: Child,
    stdout: PipeOutput,
    stderr: PipeOutput,
}

impl CliProcess {
    /// Starts a command. `input` is its standard input.
    pub(crate) fn start(folder: &Path, environment: &[(&str, &str)], arguments: &[&str], input: &[u8]) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_waypost"));
        command.args(arguments).current_dir(folder).env_clear().envs(environment.iter().copied());
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().expect("the program starts");
        let stdout = PipeOutput::collect(child.stdout.take().expect("stdout is piped"));
        let stderr = PipeOutput::collect(child.stderr.take().expect("stderr is piped"));
        let (mut stdin, input) = (child.stdin.take().expect("stdin is piped"), input.to_owned());
        // A command that does not read its input closes the pipe early.
        std::thread::spawn(move || stdin.write_all(&input));
        Self { child, stdout, stderr }
    }

    /// Waits until the command ends.
    pub(crate) async fn wait_for_exit(mut self) -> CommandOutput {
        let status = wait_until("the end of the program", DEFAULT_TIMEOUT, async || {
            // The output is complete once all writers have closed it.
            let over = self.stdout.is_closed() && self.stderr.is_closed();
            self.child.try_wait().expect("its status").filter(|_| over)
        });
        let code = status.await.code();
        CommandOutput { code, stdout: self.stdout.text(), stderr: self.stderr.text() }
    }

    /// Waits until standard error contains `text`.
    pub(crate) async fn wait_for_stderr(&self, text: &str) {
        wait_until(text, DEFAULT_TIMEOUT, async || self.stderr.text().contains(text).then_some(())).await;
    }

    /// Sends SIGTERM.
    pub(crate) fn terminate(&self) {
        self.signal("-TERM");
    }

    /// Sends SIGINT, as Ctrl-C does.
    pub(crate) fn interrupt(&self) {
        self.signal("-INT");
    }

    fn signal(&self, signal: &str) {
        let status = Command::new("kill").args([signal, &self.child.id().to_string()]).status().expect("kill runs");
        assert!(status.success(), "kill: {status}");
    }
}

impl Drop for CliProcess {
    fn drop(&mut self) {
        // The process has usually ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            eprintln!("--- output of the program:\n{}{}\n---", self.stdout.text(), self.stderr.text());
        }
    }
}

/// The bytes read from a pipe, and whether it is closed.
#[derive(Clone, Default)]
struct PipeOutput(Arc<Mutex<(Vec<u8>, bool)>>);

impl PipeOutput {
    fn collect(mut pipe: impl Read + Send + 'static) -> Self {
        let output = Self::default();
        let written = output.clone();
        std::thread::spawn(move || {
            let mut piece = [0; 4096];
            while let Ok(length @ 1..) = pipe.read(&mut piece) {
                written.with(|(bytes, _)| bytes.extend_from_slice(&piece[..length]));
            }
            written.with(|(_, over)| *over = true);
        });
        output
    }

    fn with<T>(&self, work: impl FnOnce(&mut (Vec<u8>, bool)) -> T) -> T {
        work(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn text(&self) -> String {
        self.with(|(bytes, _)| String::from_utf8_lossy(bytes).into_owned())
    }

    fn is_closed(&self) -> bool {
        self.with(|(_, over)| *over)
    }
}

/// A temporary working directory.
struct CliSandbox(TempDir);

impl CliSandbox {
    fn new() -> Self {
        Self(tempfile::Builder::new().prefix("waypost-shell-").tempdir().expect("a temporary folder"))
    }

    /// Writes a file, and returns its path.
    fn file(&self, name: &str, content: impl AsRef<[u8]>) -> String {
        let path = self.0.path().join(name);
        std::fs::write(&path, content).expect("a file in the folder");
        path.display().to_string()
    }

    async fn run(&self, environment: &[(&str, &str)], arguments: &[&str]) -> CommandOutput {
        CliProcess::start(self.0.path(), environment, arguments, b"").wait_for_exit().await
    }

    /// Runs a client command against a worker.
    async fn run_against(&self, waypost: &Waypost, arguments: &[&str], input: impl AsRef<[u8]>) -> CommandOutput {
        let server = waypost.url("");
        CliProcess::start(self.0.path(), &[("WAYPOST_SERVER", &server)], arguments, input.as_ref())
            .wait_for_exit()
            .await
    }
}

/// Asserts the exit code and that standard error contains each of `said`.
#[track_caller]
fn assert_exit(printed: &CommandOutput, code: i32, said: &[&str]) {
    assert_eq!(printed.code, Some(code), "{printed:#?}");
    for text in said {
        assert!(printed.stderr.contains(text), "stderr does not contain {text:?}: {printed:#?}");
    }
    assert!(!printed.stderr.contains("panicked"), "{printed:#?}");
}

/// Parses each line as JSON.
#[track_caller]
fn parse_json(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|error| panic!("{error}: {text}"))
}

fn json_items(text: &str, name: Option<&str>) -> Vec<Value> {
    let document = parse_json(text);
    let items = name.map_or(&document, |name| &document[name]);
    items.as_array().unwrap_or_else(|| panic!("no items in {text}")).clone()
}

/// A campaign with one section. Its menu has a number, a word and a numeric text as keywords, all with the same URL.
fn campaign(id: &str, url: &str) -> Value {
    let entry =
        |keyword: Value| json!({ "keyword": keyword, "option": format!("{keyword}!"), "webhook": { "url": url } });
    json!({ "id": id, "name": "A campaign", "sections": [
        { "label": "Ask", "menu": [entry(json!(4)), entry(json!("agent")), entry(json!("007"))] } ] })
}

/// Starts a worker with a unique prefix on the shared broker.
async fn start_worker() -> Waypost {
    Waypost::start(&Broker::shared().await.url(), &unique("cli")).await
}

#[tokio::test]
async fn valid_settings_are_shown_with_their_source() {
    let shell = CliSandbox::new();
    let printed = shell.run(&[], &["check"]).await;
    assert_exit(&printed, 0, &[]);
    assert!(printed.stdout.contains("Settings are valid"), "{printed:#?}");

    shell.file("waypost.toml", "[broker]\nprefix = \"from-file\"\nprefetch = 7\n[log]\nlevel = \"debug\"\n");
    let environment = [
        ("WAYPOST_BROKER__PREFETCH", "8"),
        ("WAYPOST_LOG__LEVEL", "warn"),
        ("WAYPOST_BROKER__URL", "amqp://me:open-sesame@rabbit/"),
    ];
    let printed = shell.run(&environment, &["check", "--json", "--set", "log.level=error"]).await;
    assert_exit(&printed, 0, &[]);
    assert!(!printed.stdout.contains("open-sesame"), "the password is shown: {}", printed.stdout);
    let settings = json_items(&printed.stdout, Some("settings"));
    let setting = |key: &str| {
        let setting = settings.iter().find(|setting| setting["key"] == key).expect("the setting");
        (setting["value"].to_string().trim_matches('"').to_owned(), setting["from"].as_str().expect("an origin"))
    };
    let (prefix, origin) = setting("broker.prefix");
    assert_eq!(prefix, "from-file");
    assert!(origin.ends_with("waypost.toml"), "{origin}");
    assert_eq!(setting("broker.prefetch"), ("8".to_owned(), "WAYPOST_BROKER__PREFETCH"));
    assert_eq!(setting("log.level"), ("error".to_owned(), "the command line"));
    assert_eq!(setting("http.listen"), ("127.0.0.1:8080".to_owned(), "default"));
}

#[tokio::test]
async fn all_invalid_settings_are_reported_together() {
    let shell = CliSandbox::new();
    let file = shell.file("bad.toml", "[broker]\nperfix = \"x\"\nprefetch = 0\n[htp]\nlisten = \"\"\n");
    let printed = shell.run(&[("WAYPOST_BOGUS__KEY", "1")], &["check", "--config", &file]).await;
    let said = ["broker.perfix", "broker.prefix?", "broker.prefetch", "htp", "WAYPOST_BOGUS__KEY", &file];
    assert_exit(&printed, 1, &said);
    assert_eq!(printed.stdout, "");

    assert_exit(&shell.run(&[("WAYPOST_BROKER_URL", "amqp://x")], &["check"]).await, 1, &["WAYPOST_BROKER__URL"]);
    assert_exit(&shell.run(&[], &["check", "--set", "broker.colour=red"]).await, 1, &["broker.colour"]);
    assert_exit(&shell.run(&[], &["check", "--config", "nowhere.toml"]).await, 1, &["nowhere.toml"]);
    let file = shell.file("broken.toml", "[broker]\nprefix = \"waypost\nprefetch = 1");
    assert_exit(&shell.run(&[], &["check", "--config", &file]).await, 1, &["broken.toml", "line 2"]);
    // `serve` and `demo` print the same errors, and do not start.
    for command in ["serve", "demo"] {
        assert_exit(&shell.run(&[("WAYPOST_BOGUS__KEY", "1")], &[command]).await, 1, &["WAYPOST_BOGUS__KEY"]);
    }
}

/// A worker can start with every configuration that `check` accepts.
#[tokio::test]
async fn invalid_certificate_files_are_reported() {
    let shell = CliSandbox::new();
    let file = shell.file("ca.pem", "-----BEGIN CERTIFICATE-----\nnot one\n-----END CERTIFICATE-----\n");
    for command in ["check", "serve"] {
        let arguments = [command, "--set", &format!("egress.caFile={file}"), "--set", "http.listen=127.0.0.1:0"];
        assert_exit(&shell.run(&[], &arguments).await, 1, &["egress.caFile", &file]);
    }
}

#[tokio::test]
async fn a_variable_may_be_spelled_with_or_without_underscores() {
    let shell = CliSandbox::new();
    for name in ["WAYPOST_EGRESS__ALLOW_HTTP", "WAYPOST_EGRESS__ALLOWHTTP"] {
        let printed = shell.run(&[(name, "true")], &["check", "--json"]).await;
        assert_exit(&printed, 0, &[]);
        let settings = json_items(&printed.stdout, Some("settings"));
        let setting = settings.iter().find(|setting| setting["key"] == "egress.allowHttp").expect("the setting");
        assert_eq!((setting["value"].to_string().trim_matches('"'), &setting["from"]), ("true", &json!(name)));
    }
    let both = [("WAYPOST_EGRESS__ALLOW_HTTP", "true"), ("WAYPOST_EGRESS__ALLOWHTTP", "false")];
    assert_exit(&shell.run(&both, &["check"]).await, 1, &["egress.allowHttp", both[0].0, both[1].0]);
}

#[tokio::test]
async fn campaign_files_are_checked_under_the_settings() {
    let shell = CliSandbox::new();
    let good = shell.file("good.json", campaign("good", "https://example.com/hook").to_string());
    assert_exit(&shell.run(&[], &["check", &good]).await, 0, &[]);

    let plain = shell.file("plain.json", campaign("plain", "http://example.com/hook").to_string());
    let printed = shell.run(&[], &["check", &good, &plain]).await;
    assert_exit(
        &printed,
        1,
        &["plain.json: $.sections[0].menu[0].webhook.url: ", "$.sections[0].menu[1].webhook.url: "],
    );
    assert!(!printed.stderr.contains("good.json"), "{printed:#?}");
    assert_exit(&shell.run(&[("WAYPOST_EGRESS__ALLOW_HTTP", "true")], &["check", &plain]).await, 0, &[]);

    let broken = shell.file("broken.json", "{");
    let printed = shell.run(&[], &["check", &broken, "missing.json"]).await;
    assert_exit(&printed, 1, &["broken.json: $: ", "missing.json: "]);
}

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

#[tokio::test]
async fn an_unreachable_server_is_reported_with_advice() {
    let shell = CliSandbox::new();
    let nobody = std::net::TcpListener::bind("127.0.0.1:0").expect("a port").local_addr().expect("its address");
    let server = format!("http://{nobody}");
    let file = shell.file("c.json", campaign("c", "https://example.com/").to_string());
    let event = ["publish", "--campaign", "c", "--label", "l", "--phone", "1"];
    let commands: [&[&str]; 14] = [
        &["campaigns", "list"],
        &["campaigns", "get", "c"],
        &["campaigns", "apply", &file],
        &["campaigns", "delete", "c"],
        &["campaigns", "graph", "c"],
        &event,
        &["dead-letters", "list"],
        &["dead-letters", "show", "dl_1"],
        &["dead-letters", "summary"],
        &["dead-letters", "export"],
        &["dead-letters", "discard", "dl_1", "--because", "a test"],
        &["dead-letters", "replay", "dl_1"],
        &["replays", "list"],
        &["replays", "follow", "rp_1"],
    ];
    for command in commands {
        let printed = shell.run(&[("WAYPOST_SERVER", &server)], command).await;
        assert_exit(&printed, 1, &[&server, "--server", "WAYPOST_SERVER"]);
        assert_eq!(printed.stdout, "");
    }
    let flag = ["campaigns", "list", "--server", &server];
    assert_exit(&shell.run(&[("WAYPOST_SERVER", "http://127.0.0.1:1")], &flag).await, 1, &[&server]);
}

#[tokio::test]
async fn a_configured_token_is_sent() {
    use sha2::Digest as _;
    let sha256: String = sha2::Sha256::digest(b"open-sesame").iter().map(|byte| format!("{byte:02x}")).collect();
    let tokens = json!([{ "name": "ci", "role": "viewer", "sha256": sha256 }]).to_string();
    let url = Broker::shared().await.url();
    let waypost = Waypost::start_with(&url, &unique("cli"), &[("WAYPOST_HTTP__TOKENS", &tokens)]).await;
    let (shell, server) = (CliSandbox::new(), waypost.url(""));
    let list = ["campaigns", "list"];
    assert_exit(&shell.run(&[("WAYPOST_SERVER", &server)], &list).await, 1, &["token"]);
    let token = |token| [("WAYPOST_SERVER", server.as_str()), ("WAYPOST_TOKEN", token)];
    assert_exit(&shell.run(&token("wrong"), &list).await, 1, &["unknown token"]);
    // An empty variable counts as unset.
    assert_exit(&shell.run(&token(""), &list).await, 1, &["a token is needed"]);
    assert_exit(&shell.run(&token("open-sesame"), &list).await, 0, &[]);
    assert_exit(&shell.run(&token("wrong"), &["campaigns", "list", "--token", "open-sesame"]).await, 0, &[]);
    let discard = ["dead-letters", "discard", "dl_1", "--because", "a test", "--yes"];
    assert_exit(&shell.run(&token("open-sesame"), &discard).await, 1, &["operator", "viewer"]);
    let help = shell.run(&token("open-sesame"), &["campaigns", "list", "--help"]).await;
    assert!(!help.stdout.contains("open-sesame"), "the help shows the token: {}", help.stdout);
}

#[tokio::test]
async fn an_event_is_published_from_arguments_with_its_keyword_as_it_was_typed() {
    let (waypost, shell, receiver) = (start_worker().await, CliSandbox::new(), Receiver::start());
    waypost.put_campaign(&campaign("c", &receiver.url("/hook"))).await;
    let event = ["publish", "--campaign", "c", "--label", "Ask", "--phone", "+15550001"];
    let typed = [("4", json!(4)), ("agent", json!("agent")), ("007", json!("007"))];
    for (number, (keyword, as_json)) in (1..).zip(&typed) {
        let more = ["--keyword", keyword, "--response", "yes", "--option", "o", "--date", "2024-06-18T20:26:14-03:00"];
        let printed = shell.run_against(&waypost, &[&event[..], &more[..]].concat(), "").await;
        assert_exit(&printed, 0, &[]);
        assert!(printed.stdout.starts_with("published event "), "{printed:#?}");
        let requests = receiver.wait_until(|requests| requests.len() == number).await;
        let body = requests[number - 1].json();
        let expected = json!({ "campaignId": "c", "label": "Ask", "phoneNumber": "+15550001",
            "date": "2024-06-18T23:26:14.000Z", "response": "yes", "option": "o", "keyword": as_json });
        assert_eq!(body, expected);
    }

    // An event id that was given is kept. Otherwise each run generates a new one.
    let with_id = [&event[..], &["--keyword", "4", "--event-id", "e-1", "--json"]].concat();
    for _ in 0..2 {
        let printed = shell.run_against(&waypost, &with_id, "").await;
        assert_exit(&printed, 0, &[]);
        assert_eq!(parse_json(&printed.stdout)["eventId"], "e-1");
    }
    let requests = receiver.wait_until(|requests| requests.len() == 5).await;
    assert_eq!(requests[3].webhook_id(), requests[4].webhook_id());
    let ids: BTreeSet<&str> = requests.iter().map(crate::support::receiver::Request::webhook_id).collect();
    assert_eq!(ids.len(), 4);

    let refused = shell.run_against(&waypost, &[&event[..], &["--date", "yesterday"]].concat(), "").await;
    assert_exit(&refused, 1, &["$.date: "]);
}

/// Three valid events with lines in between.
fn ndjson_with(between: [&[u8]; 2]) -> Vec<u8> {
    let event = |id: &str| {
        json!({ "campaignId": "c", "label": "Ask", "phoneNumber": "1", "date": "2024-06-18T20:26:14Z", "keyword": 4, "eventId": id })
            .to_string()
            .into_bytes()
    };
    [event("one"), between[0].to_owned(), event("two"), between[1].to_owned(), event("three")].join(&b'\n')
}

#[tokio::test]
async fn events_are_published_from_a_file() {
    let (waypost, shell, receiver) = (start_worker().await, CliSandbox::new(), Receiver::start());
    waypost.put_campaign(&campaign("c", &receiver.url("/hook"))).await;
    // Empty lines are ignored, and the last line needs no newline.
    let file = shell.file("events.ndjson", ndjson_with([b"", b"  \r"]));
    let printed = shell.run_against(&waypost, &["publish", &file], "").await;
    assert_exit(&printed, 0, &[]);
    assert_eq!(printed.stdout, "published 3 events\n");
    assert_eq!(printed.stderr, "", "without a terminal there is no progress to draw");
    let requests = receiver.wait_until(|requests| requests.len() == 3).await;
    assert_eq!(requests[0].json()["keyword"], json!(4));

    let printed = shell.run_against(&waypost, &["publish", "--json", &shell.file("none.ndjson", "")], "").await;
    assert_exit(&printed, 0, &[]);
    assert_eq!(parse_json(&printed.stdout), json!({ "published": 0, "refused": 0 }));
    assert_exit(&shell.run_against(&waypost, &["publish", "missing.ndjson"], "").await, 1, &["missing.ndjson"]);
}

#[tokio::test]
async fn a_bad_line_does_not_keep_the_others_from_being_published() {
    let (waypost, shell, receiver) = (start_worker().await, CliSandbox::new(), Receiver::start());
    waypost.put_campaign(&campaign("c", &receiver.url("/hook"))).await;
    let no_date = json!({ "campaignId": "c", "label": "Ask", "phoneNumber": "1", "date": "today" }).to_string();
    let input = ndjson_with([b"not JSON", no_date.as_bytes()]);
    let file = shell.file("events.ndjson", &input);
    for (source, input) in [(file.as_str(), b"".as_slice()), ("-", &input)] {
        let printed = shell.run_against(&waypost, &["publish", source], input).await;
        assert_exit(&printed, 1, &["2 events were not published", "line 2: ", "line 4: ", "$.date: "]);
        assert_eq!(printed.stdout, "published 3 events\n", "{source}");
    }
    receiver.wait_until(|requests| requests.len() == 6).await;
    let printed = shell.run_against(&waypost, &["publish", "--json", "-"], &input).await;
    assert_exit(&printed, 1, &["line 2: "]);
    assert_eq!(parse_json(&printed.stdout), json!({ "published": 3, "refused": 2 }));
    receiver.wait_until(|requests| requests.len() == 9).await;
    let by_id: BTreeMap<String, usize> = receiver.requests_by_webhook_id();
    assert_eq!(by_id.values().copied().collect::<Vec<_>>(), [3, 3, 3], "{by_id:?}");
}

#[tokio::test]
async fn events_may_be_printed_over_several_lines() {
    let (waypost, shell, receiver) = (start_worker().await, CliSandbox::new(), Receiver::start());
    waypost.put_campaign(&campaign("c", &receiver.url("/hook"))).await;
    let event = |date: &str, id: &str| {
        let event =
            json!({ "campaignId": "c", "label": "Ask", "phoneNumber": "1", "date": date, "keyword": 4, "eventId": id });
        format!("{event:#}\n")
    };
    let one = shell.file("one.json", event("2024-06-18T23:26:14Z", "e-1"));
    let printed = shell.run_against(&waypost, &["publish", &one], "").await;
    assert_exit(&printed, 0, &[]);
    assert_eq!(printed.stdout, "published 1 events\n");
    let input = [event("2024-06-18T23:26:14Z", "e-2"), event("today", "e-3")].concat();
    let printed = shell.run_against(&waypost, &["publish", "-"], &input).await;
    assert_exit(&printed, 1, &["1 events were not published", "event 2: ", "$.date: "]);
    receiver.wait_until(|requests| requests.len() == 2).await;
}

#[tokio::test]
async fn a_line_that_is_not_utf8_is_reported_as_invalid() {
    let (waypost, shell, receiver) = (start_worker().await, CliSandbox::new(), Receiver::start());
    waypost.put_campaign(&campaign("c", &receiver.url("/hook"))).await;
    let printed = shell.run_against(&waypost, &["publish", "-"], ndjson_with([b"\xff\xfe", b""])).await;
    assert_exit(&printed, 1, &["line 2: "]);
    assert_eq!(printed.stdout, "published 3 events\n");
    receiver.wait_until(|requests| requests.len() == 3).await;
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
