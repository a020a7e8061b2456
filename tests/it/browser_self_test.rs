//! Tests of the browser support on small pages, without the product: actions work, and each kind of page error is
//! detected.

use std::time::Duration;

use axum::Router;
use axum::http::StatusCode;
use axum::http::header::{CONTENT_SECURITY_POLICY, CONTENT_TYPE};
use axum::response::IntoResponse;
use axum::routing::get;
use tempfile::TempDir;

use crate::support::background_server::BackgroundServer;
use crate::support::browser::{
    Browser, Key, Motion, Scheme, button, checkbox, choice, field, heading, link, region, row, summary,
};

/// As strict as the policy of the console.
const CSP: &str = "default-src 'none'; script-src 'self'; style-src 'self'; form-action 'self'; base-uri 'none'; \
                      frame-ancestors 'none'; require-trusted-types-for 'script'";

const CSS: &str = "
body { margin: 1rem; color: #111; background: #fff }
.scrolls { overflow-x: auto } .wide { width: 60rem }
@media (prefers-color-scheme: dark) { body { color: #eee; background: #111 } a { color: #9cf } }
.moves { display: block } @media (prefers-reduced-motion: reduce) { .moves { display: none } }";

const SCRIPT: &str = "
const said = document.getElementById('said');
document.querySelector('form')?.addEventListener('submit', (event) => {
  event.preventDefault();
  const form = new FormData(event.target);
  said.textContent = `saved ${form.get('name')} as ${form.get('state')}, ${form.get('loud') ?? 'quiet'}`;
});
document.addEventListener('keydown', (event) => { if (event.key === 'Escape') said.textContent = 'escaped'; });
for (const button of document.querySelectorAll('tr button')) button.addEventListener('click', () => {
  setTimeout(() => { said.textContent = 'discarded'; button.closest('tr').remove(); }, 100);
});";

const CLEAN_PAGE: &str = r#"<main><h1>Letters</h1><p class="moves">Something moves</p>
<nav aria-label="Pages"><a href="/other?from=clean">Another page</a></nav>
<form><label>Name <input name="name" value="before"></label>
<label>State <select name="state"><option>pending</option><option>replayed</option></select></label>
<label><input type="checkbox" name="loud" value="loud"> Loud</label><button>Save <b>all</b></button></form>
<p id="said" role="status"></p>
<details><summary>More</summary><p>What was hidden</p></details>
<div class="scrolls" tabindex="0" role="region" aria-label="All letters"><table class="wide"><tr><th>Id</th><th>Do</th></tr>
<tr><td>first</td><td><button>Discard</button></td></tr><tr><td>second</td><td><button>Discard</button></td></tr></table></div>
</main>"#;

/// Serves the pages until it is dropped.
struct PageServer {
    url: String,
    _server: BackgroundServer,
}

impl PageServer {
    fn serve() -> Self {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
        listener.set_nonblocking(true).expect("a nonblocking listener");
        let url = format!("http://{}", listener.local_addr().expect("an address"));
        let pages = Router::new()
            .route("/favicon.ico", get(|| async { StatusCode::NO_CONTENT }))
            .route("/style.css", get(|| async { ([(CONTENT_TYPE, "text/css")], CSS) }))
            .route("/script.js", get(|| async { ([(CONTENT_TYPE, "text/javascript")], SCRIPT) }))
            .route("/clean", get(|| async { page(CLEAN_PAGE) }))
            .route("/other", get(|| async { page("<main><h1>The other page</h1></main>") }))
            .route("/lacking", get(|| async { page("<h1>Lacking</h1><script src=/none.js></script>") }))
            .route("/inline", get(|| async { page("<h1>Inline</h1><script>document.title = 'x'</script>") }))
            .route("/unnamed", get(|| async { page("<main><h1>Unnamed</h1><button></button></main>") }))
            .route("/wide", get(|| async { page("<main><h1>Wide</h1><p class=wide>as a table</p></main>") }))
            .route("/unscaled", get(|| async { axum::response::Html("<!doctype html><title>x</title><p>small") }));
        let serve = async move || {
            let listener = tokio::net::TcpListener::from_std(listener).expect("a listener");
            axum::serve(listener, pages).await.expect("the page server runs");
        };
        Self { url, _server: BackgroundServer::start("pages", serve) }
    }
}

fn page(body: &str) -> impl IntoResponse + use<> {
    let html = format!(
        "<!doctype html><html lang=en><head><title>A page</title><link rel=stylesheet href=/style.css>\
         <meta name=viewport content='width=device-width, initial-scale=1'></head><body>{body}<script src=/script.js></script>"
    );
    ([(CONTENT_TYPE, "text/html; charset=utf-8"), (CONTENT_SECURITY_POLICY, CSP)], html)
}

/// Opens a browser at one of the pages.
async fn open(path: &str) -> (PageServer, Browser) {
    let pages = PageServer::serve();
    let browser = Browser::start(&pages.url).await;
    browser.open(path).await;
    (pages, browser)
}

#[tokio::test]
async fn user_actions_work_and_a_clean_page_passes() {
    let (_pages, browser) = open("/clean").await;
    browser.assert_page_quality().await;

    browser.type_into(&field("Name"), "after").await;
    browser.choose(&choice("State"), "replayed").await;
    browser.click(&checkbox("Loud")).await;
    browser.click(&button("Save all")).await;
    browser.wait_for_text("saved after as replayed, loud").await;
    assert_eq!(browser.value(&field("Name")).await, "after");

    assert_eq!(browser.names(&row("")).await, ["Id Do", "first Discard", "second Discard"]);
    browser.click(&button("Discard").inside(row("second"))).await;
    browser.wait_until_gone(&row("second")).await;
    browser.wait_for(&row("first").inside(region("All letters"))).await;
    browser.wait_for_text("discarded").await;

    browser.wait_for_no_text("What was hidden").await;
    browser.click(&summary("More")).await;
    browser.wait_for_text("What was hidden").await;

    browser.click(&link("Another").with_partial_name().inside(region("Pages"))).await;
    browser.wait_for_path("/other?from=clean").await;
    browser.wait_for(&heading("The other page")).await;
    browser.back().await;
    browser.wait_for_path("/clean").await;
    browser.assert_no_console_errors().await;
}

#[tokio::test]
async fn a_page_can_be_used_by_keyboard_only() {
    let (_pages, browser) = open("/clean").await;
    browser.tab_to(&field("Name")).await;
    browser.type_keys("typed").await;
    browser.press(Key::Tab).await;
    browser.wait_for_focus(&choice("State")).await;
    browser.press(Key::Down).await;
    browser.press_with(Key::Shift, Key::Tab).await;
    browser.wait_for_focus(&field("Name")).await;
    browser.press(Key::Enter).await;
    browser.wait_for_text("saved typed as replayed, quiet").await;
    browser.press(Key::Escape).await;
    browser.wait_for_text("escaped").await;
    browser.tab_to(&summary("More")).await;
    browser.press(Key::Space).await;
    browser.wait_for_text("What was hidden").await;
}

#[tokio::test]
async fn width_and_media_preferences_are_emulated() {
    let (_pages, browser) = open("/clean").await;
    let inner_width = async || browser.script::<u32>("return innerWidth;", Vec::new()).await;
    for width in [360, 1920, 1440] {
        browser.resize(width).await;
        assert_eq!(inner_width().await, width);
    }
    browser.resize(360).await;
    browser.open("/other").await;
    assert_eq!(inner_width().await, 360, "on the next page, too");
    browser.open("/clean").await;

    let background = "return getComputedStyle(document.body).backgroundColor;";
    assert_eq!(browser.script::<String>(background, Vec::new()).await, "rgb(255, 255, 255)");
    browser.wait_for_text("Something moves").await;
    browser.emulate_media(Scheme::Dark, Motion::Reduced).await;
    assert_eq!(browser.script::<String>(background, Vec::new()).await, "rgb(17, 17, 17)");
    browser.wait_for_no_text("Something moves").await;

    let folder = TempDir::new().expect("a temporary folder");
    let file = folder.path().join("shots/clean.png");
    browser.screenshot(&file).await;
    let png = std::fs::read(&file).expect("a screenshot");
    let size = |at: usize| u32::from_be_bytes(png[at..at + 4].try_into().expect("four bytes"));
    assert_eq!((&png[1..4], size(16), size(20)), (&b"PNG"[..], 360, 740));
}

#[tokio::test]
#[should_panic(
    expected = "there is no button \"Delete\"; of its kind there are [\"Save all\", \"Discard\", \"Discard\"]"
)]
async fn a_missing_element_fails_the_test_and_lists_candidates() {
    let (_pages, mut browser) = open("/clean").await;
    browser.set_timeout(Duration::from_secs(2));
    browser.click(&button("Delete")).await;
}

#[tokio::test]
#[should_panic(expected = "there are 2 of button \"Discard\": narrow it with `inside` (tests/it/browser_self_test.rs")]
async fn an_ambiguous_locator_fails_the_test() {
    let (_pages, mut browser) = open("/clean").await;
    browser.set_timeout(Duration::from_secs(2));
    browser.click(&button("Discard")).await;
}

#[tokio::test]
async fn each_kind_of_page_error_is_detected() {
    let (_pages, browser) = open("/lacking").await;
    assert_single_finding(&browser.take_console_errors().await, "404");
    assert_eq!(browser.take_console_errors().await, [""; 0], "each error is returned once");
    browser.open("/inline").await;
    assert_single_finding(&browser.take_console_errors().await, "Content Security Policy");
    browser.open("/unnamed").await;
    let violations = browser.accessibility_violations().await;
    assert_single_finding(&violations, "button-name (critical): Buttons must have discernible text");
    assert_single_finding(&violations, "<button></button>");
    browser.open("/wide").await;
    assert_eq!(browser.overflow_at(1920).await, None);
    let misfit = browser.overflow_at(360).await.expect("a misfit");
    assert!(misfit.contains("wide on a screen of 360") && misfit.contains("<p.wide>"), "{misfit}");
    assert_eq!(browser.width(), 1440, "as before");
    browser.open("/unscaled").await;
    let misfit = browser.overflow_at(360).await.expect("a misfit");
    assert!(misfit.contains("is its meta viewport right?"), "{misfit}");
    browser.assert_no_console_errors().await;
}

#[track_caller]
fn assert_single_finding(found: &[String], part: &str) {
    assert!(matches!(found, [one] if one.contains(part)), "one with {part:?}: {found:#?}");
}
