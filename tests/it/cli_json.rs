//! With `--json`, commands print the server's JSON unchanged: the order of keys, the digits of numbers, and fields and
//! values that this version does not know.

use std::collections::HashMap;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::process::{Command, Stdio};
use std::sync::Arc;

/// The keys are not in the order of the documentation, the state and reason are unknown, and the numbers lose digits if
/// they are parsed as floats.
const OBJECT: &str = r#"{"zeta":1.50,"state":"halted","id":"x","reason":"tired","campaigns":2,"unknown":{"b":[1e+2,null],"a":12345678901234567890123456789012345678901}}"#;

/// Contains the fields that a command reads before it prints.
const PREVIEW: &str = r#"{"more":"?","endpoints":[],"moreEndpoints":0,"campaigns":[{"count":3,"campaignId":"c","share":0.50}],"moreCampaigns":0,"newest":null,"oldest":null,"total":3}"#;

/// Responds to every request by its method and path.
fn server(answers: HashMap<&'static str, String>) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let url = format!("http://{}", listener.local_addr().expect("an address"));
    let answers = Arc::new(answers);
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let answers = Arc::clone(&answers);
            std::thread::spawn(move || answer(stream.expect("a connection"), &answers));
        }
    });
    url
}

fn answer(mut stream: TcpStream, answers: &HashMap<&'static str, String>) {
    let mut reader = BufReader::new(stream.try_clone().expect("a stream"));
    let mut lines = reader.by_ref().lines().map(|line| line.expect("a line")).take_while(|line| !line.is_empty());
    let request = lines.next().expect("a request");
    let lengths = lines.filter_map(|line| line.to_lowercase().strip_prefix("content-length: ")?.parse::<usize>().ok());
    let mut body = vec![0; lengths.sum()];
    reader.read_exact(&mut body).expect("a body");
    let route = request.split(['?', ' ']).take(2).collect::<Vec<_>>().join(" ");
    let (status, body) = match answers.get(&*route) {
        Some(body) => ("200 OK", body.as_str()),
        None => ("404 Not Found", "{}"),
    };
    let length = body.len();
    let response = format!("HTTP/1.1 {status}\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n{body}");
    stream.write_all(response.as_bytes()).expect("the command reads");
}

#[test]
fn json_output_is_what_the_server_answered() {
    let page = format!("{{\"next\":null,\"items\":[{OBJECT},{OBJECT}],\"unknown\":0}}");
    let single = || OBJECT.to_owned();
    let server = server(HashMap::from([
        ("GET /v1/campaigns", page.clone()),
        ("GET /v1/campaigns/c", single()),
        ("PUT /v1/campaigns/c", single()),
        ("GET /v1/configuration", single()),
        ("GET /v1/endpoints", page.clone()),
        ("GET /v1/dead-letters", page.clone()),
        ("GET /v1/dead-letters/dl_1", single()),
        ("GET /v1/dead-letters/summary", single()),
        ("POST /v1/dead-letters/discard", PREVIEW.to_owned()),
        ("GET /v1/replays", page),
        ("GET /v1/replays/rp_1", single()),
        ("POST /v1/replays/rp_1/pause", single()),
        ("POST /v1/replays", single()),
        ("POST /v1/explain", single()),
        ("POST /v1/events", single()),
    ]));
    let (list, lines) = (format!("[{OBJECT},{OBJECT}]"), format!("{OBJECT}\n{OBJECT}"));
    let event = "--campaign c --label a --phone 1";
    for (command, expected) in [
        ("campaigns list --json", &*list),
        ("campaigns get c --json", OBJECT),
        ("campaigns apply - --json", OBJECT),
        ("campaigns restore --dry-run --json", OBJECT),
        ("endpoints --json", &list),
        ("dead-letters list --json", &list),
        ("dead-letters show dl_1 --json", OBJECT),
        ("dead-letters summary --json", OBJECT),
        ("dead-letters export", &lines),
        ("dead-letters discard --all --dry-run --json", PREVIEW),
        ("dead-letters replay dl_1 --dry-run --json", OBJECT),
        ("dead-letters replay dl_1 --detach --json", OBJECT),
        ("replays list --json", &list),
        ("replays show rp_1 --json", OBJECT),
        ("replays pause rp_1 --json", OBJECT),
        (&format!("explain {event} --json"), OBJECT),
        (&format!("publish {event} --json"), OBJECT),
    ] {
        let mut waypost = Command::new(env!("CARGO_BIN_EXE_waypost"));
        waypost.args(command.split(' ')).env("WAYPOST_SERVER", &server).env_remove("WAYPOST_TOKEN");
        let pipes = waypost.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = pipes.spawn().expect("the program starts");
        // A command that does not read its input may have closed the pipe.
        let _ = child.stdin.take().expect("a pipe").write_all(br#"{"id":"c"}"#);
        let output = child.wait_with_output().expect("the program ends");
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{command}: {errors}");
        assert_eq!(String::from_utf8_lossy(&output.stdout).trim_end(), expected, "{command}: {errors}");
    }
}
