//! Whom a destination trusts, and as whom we come.

use super::{Findings, Reason, Taken};
use crate::{
    row::{SecretIndex, Tls},
    secret::Secret,
};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject};

/// Certificates in one Secret; more of them are a mistake (the system's whole list), and every gateway would hold them.
const MOST_CERTIFICATES: usize = 100;

pub(super) fn compile(
    written: &crds::HttpTls,
    taken: &mut Taken<'_>,
    findings: &mut Findings,
) -> Tls {
    let mut tls = Tls::default();
    if let Some(ca) = &written.ca_ref {
        let path = "spec.http.tls.caRef";
        tls.ca = pem(&ca.name, &ca.key, path, taken, findings, certificates);
    }
    if let Some(certificate) = &written.client_certificate_ref {
        let path = "spec.http.tls.clientCertificateRef";
        let name = &certificate.name;
        tls.certificate = pem(name, "tls.crt", path, taken, findings, certificates);
        // A Secret that isn't there is said once.
        if tls.certificate.is_some() || taken.has(name, "tls.key") {
            tls.key = pem(name, "tls.key", path, taken, findings, private_key);
        }
    }
    tls
}

fn pem(
    name: &str,
    key: &str,
    path: &str,
    taken: &mut Taken<'_>,
    findings: &mut Findings,
    check: fn(&Secret) -> Result<(), &'static str>,
) -> Option<SecretIndex> {
    let (place, secret) = taken.take(name, key, path, findings)?;
    if let Err(problem) = check(secret) {
        let message = format!("the value of key `{key}` in Secret `{name}` {problem}");
        findings.add(Reason::UnsupportedValue, path, message);
    }
    Some(place)
}

fn certificates(secret: &Secret) -> Result<(), &'static str> {
    let mut count = 0;
    for certificate in CertificateDer::pem_slice_iter(secret.expose()) {
        if certificate.is_err() {
            return Err("is broken PEM; write it as it came from whoever made it");
        }
        count += 1;
        if count > MOST_CERTIFICATES {
            return Err("has more than 100 certificates; keep those that are needed");
        }
    }
    match count {
        0 => {
            Err("holds no certificate; write it as PEM, beginning with -----BEGIN CERTIFICATE-----")
        }
        _ => Ok(()),
    }
}

fn private_key(secret: &Secret) -> Result<(), &'static str> {
    match PrivateKeyDer::from_pem_slice(secret.expose()) {
        Ok(_) => Ok(()),
        Err(_) => Err(
            "holds no private key; write it as PEM, not encrypted, beginning with -----BEGIN PRIVATE KEY-----",
        ),
    }
}
