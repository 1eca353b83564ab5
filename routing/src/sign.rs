//! So that a receiver can tell that a request comes from here, and from nobody who merely knows its URL.
//!
//! A [`Signing`] is what the compiler made of the resource. A [`Signer`] is the same with its keys parsed and their HMAC
//! states begun, so that signing an attempt costs one pass over the body for each key.
//!
//! What is signed is what is sent: the headers and the body of one attempt, with the time of that attempt. A retry is
//! signed anew, or a receiver that bounds the age of signatures would refuse it.
//!
//! Not here: randomness. Ed25519 and HMAC need none, and ECDSA takes its nonce from the message (RFC 6979), so the same
//! attempt has the same signature whoever makes it.

mod key;
mod message;
pub mod sigv4;
#[cfg(test)]
mod tests;

use crate::{row::SecretIndex, secret::Secret};
use base64::{Engine, prelude::BASE64_STANDARD};
use hmac::{Hmac, KeyInit, Mac};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Uri};
use key::Key;
use serde::{Deserialize, Serialize};
use sha1::Sha1;
use sha2::Sha256;
use std::{collections::HashSet, fmt};

/// Where an HMAC signature stands unless the resource says otherwise.
pub const DEFAULT_HMAC_HEADER: &str = "x-hookstream-signature";

const WEBHOOK_ID: HeaderName = HeaderName::from_static("webhook-id");
const WEBHOOK_SIGNATURE: HeaderName = HeaderName::from_static("webhook-signature");

/// What a row keeps.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Signing {
    pub scheme: Scheme,
    /// The newest first.
    pub keys: Vec<SecretIndex>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Scheme {
    /// <https://www.standardwebhooks.com>: every key signs.
    StandardWebhooks {},
    /// The first key signs.
    Hmac(HmacScheme),
    /// RFC 9421; the first key signs.
    HttpSignature { key_id: String },
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HmacScheme {
    pub algorithm: Algorithm,
    /// Lower case.
    pub header: String,
    /// In front of the signature.
    pub prefix: String,
    /// Lower case. With it, `<timestamp>.<body>` is signed; without, the body.
    pub timestamp_header: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Algorithm {
    Sha1,
    Sha256,
}

impl Scheme {
    /// Whether a secret can be a key of this scheme; the error says what it must be, and nothing of what it is.
    pub fn check_key(&self, secret: &Secret) -> Result<(), &'static str> {
        match self {
            Scheme::Hmac(_) if secret.expose().is_empty() => {
                Err("is empty; anybody could sign with it")
            }
            Scheme::Hmac(_) => Ok(()),
            Scheme::StandardWebhooks {} => Key::standard_webhooks(secret).map(drop),
            Scheme::HttpSignature { .. } => Key::http_signature(secret).map(drop),
        }
    }

    /// The headers that it writes, in lower case: nothing else may claim them.
    pub fn headers(&self) -> Vec<&str> {
        match self {
            Scheme::StandardWebhooks {} => vec!["webhook-signature"],
            Scheme::Hmac(hmac) => std::iter::once(hmac.header.as_str())
                .chain(hmac.timestamp_header.as_deref())
                .collect(),
            Scheme::HttpSignature { .. } => vec!["content-digest", "signature", "signature-input"],
        }
    }
}

/// What of a request is signed besides its headers.
#[derive(Debug, Clone, Copy)]
pub struct Message<'a> {
    pub method: &'a Method,
    pub uri: &'a Uri,
    pub body: &'a [u8],
    /// Unix seconds; what `webhook-timestamp` says.
    pub timestamp: i64,
}

/// Keys made ready. Prints as `Signer`.
pub struct Signer(Prepared);

enum Prepared {
    StandardWebhooks(Vec<Key>),
    Hmac {
        mac: Digest,
        header: HeaderName,
        prefix: String,
        timestamp: Option<HeaderName>,
    },
    HttpSignature {
        key: Key,
        key_id: String,
    },
}

enum Digest {
    Sha1(Box<Hmac<Sha1>>),
    Sha256(Box<Hmac<Sha256>>),
}

/// What the compiler should have refused.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum Unusable {
    #[error("the destination's row names a signing key that it doesn't hold")]
    KeyMissing,
    #[error("the destination's signing key {0}")]
    Key(&'static str),
    #[error("the destination's signing header can't be sent")]
    Header,
}

impl fmt::Debug for Signer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Signer")
    }
}

