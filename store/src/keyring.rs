//! The key ring: seals the secrets of routing rows on their way through Postgres.
//!
//! A file of lines `id:base64(32 bytes)` that the operator and the gateways mount. The first key seals, all of them open,
//! so a ring rotates by adding a line at the end everywhere, then moving it to the top, and dropping the old one once
//! every row was sealed anew (the digest depends on the first key, so the operator's next publish does that).
//!
//! Sealed bytes open only in the row and beside the payload that they were sealed for: whoever can write to the
//! database, but has no key, can't have a secret sent to another address.

use base64::{Engine, engine::general_purpose::STANDARD};
use chacha20poly1305::{
    KeyInit, XChaCha20Poly1305,
    aead::{Aead, Payload},
};
use hmac::{Hmac, Mac};
use routing::{
    row::{Row, RowKey},
    secret::Secret,
};
use sha2::Sha256;
use std::{fmt, path::Path};
use zeroize::Zeroizing;

#[derive(Clone)]
pub struct Keyring {
    keys: Vec<Key>,
}

#[derive(Clone)]
struct Key {
    /// At most 64 bytes.
    id: String,
    bytes: Zeroizing<[u8; 32]>,
}

#[derive(Debug, thiserror::Error)]
pub enum KeyringError {
    #[error("cannot read the key ring {path}")]
    Read {
        path: String,
        #[source]
        source: std::io::Error,
    },
    #[error("line {line} of the key ring is not `id:base64 of 32 bytes`")]
    Malformed { line: usize },
    #[error("line {line} of the key ring repeats the id {id}")]
    Repeated { line: usize, id: String },
    #[error(
        "the key ring has no key: write a line `id:key`, the key being 32 random bytes in base64 (`openssl rand -base64 32`)"
    )]
    Empty,
}

/// Why sealed bytes were not opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    #[error("sealed with key {0}, which this key ring does not have")]
    UnknownKey(String),
    #[error("the sealed bytes were altered, or belong to another row")]
    Altered,
    #[error("the sealed bytes are of a newer version")]
    Newer,
}

impl fmt::Debug for Keyring {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list()
            .entries(self.keys.iter().map(|key| &key.id))
            .finish()
    }
}

/// The first byte of sealed bytes. Then: the length of the key's id, the id, the nonce, the sealed text.
const VERSION: u8 = 1;
const NONCE: usize = 24;
const LONGEST_ID: usize = 64;

impl Keyring {
    /// Parses the lines; empty ones and those that begin with `#` are skipped. An id is up to 64 letters, digits, `-`, `_`, `.`.
    pub fn parse(text: &str) -> Result<Keyring, KeyringError> {
        let mut keys: Vec<Key> = Vec::new();
        for (n, line) in text.lines().enumerate() {
            let (line, content) = (n + 1, line.trim());
            if content.is_empty() || content.starts_with('#') {
                continue;
            }
            let key = parse_key(content).ok_or(KeyringError::Malformed { line })?;
            if keys.iter().any(|other| other.id == key.id) {
                return Err(KeyringError::Repeated { line, id: key.id });
            }
            keys.push(key);
        }
        if keys.is_empty() {
            Err(KeyringError::Empty)
        } else {
            Ok(Keyring { keys })
        }
    }

    pub fn load(path: &Path) -> Result<Keyring, KeyringError> {
        let text = std::fs::read_to_string(path).map_err(|source| KeyringError::Read {
            path: path.display().to_string(),
            source,
        })?;
        Keyring::parse(&Zeroizing::new(text))
    }

    /// A ring of one fresh random key.
    pub fn generate() -> Keyring {
        let id = format!("{:08x}", rand::random::<u32>());
        Keyring {
            keys: vec![Key {
                id,
                bytes: Zeroizing::new(rand::random()),
            }],
        }
    }

    /// The file's text: holds the keys.
    pub fn to_text(&self) -> Secret {
        let lines = self
            .keys
            .iter()
            .map(|key| format!("{}:{}\n", key.id, STANDARD.encode(*key.bytes)));
        Secret::new(lines.collect::<String>())
    }

