//! Fetches the Secrets that objects name, and no others, when they are new or have changed.
//!
//! Which Secrets there are comes from a watch of their metadata; which are named from the compiler. A value is read once
//! per `resourceVersion` and handed on; nothing here keeps it.

use crate::{
    change::Change,
    metrics::Metrics,
    watch::{Scope, metadata::Seen},
};
use k8s_openapi::api::core::v1;
use kube::{Api, Client};
use routing::{
    compile::{SecretData, SecretName},
    secret::Secret,
};
use service::log::chain;
use std::{
    collections::{BTreeSet, HashMap, HashSet},
    time::Duration,
};
use tokio::{
    sync::{mpsc, watch},
    task::JoinSet,
    time::Instant,
};
use tokio_util::sync::CancellationToken;

/// Reads under way at once.
const CONCURRENCY: usize = 8;

/// A read that takes longer is made again.
const TIMEOUT: Duration = Duration::from_secs(10);

/// After a read that failed.
const RETRY: Duration = Duration::from_secs(1);

/// A Secret as the API server has it.
#[derive(Debug, PartialEq, Eq)]
struct Read {
    name: SecretName,
    /// The version that the watch had told when the read began.
    version: Option<String>,
    /// `Err`: couldn't be read, worth another try.
    found: Result<Option<Found>, String>,
}

#[derive(Debug, PartialEq, Eq)]
struct Found {
    version: Option<String>,
    data: SecretData,
}

pub struct Fetcher {
    client: Client,
    changes: mpsc::Sender<Change>,
    metrics: Metrics,
    /// Scopes whose first list is not complete.
    listing: HashSet<Scope>,
    /// What the watches told: every Secret of the cluster, a name and a version each.
    there: HashMap<SecretName, String>,
    wanted: BTreeSet<SecretName>,
    /// The version of what was handed on; `None`: told that there is none.
    told: HashMap<SecretName, Option<String>>,
    reading: HashSet<SecretName>,
    retry_at: Option<Instant>,
    reads: JoinSet<Read>,
}

impl Fetcher {
    pub fn new(
        client: Client,
        changes: mpsc::Sender<Change>,
        metrics: Metrics,
        scopes: &[Scope],
    ) -> Fetcher {
        Fetcher {
            client,
            changes,
            metrics,
            listing: scopes.iter().cloned().collect(),
            there: HashMap::new(),
            wanted: BTreeSet::new(),
            told: HashMap::new(),
            reading: HashSet::new(),
            retry_at: None,
            reads: JoinSet::new(),
        }
    }

