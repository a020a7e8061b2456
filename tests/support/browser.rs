//! A headless Chromium, driven by what a user sees: `click` the button "Save", wait for a text. Each browser has its
//! own profile, and ends when it is dropped.
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

/// Chromium has no sandbox as root. It must not search for a proxy. The shared memory of a container may be too small
/// for it.
const CHROMIUM_FLAGS: [&str; 11] = [
    "--headless",
    "--no-sandbox",
    "--disable-dev-shm-usage",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-extensions",
    "--disable-features=Translate,MediaRouter,OptimizationHints,DialMediaRouteProvider",
];

/// A usual window width on a desktop.
const DESKTOP_WIDTH: u32 = 1440;

/// Screens up to this width are emulated as a phone.
const MAX_PHONE_WIDTH: u32 = 600;

/// More than the number of focusable elements on any page.
const MAX_TABS: usize = 200;

/// `prefers-color-scheme`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Scheme {
    Light,
    Dark,
}

/// `prefers-reduced-motion`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Motion {
    Any,
    Reduced,
}

/// A browser with one page, initially empty.
pub(crate) struct Browser {
    /// The URL that paths are relative to.
    base: String,
    width: AtomicU32,
    timeout: Duration,
    session: WebDriver,
    _driver: Driver,
}

impl Browser {
    /// Opens a browser for the pages of a server (`http://127.0.0.1:8080`), 1440 wide and in light colors.
    pub(crate) async fn start(base: &str) -> Self {
        let driver = run_blocking(Driver::start).await;
        let session =
            start_session(&driver.url()).await.unwrap_or_else(|error| panic!("could not start a browser: {error}"));
        let base = base.trim_end_matches('/').to_owned();
        let browser =
            Self { base, width: AtomicU32::new(DESKTOP_WIDTH), timeout: DEFAULT_TIMEOUT, session, _driver: driver };
        browser.resize(DESKTOP_WIDTH).await;
        browser
    }

    /// Changes how long methods wait for their condition.
    pub(crate) fn set_timeout(&mut self, patience: Duration) {
        self.timeout = patience;
    }

    /// Opens a path, and waits until the page is loaded.
    pub(crate) async fn open(&self, path: &str) {
        let url = format!("{}{path}", self.base);
        self.session.goto(&url).await.unwrap_or_else(|error| panic!("{url}: {error}"));
    }

    /// The path and query of the current page.
    pub(crate) async fn path(&self) -> String {
        let url = self.session.current_url().await.unwrap_or_else(|error| panic!("the page's URL: {error}"));
        url.as_str().strip_prefix(&self.base).unwrap_or(url.as_str()).to_owned()
    }

    /// Waits until the current page has this path and query.
    #[track_caller]
    pub(crate) fn wait_for_path(&self, path: &str) -> impl Future<Output = ()> {
        self.retry(format!("be at {path}"), async move || {
            let now = self.path().await;
            if now == path { Ok(()) } else { Err(format!("it is at {now}")) }
        })
    }

    pub(crate) async fn back(&self) {
        self.session.back().await.unwrap_or_else(|error| panic!("back: {error}"));
    }

    pub(crate) async fn reload(&self) {
        self.session.refresh().await.unwrap_or_else(|error| panic!("reload: {error}"));
    }

    /// Sets the width of the screen. A narrow screen is emulated as a phone, which respects the page's viewport
    /// settings.
    pub(crate) async fn resize(&self, width: u32) {
        let (height, mobile) = if width < MAX_PHONE_WIDTH { (740, true) } else { (900, false) };
        let screen = json!({ "width": width, "height": height, "deviceScaleFactor": 1, "mobile": mobile });
        self.devtools_or_panic("Emulation.setDeviceMetricsOverride", screen).await;
        self.width.store(width, Ordering::Relaxed);
    }

    pub(crate) fn width(&self) -> u32 {
        self.width.load(Ordering::Relaxed)
    }

    /// Sets the media preferences that pages see.
    pub(crate) async fn emulate_media(&self, scheme: Scheme, motion: Motion) {
        let scheme = if scheme == Scheme::Dark { "dark" } else { "light" };
        let motion = if motion == Motion::Reduced { "reduce" } else { "no-preference" };
        let features = json!([
            { "name": "prefers-color-scheme", "value": scheme },
            { "name": "prefers-reduced-motion", "value": motion },
        ]);
        self.devtools_or_panic("Emulation.setEmulatedMedia", json!({ "features": features })).await;
    }

