//! Settings on the command line: `waypost check`.

use serde_json::json;

use super::{CliSandbox, assert_exit, campaign, json_items};

#[tokio::test]
async fn valid_settings_are_shown_with_their_source() {
    let shell = CliSandbox::new();
    let printed = shell.run(&[], &["check"]).await;
    assert_exit(&printed, 0, &[]);
    assert!(printed.stdout.contains("Settings are valid"), "{printed:#?}");

    shell.file("waypost.toml", "[broker]\nprefix = \"from-file\"\nprefetch = 7\n[log]\nlevel = \"debug\"\n");
    let environment = [
        ("WAYPOST_BROKER__PREFETCH", "8"),
        ("WAYPOST_LOG__LEVEL", "warn"),
        ("WAYPOST_BROKER__URL", "amqp://me:open-sesame@rabbit/"),
    ];
    let printed = shell.run(&environment, &["check", "--json", "--set", "log.level=error"]).await;
    assert_exit(&printed, 0, &[]);
    assert!(!printed.stdout.contains("open-sesame"), "the password is shown: {}", printed.stdout);
    let settings = json_items(&printed.stdout, Some("settings"));
    let setting = |key: &str| {
        let setting = settings.iter().find(|setting| setting["key"] == key).expect("the setting");
        (setting["value"].to_string().trim_matches('"').to_owned(), setting["from"].as_str().expect("an origin"))
    };
    let (prefix, origin) = setting("broker.prefix");
    assert_eq!(prefix, "from-file");
    assert!(origin.ends_with("waypost.toml"), "{origin}");
    assert_eq!(setting("broker.prefetch"), ("8".to_owned(), "WAYPOST_BROKER__PREFETCH"));
    assert_eq!(setting("log.level"), ("error".to_owned(), "the command line"));
    assert_eq!(setting("http.listen"), ("127.0.0.1:8080".to_owned(), "default"));
}

#[tokio::test]
async fn all_invalid_settings_are_reported_together() {
    let shell = CliSandbox::new();
    let file = shell.file("bad.toml", "[broker]\nperfix = \"x\"\nprefetch = 0\n[htp]\nlisten = \"\"\n");
    let printed = shell.run(&[("WAYPOST_BOGUS__KEY", "1")], &["check", "--config", &file]).await;
    let said = ["broker.perfix", "broker.prefix?", "broker.prefetch", "htp", "WAYPOST_BOGUS__KEY", &file];
    assert_exit(&printed, 1, &said);
    assert_eq!(printed.stdout, "");

    assert_exit(&shell.run(&[("WAYPOST_BROKER_URL", "amqp://x")], &["check"]).await, 1, &["WAYPOST_BROKER__URL"]);
    assert_exit(&shell.run(&[], &["check", "--set", "broker.colour=red"]).await, 1, &["broker.colour"]);
    assert_exit(&shell.run(&[], &["check", "--config", "nowhere.toml"]).await, 1, &["nowhere.toml"]);
    let file = shell.file("broken.toml", "[broker]\nprefix = \"waypost\nprefetch = 1");
    assert_exit(&shell.run(&[], &["check", "--config", &file]).await, 1, &["broken.toml", "line 2"]);
    // `serve` and `demo` print the same errors, and do not start.
    for command in ["serve", "demo"] {
        assert_exit(&shell.run(&[("WAYPOST_BOGUS__KEY", "1")], &[command]).await, 1, &["WAYPOST_BOGUS__KEY"]);
    }
}

/// A worker can start with every configuration that `check` accepts.
#[tokio::test]
async fn invalid_certificate_files_are_reported() {
    let shell = CliSandbox::new();
    let file = shell.file("ca.pem", "-----BEGIN CERTIFICATE-----\nnot one\n-----END CERTIFICATE-----\n");
    for command in ["check", "serve"] {
        let arguments = [command, "--set", &format!("egress.caFile={file}"), "--set", "http.listen=127.0.0.1:0"];
        assert_exit(&shell.run(&[], &arguments).await, 1, &["egress.caFile", &file]);
    }
}

#[tokio::test]
async fn a_variable_may_be_spelled_with_or_without_underscores() {
    let shell = CliSandbox::new();
    for name in ["WAYPOST_EGRESS__ALLOW_HTTP", "WAYPOST_EGRESS__ALLOWHTTP"] {
        let printed = shell.run(&[(name, "true")], &["check", "--json"]).await;
        assert_exit(&printed, 0, &[]);
        let settings = json_items(&printed.stdout, Some("settings"));
        let setting = settings.iter().find(|setting| setting["key"] == "egress.allowHttp").expect("the setting");
        assert_eq!((setting["value"].to_string().trim_matches('"'), &setting["from"]), ("true", &json!(name)));
    }
    let both = [("WAYPOST_EGRESS__ALLOW_HTTP", "true"), ("WAYPOST_EGRESS__ALLOWHTTP", "false")];
    assert_exit(&shell.run(&both, &["check"]).await, 1, &["egress.allowHttp", both[0].0, both[1].0]);
}

#[tokio::test]
async fn campaign_files_are_checked_under_the_settings() {
    let shell = CliSandbox::new();
    let good = shell.file("good.json", campaign("good", "https://example.com/hook").to_string());
    assert_exit(&shell.run(&[], &["check", &good]).await, 0, &[]);

    let plain = shell.file("plain.json", campaign("plain", "http://example.com/hook").to_string());
    let printed = shell.run(&[], &["check", &good, &plain]).await;
    assert_exit(
        &printed,
        1,
        &["plain.json: $.sections[0].menu[0].webhook.url: ", "$.sections[0].menu[1].webhook.url: "],
    );
    assert!(!printed.stderr.contains("good.json"), "{printed:#?}");
    assert_exit(&shell.run(&[("WAYPOST_EGRESS__ALLOW_HTTP", "true")], &["check", &plain]).await, 0, &[]);

    let broken = shell.file("broken.json", "{");
    let printed = shell.run(&[], &["check", &broken, "missing.json"]).await;
    assert_exit(&printed, 1, &["broken.json: $: ", "missing.json: "]);
}
