//! What one value may be, and the sentence about one that can't be used.

use std::fmt::Display;
use std::net::{IpAddr, SocketAddr};
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::time::Duration;

use ipnet::IpNet;
use secrecy::SecretString;
use sha2::{Digest, Sha256};
use url::{Host, Url};

use super::raw::RawToken;
use crate::broker::connection;
use crate::delivery::duration;
use crate::delivery::egress::Allowed;
use crate::tls::{self, Identity};

/// No duration is longer: far more than anybody means, and far less than what arithmetic on times can bear.
const LONGEST: Duration = Duration::from_secs(3650 * 24 * 3600);

/// What lapin reads of a URL's query. It ignores other parameters, which would be worse than to refuse them: somebody
/// may rely on `verify=verify_peer`.
const PARAMETERS: [&str; 5] = ["auth_mechanism", "frame_max", "channel_max", "heartbeat", "connection_timeout"];

/// The URL with its vhost written out. No message repeats the URL: it holds a password.
pub(super) fn broker_url(text: &str) -> Result<SecretString, String> {
    let example = "write amqp://USER:PASSWORD@HOST:5672/VHOST, special characters of the password percent-encoded";
    let mut url = Url::parse(text).map_err(|error| format!("is not a URL ({error}): {example}"))?;
    if !["amqp", "amqps"].contains(&url.scheme()) {
        return Err(format!("must begin with amqp:// or amqps://: {example}"));
    }
    match url.host() {
        None => return Err(format!("names no host: {example}")),
        // lapin reads none and connects to `localhost` instead, without a word.
        Some(Host::Ipv6(_)) => {
            return Err("cannot have an IPv6 address as its host: give a host name".to_owned());
        }
        Some(_) => {}
    }
    // Mostly a password with a `#` or a `?` that is not encoded; the rest of it would be taken for the host.
    if url.fragment().is_some() || !url.query_pairs().all(|(name, _)| PARAMETERS.contains(&&*name)) {
        return Err(format!(
            "has a part after `?` or `#` that means nothing: in a password write %3F for `?` and %23 for `#`; \
             the parameters are {}",
            PARAMETERS.join(", ")
        ));
    }
    if matches!(url.path(), "" | "/") {
        url.set_path("/%2f");
    }
    connection::check_url(url.as_str())?;
    Ok(SecretString::from(String::from(url)))
}

pub(super) fn prefix(text: &str) -> Result<String, String> {
    let fits = (1..=100).contains(&text.len())
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_.-".contains(&byte));
    if !fits {
        return Err("must be 1 to 100 letters, digits, `_`, `.` or `-`".to_owned());
    }
    if text == "amq" || text.starts_with("amq.") {
        return Err("must not begin with `amq.`: RabbitMQ keeps those names for itself".to_owned());
    }
    Ok(text.to_owned())
}

pub(super) fn listen(text: &str) -> Result<SocketAddr, String> {
    let local = text.strip_prefix("localhost:").map(|port| format!("127.0.0.1:{port}"));
    let address = local.as_deref().unwrap_or(text).parse();
    address.map_err(|_| format!("`{text}` is not an address and a port: write 127.0.0.1:8080 or [::1]:8080"))
}

pub(super) fn token_name(name: &str, others: &[RawToken]) -> Result<String, String> {
    if name.trim().is_empty() || name.len() > 100 {
        return Err("must be 1 to 100 characters".to_owned());
    }
    if others.iter().any(|other| other.name == name) {
        return Err(format!("`{name}` is the name of another token: each needs its own"));
    }
    Ok(name.to_owned())
}

/// No message repeats the text: it may be the token itself, put here by mistake.
pub(super) fn token_hash(text: &str, others: &[RawToken]) -> Result<[u8; 32], String> {
    let hash = hex(text).ok_or("must be the SHA-256 of the token in 64 hex digits: printf %s TOKEN | sha256sum")?;
    if hash[..] == Sha256::digest(b"")[..] {
        return Err("is the hash of no text at all: printf %s TOKEN | sha256sum".to_owned());
    }
    if others.iter().any(|other| other.sha256.eq_ignore_ascii_case(text)) {
        return Err("is the hash of another token as well: each needs its own".to_owned());
    }
    Ok(hash)
}

