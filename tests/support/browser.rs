//! A person's browser: a real Chromium without a window, told what to do in words a person would use: "click the button Save", "wait
//! until the page says so". Each has a profile of its own, and ends when it is dropped.
//!
//! ```ignore
//! let browser = Browser::at(&waypost.url("")).await;
//! browser.open("/").await;
//! browser.type_into(&field("Token"), "token-of-the-viewer").await;
//! browser.click(&button("Sign in")).await;
//! browser.wait_for_text("3 dead letters").await;
//! browser.assert_sound().await;
//! ```

mod axe;
mod driver;
mod locators;
mod page_checks;

use std::future::Future;
use std::panic::Location;
use std::path::Path;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use reqwest::Client;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use thirtyfour::components::SelectElement;
use thirtyfour::{ChromiumLikeCapabilities as _, DesiredCapabilities, LoggingPrefsLogLevel, WebDriver};

use super::broker::run_blocking;
use super::wait::{DEFAULT_TIMEOUT, poll_until};
use driver::Driver;
use locators::{QueryResult, collapse_whitespace};

pub(crate) use locators::{
    Locator, button, checkbox, choice, dialog, field, heading, link, radio, region, row, summary,
};
pub(crate) use page_checks::CHECKED_WIDTHS;
pub(crate) use thirtyfour::Key;

/// As root Chromium has no sandbox; where there is no way out it shall not look for one; and what it shares between its processes may
/// be more than a container has room for.
const CHROMIUM_FLAGS: [&str; 9] = [
    "--headless",
    "--no-sandbox",
    "--disable-dev-shm-usage",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
];

/// A usual width of a window on a desk.
const DESKTOP_WIDTH: u32 = 1440;

/// Up to this width a screen is a telephone's.
const MAX_PHONE_WIDTH: u32 = 600;

/// More `Tab`s than any page has places for the focus.
const MAX_TABS: usize = 200;

/// Which colours a person prefers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Scheme {
    Light,
    Dark,
}

/// How much movement a person can bear.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Motion {
    Any,
    Reduced,
}

/// A browser with one page, which is at first empty.
pub(crate) struct Browser {
    /// Where paths lead.
    base: String,
    width: AtomicU32,
    timeout: Duration,
    session: WebDriver,
    _driver: Driver,
}

impl Browser {
    /// Starts one for the pages of a server (`http://127.0.0.1:8080`): 1440 wide, in light colours.
    pub(crate) async fn start(base: &str) -> Self {
        let driver = run_blocking(Driver::start).await;
        let session =
            start_session(&driver.url()).await.unwrap_or_else(|error| panic!("no browser could be started: {error}"));
        let base = base.trim_end_matches('/').to_owned();
        let browser =
            Self { base, width: AtomicU32::new(DESKTOP_WIDTH), timeout: DEFAULT_TIMEOUT, session, _driver: driver };
        browser.resize(DESKTOP_WIDTH).await;
        browser
    }

    /// From now on waits no longer than this for anything, for when it is in vain.
    pub(crate) fn set_timeout(&mut self, patience: Duration) {
        self.timeout = patience;
    }

    /// Opens a path, and waits until the page is loaded.
    pub(crate) async fn open(&self, path: &str) {
        let url = format!("{}{path}", self.base);
        self.session.goto(&url).await.unwrap_or_else(|error| panic!("{url}: {error}"));
    }

    /// The path of the page, with its query.
    pub(crate) async fn path(&self) -> String {
        let url = self.session.current_url().await.unwrap_or_else(|error| panic!("the page's URL: {error}"));
        url.as_str().strip_prefix(&self.base).unwrap_or(url.as_str()).to_owned()
    }

    /// Waits until the page is this one.
    #[track_caller]
    pub(crate) fn wait_for_path(&self, path: &str) -> impl Future<Output = ()> {
        self.retry(format!("be at {path}"), async move || {
            let now = self.path().await;
            if now == path { Ok(()) } else { Err(format!("it is at {now}")) }
        })
    }

    /// Goes back to the page before.
    pub(crate) async fn back(&self) {
        self.session.back().await.unwrap_or_else(|error| panic!("back: {error}"));
    }

    /// Loads the page again.
    pub(crate) async fn reload(&self) {
        self.session.refresh().await.unwrap_or_else(|error| panic!("reload: {error}"));
    }

    /// Gives the page a screen of this width. A narrow one is a telephone's: what the page says of its viewport counts there.
    pub(crate) async fn resize(&self, width: u32) {
        let (height, mobile) = if width < MAX_PHONE_WIDTH { (740, true) } else { (900, false) };
        let screen = json!({ "width": width, "height": height, "deviceScaleFactor": 1, "mobile": mobile });
        self.devtools_or_panic("Emulation.setDeviceMetricsOverride", screen).await;
        self.width.store(width, Ordering::Relaxed);
    }

    /// The width of the screen.
    pub(crate) fn width(&self) -> u32 {
        self.width.load(Ordering::Relaxed)
    }

