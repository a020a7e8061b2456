//! Sending a request to a webhook: the only room that speaks to customers' endpoints.

mod body;
mod resolver;
mod stages;

use std::error::Error;
use std::sync::Arc;
use std::time::Duration;

use reqwest::{Certificate, Client, Method, Proxy, StatusCode, Url, redirect};
use rustls::pki_types::CertificateDer;
use secrecy::{ExposeSecret as _, SecretString};
use tracing::Span;

use crate::delivery::egress::{EgressRules, Forbidden};
use crate::delivery::outcome::{Cause, Reply, Stages};
use crate::delivery::request::Request;
use resolver::{GuardedResolver, Unresolved};
use stages::{Clock, Timed};

/// The most that is read of an answer. The rest of a longer one costs us the connection.
const ANSWER_BYTES_READ: usize = 64 * 1024;

/// The most that is kept of an answer, for whoever asks why a delivery failed.
pub const ANSWER_BYTES_KEPT: usize = 1024;

/// An idle connection is kept this long, below the minute or more after which most servers close theirs.
const IDLE_TIMEOUT: Duration = Duration::from_secs(30);

/// Sends requests. Cheap to clone.
#[derive(Clone)]
pub struct Sender {
    client: Client,
    rules: Arc<EgressRules>,
    route: Route,
}

/// How requests leave.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Route {
    /// To the endpoint itself.
    Direct,
    /// Through the egress proxy, which resolves names and dials: only what can be seen of a URL is checked here.
    Proxy,
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
    /// [`SenderError`], where the system has no certificates, for one.
    pub fn new(settings: SenderSettings) -> Result<Self, SenderError> {
        let failed = |error: reqwest::Error| SenderError(describe(&error));
        let rules = Arc::new(settings.rules);
        let roots: Result<Vec<Certificate>, _> =
            settings.extra_roots.iter().map(|root| Certificate::from_der(root)).collect();
        let (route, proxy_host) = match &settings.proxy {
            Some(url) => {
                (Route::Proxy, Url::parse(url.expose_secret()).ok().and_then(|url| url.host_str().map(str::to_owned)))
            }
            None => (Route::Direct, None),
        };
        let builder = Client::builder();
        let builder = match &settings.proxy {
            Some(url) => builder.proxy(Proxy::all(url.expose_secret()).map_err(failed)?),
            // Those of the environment are not ours.
            None => builder.no_proxy(),
        };
        let client = builder
            .dns_resolver(GuardedResolver::new(rules.clone(), proxy_host))
            .redirect(redirect::Policy::none())
            .referer(false)
            .retry(reqwest::retry::never())
            .connect_timeout(settings.connect_timeout)
            .pool_idle_timeout(IDLE_TIMEOUT)
            .tcp_nodelay(true)
            .connector_layer(Timed)
            .tls_certs_merge(roots.map_err(failed)?);
        Ok(Self { client: client.build().map_err(failed)?, rules, route })
    }

    /// Sends a request and waits for its answer, at most `timeout`; tells how long its parts took, also below the attempt's span.
    pub async fn send(&self, request: Request, timeout: Duration, span: &Span) -> (Reply, Stages) {
        let Some(url) = request.url.url() else {
            return (failure(Cause::Protocol, "the URL can't be read".to_owned()), Stages::default());
        };
        if let Err(forbidden) = self.rules.check(url) {
            return (failure(Cause::ForbiddenAddress, forbidden.to_string()), Stages::default());
        }
        let mut outgoing = reqwest::Request::new(Method::POST, url.clone());
        *outgoing.headers_mut() = request.headers;
        *outgoing.body_mut() = Some(body::of(request.body));
        *outgoing.timeout_mut() = Some(timeout);
        let clock = Clock::start(span.clone());
        let reply = clock.time(self.exchange(outgoing, &clock)).await;
        (reply, clock.stages())
    }

    /// Asks whether there is anybody at a URL: any answer will do. Nothing is posted.
    pub async fn probe(&self, url: &Url, timeout: Duration) -> Reply {
        if let Err(forbidden) = self.rules.check(url) {
            return failure(Cause::ForbiddenAddress, forbidden.to_string());
        }
        let mut outgoing = reqwest::Request::new(Method::HEAD, url.clone());
        *outgoing.timeout_mut() = Some(timeout);
        let clock = Clock::start(Span::none());
        clock.time(self.exchange(outgoing, &clock)).await
    }

    async fn exchange(&self, outgoing: reqwest::Request, clock: &Clock) -> Reply {
        let sent = self.client.execute(outgoing).await;
        if sent.is_ok() {
            clock.answered();
        }
        match sent {
            // Of a plain http endpoint: the proxy asks for credentials in its place.
            Ok(answer)
                if self.route == Route::Proxy && answer.status() == StatusCode::PROXY_AUTHENTICATION_REQUIRED =>
            {
                Reply::ProxyFailure { error: "the egress proxy (egress.proxy) wants credentials".to_owned() }
            }
            Ok(answer) => read(answer).await,
            Err(error) if self.route == Route::Proxy && is_the_proxys(&error) => {
                Reply::ProxyFailure { error: format!("the egress proxy (egress.proxy): {}", describe(&error)) }
            }
            Err(error) => match cause_of(&error) {
                Cause::Timeout => Reply::TimedOut { phase: clock.phase() },
                Cause::Connect if error.is_timeout() => {
                    Reply::NotConnected { phase: clock.phase(), error: describe(&error) }
                }
                cause => failure(cause, describe(&error)),
            },
        }
    }
}

