//! Follows a replay to its end and shows its progress. A worker executes the replay, so Ctrl-C does not stop it. If the
//! server is unreachable, for example during a restart, the command keeps asking.

use std::time::{Duration, Instant};

use indicatif::ProgressBar;
use reqwest::StatusCode;
use tokio::signal::unix::{SignalKind, signal};
use waypost_api::client::{Answer, Client, ClientError};
use waypost_api::replays::ReplayResponse;
use waypost_core::replay::{Replay, ReplayState};
use waypost_engine::replays::rate_meter::RateMeter;

use super::labels;
use crate::cli::client::refusal_text;
use crate::cli::error::CliError;
use crate::cli::progress;
use crate::cli::stdio::{note, out};

/// The bar gets the width that the text leaves, so that a narrow terminal does not cut the text.
const TEMPLATE: &str = "{wide_bar} {msg}";

const POLL_INTERVAL: Duration = Duration::from_millis(500);

/// How often a progress line is printed if standard error is not a terminal.
const REPORT_INTERVAL: Duration = Duration::from_secs(5);

/// How long the server may be unreachable. Longer than a restart takes.
const RECONNECT_TIMEOUT: Duration = Duration::from_secs(300);

#[derive(Clone, Copy, PartialEq, Eq)]
pub(in crate::cli) enum OutputMode {
    Text,
    Json,
}

enum FollowEnd {
    /// The replay has ended.
    Ended(Answer<ReplayResponse>),
    /// The user pressed Ctrl-C. The replay continues.
    Interrupted(Answer<ReplayResponse>),
}

/// Follows a replay, starting with its state in `answer`.
///
/// # Errors
/// If dead letters failed again, or not all were sent.
pub(in crate::cli) async fn follow(
    client: &Client,
    answer: Answer<ReplayResponse>,
    mode: OutputMode,
) -> Result<(), CliError> {
    let commands = labels::commands(&answer.read()?.replay);
    let end = until_end(client, answer).await;
    match end.map_err(|error| error.with_line(&format!("The worker continues the replay:\n{commands}")))? {
        FollowEnd::Interrupted(answer) => {
            if mode == OutputMode::Json {
                out!("{answer}");
            }
            let replay = answer.read()?.replay;
            note!(
                "The worker continues the replay ({}):\n{}",
                labels::progress(&replay, &RateMeter::default()),
                labels::commands(&replay)
            );
            Ok(())
        }
        FollowEnd::Ended(answer) => {
            let replay = answer.read()?.replay;
            match mode {
                OutputMode::Json => out!("{answer}"),
                OutputMode::Text => out!("{}", labels::status_line(&replay)),
            }
            labels::problems(&replay).map_or(Ok(()), |problems| Err(CliError::Failed(problems)))
        }
    }
}

async fn until_end(client: &Client, answer: Answer<ReplayResponse>) -> Result<FollowEnd, CliError> {
    let mut interrupt = signal(SignalKind::interrupt()).map_err(CliError::new)?;
    let mut replay = answer.read()?.replay;
    let mut latest = answer;
    let mut display = Display::of_replay(&replay);
    let mut unreachable_since: Option<Instant> = None;
    loop {
        if !replay.state.is_open() {
            display.end(&replay);
            return Ok(FollowEnd::Ended(latest));
        }
        // Nothing new is known while the server is unreachable.
        if unreachable_since.is_none() {
            display.show(&replay, Instant::now());
        }
        let poll = async {
            tokio::time::sleep(POLL_INTERVAL).await;
            client.replay(replay.id.as_str()).await
        };
        let answer = tokio::select! {
            answer = poll => answer,
            _ = interrupt.recv() => {
                display.clear();
                return Ok(FollowEnd::Interrupted(latest));
            }
        };
        match answer {
            Ok(answer) => {
                replay = answer.read()?.replay;
                latest = answer;
                if unreachable_since.take().is_some() {
                    display.notice("the server answers again");
                }
            }
            Err(error) => {
                let since = *unreachable_since.get_or_insert_with(|| {
                    display.notice(&format!("{}: asking again", refusal_text(&error)));
                    Instant::now()
                });
                if !is_transient(&error) || since.elapsed() > RECONNECT_TIMEOUT {
                    display.clear();
                    return Err(error.into());
                }
            }
        }
    }
}

/// True if a retry may succeed. 404 is transient: a worker that has just started may not know the replay yet.
fn is_transient(error: &ClientError) -> bool {
    match error {
        ClientError::Unreachable { .. } => true,
        ClientError::Refused { status, .. } => {
            status.is_server_error()
                || [StatusCode::NOT_FOUND, StatusCode::REQUEST_TIMEOUT, StatusCode::TOO_MANY_REQUESTS].contains(status)
        }
        ClientError::NotJson(_) | ClientError::Unreadable(_) => false,
    }
}

