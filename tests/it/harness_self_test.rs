//! Tests of the test support, without the product.

use std::process::{Command, Stdio};
use std::time::Duration;

use lapin::ExchangeKind;
use lapin::options::{ExchangeDeclareOptions, QueueBindOptions, QueueDeclareOptions};
use lapin::types::{AMQPValue, FieldTable};
use tokio_util::sync::CancellationToken;

use crate::support::broker::{NODE_SCRIPT, broker_version};
use crate::support::unique::free_port;
use crate::support::{
    Amqp, Answer, Broker, Cluster, DEFAULT_TIMEOUT, Message, Proxy, Receiver, unique, wait_until, wait_until_stable,
};

/// Declares an exchange and a queue bound to it, both with this name.
async fn declare(amqp: &Amqp, name: &str, kind: &str) {
    let channel = amqp.channel().await;
    let mut arguments = FieldTable::default();
    arguments.insert("x-queue-type".into(), AMQPValue::LongString(kind.into()));
    let exchange = ExchangeDeclareOptions { durable: true, ..ExchangeDeclareOptions::default() };
    channel
        .exchange_declare(name.into(), ExchangeKind::Topic, exchange, FieldTable::default())
        .await
        .expect("an exchange");
    channel.queue_declare(name.into(), QueueDeclareOptions::durable(), arguments).await.expect("a queue");
    channel
        .queue_bind(name.into(), name.into(), "#".into(), QueueBindOptions::default(), FieldTable::default())
        .await
        .expect("a binding");
}

#[tokio::test]
async fn the_shared_broker_stores_many_messages() {
    let broker = Broker::shared().await;
    let amqp = Amqp::connect(&broker.url()).await;
    let prefix = unique("many");
    let events = format!("{prefix}.events");
    assert_eq!(amqp.depth(&events).await, None);

    declare(&amqp, &events, "stream").await;
    let bodies = (0..10_000).map(|number: u32| number.to_string());
    amqp.publish(&events, bodies.map(|body| Message::raw(body.clone()).id(&body).header("of", "many"))).await;

    let records = amqp.read_stream(&events, |records| records.len() == 10_000).await;
    assert_eq!(records[9_999].body, b"9999");
    assert_eq!(records[9_999].offset, 9_999);
    assert_eq!(records[9_999].header("of").as_deref(), Some("many"));

    amqp.delete_objects(broker, &prefix).await;
    assert_eq!(amqp.depth(&events).await, None);
}

#[tokio::test]
#[should_panic(expected = "no expected records")]
async fn a_missing_stream_record_fails_the_test() {
    let amqp = Amqp::connect(&Broker::shared().await.url()).await;
    let stream = unique("lacking");
    declare(&amqp, &stream, "stream").await;
    amqp.publish(&stream, [Message::raw("one")]).await;
    amqp.read_stream_within(Duration::from_millis(300), &stream, |records| records.len() == 2).await;
}

#[tokio::test]
#[should_panic(expected = "not routed")]
async fn an_unroutable_message_fails_the_test() {
    let amqp = Amqp::connect(&Broker::shared().await.url()).await;
    amqp.publish("amq.topic", [Message::raw("lost").key("nowhere")]).await;
}

#[tokio::test]
async fn a_private_broker_keeps_what_it_confirmed_over_a_kill_and_a_stop() {
    let broker = Broker::private().await;
    let queue = unique("kept");
    let amqp = Amqp::connect(&broker.url()).await;
    declare(&amqp, &queue, "quorum").await;
    amqp.publish(&queue, (0..100).map(|number: u32| Message::raw(number.to_string()))).await;
    amqp.wait_for_depth(&queue, 100).await;

    broker.kill().await;
    broker.start().await;
    let amqp = Amqp::connect(&broker.url()).await;
    amqp.wait_for_depth(&queue, 100).await;
    // Before 4.3, RabbitMQ confirms a binding before it is on disk, so a kill may lose it.
    declare(&amqp, &queue, "quorum").await;
    amqp.publish(&queue, [Message::raw("one more")]).await;

    broker.stop().await;
    broker.start().await;
    let amqp = Amqp::connect(&broker.url()).await;
    amqp.wait_for_depth(&queue, 101).await;
    assert!(broker.ctl(&["list_queues", "--no-table-headers", "name"]).await.contains(&queue));
}