    /// Tells pages what the person prefers.
    pub(crate) async fn emulate_media(&self, scheme: Scheme, motion: Motion) {
        let scheme = if scheme == Scheme::Dark { "dark" } else { "light" };
        let motion = if motion == Motion::Reduced { "reduce" } else { "no-preference" };
        let features = json!([
            { "name": "prefers-color-scheme", "value": scheme },
            { "name": "prefers-reduced-motion", "value": motion },
        ]);
        self.devtools_or_panic("Emulation.setEmulatedMedia", json!({ "features": features })).await;
    }

    /// Clicks a thing, once it is there and nothing is in the way.
    #[track_caller]
    pub(crate) fn click(&self, thing: &Locator) -> impl Future<Output = ()> {
        self.retry(format!("click the {thing}"), async move || {
            self.find(thing).await?.click().await.map_err(|error| error.to_string())
        })
    }

    /// Empties a field and types a text into it.
    #[track_caller]
    pub(crate) fn type_into(&self, thing: &Locator, text: &str) -> impl Future<Output = ()> {
        self.retry(format!("type into the {thing}"), async move || {
            let field = self.find(thing).await?;
            field.clear().await.map_err(|error| error.to_string())?;
            field.send_keys(text).await.map_err(|error| error.to_string())
        })
    }

    /// Chooses the option of this text.
    #[track_caller]
    pub(crate) fn choose(&self, thing: &Locator, option: &str) -> impl Future<Output = ()> {
        self.retry(format!("choose {option:?} in the {thing}"), async move || {
            let select = SelectElement::new(&self.find(thing).await?).await.map_err(|error| error.to_string())?;
            select.select_by_exact_text(option).await.map_err(|error| error.to_string())
        })
    }

    /// Presses a key, wherever the focus is.
    pub(crate) async fn press(&self, key: Key) {
        self.type_keys(&char::from(key).to_string()).await;
    }

    /// Presses a key while another is held: `press_with(Key::Shift, Key::Tab)`.
    pub(crate) async fn press_with(&self, held: Key, key: Key) {
        let (held, key) = (char::from(held), char::from(key));
        let chain = self.session.action_chain().key_down(held).key_down(key).key_up(key).key_up(held);
        chain.perform().await.unwrap_or_else(|error| panic!("keys: {error}"));
    }

    /// Types a text, wherever the focus is.
    pub(crate) async fn type_keys(&self, text: &str) {
        let chain = self.session.action_chain().send_keys(text);
        chain.perform().await.unwrap_or_else(|error| panic!("keys: {error}"));
    }

    /// Presses `Tab` until the focus is on a thing, as who has no mouse does.
    #[track_caller]
    pub(crate) fn tab_to(&self, thing: &Locator) -> impl Future<Output = ()> {
        let caller = Location::caller();
        async move {
            self.wait_for_at(thing, caller).await;
            let mut last = String::new();
            for _ in 0..MAX_TABS {
                self.press(Key::Tab).await;
                match self.has_focus(thing).await {
                    Ok(()) => return,
                    Err(other) => last = other,
                }
            }
            panic!("Tab does not reach the {thing}: after {MAX_TABS} times {last} ({caller})");
        }
    }

    /// Waits until the focus is on a thing.
    #[track_caller]
    pub(crate) fn wait_for_focus(&self, thing: &Locator) -> impl Future<Output = ()> {
        self.retry(format!("see the focus on the {thing}"), async move || self.has_focus(thing).await)
    }

    /// What the page says, as far as it can be seen, with one space between words.
    pub(crate) async fn text(&self) -> String {
        collapse_whitespace(&self.script::<String>("return document.body.innerText;", Vec::new()).await)
    }

    /// Waits until the page says this.
    #[track_caller]
    pub(crate) fn wait_for_text(&self, text: &str) -> impl Future<Output = ()> {
        let wanted = collapse_whitespace(text);
        self.retry(format!("read {wanted:?}"), async move || {
            let says = self.try_text().await?;
            if says.contains(&wanted) { Ok(()) } else { Err("it does not say so".to_owned()) }
        })
    }

    /// Waits until the page does not say this any more.
    #[track_caller]
    pub(crate) fn wait_for_no_text(&self, text: &str) -> impl Future<Output = ()> {
        let unwanted = collapse_whitespace(text);
        self.retry(format!("read no {unwanted:?}"), async move || {
            let says = self.try_text().await?;
            if says.contains(&unwanted) { Err("it still says so".to_owned()) } else { Ok(()) }
        })
    }

    /// Waits until a thing is there.
    #[track_caller]
    pub(crate) fn wait_for(&self, thing: &Locator) -> impl Future<Output = ()> {
        self.wait_for_at(thing, Location::caller())
    }

    /// Waits until no such thing is there.
    #[track_caller]
    pub(crate) fn wait_until_gone(&self, thing: &Locator) -> impl Future<Output = ()> {
        self.retry(format!("see no {thing}"), async move || {
            let names = self.all_names(thing).await?;
            if names.is_empty() { Ok(()) } else { Err(format!("there is {names:?}")) }
        })
    }

