//! Watches what only the metadata is needed of: which Secrets there are, and the labels of namespaces.
//!
//! A Secret's values are never in a watch: a cluster's Secrets can be hundreds of megabytes, and nobody's business.

use super::{Scope, pause};
use crate::{
    change::{Change, Labels},
    watching::{Watch, Watching},
};
use futures::StreamExt;
use k8s_openapi::api::core::v1::{Namespace, Secret};
use kube::{
    Api, Client,
    api::PartialObjectMeta,
    runtime::watcher::{self, Event, watcher},
};
use routing::compile::SecretName;
use service::log::chain;
use std::{collections::HashMap, pin::pin};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

/// So many refusals in a row are believed. An API server that has just started refuses everybody until it has read its
/// roles, and to go on without the labels of namespaces withdraws what they permit.
const BELIEVED: u32 = 6;

/// What a watch of Secrets tells.
#[derive(Debug)]
pub enum Seen {
    /// The Secret with its `resourceVersion`; `None`: it is gone.
    Secret(SecretName, Option<String>),
    /// The watch of this scope has told all there are.
    Synced(Scope),
}

/// Watches the Secrets' metadata until the token is cancelled.
pub async fn secrets(
    client: Client,
    scope: Scope,
    seen: mpsc::Sender<Seen>,
    watching: Watching,
    token: CancellationToken,
) {
    let api: Api<PartialObjectMeta<Secret>> = match &scope {
        Scope::Cluster => Api::all(client),
        Scope::Namespace(namespace) => Api::namespaced(client, namespace),
    };
    let tell = move |told| match told {
        Told::There(key, meta) => Some(Seen::Secret(key, meta.version)),
        Told::Gone(key) => Some(Seen::Secret(key, None)),
        // What can't be listed may be readable by name all the same.
        Told::All | Told::Forbidden => Some(Seen::Synced(scope.clone())),
    };
    follow(
        api,
        watcher::Config::default(),
        Watched {
            word: "Secret",
            watch: None,
            out: seen,
        },
        watching,
        token,
        tell,
    )
    .await;
}

/// Watches namespaces' labels until the token is cancelled: all, or one by its name.
pub async fn namespaces(
    client: Client,
    scope: Scope,
    watching: Watching,
    watch: Watch,
    token: CancellationToken,
) {
    let config = match &scope {
        Scope::Cluster => watcher::Config::default(),
        Scope::Namespace(name) => {
            watcher::Config::default().fields(&format!("metadata.name={name}"))
        }
    };
    let tell = |told| match told {
        Told::There((_, name), meta) => Some(Change::Namespace(
            name,
            Some(meta.labels.unwrap_or_default()),
        )),
        Told::Gone((_, name)) => Some(Change::Namespace(name, None)),
        Told::All | Told::Forbidden => None,
    };
    let watched = Watched {
        word: "Namespace",
        watch: Some(watch),
        out: watching.changes().clone(),
    };
    follow(
        Api::<PartialObjectMeta<Namespace>>::all(client),
        config,
        watched,
        watching,
        token,
        tell,
    )
    .await;
}

/// One metadata watch, and where its news goes.
struct Watched<T> {
    word: &'static str,
    /// To be told when everything was listed.
    watch: Option<Watch>,
    out: mpsc::Sender<T>,
}

/// What is kept of an object's metadata.
struct Kept {
    version: Option<String>,
    labels: Option<Labels>,
}

enum Told {
    There((String, String), Kept),
    Gone((String, String)),
    All,
    /// The operator may not watch this. It asks again, and works without.
    Forbidden,
}

/// Follows a metadata watch and passes on what `tell` makes of it, until nobody listens or the token is cancelled.
async fn follow<K, T: Send>(
    api: Api<PartialObjectMeta<K>>,
    config: watcher::Config,
    watched: Watched<T>,
    watching: Watching,
    token: CancellationToken,
    tell: impl Fn(Told) -> Option<T> + Send,
) where
    K: kube::Resource<DynamicType = ()>
        + Clone
        + serde::de::DeserializeOwned
        + std::fmt::Debug
        + Send
        + Sync
        + 'static,
{
    let mut stream = pin!(watcher(api, config));
    let mut known: HashMap<(String, String), u64> = HashMap::new();
    let mut list = 0;
    let mut failures = 0;
    loop {
        let event = tokio::select! {
            () = token.cancelled() => return,
            event = stream.next() => event.expect("a watcher never ends"),
        };
        let (news, wait) = match event {
            Ok(event) => {
                // A list that is begun may fail like the last.
                if !matches!(event, Event::Init) {
                    failures = 0;
                }
                (take(event, &mut known, &mut list), None)
            }
            Err(error) => {
                watching
                    .metrics()
                    .watch_errors
                    .with_label_values(&[watched.word])
                    .inc();
                if failures == 0 {
                    tracing::warn!(
                        kind = watched.word,
                        error = chain(&error),
                        "the watch failed; will try again"
                    );
                }
                failures += 1;
                (
                    if is_forbidden(&error) && failures >= BELIEVED {
                        vec![Told::Forbidden]
                    } else {
                        Vec::new()
                    },
                    Some(pause(failures)),
                )
            }
        };
        let synced = news
            .iter()
            .any(|told| matches!(told, Told::All | Told::Forbidden));
        for told in news.into_iter().filter_map(&tell) {
            if watched.out.send(told).await.is_err() {
                return;
            }
        }
        if let (Some(watch), true) = (&watched.watch, synced) {
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

/// What an event says beyond what is known: each key with the number of the list in which it was named last.
fn take<K>(
    event: Event<PartialObjectMeta<K>>,
    known: &mut HashMap<(String, String), u64>,
    list: &mut u64,
) -> Vec<Told> {
    match event {
        Event::Init => {
            *list += 1;
            Vec::new()
        }
        Event::InitApply(object) | Event::Apply(object) => {
            let (key, meta) = split(object);
            known.insert(key.clone(), *list);
            vec![Told::There(key, meta)]
        }
        Event::Delete(object) => {
            let (key, _) = split(object);
            known.remove(&key);
            vec![Told::Gone(key)]
        }
        Event::InitDone => {
            let gone = known
                .extract_if(|_, named| *named != *list)
                .map(|(key, _)| Told::Gone(key));
            gone.chain([Told::All]).collect()
        }
    }
}

/// The key, and what is kept: not the annotations, in which `kubectl apply` keeps what it applied, Secrets included.
fn split<K>(object: PartialObjectMeta<K>) -> ((String, String), Kept) {
    let meta = object.metadata;
    let key = (
        meta.namespace.unwrap_or_default(),
        meta.name.unwrap_or_default(),
    );
    (
        key,
        Kept {
            version: meta.resource_version,
            labels: meta.labels,
        },
    )
}

fn is_forbidden(error: &watcher::Error) -> bool {
    match error {
        watcher::Error::InitialListFailed(kube::Error::Api(status))
        | watcher::Error::WatchStartFailed(kube::Error::Api(status)) => {
            matches!(status.code, 401 | 403)
        }
        _ => false,
    }
}
