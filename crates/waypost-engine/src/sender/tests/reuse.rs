//! Tests that connections are reused, and that a request is sent again if a reused connection ends.

use std::sync::atomic::{AtomicUsize, Ordering};

use serde_json::json;
use waypost_core::request::render;
use waypost_core::{Delivery, document, event};

use super::raw_receiver::{RawAnswer, RawReceiver, RawRequest};
use super::*;

const TIMEOUT: Duration = Duration::from_secs(10);

/// Answers the first request of each connection, and does `second` with later ones.
fn on_reuse(second: RawAnswer) -> impl Fn(&RawRequest) -> RawAnswer + Send + Sync + 'static {
    move |request| if request.earlier == 0 { RawAnswer::ok() } else { second.clone() }
}

async fn post(sender: &Sender, receiver: &RawReceiver) -> SendResult {
    let headers =
        http::HeaderMap::from_iter([(http::header::CONTENT_TYPE, "application/json".parse().expect("a value"))]);
    let request = Request { url: receiver.url("/hook?a=1").into(), headers, body: b"{\"a\":1}".to_vec().into() };
    sender.send(request, TIMEOUT, &Span::none()).await.0
}

/// A request of a webhook with one extra parameter of this length.
fn request_with_parameters(url: &str, bytes: usize) -> Request {
    let webhook = json!({ "url": "https://example.com/", "body": { "a": "x".repeat(bytes) } });
    let campaign = json!({ "id": "1", "sections": [{ "label": "s", "webhook": webhook }] }).to_string();
    let campaign = document::read(campaign.as_bytes(), HttpUrls::Refused, None).expect("a campaign");
    let target = campaign.places().next().expect("a webhook").target();
    let event = json!({ "campaignId": "1", "label": "s", "phoneNumber": "1", "date": "2024-06-18T23:26:14Z" });
    let event = event::decode(event.to_string().as_bytes(), None).expect("an event");
    let rendered = render(&Delivery::new(event, target, None), chrono::Utc::now());
    Request { url: url.to_owned().into(), ..rendered }
}

/// Sends two requests one after the other and returns the result of the second.
async fn second_result(receiver: &RawReceiver) -> SendResult {
    let sender = sender_trusting(receiver);
    let first = post(&sender, receiver).await;
    assert_eq!(first.cause(), Cause::Ok, "{first:?}");
    post(&sender, receiver).await
}

#[tokio::test]
async fn if_a_reused_connection_ends_without_an_answer_the_request_is_sent_again() {
    let ends = [
        ("close", RawAnswer::close()),
        ("reset", RawAnswer::reset()),
        ("abrupt", RawAnswer::answer("").then_close_abruptly()),
    ];
    for (name, end) in ends {
        let receivers = [RawReceiver::start(on_reuse(end.clone())).await, RawReceiver::start_tls(on_reuse(end)).await];
        for receiver in receivers {
            let send_result = second_result(&receiver).await;
            assert_eq!(send_result.cause(), Cause::Ok, "{name}: {send_result:?}\n{}", receiver.describe_requests());
            assert_eq!(receiver.request_positions(), [(0, 0), (0, 1), (1, 0)], "{name}");
            let requests = receiver.requests();
            assert_eq!((&requests[1].head, &requests[1].body), (&requests[2].head, &requests[2].body), "{name}");
        }
    }
}

#[tokio::test]
async fn a_connection_closed_while_idle_is_not_used() {
    for end in [RawAnswer::ok().then_close(), RawAnswer::ok().then_close_abruptly()] {
        for receiver in RawReceiver::start_plain_and_tls(&end).await {
            let send_result = second_result(&receiver).await;
            assert_eq!(send_result.cause(), Cause::Ok, "{send_result:?}");
            assert_eq!(receiver.request_positions(), [(0, 0), (1, 0)]);
        }
    }
}

