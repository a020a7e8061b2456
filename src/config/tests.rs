//! Tests of loading: the sources of settings, their precedence, and the error messages.

mod values;

use std::path::Path;

use secrecy::ExposeSecret;

use super::*;

const HASH: &str = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08";

/// The settings of a test: a folder with the settings file, variables and flags.
struct TestSettings {
    folder: tempfile::TempDir,
    variables: Vec<(String, String)>,
    flags: Vec<(&'static str, String)>,
}

impl TestSettings {
    fn empty() -> Self {
        Self { folder: tempfile::tempdir().unwrap(), variables: Vec::new(), flags: Vec::new() }
    }

    fn file(text: &str) -> Self {
        let settings = Self::empty();
        std::fs::write(settings.path(), text).unwrap();
        settings
    }

    fn variable(mut self, name: &str, value: &str) -> Self {
        self.variables.push((name.to_owned(), value.to_owned()));
        self
    }

    fn flag(mut self, key: &'static str, value: &str) -> Self {
        self.flags.push((key, value.to_owned()));
        self
    }

    fn path(&self) -> PathBuf {
        self.folder.path().join(DEFAULT_FILE)
    }

    fn load(&self) -> Result<Config, ConfigError> {
        Config::load_from(self.folder.path(), None, self.variables.clone(), &self.flags)
    }

    /// The violations, without the folder's path.
    fn violations(&self) -> Vec<String> {
        let folder = format!("{}/", self.folder.path().display());
        let error = self.load().expect_err("violations");
        error.to_string().replace(&folder, "").lines().map(str::to_owned).collect()
    }
}

fn defaults() -> Config {
    TestSettings::empty().load().unwrap()
}

/// The only violation of a setting that is set by a flag, without its origin.
fn violation(key: &'static str, value: &str) -> String {
    let violations = TestSettings::empty().flag(key, value).violations();
    assert_eq!(violations.len(), 1, "{key}={value}: {violations:?}");
    violations[0].strip_suffix(" (from the command line)").unwrap().to_owned()
}

fn with(key: &'static str, value: &str) -> Config {
    TestSettings::empty().flag(key, value).load().unwrap_or_else(|error| panic!("{key}={value}: {error}"))
}

fn setting<'a>(config: &'a Config, key: &str) -> &'a Setting {
    config.settings.iter().find(|setting| setting.key == key).unwrap()
}

#[test]
fn the_defaults_are_those_of_the_specification() {
    let config = defaults();
    assert_eq!(config.broker.url.expose_secret(), "amqp://guest:guest@127.0.0.1:5672/%2f");
    assert_eq!(config.broker.prefix, "waypost");
    assert_eq!((config.broker.shards, config.broker.prefetch), (1, 1000));
    assert_eq!(config.http.listen, SocketAddr::from(([127, 0, 0, 1], 8080)));
    assert!(config.http.tokens.is_empty());
    assert_eq!(config.store.path, Path::new("./data"));
    assert_eq!(config.retry, RetryPolicy::default());
    assert_eq!(config.dead_letters.retention, Duration::from_secs(30 * 24 * 3600));
    assert_eq!(config.endpoint.limits, Limits { concurrency: 64, per_second: None });
    assert_eq!(config.endpoint.connect_timeout, Duration::from_secs(5));
    assert_eq!(config.egress.http_urls, HttpUrls::Refused);
    assert!(config.egress.allow.is_empty());
    assert_eq!(config.egress.ca_file, None);
    assert_eq!(config.shutdown.grace, Duration::from_secs(25));
    assert_eq!((config.log.level, config.log.format), (LogLevel::Info, LogFormat::Auto));
    assert_eq!(config.telemetry.otlp_endpoint, None);
}

#[test]
fn the_example_file_has_every_setting_with_its_default() {
    let settings = TestSettings::file(include_str!("../../waypost.example.toml"));
    let config = settings.load().unwrap();
    let path = settings.path().display().to_string();
    for (setting, default) in config.settings.iter().zip(defaults().settings) {
        assert_eq!(setting.origin, path, "{} is missing", setting.key);
        assert_eq!(setting.value, default.value, "{}", setting.key);
    }
    // The value above has a masked password.
    assert_eq!(config.broker.url.expose_secret(), defaults().broker.url.expose_secret());
}

#[test]
fn the_commented_tokens_of_the_example_file_are_valid() {
    let example = include_str!("../../waypost.example.toml");
    let lines = example.lines().filter_map(|line| line.strip_prefix("#| ")).collect::<Vec<_>>().join("\n");
    let config = TestSettings::file(&lines).load().unwrap();
    assert_eq!(config.http.tokens.len(), 2);
}

#[test]
fn flags_win_over_variables_over_the_file_over_the_defaults() {
    let settings = TestSettings::file("[broker]\nprefix = 'file'\nprefetch = 1\n[log]\nlevel = 'warn'")
        .variable("WAYPOST_BROKER__PREFETCH", "2")
        .variable("WAYPOST_LOG__LEVEL", "debug")
        .flag("log.level", "trace");
    let config = settings.load().unwrap();
    assert_eq!(config.broker.prefix, "file");
    assert_eq!(config.broker.prefetch, 2);
    assert_eq!(config.log.level, LogLevel::Trace);
    let origin = |key: &str| setting(&config, key).origin.clone();
    assert_eq!(origin("broker.prefix"), settings.path().display().to_string());
    assert_eq!(origin("broker.prefetch"), "WAYPOST_BROKER__PREFETCH");
    assert_eq!(origin("log.level"), "the command line");
    assert_eq!(origin("log.format"), "default");
}

