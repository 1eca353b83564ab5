//! A key in a header or in the query, the same in each request. It proves who sent, not what.

use super::{
    Refused,
    basic::without_line_end,
    content::Place,
    encoding::{Digest, any_equals},
};
use crate::{event::EventView, secret::Secret};
use serde::{Deserialize, Serialize};

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ApiKeyScheme {
    pub at: Place,
}

#[derive(Debug, Clone)]
pub(super) struct Keys {
    at: Place,
    digests: Vec<Digest>,
}

impl Keys {
    pub(super) fn new(scheme: &ApiKeyScheme, secrets: &[&Secret]) -> Keys {
        Keys {
            at: scheme.at.clone(),
            digests: secrets
                .iter()
                .map(|secret| Digest::of(without_line_end(secret.expose())))
                .collect(),
        }
    }

    pub(super) fn knows_from_head(&self) -> bool {
        !matches!(self.at, Place::Field(_))
    }

    pub(super) fn verify(&self, event: &EventView<'_>) -> Result<(), Refused> {
        let presented = self.at.read(event).ok_or(Refused::CredentialsMissing)?;
        match any_equals(&self.digests, presented.as_bytes()) {
            true => Ok(()),
            false => Err(Refused::CredentialsMismatch),
        }
    }
}
