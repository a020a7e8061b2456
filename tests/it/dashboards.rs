//! The dashboards with a real Prometheus that scrapes a worker: the query of every panel is valid and returns data, and
//! every metric in a rule or panel exists.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::process::{Child, Stdio};
use std::time::Duration;

use reqwest::{Client, Url};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::operations::rules;
use crate::support::json::items_of;
use crate::support::tools::{project_root, read_project_file, tool_command};
use crate::support::unique::free_port;
use crate::support::{unique, wait_until};
use crate::test_app::{SLOW_TIMEOUT, TestApp, example_campaign, step_event};

const RULES: [&str; 2] = ["deploy/prometheus/recording.yml", "deploy/prometheus/alerts.yml"];

/// Series of Prometheus itself.
const PROMETHEUS_SERIES: [&str; 2] = ["up", "ALERTS"];

/// A Prometheus that evaluates the rules each second.
struct Prometheus {
    process: Child,
    client: Client,
    url: String,
    _folder: TempDir,
}

impl Prometheus {
    /// Scrapes `target` each second, as the job `waypost`.
    async fn start(target: &str) -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let here = |name: &str| folder.path().join(name);
        for file in RULES {
            let name = file.rsplit('/').next().expect("a name");
            std::fs::write(here(name), read_project_file(file).replace("interval: 30s", "interval: 1s"))
                .expect("written");
        }
        let config = json!({
            "global": { "scrape_interval": "1s", "scrape_timeout": "1s", "evaluation_interval": "1s" },
            "rule_files": ["*.yml"],
            "scrape_configs": [{ "job_name": "waypost", "static_configs": [{ "targets": [target] }] }],
        });
        std::fs::write(here("prometheus.json"), config.to_string()).expect("written");
        let port = free_port();
        let process = tool_command("prometheus")
            .arg(format!("--config.file={}", here("prometheus.json").display()))
            .arg(format!("--storage.tsdb.path={}", here("data").display()))
            .arg(format!("--web.listen-address=127.0.0.1:{port}"))
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap_or_else(|error| panic!("prometheus does not run ({error}): `make test` installs it"));
        let url = format!("http://127.0.0.1:{port}");
        let prometheus =
            Self { process, client: Client::builder().no_proxy().build().expect("a client"), url, _folder: folder };
        wait_until("Prometheus", SLOW_TIMEOUT, async || {
            let ready = prometheus.client.get(format!("{}/-/ready", prometheus.url)).send().await.ok()?;
            ready.status().is_success().then_some(())
        })
        .await;
        prometheus
    }

    /// The values of all series that a query returns.
    async fn query(&self, query: &str) -> Vec<f64> {
        let url = Url::parse_with_params(&format!("{}/api/v1/query", self.url), [("query", query)]).expect("a URL");
        let text = self.client.get(url).send().await.expect("an answer").text().await.expect("text");
        let answer: Value = serde_json::from_str(&text).expect("JSON");
        assert_eq!(answer["status"], "success", "{query}\n{answer:#}");
        let series = answer["data"]["result"].as_array().expect("series").iter();
        series.map(sample_value).collect()
    }
}

/// The value of a series, which Prometheus returns as a pair of time and text.
fn sample_value(series: &Value) -> f64 {
    let [_, value] = items_of(&series["value"]) else { panic!("not a sample: {series:#}") };
    value.as_str().and_then(|value| value.parse().ok()).unwrap_or_else(|| panic!("not a number: {series:#}"))
}

