//! TLS between the workers and the nodes, with a certificate authority of the drill.

use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, KeyUsagePurpose};
use tempfile::TempDir;

use crate::support::network::Host;

/// The TLS port of each node. Each node has its own address.
pub(crate) const PORT: u16 = 5671;

/// The files of the authority and of a certificate that all nodes share.
pub(crate) struct Tls {
    folder: TempDir,
}

impl Tls {
    pub(crate) fn new() -> Self {
        let folder = tempfile::Builder::new().prefix("waypost-tls-").tempdir().expect("a temporary folder");
        let mut authority = CertificateParams::new(Vec::new()).expect("parameters");
        authority.distinguished_name.push(DnType::CommonName, "An authority for tests");
        authority.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().expect("a key");
        let certificate = authority.self_signed(&key).expect("a certificate");
        std::fs::write(folder.path().join("ca.pem"), certificate.pem()).expect("written");
        let issuer = Issuer::new(authority, key);
        let key = KeyPair::generate().expect("a key");
        let node = CertificateParams::new(vec!["localhost".to_owned()]).expect("parameters");
        let certificate = node.signed_by(&key, &issuer).expect("a certificate");
        std::fs::write(folder.path().join("node.pem"), certificate.pem()).expect("written");
        std::fs::write(folder.path().join("node.key"), key.serialize_pem()).expect("written");
        Self { folder }
    }

    /// The `rabbitmq.conf` of each host's node.
    pub(crate) fn listeners(&self, hosts: &[Host]) -> Vec<String> {
        let file = |name: &str| self.folder.path().join(name).display().to_string();
        let (authority, certificate, key) = (file("ca.pem"), file("node.pem"), file("node.key"));
        let listener = |host: &Host| {
            format!(
                "listeners.ssl.1 = {}:{PORT}\nssl_options.cacertfile = {authority}\nssl_options.certfile = {certificate}\n\
                 ssl_options.keyfile = {key}\n",
                host.address
            )
        };
        hosts.iter().map(listener).collect()
    }

    /// The settings of a worker.
    pub(crate) fn environment(&self) -> [(String, String); 1] {
        let authority = self.folder.path().join("ca.pem").display().to_string();
        [("WAYPOST_BROKER__CA_FILE".to_owned(), authority)]
    }
}
