//! Parses and checks single values. An error is a message without the setting's key, to follow it.

use std::fmt::Display;
use std::net::{IpAddr, SocketAddr};
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::time::Duration;

use ipnet::IpNet;
use secrecy::SecretString;
use sha2::{Digest, Sha256};
use url::{Host, Url};
use waypost_broker::connection;
use waypost_broker::tls::{self, Identity};
use waypost_core::duration;
use waypost_core::egress::AllowRule;

use super::raw::RawToken;

/// Ten years. Far below the limits of date arithmetic.
const MAX_DURATION: Duration = Duration::from_secs(3650 * 24 * 3600);

/// The query parameters of a broker URL that lapin supports. It ignores other parameters, such as `verify=verify_peer`.
/// They are refused here, because users may rely on them.
const BROKER_URL_PARAMETERS: [&str; 5] =
    ["auth_mechanism", "frame_max", "channel_max", "heartbeat", "connection_timeout"];

/// The URL with an explicit vhost. Errors do not repeat the URL, which has a password.
pub(super) fn broker_url(text: &str) -> Result<SecretString, String> {
    let example = "write amqp://USER:PASSWORD@HOST:5672/VHOST, special characters of the password percent-encoded";
    let mut url = Url::parse(text).map_err(|error| format!("is not a URL ({error}): {example}"))?;
    if !["amqp", "amqps"].contains(&url.scheme()) {
        return Err(format!("must begin with amqp:// or amqps://: {example}"));
    }
    match url.host() {
        None => return Err(format!("has no host: {example}")),
        // lapin does not support IPv6 addresses and silently connects to `localhost` instead.
        Some(Host::Ipv6(_)) => {
            return Err("cannot have an IPv6 address as its host: use a host name".to_owned());
        }
        Some(_) => {}
    }
    // Usually the cause is an unencoded `#` or `?` in the password.
    if url.fragment().is_some() || !url.query_pairs().all(|(name, _)| BROKER_URL_PARAMETERS.contains(&&*name)) {
        return Err(format!(
            "has an unknown part after `?` or `#`: in a password, write %3F for `?` and %23 for `#`. \
             Known parameters are {}",
            BROKER_URL_PARAMETERS.join(", ")
        ));
    }
    if matches!(url.path(), "" | "/") {
        url.set_path("/%2f");
    }
    connection::check_url(url.as_str())?;
    Ok(SecretString::from(String::from(url)))
}

pub(super) fn prefix(text: &str) -> Result<String, String> {
    let is_valid = (1..=100).contains(&text.len())
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_.-".contains(&byte));
    if !is_valid {
        return Err("must be 1 to 100 letters, digits, `_`, `.` or `-`".to_owned());
    }
    if text == "amq" || text.starts_with("amq.") {
        return Err("must not begin with `amq.`: RabbitMQ reserves these names".to_owned());
    }
    Ok(text.to_owned())
}

pub(super) fn listen_address(text: &str) -> Result<SocketAddr, String> {
    let local = text.strip_prefix("localhost:").map(|port| format!("127.0.0.1:{port}"));
    let address = local.as_deref().unwrap_or(text).parse();
    address.map_err(|_| format!("`{text}` is not an address and a port: write 127.0.0.1:8080 or [::1]:8080"))
}

pub(super) fn token_name(name: &str, others: &[RawToken]) -> Result<String, String> {
    if name.trim().is_empty() || name.len() > 100 {
        return Err("must be 1 to 100 characters".to_owned());
    }
    if others.iter().any(|other| other.name == name) {
        return Err(format!("`{name}` is also the name of another token: use a different name for each token"));
    }
    Ok(name.to_owned())
}

/// Errors do not repeat the text, which may be the token itself.
pub(super) fn token_hash(text: &str, others: &[RawToken]) -> Result<[u8; 32], String> {
    let hash = hex(text)
        .ok_or("must be the SHA-256 of the token in 64 hex digits. To hash a token: printf %s TOKEN | sha256sum")?;
    if hash[..] == Sha256::digest(b"")[..] {
        return Err("is the hash of an empty text. To hash a token: printf %s TOKEN | sha256sum".to_owned());
    }
    if others.iter().any(|other| other.sha256.eq_ignore_ascii_case(text)) {
        return Err("is also the hash of another token: use a different token for each name".to_owned());
    }
    Ok(hash)
}

fn hex(text: &str) -> Option<[u8; 32]> {
    // `from_str_radix` would accept a sign.
    if text.len() != 64 || !text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return None;
    }
    let mut bytes = [0; 32];
    for (i, byte) in bytes.iter_mut().enumerate() {
        *byte = u8::from_str_radix(text.get(2 * i..2 * i + 2)?, 16).ok()?;
    }
    Some(bytes)
}

pub(super) fn folder(text: &str) -> Result<PathBuf, String> {
    if text.is_empty() { Err("must name a folder".to_owned()) } else { Ok(PathBuf::from(text)) }
}

