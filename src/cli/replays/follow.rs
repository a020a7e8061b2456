//! Following a replay to its end. The worker carries it out, so that neither Ctrl-C here nor a restart there ends it.

use std::time::{Duration, Instant};

use indicatif::ProgressBar;
use reqwest::{Method, StatusCode};
use serde_json::Value;
use tokio::signal::unix::{SignalKind, signal};

use super::labels::{self, Stage};
use super::{LIST, labels::number};
use crate::cli::CliError;
use crate::cli::client::{Api, ApiError, Call};
use crate::cli::progress;
use crate::cli::stdio::{say, tell};
use crate::replays::rate_meter::RateMeter;

/// The bar takes what the words leave of the line: they lose nothing, however narrow the terminal is.
const TEMPLATE: &str = "{wide_bar} {msg}";

/// How often the server is asked.
const LOOK: Duration = Duration::from_millis(500);

/// How often the progress is told where there is no terminal to draw on.
const TELL: Duration = Duration::from_secs(5);

/// So long a server may be gone: a restart of it is over by then.
const RECONNECT_TIMEOUT: Duration = Duration::from_secs(300);

/// How the end is printed.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(in crate::cli) enum OutputMode {
    Text,
    Json,
}

/// How the following ended, if it did not fail.
enum FollowEnd {
    /// The replay has ended.
    AtTheEnd(Value),
    /// It goes on.
    Before(Value),
}

/// Follows a replay that the server has told of once. Some failed, or not all were sent: a failure.
pub(in crate::cli) async fn follow(api: &Api, replay: Value, form: OutputMode) -> Result<(), CliError> {
    let commands = labels::commands(&replay);
    let left = until_end(api, replay).await;
    match left.map_err(|failure| failure.and(&format!("The replay goes on without us:\n{commands}")))? {
        FollowEnd::Before(replay) => {
            if form == OutputMode::Json {
                say!("{replay}");
            }
            tell!(
                "The replay goes on without us ({}):\n{}",
                labels::progress(&replay, &RateMeter::default()),
                labels::commands(&replay)
            );
            Ok(())
        }
        FollowEnd::AtTheEnd(replay) => {
            match form {
                OutputMode::Json => say!("{replay}"),
                OutputMode::Text => say!("{}", labels::standing(&replay)),
            }
            labels::trouble(&replay).map_or(Ok(()), |trouble| Err(CliError::Failed(trouble)))
        }
    }
}

async fn until_end(api: &Api, replay: Value) -> Result<FollowEnd, CliError> {
    let mut interrupt = signal(SignalKind::interrupt()).map_err(CliError::new)?;
    let id = replay["id"].as_str().unwrap_or_default().to_owned();
    let mut display = Display::of_replay(&replay);
    let mut latest = replay;
    let mut silent_since: Option<Instant> = None;
    loop {
        match labels::stage(&latest) {
            // While the server is gone there is nothing new to show.
            Stage::Running | Stage::Paused if silent_since.is_some() => {}
            Stage::Running | Stage::Paused => display.show(&latest, Instant::now()),
            Stage::Ended => {
                display.end(&latest);
                return Ok(FollowEnd::AtTheEnd(latest));
            }
            Stage::Unknown => return Err(CliError::new("the server's answer is no replay this version knows")),
        }
        let look = async {
            tokio::time::sleep(LOOK).await;
            api.ask(Method::GET, &[LIST, &id], &[], Call::default()).await
        };
        let answer = tokio::select! {
            answer = look => answer,
            _ = interrupt.recv() => {
                display.clear();
                return Ok(FollowEnd::Before(latest));
            }
        };
        match answer {
            Ok(answer) => {
                latest = answer.json()?;
                if silent_since.take().is_some() {
                    display.notice("the server answers again");
                }
            }
            Err(unanswered) => {
                let since = *silent_since.get_or_insert_with(|| {
                    display.notice(&format!("{}: asking again", briefly(&unanswered)));
                    Instant::now()
                });
                if !may_pass(&unanswered) || since.elapsed() > RECONNECT_TIMEOUT {
                    display.clear();
                    return Err(unanswered.into());
                }
            }
        }
    }
}

