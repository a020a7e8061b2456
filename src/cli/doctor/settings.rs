//! The settings: they can be read, or nothing here runs; some of them are for trying things out.

use super::Finding;
use crate::config::Config;
use crate::delivery::egress::HttpUrls;

pub(super) fn findings(config: &Config) -> Vec<Finding> {
    let changed = config.settings.iter().filter(|setting| setting.value != setting.default).count();
    let mut findings = vec![Finding::good("settings", format!("they can be read; {changed} are not the defaults"))];
    if config.keyring.ids().next().is_none() {
        findings.push(Finding::doubtful(
            "secrets",
            "WAYPOST_SECRET_KEY is not set: header values and signing secrets are stored in the clear",
            "set it to 32 random bytes in base64, the same for all workers: head -c 32 /dev/urandom | base64",
        ));
    } else {
        findings.push(Finding::good("secrets", "header values and signing secrets are sealed"));
    }
    if config.http.tokens.is_empty() {
        let (found, advice) = (
            "no tokens: whoever is on this machine is an editor",
            "configure http.tokens where others can log in to it",
        );
        findings.push(Finding::doubtful("API", found, advice));
    } else if config.http.identity.is_none() && !config.http.listen.ip().to_canonical().is_loopback() {
        let found = format!("tokens cross the network in the clear to {}", config.http.listen);
        findings.push(Finding::doubtful("API", found, "set http.certFile and http.keyFile, or put TLS in front of it"));
    } else {
        findings.push(Finding::good("API", format!("{} tokens", config.http.tokens.len())));
    }
    if config.egress.http_urls == HttpUrls::Allowed {
        let found = "egress.allowHttp is true: events and header values may go out in the clear";
        findings.push(Finding::doubtful("egress rules", found, "set it to false in production"));
    } else if !config.egress.allow.is_empty() {
        let found = format!("egress.allow opens {} networks or names that are not public", config.egress.allow.len());
        findings.push(Finding::doubtful("egress rules", found, "leave it empty unless receivers are inside"));
    } else {
        findings.push(Finding::good("egress rules", "https to public addresses only"));
    }
    findings
}
