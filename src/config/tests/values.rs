//! What each setting takes, and what it refuses.

use super::*;

#[test]
fn the_url_of_the_broker_names_its_vhost() {
    for (given, read) in [
        ("amqp://a:b@host", "amqp://a:b@host/%2f"),
        ("amqp://a:b@host/", "amqp://a:b@host/%2f"),
        ("amqp://host:1234/%2F", "amqp://host:1234/%2F"),
        ("amqps://a:p%23w@host/prod?heartbeat=5", "amqps://a:p%23w@host/prod?heartbeat=5"),
        ("amqp://host/?heartbeat=5", "amqp://host/%2f?heartbeat=5"),
    ] {
        assert_eq!(with("broker.url", given).broker.url.expose_secret(), read);
    }
}

#[test]
fn a_url_that_reaches_no_broker_is_refused_without_repeating_it() {
    for url in [
        "",
        "secret",
        "amqp:secret",
        "amqp:///secret",
        "http://secret@host",
        "amqp://user:se#secret@host",
        "amqp://user:1#secret@host",
        "amqp://user:1?secret@host",
        "amqp://user:secret@[::1]:5672",
        "amqps://user:secret@host/?verify=verify_peer",
        "amqps://user:secret@host/?heartbeat=70000",
        "amqp://user:secret@host/?auth_mechanism=secret",
        "amqp://user:secret%ff@host",
        "amqp://user@host/secret%ff",
    ] {
        let message = fault("broker.url", url);
        assert!(message.starts_with("broker.url: ") && !message.contains("secret"), "{message}");
    }
}

#[test]
fn names_and_numbers_have_limits() {
    for (key, value) in [
        ("broker.prefix", ""),
        ("broker.prefix", "a b"),
        ("broker.prefix", "é"),
        ("broker.prefix", "amq.x"),
        ("broker.prefix", "amq"),
        ("broker.shards", "0"),
        ("broker.shards", "65"),
        ("broker.prefetch", "0"),
        ("broker.prefetch", "2001"),
        ("broker.prefetch", "-1"),
        ("store.path", ""),
        ("retry.initialDelay", "0s"),
        ("retry.initialDelay", "5"),
        ("retry.initialDelay", "-5s"),
        ("retry.maxDelay", "11years"),
        ("retry.maxDelay", "18446744073709551615s"),
        ("retry.multiplier", "0.9"),
        ("retry.multiplier", "inf"),
        ("retry.multiplier", "nan"),
        ("retry.jitter", "-0.1"),
        ("retry.maxAttempts", "0"),
        ("retry.maxAttempts", "1001"),
        ("retry.permanentStatuses", "600"),
        ("deadLetters.retention", "0s"),
        ("endpoint.maxConcurrency", "0"),
        ("endpoint.connectTimeout", "0ms"),
        ("egress.proxy", "proxy:3128"),
        ("egress.proxy", "socks5://proxy:1080"),
        ("broker.certFile", "/nowhere/client.pem"),
        ("broker.caFile", "/nowhere/ca.pem"),
        ("http.certFile", "/nowhere/server.pem"),
        ("deadLetters.retention", "1500ms"),
        ("egress.caFile", "/nowhere/ca.pem"),
        ("egress.caFile", "/"),
        ("shutdown.grace", "soon"),
        ("log.format", "xml"),
        ("telemetry.otlpEndpoint", "grpc://x"),
        ("telemetry.otlpEndpoint", "http://x/?y"),
        ("http.listen", "8080"),
        ("http.listen", "example.com:80"),
    ] {
        assert!(fault(key, value).starts_with(key), "{key}={value}");
    }
    assert_eq!(with("broker.shards", "64").broker.shards, 64);
    assert_eq!(with("broker.prefetch", "2000").broker.prefetch, 2000);
    assert_eq!(with("broker.prefix", "123").broker.prefix, "123");
    assert_eq!(with("shutdown.grace", "0s").shutdown.grace, Duration::ZERO);
    assert_eq!(with("log.level", "WARN").log.level.as_str(), "warn");
    assert_eq!(with("http.listen", "localhost:0").http.listen, SocketAddr::from(([127, 0, 0, 1], 0)));
}

#[test]
fn an_unknown_flag_is_refused() {
    let message = fault("broker.uri", "x");
    assert_eq!(message, "broker.uri: there is no such setting, did you mean broker.url?");
}

