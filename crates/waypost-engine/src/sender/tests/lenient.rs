//! Tests that the status of an unusual response counts.

use std::time::Instant;

use super::raw_receiver::{RawAnswer, RawReceiver};
use super::*;

const TIMEOUT: Duration = Duration::from_secs(30);

/// Longer than a busy machine needs, and shorter than a response that is read until the timeout.
const BEFORE_TIMEOUT: Duration = Duration::from_secs(15);

async fn result_of(answer: RawAnswer) -> SendResult {
    let receiver = RawReceiver::start(move |_| answer.clone()).await;
    sender().send(request(&receiver.url("/")), TIMEOUT, &Span::none()).await.0
}

async fn proxied_result_of(answer: RawAnswer) -> SendResult {
    let proxy = RawReceiver::start(move |_| answer.clone()).await;
    let sender = sender_with(Vec::new(), Some(proxy.url("").into()));
    sender.send(request("http://hooks.invalid/"), TIMEOUT, &Span::none()).await.0
}

fn ok(headers: &[u8]) -> Vec<u8> {
    [b"HTTP/1.1 200 OK\r\n", headers, b"retry-after: 7\r\ncontent-length: 2\r\n\r\nok"].concat()
}

#[tokio::test]
async fn unusual_header_lines_change_nothing() {
    let many: String = (0..4000).map(|number| format!("x-{number}: value\r\n")).collect();
    let long = format!("x-long: {}\r\n", "v".repeat(300_000));
    let expected = SendResult::Response { status: 200, retry_after: Some("7".to_owned()), body: b"ok".to_vec() };
    for headers in [
        &b""[..],
        many.as_bytes(),
        b"x-spaced : 1\r\n",
        b"x-folded: one\r\n two\r\n\tthree\r\n",
        b" folded onto nothing\r\n",
        b"x invalid: 1\r\n: no name\r\nno colon\r\n(x): 1\r\n\x80\x81: 1\r\n",
        b"x: a\x01b\x7f\r\n",
        b"x: \xe9\xff\r\n",
    ] {
        for send_result in
            [result_of(RawAnswer::answer(ok(headers))).await, proxied_result_of(RawAnswer::answer(ok(headers))).await]
        {
            assert_eq!(send_result, expected, "{:?}", String::from_utf8_lossy(&headers[..headers.len().min(100)]));
        }
    }
    let bare = b"HTTP/1.1 200 OK\nx: 1\nretry-after: 7\ncontent-length: 2\n\nok";
    assert_eq!(result_of(RawAnswer::answer(bare)).await, expected);
    // hyper, which is used with a proxy, refuses these.
    assert_eq!(result_of(RawAnswer::answer(ok(long.as_bytes()))).await, expected);
    assert_eq!(result_of(RawAnswer::answer(ok(b"x: a\x00b\r\n\x00: 1\r\n"))).await, expected);
}

#[tokio::test]
async fn contradictory_lengths_do_not_change_the_status() {
    for headers in [
        "content-length: 0\r\ncontent-length: 7\r\n",
        "content-length: 0, 7\r\n",
        "content-length: -1\r\n",
        "content-length: 99999999999999999999999\r\n",
        "content-length: 0\r\ntransfer-encoding: chunked\r\n",
        "transfer-encoding: gzip, what\r\n",
    ] {
        for status in [200, 503] {
            let answer = format!("HTTP/1.1 {status} Fine\r\n{headers}\r\n");
            let SendResult::Response { status: read, .. } =
                result_of(RawAnswer::answer(answer.as_str()).then_close()).await
            else {
                panic!("no response: {headers:?}");
            };
            assert_eq!(read, status, "{headers:?}");
        }
    }
    // It does not take long even if the receiver keeps the connection open.
    for headers in ["content-length: 0\r\ncontent-length: 7\r\n", "content-length: none\r\n"] {
        let started = Instant::now();
        let send_result = result_of(RawAnswer::answer(format!("HTTP/1.1 200 OK\r\n{headers}\r\n"))).await;
        assert_eq!(send_result.cause(), Cause::Ok, "{headers:?}: {send_result:?}");
        assert!(started.elapsed() < BEFORE_TIMEOUT, "{headers:?}: {:?}", started.elapsed());
    }
}

#[tokio::test]
async fn a_transfer_coding_in_http_1_0_does_not_change_the_status() {
    let answer = "HTTP/1.0 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n";
    let send_result = result_of(RawAnswer::answer(answer)).await;
    assert_eq!(send_result, SendResult::Response { status: 200, retry_after: None, body: b"ok".to_vec() });
}

#[tokio::test]
async fn interim_answers_are_skipped() {
    let interim = "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nlink: </a>\r\nretry-after: 1\r\n\r\n\
        HTTP/1.1 102 Processing\r\n\r\n";
    for status in [200, 500] {
        let answer = format!("{interim}HTTP/1.1 {status} Final\r\ncontent-length: 1\r\n\r\nx");
        let expected = SendResult::Response { status, retry_after: None, body: b"x".to_vec() };
        assert_eq!(result_of(RawAnswer::answer(answer.as_str())).await, expected);
        assert_eq!(proxied_result_of(RawAnswer::answer(answer.as_str())).await, expected);
    }
}

