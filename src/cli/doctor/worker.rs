//! Checks the worker that runs on this machine, by its `/readyz`.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use reqwest::{Client, Url};
use waypost_api::problem::ProblemDocument;

use super::finding::DoctorFinding;
use crate::config::Config;

const CHECK: &str = "worker";

const REQUEST_TIMEOUT: Duration = Duration::from_secs(3);

/// Asks the worker at `http.listen`. `None` if no worker answers.
pub(super) async fn finding(config: &Config) -> Option<DoctorFinding> {
    let scheme = if config.http.identity.is_some() { "https" } else { "http" };
    let url: Url = format!("{scheme}://{}/readyz", reachable(config.http.listen)).parse().ok()?;
    // The certificate has another host name. Nothing secret is sent, and only to this machine.
    let client =
        Client::builder().timeout(REQUEST_TIMEOUT).no_proxy().tls_danger_accept_invalid_certs(true).build().ok()?;
    let answer = client.get(url).send().await.ok()?;
    let is_ready = answer.status().is_success();
    let text = answer.text().await.ok()?;
    evaluate(is_ready, &text)
}

fn evaluate(is_ready: bool, text: &str) -> Option<DoctorFinding> {
    if !is_ready {
        let ProblemDocument { detail, .. } = serde_json::from_str(text).ok()?;
        return Some(DoctorFinding::bad(
            CHECK,
            format!("not ready: {detail}"),
            "read the page for this problem in docs/runbooks",
        ));
    }
    let repairs = text.strip_prefix("ready\n")?.trim();
    if repairs.is_empty() {
        return Some(DoctorFinding::good(CHECK, "ready"));
    }
    let advice =
        "find out who removed the object, and publish lost events again: docs/runbooks/WaypostTopologyRepaired.md";
    Some(DoctorFinding::doubtful(CHECK, format!("ready, after repairs:\n{repairs}"), advice))
}

/// Replaces an unspecified address (0.0.0.0) with the loopback address.
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
    use super::*;
    use crate::cli::doctor::finding::CheckResult;

    #[test]
    fn the_text_of_readyz_is_evaluated() {
        let result = |is_ready, text: &str| evaluate(is_ready, text).map(|finding| finding.result);
        assert_eq!(result(true, "ready\n"), Some(CheckResult::Good));
        assert_eq!(result(true, "ready\nrepaired: queue waypost.events\n"), Some(CheckResult::Doubtful));
        assert_eq!(result(false, r#"{"detail":"stopping"}"#), Some(CheckResult::Bad));
        assert_eq!(result(true, "<html>"), None, "another program");
        assert_eq!(result(false, "not found"), None);
        assert_eq!(reachable(([0, 0, 0, 0], 80).into()), ([127, 0, 0, 1], 80).into());
    }
}
