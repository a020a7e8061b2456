//! Sends requests through the egress proxy, which resolves names and connects to receivers.

use std::error::Error;
use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use http::Uri;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::client::legacy::connect::proxy::Tunnel;
use reqwest::{Certificate, Client, Proxy, StatusCode, Url, redirect};
use rustls::pki_types::CertificateDer;
use secrecy::{ExposeSecret as _, SecretString};
use tower::Service;
use waypost_core::egress::{EgressError, EgressRules};
use waypost_core::outcome::{Cause, SendResult};
use waypost_core::request::RequestBody;

use super::body;
use super::pool::IDLE_TIMEOUT;
use super::resolver::{GuardedResolver, Unresolved};
use super::response::{RESPONSE_BYTES_KEPT, RESPONSE_BYTES_READ};
use super::timing::{RequestClock, TimingLayer};

/// Header lines of a response that are accepted. hyper reads at most 400 KiB of them.
const MAX_HEADERS: usize = 4096;

#[derive(Clone)]
pub(super) struct ProxiedClient {
    client: Client,
    /// Opens a new connection for each request.
    unpooled: Client,
}

impl ProxiedClient {
    pub(super) fn new(
        proxy: &SecretString,
        rules: Arc<EgressRules>,
        connect_timeout: Duration,
        extra_roots: &[CertificateDer<'static>],
    ) -> Result<Self, String> {
        let to_error = |error: reqwest::Error| describe(&error);
        let proxy = proxy.expose_secret();
        let host = Url::parse(proxy).ok().and_then(|url| url.host_str().map(str::to_owned));
        let resolver = GuardedResolver::new(rules, host);
        let client = |max_idle: usize| {
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
                .pool_max_idle_per_host(max_idle)
                .http1_max_headers(MAX_HEADERS)
                .http1_ignore_invalid_headers_in_responses(true)
                .http1_allow_spaces_after_header_name_in_responses(true)
                .http1_allow_obsolete_multiline_headers_in_responses(true)
                .tcp_nodelay(true)
                .connector_layer(TimingLayer)
                .tls_certs_merge(roots?)
                .build()
        };
        Ok(Self { client: client(usize::MAX).map_err(to_error)?, unpooled: client(0).map_err(to_error)? })
    }

    /// Sends a request. If a reused connection ends without a response, the request is sent again, on a new
    /// connection. `head` is the request without its body, because reqwest can't clone a body of two parts.
    pub(super) async fn send(
        &self,
        head: reqwest::Request,
        body: Option<RequestBody>,
        clock: &RequestClock,
    ) -> SendResult {
        let started = Instant::now();
        let request = || {
            let mut request = reqwest::Request::new(head.method().clone(), head.url().clone());
            *request.headers_mut() = head.headers().clone();
            *request.body_mut() = body.clone().map(body::to_reqwest_body);
            *request.timeout_mut() = head.timeout().map(|timeout| timeout.saturating_sub(started.elapsed()));
            request
        };
        let mut result = self.client.execute(request()).await;
        let was_closed = result.as_ref().is_err_and(|error| cause_of(error) == Cause::Reset);
        if was_closed && clock.is_connection_reused() {
            clock.record_resend();
            result = self.unpooled.execute(request()).await;
        }
        if result.is_ok() {
            clock.record_first_byte();
        }
        match result {
            // Only for http endpoints. The tunnel to an https endpoint fails with an error instead.
            Ok(answer) if answer.status() == StatusCode::PROXY_AUTHENTICATION_REQUIRED => SendResult::ProxyFailure {
                error: "the egress proxy (egress.proxy) requires credentials: add them to its URL".to_owned(),
            },
            Ok(answer) => read_response(answer).await,
            Err(error) if is_proxy_error(&error) => {
                SendResult::ProxyFailure { error: format!("the egress proxy (egress.proxy): {}", describe(&error)) }
            }
            Err(error) => match cause_of(&error) {
                Cause::Timeout => SendResult::TimedOut { phase: clock.phase() },
                Cause::Connect if error.is_timeout() => {
                    SendResult::NotConnected { phase: clock.phase(), error: describe(&error) }
                }
                cause => SendResult::failure(cause, describe(&error)),
            },
        }
    }
}

/// Why the proxy did not make the tunnel to an https endpoint. hyper-util has no other name for this type.
type TunnelError = <Tunnel<HttpConnector> as Service<Uri>>::Error;

/// Whether the proxy itself failed. If the proxy answers that it can't reach the endpoint, that is an error of the
/// endpoint.
fn is_proxy_error(error: &reqwest::Error) -> bool {
    match error_chain(error).find_map(|error| error.downcast_ref::<TunnelError>()) {
        Some(TunnelError::TunnelUnsuccessful) => false,
        Some(TunnelError::ConnectFailed(_) | TunnelError::ProxyAuthRequired) => true,
        _ => error.is_connect() && matches!(cause_of(error), Cause::Connect | Cause::Dns),
    }
}

/// Reads the response's body, so that the connection can be used again, and keeps the beginning. Errors of the body are
/// ignored.
async fn read_response(mut answer: reqwest::Response) -> SendResult {
    let status = answer.status().as_u16();
    let header = answer.headers().get(http::header::RETRY_AFTER);
    let retry_after = header.and_then(|value| value.to_str().ok()).map(str::to_owned);
    let mut read = 0;
    let mut body = Vec::new();
    while read < RESPONSE_BYTES_READ
        && let Ok(Some(chunk)) = answer.chunk().await
    {
        read += chunk.len();
        let remaining = RESPONSE_BYTES_KEPT - body.len();
        body.extend_from_slice(&chunk[..chunk.len().min(remaining)]);
    }
    SendResult::Response { status, retry_after, body }
}

/// The error and its causes. An `io::Error` that wraps another error skips that error in its `source`, so the wrapped
/// error is read directly.
fn error_chain(error: &reqwest::Error) -> impl Iterator<Item = &(dyn Error + 'static)> {
    let first: &(dyn Error + 'static) = error;
    std::iter::successors(Some(first), |error: &&(dyn Error + 'static)| {
        let error = *error;
        match error.downcast_ref::<io::Error>().and_then(io::Error::get_ref) {
            Some(inner) => Some(inner as &(dyn Error + 'static)),
            None => error.source(),
        }
    })
}

fn cause_of(error: &reqwest::Error) -> Cause {
    use io::ErrorKind::{BrokenPipe, ConnectionAborted, ConnectionReset, UnexpectedEof};
    let find = |test: &dyn Fn(&(dyn Error + 'static)) -> bool| error_chain(error).any(test);
    let io = |kinds: &[io::ErrorKind]| {
        find(&|error| error.downcast_ref::<io::Error>().is_some_and(|io| kinds.contains(&io.kind())))
    };
    let hyper = |test: fn(&hyper::Error) -> bool| find(&|error| error.downcast_ref::<hyper::Error>().is_some_and(test));
    if find(&|error| error.is::<EgressError>()) {
        Cause::ForbiddenAddress
    } else if find(&|error| error.is::<Unresolved>()) {
        Cause::Dns
    } else if find(&|error| error.is::<rustls::Error>()) {
        Cause::Tls
    } else if error.is_connect() {
        // Only the TLS handshake reads while connecting, so an unexpected end is one of TLS.
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

/// The texts of the causes. The outermost error is left out because it contains the URL, which may contain a secret.
fn describe(error: &reqwest::Error) -> String {
    let mut texts: Vec<String> = error_chain(error).skip(1).map(ToString::to_string).collect();
    texts.dedup();
    texts.join(": ")
}