#[tokio::test]
async fn the_request_is_sent_again_on_a_new_connection_even_if_others_are_idle() {
    let receiver = RawReceiver::start(|request| {
        let wait = Duration::from_millis(100);
        if request.earlier == 0 { RawAnswer::ok().after(wait) } else { RawAnswer::close() }
    })
    .await;
    let sender = sender_trusting(&receiver);
    let together = [post(&sender, &receiver), post(&sender, &receiver), post(&sender, &receiver)];
    for send_result in futures_util::future::join_all(together).await {
        assert_eq!(send_result.cause(), Cause::Ok, "{send_result:?}");
    }
    let send_result = post(&sender, &receiver).await;
    assert_eq!(send_result.cause(), Cause::Ok, "{send_result:?}");
    let places = receiver.request_positions();
    assert_eq!((places.len(), places[3].1, places[4]), (5, 1, (3, 0)), "{places:?}");
}

#[tokio::test]
async fn a_request_is_sent_again_only_once() {
    let seen = AtomicUsize::new(0);
    let script = move |_: &RawRequest| {
        if seen.fetch_add(1, Ordering::Relaxed) == 0 { RawAnswer::ok() } else { RawAnswer::close() }
    };
    let receiver = RawReceiver::start(script).await;
    let send_result = second_result(&receiver).await;
    assert_eq!(send_result.cause(), Cause::Reset, "{send_result:?}");
    assert_eq!(receiver.request_positions(), [(0, 0), (0, 1), (1, 0)]);
}

#[tokio::test]
async fn a_new_connection_that_ends_without_an_answer_is_a_failure() {
    for receiver in
        [RawReceiver::start(|_| RawAnswer::close()).await, RawReceiver::start_tls(|_| RawAnswer::close()).await]
    {
        let send_result = post(&sender_trusting(&receiver), &receiver).await;
        assert_eq!(send_result.cause(), Cause::Reset, "{send_result:?}");
        assert_eq!(receiver.request_positions(), [(0, 0)]);
    }
}

#[tokio::test]
async fn after_the_first_byte_of_an_answer_the_request_is_not_sent_again() {
    for begun in ["H", "HTTP/1.1 2", "HTTP/1.1 100 Continue\r\n\r\n"] {
        let receiver = RawReceiver::start(on_reuse(RawAnswer::answer(begun).then_close())).await;
        let send_result = second_result(&receiver).await;
        assert_eq!(send_result.cause(), Cause::Reset, "{begun:?}: {send_result:?}");
        assert_eq!(receiver.request_positions(), [(0, 0), (0, 1)], "{begun:?}");
    }
}

#[tokio::test]
async fn the_timeout_covers_both_requests() {
    let seen = AtomicUsize::new(0);
    let receiver = RawReceiver::start(move |_| match seen.fetch_add(1, Ordering::Relaxed) {
        0 => RawAnswer::ok(),
        1 => RawAnswer::close().after(Duration::from_secs(1)),
        // In time for a timeout of its own.
        _ => RawAnswer::ok().after(Duration::from_millis(1_500)),
    })
    .await;
    let sender = sender_trusting(&receiver);
    post(&sender, &receiver).await;
    let (send_result, _) = sender.send(request(&receiver.url("/")), Duration::from_secs(2), &Span::none()).await;
    assert_eq!(send_result, SendResult::TimedOut { phase: RequestPhase::AwaitingResponse });
    assert_eq!(receiver.request_positions(), [(0, 0), (0, 1), (1, 0)]);
    // A reused connection that is only slow is not replaced.
    let slow = RawReceiver::start(on_reuse(RawAnswer::answer("").then_hang())).await;
    let sender = sender_trusting(&slow);
    post(&sender, &slow).await;
    let (send_result, _) = sender.send(request(&slow.url("/")), Duration::from_millis(300), &Span::none()).await;
    assert_eq!(send_result, SendResult::TimedOut { phase: RequestPhase::AwaitingResponse });
    assert_eq!(slow.request_positions(), [(0, 0), (0, 1)]);
}