fn hex(text: &str) -> Option<[u8; 32]> {
    // `from_str_radix` would take a sign for a digit.
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

pub(super) fn allowed(text: &str) -> Result<Allowed, String> {
    if let Ok(network) = text.parse::<IpNet>() {
        return Ok(Allowed::Network(network.trunc()));
    }
    let bare = text.strip_prefix('[').and_then(|text| text.strip_suffix(']')).unwrap_or(text);
    if let Ok(address) = bare.parse::<IpAddr>() {
        return Ok(Allowed::Network(IpNet::from(address)));
    }
    // As the URL of a webhook has it: in lower case and Punycode.
    match Host::parse(text.strip_suffix('.').unwrap_or(text)) {
        Ok(Host::Domain(host)) if is_host_name(&host) => Ok(Allowed::Host(host)),
        _ => Err(format!(
            "`{text}` is neither a network (10.0.0.0/8), nor an address (10.1.2.3), nor a host name (hooks.internal)"
        )),
    }
}

fn is_host_name(host: &str) -> bool {
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || b"-_".contains(&byte);
    host.split('.').all(|label| !label.is_empty() && label.bytes().all(fits))
}

/// `None` for an empty text: TOML has no null.
pub(super) fn optional<T>(text: &str, read: fn(&str) -> Result<T, String>) -> Result<Option<T>, String> {
    if text.is_empty() { Ok(None) } else { read(text).map(Some) }
}

/// Requests a second; 0 is no limit.
pub(super) fn rate_limit(value: f64) -> Result<Option<f64>, String> {
    match value {
        0.0 => Ok(None),
        0.001..=1_000_000.0 => Ok(Some(value)),
        _ => Err("must be requests a second, from 0.001 to 1000000, or 0 for no limit".to_owned()),
    }
}

/// A URL that may have a password in it.
pub(super) fn secret_url(text: &str) -> Result<SecretString, String> {
    web_url(text).map(|url| SecretString::from(url.to_string()))
}

/// A certificate and its key: both files or none, read now so that what is wrong with them is told now.
pub(super) fn identity(cert_file: &str, key_file: &str) -> Result<Option<Identity>, String> {
    match (cert_file, key_file) {
        ("", "") => Ok(None),
        ("", _) => Err("is missing beside the key: give both, or none".to_owned()),
        (_, "") => Err("has no key beside it: give both, or none".to_owned()),
        (cert, key) => Identity::read(Path::new(cert), Path::new(key)).map(Some),
    }
}

/// A file of certificates as its text.
pub(super) fn authorities(text: &str) -> Result<String, String> {
    let path = certificates(text)?;
    std::fs::read_to_string(path).map_err(|error| format!("{text} cannot be read: {error}"))
}

/// RabbitMQ counts it in whole seconds.
pub(super) fn retention(text: &str) -> Result<Duration, String> {
    let retention = some_time(text)?;
    if retention.subsec_nanos() == 0 { Ok(retention) } else { Err("must be whole seconds, such as 30d".to_owned()) }
}

/// No message repeats the URL: it may hold a password.
pub(super) fn web_url(text: &str) -> Result<Url, String> {
    match Url::parse(text) {
        Ok(url) if ["http", "https"].contains(&url.scheme()) => Ok(url),
        Ok(_) => Err("must begin with http:// or https://".to_owned()),
        Err(error) => Err(format!("is not a URL ({error}): write http://HOST:PORT or https://HOST:PORT")),
    }
}

/// Where a collector is: the paths of OTLP are added at its end.
pub(super) fn collector(text: &str) -> Result<Url, String> {
    let url = web_url(text)?;
    if url.query().is_some() || url.fragment().is_some() {
        return Err("ends with the path of a collector: remove `?` or `#` and what follows".to_owned());
    }
    Ok(url)
}

/// A file of certificates, read now so that what is wrong with it is told now.
pub(super) fn certificates(text: &str) -> Result<PathBuf, String> {
    let pem = std::fs::read(text).map_err(|error| format!("{text} cannot be read: {error}"))?;
    tls::authorities(&pem).map(|_| PathBuf::from(text)).map_err(|error| format!("{text} {error}"))
}

pub(super) fn time(text: &str) -> Result<Duration, String> {
    let time = duration::parse(text)?;
    if time > LONGEST { Err(format!("`{text}` is longer than ten years")) } else { Ok(time) }
}

pub(super) fn some_time(text: &str) -> Result<Duration, String> {
    let time = time(text)?;
    if time.is_zero() { Err(format!("`{text}` is no time at all: must be longer")) } else { Ok(time) }
}

/// The number as the type of the range. A range contains no NaN.
pub(super) fn number<N, T>(value: N, range: RangeInclusive<T>) -> Result<T, String>
where
    N: Copy + Display,
    T: TryFrom<N> + PartialOrd + Display,
{
    let fits = T::try_from(value).ok().filter(|value| range.contains(value));
    fits.ok_or_else(|| format!("{value} is out of range: {} to {}", range.start(), range.end()))
}

pub(super) fn one_of<T: Copy>(text: &str, names: &[(&str, T)]) -> Result<T, String> {
    let found = names.iter().find(|(name, _)| name.eq_ignore_ascii_case(text));
    found.map(|(_, value)| *value).ok_or_else(|| {
        let names: Vec<&str> = names.iter().map(|(name, _)| *name).collect();
        format!("`{text}` is none of {}", names.join(", "))
    })
}
