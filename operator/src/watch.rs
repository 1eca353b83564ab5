//! Watches the custom resources and tells what changed.
//!
//! Objects are read loosely first, so that one that this version can't read is a finding on that object and not the end
//! of the watch. What nobody needs (managedFields, annotations) is dropped at once: it is most of an object's memory.
//! An API server that is away is asked again, with growing pauses; whatever was known stays.

pub mod metadata;

use crate::{
    change::{Change, Object, Observed},
    kinds, resets,
    watching::{Watch, Watching},
};
use futures::StreamExt;
use kube::{
    Api, Client,
    api::DynamicObject,
    runtime::watcher::{self, Event, watcher},
};
use service::log::chain;
use std::{
    collections::{HashMap, HashSet},
    hash::{DefaultHasher, Hash, Hasher},
    pin::pin,
    time::Duration,
};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

/// Between looks for a CRD that isn't installed.
const CRD_POLL: Duration = Duration::from_secs(2);

/// After a watch failed, doubled up to [`MOST_PAUSE`]: short, since everybody waits for the API server to come back.
const PAUSE: Duration = Duration::from_millis(200);
const MOST_PAUSE: Duration = Duration::from_secs(5);

/// Where to look.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Scope {
    Cluster,
    Namespace(String),
}

impl Scope {
    /// All of the cluster, or each of these namespaces.
    pub fn of(namespaces: &[String]) -> Vec<Scope> {
        if namespaces.is_empty() {
            vec![Scope::Cluster]
        } else {
            namespaces.iter().cloned().map(Scope::Namespace).collect()
        }
    }
}

impl std::fmt::Display for Scope {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Scope::Cluster => f.write_str("all namespaces"),
            Scope::Namespace(name) => write!(f, "namespace {name}"),
        }
    }
}

/// How long to wait after the `failures`-th failure in a row.
fn pause(failures: u32) -> Duration {
    PAUSE.saturating_mul(1 << failures.min(8)).min(MOST_PAUSE)
}

/// Whether this says that there is no such resource.
fn is_missing(error: &watcher::Error) -> bool {
    match error {
        watcher::Error::InitialListFailed(kube::Error::Api(status))
        | watcher::Error::WatchStartFailed(kube::Error::Api(status)) => status.code == 404,
        _ => false,
    }
}

/// Watches one kind until the token is cancelled.
pub async fn run(
    client: Client,
    kind: crds::Kind,
    scope: Scope,
    watching: Watching,
    watch: Watch,
    token: CancellationToken,
) {
    let resource = kinds::api_resource(kind);
    let api: Api<DynamicObject> = match &scope {
        Scope::Cluster => Api::all_with(client, &resource),
        Scope::Namespace(namespace) => Api::namespaced_with(client, namespace, &resource),
    };
    let crd = format!("{}.{}", resource.plural, resource.group);
    let mut stream = pin!(watcher(api, watcher::Config::default()));
    let mut known = Known::new(kind);
    let mut failures = 0;
    loop {
        let event = tokio::select! {
            () = token.cancelled() => return,
            event = stream.next() => event.expect("a watcher never ends"),
        };
        let mut synced = false;
        let (changes, wait) = match event {
            Ok(event) => {
                // A list that is begun may fail like the last.
                if !matches!(event, Event::Init) {
                    failures = 0;
                }
                synced = matches!(event, Event::InitDone);
                (known.take(event), None)
            }
            Err(error) if is_missing(&error) => {
                watch.missing(&crd).await;
                (known.clear(), Some(CRD_POLL))
            }
            Err(error) => {
                watching
                    .metrics()
                    .watch_errors
                    .with_label_values(&[kind.as_str()])
                    .inc();
                if failures == 0 {
                    tracing::warn!(
                        kind = kind.as_str(),
                        error = chain(&error),
                        "the watch failed; will try again"
                    );
                }
                failures += 1;
                (Vec::new(), Some(pause(failures)))
            }
        };
        for change in changes {
            if watching.changes().send(change).await.is_err() {
                return;
            }
        }
        if synced {
            watch.synced().await;
        }
        if let Some(wait) = wait {
            tokio::select! {
                () = token.cancelled() => return,
                () = tokio::time::sleep(wait) => {}
            }
        }
    }
}

/// What was told of a kind, so that a new list tells only what differs.
struct Known {
    kind: crds::Kind,
    versions: HashMap<Uuid, Version>,
    /// While a list is read: what it has named so far.
    listed: Option<HashSet<Uuid>>,
}

/// What tells a change of the spec from one of the status. The generation alone doesn't: when a CRD gets a new field, objects
/// that have it already show it without a new generation.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Version {
    generation: i64,
    digest: u64,
}

impl Version {
    /// Of an object whose status was taken out.
    fn of(object: &DynamicObject) -> Version {
        let mut hasher = DefaultHasher::new();
        object.data.to_string().hash(&mut hasher);
        Version {
            generation: object.metadata.generation.unwrap_or(0),
            digest: hasher.finish(),
        }
    }
}

impl Known {
    fn new(kind: crds::Kind) -> Known {
        Known {
            kind,
            versions: HashMap::new(),
            listed: None,
        }
    }

    fn take(&mut self, event: Event<DynamicObject>) -> Vec<Change> {
        match event {
            Event::Init => {
                self.listed = Some(HashSet::new());
                Vec::new()
            }
            Event::InitApply(object) | Event::Apply(object) => {
                self.applied(object).into_iter().collect()
            }
            Event::Delete(object) => kinds::uid(&object.metadata)
                .and_then(|uid| self.removed(uid))
                .into_iter()
                .collect(),
            Event::InitDone => {
                let listed = self.listed.take().unwrap_or_default();
                let gone: Vec<Uuid> = self
                    .versions
                    .keys()
                    .filter(|uid| !listed.contains(uid))
                    .copied()
                    .collect();
                gone.into_iter()
                    .filter_map(|uid| self.removed(uid))
                    .collect()
            }
        }
    }

    fn clear(&mut self) -> Vec<Change> {
        self.listed = None;
        self.versions
            .drain()
            .map(|(uid, _)| Change::Remove(uid))
            .collect()
    }

    fn removed(&mut self, uid: Uuid) -> Option<Change> {
        self.versions.remove(&uid).map(|_| Change::Remove(uid))
    }

    fn applied(&mut self, mut object: DynamicObject) -> Option<Change> {
        let uid = kinds::uid(&object.metadata)?;
        if let Some(listed) = &mut self.listed {
            listed.insert(uid);
        }
        let status = object
            .data
            .as_object_mut()
            .and_then(|data| data.remove("status"))
            .and_then(|status| serde_json::from_value(status).ok());
        let observed = Observed {
            resource_version: kinds::version(&object.metadata),
            status,
            reset: resets::mark(self.kind, &object.metadata),
        };
        let version = Version::of(&object);
        if self.versions.insert(uid, version) == Some(version) {
            return Some(Change::Status(uid, observed));
        }
        object.metadata.managed_fields = None;
        object.metadata.annotations = None;
        let (meta, resource) = kinds::read(self.kind, uid, object);
        Some(Change::Apply(Box::new(Object {
            meta,
            resource,
            observed,
        })))
    }
}
