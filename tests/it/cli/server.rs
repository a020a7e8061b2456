//! How commands reach a worker: its address and the token.

use serde_json::json;

use super::{CliSandbox, assert_exit, campaign};
use crate::support::{Broker, Waypost, unique};

#[tokio::test]
async fn an_unreachable_server_is_reported_with_advice() {
    let shell = CliSandbox::new();
    let nobody = std::net::TcpListener::bind("127.0.0.1:0").expect("a port").local_addr().expect("its address");
    let server = format!("http://{nobody}");
    let file = shell.file("c.json", campaign("c", "https://example.com/").to_string());
    let event = ["publish", "--campaign", "c", "--label", "l", "--phone", "1"];
    let commands: [&[&str]; 14] = [
        &["campaigns", "list"],
        &["campaigns", "get", "c"],
        &["campaigns", "apply", &file],
        &["campaigns", "delete", "c"],
        &["campaigns", "graph", "c"],
        &event,
        &["dead-letters", "list"],
        &["dead-letters", "show", "dl_1"],
        &["dead-letters", "summary"],
        &["dead-letters", "export"],
        &["dead-letters", "discard", "dl_1", "--because", "a test"],
        &["dead-letters", "replay", "dl_1"],
        &["replays", "list"],
        &["replays", "follow", "rp_1"],
    ];
    for command in commands {
        let printed = shell.run(&[("WAYPOST_SERVER", &server)], command).await;
        assert_exit(&printed, 1, &[&server, "--server", "WAYPOST_SERVER"]);
        assert_eq!(printed.stdout, "");
    }
    let flag = ["campaigns", "list", "--server", &server];
    assert_exit(&shell.run(&[("WAYPOST_SERVER", "http://127.0.0.1:1")], &flag).await, 1, &[&server]);
}

#[tokio::test]
async fn a_configured_token_is_sent() {
    use sha2::Digest as _;
    let sha256: String = sha2::Sha256::digest(b"open-sesame").iter().map(|byte| format!("{byte:02x}")).collect();
    let tokens = json!([{ "name": "ci", "role": "viewer", "sha256": sha256 }]).to_string();
    let url = Broker::shared().await.url();
    let waypost = Waypost::start_in_thread(&url, &unique("cli"), &[("WAYPOST_HTTP__TOKENS", &tokens)]).await;
    let (shell, server) = (CliSandbox::new(), waypost.url(""));
    let list = ["campaigns", "list"];
    assert_exit(&shell.run(&[("WAYPOST_SERVER", &server)], &list).await, 1, &["token"]);
    let token = |token| [("WAYPOST_SERVER", server.as_str()), ("WAYPOST_TOKEN", token)];
    assert_exit(&shell.run(&token("wrong"), &list).await, 1, &["unknown token"]);
    // An empty variable counts as unset.
    assert_exit(&shell.run(&token(""), &list).await, 1, &["a token is needed"]);
    assert_exit(&shell.run(&token("open-sesame"), &list).await, 0, &[]);
    assert_exit(&shell.run(&token("wrong"), &["campaigns", "list", "--token", "open-sesame"]).await, 0, &[]);
    let discard = ["dead-letters", "discard", "dl_1", "--because", "a test", "--yes"];
    assert_exit(&shell.run(&token("open-sesame"), &discard).await, 1, &["operator", "viewer"]);
    let help = shell.run(&token("open-sesame"), &["campaigns", "list", "--help"]).await;
    assert!(!help.stdout.contains("open-sesame"), "the help shows the token: {}", help.stdout);
}