pub(super) fn allow_rule(text: &str) -> Result<AllowRule, String> {
    if let Ok(network) = text.parse::<IpNet>() {
        return Ok(AllowRule::Network(network.trunc()));
    }
    let unbracketed = text.strip_prefix('[').and_then(|text| text.strip_suffix(']')).unwrap_or(text);
    if let Ok(address) = unbracketed.parse::<IpAddr>() {
        return Ok(AllowRule::Network(IpNet::from(address)));
    }
    // Lower case and Punycode, like the host of a webhook's URL.
    match Host::parse(text.strip_suffix('.').unwrap_or(text)) {
        Ok(Host::Domain(host)) if is_host_name(&host) => Ok(AllowRule::Host(host)),
        _ => Err(format!(
            "`{text}` is neither a network (10.0.0.0/8), nor an address (10.1.2.3), nor a host name (hooks.internal)"
        )),
    }
}

fn is_host_name(host: &str) -> bool {
    let is_allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"-_".contains(&byte);
    host.split('.').all(|label| !label.is_empty() && label.bytes().all(is_allowed))
}

/// `None` for an empty text: TOML has no null.
pub(super) fn optional<T>(text: &str, parse: fn(&str) -> Result<T, String>) -> Result<Option<T>, String> {
    if text.is_empty() { Ok(None) } else { parse(text).map(Some) }
}

/// Requests per second. 0 means no limit.
pub(super) fn rate_limit(value: f64) -> Result<Option<f64>, String> {
    match value {
        0.0 => Ok(None),
        0.001..=1_000_000.0 => Ok(Some(value)),
        _ => Err("must be requests per second from 0.001 to 1000000, or 0 for no limit".to_owned()),
    }
}

/// An `http` or `https` URL that may have a password.
pub(super) fn secret_http_url(text: &str) -> Result<SecretString, String> {
    http_url(text).map(|url| SecretString::from(url.to_string()))
}

/// Reads a certificate and its key, so that errors are found at startup.
pub(super) fn identity(cert_file: &str, key_file: &str) -> Result<Option<Identity>, String> {
    match (cert_file, key_file) {
        ("", "") => Ok(None),
        ("", _) => Err("is missing, but keyFile is set: set both or neither".to_owned()),
        (_, "") => Err("is set, but keyFile is missing: set both or neither".to_owned()),
        (cert, key) => Identity::read(Path::new(cert), Path::new(key)).map(Some),
    }
}

/// The PEM text of a file of certificates.
pub(super) fn ca_pem(text: &str) -> Result<String, String> {
    let path = ca_file(text)?;
    std::fs::read_to_string(path).map_err(|error| format!("{text} cannot be read: {error}"))
}

/// Whole seconds, as RabbitMQ requires for the retention of a stream.
pub(super) fn retention(text: &str) -> Result<Duration, String> {
    let retention = positive_duration(text)?;
    if retention.subsec_nanos() == 0 { Ok(retention) } else { Err("must be whole seconds, such as 30d".to_owned()) }
}

/// Errors do not repeat the URL, which may have a password.
pub(super) fn http_url(text: &str) -> Result<Url, String> {
    match Url::parse(text) {
        Ok(url) if ["http", "https"].contains(&url.scheme()) => Ok(url),
        Ok(_) => Err("must begin with http:// or https://".to_owned()),
        Err(error) => Err(format!("is not a URL ({error}): write http://HOST:PORT or https://HOST:PORT")),
    }
}

/// The URL of a collector. The exporter appends the OTLP paths.
pub(super) fn otlp_endpoint(text: &str) -> Result<Url, String> {
    let url = http_url(text)?;
    if url.query().is_some() || url.fragment().is_some() {
        return Err("must end with the path of a collector: remove `?` or `#` and the text after it".to_owned());
    }
    Ok(url)
}

/// Reads a file of certificates, so that errors are found at startup.
pub(super) fn ca_file(text: &str) -> Result<PathBuf, String> {
    let pem = std::fs::read(text).map_err(|error| format!("{text} cannot be read: {error}"))?;
    tls::authorities(&pem).map(|_| PathBuf::from(text)).map_err(|error| format!("{text} {error}"))
}

/// At most ten years. Zero is allowed.
pub(super) fn duration(text: &str) -> Result<Duration, String> {
    let duration = duration::parse(text)?;
    if duration > MAX_DURATION { Err(format!("`{text}` is longer than ten years")) } else { Ok(duration) }
}

pub(super) fn positive_duration(text: &str) -> Result<Duration, String> {
    let duration = duration(text)?;
    if duration.is_zero() { Err(format!("`{text}` is too short: must be longer than zero")) } else { Ok(duration) }
}

/// The number, converted to the type of the range. NaN is out of every range.
pub(super) fn number<N, T>(value: N, range: RangeInclusive<T>) -> Result<T, String>
where
    N: Copy + Display,
    T: TryFrom<N> + PartialOrd + Display,
{
    let in_range = T::try_from(value).ok().filter(|value| range.contains(value));
    in_range.ok_or_else(|| format!("{value} is out of range: {} to {}", range.start(), range.end()))
}

pub(super) fn one_of<T: Copy>(text: &str, names: &[(&str, T)]) -> Result<T, String> {
    let entry = names.iter().find(|(name, _)| name.eq_ignore_ascii_case(text));
    entry.map(|(_, value)| *value).ok_or_else(|| {
        let names: Vec<&str> = names.iter().map(|(name, _)| *name).collect();
        format!("`{text}` is not one of {}", names.join(", "))
    })
}
