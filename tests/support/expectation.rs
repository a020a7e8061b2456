//! Requests that a test waits for.

use std::collections::BTreeSet;
use std::future::{Future, IntoFuture};
use std::panic::Location;
use std::pin::Pin;
use std::time::Duration;

use axum::body::Bytes;

use super::receiver::{Receiver, Request};
use super::wait::{DEFAULT_TIMEOUT, poll_until};

/// Awaited, returns the requests in order of arrival. Panics with the recorded requests if they are not as expected.
#[must_use = "await it"]
pub(crate) struct Expectation<'a> {
    receiver: &'a Receiver,
    /// `None` for all paths.
    path: Option<String>,
    count: Count,
    equal: Vec<Equal>,
    deadline: Duration,
    caller: &'static Location<'static>,
}

/// Requests that arrive later are not counted.
#[derive(Debug, Clone, Copy)]
enum Count {
    Exactly(usize),
    AtLeast(usize),
}

/// What all requests have in common.
#[derive(Debug, Clone, Copy)]
enum Equal {
    WebhookId,
    Body,
}

impl<'a> Expectation<'a> {
    #[track_caller]
    pub(super) fn new(receiver: &'a Receiver, path: Option<String>) -> Self {
        let (count, deadline, caller) = (Count::Exactly(1), DEFAULT_TIMEOUT, Location::caller());
        Self { receiver, path, count, equal: Vec::new(), deadline, caller }
    }

    pub(crate) fn times(self, count: usize) -> Self {
        Self { count: Count::Exactly(count), ..self }
    }

    pub(crate) fn at_least(self, count: usize) -> Self {
        Self { count: Count::AtLeast(count), ..self }
    }

    pub(crate) fn within(self, deadline: Duration) -> Self {
        Self { deadline, ..self }
    }

    /// All requests are attempts of one delivery.
    pub(crate) fn same_webhook_id(self) -> Self {
        self.equal(Equal::WebhookId)
    }

    pub(crate) fn same_body(self) -> Self {
        self.equal(Equal::Body)
    }

    fn equal(mut self, equal: Equal) -> Self {
        self.equal.push(equal);
        self
    }

    /// The requests, if enough arrived. Panics if there are too many.
    fn arrived(&self) -> Option<Vec<Request>> {
        let path = self.path.as_deref();
        let arrived = self.receiver.count_requests_to(path);
        match self.count {
            Count::Exactly(count) if arrived > count => self.fail("too many requests"),
            Count::Exactly(count) | Count::AtLeast(count) => {
                (arrived >= count).then(|| self.receiver.requests_to(path))
            }
        }
    }

    async fn wait(self) -> Vec<Request> {
        let Some(requests) = poll_until(self.deadline, async || self.arrived()).await else {
            self.fail(&format!("too few requests within {:?}", self.deadline))
        };
        for equal in &self.equal {
            let is_equal = match equal {
                Equal::WebhookId => all_equal(requests.iter().map(Request::webhook_id)),
                Equal::Body => all_equal(requests.iter().map(|request: &Request| -> &Bytes { &request.body })),
            };
            if !is_equal {
                self.fail(&format!("requests differ in {equal:?}"));
            }
        }
        requests
    }

    fn fail(&self, problem: &str) -> ! {
        let path = self.path.as_deref().unwrap_or("all paths");
        let (count, caller, recorded) = (self.count, self.caller, self.receiver.describe_requests());
        panic!("{problem} to {path}, expected {count:?} ({caller}): {recorded}");
    }
}

impl<'a> IntoFuture for Expectation<'a> {
    type Output = Vec<Request>;
    type IntoFuture = Pin<Box<dyn Future<Output = Vec<Request>> + 'a>>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(self.wait())
    }
}

fn all_equal<T: Ord>(values: impl Iterator<Item = T>) -> bool {
    values.collect::<BTreeSet<_>>().len() <= 1
}
