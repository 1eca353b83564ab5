//! Documents that aren't in the request and not in a Secret: a set of public keys, a certificate. The gateway fetches and
//! keeps them; here is where they may come from and what is in them.

use super::{der::PublicKey, jwt::KeySet, paypal};
use rustls_pki_types::{CertificateDer, pem::PemObject};

/// The largest that is fetched; a key set of a large provider has 10 KiB.
pub const MOST_BYTES: usize = 64 << 10;

/// What a request can't be judged without.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wanted {
    /// Over https. Either the resource's author wrote it, or its host is one that the provider owns.
    pub url: String,
    pub kind: DocumentKind,
    /// The key that the request is signed by, where it says so.
    pub key_id: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum DocumentKind {
    KeySet,
    /// The one that Amazon SNS signs with. Its host is pinned; the file has no chain to check.
    SnsCertificate,
    /// A chain, the signing certificate first; who issued it has to be checked as for a server.
    PaypalCertificate,
}

impl DocumentKind {
    /// The metric's `kind`.
    pub const fn as_str(self) -> &'static str {
        match self {
            DocumentKind::KeySet => "jwks",
            DocumentKind::SnsCertificate => "sns_certificate",
            DocumentKind::PaypalCertificate => "paypal_certificate",
        }
    }

    /// The certificates whose issuer has to be checked, as of a server with that name; `None`: nothing has to be.
    pub fn chain(self, bytes: &[u8]) -> Result<Option<Chain>, &'static str> {
        match self {
            DocumentKind::KeySet | DocumentKind::SnsCertificate => Ok(None),
            DocumentKind::PaypalCertificate => Chain::read(bytes, paypal::DOMAIN).map(Some),
        }
    }
}

/// Most certificates of a chain.
const LONGEST_CHAIN: usize = 8;

/// Certificates, the signing one first.
#[derive(Debug)]
pub struct Chain {
    pub certificates: Vec<CertificateDer<'static>>,
    /// One that the first is for, in the domain that it has to be in.
    pub name: String,
}

impl Chain {
    fn read(pem: &[u8], domain: &str) -> Result<Chain, &'static str> {
        let certificates: Vec<_> = CertificateDer::pem_slice_iter(pem)
            .take(LONGEST_CHAIN)
            .collect::<Result<_, _>>()
            .map_err(|_| "it isn't a chain of certificates in PEM")?;
        let first = certificates.first().ok_or("it holds no certificate")?;
        let first = webpki::EndEntityCert::try_from(first)
            .map_err(|_| "its first certificate can't be read")?;
        let name = first
            .valid_dns_names()
            .find(|name| {
                name.strip_suffix(domain)
                    .is_some_and(|rest| rest.ends_with('.'))
            })
            .ok_or("its certificate isn't the provider's")?
            .to_owned();
        Ok(Chain { certificates, name })
    }
}

/// A document that was read.
#[derive(Debug, Clone)]
pub struct Document(pub(super) Content);

#[derive(Debug, Clone)]
pub(super) enum Content {
    KeySet(KeySet),
    Certificate(PublicKey),
}

impl Document {
    /// The error says what it isn't.
    pub fn parse(kind: DocumentKind, bytes: &[u8]) -> Result<Document, &'static str> {
        let content = match kind {
            DocumentKind::KeySet => {
                Content::KeySet(KeySet::parse(bytes).ok_or("it isn't a JWKS document")?)
            }
            DocumentKind::SnsCertificate | DocumentKind::PaypalCertificate => {
                Content::Certificate(certificate(bytes).ok_or("it isn't a certificate in PEM")?)
            }
        };
        Ok(Document(content))
    }

    /// Whether the key that is asked for is there; a document without key ids has it.
    pub fn has(&self, key_id: Option<&str>) -> bool {
        match (&self.0, key_id) {
            (Content::KeySet(keys), Some(key_id)) => keys.has(key_id),
            _ => true,
        }
    }

    pub(super) fn certificate(&self) -> Option<&PublicKey> {
        match &self.0 {
            Content::Certificate(key) => Some(key),
            Content::KeySet(_) => None,
        }
    }

    pub(super) fn key_set(&self) -> Option<&KeySet> {
        match &self.0 {
            Content::KeySet(keys) => Some(keys),
            Content::Certificate(_) => None,
        }
    }
}

/// The key of the first certificate.
fn certificate(pem: &[u8]) -> Option<PublicKey> {
    let der = CertificateDer::from_pem_slice(pem).ok()?;
    let certificate = webpki::EndEntityCert::try_from(&der).ok()?;
    PublicKey::from_spki(&certificate.subject_public_key_info())
}

/// A URL that a request named, if it is over https at one of the provider's own hosts and at the port that it always has.
pub(super) fn pinned(url: &str, host_is_theirs: impl Fn(&str) -> bool) -> bool {
    let Some(rest) = url.strip_prefix("https://") else {
        return false;
    };
    let (host, path) = rest.split_once('/').unwrap_or((rest, ""));
    // Nothing that a parser could read in two ways: user@host, ports, escapes, dots at the end.
    let plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'.' | b'-');
    let printable = |b: u8| b.is_ascii_graphic() && b != b'\\';
    url.len() <= 2048
        && host.bytes().all(plain)
        && !host.ends_with('.')
        && path.bytes().all(printable)
        && host_is_theirs(host)
}

#[cfg(test)]
mod tests {
    use super::{super::sns, *};

    #[test]
    fn only_the_providers_own_hosts_are_fetched_from() {
        let ours = |url: &str| pinned(url, sns::is_host);
        for url in [
            "https://sns.us-east-1.amazonaws.com/SimpleNotificationService-0123.pem",
            "https://sns.cn-north-1.amazonaws.com.cn/x?Action=ConfirmSubscription&Token=1",
        ] {
            assert!(ours(url), "{url}");
        }
        for url in [
            "http://sns.us-east-1.amazonaws.com/x",
            "https://sns.us-east-1.amazonaws.com.evil.example/x",
            "https://evil.example/sns.us-east-1.amazonaws.com/x",
            "https://sns.us-east-1.amazonaws.com:8443/x",
            "https://sns.us-east-1.amazonaws.com@evil.example/x",
            "https://evil.example#sns.us-east-1.amazonaws.com/x",
            "https://evil.example\\.sns.us-east-1.amazonaws.com/x",
            "https://sns.us-east-1.amazonaws.com./x",
            "https://sns.us-east-1.amazonaws.com/x y",
            "https://snsxus-east-1.amazonaws.com/x",
            "https://sns.amazonaws.com.amazonaws.com/x",
            "https://bucket.s3.amazonaws.com/sns.pem",
            "https://sns..amazonaws.com/x",
            "https://sns.a.b.amazonaws.com/x",
            "HTTPS://sns.us-east-1.amazonaws.com/x",
            "",
        ] {
            assert!(!ours(url), "{url}");
        }
    }
}
