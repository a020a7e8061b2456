//! The overview page: a health summary and the rates, latencies and queue depths of the last minutes.
//!
//! The page is rendered again after each sample of the counters and sent to all open browsers.

mod chart;
mod health_summary;
mod window_stats;

use std::time::Duration;

use askama::Template;
use axum::extract::State;
use axum::response::Response;
use waypost_broker::delay_queues::DelayQueue;
use waypost_broker::publisher::PublisherStatus;
use waypost_core::access::Role;
use waypost_core::dead_letter::LetterState;
use waypost_core::endpoint::BreakerState;
use waypost_engine::campaigns::hold::StreamStatus;
use waypost_engine::metrics::history::CountsSample;
use waypost_engine::metrics::snapshot::{Balance, Counts, Gauges, Quantile};
use waypost_engine::view_sync::SyncState;
use waypost_engine::worker::consumer_status::ConsumerPhase;
use waypost_engine::worker::endpoint_registry::EndpointSnapshot;

use self::chart::Chart;
use self::health_summary::{HealthFinding, HealthInputs, Level};
use self::window_stats::{Percentiles, StatsWindow};
use super::endpoints::EndpointRow;
use super::format::{self, UNKNOWN};
use super::layout::{Layout, RequestContext, live_template, page};
use crate::api_state::ApiState;
use crate::health;
use crate::route::Route;

/// The window of the current rates. Long enough to be readable, short enough to follow changes.
const CURRENT_WINDOW: Duration = Duration::from_secs(5);

const MINUTE: Duration = Duration::from_secs(60);

/// How many endpoints are shown.
const MAX_ENDPOINTS: usize = 5;

pub(super) fn routes() -> Vec<Route> {
    vec![Route::get("/", Role::Viewer, show), Route::get("/overview/live", Role::Viewer, stream)]
}

#[derive(Template)]
#[template(path = "overview.html")]
struct OverviewPage {
    layout: Layout,
    overview: Overview,
}

/// The part of the page that is updated live.
#[derive(Template)]
#[template(path = "overview.html", block = "live")]
struct OverviewFragment {
    overview: Overview,
}

struct Overview {
    level: Level,
    findings: Vec<HealthFinding>,
    /// Time since the counters of this worker started.
    counting_for: String,
    rates: Rates,
    charts: [Chart; 2],
    /// The last five minutes, newest first.
    minutes: Vec<Minute>,
    latencies: [Latency; 2],
    causes: Vec<(&'static str, String)>,
    queues: QueueDepths,
    pending: String,
    has_pending: bool,
    endpoints: Vec<EndpointRow>,
    endpoint_count: String,
    facts: Vec<StatusFact>,
    balance: Balance,
}

/// Current rates per second and counts of the last minute.
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
    description: &'static str,
    count: String,
    p50: String,
    p95: String,
    p99: String,
}

/// Messages waiting in the broker.
struct QueueDepths {
    events: String,
    retries: String,
    delayed: String,
    /// Delay and number of messages of each delay queue that is not empty.
    delay_queues: Vec<(String, String)>,
}

struct StatusFact {
    name: &'static str,
    icon: &'static str,
    text: String,
}

async fn show(State(state): State<ApiState>, context: RequestContext) -> Response {
    page(&OverviewPage { layout: Layout::new(&context, "Overview"), overview: Overview::new(&state) })
}

async fn stream(State(state): State<ApiState>, context: RequestContext) -> Response {
    let changes = state.history.subscribe();
    live_template(&context, changes, move || OverviewFragment { overview: Overview::new(&state) })
}