    /// Clicks an element, once it exists and nothing covers it.
    #[track_caller]
    pub(crate) fn click(&self, thing: &Locator) -> impl Future<Output = ()> {
        self.retry(format!("click the {thing}"), async move || {
            self.find(thing).await?.click().await.map_err(|error| error.to_string())
        })
    }

    /// Clears a field and types a text into it.
    #[track_caller]
    pub(crate) fn type_into(&self, thing: &Locator, text: &str) -> impl Future<Output = ()> {
        self.retry(format!("type into the {thing}"), async move || {
            let field = self.find(thing).await?;
            field.clear().await.map_err(|error| error.to_string())?;
            field.send_keys(text).await.map_err(|error| error.to_string())
        })
    }

    /// Selects the option with this text.
    #[track_caller]
    pub(crate) fn choose(&self, thing: &Locator, option: &str) -> impl Future<Output = ()> {
        self.retry(format!("choose {option:?} in the {thing}"), async move || {
            let select = SelectElement::new(&self.find(thing).await?).await.map_err(|error| error.to_string())?;
            select.select_by_exact_text(option).await.map_err(|error| error.to_string())
        })
    }

    /// Presses a key in the focused element.
    pub(crate) async fn press(&self, key: Key) {
        self.type_keys(&char::from(key).to_string()).await;
    }

    /// Presses a key while another is held: `press_with(Key::Shift, Key::Tab)`.
    pub(crate) async fn press_with(&self, held: Key, key: Key) {
        let (held, key) = (char::from(held), char::from(key));
        let chain = self.session.action_chain().key_down(held).key_down(key).key_up(key).key_up(held);
        chain.perform().await.unwrap_or_else(|error| panic!("keys: {error}"));
    }

    /// Types a text into the focused element.
    pub(crate) async fn type_keys(&self, text: &str) {
        let chain = self.session.action_chain().send_keys(text);
        chain.perform().await.unwrap_or_else(|error| panic!("keys: {error}"));
    }

    /// Presses `Tab` until an element has the focus.
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

    /// Waits until an element has the focus.
    #[track_caller]
    pub(crate) fn wait_for_focus(&self, thing: &Locator) -> impl Future<Output = ()> {
        self.retry(format!("see the focus on the {thing}"), async move || self.has_focus(thing).await)
    }

    /// The visible text of the page, with one space between words.
    pub(crate) async fn text(&self) -> String {
        collapse_whitespace(&self.script::<String>("return document.body.innerText;", Vec::new()).await)
    }

    /// Waits until the page contains a text.
    #[track_caller]
    pub(crate) fn wait_for_text(&self, text: &str) -> impl Future<Output = ()> {
        let wanted = collapse_whitespace(text);
        self.retry(format!("read {wanted:?}"), async move || {
            let says = self.try_text().await?;
            if says.contains(&wanted) { Ok(()) } else { Err("it does not say so".to_owned()) }
        })
    }

    /// Waits until the page does not contain a text.
    #[track_caller]
    pub(crate) fn wait_for_no_text(&self, text: &str) -> impl Future<Output = ()> {
        let unwanted = collapse_whitespace(text);
        self.retry(format!("read no {unwanted:?}"), async move || {
            let says = self.try_text().await?;
            if says.contains(&unwanted) { Err("it still says so".to_owned()) } else { Ok(()) }
        })
    }

    /// Waits until an element exists.
    #[track_caller]
    pub(crate) fn wait_for(&self, thing: &Locator) -> impl Future<Output = ()> {
        self.wait_for_at(thing, Location::caller())
    }

    /// Waits until an element does not exist.
    #[track_caller]
    pub(crate) fn wait_until_gone(&self, thing: &Locator) -> impl Future<Output = ()> {
        self.retry(format!("see no {thing}"), async move || {
            let names = self.all_names(thing).await?;
            if names.is_empty() { Ok(()) } else { Err(format!("there is {names:?}")) }
        })
    }

