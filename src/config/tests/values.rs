//! Tests of single settings: accepted and refused values.

use super::*;

#[test]
fn the_broker_url_gets_an_explicit_vhost() {
    for (text, url) in [
        ("amqp://a:b@host", "amqp://a:b@host/%2f"),
        ("amqp://a:b@host/", "amqp://a:b@host/%2f"),
        ("amqp://host:1234/%2F", "amqp://host:1234/%2F"),
        ("amqps://a:p%23w@host/prod?heartbeat=5", "amqps://a:p%23w@host/prod?heartbeat=5"),
        ("amqp://host/?heartbeat=5", "amqp://host/%2f?heartbeat=5"),
    ] {
        assert_eq!(with("broker.url", text).broker.url.expose_secret(), url);
    }
}

#[test]
fn an_invalid_broker_url_is_refused_and_not_repeated() {
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
        let message = violation("broker.url", url);
        assert!(message.starts_with("broker.url: ") && !message.contains("secret"), "{message}");
    }
}

#[test]
fn values_out_of_range_are_refused() {
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
        assert!(violation(key, value).starts_with(key), "{key}={value}");
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
    let message = violation("broker.uri", "x");
    assert_eq!(message, "broker.uri: there is no such setting, did you mean broker.url?");
}

#[test]
fn egress_allows_networks_addresses_and_hosts() {
    let network = |text: &str| AllowRule::Network(text.parse().unwrap());
    for (text, allowed) in [
        ("10.0.0.0/8", network("10.0.0.0/8")),
        ("10.1.2.3/8", network("10.0.0.0/8")),
        ("10.1.2.3", network("10.1.2.3/32")),
        ("fd00::/8", network("fd00::/8")),
        ("::1", network("::1/128")),
        ("Hooks.Internal.", AllowRule::Host("hooks.internal".to_owned())),
        ("bücher.example", AllowRule::Host("xn--bcher-kva.example".to_owned())),
        ("my_host", AllowRule::Host("my_host".to_owned())),
    ] {
        assert_eq!(with("egress.allow", text).egress.allow, [allowed]);
    }
    let bracketed = with("egress.allow", r#"["[::1]"]"#);
    assert_eq!(bracketed.egress.allow, [network("::1/128")]);
    for text in ["10.0.0.0/33", "10.0.0", "10.0.0.256", "host:80", "http://host", "*.example.com", "a b", "a..b", "."] {
        let message = violation("egress.allow", text);
        assert!(message.starts_with(&format!("egress.allow[0]: `{text}` is neither ")), "{message}");
    }
}

#[test]
fn a_public_listener_needs_a_token() {
    for address in ["0.0.0.0:8080", "[::]:8080", "192.168.0.1:80"] {
        let message = format!(
            "http.listen: {address} is reachable from outside and no http.tokens are configured: \
             add a token or listen on 127.0.0.1 (from WAYPOST_HTTP__LISTEN)"
        );
        assert_eq!(TestSettings::empty().variable("WAYPOST_HTTP__LISTEN", address).violations(), [message]);
        let tokens = format!(r#"[{{"name": "ci", "role": "viewer", "sha256": "{HASH}"}}]"#);
        let settings = TestSettings::empty().variable("WAYPOST_HTTP__LISTEN", address);
        let config = settings.variable("WAYPOST_HTTP__TOKENS", &tokens).load().unwrap();
        assert_eq!(config.http.listen.to_string(), address);
    }
    for address in ["127.0.0.2:80", "[::1]:80", "[::ffff:127.0.0.1]:80"] {
        with("http.listen", address);
    }
}

#[test]
fn tokens_have_distinct_names_and_hashes() {
    let token = |name: &str, role: &str, hash: &str| {
        format!("[[http.tokens]]\nname = '{name}'\nrole = '{role}'\nsha256 = '{hash}'\n")
    };
    let other = "A".repeat(64);
    let config =
        TestSettings::file(&[token("a", "viewer", HASH), token("b", "editor", &other)].concat()).load().unwrap();
    assert_eq!(config.http.tokens[0].sha256[..2], [0x9f, 0x86]);
    assert_eq!(config.http.tokens[1].sha256, [0xaa; 32]);
    assert!(config.http.tokens[0].role < config.http.tokens[1].role);

    let empty_hash = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
    let violations = TestSettings::file(
        &[
            token("a", "viewer", HASH),
            token("a", "admin", HASH),
            token("", "editor", "my-secret-token"),
            token("c", "editor", empty_hash),
        ]
        .concat(),
    )
    .violations();
    assert_eq!(
        violations,
        [
            "http.tokens[1].name: `a` is also the name of another token: use a different name for each token",
            "http.tokens[1].role: `admin` is not one of viewer, operator, editor",
            "http.tokens[1].sha256: is also the hash of another token: use a different token for each name",
            "http.tokens[2].name: must be 1 to 100 characters",
            "http.tokens[2].sha256: must be the SHA-256 of the token in 64 hex digits. To hash a token: printf %s TOKEN | sha256sum",
            "http.tokens[3].sha256: is the hash of an empty text. To hash a token: printf %s TOKEN | sha256sum",
        ]
        .map(|violation| format!("{violation} (from waypost.toml)"))
    );
}

#[test]
fn a_token_in_place_of_the_list_is_not_repeated() {
    let message = violation("http.tokens", "my-secret-token");
    assert_eq!(message, "http.tokens[0]: must be a table with name, role and sha256, not text");
}

#[test]
fn displayed_settings_have_no_secrets() {
    let tokens = format!("[{{name = 'ci', role = 'viewer', sha256 = '{HASH}'}}]");
    let config = TestSettings::empty()
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
fn settings_are_displayed_as_they_are_written() {
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
fn an_empty_text_unsets_an_optional_setting() {
    let settings = TestSettings::file("[telemetry]\notlpEndpoint = 'http://traces:4318'");
    assert!(settings.load().unwrap().telemetry.otlp_endpoint.is_some());
    let settings = settings.variable("WAYPOST_TELEMETRY__OTLP_ENDPOINT", "");
    assert!(settings.load().unwrap().telemetry.otlp_endpoint.is_none());
}

#[test]
fn a_ca_file_with_certificates_is_accepted() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/authority.pem");
    let config = TestSettings::empty().flag("egress.caFile", path).load().unwrap();
    assert_eq!(config.egress.ca_file, Some(path.into()));
}