impl Overview {
    fn new(state: &ApiState) -> Self {
        let samples = state.history.samples();
        let gauges = state.metrics.gauges();
        let endpoints = state.endpoints.list();
        let minute = StatsWindow::last(&samples, MINUTE);
        let minute_count = |of: fn(&Counts) -> u64| minute.as_ref().map_or(0, |minute| minute.count(of));
        let pending = gauges.dead_letters.map(|letters| letters[LetterState::Pending as usize]);
        let open_breakers =
            endpoints.iter().filter(|endpoints| endpoints.stats.breaker != BreakerState::Closed).count();
        let (delivered, failed) = (minute_count(Counts::delivered), minute_count(Counts::failed));
        let findings = health_summary::findings(&HealthInputs {
            unready_reason: health::unready_reason(state),
            open_breakers: open_breakers as u64,
            pending: pending.unwrap_or_default(),
            // If the view can't be read, `unready_reason` says so.
            paused_replays: state.replays.count_recently_paused().unwrap_or_default(),
            attempts: delivered + failed,
            failed,
        });
        Self {
            level: findings[0].level,
            findings,
            counting_for: format::seconds(state.history.age().as_secs_f64()),
            rates: Rates::new(&samples, minute.as_ref(), &gauges),
            charts: [
                Chart::new("Delivered per second", "solid", &samples, Counts::delivered),
                Chart::new("Failed per second", "hatched", &samples, Counts::failed),
            ],
            minutes: minutes(&samples),
            latencies: latencies(minute.as_ref()),
            causes: minute
                .iter()
                .flat_map(StatsWindow::causes)
                .map(|(cause, count)| (cause.as_str(), format::count(count)))
                .collect(),
            queues: QueueDepths::new(state, &gauges),
            pending: pending.map_or_else(|| UNKNOWN.to_owned(), format::count),
            has_pending: pending.is_some_and(|pending| pending > 0),
            endpoint_count: format::counted(endpoints.len() as u64, "endpoint", "endpoints"),
            endpoints: endpoints
                .into_iter()
                .filter(needs_attention)
                .take(MAX_ENDPOINTS)
                .map(EndpointRow::new)
                .collect(),
            facts: facts(state, &gauges),
            balance: gauges.balance,
        }
    }

    /// Whether every received delivery is accounted for.
    fn is_balanced(&self) -> bool {
        self.balance.begun() == self.balance.accounted()
    }

    /// The rows of the account of deliveries.
    fn account(&self) -> Vec<(&'static str, String)> {
        let Balance { from_events, from_delay_queues, delivered, dead, retried, parked, requeued, in_flight } =
            self.balance;
        [
            ("received from events", from_events),
            ("received from delay queues", from_delay_queues),
            ("delivered", delivered),
            ("dead", dead),
            ("waiting for a retry", retried),
            ("parked because of their endpoint", parked),
            ("requeued", requeued),
            ("in flight", in_flight),
        ]
        .map(|(name, number)| (name, format::count(number)))
        .into()
    }
}

/// Whether an endpoint belongs on the list of the worst endpoints.
fn needs_attention(endpoints: &EndpointSnapshot) -> bool {
    let stats = &endpoints.stats;
    stats.breaker != BreakerState::Closed
        || stats.parked > 0
        || stats.failure_ratio.is_some_and(|failing| failing >= 0.01)
}

impl Rates {
    fn new(samples: &[CountsSample], minute: Option<&StatsWindow>, gauges: &Gauges) -> Self {
        let overview = StatsWindow::last(samples, CURRENT_WINDOW);
        let rate = |of: fn(&Counts) -> u64| {
            overview.as_ref().map_or_else(|| UNKNOWN.to_owned(), |overview| format::rate(overview.rate(of)))
        };
        let count = |of: fn(&Counts) -> u64| format::count(minute.map_or(0, |minute| minute.count(of)));
        Self {
            delivered: rate(Counts::delivered),
            failed: rate(Counts::failed),
            has_failed: overview.as_ref().is_some_and(|overview| overview.count(Counts::failed) > 0),
            retries: rate(|counts| counts.retries_scheduled),
            in_flight: format::count(u64::try_from(gauges.requests_in_flight).unwrap_or_default()),
            minute_delivered: count(Counts::delivered),
            minute_failed: count(Counts::failed),
            minute_retries: count(|counts| counts.retries_scheduled),
            minute_parked: count(|counts| counts.parked),
            minute_dead: count(|counts| counts.dead_letters),
        }
    }
}

/// The last five minutes, as far as there are samples.
fn minutes(samples: &[CountsSample]) -> Vec<Minute> {
    let Some(last) = samples.last() else { return Vec::new() };
    let minute = |minutes_ago: u32| {
        let (from, to) = (last.at.checked_sub(MINUTE * (minutes_ago + 1)), last.at.checked_sub(MINUTE * minutes_ago)?);
        let window = StatsWindow::between(samples, from.unwrap_or_default(), to)?;
        Some(Minute {
            name: match minutes_ago {
                0 => "the last minute".to_owned(),
                1 => "the minute before".to_owned(),
                _ => format!("{minutes_ago} minutes before"),
            },
            delivered: format::count(window.count(Counts::delivered)),
            failed: format::count(window.count(Counts::failed)),
        })
    };
    (0..5).map_while(minute).collect()
}

