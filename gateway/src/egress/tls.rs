//! TLS towards destinations: whom we trust, and in plain words why a session was refused.

use rustls::{
    AlertDescription, CertificateError, InvalidMessage, RootCertStore, client::Resumption,
    pki_types::CertificateDer, sign::SingleCertAndKey,
};
use std::{io, sync::Arc};

/// The system's certificate authorities (or those that `SSL_CERT_FILE` and `SSL_CERT_DIR` name) and `extra`.
pub(super) fn roots(extra: Vec<CertificateDer<'static>>) -> Arc<RootCertStore> {
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    roots.add_parsable_certificates(extra);
    if roots.is_empty() {
        tracing::warn!(
            "no certificate authorities on this machine: https destinations can't be reached (install ca-certificates)"
        );
    }
    Arc::new(roots)
}

/// Sessions that are remembered for resumption by a destination's own identity: it is for one or a few hosts.
const OWN_SESSIONS: usize = 8;

/// `own`: the certificate that we show.
pub(super) fn config(
    roots: Arc<RootCertStore>,
    own: Option<SingleCertAndKey>,
) -> Arc<rustls::ClientConfig> {
    let builder = rustls::ClientConfig::builder_with_provider(Arc::new(
        rustls::crypto::ring::default_provider(),
    ))
    .with_safe_default_protocol_versions()
    .expect("ring has the cipher suites of TLS 1.2 and 1.3")
    .with_root_certificates(roots);
    let mut config = match own {
        None => builder.with_no_client_auth(),
        Some(own) => {
            let mut config = builder.with_client_cert_resolver(Arc::new(own));
            config.resumption = Resumption::in_memory_sessions(OWN_SESSIONS);
            config
        }
    };
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Arc::new(config)
}

/// Why there is no TLS session. The words are for whoever set the destination up.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    #[error(
        "its certificate is from an authority that is not trusted here (trusted are those of the gateway's system, or in the files that SSL_CERT_FILE and SSL_CERT_DIR name)"
    )]
    UnknownAuthority,
    #[error("its certificate is not for this name but for {0}")]
    WrongName(String),
    #[error("its certificate has expired")]
    Expired,
    #[error("its certificate is not valid yet")]
    NotYetValid,
    #[error("it does not speak TLS on this port")]
    NotTls,
    #[error(
        "it wants a client certificate, or another one than the destination's `tls.clientCertificateRef`"
    )]
    ClientCertificate,
    #[error(transparent)]
    Other(io::Error),
}

impl From<io::Error> for TlsError {
    fn from(error: io::Error) -> TlsError {
        use CertificateError as Bad;
        let Some(cause) = error
            .get_ref()
            .and_then(|cause| cause.downcast_ref::<rustls::Error>())
        else {
            return TlsError::Other(error);
        };
        match cause {
            rustls::Error::InvalidCertificate(bad) => match bad {
                Bad::UnknownIssuer => TlsError::UnknownAuthority,
                Bad::NotValidForName => TlsError::WrongName("another".to_owned()),
                // The receiver chooses them, so they are bounded where the whole text is.
                Bad::NotValidForNameContext { presented, .. } => {
                    TlsError::WrongName(presented.join(", "))
                }
                Bad::Expired | Bad::ExpiredContext { .. } => TlsError::Expired,
                Bad::NotValidYet | Bad::NotValidYetContext { .. } => TlsError::NotYetValid,
                _ => TlsError::Other(error),
            },
            rustls::Error::InvalidMessage(InvalidMessage::InvalidContentType) => TlsError::NotTls,
            rustls::Error::AlertReceived(
                AlertDescription::CertificateRequired
                | AlertDescription::BadCertificate
                | AlertDescription::CertificateUnknown
                | AlertDescription::UnknownCA,
            ) => TlsError::ClientCertificate,
            _ => TlsError::Other(error),
        }
    }
}