/// Whether it may be otherwise in a moment. A worker that was started just now, or another one than before, may not know
/// of the replay yet.
fn may_pass(unanswered: &ApiError) -> bool {
    match unanswered {
        ApiError::Silence { .. } => true,
        ApiError::Refused { status, .. } => {
            status.is_server_error()
                || [StatusCode::NOT_FOUND, StatusCode::REQUEST_TIMEOUT, StatusCode::TOO_MANY_REQUESTS].contains(status)
        }
    }
}

fn briefly(unanswered: &ApiError) -> String {
    match unanswered {
        ApiError::Silence { server, cause } => format!("no answer from {server} ({cause})"),
        ApiError::Refused { text, .. } => text.clone(),
    }
}

/// The progress on standard error.
enum Display {
    Drawn {
        bar: ProgressBar,
        pace: RateMeter,
    },
    /// Line after line, for a log.
    Told {
        last: Option<(Instant, Stage)>,
        pace: RateMeter,
    },
}

impl Display {
    fn of_replay(replay: &Value) -> Self {
        if progress::is_seen() {
            tell!("Ctrl-C leaves it running.");
            let bar = progress::bar(Some(number(replay, "total")), TEMPLATE);
            Self::Drawn { bar, pace: RateMeter::default() }
        } else {
            Self::Told { last: None, pace: RateMeter::default() }
        }
    }

    fn show(&mut self, replay: &Value, now: Instant) {
        match self {
            Self::Drawn { bar, pace } => {
                pace.add(now, number(replay, "sent"));
                bar.set_position(number(replay, "sent"));
                bar.set_message(labels::progress(replay, pace));
            }
            Self::Told { last, pace } => {
                pace.add(now, number(replay, "sent"));
                let stage = labels::stage(replay);
                if last.is_none_or(|(at, told)| told != stage || now.saturating_duration_since(at) >= TELL) {
                    *last = Some((now, stage));
                    tell!("{}", labels::progress(replay, pace));
                }
            }
        }
    }

    fn notice(&self, text: &str) {
        match self {
            Self::Drawn { bar, .. } => bar.suspend(|| tell!("{text}")),
            Self::Told { .. } => tell!("{text}"),
        }
    }

    /// The last line of a log has the last count.
    fn end(&self, replay: &Value) {
        self.clear();
        if let Self::Told { pace, .. } = self {
            tell!("{}", labels::progress(replay, pace));
        }
    }

    fn clear(&self) {
        if let Self::Drawn { bar, .. } = self {
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

    /// A terminal of so many columns, and what was last written to it.
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
    fn the_bar_shrinks_and_the_words_stay() {
        let replay =
            json!({ "id": "rp_1", "state": "running", "total": 40_000, "sent": 8720, "delivered": 8700, "failed": 20 });
        for columns in [80, 60, 200] {
            let screen = Screen(columns, Arc::default());
            let target = ProgressDrawTarget::term_like(Box::new(screen.clone()));
            let bar = ProgressBar::with_draw_target(Some(40_000), target);
            bar.set_style(ProgressStyle::with_template(TEMPLATE).unwrap());
            let mut pace = RateMeter::default();
            let begin = Instant::now();
            pace.add(begin, 8235);
            let mut display = Display::Drawn { bar, pace };
            display.show(&replay, begin + Duration::from_secs(1));
            let shown = screen.1.lock().unwrap().clone();
            let words = "sent 8,720 of 40,000 · delivered 8,700 · failed 20 · 485/s · 1m 5s left";
            assert!(shown.trim_end().ends_with(words), "{columns}: {shown}");
            if columns >= 80 {
                assert_eq!(shown.trim_end().chars().count(), usize::from(columns), "{shown}");
            }
        }
    }

    #[test]
    fn what_may_pass_is_waited_for() {
        let refused =
            |status: u16| ApiError::Refused { status: StatusCode::from_u16(status).unwrap(), text: String::new() };
        let silence = ApiError::Silence { server: "http://127.0.0.1:1".parse().unwrap(), cause: String::new() };
        assert!(may_pass(&silence));
        for status in [404, 429, 500, 502, 503, 504] {
            assert!(may_pass(&refused(status)), "{status}");
        }
        for status in [400, 401, 403, 405] {
            assert!(!may_pass(&refused(status)), "{status}");
        }
    }
}
