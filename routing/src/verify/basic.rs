//! HTTP basic authentication; each secret is `user:password`.

use super::{
    Refused,
    encoding::{Digest, any_equals, from_base64},
    header,
};
use crate::{event::EventView, secret::Secret};
use http::header::AUTHORIZATION;
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

/// Of credentials as sent; longer ones are nobody's.
const LONGEST: usize = 4096;

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BasicScheme {
    #[serde(default)]
    pub realm: Option<String>,
}

impl BasicScheme {
    pub(super) fn authenticate(&self) -> String {
        // Without a realm a client doesn't ask its user; RFC 7617 wants one.
        let realm = self.realm.as_deref().unwrap_or("webhooks");
        let quoted: String = realm
            .chars()
            .filter(|c| c.is_ascii_graphic() || *c == ' ')
            .flat_map(|c| match c {
                '"' | '\\' => vec!['\\', c],
                _ => vec![c],
            })
            .collect();
        format!("Basic realm=\"{quoted}\", charset=\"UTF-8\"")
    }
}

#[derive(Debug, Clone)]
pub(super) struct Keys(Vec<Digest>);

impl Keys {
    pub(super) fn new(secrets: &[&Secret]) -> Keys {
        Keys(
            secrets
                .iter()
                // A line's end behind the password is a slip of whoever made the Secret.
                .map(|secret| Digest::of(without_line_end(secret.expose())))
                .collect(),
        )
    }

    pub(super) fn verify(&self, event: &EventView<'_>) -> Result<(), Refused> {
        let value = event
            .headers
            .get(AUTHORIZATION)
            .ok_or(Refused::CredentialsMissing)?;
        let (scheme, encoded) = header::text(value)
            .split_once(' ')
            .ok_or(Refused::CredentialsMissing)?;
        if !scheme.eq_ignore_ascii_case("basic") || encoded.len() > LONGEST {
            return Err(Refused::CredentialsMissing);
        }
        let presented = from_base64(encoded.as_bytes()).ok_or(Refused::CredentialsMissing)?;
        match any_equals(&self.0, &Zeroizing::new(presented)) {
            true => Ok(()),
            false => Err(Refused::CredentialsMismatch),
        }
    }
}

/// Credentials in a Secret often end with the line's end of the file that they came from.
pub(super) fn without_line_end(bytes: &[u8]) -> &[u8] {
    let bytes = bytes.strip_suffix(b"\n").unwrap_or(bytes);
    bytes.strip_suffix(b"\r").unwrap_or(bytes)
}

pub(super) fn check_secret(secret: &Secret) -> Result<(), &'static str> {
    let credentials = without_line_end(secret.expose());
    match credentials.iter().position(|b| *b == b':') {
        Some(colon) if colon > 0 && colon + 1 < credentials.len() => Ok(()),
        _ => Err("isn't `user:password`; write both with a colon between"),
    }
}
