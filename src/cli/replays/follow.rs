//! Follows a replay to its end and shows its progress. A worker executes the replay, so Ctrl-C does not stop it. If the
//! server is unreachable, for example during a restart, the command keeps asking.

use std::time::{Duration, Instant};

use indicatif::ProgressBar;
use reqwest::{Method, StatusCode};
use serde_json::Value;
use tokio::signal::unix::{SignalKind, signal};
use waypost_engine::replays::rate_meter::RateMeter;

use super::labels::{self, RunState, number};
use crate::cli::client::{Api, ApiError, REPLAYS, RequestParts};
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
    Ended(Value),
    /// The user pressed Ctrl-C. The replay continues.
    Interrupted(Value),
}

/// Follows a replay, starting with its state `replay`.
///
/// # Errors
/// If dead letters failed again, or not all were sent.
pub(in crate::cli) async fn follow(api: &Api, replay: Value, mode: OutputMode) -> Result<(), CliError> {
    let commands = labels::commands(&replay);
    let end = until_end(api, replay).await;
    match end.map_err(|error| error.with_line(&format!("The worker continues the replay:\n{commands}")))? {
        FollowEnd::Interrupted(replay) => {
            if mode == OutputMode::Json {
                out!("{replay}");
            }
            note!(
                "The worker continues the replay ({}):\n{}",
                labels::progress(&replay, &RateMeter::default()),
                labels::commands(&replay)
            );
            Ok(())
        }
        FollowEnd::Ended(replay) => {
            match mode {
                OutputMode::Json => out!("{replay}"),
                OutputMode::Text => out!("{}", labels::status_line(&replay)),
            }
            labels::problems(&replay).map_or(Ok(()), |problems| Err(CliError::Failed(problems)))
        }
    }
}

async fn until_end(api: &Api, replay: Value) -> Result<FollowEnd, CliError> {
    let mut interrupt = signal(SignalKind::interrupt()).map_err(CliError::new)?;
    let id = replay["id"].as_str().unwrap_or_default().to_owned();
    let mut display = Display::of_replay(&replay);
    let mut latest = replay;
    let mut unreachable_since: Option<Instant> = None;
    loop {
        match labels::run_state(&latest) {
            // Nothing new is known while the server is unreachable.
            RunState::Running | RunState::Paused if unreachable_since.is_some() => {}
            RunState::Running | RunState::Paused => display.show(&latest, Instant::now()),
            RunState::Ended => {
                display.end(&latest);
                return Ok(FollowEnd::Ended(latest));
            }
            RunState::Unknown => {
                return Err(CliError::new(
                    "this version of the command does not know the replay's state. Use the version of the server",
                ));
            }
        }
        let poll = async {
            tokio::time::sleep(POLL_INTERVAL).await;
            api.request(Method::GET, &[REPLAYS, &id], &[], RequestParts::default()).await
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
                latest = answer.json()?;
                if unreachable_since.take().is_some() {
                    display.notice("the server answers again");
                }
            }
            Err(error) => {
                let since = *unreachable_since.get_or_insert_with(|| {
                    display.notice(&format!("{}: asking again", short_text(&error)));
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
fn is_transient(error: &ApiError) -> bool {
    match error {
        ApiError::Unreachable { .. } => true,
        ApiError::Refused { status, .. } => {
            status.is_server_error()
                || [StatusCode::NOT_FOUND, StatusCode::REQUEST_TIMEOUT, StatusCode::TOO_MANY_REQUESTS].contains(status)
        }
    }
}

fn short_text(error: &ApiError) -> String {
    match error {
        ApiError::Unreachable { server, cause } => format!("no response from {server} ({cause})"),
        ApiError::Refused { text, .. } => text.clone(),
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
        last: Option<(Instant, RunState)>,
        rate_meter: RateMeter,
    },
}

impl Display {
    fn of_replay(replay: &Value) -> Self {
        if progress::is_visible() {
            note!("Ctrl-C leaves the replay running.");
            let bar = progress::bar(Some(number(replay, "total")), TEMPLATE);
            Self::Bar { bar, rate_meter: RateMeter::default() }
        } else {
            Self::Lines { last: None, rate_meter: RateMeter::default() }
        }
    }

    fn show(&mut self, replay: &Value, now: Instant) {
        match self {
            Self::Bar { bar, rate_meter } => {
                rate_meter.add(now, number(replay, "sent"));
                bar.set_position(number(replay, "sent"));
                bar.set_message(labels::progress(replay, rate_meter));
            }
            Self::Lines { last, rate_meter } => {
                rate_meter.add(now, number(replay, "sent"));
                let run_state = labels::run_state(replay);
                if last.is_none_or(|(at, printed_state)| {
                    printed_state != run_state || now.saturating_duration_since(at) >= REPORT_INTERVAL
                }) {
                    *last = Some((now, run_state));
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
    fn end(&self, replay: &Value) {
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

    use indicatif::{ProgressDrawTarget, ProgressStyle, TermLike};
    use serde_json::json;

    use super::*;

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
        let replay =
            json!({ "id": "rp_1", "state": "running", "total": 40_000, "sent": 8720, "delivered": 8700, "failed": 20 });
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
            |status: u16| ApiError::Refused { status: StatusCode::from_u16(status).unwrap(), text: String::new() };
        let unreachable = ApiError::Unreachable { server: "http://127.0.0.1:1".parse().unwrap(), cause: String::new() };
        assert!(is_transient(&unreachable));
        for status in [404, 429, 500, 502, 503, 504] {
            assert!(is_transient(&refused(status)), "{status}");
        }
        for status in [400, 401, 403, 405] {
            assert!(!is_transient(&refused(status)), "{status}");
        }
    }
}