    /// The names of all matching elements, in the order of the page: `names(&row(""))`.
    pub(crate) async fn names(&self, thing: &Locator) -> Vec<String> {
        self.all_names(thing).await.unwrap_or_else(|error| panic!("{thing}: {error}"))
    }

    /// The value of a field or select.
    #[track_caller]
    pub(crate) fn value(&self, thing: &Locator) -> impl Future<Output = String> {
        self.retry(format!("read the value of the {thing}"), async move || {
            let value = self.find(thing).await?.value().await.map_err(|error| error.to_string())?;
            value.ok_or_else(|| "it has none".to_owned())
        })
    }

    /// An attribute of an element: `aria-expanded`, `href`.
    #[track_caller]
    pub(crate) fn attribute(&self, thing: &Locator, name: &str) -> impl Future<Output = Option<String>> {
        self.retry(format!("read {name} of the {thing}"), async move || {
            self.find(thing).await?.attr(name).await.map_err(|error| error.to_string())
        })
    }

    /// Writes a PNG of the visible page to a file.
    pub(crate) async fn screenshot(&self, file: &Path) {
        if let Some(folder) = file.parent() {
            std::fs::create_dir_all(folder).expect("a folder for the screenshot");
        }
        self.session.screenshot(file).await.unwrap_or_else(|error| panic!("{}: {error}", file.display()));
    }

    /// Runs a script on the page and returns its result. The content security policy does not apply to it.
    pub(crate) async fn script<T: DeserializeOwned>(&self, script: &str, arguments: Vec<Value>) -> T {
        let returned = self.session.execute(script, arguments).await;
        returned.and_then(|value| value.convert()).unwrap_or_else(|error| panic!("a script on the page: {error}"))
    }

    fn wait_for_at(&self, thing: &Locator, caller: &'static Location<'static>) -> impl Future<Output = ()> {
        self.retry_at(caller, format!("see the {thing}"), async move || {
            let names = self.all_names(thing).await?;
            // The error lists the elements that exist instead.
            if names.is_empty() { self.find(thing).await.map(drop) } else { Ok(()) }
        })
    }

    /// Retries until `attempt` succeeds. Panics with the last error and the text of the page.
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
                panic!("could not {what}: {obstacle} ({caller})\n{} shows: {says}", self.path().await)
            }
        }
    }

    async fn try_text(&self) -> QueryResult<String> {
        let text = self.session.execute("return document.body.innerText;", Vec::new()).await;
        let text = text.and_then(|text| text.convert::<String>()).map_err(|error| error.to_string())?;
        Ok(collapse_whitespace(&text))
    }

    /// Delays each response.
    pub(crate) async fn delay_responses(&self, delay: Duration) {
        self.devtools_or_panic("Network.enable", json!({})).await;
        let conditions =
            json!({ "offline": false, "latency": delay.as_millis(), "downloadThroughput": -1, "uploadThroughput": -1 });
        self.devtools_or_panic("Network.emulateNetworkConditions", conditions).await;
    }

    /// Sends a command of the Chrome DevTools Protocol, for what WebDriver can't do.
    async fn devtools(&self, method: &str, parameters: Value) -> QueryResult<Value> {
        self.session.cdp().send_raw(method, parameters).await.map_err(|error| format!("{method}: {error}"))
    }

    async fn devtools_or_panic(&self, method: &str, parameters: Value) {
        self.devtools(method, parameters).await.unwrap_or_else(|error| panic!("{error}"));
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        // The driver's process ends the session. The session may have ended already.
        let _ = self.session.clone().leak();
    }
}

async fn start_session(driver: &str) -> thirtyfour::error::WebDriverResult<WebDriver> {
    // The client can't be built without a crypto provider, although it uses plain HTTP. Another test may have installed
    // one.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let client = Client::builder().no_proxy().timeout(DEFAULT_TIMEOUT * 2).build().expect("an HTTP client");
    let mut capabilities = DesiredCapabilities::chrome();
    for flag in CHROMIUM_FLAGS {
        capabilities.add_arg(flag)?;
    }
    capabilities.set_browser_log_level(LoggingPrefsLogLevel::All)?;
    WebDriver::builder(driver, capabilities).client(client).connect().await
}
