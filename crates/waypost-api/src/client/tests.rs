//! The client against a server that answers as a test wants.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::mpsc::{Receiver, channel};

use serde_json::{Value, json};
use waypost_core::dead_letter::LetterState;
use waypost_core::dead_letter::filter::LetterFilter;
use waypost_core::replay::{ReplayCommand, ReplayState};

use super::*;
use crate::dead_letters::discard::DiscardRequest;
use crate::replays::CreateReplay;

/// Answers one request after the other, each on a connection of its own.
struct Server {
    url: Url,
    requests: Receiver<Received>,
}

#[derive(Debug)]
struct Received {
    /// Method and path.
    line: String,
    headers: Vec<String>,
    body: String,
}

impl Received {
    fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "))
    }

    fn json(&self) -> Value {
        serde_json::from_str(&self.body).expect("JSON")
    }
}

/// Status line and further headers, and the body.
type Reply = (&'static str, String);

impl Server {
    fn with_replies(replies: Vec<Reply>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let url = format!("http://{}", listener.local_addr().expect("an address")).parse().expect("a URL");
        let (sender, requests) = channel();
        std::thread::spawn(move || {
            for (head, body) in replies {
                let (mut stream, _) = listener.accept().expect("a connection");
                // The test may have ended.
                let _ = sender.send(receive(&stream));
                let length = body.len();
                let response =
                    format!("HTTP/1.1 {head}\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n{body}");
                stream.write_all(response.as_bytes()).expect("the client reads");
            }
        });
        Self { url, requests }
    }

    fn with_reply(head: &'static str, body: &str) -> Self {
        Self::with_replies(vec![(head, body.to_owned())])
    }

    fn client(&self) -> Client {
        client(self.url.clone(), None)
    }

    fn request(&self) -> Received {
        self.requests.recv().expect("a request")
    }
}

fn receive(stream: &TcpStream) -> Received {
    let mut reader = BufReader::new(stream);
    let mut lines = Vec::new();
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).expect("a line");
        match line.trim_end() {
            "" => break,
            line => lines.push(line.to_owned()),
        }
    }
    let line = lines.remove(0).trim_end_matches(" HTTP/1.1").to_owned();
    let mut received = Received { line, headers: lines, body: String::new() };
    let length = received.header("content-length").map_or(0, |length| length.parse().expect("a number"));
    reader.take(length).read_to_string(&mut received.body).expect("a body");
    received
}

fn client(server: Url, token: Option<&str>) -> Client {
    // Another test may have installed it.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let token = token.map(|token| SecretString::from(token.to_owned()));
    Client::new(ClientConfig { server, token, authorities: Vec::new() }).expect("a client")
}

fn replay(state: &str) -> String {
    json!({ "id": "rp_1", "state": state, "ids": ["dl_1"], "idCount": 1, "ratePerSecond": 2.5, "config": "current",
        "stopOnFailureRatio": null, "total": 1, "sent": 0, "delivered": 0, "failed": 0, "createdAt": "2026-11-22T03:00:00.123Z",
        "createdBy": "ops", "endedAt": null })
    .to_string()
}

#[tokio::test]
async fn a_request_has_its_path_token_version_and_body() {
    let document = br#"{ "id": "a/b", "n": 1.50 }"#;
    let server = Server::with_reply("201 Created\r\netag: \"8\"", "{\"id\":\"a/b\",\"sections\":[]}");
    let client = client(server.url.join("/proxy").expect("a URL"), Some("t0ken"));
    let put = client.put_campaign("a/b ?", document.to_vec(), Some(&ETag::from_version("7"))).await.expect("an answer");
    assert_eq!((put.status, put.etag.as_ref().map(ETag::version)), (StatusCode::CREATED, Some("8")));
    assert_eq!(put.answer.read().expect("a campaign").id, "a/b");
    let request = server.request();
    assert_eq!(request.line, "PUT /proxy/v1/campaigns/a%2Fb%20%3F");
    assert_eq!(request.header("authorization"), Some("Bearer t0ken"));
    assert_eq!(request.header("if-match"), Some("\"7\""));
    assert_eq!(request.header("content-type"), Some("application/json"));
    assert_eq!(request.body.as_bytes(), document);
}

#[tokio::test]
async fn a_dry_run_and_the_change_differ_only_in_the_flag() {
    let replies = vec![("202 Accepted", replay("running")), ("200 OK", "{}".to_owned()), ("200 OK", "{}".to_owned())];
    let server = Server::with_replies(replies);
    let client = server.client();
    let order = CreateReplay { rate_per_second: Some(2.5), ..CreateReplay::default() };
    let created = client.create_replay(&order).await.expect("an answer").read().expect("a replay");
    assert_eq!((created.replay.rate_per_second, created.id_count), (Some(2.5), Some(1)));
    client.preview_replay(&order).await.expect("an answer");
    client.preview_discard(&DiscardRequest::default()).await.expect("an answer");
    let (create, preview, discard) = (server.request(), server.request(), server.request());
    assert_eq!(
        [&create.line, &preview.line, &discard.line],
        ["POST /v1/replays", "POST /v1/replays", "POST /v1/dead-letters/discard"]
    );
    assert_eq!(create.json(), json!({ "ratePerSecond": 2.5 }));
    assert_eq!(preview.json(), json!({ "ratePerSecond": 2.5, "dryRun": true }));
    assert_eq!(discard.json(), json!({ "dryRun": true }));
}

