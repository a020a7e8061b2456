//! Sending a request to a webhook: the only room that speaks to customers' endpoints.

pub mod answer;
mod body;
mod dial;
mod direct;
mod pool;
mod proxied;
mod resolver;
mod stream;
mod timing;

use std::sync::Arc;
use std::time::Duration;

use reqwest::Method;
use rustls::pki_types::CertificateDer;
use secrecy::SecretString;
use tokio::time::Instant;
use tracing::Span;
use url::Url;

use crate::delivery::egress::EgressRules;
use crate::delivery::outcome::{Cause, Reply, Stages};
use crate::delivery::request::Request;
use dial::Dialer;
use direct::Direct;
use proxied::Proxied;
use resolver::GuardedResolver;
use timing::Clock;

/// The most that is read of an answer's body. The rest of a longer one costs us the connection.
const ANSWER_BYTES_READ: usize = 64 * 1024;

/// The most that is kept of an answer, for whoever asks why a delivery failed.
pub const ANSWER_BYTES_KEPT: usize = 1024;

/// Sends requests. Cheap to clone.
#[derive(Clone)]
pub struct Sender {
    rules: Arc<EgressRules>,
    route: Route,
}

/// How requests leave.
#[derive(Clone)]
enum Route {
    /// To the endpoint itself.
    Direct(Arc<Direct>),
    /// Through the egress proxy: only what can be seen of a URL is checked here.
    Proxied(Proxied),
}

/// What sending needs to know.
pub struct SenderSettings {
    /// Which addresses may be dialled.
    pub rules: EgressRules,
    /// How long a connection may take to be made.
    pub connect_timeout: Duration,
    /// Authorities trusted beside the system's.
    pub extra_roots: Vec<CertificateDer<'static>>,
    /// What all requests go through.
    pub proxy: Option<SecretString>,
}

/// No client could be made of the settings.
#[derive(Debug, thiserror::Error)]
#[error("no HTTP client: {0}")]
pub struct SenderError(String);

impl Sender {
    /// A sender with its own pool of connections.
    ///
    /// # Errors
    /// [`SenderError`], if the system has no certificates, for example.
    pub fn new(settings: SenderSettings) -> Result<Self, SenderError> {
        let SenderSettings { rules, connect_timeout, extra_roots, proxy } = settings;
        let rules = Arc::new(rules);
        let route = match proxy {
            Some(proxy) => Route::Proxied(Proxied::new(&proxy, rules.clone(), connect_timeout, &extra_roots)?),
            None => {
                let dialer = Dialer::new(GuardedResolver::new(rules.clone(), None), extra_roots)
                    .map_err(|error| SenderError(error.to_string()))?;
                Route::Direct(Arc::new(Direct::new(dialer, connect_timeout)))
            }
        };
        Ok(Self { rules, route })
    }

    /// Sends a request and waits for its answer, at most `timeout`; tells how long its parts took, also below the attempt's span.
    pub async fn send(&self, request: Request, timeout: Duration, span: &Span) -> (Reply, Stages) {
        let Some(url) = request.url.url() else {
            return (failure(Cause::Protocol, "the URL can't be read".to_owned()), Stages::default());
        };
        if let Err(forbidden) = self.rules.check(url) {
            return (failure(Cause::ForbiddenAddress, forbidden.to_string()), Stages::default());
        }
        let clock = Clock::start(span.clone());
        let reply = match &self.route {
            Route::Direct(direct) => {
                let deadline = Instant::now() + timeout;
                clock.time(direct.post(url, &request.headers, request.body, deadline, &clock)).await
            }
            Route::Proxied(proxied) => {
                let mut outgoing = reqwest::Request::new(Method::POST, url.clone());
                *outgoing.headers_mut() = request.headers;
                *outgoing.timeout_mut() = Some(timeout);
                clock.time(proxied.send(outgoing, Some(request.body), &clock)).await
            }
        };
        (reply, clock.stages())
    }

    /// Asks whether there is anybody at a URL: any answer will do. Nothing is posted.
    pub async fn probe(&self, url: &Url, timeout: Duration) -> Reply {
        if let Err(forbidden) = self.rules.check(url) {
            return failure(Cause::ForbiddenAddress, forbidden.to_string());
        }
        let clock = Clock::start(Span::none());
        match &self.route {
            Route::Direct(direct) => clock.time(direct.head(url, Instant::now() + timeout, &clock)).await,
            Route::Proxied(proxied) => {
                let mut outgoing = reqwest::Request::new(Method::HEAD, url.clone());
                *outgoing.timeout_mut() = Some(timeout);
                clock.time(proxied.send(outgoing, None, &clock)).await
            }
        }
    }
}

fn failure(cause: Cause, error: String) -> Reply {
    Reply::Failure { cause, error }
}

#[cfg(test)]
mod tests;
