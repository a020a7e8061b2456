//! The overview: whether all is well, and the figures of this moment and the last minutes.
//!
//! It is made anew with each sample of the counters, and sent to whoever has it open.

mod chart;
mod health_summary;
mod window_stats;

use std::time::Duration;

use askama::Template;
use axum::extract::State;
use axum::response::Response;

use self::chart::Chart;
use self::health_summary::{HealthFinding, HealthInputs, Level};
use self::window_stats::{Percentiles, StatsWindow};
use super::super::ApiState;
use super::super::health;
use super::super::route::Route;
use super::endpoints::EndpointRow;
use super::format::{self, UNKNOWN};
use super::layout::{Layout, RequestContext, page, updates};
use crate::broker::delay_queues::DelayTier;
use crate::broker::publisher::PublisherStatus;
use crate::campaigns::hold::LogStatus;
use crate::config::Role;
use crate::delivery::dead_letter::LetterState;
use crate::delivery::endpoint::BreakerState;
use crate::metrics::history::Sample;
use crate::metrics::snapshot::{Balance, Counts, Gauges, Quantile};
use crate::view_sync::SyncState;
use crate::worker::consumer_status::Phase;
use crate::worker::endpoint_registry::EndpointSnapshot;

/// What is called now: short enough to follow what happens, and long enough to be read.
const NOW: Duration = Duration::from_secs(5);

const MINUTE: Duration = Duration::from_secs(60);

/// The most endpoints that are shown here.
const ENDPOINTS: usize = 5;

/// The pages of the overview.
pub(super) fn routes() -> Vec<Route> {
    vec![Route::get("/", Role::Viewer, show), Route::get("/overview/live", Role::Viewer, follow)]
}

#[derive(Template)]
#[template(path = "overview.html")]
struct OverviewPage {
    frame: Layout,
    now: Now,
}

/// The part of the page that is kept up to date.
#[derive(Template)]
#[template(path = "overview.html", block = "now")]
struct Fragment {
    now: Now,
}

/// All that is shown of this moment.
struct Now {
    level: Level,
    points: Vec<HealthFinding>,
    /// How long this worker has been counting.
    age: String,
    rates: Rates,
    charts: [Chart; 2],
    /// Each of the last five minutes.
    minutes: Vec<Minute>,
    latencies: [Latency; 2],
    causes: Vec<(&'static str, String)>,
    waiting: Waiting,
    pending: String,
    is_pending: bool,
    endpoints: Vec<EndpointRow>,
    all_endpoints: String,
    facts: Vec<Fact>,
    balance: Balance,
}

/// What happens now, and in the last minute.
struct Rates {
    delivered: String,
    failed: String,
    has_failed: bool,
    retries: String,
    in_flight: String,
    minute_delivered: String,
    minute_failed: String,
    minute_retries: String,
    minute_parked: String,
    minute_dead: String,
}

struct Minute {
    name: String,
    delivered: String,
    failed: String,
}

struct Latency {
    name: &'static str,
    what: &'static str,
    count: String,
    p50: String,
    p95: String,
    p99: String,
}

/// What waits in the broker, for a worker or for its time.
struct Waiting {
    events: String,
    retries: String,
    ladder: String,
    /// The rungs that are not empty.
    rungs: Vec<(String, String)>,
}

struct Fact {
    name: &'static str,
    mark: &'static str,
    words: String,
}

async fn show(State(http): State<ApiState>, visit: RequestContext) -> Response {
    page(&OverviewPage { frame: Layout::new(&visit, "Overview"), now: Now::new(&http) })
}

async fn follow(State(http): State<ApiState>, visit: RequestContext) -> Response {
    let news = http.history.news();
    updates(&visit, news, move || Fragment { now: Now::new(&http) })
}

impl Now {
    fn new(http: &ApiState) -> Self {
        let samples = http.history.samples();
        let gauges = http.metrics.gauges();
        let listed = http.worker.endpoints.list();
        let minute = StatsWindow::last(&samples, MINUTE);
        let counted = |of: fn(&Counts) -> u64| minute.as_ref().map_or(0, |minute| minute.count(of));
        let pending = gauges.dead_letters.map(|letters| letters[LetterState::Pending as usize]);
        let broken = listed.iter().filter(|listed| listed.standing.breaker != BreakerState::Closed).count();
        let (delivered, failed) = (counted(Counts::delivered), counted(Counts::failed));
        let points = health_summary::points(&HealthInputs {
            trouble: health::trouble(http),
            broken: broken as u64,
            pending: pending.unwrap_or_default(),
            // Where the view can't be read, that is told in its place.
            paused: http.dead_letters.view.paused_of_late().unwrap_or_default(),
            attempts: delivered + failed,
            failed,
        });
        Self {
            level: points[0].level,
            points,
            age: format::seconds(http.history.age().as_secs_f64()),
            rates: Rates::new(&samples, minute.as_ref(), &gauges),
            charts: [
                Chart::new("Delivered a second", "solid", &samples, Counts::delivered),
                Chart::new("Failed a second", "hatched", &samples, Counts::failed),
            ],
            minutes: minutes(&samples),
            latencies: latencies(minute.as_ref()),
            causes: minute
                .iter()
                .flat_map(StatsWindow::causes)
                .map(|(cause, count)| (cause.as_str(), format::count(count)))
                .collect(),
            waiting: Waiting::new(http, &gauges),
            pending: pending.map_or_else(|| UNKNOWN.to_owned(), format::count),
            is_pending: pending.is_some_and(|pending| pending > 0),
            all_endpoints: format::new(listed.len() as u64, "endpoint", "endpoints"),
            endpoints: listed.into_iter().filter(is_unwell).take(ENDPOINTS).map(EndpointRow::new).collect(),
            facts: facts(http, &gauges),
            balance: gauges.balance,
        }
    }

