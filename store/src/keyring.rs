//! The key ring: seals the secrets of routing rows on their way through Postgres.
//!
//! A file of lines `id:base64(32 bytes)` that the operator and the gateways mount. The first key seals, all of them open,
//! so a ring rotates by putting a new line on top and dropping the old one a while later.

use crate::error::Source;
use routing::{row::RowKey, secret::Secret};
use std::{fmt, path::Path};

#[derive(Clone)]
pub struct Keyring {
    keys: Vec<Key>,
}

#[derive(Clone)]
struct Key {
    id: String,
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
    #[error("the key ring has no key: generate one with `hookstream keyring generate`")]
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
        f.debug_list().entries(self.keys.iter().map(|key| &key.id)).finish()
    }
}

impl Keyring {
    /// Parses the lines; empty ones and those that begin with `#` are skipped.
    pub fn parse(text: &str) -> Result<Keyring, KeyringError> {
        let _ = text;
        unimplemented!()
    }

    pub fn load(path: &Path) -> Result<Keyring, KeyringError> {
        let text = std::fs::read_to_string(path).map_err(|source| KeyringError::Read { path: path.display().to_string(), source })?;
        Keyring::parse(&text)
    }

    /// A ring of one fresh random key.
    pub fn generate() -> Keyring {
        unimplemented!()
    }

    /// The file's text: holds the keys.
    pub fn to_text(&self) -> Secret {
        unimplemented!()
    }

    /// Seals a row's secrets with the first key; bound to the row, so they open in no other.
    pub fn seal(&self, row: RowKey, secrets: &[Secret]) -> Vec<u8> {
        let _ = (row, secrets);
        unimplemented!()
    }

    pub fn open(&self, row: RowKey, sealed: &[u8]) -> Result<Vec<Secret>, OpenError> {
        let _ = (row, sealed);
        unimplemented!()
    }
}

#[expect(dead_code, reason = "placeholder until the bodies follow")]
type Unused = Source;
