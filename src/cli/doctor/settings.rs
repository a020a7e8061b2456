//! Checks of settings that are valid but unsafe in production.

use waypost_core::egress::HttpUrls;

use super::finding::DoctorFinding;
use crate::config::Config;

pub(super) fn findings(config: &Config) -> Vec<DoctorFinding> {
    let changed = config.settings.iter().filter(|setting| setting.value != setting.default).count();
    let mut findings =
        vec![DoctorFinding::good("settings", format!("all are valid; {changed} differ from the defaults"))];
    if config.keyring.ids().next().is_none() {
        findings.push(DoctorFinding::doubtful(
            "secrets",
            "WAYPOST_SECRET_KEY is not set: header values and signing secrets are stored unencrypted",
            "set it to 32 random bytes in base64, the same for all workers: head -c 32 /dev/urandom | base64",
        ));
    } else {
        findings.push(DoctorFinding::good("secrets", "header values and signing secrets are stored encrypted"));
    }
    if config.http.tokens.is_empty() {
        let (detail, advice) = (
            "no tokens: everybody on this machine has the role editor",
            "configure http.tokens if others can log in to this machine",
        );
        findings.push(DoctorFinding::doubtful("API", detail, advice));
    } else if config.http.identity.is_none() && !config.http.listen.ip().to_canonical().is_loopback() {
        let detail = format!("tokens are sent unencrypted over the network to {}", config.http.listen);
        findings.push(DoctorFinding::doubtful(
            "API",
            detail,
            "set http.certFile and http.keyFile, or run the worker behind a TLS proxy",
        ));
    } else {
        findings.push(DoctorFinding::good("API", format!("{} tokens", config.http.tokens.len())));
    }
    if config.egress.http_urls == HttpUrls::Allowed {
        let detail = "egress.allowHttp is true: events and header values may be sent unencrypted";
        findings.push(DoctorFinding::doubtful("egress rules", detail, "set it to false in production"));
    } else if !config.egress.allow.is_empty() {
        let detail =
            format!("egress.allow allows {} networks or names that may not be public", config.egress.allow.len());
        findings.push(DoctorFinding::doubtful(
            "egress rules",
            detail,
            "leave it empty unless receivers are in a private network",
        ));
    } else {
        findings.push(DoctorFinding::good("egress rules", "https to public addresses only"));
    }
    findings
}