#[tokio::test]
async fn a_protocol_switch_is_a_protocol_error() {
    let switch = "HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n";
    for send_result in [result_of(RawAnswer::answer(switch)).await, proxied_result_of(RawAnswer::answer(switch)).await]
    {
        assert!(matches!(send_result, SendResult::Response { status: 101, .. }), "{send_result:?}");
        assert_eq!(send_result.cause(), Cause::Protocol);
    }
}

#[tokio::test]
async fn an_answer_without_a_status_line_is_a_protocol_error() {
    for answer in [
        "SSH-2.0-OpenSSH\r\n",
        "HTTP/2 200\r\n\r\n",
        "HTTP/1.1 20\r\n\r\n",
        "HTTP/1.1 2000 OK\r\n\r\n",
        "200 OK\r\n\r\n",
    ] {
        let send_result = result_of(RawAnswer::answer(answer)).await;
        assert_eq!(send_result.cause(), Cause::Protocol, "{answer:?}: {send_result:?}");
    }
}

#[tokio::test]
async fn a_status_counts_even_if_the_headers_are_cut_or_never_end() {
    let cut = RawAnswer::answer("HTTP/1.1 200 OK\r\ncontent-le");
    assert_eq!(result_of(cut.clone().then_close()).await.cause(), Cause::Ok);
    assert_eq!(
        {
            let receiver = RawReceiver::start(move |_| cut.clone().then_hang()).await;
            sender().send(request(&receiver.url("/")), Duration::from_millis(500), &Span::none()).await.0.cause()
        },
        Cause::Ok
    );
    let flood = "x: y\r\n".repeat(response::HEADER_BYTES_READ / 3);
    let started = Instant::now();
    let send_result = result_of(RawAnswer::answer(format!("HTTP/1.1 503 Busy\r\nretry-after: 9\r\n{flood}"))).await;
    assert_eq!(send_result, SendResult::Response { status: 503, retry_after: Some("9".to_owned()), body: Vec::new() });
    assert!(started.elapsed() < BEFORE_TIMEOUT, "{:?}", started.elapsed());
}

#[tokio::test]
async fn an_answer_before_the_request_is_complete_counts() {
    // Larger than the buffers of both sides.
    let body = vec![b'x'; 32 * 1024 * 1024];
    let too_large =
        || RawAnswer::answer("HTTP/1.1 413 Too Large\r\ncontent-length: 4\r\n\r\nmuch").without_reading_body();
    for end in [too_large().then_close(), too_large().then_hang(), too_large().then_close_abruptly()] {
        for receiver in RawReceiver::start_plain_and_tls(&end).await {
            let request = Request { body: body.clone().into(), ..request(&receiver.url("/")) };
            let (send_result, _) = sender_trusting(&receiver).send(request, TIMEOUT, &Span::none()).await;
            assert_eq!(send_result, SendResult::Response { status: 413, retry_after: None, body: b"much".to_vec() });
        }
    }
    // If the connection ends, hyper may notice that before it has read the response.
    let proxy = RawReceiver::start(move |_| too_large().then_hang()).await;
    let sender = sender_with(Vec::new(), Some(proxy.url("").into()));
    let request = Request { body: body.into(), ..request("http://hooks.invalid/") };
    let (send_result, _) = sender.send(request, TIMEOUT, &Span::none()).await;
    assert_eq!(send_result, SendResult::Response { status: 413, retry_after: None, body: b"much".to_vec() });
}

#[tokio::test]
async fn an_untrusted_certificate_is_refused() {
    let receiver = RawReceiver::start_tls(|_| RawAnswer::ok()).await;
    let (send_result, _) = sender().send(request(&receiver.url("/")), TIMEOUT, &Span::none()).await;
    assert_eq!(send_result.cause(), Cause::Tls, "{send_result:?}");
    let (send_result, _) = sender_trusting(&receiver).send(request(&receiver.url("/")), TIMEOUT, &Span::none()).await;
    assert_eq!(send_result.cause(), Cause::Ok, "{send_result:?}");
    let by_address = receiver.url("/").replace("localhost", "127.0.0.1");
    let (send_result, _) = sender_trusting(&receiver).send(request(&by_address), TIMEOUT, &Span::none()).await;
    assert_eq!(send_result.cause(), Cause::Tls, "the certificate is for localhost: {send_result:?}");
    assert!(receiver.requests().len() == 1, "{}", receiver.describe_requests());
}

#[tokio::test]
async fn a_probe_accepts_any_answer_and_reads_no_body() {
    let receiver = RawReceiver::start(|_| RawAnswer::answer("HTTP/1.1 405 No\r\ncontent-length: 100\r\n\r\n")).await;
    let url = Url::parse(&receiver.url("/")).expect("a URL");
    let send_result = sender().probe(&url, Duration::from_secs(5)).await;
    assert_eq!(send_result, SendResult::Response { status: 405, retry_after: None, body: Vec::new() });
    assert!(receiver.requests()[0].head.starts_with("HEAD / HTTP/1.1\r\n"), "{}", receiver.describe_requests());
}
