//! Fetches the Secrets that objects name, and no others, when they are new or have changed.
//!
//! Which Secrets there are comes from a watch of their metadata; which are named from the compiler. A value is read once
//! per `resourceVersion` and handed on; nothing here keeps it. One that may not be read is said to be that, and asked for
//! again ever more seldom: nothing tells us when the permission comes.

use crate::{
    backoff::Backoff,
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

/// After a read that was forbidden, of that Secret. An API server that has just started forbids everything for a moment.
const FORBIDDEN: Backoff = Backoff {
    first: Duration::from_secs(1),
    most: Duration::from_secs(60),
};

/// A Secret as the API server has it.
#[derive(Debug, PartialEq, Eq)]
struct Read {
    name: SecretName,
    /// The version that the watch had told when the read began.
    version: Option<String>,
    answer: Answer,
}

#[derive(Debug, PartialEq, Eq)]
enum Answer {
    Found(Found),
    Missing,
    /// With what the API server says of it.
    Forbidden(String),
    /// Worth another try, soon.
    Failed(String),
}

/// A Secret that may not be read.
#[derive(Debug)]
struct Refused {
    /// How often in a row, but for the first time.
    again: u32,
    until: Instant,
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
    /// Of the wanted ones, those that may not be read.
    forbidden: HashMap<SecretName, Refused>,
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
            forbidden: HashMap::new(),
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
            let retry_at = self.retry_at();
            let retry = async {
                match retry_at {
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
                () = retry => {}
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
            self.forbidden.remove(&name);
            let _ = self.changes.send(Change::SecretUnwanted(name)).await;
        }
    }

    /// When to read again although nothing has happened. Full: when a read ends.
    fn retry_at(&self) -> Option<Instant> {
        let forbidden = || {
            let waiting = self
                .forbidden
                .iter()
                .filter(|(name, _)| !self.reading.contains(*name));
            waiting.map(|(_, refused)| refused.until).min()
        };
        self.retry_at
            .or_else(|| (self.reading.len() < CONCURRENCY).then(forbidden).flatten())
    }

    /// What is to be read now, as far as there is room, and what is gone.
    fn next(&self, now: Instant) -> (Vec<SecretName>, Vec<SecretName>) {
        let (mut reads, mut gone) = (Vec::new(), Vec::new());
        for name in &self.wanted {
            let version = self.there.get(name);
            let told = self.told.get(name);
            if self.reading.contains(name) {
                continue;
            }
            // Not in the watch: once all are listed, it doesn't exist. Before, and when Secrets can't be listed at all,
            // reading it by name answers as well.
            if version.is_none() && self.listing.is_empty() && told.is_some_and(Option::is_some) {
                gone.push(name.clone());
                continue;
            }
            let due = match self.forbidden.get(name) {
                Some(refused) => now >= refused.until,
                None => told.is_none_or(|told| told.as_ref() != version),
            };
            if due && self.reading.len() + reads.len() < CONCURRENCY {
                reads.push(name.clone());
            }
        }
        (reads, gone)
    }

    /// Starts reads of what is wanted and not told as it is now.
    async fn read_some(&mut self) {
        let now = Instant::now();
        self.retry_at = self.retry_at.filter(|at| now < *at);
        if self.retry_at.is_some() {
            return;
        }
        let (reads, gone) = self.next(now);
        for name in reads {
            let version = self.there.get(&name).cloned();
            self.reading.insert(name.clone());
            self.reads.spawn(read(self.client.clone(), name, version));
        }
        for name in gone {
            self.forbidden.remove(&name);
            self.told.insert(name.clone(), None);
            let _ = self.changes.send(Change::Secret(name, None)).await;
        }
    }

    async fn hand_on(&mut self, read: Read) {
        self.reading.remove(&read.name);
        let result = match &read.answer {
            Answer::Found(_) => "ok",
            Answer::Missing => "missing",
            Answer::Forbidden(_) => "forbidden",
            Answer::Failed(_) => "failed",
        };
        self.metrics.secret_reads.with_label_values(&[result]).inc();
        let wanted = self.wanted.contains(&read.name);
        let found = match read.answer {
            Answer::Failed(why) => {
                tracing::warn!(
                    namespace = read.name.0,
                    name = read.name.1,
                    why,
                    "can't read a Secret; will try again"
                );
                self.retry_at = Some(Instant::now() + RETRY);
                return;
            }
            _ if !wanted => return,
            Answer::Forbidden(why) => return self.refuse(read.name, read.version, &why).await,
            Answer::Missing => None,
            Answer::Found(found) => Some(found),
        };
        self.forbidden.remove(&read.name);
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

    /// Nobody else's object waits for this Secret; those that name it say what is missing.
    async fn refuse(&mut self, name: SecretName, version: Option<String>, why: &str) {
        let again = self
            .forbidden
            .get(&name)
            .map_or(0, |refused| refused.again.saturating_add(1));
        let until = Instant::now() + FORBIDDEN.pause(again);
        self.forbidden
            .insert(name.clone(), Refused { again, until });
        self.told.insert(name.clone(), version);
        if again == 0 {
            tracing::warn!(
                namespace = name.0,
                name = name.1,
                why,
                "the operator may not read this Secret; will ask again"
            );
            let _ = self.changes.send(Change::SecretForbidden(name)).await;
        }
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
            answer: Answer::Missing,
        };
    }
    let api: Api<v1::Secret> = Api::namespaced(client, &name.0);
    let answer = match tokio::time::timeout(TIMEOUT, api.get(&name.1)).await {
        Ok(Ok(secret)) => Answer::Found(Found {
            version: secret.metadata.resource_version,
            data: secret
                .data
                .unwrap_or_default()
                .into_iter()
                .map(|(key, value)| (key, Secret::new(value.0)))
                .collect(),
        }),
        Ok(Err(kube::Error::Api(status))) if status.code == 404 => Answer::Missing,
        Ok(Err(kube::Error::Api(status))) if status.code == 403 => {
            Answer::Forbidden(status.message)
        }
        Ok(Err(error)) => Answer::Failed(chain(&error)),
        Err(_) => Answer::Failed("the API server does not answer".to_owned()),
    };
    Read {
        name,
        version,
        answer,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A fetcher that wants one Secret, which the watch has told of or not; and what it tells.
    fn a_fetcher(there: Option<&str>) -> (Fetcher, SecretName, mpsc::Receiver<Change>) {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let config = kube::Config::new("http://127.0.0.1:1".parse().unwrap());
        let client = Client::try_from(config).unwrap();
        let metrics = Metrics::new(&prometheus::Registry::new());
        let (sender, changes) = mpsc::channel(8);
        let name = ("n".to_owned(), "s".to_owned());
        let mut fetcher = Fetcher::new(client, sender, metrics, &[]);
        fetcher.wanted.insert(name.clone());
        if let Some(version) = there {
            fetcher.see(Seen::Secret(name.clone(), Some(version.to_owned())));
        }
        (fetcher, name, changes)
    }

    fn answered(name: &SecretName, version: Option<&str>, answer: Answer) -> Read {
        Read {
            name: name.clone(),
            version: version.map(str::to_owned),
            answer,
        }
    }

    fn forbidden() -> Answer {
        Answer::Forbidden("secrets \"s\" is forbidden".to_owned())
    }

    #[tokio::test]
    async fn a_secret_that_may_not_be_read_is_told_once_and_asked_for_ever_more_seldom() {
        for version in [None, Some("7")] {
            let (mut fetcher, name, mut changes) = a_fetcher(version);
            assert_eq!(
                fetcher.next(Instant::now()),
                (vec![name.clone()], Vec::new())
            );
            let mut pauses = Vec::new();
            for _ in 0..8 {
                let before = Instant::now();
                fetcher.hand_on(answered(&name, version, forbidden())).await;
                let at = fetcher.retry_at().unwrap();
                assert_eq!(fetcher.next(before), (Vec::new(), Vec::new()), "not yet");
                assert_eq!(fetcher.next(at), (vec![name.clone()], Vec::new()));
                pauses.push((at - before).as_secs());
            }
            assert_eq!(pauses, [1, 2, 4, 8, 16, 32, 60, 60]);
            assert!(matches!(changes.try_recv(), Ok(Change::SecretForbidden(_))));
            assert!(changes.try_recv().is_err(), "said once");
            assert!(fetcher.retry_at.is_none(), "the others don't wait for it");

            let found = Found {
                version: Some("7".to_owned()),
                data: SecretData::new(),
            };
            fetcher
                .hand_on(answered(&name, version, Answer::Found(found)))
                .await;
            assert!(matches!(changes.try_recv(), Ok(Change::Secret(_, Some(_)))));
            assert_eq!(fetcher.retry_at(), None);
        }
    }

    #[tokio::test]
    async fn a_forbidden_secret_that_is_deleted_is_gone() {
        let (mut fetcher, name, _changes) = a_fetcher(Some("7"));
        fetcher
            .hand_on(answered(&name, Some("7"), forbidden()))
            .await;
        fetcher.see(Seen::Secret(name.clone(), None));
        assert_eq!(fetcher.next(Instant::now()), (Vec::new(), vec![name]));
    }

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
