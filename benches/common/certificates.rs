//! Certificates of the endpoints, by an authority of the bench.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, KeyUsagePurpose};
use rustls::ServerConfig;
use rustls::crypto::ring;
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::server::ProducesTickets;
use tempfile::TempDir;

pub(crate) struct Authority {
    folder: TempDir,
    issuer: Issuer<'static, KeyPair>,
    /// Encrypts the tickets of all endpoints.
    tickets: Arc<dyn ProducesTickets>,
}

impl Authority {
    pub(crate) fn new() -> Self {
        let folder = tempfile::Builder::new().prefix("waypost-tls-").tempdir().expect("a temporary folder");
        let mut params = CertificateParams::new(Vec::new()).expect("parameters");
        params.distinguished_name.push(DnType::CommonName, "An authority for benches");
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().expect("a key");
        let certificate = params.self_signed(&key).expect("a certificate");
        std::fs::write(folder.path().join("ca.pem"), certificate.pem()).expect("the certificate is written");
        let tickets = ring::Ticketer::new().expect("keys for tickets");
        Self { folder, issuer: Issuer::new(params, key), tickets }
    }

    /// The file with the authority's certificate.
    pub(crate) fn file(&self) -> PathBuf {
        self.folder.path().join("ca.pem")
    }

    /// Variables with which the bare loops, Node, Python and Go trust the authority at this path.
    pub(crate) fn environment(file: &Path) -> [(&'static str, &Path); 2] {
        [("SSL_CERT_FILE", file), ("NODE_EXTRA_CA_CERTS", file)]
    }

    /// The configuration of the endpoint at a host. A client may resume its sessions by tickets, as at most servers.
    pub(crate) fn endpoint(&self, host: &str) -> ServerConfig {
        let key = KeyPair::generate().expect("a key");
        let params = CertificateParams::new(vec![host.to_owned()]).expect("parameters");
        let certificate = params.signed_by(&key, &self.issuer).expect("a certificate");
        let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
        let mut config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .expect("versions of TLS")
            .with_no_client_auth()
            .with_single_cert(vec![certificate.der().clone()], key)
            .expect("a configuration");
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        config.ticketer = Arc::clone(&self.tickets);
        config
    }
}