    /// Seals a row's secrets with the first key; they open in no other row and beside no other payload.
    pub(crate) fn seal(&self, row: RowKey, payload: &[u8], secrets: &[Secret]) -> Vec<u8> {
        let key = self.first();
        let nonce: [u8; NONCE] = rand::random();
        let mut plain = Zeroizing::new(Vec::with_capacity(
            secrets.iter().map(|secret| 4 + secret.expose().len()).sum(),
        ));
        for secret in secrets {
            let length = u32::try_from(secret.expose().len())
                .expect("a Secret's value is at most a mebibyte");
            plain.extend_from_slice(&length.to_be_bytes());
            plain.extend_from_slice(secret.expose());
        }
        let text = key
            .cipher()
            .encrypt(
                &nonce.into(),
                Payload {
                    msg: &plain,
                    aad: &bound_to(row, payload),
                },
            )
            .expect("the cipher takes up to 256 GiB");
        let id_length = u8::try_from(key.id.len()).expect("an id has at most 64 bytes");
        [&[VERSION, id_length], key.id.as_bytes(), &nonce, &text].concat()
    }

    pub(crate) fn open(
        &self,
        row: RowKey,
        payload: &[u8],
        sealed: &[u8],
    ) -> Result<Vec<Secret>, OpenError> {
        let [version, id_length, rest @ ..] = sealed else {
            return Err(OpenError::Altered);
        };
        if *version != VERSION {
            return Err(OpenError::Newer);
        }
        let (id, rest) = rest
            .split_at_checked(usize::from(*id_length))
            .ok_or(OpenError::Altered)?;
        let (nonce, text) = rest
            .split_first_chunk::<NONCE>()
            .ok_or(OpenError::Altered)?;
        let Some(key) = self.keys.iter().find(|key| key.id.as_bytes() == id) else {
            return Err(OpenError::UnknownKey(
                String::from_utf8_lossy(id).into_owned(),
            ));
        };
        let plain = key
            .cipher()
            .decrypt(
                &(*nonce).into(),
                Payload {
                    msg: text,
                    aad: &bound_to(row, payload),
                },
            )
            .map_err(|_| OpenError::Altered)?;
        split(&Zeroizing::new(plain)).ok_or(OpenError::Altered)
    }

    /// Equal for rows of equal content under the same first key, and tells nothing of the secrets to who has no key.
    pub(crate) fn digest(&self, row: &Row, payload: &[u8]) -> [u8; 32] {
        let mut subkey = mac(&*self.first().bytes);
        subkey.update(b"hookstream: digest of a routing row");
        let mut digest = mac(&subkey.finalize().into_bytes());
        let mut part = |bytes: &[u8]| {
            // Lengths keep one field from running into the next.
            digest.update(&(bytes.len() as u64).to_be_bytes());
            digest.update(bytes);
        };
        part(&row.generation.to_be_bytes());
        part(row.namespace.as_bytes());
        part(row.name.as_bytes());
        part(payload);
        row.secrets.iter().for_each(|secret| part(secret.expose()));
        digest.finalize().into_bytes().into()
    }

    fn first(&self) -> &Key {
        self.keys
            .first()
            .expect("a ring is parsed or generated with at least one key")
    }
}

impl Key {
    fn cipher(&self) -> XChaCha20Poly1305 {
        XChaCha20Poly1305::new_from_slice(&*self.bytes).expect("the key has 32 bytes")
    }
}

fn mac(key: &[u8]) -> Hmac<Sha256> {
    <Hmac<Sha256> as hmac::KeyInit>::new_from_slice(key).expect("HMAC takes a key of any length")
}

fn parse_key(line: &str) -> Option<Key> {
    let (id, encoded) = line.split_once(':')?;
    let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.');
    if id.is_empty() || id.len() > LONGEST_ID || !id.bytes().all(plain) {
        return None;
    }
    let bytes = Zeroizing::new(STANDARD.decode(encoded.trim()).ok()?);
    Some(Key {
        id: id.to_owned(),
        bytes: Zeroizing::new(bytes.as_slice().try_into().ok()?),
    })
}

fn bound_to(row: RowKey, payload: &[u8]) -> Vec<u8> {
    [row.kind.as_str().as_bytes(), row.uid.as_bytes(), payload].concat()
}

fn split(mut plain: &[u8]) -> Option<Vec<Secret>> {
    let mut secrets = Vec::new();
    while !plain.is_empty() {
        let (length, rest) = plain.split_first_chunk::<4>()?;
        let (value, rest) =
            rest.split_at_checked(usize::try_from(u32::from_be_bytes(*length)).ok()?)?;
        secrets.push(Secret::new(value));
        plain = rest;
    }
    Some(secrets)
}

