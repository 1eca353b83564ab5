//! Secret bytes on their way from a Kubernetes Secret to a comparison or a header.
//!
//! They print as `[secret]`, are wiped when dropped and have no serde: what serialises a row writes the place of a
//! secret, never the secret.

use std::fmt;
use zeroize::Zeroizing;

/// The value of one key of a Secret.
#[derive(Clone, PartialEq, Eq, Default)]
pub struct Secret(Zeroizing<Vec<u8>>);

impl Secret {
    pub fn new(bytes: impl Into<Vec<u8>>) -> Self {
        Secret(Zeroizing::new(bytes.into()))
    }

    /// The bytes themselves. Call it where they are used, and keep no copy.
    pub fn expose(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[secret]")
    }
}