#[tokio::test]
async fn a_connection_is_reused_only_if_the_end_of_the_answer_is_certain() {
    let ok = |headers: &str, body: &str| format!("HTTP/1.1 200 OK\r\n{headers}\r\n{body}");
    for (answer, is_reused) in [
        (ok("content-length: 2\r\n", "ok"), true),
        (ok("content-length : 2\r\nx: 1\r\n folded\r\n", "ok"), true),
        (ok("content-length: 2\r\ncontent-length: 2\r\n", "ok"), true),
        (ok("transfer-encoding: chunked\r\n", "2\r\nok\r\n0\r\n\r\n"), true),
        (ok("transfer-encoding: chunked\r\n", "2;x=y\r\nok\r\n0\r\ntrailer: 1\r\n\r\n"), true),
        ("HTTP/1.1 204 No Content\r\n\r\n".to_owned(), true),
        ("HTTP/1.1 204 No Content\r\ncontent-length: 0\r\n\r\n".to_owned(), true),
        ("HTTP/1.1 204 No Content\r\ncontent-length: 5\r\n\r\n".to_owned(), false),
        ("HTTP/1.1 204 No Content\r\ntransfer-encoding: chunked\r\n\r\n".to_owned(), false),
        ("HTTP/1.0 200 OK\r\nconnection: keep-alive\r\ncontent-length: 0\r\n\r\n".to_owned(), true),
        ("HTTP/1.0 200 OK\r\ncontent-length: 0\r\n\r\n".to_owned(), false),
        (ok("content-length: 2\r\nconnection: close\r\n", "ok"), false),
        (ok("content-length: 2\r\ncontent-length: 5\r\n", "ok"), false),
        (ok("content-length: 2\r\ntransfer-encoding: chunked\r\n", "2\r\nok\r\n0\r\n\r\n"), false),
        (ok("transfer-encoding: chunked\r\n", "zz\r\nok\r\n"), false),
        (ok("content-length: 2\r\n", "ok and more"), false),
        (ok("content-length: two\r\n", "ok"), false),
    ] {
        let receiver = RawReceiver::start({
            let answer = answer.clone();
            move |_| RawAnswer::answer(answer.as_str())
        })
        .await;
        let send_result = second_result(&receiver).await;
        assert_eq!(send_result.cause(), Cause::Ok, "{answer:?}: {send_result:?}");
        let expected = if is_reused { [(0, 0), (0, 1)] } else { [(0, 0), (1, 0)] };
        assert_eq!(receiver.request_positions(), expected, "{answer:?}");
    }
}

#[tokio::test]
async fn a_request_through_the_egress_proxy_is_also_sent_again() {
    for (parameter_bytes, has_two_parts) in [(1, false), (32 * 1024, true)] {
        let proxy = RawReceiver::start(on_reuse(RawAnswer::close())).await;
        let sender = sender_with(Vec::new(), Some(proxy.url("").into()));
        for _ in 0..2 {
            let request = request_with_parameters("http://hooks.invalid/", parameter_bytes);
            let [_, shared] = request.body.clone().into_parts();
            assert_eq!(!shared.is_empty(), has_two_parts, "{parameter_bytes} bytes");
            let (send_result, _) = sender.send(request, TIMEOUT, &Span::none()).await;
            assert_eq!(
                send_result.cause(),
                Cause::Ok,
                "{parameter_bytes} bytes: {send_result:?}\n{}",
                proxy.describe_requests()
            );
        }
        assert_eq!(proxy.request_positions(), [(0, 0), (0, 1), (1, 0)], "{parameter_bytes} bytes");
        let requests = proxy.requests();
        assert!(requests[1].body.len() > parameter_bytes, "{} bytes", requests[1].body.len());
        assert_eq!(requests[1].head, requests[2].head);
        assert!(requests[1].body == requests[2].body, "the bodies of {parameter_bytes} bytes differ");
    }
    let closing = RawReceiver::start(|_| RawAnswer::close()).await;
    let sender = sender_with(Vec::new(), Some(closing.url("").into()));
    let (send_result, _) = sender.send(request("http://hooks.invalid/"), TIMEOUT, &Span::none()).await;
    assert_eq!((send_result.cause(), closing.request_positions()), (Cause::Reset, vec![(0, 0)]), "{send_result:?}");
}
