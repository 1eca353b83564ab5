//! A destination's own TLS: whom it trusts, and as whom we come to it.

use rustls::{
    RootCertStore,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
    sign::{CertifiedKey, SingleCertAndKey},
};
use sha2::{Digest, Sha256};
use std::{fmt, sync::Arc};

/// Certificates parsed and checked, once per change of the destination.
#[derive(Clone)]
pub struct Identity {
    /// Of all that makes it: equal ones share their connections.
    pub(super) key: [u8; 32],
    /// `None`: the public authorities.
    roots: Option<Arc<RootCertStore>>,
    /// Whether the public authorities are trusted besides.
    public_too: bool,
    certified: Option<Arc<CertifiedKey>>,
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Identity")
    }
}

/// What the compiler can't see.
#[derive(Debug, thiserror::Error)]
pub enum InvalidIdentity {
    #[error("the destination's `tls.caRef` holds no certificate of an authority")]
    Authority,
    #[error("the destination's client certificate and key can't be used together: {0}")]
    Certificate(String),
}

impl Identity {
    /// `certificate` is the chain and its key.
    pub fn new(
        ca: Option<&[u8]>,
        certificate: Option<(&[u8], &[u8])>,
    ) -> Result<Identity, InvalidIdentity> {
        let mut hash = Sha256::new();
        for part in [
            ca,
            certificate.map(|(chain, _)| chain),
            certificate.map(|(_, key)| key),
        ] {
            let part = part.unwrap_or_default();
            hash.update((part.len() as u64).to_be_bytes());
            hash.update(part);
        }
        Ok(Identity {
            key: hash.finalize().into(),
            roots: ca.map(authorities).transpose()?,
            public_too: false,
            certified: certificate
                .map(|(chain, key)| certified(chain, key))
                .transpose()?,
        })
    }

    /// For where tokens come from: its authorities besides the public ones, and no certificate of ours. `None`: nothing of
    /// this differs from the usual.
    pub fn for_tokens(&self) -> Option<Identity> {
        let roots = self.roots.clone()?;
        let mut hash = Sha256::new();
        hash.update(b"for tokens");
        hash.update(self.key);
        Some(Identity {
            key: hash.finalize().into(),
            roots: Some(roots),
            public_too: true,
            certified: None,
        })
    }

    pub(super) fn config(&self, public: &Arc<RootCertStore>) -> Arc<rustls::ClientConfig> {
        let roots = match &self.roots {
            None => public.clone(),
            Some(roots) if self.public_too => {
                let mut both = RootCertStore::clone(public);
                both.roots.extend(roots.roots.iter().cloned());
                Arc::new(both)
            }
            Some(roots) => roots.clone(),
        };
        let resolver = self.certified.clone().map(SingleCertAndKey::from);
        super::tls::config(roots, resolver)
    }
}

fn authorities(pem: &[u8]) -> Result<Arc<RootCertStore>, InvalidIdentity> {
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(pem) {
        let certificate = certificate.map_err(|_| InvalidIdentity::Authority)?;
        roots
            .add(certificate)
            .map_err(|_| InvalidIdentity::Authority)?;
    }
    match roots.is_empty() {
        true => Err(InvalidIdentity::Authority),
        false => Ok(Arc::new(roots)),
    }
}

fn certified(chain: &[u8], key: &[u8]) -> Result<Arc<CertifiedKey>, InvalidIdentity> {
    let bad = |error: String| InvalidIdentity::Certificate(error);
    let chain = CertificateDer::pem_slice_iter(chain)
        .collect::<Result<Vec<_>, _>>()
        .map_err(|error| bad(error.to_string()))?;
    let key = PrivateKeyDer::from_pem_slice(key)
        .map_err(|_| bad("the key is no private key in PEM".to_owned()))?;
    // Refuses a key that isn't the certificate's.
    CertifiedKey::from_der(chain, key, &rustls::crypto::ring::default_provider())
        .map(Arc::new)
        .map_err(|error| bad(error.to_string()))
}