impl Drop for Prometheus {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// All dashboards with their files.
fn dashboards() -> Vec<(PathBuf, Value)> {
    let folder = std::fs::read_dir(project_root().join("deploy/grafana/dashboards")).expect("a folder of dashboards");
    let mut files: Vec<PathBuf> = folder.map(|entry| entry.expect("an entry").path()).collect();
    files.sort();
    assert_eq!(files.len(), 3, "{files:?}");
    let json = |file: &PathBuf| serde_json::from_str(&std::fs::read_to_string(file).expect("a file")).expect("JSON");
    files.into_iter().map(|file| (file.clone(), json(&file))).collect()
}

fn panels(dashboard: &Value) -> impl Iterator<Item = &Value> {
    dashboard["panels"].as_array().expect("panels").iter().filter(|panel| panel["type"] != "row")
}

/// The queries of a dashboard, with the titles of their panels.
fn queries(dashboard: &Value) -> Vec<(String, String)> {
    let of_panel = |panel: &Value| {
        let title = panel["title"].as_str().expect("a title").to_owned();
        let targets = panel["targets"].as_array().cloned().unwrap_or_default();
        let query = move |target: &Value| (title.clone(), target["expr"].as_str().expect("a query").to_owned());
        targets.iter().map(query).collect::<Vec<_>>()
    };
    panels(dashboard).flat_map(of_panel).collect()
}

#[tokio::test]
async fn every_panel_has_data() {
    let app = TestApp::builder().set("retry.maxAttempts", 2).start().await;
    let prometheus = Prometheus::start(app.waypost.url("").trim_start_matches("http://")).await;
    app.receiver.reply("/offers", 503);
    let mut wanting: Vec<(String, String)> =
        dashboards().iter().flat_map(|(_, dashboard)| queries(dashboard)).collect();
    for (_, query) in &mut wanting {
        *query = query.replace("$job", "waypost").replace("$__rate_interval", "20s");
        // `$1` belongs to a regular expression, and Grafana keeps it.
        assert!(!query.replace("$1", "").contains('$'), "a variable without a value: {query}");
    }
    // Rates need repeated activity of every kind.
    wait_until("data in every panel", SLOW_TIMEOUT, async || {
        let events: Vec<Value> =
            [3, 4, 5].map(|keyword| step_event().keyword(keyword).id(&unique("event")).json()).into();
        app.amqp.publish_events(&app.prefix, &events).await;
        if !app.waypost.letters("state=pending").await.is_empty() {
            app.waypost.create_replay(&json!({ "filter": {} })).await;
        }
        let mut still = Vec::new();
        for (title, query) in wanting.drain(..) {
            if prometheus.query(&query).await.iter().all(|value| value.is_nan()) {
                still.push((title, query));
            }
        }
        wanting = still;
        wanting.is_empty().then_some(())
    })
    .await;
    assert_eq!(prometheus.query("count(up{job=\"waypost\"} == 1)").await, [1.0]);
}

#[test]
fn panels_have_descriptions() {
    let mut known = BTreeSet::new();
    for (file, dashboard) in dashboards() {
        let uid = dashboard["uid"].as_str().expect("a uid");
        assert_eq!(file.file_stem().and_then(|name| name.to_str()), Some(uid), "a dashboard's uid is its file name");
        let titles: BTreeSet<&str> = panels(&dashboard).filter_map(|panel| panel["title"].as_str()).collect();
        assert_eq!(titles.len(), panels(&dashboard).count(), "{uid}: two panels with one title");
        let mut taken = BTreeSet::new();
        for panel in panels(&dashboard) {
            let title = panel["title"].as_str().expect("a title");
            let description = panel["description"].as_str().unwrap_or_default();
            assert!(description.len() > 20, "{uid}: {title} has no description");
            if panel["type"] != "text" {
                let says = ["Normal: ", "The median is normally", "objective is"]
                    .iter()
                    .any(|words| description.contains(words));
                assert!(says, "{uid}: the description of {title} does not say what is normal");
                let defaults = &panel["fieldConfig"]["defaults"];
                assert!(defaults["unit"].is_string(), "{uid}: {title} has no unit");
                assert!(defaults["thresholds"]["steps"].is_array(), "{uid}: {title} has no thresholds");
                assert_eq!(panel["datasource"]["uid"], "${datasource}", "{uid}: {title}");
            }
            let place = |side: &str| panel["gridPos"][side].as_u64().expect("a place");
            assert!(place("x") + place("w") <= 24, "{uid}: {title} is too wide");
            for y in place("y")..place("y") + place("h") {
                for x in place("x")..place("x") + place("w") {
                    assert!(taken.insert((x, y)), "{uid}: {title} covers another panel");
                }
            }
            if place("y") == 0 {
                assert_eq!(panel["type"], "stat", "{uid}: the first row is numbers, read at a glance");
            }
        }
        assert!(known.insert(uid.to_owned()), "{uid} is used twice");
    }
}

/// The metrics in a query: names with a selector or range, and names with our prefixes. Excludes names of recording
/// rules.
fn metrics_of(query: &str) -> BTreeSet<String> {
    let is_word = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == ':';
    let mut found = BTreeSet::new();
    // Quoted text is a value.
    for (part, text) in query.split('"').enumerate() {
        if part % 2 == 1 {
            continue;
        }
        let mut rest = text;
        while let Some(start) = rest.find(is_word) {
            let end = rest[start..].find(|c| !is_word(c)).map_or(rest.len(), |end| start + end);
            let word = &rest[start..end];
            let selects = rest[end..].starts_with(['{', '[']);
            if ["waypost_", "process_", "job:", "job_queue:"].iter().any(|begin| word.starts_with(begin)) || selects {
                found.insert(word.to_owned());
            }
            rest = &rest[end..];
        }
    }
    found
}

#[tokio::test]
async fn dashboards_use_existing_metrics() {
    let app = TestApp::start().await;
    app.waypost.put_campaign(&example_campaign(&app.receiver)).await;
    // The metrics of queues appear after the first poll, those of dead letters with the view.
    app.waypost.wait_for_metric("waypost_workers", 1.0).await;
    let has = async || {
        let metrics = app.waypost.metrics().await;
        let names = metrics.keys().map(|name| name.split('{').next().unwrap_or_default().to_owned());
        let names: BTreeSet<String> = names.collect();
        let all = ["waypost_queue_messages", "waypost_dead_letters"].iter().all(|late| names.contains(*late));
        all.then_some(names)
    };
    let mut known = wait_until("all metrics", Duration::from_secs(30), has).await;
    let of_the_program: Vec<String> = known.iter().filter(|name| name.starts_with("waypost_")).cloned().collect();
    known.extend(PROMETHEUS_SERIES.map(str::to_owned));
    let mut queries: Vec<String> = Vec::new();
    for rule in RULES.iter().flat_map(|file| rules(file)) {
        known.extend(rule["record"].as_str().map(str::to_owned));
        queries.push(rule["expr"].as_str().expect("an expression").to_owned());
    }
    for (_, dashboard) in dashboards() {
        queries.extend(self::queries(&dashboard).into_iter().map(|(_, query)| query));
        let lists = ["/annotations/list/0/expr", "/templating/list/1/definition"].map(|place| dashboard.pointer(place));
        queries.extend(lists.map(|query| query.and_then(Value::as_str).expect("a query").to_owned()));
    }
    let named: BTreeSet<String> = queries.iter().flat_map(|query| metrics_of(query)).collect();
    assert!(named.len() > 40, "{named:?}");
    let unknown: Vec<&String> = named.difference(&known).collect();
    assert!(unknown.is_empty(), "these metrics do not exist: {unknown:?}");
    // A histogram is covered if one of its three series is used.
    let looked_at = |name: &str| {
        let name = ["_bucket", "_sum", "_count"].iter().find_map(|part| name.strip_suffix(part)).unwrap_or(name);
        named.iter().any(|named| named.starts_with(name))
    };
    let unseen: Vec<&String> = of_the_program.iter().filter(|name| !looked_at(name)).collect();
    assert!(unseen.is_empty(), "no panel or rule uses {unseen:?}: show it in a panel, or remove it");
}

#[test]
fn metric_names_are_extracted_from_queries() {
    let query = "1 - sum by (job) (rate(waypost_x_bucket{le=~\"5|job:y\"}[5m])) / up{a=\"b\"} and job:z:sum";
    let names: Vec<String> = metrics_of(query).into_iter().collect();
    assert_eq!(names, ["job:z:sum", "up", "waypost_x_bucket"]);
}
