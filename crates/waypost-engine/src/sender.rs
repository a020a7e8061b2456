//! Sends requests to webhooks, directly or through the egress proxy. No other module connects to customers' endpoints.

mod body;
pub(crate) mod deadline_timer;
mod dial;
mod direct;
mod pool;
mod proxied;
mod resolver;
pub mod response;
mod socket;
mod timing;

use std::sync::Arc;
use std::time::Duration;

use reqwest::Method;
use rustls::pki_types::CertificateDer;
use secrecy::SecretString;
use tokio::time::Instant;
use tracing::Span;
use url::Url;
use waypost_core::egress::EgressRules;
use waypost_core::outcome::{Cause, RequestTiming, SendResult};
use waypost_core::request::Request;

use dial::Dialer;
use direct::DirectClient;
use proxied::ProxiedClient;
use resolver::GuardedResolver;
pub use response::RESPONSE_BYTES_KEPT;
use timing::RequestClock;

/// Sends requests. Cheap to clone.
#[derive(Clone)]
pub struct Sender {
    rules: Arc<EgressRules>,
    route: EgressRoute,
}

#[derive(Clone)]
enum EgressRoute {
    Direct(Arc<DirectClient>),
    /// Through the egress proxy, which resolves names. Only the URL itself is checked here.
    Proxied(ProxiedClient),
}

pub struct SenderSettings {
    pub rules: EgressRules,
    /// Includes the TLS handshake.
    pub connect_timeout: Duration,
    /// Certificate authorities that are trusted in addition to the system's.
    pub extra_roots: Vec<CertificateDer<'static>>,
    /// The URL of the egress proxy, which may contain a password.
    pub proxy: Option<SecretString>,
}

#[derive(Debug, thiserror::Error)]
#[error("the HTTP client for webhooks could not be created: {0}")]
pub struct SenderError(String);

impl Sender {
    /// Creates a sender with its own connection pool.
    ///
    /// # Errors
    /// For example if the system has no certificates.
    pub fn new(settings: SenderSettings) -> Result<Self, SenderError> {
        let SenderSettings { rules, connect_timeout, extra_roots, proxy } = settings;
        let rules = Arc::new(rules);
        let route = match proxy {
            Some(proxy) => {
                let client = ProxiedClient::new(&proxy, rules.clone(), connect_timeout, &extra_roots);
                EgressRoute::Proxied(client.map_err(SenderError)?)
            }
            None => {
                let dialer = Dialer::new(GuardedResolver::new(rules.clone(), None), extra_roots)
                    .map_err(|error| SenderError(error.to_string()))?;
                EgressRoute::Direct(Arc::new(DirectClient::new(dialer, connect_timeout)))
            }
        };
        Ok(Self { rules, route })
    }

    /// Sends a request and waits at most `timeout` for its response. The parts of the request get spans below `span`.
    pub async fn send(&self, request: Request, timeout: Duration, span: &Span) -> (SendResult, RequestTiming) {
        let Some(url) = request.url.url() else {
            return (
                SendResult::failure(Cause::Protocol, "the webhook's URL is not valid".to_owned()),
                RequestTiming::default(),
            );
        };
        if let Err(forbidden) = self.rules.check(url) {
            return (SendResult::failure(Cause::ForbiddenAddress, forbidden.to_string()), RequestTiming::default());
        }
        let clock = RequestClock::start(span.clone());
        let send_result = match &self.route {
            EgressRoute::Direct(direct) => {
                let deadline = Instant::now() + timeout;
                direct.post(url, &request.headers, request.body, deadline, &clock).await
            }
            EgressRoute::Proxied(proxied) => {
                let mut head = reqwest::Request::new(Method::POST, url.clone());
                *head.headers_mut() = request.headers;
                *head.timeout_mut() = Some(timeout);
                Box::pin(clock.time(proxied.send(head, Some(request.body), &clock))).await
            }
        };
        (send_result, clock.timing())
    }

    /// Checks that a server answers at a URL, whatever its response. Sends only a HEAD request.
    pub async fn probe(&self, url: &Url, timeout: Duration) -> SendResult {
        if let Err(forbidden) = self.rules.check(url) {
            return SendResult::failure(Cause::ForbiddenAddress, forbidden.to_string());
        }
        let clock = RequestClock::start(Span::none());
        match &self.route {
            EgressRoute::Direct(direct) => direct.head(url, Instant::now() + timeout, &clock).await,
            EgressRoute::Proxied(proxied) => {
                let mut head = reqwest::Request::new(Method::HEAD, url.clone());
                *head.timeout_mut() = Some(timeout);
                clock.time(proxied.send(head, None, &clock)).await
            }
        }
    }
}

#[cfg(test)]
mod tests;
