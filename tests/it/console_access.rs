//! Access to the console: sessions, roles, and protection against requests from other sites.

use reqwest::Method;

use super::console_campaigns::log_in;
use super::test_app::TestApp;
use crate::support::Waypost;
use crate::support::browser::{Browser, button, field};

const ACCEPT_HTML: (&str, &str) = ("accept", "text/html");

async fn get(waypost: &Waypost, path: &str, headers: &[(&str, &str)]) -> crate::support::reply::Reply {
    waypost.send_with(Method::GET, path, headers, String::new()).await
}

/// Nothing is shown without a token. A token starts a session, and a logout ends it.
#[tokio::test]
async fn a_session_begins_and_ends() {
    let mut app = TestApp::builder().tokens().start().await;
    app.waypost.authenticate("");
    let asked = get(&app.waypost, "/campaigns/13010?saved=x", &[ACCEPT_HTML]).await;
    assert_eq!((asked.status, &*asked.headers["location"]), (303, "/login?next=%2Fcampaigns%2F13010%3Fsaved%3Dx"));
    get(&app.waypost, "/campaigns", &[]).await.expect_problem(401);

    let browser = Browser::start(&app.waypost.url("")).await;
    browser.open("/campaigns").await;
    browser.type_into(&field("Token"), "a guess").await;
    browser.click(&button("Log in")).await;
    browser.wait_for_text("Unknown token").await;
    browser.assert_page_quality().await;
    log_in(&browser, "viewer", "/campaigns/13010/flow?zoom=50").await;
    browser.wait_for_text("viewer").await;
    browser.click(&button("Log out")).await;
    browser.wait_for_path("/login").await;
    browser.open("/campaigns").await;
    browser.wait_for_path("/login?next=%2Fcampaigns").await;
}

/// A form needs the session's form token, our own origin and the required role.
#[tokio::test]
async fn cross_site_forms_are_refused() {
    let app = TestApp::start().await;
    let page = get(&app.waypost, "/new-campaign", &[ACCEPT_HTML]).await;
    assert_eq!(page.status, 200);
    let cookie = page.headers["set-cookie"].split(';').next().expect("a cookie").to_owned();
    let token = cookie.split_once('=').expect("a value").1;
    assert!(page.body.contains(&format!("name=\"waypost-form\" value=\"{token}\"")), "{}", page.body);
    for attribute in ["HttpOnly", "SameSite=Lax", "Path=/"] {
        assert!(page.headers["set-cookie"].contains(attribute), "{}", page.headers["set-cookie"]);
    }
    let form = format!("waypost-form={token}&id=made&name=");
    let send = async |headers: &[(&str, &str)], body: &str| {
        let kind = ("content-type", "application/x-www-form-urlencoded");
        let headers: Vec<_> = headers.iter().copied().chain([kind, ACCEPT_HTML]).collect();
        app.waypost.send_with(Method::POST, "/new-campaign", &headers, body.to_owned()).await.status
    };
    let own = app.waypost.url("");
    assert_eq!(send(&[], &form).await, 403, "without the cookie");
    assert_eq!(send(&[("cookie", &cookie)], "id=made&name=").await, 403, "without its token");
    assert_eq!(send(&[("cookie", &cookie)], "waypost-form=other&id=made").await, 403, "with another token");
    assert_eq!(send(&[("cookie", &cookie), ("origin", "https://example.com")], &form).await, 403, "of another origin");
    assert_eq!(send(&[("cookie", &cookie), ("sec-fetch-site", "cross-site")], &form).await, 403, "of another site");
    assert_eq!(app.waypost.get("/v1/campaigns/made").await.status, 404);
    assert_eq!(send(&[("cookie", &cookie), ("origin", &own), ("sec-fetch-site", "same-origin")], &form).await, 303);
    assert_eq!(app.waypost.get("/v1/campaigns/made").await.status, 200);
}

/// Each page checks the role. A session is not valid for the API.
#[tokio::test]
async fn pages_require_their_role() {
    let app = TestApp::builder().tokens().start().await;
    let browser = Browser::start(&app.waypost.url("")).await;
    log_in(&browser, "viewer", "/campaigns").await;
    browser.open("/new-campaign").await;
    browser.wait_for_text("This page needs the role editor. Your role is viewer.").await;
    browser.take_console_errors().await;
    let fetched: u16 =
        browser.script("return fetch('/v1/campaigns').then((answer) => answer.status);", Vec::new()).await;
    assert_eq!(fetched, 401);
}

/// Every page has security headers, such as a content security policy that forbids external resources.
#[tokio::test]
async fn pages_have_security_headers() {
    let app = TestApp::start().await;
    for path in ["/campaigns", "/campaigns/13010", "/nothing-here", "/login"] {
        let page = get(&app.waypost, path, &[ACCEPT_HTML]).await;
        let policy = &page.headers["content-security-policy"];
        assert!(policy.starts_with("default-src 'none'") && !policy.contains("unsafe"), "{path}: {policy}");
        assert!(policy.contains("frame-ancestors 'none'"), "{path}: {policy}");
        assert_eq!(page.headers["x-content-type-options"], "nosniff", "{path}");
        assert_eq!(page.headers["cache-control"], "no-store", "{path}");
        for inline in ["<script>", " style=", " onclick="] {
            assert!(!page.body.contains(inline), "{path} has {inline}");
        }
        let asset =
            page.body.split("href=\"").find(|rest| rest.contains(".css")).and_then(|rest| rest.split('"').next());
        let sheet = get(&app.waypost, asset.expect("a style sheet"), &[]).await;
        assert!(sheet.headers["cache-control"].contains("immutable"));
    }
    let rebound = get(&app.waypost, "/campaigns", &[ACCEPT_HTML, ("host", "rebound.example:8080")]).await;
    assert_eq!(rebound.status, 403);
}
