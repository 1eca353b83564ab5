//! As much DER as a public key's wrapping needs: SubjectPublicKeyInfo, which is a sequence of an algorithm and a bit string.

use super::encoding::from_base64;
use crate::secret::Secret;
use rustls_pki_types::{SubjectPublicKeyInfoDer, pem::PemObject};

const SEQUENCE: u8 = 0x30;
const BIT_STRING: u8 = 0x03;
const OBJECT_ID: u8 = 0x06;

const RSA: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x01];
const EC: &[u8] = &[0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01];
const P256: &[u8] = &[0x2a, 0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07];
const P384: &[u8] = &[0x2b, 0x81, 0x04, 0x00, 0x22];
const ED25519: &[u8] = &[0x2b, 0x65, 0x70];

/// A public key of a kind that is verified with, in the form that `ring` reads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum PublicKey {
    /// RSAPublicKey in DER.
    Rsa(Vec<u8>),
    /// Big-endian.
    RsaParts {
        n: Vec<u8>,
        e: Vec<u8>,
    },
    /// The uncompressed point.
    P256(Vec<u8>),
    /// The uncompressed point.
    P384(Vec<u8>),
    Ed25519(Vec<u8>),
}

impl PublicKey {
    /// Of PEM (`-----BEGIN PUBLIC KEY-----`), or of the base64 between its lines.
    pub(super) fn read(secret: &Secret) -> Option<PublicKey> {
        let text = secret.expose();
        if text.trim_ascii().starts_with(b"-----BEGIN") {
            let der = SubjectPublicKeyInfoDer::from_pem_slice(text).ok()?;
            return PublicKey::from_spki(&der);
        }
        // Some consoles break the lines of the base64.
        let joined: Vec<u8> = text
            .iter()
            .copied()
            .filter(|b| !b.is_ascii_whitespace())
            .collect();
        PublicKey::from_spki(&from_base64(&joined)?)
    }

    pub(super) fn from_spki(der: &[u8]) -> Option<PublicKey> {
        let (info, _) = element(der, SEQUENCE)?;
        let (algorithm, rest) = element(info, SEQUENCE)?;
        let (bits, _) = element(rest, BIT_STRING)?;
        // The number of bits left over; a key is whole bytes.
        let key = bits.strip_prefix(&[0])?.to_vec();
        let (kind, parameters) = element(algorithm, OBJECT_ID)?;
        match kind {
            RSA => Some(PublicKey::Rsa(key)),
            ED25519 if key.len() == 32 => Some(PublicKey::Ed25519(key)),
            EC => match element(parameters, OBJECT_ID)?.0 {
                P256 if key.len() == 65 => Some(PublicKey::P256(key)),
                P384 if key.len() == 97 => Some(PublicKey::P384(key)),
                _ => None,
            },
            _ => None,
        }
    }
}

/// The content of the element that begins here, and what follows it.
fn element(der: &[u8], tag: u8) -> Option<(&[u8], &[u8])> {
    let rest = der.strip_prefix(&[tag])?;
    let (&first, rest) = rest.split_first()?;
    let (length, rest) = match first {
        0..=0x7f => (usize::from(first), rest),
        0x81 => (usize::from(*rest.first()?), &rest[1..]),
        0x82 => (
            usize::from(*rest.first()?) << 8 | usize::from(*rest.get(1)?),
            &rest[2..],
        ),
        // No key is longer than 64 KiB.
        _ => return None,
    };
    rest.split_at_checked(length)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_cut_or_padded_key_is_none() {
        let spki = hex::decode("302a300506032b6570032100b27b28142bb3cddea98ec2e61f1be5ea13f06f2cbf99c4e29b8a2b5bdfeecab1").expect("hexadecimal");
        assert!(
            matches!(PublicKey::from_spki(&spki), Some(PublicKey::Ed25519(key)) if key.len() == 32)
        );
        for end in 0..spki.len() {
            assert_eq!(PublicKey::from_spki(&spki[..end]), None, "{end}");
        }
    }

    proptest! {
        #[test]
        fn no_bytes_panic(bytes in prop::collection::vec(any::<u8>(), 0..80)) {
            let _ = PublicKey::from_spki(&bytes);
            let mut wrapped = vec![SEQUENCE, 0x82, 0, bytes.len() as u8];
            wrapped.extend_from_slice(&bytes);
            let _ = PublicKey::from_spki(&wrapped);
        }
    }
}