    /// Runs until the token is cancelled.
    pub async fn run(
        mut self,
        mut seen: mpsc::Receiver<Seen>,
        mut wanted: watch::Receiver<BTreeSet<SecretName>>,
        token: CancellationToken,
    ) {
        let mut batch = Vec::new();
        loop {
            let retry = async {
                match self.retry_at {
                    Some(at) => tokio::time::sleep_until(at).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = token.cancelled() => return,
                n = seen.recv_many(&mut batch, 1024) => {
                    if n == 0 {
                        return;
                    }
                    for seen in batch.drain(..) {
                        self.see(seen);
                    }
                }
                changed = wanted.changed() => {
                    if changed.is_err() {
                        return;
                    }
                    self.wanted = wanted.borrow_and_update().clone();
                    self.forget().await;
                }
                Some(read) = self.reads.join_next() => {
                    if let Ok(read) = read {
                        self.hand_on(read).await;
                    }
                }
                () = retry => self.retry_at = None,
            }
            self.read_some().await;
        }
    }

    fn see(&mut self, seen: Seen) {
        match seen {
            Seen::Secret(name, Some(version)) => {
                self.there.insert(name, version);
            }
            Seen::Secret(name, None) => {
                self.there.remove(&name);
            }
            Seen::Synced(scope) => {
                self.listing.remove(&scope);
            }
        }
    }

    /// Takes back what no object names any more.
    async fn forget(&mut self) {
        let unwanted: Vec<_> = self
            .told
            .keys()
            .filter(|name| !self.wanted.contains(*name))
            .cloned()
            .collect();
        for name in unwanted {
            self.told.remove(&name);
            let _ = self.changes.send(Change::SecretUnwanted(name)).await;
        }
    }

    /// Starts reads of what is wanted and not told as it is now.
    async fn read_some(&mut self) {
        if self.retry_at.is_some() {
            return;
        }
        let mut gone = Vec::new();
        for name in &self.wanted {
            let now = self.there.get(name);
            let told = self.told.get(name);
            if told.is_some_and(|told| told.as_ref() == now) || self.reading.contains(name) {
                continue;
            }
            // Not in the watch: once all are listed, it doesn't exist. Before, and when Secrets can't be listed at all,
            // reading it by name answers as well.
            if now.is_none() && self.listing.is_empty() && told.is_some() {
                gone.push(name.clone());
                continue;
            }
            if self.reads.len() >= CONCURRENCY {
                break;
            }
            self.reading.insert(name.clone());
            self.reads
                .spawn(read(self.client.clone(), name.clone(), now.cloned()));
        }
        for name in gone {
            self.told.insert(name.clone(), None);
            let _ = self.changes.send(Change::Secret(name, None)).await;
        }
    }

    async fn hand_on(&mut self, read: Read) {
        self.reading.remove(&read.name);
        let found = match read.found {
            Ok(found) => found,
            Err(why) => {
                tracing::warn!(
                    namespace = read.name.0,
                    name = read.name.1,
                    why,
                    "can't read a Secret; will try again"
                );
                self.metrics
                    .secret_reads
                    .with_label_values(&["failed"])
                    .inc();
                self.retry_at = Some(Instant::now() + RETRY);
                return;
            }
        };
        self.metrics
            .secret_reads
            .with_label_values(&[if found.is_some() { "ok" } else { "missing" }])
            .inc();
        if !self.wanted.contains(&read.name) {
            return;
        }
        // The version that the watch told, not the one that was read: if the two differ the watch will tell of it.
        let (version, data) = match found {
            Some(found) if read.version.is_none() => (found.version, Some(found.data)),
            Some(found) => (read.version, Some(found.data)),
            None => (read.version, None),
        };
        // The watch may already know a newer one: that is read next.
        if !self.there.contains_key(&read.name)
            && let Some(version) = &version
        {
            self.there.insert(read.name.clone(), version.clone());
        }
        self.told.insert(read.name.clone(), version);
        let _ = self.changes.send(Change::Secret(read.name, data)).await;
    }
}

/// Whether a Secret can have this name. One that can't is never asked for: in a URL it would be an error that another try
/// doesn't mend, or (`../…`) the address of something else.
fn can_be_a_name(name: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    let bytes = name.as_bytes();
    bytes.len() <= 253
        && bytes.first().is_some_and(|&byte| plain(byte))
        && bytes.last().is_some_and(|&byte| plain(byte))
        && bytes
            .iter()
            .all(|&byte| plain(byte) || matches!(byte, b'-' | b'.'))
}

async fn read(client: Client, name: SecretName, version: Option<String>) -> Read {
    if !can_be_a_name(&name.1) {
        return Read {
            name,
            version,
            found: Ok(None),
        };
    }
    let api: Api<v1::Secret> = Api::namespaced(client, &name.0);
    let found = match tokio::time::timeout(TIMEOUT, api.get(&name.1)).await {
        Ok(Ok(secret)) => Ok(Some(Found {
            version: secret.metadata.resource_version,
            data: secret
                .data
                .unwrap_or_default()
                .into_iter()
                .map(|(key, value)| (key, Secret::new(value.0)))
                .collect(),
        })),
        Ok(Err(kube::Error::Api(status))) if status.code == 404 => Ok(None),
        Ok(Err(kube::Error::Api(status))) if status.code == 403 => {
            // Nobody else's object should wait for this one; its own will say that the Secret can't be had.
            tracing::warn!(
                namespace = name.0,
                name = name.1,
                why = status.message,
                "the operator may not read this Secret"
            );
            Ok(None)
        }
        Ok(Err(error)) => Err(chain(&error)),
        Err(_) => Err("the API server does not answer".to_owned()),
    };
    Read {
        name,
        version,
        found,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_that_no_secret_can_have_is_never_part_of_a_url() {
        for name in ["github-webhook", "a", "sh.helm.release.v1.x.v1"] {
            assert!(can_be_a_name(name), "{name}");
        }
        for name in [
            "",
            ".",
            "..",
            "../../kube-system/secrets/token",
            "a/b",
            "a b",
            "a?x=1",
            "a#b",
            "%2e%2e",
            "Upper",
            "ü",
        ] {
            assert!(!can_be_a_name(name), "{name}");
        }
    }
}
