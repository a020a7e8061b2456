//! Reads certificates of authorities, and the identity of a server or client, from PEM files.

use std::fmt;
use std::path::Path;
use std::sync::Arc;

use rustls::ServerConfig;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

/// Parses certificates of authorities. The error is a sentence without a subject, to follow the file's name.
pub fn authorities(pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, String> {
    let certificates = certificates(pem)?;
    let mut roots = rustls::RootCertStore::empty();
    for certificate in &certificates {
        roots
            .add(certificate.clone())
            .map_err(|error| format!("contains a certificate that cannot be a certificate authority: {error}"))?;
    }
    Ok(certificates)
}

fn certificates(pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, String> {
    let certificates: Result<Vec<CertificateDer<'static>>, _> = CertificateDer::pem_slice_iter(pem).collect();
    let certificates = certificates.map_err(|error| format!("is not valid PEM: {error}"))?;
    if certificates.is_empty() {
        return Err("has no certificate: a PEM file begins with -----BEGIN CERTIFICATE-----".to_owned());
    }
    Ok(certificates)
}

/// A certificate chain and its private key, both as PEM.
#[derive(Clone, PartialEq, Eq)]
pub struct Identity {
    /// The own certificate comes first.
    pub chain: Vec<u8>,
    pub key: Vec<u8>,
}

impl Identity {
    /// Reads the two files, and checks that they belong together. The error names the file.
    pub fn read(chain: &Path, key: &Path) -> Result<Self, String> {
        let read =
            |path: &Path| std::fs::read(path).map_err(|error| format!("{} cannot be read: {error}", path.display()));
        let identity = Self { chain: read(chain)?, key: read(key)? };
        let certificates = certificates(&identity.chain).map_err(|error| format!("{} {error}", chain.display()))?;
        let private_key = PrivateKeyDer::from_pem_slice(&identity.key)
            .map_err(|error| format!("{} has no readable private key: {error}", key.display()))?;
        server(certificates, private_key)
            .map_err(|error| format!("{} and {} do not belong together: {error}", chain.display(), key.display()))?;
        Ok(identity)
    }

    /// The TLS configuration of a server with this identity.
    pub fn server(&self) -> Result<Arc<ServerConfig>, String> {
        let key = PrivateKeyDer::from_pem_slice(&self.key).map_err(|error| error.to_string())?;
        server(certificates(&self.chain)?, key).map(Arc::new)
    }
}

fn server(chain: Vec<CertificateDer<'static>>, key: PrivateKeyDer<'static>) -> Result<ServerConfig, String> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    let config = config.map_err(|error| error.to_string())?.with_no_client_auth();
    let mut config = config.with_single_cert(chain, key).map_err(|error| error.to_string())?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(config)
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Identity").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn certificates_are_parsed_or_the_error_says_what_is_wrong() {
        assert_eq!(authorities(include_bytes!("../../../tests/fixtures/authority.pem")).map(|read| read.len()), Ok(1));
        let error = |pem: &str| authorities(pem.as_bytes()).expect_err("no certificates");
        assert!(error("").contains("no certificate"));
        assert!(error("-----BEGIN CERTIFICATE-----\n???\n-----END CERTIFICATE-----\n").contains("not valid PEM"));
        assert!(
            error("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n")
                .contains("cannot be a certificate authority")
        );
    }
}
