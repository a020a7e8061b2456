//! TLS to the broker, with client certificates, and TLS of the API. `src/sender/tests.rs` tests TLS to receivers.

use std::path::{Path, PathBuf};

use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose,
};
use tempfile::TempDir;

use crate::support::{Amqp, Broker, Waypost, unique, wait_until};
use crate::test_app::SLOW_TIMEOUT;

/// A certificate authority with its files.
struct CertificateAuthority {
    folder: TempDir,
    issuer: Issuer<'static, KeyPair>,
}

impl CertificateAuthority {
    fn new() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let mut params = CertificateParams::new(Vec::new()).expect("parameters");
        params.distinguished_name.push(DnType::CommonName, "An authority for tests");
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().expect("a key");
        let certificate = params.self_signed(&key).expect("a certificate");
        std::fs::write(folder.path().join("ca.pem"), certificate.pem()).expect("written");
        Self { folder, issuer: Issuer::new(params, key) }
    }

    fn file(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Creates a certificate for this machine. Returns the paths of the certificate and its key.
    fn identity(&self, name: &str) -> [String; 2] {
        let mut params = CertificateParams::new(vec!["localhost".to_owned()]).expect("parameters");
        params.distinguished_name.push(DnType::CommonName, name);
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        let key = KeyPair::generate().expect("a key");
        let certificate = params.signed_by(&key, &self.issuer).expect("a certificate");
        let write = |file: String, pem: String| {
            let path = self.file(&file);
            std::fs::write(&path, pem).expect("written");
            path.display().to_string()
        };
        [write(format!("{name}.pem"), certificate.pem()), write(format!("{name}.key"), key.serialize_pem())]
    }

    fn certificate(&self) -> String {
        self.file("ca.pem").display().to_string()
    }
}

/// A RabbitMQ configuration that requires client certificates of this authority.
fn listener_config(port: u16, authority: &str, certificate: &str, key: &str) -> String {
    [
        format!("listeners.ssl.1 = 127.0.0.1:{port}"),
        format!("ssl_options.cacertfile = {authority}"),
        format!("ssl_options.certfile = {certificate}"),
        format!("ssl_options.keyfile = {key}"),
        "ssl_options.verify = verify_peer".to_owned(),
        "ssl_options.fail_if_no_peer_cert = true".to_owned(),
        String::new(),
    ]
    .join("\n")
}

#[tokio::test]
async fn the_broker_is_reached_over_tls_with_a_client_certificate() {
    let authority = CertificateAuthority::new();
    let [certificate, key] = authority.identity("broker");
    let trusted = authority.certificate();
    let (broker, port) =
        Broker::private_configured(move |port| listener_config(port, &trusted, &certificate, &key)).await;
    let [certificate, key] = authority.identity("worker");
    let url = format!("amqps://guest:guest@localhost:{port}/%2f");
    let trusted = authority.certificate();
    let own = [("WAYPOST_BROKER__CERT_FILE", certificate.as_str()), ("WAYPOST_BROKER__KEY_FILE", key.as_str())];
    let trusting = ("WAYPOST_BROKER__CA_FILE", trusted.as_str());
    let prefix = unique("tls");
    let waypost = Waypost::start_with(&url, &prefix, &[own[0], own[1], trusting]).await;
    let event =
        serde_json::json!({ "campaignId": "c", "label": "l", "phoneNumber": "1", "date": "2024-06-18T23:26:14Z" });
    Amqp::connect(&broker.url()).await.publish_events(&prefix, &[event]).await;
    waypost.wait_for_metric("waypost_events_total{result=\"no_webhook\"}", 1.0).await;
    let connections = broker.ctl(&["list_connections", "--no-table-headers", "ssl"]).await;
    assert!(connections.lines().filter(|line| *line == "true").count() >= 2, "{connections}");

    // An untrusted client and a client that does not trust the broker both log the reason and retry. The broker rejects
    // a client after the handshake and closes immediately, so a reset may overtake the reason. It arrives in some
    // attempts only.
    for settings in [&[trusting][..], &own] {
        let stranger = Waypost::launch(&url, &unique("tls"), settings);
        let line = stranger.wait_for_log_line("ertificate").await;
        assert!(line.contains("reconnecting"), "{line}");
    }
}

#[tokio::test]
async fn the_api_is_served_over_tls() {
    let authority = CertificateAuthority::new();
    let [certificate, key] = authority.identity("api");
    let settings = [("WAYPOST_HTTP__CERT_FILE", certificate.as_str()), ("WAYPOST_HTTP__KEY_FILE", key.as_str())];
    let waypost = Waypost::launch(&Broker::shared().await.url(), &unique("tls"), &settings);
    let server = waypost.url("").replace("http://127.0.0.1", "https://localhost");
    let trusted = authority.certificate();
    let list = ["campaigns", "list", "--server", &server, "--ca-file", &trusted];
    let printed = wait_until("an answer over TLS", SLOW_TIMEOUT, async || {
        let printed = waypost.cli(&list).await;
        (printed.code == Some(0)).then_some(printed)
    })
    .await;
    assert!(printed.stdout.contains("No campaigns yet"), "{printed:?}");
    // A caller that does not complete its handshake blocks no other.
    let address = server.trim_start_matches("https://").replace("localhost", "127.0.0.1");
    let _silent: Vec<std::net::TcpStream> =
        (0..100).map(|_| std::net::TcpStream::connect(&address).expect("a connection")).collect();
    assert_eq!(waypost.cli(&list).await.code, Some(0));
    // A client that does not trust the authority prints the reason.
    let distrusting = waypost.cli(&list[..4]).await;
    assert_eq!(distrusting.code, Some(1));
    assert!(distrusting.stderr.contains("certificate"), "{}", distrusting.stderr);
    let misused = waypost.cli(&[&list[..4], &["--ca-file", "/nowhere.pem"]].concat()).await;
    assert_eq!(misused.code, Some(2), "{misused:?}");
}

#[test]
fn an_invalid_certificate_is_reported_at_startup() {
    let authority = CertificateAuthority::new();
    let ([certificate, _], [_, other]) = (authority.identity("one"), authority.identity("other"));
    let check = |settings: &[&str]| {
        let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_waypost"));
        let settings = settings.iter().flat_map(|setting| ["--set", setting]);
        let output =
            command.arg("check").args(settings).current_dir(authority.folder.path()).output().expect("it runs");
        assert_eq!(output.status.code(), Some(1));
        String::from_utf8_lossy(&output.stderr).into_owned()
    };
    let said = check(&[&format!("http.certFile={certificate}"), &format!("http.keyFile={other}")]);
    assert!(said.contains("http.certFile") && said.contains("do not belong together"), "{said}");
    let said = check(&[&format!("broker.certFile={certificate}")]);
    assert!(said.contains("broker.certFile") && said.contains("keyFile is missing"), "{said}");
    let nowhere = Path::new("/nowhere.pem").display();
    let said = check(&[&format!("broker.caFile={nowhere}")]);
    assert!(said.contains("broker.caFile") && said.contains("cannot be read"), "{said}");
}
