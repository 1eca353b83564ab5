//! A signing key, told by its form.

use crate::secret::Secret;
use base64::{Engine, prelude::BASE64_STANDARD};
use ed25519_dalek::{Signer as _, SigningKey, pkcs8::DecodePrivateKey};
use hmac::{Hmac, KeyInit, Mac};
use p256::ecdsa;
use sha2::{Digest, Sha256};
use zeroize::Zeroizing;

/// The specification's bounds of a shared key, in bytes.
const SHARED: std::ops::RangeInclusive<usize> = 24..=64;

/// Fewer bytes of a shared key for HTTP signatures are a mistake, or can be guessed.
const LEAST_SHARED: usize = 16;

pub(super) enum Key {
    Shared(Box<Hmac<Sha256>>),
    Ed25519(Box<SigningKey>),
    EcdsaP256(Box<ecdsa::SigningKey>),
}

impl Key {
    /// `whsec_` and base64 of a shared key, or `whsk_` and base64 of an Ed25519 key: its 32 bytes, or these with the
    /// public key behind them.
    pub(super) fn standard_webhooks(secret: &Secret) -> Result<Key, &'static str> {
        const FORM: &str = "isn't a Standard Webhooks key; it must be `whsec_` followed by base64 of 24 to 64 bytes (`echo whsec_$(openssl rand -base64 32)` makes one), \
             or `whsk_` followed by base64 of an Ed25519 key; look for a line break at its end too";
        let text = std::str::from_utf8(secret.expose()).map_err(|_| FORM)?;
        if let Some(text) = text.strip_prefix("whsec_") {
            let key = decode(text).ok_or(FORM)?;
            if !SHARED.contains(&key.len()) {
                return Err(FORM);
            }
            return Ok(Key::shared(&key));
        }
        let key = text.strip_prefix("whsk_").and_then(decode).ok_or(FORM)?;
        ed25519(&key).ok_or(
            "isn't an Ed25519 key; what follows `whsk_` must be base64 of its 32 bytes, or of these and the 32 bytes of its public key",
        )
    }

    /// A private key as PEM (Ed25519 or P-256), `whsk_…`, `whsec_…`, or any other bytes as a shared key.
    pub(super) fn http_signature(secret: &Secret) -> Result<Key, &'static str> {
        let bytes = secret.expose();
        let text = std::str::from_utf8(bytes).unwrap_or_default();
        if text.starts_with("whsec_") || text.starts_with("whsk_") {
            return Key::standard_webhooks(secret);
        }
        if text.contains("-----BEGIN") {
            return pem(text.trim());
        }
        if bytes.len() < LEAST_SHARED {
            return Err(
                "is too short; write a private key as PEM (Ed25519 or P-256), or a shared key of at least 16 bytes",
            );
        }
        Ok(Key::shared(bytes))
    }

    fn shared(key: &[u8]) -> Key {
        Key::Shared(Box::new(
            Hmac::new_from_slice(key).expect("HMAC takes keys of any length"),
        ))
    }

    pub(super) fn is_shared(&self) -> bool {
        matches!(self, Key::Shared(_))
    }

    /// As the registry of RFC 9421 has it.
    pub(super) fn algorithm(&self) -> &'static str {
        match self {
            Key::Shared(_) => "hmac-sha256",
            Key::Ed25519(_) => "ed25519",
            Key::EcdsaP256(_) => "ecdsa-p256-sha256",
        }
    }

    pub(super) fn sign(&self, pieces: &[&[u8]]) -> Vec<u8> {
        match self {
            Key::Shared(mac) => {
                let mut mac = mac.clone();
                for piece in pieces {
                    mac.update(piece);
                }
                mac.finalize().into_bytes().to_vec()
            }
            // Ed25519 reads its message twice, so it must be whole.
            Key::Ed25519(key) => key.sign(&pieces.concat()).to_bytes().to_vec(),
            Key::EcdsaP256(key) => {
                use ecdsa::signature::hazmat::PrehashSigner;
                let mut hash = Sha256::new();
                for piece in pieces {
                    hash.update(piece);
                }
                let signature: ecdsa::Signature = key
                    .sign_prehash(&hash.finalize())
                    .expect("a hash of 32 bytes is what P-256 signs");
                signature.to_bytes().to_vec()
            }
        }
    }
}

fn decode(text: &str) -> Option<Zeroizing<Vec<u8>>> {
    BASE64_STANDARD.decode(text).ok().map(Zeroizing::new)
}

fn ed25519(key: &[u8]) -> Option<Key> {
    let key = match key.len() {
        32 => SigningKey::from_bytes(key.try_into().ok()?),
        // With the public key of another one, signatures would give the private key away: the library refuses that.
        64 => SigningKey::from_keypair_bytes(key.try_into().ok()?).ok()?,
        _ => return None,
    };
    Some(Key::Ed25519(Box::new(key)))
}

fn pem(text: &str) -> Result<Key, &'static str> {
    if let Ok(key) = SigningKey::from_pkcs8_pem(text) {
        return Ok(Key::Ed25519(Box::new(key)));
    }
    let key = p256::SecretKey::from_pkcs8_pem(text).or_else(|_| {
        // `openssl ecparam -genkey` writes the curve in front of the key.
        let start = text.find("-----BEGIN EC PRIVATE KEY").unwrap_or_default();
        p256::SecretKey::from_sec1_pem(&text[start..])
    });
    match key {
        Ok(key) => Ok(Key::EcdsaP256(Box::new(key.into()))),
        Err(_) if text.contains("ENCRYPTED") => {
            Err("is an encrypted key; store it without a passphrase")
        }
        Err(_) if text.contains("PUBLIC KEY") || text.contains("CERTIFICATE") => {
            Err("holds no private key; the receiver has the public one, this end signs")
        }
        Err(_) => Err(
            "isn't a key that signs here; write an Ed25519 or P-256 private key as PEM (`openssl genpkey -algorithm ed25519` makes one)",
        ),
    }
}