#[cfg(test)]
mod unit {
    use super::*;
    use routing::row::Kind;
    use uuid::Uuid;

    const ROW: RowKey = RowKey {
        kind: Kind::Source,
        uid: Uuid::from_u128(1),
    };

    fn ring(text: &str) -> Keyring {
        Keyring::parse(text).unwrap()
    }

    fn line(id: &str, byte: u8) -> String {
        format!("{id}:{}", STANDARD.encode([byte; 32]))
    }

    #[test]
    fn secrets_survive_being_sealed_and_opened() {
        let ring = Keyring::generate();
        for secrets in [
            vec![],
            vec![Secret::new("")],
            vec![Secret::new("one"), Secret::new(vec![0, 255])],
        ] {
            let sealed = ring.seal(ROW, b"payload", &secrets);
            assert_eq!(ring.open(ROW, b"payload", &sealed).unwrap(), secrets);
        }
    }

    #[test]
    fn sealed_bytes_open_in_their_own_row_and_beside_their_own_payload_only() {
        let ring = Keyring::generate();
        let sealed = ring.seal(ROW, b"payload", &[Secret::new("s")]);
        let elsewhere = [
            RowKey {
                kind: Kind::Destination,
                ..ROW
            },
            RowKey {
                uid: Uuid::from_u128(2),
                ..ROW
            },
        ];
        for row in elsewhere {
            assert!(matches!(
                ring.open(row, b"payload", &sealed),
                Err(OpenError::Altered)
            ));
        }
        assert!(matches!(
            ring.open(ROW, b"another", &sealed),
            Err(OpenError::Altered)
        ));
    }

    #[test]
    fn every_altered_or_cut_byte_is_noticed() {
        let ring = ring(&line("k", 7));
        let sealed = ring.seal(ROW, b"p", &[Secret::new("secret")]);
        for at in 0..sealed.len() {
            let mut altered = sealed.clone();
            altered[at] ^= 1;
            assert!(ring.open(ROW, b"p", &altered).is_err(), "byte {at}");
            assert!(ring.open(ROW, b"p", &sealed[..at]).is_err(), "cut at {at}");
        }
    }

    #[test]
    fn a_ring_rotates_without_a_gap() {
        let (old, new) = (line("old", 1), line("new", 2));
        let sealed = ring(&old).seal(ROW, b"p", &[Secret::new("s")]);
        let both = ring(&format!("# rotated\n\n{new}\n{old}\n"));
        assert_eq!(both.open(ROW, b"p", &sealed).unwrap(), [Secret::new("s")]);
        let again = both.seal(ROW, b"p", &[Secret::new("s")]);
        assert!(ring(&new).open(ROW, b"p", &again).is_ok());
        assert!(
            matches!(ring(&new).open(ROW, b"p", &sealed), Err(OpenError::UnknownKey(id)) if id == "old")
        );
    }

    #[test]
    fn a_generated_ring_is_read_back_and_prints_no_key() {
        let ring = Keyring::generate();
        let text = String::from_utf8(ring.to_text().expose().to_vec()).unwrap();
        let sealed = ring.seal(ROW, b"p", &[Secret::new("s")]);
        assert!(
            Keyring::parse(&text)
                .unwrap()
                .open(ROW, b"p", &sealed)
                .is_ok()
        );
        let encoded = text.trim().split_once(':').unwrap().1;
        assert!(!format!("{ring:?}").contains(encoded));
    }

    #[test]
    fn a_wrong_line_is_named_by_its_number() {
        let good = line("a", 1);
        let short = format!("b:{}", STANDARD.encode([1; 31]));
        for bad in ["nonsense", "b:", "b:***", &short, ":AAAA", "b c:AAAA"] {
            let error = Keyring::parse(&format!("{good}\n{bad}")).unwrap_err();
            assert!(
                matches!(error, KeyringError::Malformed { line: 2 }),
                "{bad}: {error}"
            );
        }
        assert!(matches!(
            Keyring::parse(&format!("{good}\n{good}")),
            Err(KeyringError::Repeated { line: 2, .. })
        ));
        assert!(matches!(
            Keyring::parse("# none\n"),
            Err(KeyringError::Empty)
        ));
    }
}
