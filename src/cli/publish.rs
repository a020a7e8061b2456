//! `waypost publish`: step events from arguments, a file or standard input.

use std::io::IsTerminal as _;
use std::path::{Path, PathBuf};

use clap::Args;
use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use reqwest::Method;
use serde_json::{Map, Value, json};
use tokio::io::{AsyncBufRead, AsyncBufReadExt as _, BufReader};

use super::Failure;
use super::client::{Api, Call, Server};
use super::output::say;
use crate::delivery::timestamp;

/// Events on their way at once.
const IN_FLIGHT: usize = 64;

/// Faults told in full; the rest are counted.
const FAULTS_TOLD: usize = 10;

#[derive(Args)]
pub(super) struct Publish {
    /// Events as NDJSON, one a line; `-` is standard input. Without it the event is made from the options below
    #[arg(value_name = "FILE", conflicts_with_all = ["campaign", "label", "phone", "date", "response", "option", "keyword", "event_id"])]
    file: Option<PathBuf>,
    /// The event's `campaignId`
    #[arg(long, value_name = "ID", required_unless_present = "file", requires_all = ["label", "phone"])]
    campaign: Option<String>,
    /// The section's label
    #[arg(long)]
    label: Option<String>,
    /// The event's `phoneNumber`
    #[arg(long, value_name = "NUMBER")]
    phone: Option<String>,
    /// RFC 3339 [default: now]
    #[arg(long)]
    date: Option<String>,
    /// What the user answered
    #[arg(long)]
    response: Option<String>,
    /// The menu text chosen
    #[arg(long)]
    option: Option<String>,
    /// The keyword typed: JSON where it is a number, else text
    #[arg(long)]
    keyword: Option<String>,
    /// Identity for de-duplication [default: a new one]
    #[arg(long, value_name = "ID")]
    event_id: Option<String>,
    /// What was published, as JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    server: Server,
}

impl Publish {
    pub(super) async fn run(self) -> Result<(), Failure> {
        let api = self.server.clone().api()?;
        match self.file.clone() {
            None => self.one(&api).await,
            Some(file) if file == Path::new("-") => self.all(&api, BufReader::new(tokio::io::stdin())).await,
            Some(file) => {
                let open = tokio::fs::File::open(&file).await;
                let open = open.map_err(|error| Failure::of(format!("{}: {error}", file.display())))?;
                self.all(&api, BufReader::new(open)).await
            }
        }
    }

    async fn one(self, api: &Api) -> Result<(), Failure> {
        let answer = post(api, self.event().to_string().into_bytes()).await?;
        if self.json {
            say!("{answer}");
        } else {
            say!("published event {}", answer["eventId"].as_str().unwrap_or_default());
        }
        Ok(())
    }

    /// The event the options describe.
    fn event(&self) -> Value {
        let mut event = Map::new();
        let text = |value: &Option<String>| value.clone().map(Value::String);
        let new_id = || uuid::Uuid::now_v7().to_string();
        let keyword = self.keyword.as_ref().map(|keyword| match serde_json::from_str(keyword) {
            Ok(number @ Value::Number(_)) => number,
            _ => Value::String(keyword.clone()),
        });
        let fields = [
            ("campaignId", text(&self.campaign)),
            ("label", text(&self.label)),
            ("phoneNumber", text(&self.phone)),
            ("date", Some(text(&self.date).unwrap_or_else(|| timestamp::text(&chrono::Utc::now()).into()))),
            ("response", text(&self.response)),
            ("option", text(&self.option)),
            ("keyword", keyword),
            ("eventId", Some(text(&self.event_id).unwrap_or_else(|| new_id().into()))),
        ];
        for (name, value) in fields {
            event.extend(value.map(|value| (name.to_owned(), value)));
        }
        Value::Object(event)
    }

    /// One event a line. A line that is refused does not stop the others.
    async fn all(self, api: &Api, input: impl AsyncBufRead + Unpin) -> Result<(), Failure> {
        let bar = progress_bar();
        let mut lines = input.split(b'\n');
        let mut calls = FuturesUnordered::new();
        let mut faults = Faults::default();
        let mut published = 0_u64;
        let mut number = 0_u64;
        let mut more = true;
        while more || !calls.is_empty() {
            tokio::select! {
                line = lines.next_segment(), if more && calls.len() < IN_FLIGHT => match line.map_err(Failure::of)? {
                    None => more = false,
                    Some(line) if line.trim_ascii().is_empty() => number += 1,
                    Some(line) => {
                        number += 1;
                        let line_number = number;
                        calls.push(async move { (line_number, post(api, line).await) });
                    }
                },
                Some((line, result)) = calls.next() => {
                    match result {
                        Ok(_) => published += 1,
                        Err(failure) => faults.add(line, failure),
                    }
                    bar.inc(1);
                }
            }
        }
        bar.finish_and_clear();
        if self.json {
            say!("{}", json!({ "published": published, "refused": faults.count }));
        } else {
            say!("published {published} events");
        }
        faults.into_result()
    }
}

async fn post(api: &Api, body: Vec<u8>) -> Result<Value, Failure> {
    api.call(Method::POST, &["events"], &[], Call { headers: Vec::new(), body: Some(body) }).await?.json()
}

/// Drawn on a terminal only, and on standard error, so that the output stays the result.
fn progress_bar() -> ProgressBar {
    let target =
        if std::io::stderr().is_terminal() { ProgressDrawTarget::stderr() } else { ProgressDrawTarget::hidden() };
    let style = ProgressStyle::with_template("{spinner} {human_pos} events  {per_sec}  {elapsed}");
    ProgressBar::with_draw_target(None, target).with_style(style.unwrap_or_else(|_| ProgressStyle::default_spinner()))
}

/// The lines that were refused.
#[derive(Default)]
struct Faults {
    count: u64,
    told: Vec<String>,
}

impl Faults {
    fn add(&mut self, line: u64, failure: Failure) {
        self.count += 1;
        if self.told.len() < FAULTS_TOLD {
            let (Failure::Failed(text) | Failure::Misused(text)) = failure;
            self.told.push(format!("line {line}: {text}"));
        }
    }

    fn into_result(self) -> Result<(), Failure> {
        if self.count == 0 {
            return Ok(());
        }
        let untold = self.count - self.told.len() as u64;
        let rest = if untold > 0 { format!("\nand {untold} more") } else { String::new() };
        Err(Failure::Failed(format!("{} events were not published\n{}{rest}", self.count, self.told.join("\n"))))
    }
}