#[test]
fn a_given_file_replaces_the_default_file_and_must_exist() {
    let settings = TestSettings::file("[broker]\nprefix = 'default'");
    let other_file = settings.folder.path().join("other.toml");
    let load = || Config::load_from(settings.folder.path(), Some(&other_file), Vec::new(), &[]);
    let missing = load().unwrap_err().to_string();
    assert!(missing.starts_with(&format!("{}: cannot be read: No such file", other_file.display())), "{missing}");
    std::fs::write(&other_file, "[broker]\nprefetch = 7").unwrap();
    let config = load().unwrap();
    assert_eq!((config.broker.prefix.as_str(), config.broker.prefetch), ("waypost", 7));
}

#[test]
fn an_unreadable_default_file_is_a_fault() {
    let settings = TestSettings::empty();
    std::fs::create_dir(settings.path()).unwrap();
    assert!(settings.violations()[0].starts_with("waypost.toml: cannot be read: "));
}

#[test]
fn all_errors_are_reported_at_once_with_key_and_origin() {
    let settings = TestSettings::file(
        "prefetch = 1\nlog = 'info'\n[brokr]\nurl = ''\n[broker]\nperfix = 'x'\nprefetch = 5000\nprefix = 5\n\
         [retry]\njitter = 2\npermanentStatuses = [410, 99]\n[http]\ntokens = [{name = 'ci', role = 1}]",
    )
    .variable("WAYPOST_BROKER_URL", "amqp://user:secret@host")
    .variable("WAYPOST_KAFKA__TOPIC", "x")
    .variable("WAYPOST_BROKER__SHARDS", "many")
    .variable("WAYPOST_HTTP__LISTEN", "0.0.0.0:8080")
    .flag("log.level", "loud");
    assert_eq!(
        settings.violations(),
        [
            "broker.perfix: there is no such setting, did you mean broker.prefix? (from waypost.toml)",
            "brokr: there is no such setting, did you mean broker? (from waypost.toml)",
            "log: is a group of settings: write [log], and the settings below it (from waypost.toml)",
            "prefetch: there is no such setting, did you mean broker.prefetch? (from waypost.toml)",
            "WAYPOST_BROKER_URL: there is no such setting, did you mean WAYPOST_BROKER__URL?",
            "broker.shards: `many` is not a number (from WAYPOST_BROKER__SHARDS)",
            "WAYPOST_KAFKA__TOPIC: there is no such setting: waypost.example.toml lists them all",
            "broker.prefix: must be text in quotes, not 5 (from waypost.toml)",
            "http.tokens[0].role: must be text in quotes, not 1 (from waypost.toml)",
            "broker.prefetch: 5000 is out of range: 1 to 2000 (from waypost.toml)",
            "retry.jitter: 2 is out of range: 0 to 1 (from waypost.toml)",
            "retry.permanentStatuses[1]: 99 is out of range: 100 to 599 (from waypost.toml)",
            "log.level: `loud` is not one of error, warn, info, debug, trace (from the command line)",
        ]
    );
}

#[test]
fn a_toml_error_has_a_position_and_no_quote() {
    let violations = TestSettings::file("[broker]\nurl = \"amqp://user:secret@host\nprefix = 'x'").violations();
    assert_eq!(violations.len(), 1);
    assert!(violations[0].starts_with("waypost.toml: line 2, column "), "{violations:?}");
    assert!(!violations[0].contains("secret"), "{violations:?}");
    let violations = TestSettings::file("[broker]\nprefix = 'x'\nprefix = 'y'").violations();
    assert_eq!(violations, ["waypost.toml: line 3, column 1: duplicate key `prefix` in table `broker`"]);
}

#[test]
fn values_of_a_wrong_type_are_refused() {
    let cases = [
        ("[broker]\nprefetch = '512'", "broker.prefetch: must be a whole number, not text"),
        ("[broker]\nprefetch = 1.5", "broker.prefetch: must be a whole number, not 1.5"),
        ("[broker]\nurl = ['amqp://x']", "broker.url: must be text in quotes, not a list"),
        ("[broker.url]\nhost = 'x'", "broker.url: must be text in quotes, not a table"),
        ("[retry]\njitter = 'x'", "retry.jitter: must be a number, not text"),
        ("[retry]\nmaxAge = 60", "retry.maxAge: must be text in quotes, not 60"),
        ("[retry]\npermanentStatuses = 410", "retry.permanentStatuses: must be a list, not 410"),
        ("[egress]\nallow = 'localhost'", "egress.allow: must be a list, not text"),
        ("[egress]\nallow = [1]", "egress.allow[0]: must be text in quotes, not 1"),
        ("[egress]\nallowHttp = 1", "egress.allowHttp: must be true or false, not 1"),
        ("[http]\ntokens = ['x']", "http.tokens[0]: must be a table with name, role and sha256, not text"),
        ("[[http.tokens]]\nname = 'ci'\nrole = 'viewer'", "http.tokens[0]: `sha256` is missing"),
        (
            "[[http.tokens]]\nname = 'ci'\ntoken = 'x'",
            "http.tokens[0].token: unknown field `token`: the fields are name, role, sha256",
        ),
    ];
    for (text, message) in cases {
        assert_eq!(TestSettings::file(text).violations(), [format!("{message} (from waypost.toml)")], "{text}");
    }
    // A whole number is allowed for a setting with fractions.
    assert_eq!(TestSettings::file("[retry]\nmultiplier = 2").load().unwrap().retry.multiplier, 2.0);
}
