//! How bytes are written in headers and in Secrets, and how two of them are compared.

use crate::secret::Secret;
use base64::{
    Engine,
    alphabet::{STANDARD, URL_SAFE},
    engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig},
};
use ring::digest;
use serde::{Deserialize, Serialize};
use std::fmt;
use subtle::{Choice, ConstantTimeEq};
use zeroize::Zeroizing;

const LENIENT: GeneralPurposeConfig =
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent);
pub(super) const BASE64: GeneralPurpose = GeneralPurpose::new(&STANDARD, LENIENT);
pub(super) const BASE64_URL: GeneralPurpose = GeneralPurpose::new(&URL_SAFE, LENIENT);

/// How a signature is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Encoding {
    Hex,
    /// Either alphabet, with padding or without.
    Base64,
}

impl Encoding {
    /// Into `buffer`; `None`: it isn't so written, or is longer than the buffer.
    pub(super) fn decode<'b>(self, encoded: &str, buffer: &'b mut [u8]) -> Option<&'b [u8]> {
        match self {
            Encoding::Hex => {
                let length = encoded.len() / 2;
                let place = buffer.get_mut(..length)?;
                hex::decode_to_slice(encoded, place).ok()?;
                Some(place)
            }
            Encoding::Base64 => {
                // Whatever is longer can't be a signature, and isn't decoded at all.
                if encoded.len() > buffer.len().div_ceil(3) * 4 {
                    return None;
                }
                let length = BASE64
                    .decode_slice(encoded, buffer)
                    .or_else(|_| BASE64_URL.decode_slice(encoded, buffer))
                    .ok()?;
                buffer.get(..length)
            }
        }
    }
}

/// How the key is written in the Secret.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SecretEncoding {
    /// Its bytes are the key, as most providers have it.
    #[default]
    Text,
    Hex,
    Base64,
}

impl SecretEncoding {
    pub(super) fn key(self, secret: &Secret) -> Option<Zeroizing<Vec<u8>>> {
        let bytes = secret.expose();
        // Space around an encoded key is a slip of whoever made the Secret; around a text it may be a part of it.
        let key = match self {
            SecretEncoding::Text => bytes.to_vec(),
            SecretEncoding::Hex => hex::decode(bytes.trim_ascii()).ok()?,
            SecretEncoding::Base64 => from_base64(bytes)?,
        };
        let key = Zeroizing::new(key);
        (!key.is_empty()).then_some(key)
    }

    pub(super) fn check(self, secret: &Secret) -> Result<(), &'static str> {
        match (self.key(secret), self) {
            (Some(_), _) => Ok(()),
            (None, SecretEncoding::Text) => Err("is empty; anybody could sign with it"),
            (None, SecretEncoding::Hex) => {
                Err("isn't hexadecimal; copy the key as the sender shows it, digits 0-9 and a-f")
            }
            (None, SecretEncoding::Base64) => {
                Err("isn't base64; copy the key as the sender shows it")
            }
        }
    }
}

/// Of either alphabet, with padding or without, and with space around it.
pub(super) fn from_base64(text: &[u8]) -> Option<Vec<u8>> {
    let text = text.trim_ascii();
    BASE64
        .decode(text)
        .or_else(|_| BASE64_URL.decode(text))
        .ok()
}

/// A SHA-256. Credentials are compared by theirs, so that neither content nor length shows in the time it takes.
#[derive(Clone)]
pub(super) struct Digest(digest::Digest);

impl Digest {
    pub(super) fn of(bytes: &[u8]) -> Digest {
        Digest(digest::digest(&digest::SHA256, bytes))
    }

    pub(super) fn equals(&self, bytes: &[u8]) -> Choice {
        self.0.as_ref().ct_eq(Digest::of(bytes).0.as_ref())
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[digest]")
    }
}

/// Whether any of them is the digest of these bytes; all are looked at.
pub(super) fn any_equals(digests: &[Digest], bytes: &[u8]) -> bool {
    let presented = Digest::of(bytes);
    let one =
        |found: Choice, digest: &Digest| found | digest.0.as_ref().ct_eq(presented.0.as_ref());
    digests.iter().fold(Choice::from(0), one).into()
}