#[tokio::test]
async fn nodes_run_the_version_that_was_asked_for() {
    let version = broker_version();
    match std::env::var("RABBITMQ") {
        Ok(asked) if !asked.is_empty() && asked != "installed" => {
            assert!(version.starts_with(&format!("{asked}.")), "{version} runs instead of {asked}");
        }
        _ => {}
    }
    let status = Broker::shared().await.ctl(&["version"]).await;
    assert_eq!(status.trim(), version);
}

/// Starts a node from a shell that holds the node's standard input, like a test process.
const OWNER: &str = "mkfifo \"$1/stdin\" && \"$0\" --temporary \"$1/node\" \"$2\" <\"$1/stdin\" >\"$1/stdout\" & \
    until [ -p \"$1/stdin\" ]; do sleep 0.01; done; exec 9>\"$1/stdin\"; read -r _";

#[tokio::test]
async fn a_node_ends_when_its_owner_is_killed() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let (path, port) = (folder.path(), free_port());
    let mut owner = Command::new("bash")
        .args(["-c", OWNER, NODE_SCRIPT, &path.display().to_string(), &port.to_string()])
        .stdin(Stdio::piped())
        .spawn()
        .expect("bash runs");
    let ready = async || std::fs::read_to_string(path.join("stdout")).is_ok_and(|out| out == "ready\n").then_some(());
    wait_until("the node", DEFAULT_TIMEOUT, ready).await;
    let name = format!("waypost-{port}@localhost");
    let processes = || {
        let list = Command::new("ps").args(["-ww", "-eo", "pid=,args="]).output().expect("ps runs");
        let list = String::from_utf8_lossy(&list.stdout).into_owned();
        list.lines().filter(|line| line.contains(&name) || line.contains(&format!("{}/node", path.display()))).count()
    };
    assert!(processes() > 1, "the VM and the script");
    owner.kill().expect("the owner is killed");
    owner.wait().expect("the owner has ended");
    wait_until("the end of all its processes", DEFAULT_TIMEOUT, async || (processes() == 0).then_some(())).await;
    wait_until("the end of its folder", DEFAULT_TIMEOUT, async || (!path.join("node").exists()).then_some(())).await;
}

#[tokio::test]
async fn the_receiver_records_requests_and_answers_as_scripted() {
    let receiver = Receiver::start();
    receiver.reply("/teapot", Answer::status(418).header("x-kind", "teapot").body("short and stout"));
    receiver.reply("/recovers", [Answer::status(503), Answer::reset(), Answer::ok()]);
    receiver.reply("/never", Answer::never());
    receiver.reply("/drips", Answer::ok().body("abc").trickling(Duration::from_millis(20)));
    receiver.reply("/endless", Answer::ok().body("again ").endless());
    let gate = CancellationToken::new();
    receiver.reply("/late", Answer::ok().gated_by(&gate));
    receiver.reply_with("/echo", |request, earlier| Answer::ok().body(format!("{earlier}{}", request.path())));
    let client = client();
    let post = |path: &str| client.post(receiver.url(path)).header("webhook-id", "w1").header("x-b", "2").body("{}");

    let teapot = post("/teapot").send().await.expect("an answer");
    assert_eq!((teapot.status().as_u16(), &teapot.headers()["x-kind"]), (418, &"teapot".parse().expect("a value")));
    assert_eq!(teapot.text().await.expect("a body"), "short and stout");

    assert_eq!(post("/recovers").send().await.expect("an answer").status(), 503);
    let reset = post("/recovers").send().await.expect_err("a reset");
    assert!(format!("{reset:?}").contains("ConnectionReset"), "{reset:?}");
    assert_eq!(post("/recovers").send().await.expect("an answer").status(), 200);

    let silence = post("/never").timeout(Duration::from_millis(300)).send().await.expect_err("no answer");
    assert!(silence.is_timeout(), "{silence:?}");
    let late = tokio::spawn(post("/late").send());
    receiver.wait_until(|requests| requests.iter().any(|request| request.path() == "/late")).await;
    assert!(!late.is_finished(), "answered before the gate opened");
    gate.cancel();
    assert_eq!(late.await.expect("no panic").expect("an answer").status(), 200);
    post("/echo").send().await.expect("an answer");
    assert_eq!(post("/echo").send().await.expect("an answer").text().await.expect("a body"), "1/echo");

    let mut drips = post("/drips").send().await.expect("an answer");
    let mut pieces = Vec::new();
    while let Some(piece) = drips.chunk().await.expect("a piece") {
        pieces.push(piece);
    }
    assert_eq!(pieces, ["a", "b", "c"]);
    let mut endless = post("/endless").send().await.expect("an answer");
    let mut read = 0;
    while read < 1_000_000 {
        read += endless.chunk().await.expect("more").expect("a body without an end").len();
    }
    drop(endless);

    let requests = receiver.expect_any().times(10).await;
    let names: Vec<&str> = requests[0].headers.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(names[..2], ["webhook-id", "x-b"]);
    assert_eq!((requests[0].path(), &requests[0].body[..]), ("/teapot", &b"{}"[..]));
    assert_eq!(receiver.requests_by_webhook_id()["w1"], 10);
    assert_eq!(receiver.max_concurrent("/late"), 1);
}

