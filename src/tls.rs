//! Certificates and keys from PEM files: whom to trust, and who we are.

use std::fmt;
use std::path::Path;
use std::sync::Arc;

use rustls::ServerConfig;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

/// Reads certificates of authorities.
///
/// # Errors
/// A sentence saying what is wrong.
pub fn authorities(pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, String> {
    let certificates = certificates(pem)?;
    let mut roots = rustls::RootCertStore::empty();
    for certificate in &certificates {
        roots.add(certificate.clone()).map_err(|error| format!("has a certificate of no authority: {error}"))?;
    }
    Ok(certificates)
}

fn certificates(pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, String> {
    let read: Result<Vec<CertificateDer<'static>>, _> = CertificateDer::pem_slice_iter(pem).collect();
    let certificates = read.map_err(|error| format!("not PEM that can be read: {error}"))?;
    if certificates.is_empty() {
        return Err("has no certificate: a PEM file begins with -----BEGIN CERTIFICATE-----".to_owned());
    }
    Ok(certificates)
}

/// A certificate with those that vouch for it, and its key, both as PEM.
#[derive(Clone, PartialEq, Eq)]
pub struct Identity {
    /// The certificate first.
    pub chain: Vec<u8>,
    /// Its private key.
    pub key: Vec<u8>,
}

impl Identity {
    /// Reads the two files, and checks that they belong together.
    ///
    /// # Errors
    /// A sentence saying what is wrong with which file.
    pub fn read(chain: &Path, key: &Path) -> Result<Self, String> {
        let read =
            |path: &Path| std::fs::read(path).map_err(|error| format!("{} cannot be read: {error}", path.display()));
        let identity = Self { chain: read(chain)?, key: read(key)? };
        let certificates = certificates(&identity.chain).map_err(|error| format!("{} {error}", chain.display()))?;
        let private = PrivateKeyDer::from_pem_slice(&identity.key)
            .map_err(|error| format!("{} has no private key that can be read: {error}", key.display()))?;
        server(certificates, private)
            .map_err(|error| format!("{} and {} do not go together: {error}", chain.display(), key.display()))?;
        Ok(identity)
    }

    /// How a server with this identity speaks TLS.
    ///
    /// # Errors
    /// A sentence saying what is wrong.
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
    fn certificates_are_read_or_what_is_wrong_is_said() {
        assert_eq!(authorities(include_bytes!("../tests/fixtures/authority.pem")).map(|read| read.len()), Ok(1));
        let wrong = |pem: &str| authorities(pem.as_bytes()).expect_err("no certificates");
        assert!(wrong("").contains("no certificate"));
        assert!(wrong("-----BEGIN CERTIFICATE-----\n???\n-----END CERTIFICATE-----\n").contains("not PEM"));
        assert!(wrong("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n").contains("of no authority"));
    }
}
