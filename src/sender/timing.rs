//! How long the parts of a request take, and in which one it is when its time is up. Through the egress proxy, a connection may be
//! made for a request and be used by another: its time is counted for the request it was begun for.

use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use futures_util::future::{BoxFuture, FutureExt as _};
use tokio::task::futures::TaskLocalFuture;
use tower::{Layer, Service, ServiceExt as _};
use tracing::{Instrument as _, Span};

use crate::delivery::outcome::{Phase, Stages};
use crate::telemetry::spans;

tokio::task_local! {
    static CLOCK: Clock;
}

/// The clock of one request.
#[derive(Clone)]
pub(super) struct Clock {
    began: Instant,
    marks: Arc<Mutex<Marks>>,
    /// The attempt's. Whichever task makes the connection, its spans are below this one.
    span: Span,
}

#[derive(Clone, Copy, Default)]
struct Marks {
    resolve: Mark,
    /// Resolving included.
    connect: Mark,
    answered: Option<Duration>,
}

#[derive(Clone, Copy, Default)]
enum Mark {
    #[default]
    NotYet,
    Since(Instant),
    Took(Duration),
}

impl Mark {
    fn end(&mut self) {
        if let Self::Since(began) = self {
            *self = Self::Took(began.elapsed());
        }
    }

    fn took(self) -> Option<Duration> {
        if let Self::Took(took) = self { Some(took) } else { None }
    }
}

impl Clock {
    pub(super) fn start(span: Span) -> Self {
        Self { began: Instant::now(), marks: Arc::default(), span }
    }

    /// Runs a request by this clock.
    pub(super) fn time<F: Future>(&self, request: F) -> TaskLocalFuture<Self, F> {
        CLOCK.scope(self.clone(), request)
    }

    /// The status of the answer has come.
    pub(super) fn answered(&self) {
        self.mark(|marks| marks.answered = Some(self.began.elapsed()));
    }

    /// The request is sent once more, on a new connection.
    pub(super) fn resent(&self) {
        spans::resent(&self.span);
    }

    /// Whether no connection was begun for this request, so that it went over one that was there before.
    pub(super) fn used_kept_connection(&self) -> bool {
        matches!(self.read().connect, Mark::NotYet)
    }

    /// What the request is at.
    pub(super) fn phase(&self) -> Phase {
        let marks = self.read();
        match (marks.resolve, marks.connect) {
            (Mark::Since(_), _) => Phase::Resolving,
            (_, Mark::Since(_)) => Phase::Connecting,
            _ => Phase::Answering,
        }
    }

    pub(super) fn stages(&self) -> Stages {
        let marks = self.read();
        let (resolve, connecting) = (marks.resolve.took(), marks.connect.took());
        let before = connecting.unwrap_or_default();
        Stages {
            resolve,
            connect: connecting.map(|connecting| connecting.saturating_sub(resolve.unwrap_or_default())),
            first_byte: marks.answered.map(|answered| answered.saturating_sub(before)),
        }
    }

    fn read(&self) -> Marks {
        *self.marks.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn mark(&self, change: impl FnOnce(&mut Marks)) {
        change(&mut self.marks.lock().unwrap_or_else(PoisonError::into_inner));
    }
}

/// Times a part of whatever request it is for, in a span of its own.
async fn timed<F: Future>(part: fn(&mut Marks) -> &mut Mark, span: fn(&Span) -> Span, work: F) -> F::Output {
    let clock = CLOCK.try_with(Clone::clone).ok();
    let span = clock.as_ref().map_or_else(Span::none, |clock| span(&clock.span));
    let mark = |change: fn(&mut Mark)| {
        clock.iter().for_each(|clock: &Clock| clock.mark(|marks| change(part(marks))));
    };
    mark(|mark| *mark = Mark::Since(Instant::now()));
    let done = work.instrument(span).await;
    mark(Mark::end);
    done
}

/// Resolves a name by the clock of the request it is for.
pub(super) async fn resolving<F: Future>(resolve: F) -> F::Output {
    timed(|marks| &mut marks.resolve, spans::dns, resolve).await
}

/// Makes a connection by the clock of the request it is for.
pub(super) async fn connecting<F: Future>(connect: F) -> F::Output {
    timed(|marks| &mut marks.connect, spans::connect, connect).await
}

/// Has reqwest's connections made by the clock of the request they are for.
#[derive(Clone, Copy)]
pub(super) struct Timed;

impl<S> Layer<S> for Timed {
    type Service = TimedConnector<S>;

    fn layer(&self, connector: S) -> TimedConnector<S> {
        TimedConnector(Arc::new(connector))
    }
}

/// A connector whose connections are timed. The client clones it several times for each request, and what it is made of only
/// where there is a connection to be made.
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

    fn call(&mut self, to: R) -> Self::Future {
        let connector = S::clone(&self.0);
        connecting(connector.oneshot(to)).boxed()
    }
}