impl Signer {
    pub fn new(signing: &Signing, secrets: &[Secret]) -> Result<Signer, Unusable> {
        let keys = signing
            .keys
            .iter()
            .map(|index| secrets.get(usize::from(index.0)))
            .collect::<Option<Vec<_>>>()
            .filter(|keys| !keys.is_empty())
            .ok_or(Unusable::KeyMissing)?;
        for key in &keys {
            signing.scheme.check_key(key).map_err(Unusable::Key)?;
        }
        let header =
            |name: &String| HeaderName::from_bytes(name.as_bytes()).map_err(|_| Unusable::Header);
        let prepared = match &signing.scheme {
            Scheme::StandardWebhooks {} => {
                // The same key twice would only make the header longer.
                let mut seen = HashSet::new();
                let keys = keys.iter().filter(|key| seen.insert(key.expose()));
                let keys = keys.map(|key| Key::standard_webhooks(key));
                Prepared::StandardWebhooks(keys.collect::<Result<_, _>>().map_err(Unusable::Key)?)
            }
            Scheme::Hmac(scheme) => Prepared::Hmac {
                mac: Digest::new(scheme.algorithm, keys[0].expose()),
                header: header(&scheme.header)?,
                prefix: scheme.prefix.clone(),
                timestamp: scheme.timestamp_header.as_ref().map(header).transpose()?,
            },
            Scheme::HttpSignature { key_id } => Prepared::HttpSignature {
                key: Key::http_signature(keys[0]).map_err(Unusable::Key)?,
                key_id: key_id.clone(),
            },
        };
        Ok(Signer(prepared))
    }

    /// Signs a request that is otherwise complete: what is covered of its headers is read from `headers`, and the
    /// signature is written there, in place of any of the same name.
    pub fn sign(&self, message: Message<'_>, headers: &mut HeaderMap) {
        match &self.0 {
            Prepared::StandardWebhooks(keys) => {
                let id = headers.get(WEBHOOK_ID).map(HeaderValue::as_bytes);
                let value = standard_webhooks(keys, id.unwrap_or_default(), message);
                headers.insert(WEBHOOK_SIGNATURE, visible(value));
            }
            Prepared::Hmac {
                mac,
                header,
                prefix,
                timestamp,
            } => {
                let time = timestamp.is_some().then(|| message.timestamp.to_string());
                let before = time.as_ref().map(|time| format!("{time}."));
                let before = before.unwrap_or_default();
                let digest = mac.hex(&[before.as_bytes(), message.body]);
                headers.insert(header.clone(), visible(format!("{prefix}{digest}")));
                if let (Some(name), Some(time)) = (timestamp, time) {
                    headers.insert(name.clone(), visible(time));
                }
            }
            Prepared::HttpSignature { key, key_id } => message::sign(key, key_id, message, headers),
        }
    }
}

/// `v1,<base64> v1a,<base64>`, a signature for each key.
fn standard_webhooks(keys: &[Key], id: &[u8], message: Message<'_>) -> String {
    let before = [id, b".", message.timestamp.to_string().as_bytes(), b"."].concat();
    let mut value = String::with_capacity(keys.len() * 96);
    for key in keys {
        if !value.is_empty() {
            value.push(' ');
        }
        value.push_str(if key.is_shared() { "v1," } else { "v1a," });
        BASE64_STANDARD.encode_string(key.sign(&[&before, message.body]), &mut value);
    }
    value
}

impl Digest {
    fn new(algorithm: Algorithm, key: &[u8]) -> Digest {
        let any = "HMAC takes keys of any length";
        match algorithm {
            Algorithm::Sha1 => Digest::Sha1(Box::new(Hmac::new_from_slice(key).expect(any))),
            Algorithm::Sha256 => Digest::Sha256(Box::new(Hmac::new_from_slice(key).expect(any))),
        }
    }

    fn hex(&self, pieces: &[&[u8]]) -> String {
        fn run<M: Mac + Clone>(mac: &M, pieces: &[&[u8]]) -> String {
            let mut mac = mac.clone();
            for piece in pieces {
                mac.update(piece);
            }
            hex::encode(mac.finalize().into_bytes())
        }
        match self {
            Digest::Sha1(mac) => run(&**mac, pieces),
            Digest::Sha256(mac) => run(&**mac, pieces),
        }
    }
}

/// Text of ours and prefixes that the compiler has checked.
fn visible(text: String) -> HeaderValue {
    HeaderValue::try_from(text)
        .expect("a signature is hex or base64, and a prefix was checked when it was compiled")
}