#[tokio::test]
async fn a_refusal_says_why() {
    let problem =
        |detail: &str, errors: Value| json!({ "type": "about:blank", "detail": detail, "errors": errors }).to_string();
    let violation = json!([{ "path": "$.id", "message": "required" }, { "path": "$.x", "message": "unknown field" }]);
    for (head, body, text) in [
        ("404 Not Found", problem("no such replay", json!([])), "no such replay"),
        (
            "422 Unprocessable Entity",
            problem("2 errors", violation),
            "refused:\n  $.id: required\n  $.x: unknown field",
        ),
        ("502 Bad Gateway", "<html>".to_owned(), "the server answered 502 Bad Gateway"),
    ] {
        let server = Server::with_replies(vec![(head, body)]);
        let error = server.client().replay("rp_1").await.expect_err("a refusal");
        assert!(
            matches!(&error, ClientError::Refused { status, .. } if head.starts_with(status.as_str())),
            "{error:?}"
        );
        assert_eq!(error.to_string(), text);
    }
}

#[tokio::test]
async fn without_a_server_the_error_names_its_address() {
    let server = TcpListener::bind("127.0.0.1:0").expect("a port").local_addr().expect("an address");
    let error =
        client(format!("http://{server}").parse().expect("a URL"), None).ready().await.expect_err("nothing there");
    assert!(error.to_string().starts_with(&format!("no response from http://{server}/ (")), "{error}");
}

#[tokio::test]
async fn an_answer_is_printed_as_written_and_read_on_demand() {
    let text = "{\"zeta\":1.50,\"id\":\"rp_1\",\"state\":\"halted\"}";
    let server = Server::with_reply("200 OK", text);
    let answer = server.client().control_replay("rp_1", ReplayCommand::Pause).await.expect("an answer");
    assert_eq!(server.request().line, "POST /v1/replays/rp_1/pause");
    assert_eq!(answer.to_string(), text);
    let error = answer.read().expect_err("an unknown state").to_string();
    assert!(error.starts_with("the server's answer can't be read: state: unknown variant `halted`"), "{error}");
    let server = Server::with_reply("200 OK", "<html>");
    let error = server.client().configuration().await.expect_err("no JSON").to_string();
    assert!(error.starts_with("the server's response is not valid JSON: "), "{error}");
}

#[tokio::test]
async fn pages_are_read_until_the_last() {
    let page = |items: &[String], next: Option<&str>| {
        ("200 OK", format!("{{\"items\":[{}],\"next\":{}}}", items.join(","), json!(next)))
    };
    let replays = [replay("running"), replay("done")];
    let server =
        Server::with_replies(vec![page(&replays[..1], Some("c+1")), page(&[], Some("c2")), page(&replays[1..], None)]);
    let client = server.client();
    let mut pages = client.replays();
    let answers = pages.all().await.expect("all");
    assert!(!pages.may_have_more());
    let states = answers.iter().map(|answer| answer.read().expect("a replay").replay.state);
    assert!(states.eq([ReplayState::Running, ReplayState::Done]));
    assert_eq!(answers[1].to_string(), replays[1]);
    assert_eq!(server.request().line, "GET /v1/replays?limit=1000");
    assert_eq!(server.request().line, "GET /v1/replays?limit=1000&cursor=c%2B1");
    assert_eq!(server.request().line, "GET /v1/replays?limit=1000&cursor=c2");
}

#[tokio::test]
async fn a_list_ends_when_there_are_enough_items() {
    let server = Server::with_reply("200 OK", "{\"items\":[{\"a\":1.50},2],\"next\":\"c\"}");
    let filter =
        LetterFilter { label: Some("a b".to_owned()), state: Some(LetterState::Pending), ..LetterFilter::default() };
    let client = server.client();
    let mut pages = client.dead_letters(&filter);
    let letters = pages.take(2).await.expect("two");
    assert_eq!(letters.iter().map(ToString::to_string).collect::<Vec<_>>(), ["{\"a\":1.50}", "2"]);
    assert!(pages.may_have_more());
    assert_eq!(server.request().line, "GET /v1/dead-letters?label=a+b&state=pending&limit=2");
    let server = Server::with_reply("200 OK", "{\"replays\":[]}");
    let error = server.client().replays().next(1).await.expect_err("no list").to_string();
    assert!(error.contains("it is not a list: missing field `items`"), "{error}");
}
