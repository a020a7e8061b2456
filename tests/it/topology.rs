//! Broker objects that disappear while a worker runs, and logs that can't be read: detected, reported and repaired.

use std::time::Duration;

use lapin::options::{ExchangeDeleteOptions, ExchangeUnbindOptions, QueueDeclareOptions, QueueDeleteOptions};
use lapin::types::FieldTable;

use crate::support::waypost::{CommandOutput, cli};
use crate::support::{Amqp, Answer, Broker, Waypost, unique, wait_until};
use crate::test_app::{FAST_RETRIES, SLOW_TIMEOUT, TestApp, events_with_keyword, step_event};

/// A loss is detected within 10 s. The rest is for a busy machine.
const REPAIR_TIMEOUT: Duration = Duration::from_secs(10 + 20);

/// Waits until an object of this kind is repaired.
async fn wait_for_repair(waypost: &Waypost, object: &str) {
    let metric = format!("waypost_topology_repairs_total{{object=\"{object}\"}}");
    wait_until(&format!("a repair: {object}"), REPAIR_TIMEOUT, async || {
        (waypost.metric(&metric).await > 0.0).then_some(())
    })
    .await;
}

/// Waits until the readiness probe returns 503 with `words`, and returns the response.
async fn wait_until_unready(waypost: &Waypost, words: &str) -> String {
    wait_until(&format!("the probe to say {words:?}"), SLOW_TIMEOUT, async || {
        let reply = waypost.get("/readyz").await;
        (reply.status == 503 && reply.body.contains(words)).then_some(reply.body)
    })
    .await
}

/// Creates a user with all permissions. Returns its name and the URL with its credentials.
async fn create_user(broker: &Broker) -> (String, String) {
    let user = unique("topology");
    broker.ctl(&["add_user", &user, "secret"]).await;
    broker.ctl(&["set_permissions", &user, ".*", ".*", ".*"]).await;
    let url = broker.url().replace("guest:guest", &format!("{user}:secret"));
    (user, url)
}