/// Whether the proxy itself could not be reached or spoken to. Where it was, and says that the endpoint can't be reached, that is
/// the endpoint's. (The type of these errors is not public; their words are those of hyper-util.)
fn is_the_proxys(error: &reqwest::Error) -> bool {
    let says = |words: &str| chain(error).any(|error| error.to_string().contains(words));
    if says("tunnel error: unsuccessful") {
        return false;
    }
    let is_tunnels = says("tunnel error: failed to create underlying connection")
        || says("tunnel error: proxy authorization required");
    is_tunnels || error.is_connect() && matches!(cause_of(error), Cause::Connect | Cause::Dns)
}

/// Reads the answer's body, so that its connection can be used again, and keeps the beginning. Once there is a status
/// it counts, whatever becomes of the body.
async fn read(mut answer: reqwest::Response) -> Reply {
    let status = answer.status().as_u16();
    let header = answer.headers().get(http::header::RETRY_AFTER);
    let retry_after = header.and_then(|value| value.to_str().ok()).map(str::to_owned);
    let mut read = 0;
    let mut body = Vec::new();
    while read < ANSWER_BYTES_READ
        && let Ok(Some(chunk)) = answer.chunk().await
    {
        read += chunk.len();
        let room = ANSWER_BYTES_KEPT - body.len();
        body.extend_from_slice(&chunk[..chunk.len().min(room)]);
    }
    Reply::Answer { status, retry_after, body }
}

fn failure(cause: Cause, error: String) -> Reply {
    Reply::Failure { cause, error }
}

/// The chain of causes behind an error, the error itself first. An `io::Error` made from another error passes it over
/// in its `source`, so that one is asked for.
fn chain(error: &reqwest::Error) -> impl Iterator<Item = &(dyn Error + 'static)> {
    let first: &(dyn Error + 'static) = error;
    std::iter::successors(Some(first), |error: &&(dyn Error + 'static)| {
        let error = *error;
        match error.downcast_ref::<std::io::Error>().and_then(std::io::Error::get_ref) {
            Some(within) => Some(within as &(dyn Error + 'static)),
            None => error.source(),
        }
    })
}

fn cause_of(error: &reqwest::Error) -> Cause {
    use std::io::ErrorKind::{BrokenPipe, ConnectionAborted, ConnectionReset, UnexpectedEof};
    let find = |test: &dyn Fn(&(dyn Error + 'static)) -> bool| chain(error).any(test);
    let io = |kinds: &[std::io::ErrorKind]| {
        find(&|error| error.downcast_ref::<std::io::Error>().is_some_and(|io| kinds.contains(&io.kind())))
    };
    let hyper = |test: fn(&hyper::Error) -> bool| find(&|error| error.downcast_ref::<hyper::Error>().is_some_and(test));
    if find(&|error| error.is::<Forbidden>()) {
        Cause::ForbiddenAddress
    } else if find(&|error| error.is::<Unresolved>()) {
        Cause::Dns
    } else if find(&|error| error.is::<rustls::Error>()) {
        Cause::Tls
    } else if error.is_connect() {
        // While connecting only TLS reads, so only TLS can meet an end.
        if io(&[UnexpectedEof]) { Cause::Tls } else { Cause::Connect }
    } else if error.is_timeout() {
        Cause::Timeout
    } else if io(&[ConnectionReset, ConnectionAborted, BrokenPipe, UnexpectedEof])
        || hyper(|error| error.is_incomplete_message() || error.is_canceled() || error.is_closed())
    {
        Cause::Reset
    } else {
        Cause::Protocol
    }
}

/// The innermost causes, without the URL, which may carry a secret.
fn describe(error: &reqwest::Error) -> String {
    let mut words: Vec<String> = chain(error).skip(1).map(ToString::to_string).collect();
    words.dedup();
    words.join(": ")
}

#[cfg(test)]
mod tests;
