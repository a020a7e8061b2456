//! `waypost publish`: publishes step events from options, a file or standard input.

use std::path::{Path, PathBuf};

use clap::Args;
use futures_util::stream::FuturesUnordered;
use futures_util::{Stream, StreamExt as _};
use serde_json::json;
use tokio::io::{AsyncBufRead, AsyncBufReadExt as _, AsyncReadExt as _, BufReader};
use waypost_api::client::Client;

use super::client::Server;
use super::error::CliError;
use super::event::Event;
use super::json_stream;
use super::progress;
use super::stdio::out;

/// The number of requests in flight at once.
const IN_FLIGHT: usize = 64;

/// More errors are only counted.
const MAX_REPORTED_ERRORS: usize = 10;

#[derive(Args)]
pub(super) struct Publish {
    /// Step events as JSON, on one line each or over several lines; `-` is standard input. Without FILE the options
    /// below describe an event
    #[arg(value_name = "FILE", conflicts_with_all = Event::OPTIONS)]
    file: Option<PathBuf>,
    #[command(flatten)]
    event: Event,
    /// Print the result as JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    server: Server,
}

impl Publish {
    pub(super) async fn run(self) -> Result<(), CliError> {
        let client = self.server.clone().client()?;
        match self.file.clone() {
            None => self.publish_one(&client).await,
            Some(path) if path == Path::new("-") => self.publish_all(&client, BufReader::new(tokio::io::stdin())).await,
            Some(path) => {
                let file = tokio::fs::File::open(&path).await;
                let file = file.map_err(|error| CliError::new(format!("{}: {error}", path.display())))?;
                self.publish_all(&client, BufReader::new(file)).await
            }
        }
    }

    async fn publish_one(self, client: &Client) -> Result<(), CliError> {
        let event = self.event.to_event();
        // The event id may be generated. The error names the id, so that a repetition is no second event.
        let answer = client.publish(event.json).await.map_err(|error| {
            CliError::from(error).with_line(&format!("To publish the same event again, add --event-id {}", event.id))
        })?;
        if self.json {
            out!("{answer}");
        } else {
            out!("published event {}", answer.read()?.event_id);
        }
        Ok(())
    }

    /// Publishes one event per line, and continues after a refused line. If the first line is an incomplete document,
    /// the whole input is read before anything is published.
    async fn publish_all(self, client: &Client, mut input: impl AsyncBufRead + Unpin) -> Result<(), CliError> {
        let mut first = Vec::new();
        while first.trim_ascii().is_empty() && input.read_until(b'\n', &mut first).await.map_err(CliError::new)? > 0 {}
        if json_stream::split(&first).is_err_and(|error| error.is_eof()) {
            input.read_to_end(&mut first).await.map_err(CliError::new)?;
            if let Ok(events) = json_stream::split(&first) {
                let events = events.into_iter().map(|event| Ok(event.to_vec()));
                return self.publish_each(client, "event", futures_util::stream::iter(events)).await;
            }
        }
        let rest = futures_util::stream::try_unfold(input.split(b'\n'), async |mut lines| {
            Ok(lines.next_segment().await?.map(|line| (line, lines)))
        });
        let mut first: Vec<Vec<u8>> = first.split(|byte| *byte == b'\n').map(<[u8]>::to_vec).collect();
        first.pop_if(|line| line.is_empty());
        self.publish_each(client, "line", futures_util::stream::iter(first.into_iter().map(Ok)).chain(rest)).await
    }

    async fn publish_each(
        self,
        client: &Client,
        unit: &'static str,
        events: impl Stream<Item = std::io::Result<Vec<u8>>>,
    ) -> Result<(), CliError> {
        let bar = progress::bar(None, "{spinner} {human_pos} events  {per_sec}  {elapsed}");
        let mut events = std::pin::pin!(events.enumerate());
        let mut requests = FuturesUnordered::new();
        let mut errors = PublishErrors::new(unit);
        let mut published = 0_u64;
        let mut has_more = true;
        while has_more || !requests.is_empty() {
            tokio::select! {
                event = events.next(), if has_more && requests.len() < IN_FLIGHT => match event {
                    None => has_more = false,
                    Some((number, event)) => {
                        let event = event.map_err(CliError::new)?;
                        if !event.trim_ascii().is_empty() {
                            requests.push(async move { (number + 1, client.publish(event).await) });
                        }
                    }
                },
                Some((number, result)) = requests.next() => {
                    match result {
                        Ok(_) => published += 1,
                        Err(error) => errors.add(number, error.into()),
                    }
                    bar.inc(1);
                }
            }
        }
        bar.finish_and_clear();
        if self.json {
            out!("{}", json!({ "published": published, "refused": errors.count }));
        } else {
            out!("published {published} events");
        }
        errors.into_result()
    }
}

struct PublishErrors {
    /// What the numbers count: `line` or `event`.
    unit: &'static str,
    count: u64,
    reported: Vec<String>,
}

impl PublishErrors {
    fn new(unit: &'static str) -> Self {
        Self { unit, count: 0, reported: Vec::new() }
    }

    fn add(&mut self, number: usize, error: CliError) {
        self.count += 1;
        if self.reported.len() < MAX_REPORTED_ERRORS {
            let (CliError::Failed(text) | CliError::Usage(text)) = error;
            self.reported.push(format!("{} {number}: {text}", self.unit));
        }
    }

    fn into_result(self) -> Result<(), CliError> {
        if self.count == 0 {
            return Ok(());
        }
        let unreported = self.count - self.reported.len() as u64;
        let rest = if unreported > 0 { format!("\nand {unreported} more") } else { String::new() };
        Err(CliError::Failed(format!("{} events were not published\n{}{rest}", self.count, self.reported.join("\n"))))
    }
}