fn latencies(minute: Option<&StatsWindow>) -> [Latency; 2] {
    let latency = |name, description, values: Option<waypost_engine::metrics::snapshot::HistogramSnapshot>| {
        let values = values.unwrap_or_default();
        let percentiles = Percentiles::from_histogram(&values);
        let format_quantile = |of: fn(&Percentiles) -> Quantile| match percentiles.as_ref().map(of) {
            None => UNKNOWN.to_owned(),
            Some(Quantile::About(value)) => format::seconds(value),
            Some(Quantile::MoreThan(value)) => format!("over {}", format::seconds(value)),
        };
        Latency {
            name,
            description,
            count: format::count(values.count()),
            p50: format_quantile(|all| all.p50),
            p95: format_quantile(|all| all.p95),
            p99: format_quantile(|all| all.p99),
        }
    };
    [
        latency(
            "Delivery",
            "from the event's date to the 2xx, including retry delays",
            minute.map(|minute| minute.values(|counts| &counts.delivery_latency)),
        ),
        latency(
            "Request",
            "one attempt, success or failure",
            minute.map(|minute| minute.values(|counts| &counts.attempt_duration)),
        ),
    ]
}

impl QueueDepths {
    fn new(state: &ApiState, gauges: &Gauges) -> Self {
        if gauges.queues.is_empty() {
            let [events, retries, delayed] = [(); 3].map(|()| UNKNOWN.to_owned());
            return Self { events, retries, delayed, delay_queues: Vec::new() };
        }
        let depth = |queue: &str| gauges.queues.get(queue).copied().unwrap_or_default();
        let (retries, delayed) = (
            depth(&state.names.retries()),
            DelayQueue::all().map(|delay_queue| (delay_queue, depth(&state.names.delay(delay_queue)))),
        );
        let delayed: Vec<(DelayQueue, u64)> = delayed.filter(|(_, messages)| *messages > 0).collect();
        let delayed_total: u64 = delayed.iter().map(|(_, messages)| messages).sum();
        // All queues except retries and delay queues are event queues.
        let events = gauges.queues.values().sum::<u64>() - retries - delayed_total;
        let row = |(delay_queue, messages): (DelayQueue, u64)| {
            (format!("up to {}", format::seconds(f64::from(delay_queue.seconds()))), format::count(messages))
        };
        Self {
            events: format::count(events),
            retries: format::count(retries),
            delayed: format::count(delayed_total),
            delay_queues: delayed.into_iter().map(row).collect(),
        }
    }
}

/// State of the connections, the configuration and the workers.
fn facts(state: &ApiState, gauges: &Gauges) -> Vec<StatusFact> {
    let (consumer_icon, consumer_text) = match state.consumer_status.phase() {
        ConsumerPhase::Connecting { error } => ("bad", format!("not connected: {error}")),
        ConsumerPhase::CatchingUp => ("waiting", "connected, loading the configuration".to_owned()),
        ConsumerPhase::Consuming => {
            let in_flight = format::counted(state.consumer_status.in_flight() as u64, "message", "messages");
            ("good", format!("connected, consuming; {in_flight} in flight"))
        }
        ConsumerPhase::Draining => ("waiting", "finishing messages in flight".to_owned()),
    };
    let (publisher_icon, publisher_text) = match state.publisher.status() {
        PublisherStatus::Up => ("good", "connected".to_owned()),
        PublisherStatus::Blocked => ("bad", "blocked: the broker is low on memory or disk space".to_owned()),
        PublisherStatus::Down(error) => ("bad", format!("not connected: {error}")),
    };
    let version = gauges.config_version;
    let (config_icon, config_text) =
        match (&*state.campaigns.stream_status().borrow(), *state.campaigns.sync_state().borrow()) {
            (StreamStatus::Incomplete(_), _) => ("bad", "campaigns may be missing, so events are held".to_owned()),
            (_, SyncState::Current) => ("good", format!("current, version {version}")),
            (_, SyncState::CatchingUp) => ("waiting", format!("catching up, version {version} so far")),
        };
    let workers = format::count(u64::try_from(gauges.workers).unwrap_or_default());
    vec![
        StatusFact { name: "Consuming", icon: consumer_icon, text: consumer_text },
        StatusFact { name: "Publishing", icon: publisher_icon, text: publisher_text },
        StatusFact { name: "Configuration", icon: config_icon, text: config_text },
        StatusFact { name: "Workers", icon: "", text: workers },
    ]
}