#[tokio::test]
#[should_panic(expected = "1 came\nPOST /seen w7 hello")]
async fn missing_requests_fail_the_test_and_list_the_others() {
    let receiver = Receiver::start();
    client().post(receiver.url("/seen")).header("webhook-id", "w7").body("hello").send().await.expect("an answer");
    receiver.expect_any().times(2).within(Duration::from_millis(100)).await;
}

#[tokio::test]
async fn the_proxy_cuts_stalls_refuses_and_resumes() {
    let broker = Broker::shared().await;
    let direct = Amqp::connect(&broker.url()).await;
    let proxy = Proxy::start(broker.port());
    let queue = unique("proxied");
    declare(&direct, &queue, "quorum").await;

    let proxied = Amqp::connect(&proxy.amqp_url()).await;
    proxied.publish(&queue, [Message::raw("through")]).await;

    proxy.stall();
    let stalled = tokio::time::timeout(Duration::from_millis(300), proxied.depth(&queue)).await;
    assert!(stalled.is_err(), "a stalled connection answered: {stalled:?}");
    proxy.resume();
    proxied.wait_for_depth(&queue, 1).await;

    let channel = proxied.channel().await;
    proxy.cut();
    wait_until("the broken connection", DEFAULT_TIMEOUT, async || (!channel.status().connected()).then_some(())).await;
    Amqp::connect(&proxy.amqp_url()).await.wait_for_depth(&queue, 1).await;

    proxy.refuse();
    let url = proxy.amqp_url();
    let refused = lapin::Connection::connect(&url, lapin::ConnectionProperties::default()).await;
    assert!(refused.is_err(), "a refused connection was opened");
    proxy.resume();
    Amqp::connect(&url).await.wait_for_depth(&queue, 1).await;
}

fn client() -> reqwest::Client {
    // The client can't be built without a crypto provider, although it uses plain HTTP. Another test may have installed
    // one.
    let _ = rustls::crypto::ring::default_provider().install_default();
    reqwest::Client::builder().no_proxy().build().expect("an HTTP client")
}

#[tokio::test]
async fn wait_until_stable_detects_change() {
    let mut number = 0;
    let at_rest = wait_until_stable("a number", 3, async || {
        number = (number + 1).min(5);
        number
    });
    assert_eq!(at_rest.await, 5);
}

#[tokio::test]
async fn a_cluster_keeps_what_it_confirmed_when_the_leader_of_a_queue_is_killed() {
    let cluster = Cluster::start(3).await;
    let [first, ..] = cluster.nodes() else { panic!("no nodes") };
    let proxy = Proxy::start_with_fallbacks(cluster.nodes().iter().map(Broker::address).collect());
    let queue = unique("clustered");
    declare(&Amqp::connect(&first.url()).await, &queue, "quorum").await;
    let amqp = Amqp::connect(&proxy.amqp_url()).await;
    amqp.publish(&queue, (0..100).map(|number: u32| Message::raw(number.to_string()))).await;

    assert_eq!(cluster.leader_of(&queue).await, Some(0), "the node that declares a queue leads it");
    first.kill().await;
    let amqp = Amqp::connect(&proxy.amqp_url()).await;
    amqp.wait_for_depth(&queue, 100).await;
    let leader = wait_until("another leader", DEFAULT_TIMEOUT, async || cluster.leader_of(&queue).await).await;
    assert_ne!(leader, 0);
    first.start().await;
    Amqp::connect(&first.url()).await.wait_for_depth(&queue, 100).await;
}