/// Shows the progress on standard error.
enum Display {
    Bar {
        bar: ProgressBar,
        rate_meter: RateMeter,
    },
    /// Prints lines, for a log.
    Lines {
        last: Option<(Instant, ReplayState)>,
        rate_meter: RateMeter,
    },
}

impl Display {
    fn of_replay(replay: &Replay) -> Self {
        if progress::is_visible() {
            note!("Ctrl-C leaves the replay running.");
            let bar = progress::bar(Some(replay.total), TEMPLATE);
            Self::Bar { bar, rate_meter: RateMeter::default() }
        } else {
            Self::Lines { last: None, rate_meter: RateMeter::default() }
        }
    }

    fn show(&mut self, replay: &Replay, now: Instant) {
        match self {
            Self::Bar { bar, rate_meter } => {
                rate_meter.add(now, replay.sent);
                bar.set_position(replay.sent);
                bar.set_message(labels::progress(replay, rate_meter));
            }
            Self::Lines { last, rate_meter } => {
                rate_meter.add(now, replay.sent);
                if last.is_none_or(|(at, printed_state)| {
                    printed_state != replay.state || now.saturating_duration_since(at) >= REPORT_INTERVAL
                }) {
                    *last = Some((now, replay.state));
                    note!("{}", labels::progress(replay, rate_meter));
                }
            }
        }
    }

    fn notice(&self, text: &str) {
        match self {
            Self::Bar { bar, .. } => bar.suspend(|| note!("{text}")),
            Self::Lines { .. } => note!("{text}"),
        }
    }

    /// Prints the final counts.
    fn end(&self, replay: &Replay) {
        self.clear();
        if let Self::Lines { rate_meter, .. } = self {
            note!("{}", labels::progress(replay, rate_meter));
        }
    }

    fn clear(&self) {
        if let Self::Bar { bar, .. } = self {
            bar.finish_and_clear();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io;
    use std::sync::{Arc, Mutex};

    use super::*;
    use indicatif::{ProgressDrawTarget, ProgressStyle, TermLike};

    /// A terminal with a number of columns, and its content.
    #[derive(Debug, Clone)]
    struct Screen(u16, Arc<Mutex<String>>);

    impl TermLike for Screen {
        fn width(&self) -> u16 {
            self.0
        }
        fn move_cursor_up(&self, _: usize) -> io::Result<()> {
            Ok(())
        }
        fn move_cursor_down(&self, _: usize) -> io::Result<()> {
            Ok(())
        }
        fn move_cursor_right(&self, _: usize) -> io::Result<()> {
            Ok(())
        }
        fn move_cursor_left(&self, _: usize) -> io::Result<()> {
            Ok(())
        }
        fn write_line(&self, text: &str) -> io::Result<()> {
            self.write_str(text)
        }
        fn write_str(&self, text: &str) -> io::Result<()> {
            self.1.lock().unwrap().push_str(text);
            Ok(())
        }
        fn clear_line(&self) -> io::Result<()> {
            self.1.lock().unwrap().clear();
            Ok(())
        }
        fn flush(&self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn the_bar_shrinks_and_the_text_is_not_cut() {
        let replay = labels::tests::replay("running", 40_000, 8700, 20).replay;
        for columns in [80, 60, 200] {
            let screen = Screen(columns, Arc::default());
            let target = ProgressDrawTarget::term_like(Box::new(screen.clone()));
            let bar = ProgressBar::with_draw_target(Some(40_000), target);
            bar.set_style(ProgressStyle::with_template(TEMPLATE).unwrap());
            let mut rate_meter = RateMeter::default();
            let begin = Instant::now();
            rate_meter.add(begin, 8235);
            let mut display = Display::Bar { bar, rate_meter };
            display.show(&replay, begin + Duration::from_secs(1));
            let shown = screen.1.lock().unwrap().clone();
            let text = "sent 8,720 of 40,000 · delivered 8,700 · failed 20 · 485/s · 1m 5s left";
            assert!(shown.trim_end().ends_with(text), "{columns}: {shown}");
            if columns >= 80 {
                assert_eq!(shown.trim_end().chars().count(), usize::from(columns), "{shown}");
            }
        }
    }

    #[test]
    fn transient_errors_are_retried() {
        let refused =
            |status: u16| ClientError::Refused { status: StatusCode::from_u16(status).unwrap(), problem: None };
        let unreachable =
            ClientError::Unreachable { server: "http://127.0.0.1:1".parse().unwrap(), cause: String::new() };
        assert!(is_transient(&unreachable));
        for status in [404, 429, 500, 502, 503, 504] {
            assert!(is_transient(&refused(status)), "{status}");
        }
        for status in [400, 401, 403, 405] {
            assert!(!is_transient(&refused(status)), "{status}");
        }
    }
}
