//! The secrets that one object names, on their way into its row.

use super::{
    SecretData, SecretName,
    findings::{Findings, Reason},
};
use crate::{row::SecretIndex, secret::Secret};
use std::collections::BTreeMap;

/// Takes what an object names out of all that is known, in the order in which it names it.
#[derive(Debug)]
pub(super) struct Taken<'c> {
    known: &'c BTreeMap<SecretName, Option<SecretData>>,
    namespace: &'c str,
    pub(super) secrets: Vec<Secret>,
}

impl<'c> Taken<'c> {
    pub(super) fn new(
        known: &'c BTreeMap<SecretName, Option<SecretData>>,
        namespace: &'c str,
    ) -> Taken<'c> {
        Taken {
            known,
            namespace,
            secrets: Vec::new(),
        }
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
        let Some(Some(data)) = self.known.get(&full) else {
            let message = format!(
                "there is no Secret `{name}` in namespace `{}`; create it, or name another",
                self.namespace
            );
            findings.add(Reason::SecretNotFound, path, message);
            return None;
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