    /// The names of all things of a kind that are there, in the order of the page: `names(&row(""))`.
    pub(crate) async fn names(&self, thing: &Locator) -> Vec<String> {
        self.all_names(thing).await.unwrap_or_else(|error| panic!("{thing}: {error}"))
    }

    /// The value of a field or a choice.
    #[track_caller]
    pub(crate) fn value(&self, thing: &Locator) -> impl Future<Output = String> {
        self.retry(format!("read the value of the {thing}"), async move || {
            let value = self.find(thing).await?.value().await.map_err(|error| error.to_string())?;
            value.ok_or_else(|| "it has none".to_owned())
        })
    }

    /// An attribute of a thing, where it has it: `aria-expanded`, `href`.
    #[track_caller]
    pub(crate) fn attribute(&self, thing: &Locator, name: &str) -> impl Future<Output = Option<String>> {
        self.retry(format!("read {name} of the {thing}"), async move || {
            self.find(thing).await?.attr(name).await.map_err(|error| error.to_string())
        })
    }

    /// Writes what the screen shows into a file (PNG).
    pub(crate) async fn screenshot(&self, file: &Path) {
        if let Some(folder) = file.parent() {
            std::fs::create_dir_all(folder).expect("a folder for the screenshot");
        }
        self.session.screenshot(file).await.unwrap_or_else(|error| panic!("{}: {error}", file.display()));
    }

    /// Runs a script on the page, beyond its content security policy, and gives back what it returns.
    pub(crate) async fn script<T: DeserializeOwned>(&self, script: &str, arguments: Vec<Value>) -> T {
        let returned = self.session.execute(script, arguments).await;
        returned.and_then(|value| value.convert()).unwrap_or_else(|error| panic!("a script on the page: {error}"))
    }

    fn wait_for_at(&self, thing: &Locator, caller: &'static Location<'static>) -> impl Future<Output = ()> {
        self.retry_at(caller, format!("see the {thing}"), async move || {
            let names = self.all_names(thing).await?;
            // Says what there is instead.
            if names.is_empty() { self.find(thing).await.map(drop) } else { Ok(()) }
        })
    }

    /// Tries again and again until it is done; panics with what was in the way, and with what the page says.
    #[track_caller]
    fn retry<T>(&self, what: String, attempt: impl AsyncFnMut() -> QueryResult<T>) -> impl Future<Output = T> {
        self.retry_at(Location::caller(), what, attempt)
    }

    async fn retry_at<T>(
        &self,
        caller: &'static Location<'static>,
        what: String,
        mut attempt: impl AsyncFnMut() -> QueryResult<T>,
    ) -> T {
        let mut obstacle = "the browser did not answer".to_owned();
        let probe = async || match attempt().await {
            Ok(done) => Some(done),
            Err(why) => {
                obstacle = why;
                None
            }
        };
        let done = poll_until(self.timeout, probe).await;
        match done {
            Some(done) => done,
            None => {
                let says = self.try_text().await.unwrap_or_default();
                panic!("could not {what}: {obstacle} ({caller})\n{} says: {says}", self.path().await)
            }
        }
    }

    async fn try_text(&self) -> QueryResult<String> {
        let text = self.session.execute("return document.body.innerText;", Vec::new()).await;
        let text = text.and_then(|text| text.convert::<String>()).map_err(|error| error.to_string())?;
        Ok(collapse_whitespace(&text))
    }

    /// Delays each response by this time from now on.
    pub(crate) async fn delay_responses(&self, delay: Duration) {
        self.devtools_or_panic("Network.enable", json!({})).await;
        let conditions =
            json!({ "offline": false, "latency": delay.as_millis(), "downloadThroughput": -1, "uploadThroughput": -1 });
        self.devtools_or_panic("Network.emulateNetworkConditions", conditions).await;
    }

    /// A command of Chromium's own protocol, for what WebDriver has no word for.
    async fn devtools(&self, method: &str, parameters: Value) -> QueryResult<Value> {
        self.session.cdp().send_raw(method, parameters).await.map_err(|error| format!("{method}: {error}"))
    }

    async fn devtools_or_panic(&self, method: &str, parameters: Value) {
        self.devtools(method, parameters).await.unwrap_or_else(|error| panic!("{error}"));
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        // The session ends with the driver's process; to end it first would only take time. It may have ended already.
        let _ = self.session.clone().leak();
    }
}

/// Has the driver start its browser.
async fn start_session(driver: &str) -> thirtyfour::error::WebDriverResult<WebDriver> {
    // The client is not built without one, though it speaks in the clear. Another test may have been first.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let client = Client::builder().no_proxy().timeout(DEFAULT_TIMEOUT * 2).build().expect("an HTTP client");
    let mut capabilities = DesiredCapabilities::chrome();
    for flag in CHROMIUM_FLAGS {
        capabilities.add_arg(flag)?;
    }
    capabilities.set_browser_log_level(LoggingPrefsLogLevel::All)?;
    WebDriver::builder(driver, capabilities).client(client).connect().await
}
