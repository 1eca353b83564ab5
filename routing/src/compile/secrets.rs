//! The secrets that one object names, on their way into its row.

use super::{
    SecretData, SecretName,
    findings::{Findings, Reason},
};
use crate::{row::SecretIndex, secret::Secret};
use std::collections::BTreeMap;

/// What is known of a Secret.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Known {
    There(SecretData),
    Missing,
    /// Not ours to read.
    Forbidden,
}

/// Takes what an object names out of all that is known, in the order in which it names it.
#[derive(Debug)]
pub(super) struct Taken<'c> {
    known: &'c BTreeMap<SecretName, Known>,
    namespace: &'c str,
    pub(super) secrets: Vec<Secret>,
}

impl<'c> Taken<'c> {
    pub(super) fn new(known: &'c BTreeMap<SecretName, Known>, namespace: &'c str) -> Taken<'c> {
        Taken {
            known,
            namespace,
            secrets: Vec::new(),
        }
    }

    /// Whether a Secret that may be read has this key: for keys that may be left out.
    pub(super) fn has(&self, name: &str, key: &str) -> bool {
        let full = (self.namespace.to_owned(), name.to_owned());
        matches!(self.known.get(&full), Some(Known::There(data)) if data.contains_key(key))
    }

    /// The value of one key, with its place in the row.
    pub(super) fn take(
        &mut self,
        name: &str,
        key: &str,
        path: &str,
        findings: &mut Findings,
    ) -> Option<(SecretIndex, &Secret)> {
        let full = (self.namespace.to_owned(), name.to_owned());
        let namespace = self.namespace;
        let data = match self.known.get(&full) {
            Some(Known::There(data)) => data,
            Some(Known::Forbidden) => {
                let message = format!(
                    "the operator is forbidden to read the Secret `{name}` in namespace `{namespace}`; permit its service account to `get` `secrets` there"
                );
                findings.add(Reason::SecretNotFound, path, message);
                return None;
            }
            Some(Known::Missing) | None => {
                let message = format!(
                    "there is no Secret `{name}` in namespace `{namespace}`; create it, or name another"
                );
                findings.add(Reason::SecretNotFound, path, message);
                return None;
            }
        };
        let Some(secret) = data.get(key) else {
            let message =
                format!("the Secret `{name}` has no key `{key}`; add it, or name another");
            findings.add(Reason::SecretKeyMissing, path, message);
            return None;
        };
        let place = u16::try_from(self.secrets.len())
            .expect("the resource types bound lists of secrets far below 65536");
        self.secrets.push(secret.clone());
        self.secrets
            .last()
            .map(|secret| (SecretIndex(place), secret))
    }
}
