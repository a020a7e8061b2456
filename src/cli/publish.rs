//! `waypost publish`: step events from arguments, a file or standard input.

use std::path::{Path, PathBuf};

use clap::Args;
use futures_util::stream::FuturesUnordered;
use futures_util::{Stream, StreamExt as _};
use reqwest::Method;
use serde_json::{Value, json};
use tokio::io::{AsyncBufRead, AsyncBufReadExt as _, AsyncReadExt as _, BufReader};

use super::CliError;
use super::client::{Api, Call, Server};
use super::event::Event;
use super::json_stream;
use super::progress;
use super::stdio::say;

/// Events on their way at once.
const IN_FLIGHT: usize = 64;

/// Faults told in full; the rest are counted.
const FAULTS_TOLD: usize = 10;

#[derive(Args)]
pub(super) struct Publish {
    /// Events as JSON, one a line or printed over several; `-` is standard input. Without it the event is made from the options below
    #[arg(value_name = "FILE", conflicts_with_all = Event::ARGUMENTS)]
    file: Option<PathBuf>,
    #[command(flatten)]
    event: Event,
    /// What was published, as JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    server: Server,
}

impl Publish {
    pub(super) async fn run(self) -> Result<(), CliError> {
        let api = self.server.clone().api()?;
        match self.file.clone() {
            None => self.one(&api).await,
            Some(file) if file == Path::new("-") => self.all(&api, BufReader::new(tokio::io::stdin())).await,
            Some(file) => {
                let open = tokio::fs::File::open(&file).await;
                let open = open.map_err(|error| CliError::new(format!("{}: {error}", file.display())))?;
                self.all(&api, BufReader::new(open)).await
            }
        }
    }

    async fn one(self, api: &Api) -> Result<(), CliError> {
        let event = self.event.document();
        // Its identity may have been made up here: whoever repeats it needs it.
        let answer = post(api, event.to_string().into_bytes()).await.map_err(|failure| match failure {
            CliError::Failed(text) => {
                CliError::Failed(format!("{text}\n  --event-id {}", event["eventId"].as_str().unwrap_or_default()))
            }
            misused @ CliError::Usage(_) => misused,
        })?;
        if self.json {
            say!("{answer}");
        } else {
            say!("published event {}", answer["eventId"].as_str().unwrap_or_default());
        }
        Ok(())
    }

    /// One event a line. A line that is refused does not stop the others. Events that are printed over several lines
    /// are read as a whole.
    async fn all(self, api: &Api, mut input: impl AsyncBufRead + Unpin) -> Result<(), CliError> {
        let mut first = Vec::new();
        while first.trim_ascii().is_empty() && input.read_until(b'\n', &mut first).await.map_err(CliError::new)? > 0 {}
        if json_stream::split(&first).is_err_and(|error| error.is_eof()) {
            input.read_to_end(&mut first).await.map_err(CliError::new)?;
            if let Ok(events) = json_stream::split(&first) {
                let events = events.into_iter().map(|event| Ok(event.to_vec()));
                return self.each(api, "event", futures_util::stream::iter(events)).await;
            }
        }
        let rest = futures_util::stream::try_unfold(input.split(b'\n'), async |mut lines| {
            Ok(lines.next_segment().await?.map(|line| (line, lines)))
        });
        let mut first: Vec<Vec<u8>> = first.split(|byte| *byte == b'\n').map(<[u8]>::to_vec).collect();
        first.pop_if(|behind_the_last_line| behind_the_last_line.is_empty());
        self.each(api, "line", futures_util::stream::iter(first.into_iter().map(Ok)).chain(rest)).await
    }

    async fn each(
        self,
        api: &Api,
        what: &'static str,
        events: impl Stream<Item = std::io::Result<Vec<u8>>>,
    ) -> Result<(), CliError> {
        let bar = progress::bar(None, "{spinner} {human_pos} events  {per_sec}  {elapsed}");
        let mut events = std::pin::pin!(events.enumerate());
        let mut calls = FuturesUnordered::new();
        let mut faults = Faults::new(what);
        let mut published = 0_u64;
        let mut more = true;
        while more || !calls.is_empty() {
            tokio::select! {
                event = events.next(), if more && calls.len() < IN_FLIGHT => match event {
                    None => more = false,
                    Some((number, event)) => {
                        let event = event.map_err(CliError::new)?;
                        if !event.trim_ascii().is_empty() {
                            calls.push(async move { (number + 1, post(api, event).await) });
                        }
                    }
                },
                Some((number, result)) = calls.next() => {
                    match result {
                        Ok(_) => published += 1,
                        Err(failure) => faults.add(number, failure),
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

async fn post(api: &Api, body: Vec<u8>) -> Result<Value, CliError> {
    api.call(Method::POST, &["events"], &[], Call { headers: Vec::new(), body: Some(body) }).await?.json()
}

/// The events that were refused.
struct Faults {
    what: &'static str,
    count: u64,
    told: Vec<String>,
}

impl Faults {
    fn new(what: &'static str) -> Self {
        Self { what, count: 0, told: Vec::new() }
    }

    fn add(&mut self, number: usize, failure: CliError) {
        self.count += 1;
        if self.told.len() < FAULTS_TOLD {
            let (CliError::Failed(text) | CliError::Usage(text)) = failure;
            self.told.push(format!("{} {number}: {text}", self.what));
        }
    }

    fn into_result(self) -> Result<(), CliError> {
        if self.count == 0 {
            return Ok(());
        }
        let untold = self.count - self.told.len() as u64;
        let rest = if untold > 0 { format!("\nand {untold} more") } else { String::new() };
        Err(CliError::Failed(format!("{} events were not published\n{}{rest}", self.count, self.told.join("\n"))))
    }
}