    /// Whether what was taken and what became of it are the same.
    fn is_balanced(&self) -> bool {
        self.balance.taken() == self.balance.known()
    }

    /// The account's rows.
    fn account(&self) -> Vec<(&'static str, String)> {
        let Balance { from_events, from_ladder, delivered, dead, retried, parked, given_back, in_hand } = self.balance;
        [
            ("taken from events", from_events),
            ("taken from the ladder", from_ladder),
            ("delivered", delivered),
            ("dead", dead),
            ("to be tried again", retried),
            ("parked for their endpoint", parked),
            ("given back to the broker", given_back),
            ("in hand", in_hand),
        ]
        .map(|(name, number)| (name, format::count(number)))
        .into()
    }
}

/// Whether an endpoint is worth a look.
fn is_unwell(listed: &EndpointSnapshot) -> bool {
    let standing = &listed.standing;
    standing.breaker != BreakerState::Closed
        || standing.parked > 0
        || standing.failure_ratio.is_some_and(|failing| failing >= 0.01)
}

impl Rates {
    fn new(samples: &[Sample], minute: Option<&StatsWindow>, gauges: &Gauges) -> Self {
        let now = StatsWindow::last(samples, NOW);
        let rate =
            |of: fn(&Counts) -> u64| now.as_ref().map_or_else(|| UNKNOWN.to_owned(), |now| format::rate(now.rate(of)));
        let count = |of: fn(&Counts) -> u64| format::count(minute.map_or(0, |minute| minute.count(of)));
        Self {
            delivered: rate(Counts::delivered),
            failed: rate(Counts::failed),
            has_failed: now.as_ref().is_some_and(|now| now.count(Counts::failed) > 0),
            retries: rate(|counts| counts.retries_scheduled),
            in_flight: format::count(u64::try_from(gauges.in_flight).unwrap_or_default()),
            minute_delivered: count(Counts::delivered),
            minute_failed: count(Counts::failed),
            minute_retries: count(|counts| counts.retries_scheduled),
            minute_parked: count(|counts| counts.parked),
            minute_dead: count(|counts| counts.dead_letters),
        }
    }
}

/// The last five minutes, one by one, as far as they were measured.
fn minutes(samples: &[Sample]) -> Vec<Minute> {
    let Some(last) = samples.last() else { return Vec::new() };
    let minute = |back: u32| {
        let (from, to) = (last.at.checked_sub(MINUTE * (back + 1)), last.at.checked_sub(MINUTE * back)?);
        let span = StatsWindow::between(samples, from.unwrap_or_default(), to)?;
        Some(Minute {
            name: match back {
                0 => "the last minute".to_owned(),
                1 => "the minute before".to_owned(),
                _ => format!("{back} minutes before"),
            },
            delivered: format::count(span.count(Counts::delivered)),
            failed: format::count(span.count(Counts::failed)),
        })
    };
    (0..5).map_while(minute).collect()
}

fn latencies(minute: Option<&StatsWindow>) -> [Latency; 2] {
    let of = |name, what, values: Option<crate::metrics::snapshot::HistogramSnapshot>| {
        let values = values.unwrap_or_default();
        let percentiles = Percentiles::from_histogram(&values);
        let shown = |of: fn(&Percentiles) -> Quantile| match percentiles.as_ref().map(of) {
            None => UNKNOWN.to_owned(),
            Some(Quantile::About(value)) => format::seconds(value),
            Some(Quantile::MoreThan(value)) => format!("over {}", format::seconds(value)),
        };
        Latency {
            name,
            what,
            count: format::count(values.count()),
            p50: shown(|all| all.p50),
            p95: shown(|all| all.p95),
            p99: shown(|all| all.p99),
        }
    };
    [
        of(
            "Delivery",
            "from the event's date to the 2xx, waits included",
            minute.map(|minute| minute.values(|counts| &counts.delivery_latency)),
        ),
        of(
            "Request",
            "one attempt, whatever came of it",
            minute.map(|minute| minute.values(|counts| &counts.attempt_duration)),
        ),
    ]
}

impl Waiting {
    fn new(http: &ApiState, gauges: &Gauges) -> Self {
        if gauges.queues.is_empty() {
            let [events, retries, ladder] = [(); 3].map(|()| UNKNOWN.to_owned());
            return Self { events, retries, ladder, rungs: Vec::new() };
        }
        let depth = |queue: &str| gauges.queues.get(queue).copied().unwrap_or_default();
        let (retries, ladder) =
            (depth(&http.names.retries()), DelayTier::all().map(|rung| (rung, depth(&http.names.delay(rung)))));
        let ladder: Vec<(DelayTier, u64)> = ladder.filter(|(_, messages)| *messages > 0).collect();
        let on_ladder: u64 = ladder.iter().map(|(_, messages)| messages).sum();
        // What is neither a rung nor the retries is one of the events' queues.
        let events = gauges.queues.values().sum::<u64>() - retries - on_ladder;
        let rung = |(rung, messages): (DelayTier, u64)| {
            (format!("up to {}", format::seconds(f64::from(rung.seconds()))), format::count(messages))
        };
        Self {
            events: format::count(events),
            retries: format::count(retries),
            ladder: format::count(on_ladder),
            rungs: ladder.into_iter().map(rung).collect(),
        }
    }
}

/// How the connections and the configuration are.
fn facts(http: &ApiState, gauges: &Gauges) -> Vec<Fact> {
    let (consuming, phase) = match http.progress.phase() {
        Phase::Connecting { trouble } => ("bad", format!("not connected: {trouble}")),
        Phase::CatchingUp => ("waiting", "connected, reading the configuration".to_owned()),
        Phase::Consuming => {
            let in_hand = format::new(http.progress.in_hand() as u64, "message", "messages");
            ("good", format!("connected, consuming; {in_hand} in hand"))
        }
        Phase::Draining => ("waiting", "finishing what is in hand".to_owned()),
    };
    let (publishing, link) = match http.publisher.link() {
        PublisherStatus::Up => ("good", "connected".to_owned()),
        PublisherStatus::Blocked => ("bad", "blocked: the broker is short of memory or disk".to_owned()),
        PublisherStatus::Down(trouble) => ("bad", format!("not connected: {trouble}")),
    };
    let version = gauges.config_version;
    let (current, configuration) = match (&*http.campaigns.log_status().borrow(), *http.campaigns.currency().borrow()) {
        (LogStatus::Incomplete(_), _) => ("bad", "campaigns may be missing: events are held".to_owned()),
        (_, SyncState::Current) => ("good", format!("current, version {version}")),
        (_, SyncState::CatchingUp) => ("waiting", format!("catching up, version {version} so far")),
    };
    let workers = format::new(u64::try_from(gauges.workers).unwrap_or_default(), "worker", "workers");
    vec![
        Fact { name: "Consuming", mark: consuming, words: phase },
        Fact { name: "Publishing", mark: publishing, words: link },
        Fact { name: "Configuration", mark: current, words: configuration },
        Fact { name: "Sharing the work", mark: "", words: workers },
    ]
}
