//! The worker that runs here, by its own words.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use reqwest::{Client, Url};
use serde_json::Value;

use super::Finding;
use crate::config::Config;

const CHECK: &str = "worker";

/// A worker on this machine answers within this time.
const TIMEOUT: Duration = Duration::from_secs(3);

/// What the worker on `http.listen` says of itself; none if there is none.
pub(super) async fn finding(config: &Config) -> Option<Finding> {
    let scheme = if config.http.identity.is_some() { "https" } else { "http" };
    let url: Url = format!("{scheme}://{}/readyz", reachable(config.http.listen)).parse().ok()?;
    // Of this machine, nothing secret is sent, and its certificate is for another name.
    let client = Client::builder().timeout(TIMEOUT).no_proxy().tls_danger_accept_invalid_certs(true).build().ok()?;
    let answer = client.get(url).send().await.ok()?;
    let ready = answer.status().is_success();
    let text = answer.text().await.ok()?;
    judged(ready, &text)
}

fn judged(ready: bool, text: &str) -> Option<Finding> {
    if !ready {
        let problem: Value = serde_json::from_str(text).ok()?;
        let detail = problem["detail"].as_str()?.to_owned();
        return Some(Finding::bad(CHECK, format!("not ready: {detail}"), "docs/runbooks has a page for each of these"));
    }
    let repairs = text.strip_prefix("ready\n")?.trim();
    if repairs.is_empty() {
        return Some(Finding::good(CHECK, "ready"));
    }
    let advice = "find out who removed it, and publish again what is lost: docs/runbooks/WaypostTopologyRepaired.md";
    Some(Finding::doubtful(CHECK, format!("ready, after repairs:\n{repairs}"), advice))
}

/// Where a listener on every address can be reached.
fn reachable(listen: SocketAddr) -> SocketAddr {
    let ip = match listen.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    SocketAddr::new(ip, listen.port())
}

#[cfg(test)]
mod tests {
    use super::super::CheckResult;
    use super::*;

    #[test]
    fn a_worker_is_judged_by_its_words() {
        let verdict = |ready, text: &str| judged(ready, text).map(|finding| finding.verdict);
        assert_eq!(verdict(true, "ready\n"), Some(CheckResult::Good));
        assert_eq!(verdict(true, "ready\nrepaired: queue waypost.events\n"), Some(CheckResult::Doubtful));
        assert_eq!(verdict(false, r#"{"detail":"stopping"}"#), Some(CheckResult::Bad));
        assert_eq!(verdict(true, "<html>"), None, "somebody else");
        assert_eq!(verdict(false, "not found"), None);
        assert_eq!(reachable(([0, 0, 0, 0], 80).into()), ([127, 0, 0, 1], 80).into());
    }
}