/// Closes a worker's connection with this name. Limits the user to its other three connections.
async fn close_permanently(broker: &Broker, user: &str, name: &str) {
    let connections = async || {
        let listed = broker.ctl(&["list_connections", "--no-table-headers", "pid", "user", "client_properties"]).await;
        listed.lines().filter(|line| line.contains(user)).map(str::to_owned).collect::<Vec<_>>()
    };
    wait_until("its four connections", SLOW_TIMEOUT, async || (connections().await.len() == 4).then_some(())).await;
    broker.ctl(&["set_user_limits", user, r#"{"max-connections":3}"#]).await;
    // RabbitMQ counts a connection some time after it lists it, so a new one may get through.
    let mut absent = 0;
    wait_until("the connection to stay closed", SLOW_TIMEOUT, async || {
        let all = connections().await;
        match all.iter().find(|line| line.contains(name)) {
            None => absent += 1,
            Some(connection) => {
                absent = 0;
                broker.ctl(&["close_connection", connection.split('\t').next().expect("a pid"), "test"]).await;
            }
        }
        (absent == 3).then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_binding_that_is_removed_is_noticed_restored_and_reported() {
    let app = TestApp::builder().process().start().await;
    let (channel, events) = (app.amqp.channel().await, format!("{}.events", app.prefix));
    let unbound =
        channel.queue_unbind(events.as_str().into(), events.as_str().into(), "#".into(), FieldTable::default());
    unbound.await.expect("unbound");
    wait_for_repair(&app.waypost, "binding").await;
    app.publish(step_event().keyword(3).id("after")).await;
    app.receiver.expect_any().await;
    app.waypost.wait_for_log_line("missing broker object restored").await;

    // The worker delivers, so it is ready, and reports what happened.
    let repaired = format!("repaired: the binding of exchange {events} was missing");
    let ready = app.waypost.get("/readyz").await;
    assert!(ready.status == 200 && ready.body.contains(&repaired), "{ready:?}");
    let printed = app.waypost.cli(&["ready"]).await;
    assert!(printed.code == Some(0) && printed.stdout.contains("Events published while it was missing"), "{printed:?}");
    let url = format!("broker.url={}", Broker::shared().await.url());
    let (prefix, listen) =
        (format!("broker.prefix={}", app.prefix), app.waypost.url("").replace("http://", "http.listen="));
    let CommandOutput { stdout, .. } = cli(&["doctor", "--set", &url, "--set", &prefix, "--set", &listen]).await;
    assert!(stdout.contains("ready, after repairs"), "{stdout}");

    // The worker's probe of the binding does not count as an event.
    for result in ["no_webhook", "malformed"] {
        assert_eq!(app.waypost.metric(&format!("waypost_events_total{{result=\"{result}\"}}")).await, 0.0);
    }
}

#[tokio::test]
async fn a_binding_that_is_removed_while_events_wait_is_reported_too() {
    // One event at a time, and a slow receiver, so that the other events wait.
    let app = TestApp::builder().set("broker.prefetch", 1).start().await;
    app.receiver.reply("/agent", Answer::ok().after(Duration::from_secs(1)));
    app.amqp.publish_events(&app.prefix, &events_with_keyword(200, 3)).await;
    let (channel, events) = (app.amqp.channel().await, format!("{}.events", app.prefix));
    wait_until("a reported repair", SLOW_TIMEOUT, async || {
        // Unbinds repeatedly: a binding that is lost between a probe and the next declaration is restored without a
        // report.
        let unbound =
            channel.queue_unbind(events.as_str().into(), events.as_str().into(), "#".into(), FieldTable::default());
        unbound.await.expect("unbound");
        let repairs = app.waypost.metric("waypost_topology_repairs_total{object=\"binding\"}").await;
        (repairs > 0.0).then_some(())
    })
    .await;
    assert!(app.amqp.depth(&events).await.is_some_and(|depth| depth > 0), "no event waits");
}

#[tokio::test]
async fn the_binding_between_the_exchanges_of_shards_is_restored_too() {
    let broker = Broker::private_with(&["rabbitmq_consistent_hash_exchange"]).await;
    let app = TestApp::builder().broker(&broker.url()).set("broker.shards", 3).start().await;
    let channel = app.amqp.channel().await;
    let (events, shards) = (format!("{}.events", app.prefix), format!("{}.events.shards", app.prefix));
    let options = ExchangeUnbindOptions::default();
    let unbound = channel.exchange_unbind(
        shards.as_str().into(),
        events.as_str().into(),
        "#".into(),
        options,
        FieldTable::default(),
    );
    unbound.await.expect("unbound");
    wait_for_repair(&app.waypost, "binding").await;
    app.publish(step_event().keyword(3).id("after")).await;
    app.receiver.expect_any().await;
}

#[tokio::test]
async fn queues_streams_and_exchanges_that_are_deleted_come_back_while_it_delivers() {
    let app = TestApp::builder().process().start().await;
    let (channel, name) = (app.amqp.channel().await, |name: &str| format!("{}.{name}", app.prefix));
    for queue in ["delay.4", "delay.32768"] {
        channel.queue_delete(name(queue).into(), QueueDeleteOptions::default()).await.expect("deleted");
    }
    channel.exchange_delete(name("events").into(), ExchangeDeleteOptions::default()).await.expect("deleted");
    wait_for_repair(&app.waypost, "queue").await;
    wait_for_repair(&app.waypost, "exchange").await;
    assert_eq!(app.amqp.depth(&name("delay.4")).await, Some(0));
    app.publish(step_event().keyword(3).id("after")).await;
    app.receiver.expect_any().await;
    // None of these losses aborts requests in flight.
    assert!(
        !app.waypost.log_lines().iter().any(|line| line.contains("not consuming")),
        "{:#?}",
        app.waypost.log_lines()
    );
    channel.queue_delete(name("dead-letters").into(), QueueDeleteOptions::default()).await.expect("deleted");
    wait_for_repair(&app.waypost, "stream").await;
    app.create_dead_letters(3, 1).await;
}

/// Replaces a queue by a classic queue. Retries if the worker's check declares its own queue first.
async fn replace_with_classic_queue(amqp: &Amqp, queue: &str) {
    wait_until("a classic queue instead of the worker's", SLOW_TIMEOUT, async || {
        // A refused declaration closes the channel.
        let channel = amqp.channel().await;
        channel.queue_delete(queue.into(), QueueDeleteOptions::default()).await.expect("deleted");
        channel.queue_declare(queue.into(), QueueDeclareOptions::durable(), FieldTable::default()).await.ok()
    })
    .await;
}

#[tokio::test]
async fn a_queue_of_another_type_is_reported() {
    let app = TestApp::start().await;
    let rung = format!("{}.delay.8", app.prefix);
    replace_with_classic_queue(&app.amqp, &rung).await;
    let words = wait_until_unready(&app.waypost, &rung).await;
    assert!(words.contains("Waypost wants"), "{words}");
    assert_eq!(app.waypost.metric("waypost_topology_problems{problem=\"mismatch\"}").await, 1.0);
    app.publish(step_event().keyword(3).id("meanwhile")).await;
    app.receiver.expect_any().await;
    app.amqp.delete_queue(&rung).await;
    app.waypost.wait_until_ready().await;
}

#[tokio::test]
async fn revoked_permissions_are_reported_with_the_command_to_grant_them() {
    let broker = Broker::shared().await;
    let (user, url) = create_user(broker).await;
    let app = TestApp::builder().broker(&url).start().await;
    broker.ctl(&["set_permissions", &user, "^$", ".*", ".*"]).await;
    let words = wait_until_unready(&app.waypost, "set_permissions").await;
    assert!(words.contains(&user) && words.contains("ACCESS_REFUSED"), "{words}");
    // Deliveries continue.
    app.publish(step_event().keyword(3).id("meanwhile")).await;
    app.receiver.expect_any().await;
    broker.ctl(&["set_permissions", &user, ".*", ".*", ".*"]).await;
    app.waypost.wait_until_ready().await;
    broker.ctl(&["set_permissions", &user, ".*", "^$", ".*"]).await;
    wait_until_unready(&app.waypost, "set_permissions").await;
}

#[tokio::test]
async fn a_failed_topology_check_is_reported_with_earlier_findings() {
    let broker = Broker::shared().await;
    let (user, url) = create_user(broker).await;
    let prefix = unique("topology");
    let waypost = Waypost::start_with(&url, &prefix, &FAST_RETRIES).await;
    let (amqp, rung) = (Amqp::connect(&broker.url()).await, format!("{prefix}.delay.8"));
    replace_with_classic_queue(&amqp, &rung).await;
    wait_until_unready(&waypost, "Waypost wants").await;

    close_permanently(broker, &user, "waypost topology").await;
    let words = wait_until_unready(&waypost, "not checked for").await;
    assert!(words.contains("limit") && words.contains("Waypost wants"), "{words}");
    assert_eq!(waypost.metric("waypost_topology_problems{problem=\"mismatch\"}").await, 1.0);
    assert_eq!(waypost.metric("waypost_broker_connected").await, 1.0);

    broker.ctl(&["clear_user_limits", &user, "max-connections"]).await;
    amqp.delete_queue(&rung).await;
    waypost.wait_until_ready().await;
}

#[tokio::test]
async fn a_failed_dead_letter_reader_is_reported_and_verify_is_inconclusive() {
    let broker = Broker::shared().await;
    let (user, url) = create_user(broker).await;
    let waypost = Waypost::start_with(&url, &unique("topology"), &FAST_RETRIES).await;
    close_permanently(broker, &user, "waypost dead letters").await;
    let words = wait_until_unready(&waypost, "the dead-letter stream is not being read").await;
    assert!(words.contains("limit"), "{words}");
    assert_eq!(waypost.metric("waypost_log_followed{log=\"dead_letters\"}").await, 0.0);
    assert_eq!(waypost.metric("waypost_log_followed{log=\"campaigns\"}").await, 1.0);
    let printed = waypost.cli(&["verify"]).await;
    assert_eq!(printed.code, Some(1), "{printed:?}");
    assert!(
        printed.stderr.contains("the account is incomplete")
            && !printed.stdout.contains("All deliveries are accounted for"),
        "{printed:?}"
    );
    broker.ctl(&["clear_user_limits", &user, "max-connections"]).await;
    waypost.wait_until_ready().await;
    let printed = wait_until("an account", SLOW_TIMEOUT, async || {
        Some(waypost.cli(&["verify"]).await).filter(|printed| printed.code == Some(0))
    });
    assert!(printed.await.stdout.contains("All deliveries are accounted for."));
}
