//! Requests that go through the egress proxy, which resolves names and dials.

use std::error::Error;
use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use reqwest::{Certificate, Client, Proxy, StatusCode, Url, redirect};
use rustls::pki_types::CertificateDer;
use secrecy::{ExposeSecret as _, SecretString};

use super::body;
use super::pool::IDLE_TIMEOUT;
use super::resolver::{GuardedResolver, Unresolved};
use super::timing::{Clock, Timed};
use super::{ANSWER_BYTES_KEPT, ANSWER_BYTES_READ, SenderError, failure};
use crate::delivery::egress::{EgressRules, Forbidden};
use crate::delivery::outcome::{Cause, Reply};
use crate::delivery::request::RequestBody;

/// The most header lines of an answer. hyper reads at most 400 KiB of them.
const MAX_HEADERS: usize = 4096;

/// Sends requests through the egress proxy.
#[derive(Clone)]
pub(super) struct Proxied {
    client: Client,
    /// Keeps no connection, so that each request has a new one.
    unpooled: Client,
}

impl Proxied {
    pub(super) fn new(
        proxy: &SecretString,
        rules: Arc<EgressRules>,
        connect_timeout: Duration,
        extra_roots: &[CertificateDer<'static>],
    ) -> Result<Self, SenderError> {
        let failed = |error: reqwest::Error| SenderError(describe(&error));
        let proxy = proxy.expose_secret();
        let host = Url::parse(proxy).ok().and_then(|url| url.host_str().map(str::to_owned));
        let resolver = GuardedResolver::new(rules, host);
        let client = |most_idle: usize| {
            let roots: Result<Vec<Certificate>, _> =
                extra_roots.iter().map(|root| Certificate::from_der(root)).collect();
            Client::builder()
                .proxy(Proxy::all(proxy)?)
                .dns_resolver(resolver.clone())
                .redirect(redirect::Policy::none())
                .referer(false)
                .retry(reqwest::retry::never())
                .connect_timeout(connect_timeout)
                .pool_idle_timeout(IDLE_TIMEOUT)
                .pool_max_idle_per_host(most_idle)
                .http1_max_headers(MAX_HEADERS)
                .http1_ignore_invalid_headers_in_responses(true)
                .http1_allow_spaces_after_header_name_in_responses(true)
                .http1_allow_obsolete_multiline_headers_in_responses(true)
                .tcp_nodelay(true)
                .connector_layer(Timed)
                .tls_certs_merge(roots?)
                .build()
        };
        Ok(Self { client: client(usize::MAX).map_err(failed)?, unpooled: client(0).map_err(failed)? })
    }

    /// Sends a request. If it was written to a kept connection that ended without an answer, it is sent once more, on a new one.
    /// `head` is the request without its body: reqwest can't clone a body of two parts.
    pub(super) async fn send(&self, head: reqwest::Request, body: Option<RequestBody>, clock: &Clock) -> Reply {
        let began = Instant::now();
        let request = || {
            let mut request = reqwest::Request::new(head.method().clone(), head.url().clone());
            *request.headers_mut() = head.headers().clone();
            *request.body_mut() = body.clone().map(body::from_request_body);
            *request.timeout_mut() = head.timeout().map(|timeout| timeout.saturating_sub(began.elapsed()));
            request
        };
        let mut sent = self.client.execute(request()).await;
        let has_ended = sent.as_ref().is_err_and(|error| cause_of(error) == Cause::Reset);
        if has_ended && clock.used_kept_connection() {
            clock.resent();
            sent = self.unpooled.execute(request()).await;
        }
        if sent.is_ok() {
            clock.answered();
        }
        match sent {
            // Of a plain http endpoint: the proxy asks for credentials in its place.
            Ok(answer) if answer.status() == StatusCode::PROXY_AUTHENTICATION_REQUIRED => {
                Reply::ProxyFailure { error: "the egress proxy (egress.proxy) wants credentials".to_owned() }
            }
            Ok(answer) => read(answer).await,
            Err(error) if is_the_proxys(&error) => {
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

/// The chain of causes behind an error, the error itself first. An `io::Error` made from another error passes it over
/// in its `source`, so that one is asked for.
fn chain(error: &reqwest::Error) -> impl Iterator<Item = &(dyn Error + 'static)> {
    let first: &(dyn Error + 'static) = error;
    std::iter::successors(Some(first), |error: &&(dyn Error + 'static)| {
        let error = *error;
        match error.downcast_ref::<io::Error>().and_then(io::Error::get_ref) {
            Some(within) => Some(within as &(dyn Error + 'static)),
            None => error.source(),
        }
    })
}

fn cause_of(error: &reqwest::Error) -> Cause {
    use io::ErrorKind::{BrokenPipe, ConnectionAborted, ConnectionReset, UnexpectedEof};
    let find = |test: &dyn Fn(&(dyn Error + 'static)) -> bool| chain(error).any(test);
    let io = |kinds: &[io::ErrorKind]| {
        find(&|error| error.downcast_ref::<io::Error>().is_some_and(|io| kinds.contains(&io.kind())))
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
