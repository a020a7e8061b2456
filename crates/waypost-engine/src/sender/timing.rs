//! Measures the phases of a request, and knows the current phase when the request times out. Through the egress proxy,
//! a connection may be opened for one request and be used by another. Its time counts for the request for which it was
//! opened.

use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use futures_util::future::{BoxFuture, FutureExt as _};
use tokio::task::futures::TaskLocalFuture;
use tower::{Layer, Service, ServiceExt as _};
use tracing::{Instrument as _, Span};
use waypost_core::outcome::{RequestPhase, RequestTiming};

use crate::spans;

tokio::task_local! {
    static CLOCK: RequestClock;
}

/// Measures one request. Cheap to clone.
#[derive(Clone)]
pub(super) struct RequestClock {
    started: Instant,
    phases: Arc<Mutex<PhaseTimers>>,
    /// The attempt's span. The spans of its connection are below it, whichever task opens the connection.
    span: Span,
}

#[derive(Clone, Copy, Default)]
struct PhaseTimers {
    resolve: PhaseTimer,
    /// Includes `resolve`.
    connect: PhaseTimer,
    /// Time from the start of the request.
    first_byte: Option<Duration>,
}

#[derive(Clone, Copy, Default)]
enum PhaseTimer {
    #[default]
    NotStarted,
    Running(Instant),
    Finished(Duration),
}

impl PhaseTimer {
    fn finish(&mut self) {
        if let Self::Running(started) = self {
            *self = Self::Finished(started.elapsed());
        }
    }

    fn duration(self) -> Option<Duration> {
        if let Self::Finished(duration) = self { Some(duration) } else { None }
    }
}

impl RequestClock {
    pub(super) fn start(span: Span) -> Self {
        Self { started: Instant::now(), phases: Arc::default(), span }
    }

    /// Runs a request, so that [`time_resolve`] and [`time_connect`] find this clock.
    pub(super) fn time<F: Future>(&self, request: F) -> TaskLocalFuture<Self, F> {
        CLOCK.scope(self.clone(), request)
    }

    pub(super) fn record_first_byte(&self) {
        self.update(|phases| phases.first_byte = Some(self.started.elapsed()));
    }

    /// Records in the span that the request is sent again, on a new connection.
    pub(super) fn record_resend(&self) {
        spans::resent(&self.span);
    }

    /// Whether the request was sent over an existing connection.
    pub(super) fn is_connection_reused(&self) -> bool {
        matches!(self.read().connect, PhaseTimer::NotStarted)
    }

    /// The current phase of the request.
    pub(super) fn phase(&self) -> RequestPhase {
        let phases = self.read();
        match (phases.resolve, phases.connect) {
            (PhaseTimer::Running(_), _) => RequestPhase::Resolving,
            (_, PhaseTimer::Running(_)) => RequestPhase::Connecting,
            _ => RequestPhase::AwaitingResponse,
        }
    }

    pub(super) fn timing(&self) -> RequestTiming {
        let phases = self.read();
        let (resolve, resolve_and_connect) = (phases.resolve.duration(), phases.connect.duration());
        RequestTiming {
            resolve,
            connect: resolve_and_connect.map(|total| total.saturating_sub(resolve.unwrap_or_default())),
            first_byte: phases.first_byte.map(|total| total.saturating_sub(resolve_and_connect.unwrap_or_default())),
        }
    }

    fn read(&self) -> PhaseTimers {
        *self.phases.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn update(&self, change: impl FnOnce(&mut PhaseTimers)) {
        change(&mut self.phases.lock().unwrap_or_else(PoisonError::into_inner));
    }
}

/// Runs a phase of the current request in a span of its own, and measures it if there is a clock.
async fn time_phase<F: Future>(
    phase: fn(&mut PhaseTimers) -> &mut PhaseTimer,
    span: fn(&Span) -> Span,
    work: F,
) -> F::Output {
    let clock = CLOCK.try_with(Clone::clone).ok();
    let span = clock.as_ref().map_or_else(Span::none, |clock| span(&clock.span));
    let update = |change: fn(&mut PhaseTimer)| {
        clock.iter().for_each(|clock: &RequestClock| clock.update(|phases| change(phase(phases))));
    };
    update(|timer| *timer = PhaseTimer::Running(Instant::now()));
    let output = work.instrument(span).await;
    update(PhaseTimer::finish);
    output
}

/// Measures the name resolution of the current request.
pub(super) async fn time_resolve<F: Future>(resolve: F) -> F::Output {
    time_phase(|phases| &mut phases.resolve, spans::dns, resolve).await
}

/// Measures the connection of the current request.
pub(super) async fn time_connect<F: Future>(connect: F) -> F::Output {
    time_phase(|phases| &mut phases.connect, spans::connect, connect).await
}

/// Measures the connections that reqwest opens.
#[derive(Clone, Copy)]
pub(super) struct TimingLayer;

impl<S> Layer<S> for TimingLayer {
    type Service = TimedConnector<S>;

    fn layer(&self, connector: S) -> TimedConnector<S> {
        TimedConnector(Arc::new(connector))
    }
}

/// A connector that measures its connections. The client clones it several times for each request, so it is cheap to
/// clone: the inner connector is cloned only to open a connection.
pub(super) struct TimedConnector<S>(Arc<S>);

impl<S> Clone for TimedConnector<S> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<S, R> Service<R> for TimedConnector<S>
where
    S: Service<R> + Clone + Send + Sync + 'static,
    S::Future: Send,
    R: Send + 'static,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = BoxFuture<'static, Result<S::Response, S::Error>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, destination: R) -> Self::Future {
        let connector = S::clone(&self.0);
        time_connect(connector.oneshot(destination)).boxed()
    }
}