#[test]
fn egress_opens_to_networks_addresses_and_hosts() {
    let network = |text: &str| Allowed::Network(text.parse().unwrap());
    for (text, allowed) in [
        ("10.0.0.0/8", network("10.0.0.0/8")),
        ("10.1.2.3/8", network("10.0.0.0/8")),
        ("10.1.2.3", network("10.1.2.3/32")),
        ("fd00::/8", network("fd00::/8")),
        ("::1", network("::1/128")),
        ("Hooks.Internal.", Allowed::Host("hooks.internal".to_owned())),
        ("bücher.example", Allowed::Host("xn--bcher-kva.example".to_owned())),
        ("my_host", Allowed::Host("my_host".to_owned())),
    ] {
        assert_eq!(with("egress.allow", text).egress.allow, [allowed]);
    }
    let bracketed = with("egress.allow", r#"["[::1]"]"#);
    assert_eq!(bracketed.egress.allow, [network("::1/128")]);
    for text in ["10.0.0.0/33", "10.0.0", "10.0.0.256", "host:80", "http://host", "*.example.com", "a b", "a..b", "."] {
        let message = fault("egress.allow", text);
        assert!(message.starts_with(&format!("egress.allow[0]: `{text}` is neither ")), "{message}");
    }
}

#[test]
fn a_listener_for_others_needs_a_token() {
    for address in ["0.0.0.0:8080", "[::]:8080", "192.168.0.1:80"] {
        let message = format!(
            "http.listen: {address} is reachable from outside and no http.tokens are configured: \
             add a token or listen on 127.0.0.1 (from WAYPOST_HTTP__LISTEN)"
        );
        assert_eq!(Given::nothing().variable("WAYPOST_HTTP__LISTEN", address).faults(), [message]);
        let tokens = format!(r#"[{{"name": "ci", "role": "viewer", "sha256": "{HASH}"}}]"#);
        let given = Given::nothing().variable("WAYPOST_HTTP__LISTEN", address);
        let config = given.variable("WAYPOST_HTTP__TOKENS", &tokens).load().unwrap();
        assert_eq!(config.http.listen.to_string(), address);
    }
    for address in ["127.0.0.2:80", "[::1]:80", "[::ffff:127.0.0.1]:80"] {
        with("http.listen", address);
    }
}

#[test]
fn tokens_are_told_apart() {
    let token = |name: &str, role: &str, hash: &str| {
        format!("[[http.tokens]]\nname = '{name}'\nrole = '{role}'\nsha256 = '{hash}'\n")
    };
    let other = "A".repeat(64);
    let config = Given::file(&[token("a", "viewer", HASH), token("b", "editor", &other)].concat()).load().unwrap();
    assert_eq!(config.http.tokens[0].sha256[..2], [0x9f, 0x86]);
    assert_eq!(config.http.tokens[1].sha256, [0xaa; 32]);
    assert!(config.http.tokens[0].role < config.http.tokens[1].role);

    let no_text = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
    let faults = Given::file(
        &[
            token("a", "viewer", HASH),
            token("a", "admin", HASH),
            token("", "editor", "my-secret-token"),
            token("c", "editor", no_text),
        ]
        .concat(),
    )
    .faults();
    assert_eq!(
        faults,
        [
            "http.tokens[1].name: `a` is the name of another token: each needs its own",
            "http.tokens[1].role: `admin` is none of viewer, operator, editor",
            "http.tokens[1].sha256: is the hash of another token as well: each needs its own",
            "http.tokens[2].name: must be 1 to 100 characters",
            "http.tokens[2].sha256: must be the SHA-256 of the token in 64 hex digits: printf %s TOKEN | sha256sum",
            "http.tokens[3].sha256: is the hash of no text at all: printf %s TOKEN | sha256sum",
        ]
        .map(|fault| format!("{fault} (from waypost.toml)"))
    );
}

#[test]
fn a_token_in_place_of_the_list_is_not_repeated() {
    let message = fault("http.tokens", "my-secret-token");
    assert_eq!(message, "http.tokens[0]: must be a table with name, role and sha256, not text");
}

#[test]
fn nothing_shown_holds_a_secret() {
    let tokens = format!("[{{name = 'ci', role = 'viewer', sha256 = '{HASH}'}}]");
    let config = Given::nothing()
        .flag("broker.url", "amqp://user:hunter2@host/")
        .flag("telemetry.otlpEndpoint", "http://user:hunter2@traces:4318")
        .flag("http.tokens", &tokens)
        .load()
        .unwrap();
    let debug = format!("{config:?}");
    assert!(!debug.contains("hunter2") && !debug.contains(&HASH[..8]) && !debug.contains("159, 134"), "{debug}");
    let value = |key: &str| setting(&config, key).value.as_str();
    assert_eq!(value("broker.url"), "amqp://user:***@host/");
    assert_eq!(value("telemetry.otlpEndpoint"), "http://user:***@traces:4318/");
    assert_eq!(value("http.tokens"), "ci (viewer)");
}

#[test]
fn settings_are_shown_as_they_are_written() {
    let config = with("egress.allow", "localhost,::1");
    let value = |key: &str| setting(&config, key);
    assert_eq!(config.settings.len(), 32);
    assert_eq!(value("retry.multiplier").value, "3");
    assert_eq!(value("retry.jitter").value, "0.2");
    assert_eq!(value("retry.permanentStatuses").value, "410");
    assert_eq!(value("retry.maxAge").value, "48h");
    assert_eq!(value("egress.allowHttp").value, "false");
    let allow = value("egress.allow");
    assert_eq!((allow.value.as_str(), allow.default.as_str()), ("localhost, ::1", "none"));
    assert_eq!(value("egress.proxy").value, "none");
    assert_eq!(value("broker.url").default, "amqp://guest:***@127.0.0.1:5672/%2f");
}

#[test]
fn an_empty_text_takes_an_optional_setting_back() {
    let given = Given::file("[telemetry]\notlpEndpoint = 'http://traces:4318'");
    assert!(given.load().unwrap().telemetry.otlp_endpoint.is_some());
    let given = given.variable("WAYPOST_TELEMETRY__OTLP_ENDPOINT", "");
    assert!(given.load().unwrap().telemetry.otlp_endpoint.is_none());
}

#[test]
fn the_file_of_authorities_must_hold_some() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/authority.pem");
    let config = Given::nothing().flag("egress.caFile", path).load().unwrap();
    assert_eq!(config.egress.ca_file, Some(path.into()));
}
