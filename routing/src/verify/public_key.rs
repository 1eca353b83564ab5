//! A signature by the sender's private key in a header: Ed25519 (Discord) or ECDSA P-256 over SHA-256 (SendGrid). The
//! secrets are public keys.

use super::{
    Refused,
    content::{Piece, Signed, SignedTimestamp},
    der::PublicKey,
    encoding::{Encoding, from_base64},
    header,
};
use crate::{event::EventView, secret::Secret};
use jiff::Timestamp;
use ring::signature::{
    ECDSA_P256_SHA256_ASN1, ECDSA_P256_SHA256_FIXED, ED25519, UnparsedPublicKey,
};
use serde::{Deserialize, Serialize};

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PublicKeyScheme {
    pub algorithm: PublicKeyAlgorithm,
    /// Lower case.
    pub header: String,
    pub encoding: Encoding,
    pub content: Vec<Piece>,
    #[serde(default)]
    pub timestamp: Option<SignedTimestamp>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PublicKeyAlgorithm {
    Ed25519,
    /// Over SHA-256; the signature in DER, or as the two numbers of 32 bytes.
    EcdsaP256,
}

/// Most bytes of a signature: that of P-256 in DER has 72.
const LONGEST_SIGNATURE: usize = 80;

/// Of one request; each costs far more than a hash.
const MOST_SIGNATURES: usize = 4;

#[derive(Debug, Clone)]
pub(super) struct Keys {
    scheme: PublicKeyScheme,
    keys: Vec<Vec<u8>>,
}

impl Keys {
    pub(super) fn new(scheme: &PublicKeyScheme, secrets: &[&Secret]) -> Keys {
        Keys {
            scheme: scheme.clone(),
            keys: secrets
                .iter()
                .filter_map(|secret| key(scheme.algorithm, secret))
                .collect(),
        }
    }

    pub(super) fn verify(&self, event: &EventView<'_>, now: Timestamp) -> Result<(), Refused> {
        let scheme = &self.scheme;
        if !event.headers.contains_key(&scheme.header) {
            return Err(Refused::SignatureMissing);
        }
        let signed = Signed::read(&scheme.content, scheme.timestamp.as_ref(), None, event, now)?;
        let mut readable = false;
        let mut message = None;
        for value in event
            .headers
            .get_all(&scheme.header)
            .iter()
            .take(MOST_SIGNATURES)
        {
            let mut buffer = [0; LONGEST_SIGNATURE];
            let Some(signature) = scheme.encoding.decode(header::text(value), &mut buffer) else {
                continue;
            };
            readable = true;
            let message = message.get_or_insert_with(|| signed.bytes(&scheme.content));
            // Public keys and signatures are no secrets: the first that fits is enough.
            if self
                .keys
                .iter()
                .any(|key| fits(scheme.algorithm, key, message, signature))
            {
                return Ok(());
            }
        }
        Err(match readable {
            true => Refused::SignatureMismatch,
            false => Refused::SignatureMalformed,
        })
    }
}

fn fits(algorithm: PublicKeyAlgorithm, key: &[u8], message: &[u8], signature: &[u8]) -> bool {
    let verify = |algorithm| {
        UnparsedPublicKey::new(algorithm, key)
            .verify(message, signature)
            .is_ok()
    };
    match algorithm {
        PublicKeyAlgorithm::Ed25519 => verify(&ED25519),
        // A signature in DER may have 64 bytes as well, if rarely.
        PublicKeyAlgorithm::EcdsaP256 => {
            verify(&ECDSA_P256_SHA256_ASN1)
                || signature.len() == 64 && verify(&ECDSA_P256_SHA256_FIXED)
        }
    }
}

/// In hexadecimal, base64 or PEM; the bare key or with its wrapping.
fn key(algorithm: PublicKeyAlgorithm, secret: &Secret) -> Option<Vec<u8>> {
    match (algorithm, PublicKey::read(secret)) {
        (PublicKeyAlgorithm::Ed25519, Some(PublicKey::Ed25519(key)))
        | (PublicKeyAlgorithm::EcdsaP256, Some(PublicKey::P256(key))) => return Some(key),
        _ => {}
    }
    let text = secret.expose().trim_ascii();
    let text = text.strip_prefix(b"whpk_").unwrap_or(text);
    let is_key = |bytes: &Vec<u8>| match algorithm {
        PublicKeyAlgorithm::Ed25519 => bytes.len() == 32,
        PublicKeyAlgorithm::EcdsaP256 => bytes.len() == 65 && bytes[0] == 4,
    };
    // A key in hexadecimal is base64 as well, of another length.
    hex::decode(text)
        .ok()
        .filter(is_key)
        .or_else(|| from_base64(text).filter(is_key))
}

pub(super) fn check_secret(
    algorithm: PublicKeyAlgorithm,
    secret: &Secret,
) -> Result<(), &'static str> {
    key(algorithm, secret).map(drop).ok_or(match algorithm {
        PublicKeyAlgorithm::Ed25519 => {
            "isn't an Ed25519 public key; write its 32 bytes in hexadecimal or base64, or as PEM, as the sender shows it"
        }
        PublicKeyAlgorithm::EcdsaP256 => {
            "isn't a P-256 public key; write it as PEM or as the base64 inside of it, as the sender shows it"
        }
    })
}
