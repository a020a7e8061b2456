//! The choices of a test about its worker.

use super::{FAST_RETRIES, TestApp, bearer_token, example_campaign, token_settings};
use crate::support::waypost::RunIn;
use crate::support::{Amqp, Broker, BrokerObjects, Receiver, Waypost, unique};

/// Starts a [`TestApp`]. By default the worker is a thread of the test on the shared broker, retries within seconds,
/// requires no tokens, and has the example campaign.
#[must_use = "call `start`"]
pub(crate) struct TestAppBuilder {
    place: RunIn,
    /// `None` for the shared broker.
    broker_url: Option<String>,
    variables: Vec<(String, String)>,
    stored: StoredCampaign,
}

#[derive(Clone, Copy)]
enum StoredCampaign {
    Example,
    None,
}

impl TestAppBuilder {
    pub(super) fn new() -> Self {
        let variables = FAST_RETRIES.map(|(name, value)| (name.to_owned(), value.to_owned())).to_vec();
        Self { place: RunIn::Thread, broker_url: None, variables, stored: StoredCampaign::Example }
    }

    /// Runs the worker as a process, to kill it, send signals, read its log or use its files.
    pub(crate) fn process(self) -> Self {
        Self { place: RunIn::Process, ..self }
    }

    /// Uses a broker or proxy of the test.
    pub(crate) fn broker(self, url: &str) -> Self {
        Self { broker_url: Some(url.to_owned()), ..self }
    }

    /// Sets a setting by its name in the settings file: `retry.maxAttempts`.
    pub(crate) fn set(self, key: &str, value: impl ToString) -> Self {
        self.variable(&variable_name(key), &value.to_string())
    }

    /// Sets an environment variable of the worker.
    pub(crate) fn variable(mut self, name: &str, value: &str) -> Self {
        self.variables.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Requires a token for each role. Requests use the editor's token, except those of [`TestApp::send_as`].
    pub(crate) fn tokens(self) -> Self {
        self.set("http.tokens", token_settings())
    }

    pub(crate) fn without_campaign(self) -> Self {
        Self { stored: StoredCampaign::None, ..self }
    }

    pub(crate) async fn start(self) -> TestApp {
        let Self { place, broker_url, variables, stored } = self;
        let is_shared = broker_url.is_none();
        let broker_url = match broker_url {
            Some(url) => url,
            None => Broker::shared().await.url(),
        };
        let prefix = unique(&theme());
        let waypost = start_worker(place, &broker_url, &prefix, &variables).await;
        let receiver = Receiver::start();
        if let StoredCampaign::Example = stored {
            waypost.put_campaign(&example_campaign(&receiver)).await;
        }
        let amqp = Amqp::connect(&broker_url).await;
        let _objects = is_shared.then(|| BrokerObjects::new(&broker_url, &prefix));
        TestApp { prefix, waypost, receiver, amqp, broker_url, variables, place, _objects }
    }
}

/// A name in `variables` that occurs twice has the last value.
pub(super) async fn start_worker(
    place: RunIn,
    broker_url: &str,
    prefix: &str,
    variables: &[(String, String)],
) -> Waypost {
    let variables: Vec<(&str, &str)> = variables.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
    let mut waypost = Waypost::launch_in(place, broker_url, prefix, &variables);
    waypost.wait_until_ready().await;
    // A worker without `http.tokens` ignores the token.
    waypost.authenticate(&bearer_token("editor"));
    waypost
}

/// `retry.maxAttempts` → `WAYPOST_RETRY__MAX_ATTEMPTS`
fn variable_name(key: &str) -> String {
    let mut name = "WAYPOST_".to_owned();
    for letter in key.chars() {
        match letter {
            '.' => name.push_str("__"),
            'A'..='Z' => name.extend(['_', letter]),
            _ => name.push(letter.to_ascii_uppercase()),
        }
    }
    name
}

/// The file of the running test, for the names of its broker objects. libtest names the thread of a test after it.
fn theme() -> String {
    let thread = std::thread::current();
    thread.name().and_then(|name| name.split("::").next()).unwrap_or("test").to_owned()
}
