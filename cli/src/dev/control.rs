//! The operator's half of `hookstream dev`: its publisher, fed by a folder and not by an API server.

use super::backing::Backing;
use crate::folder::{self, Declared};
use anyhow::{Context, Result};
use operator::{
    change::{Change, Meta, Object, Observed},
    core::Secrets,
    leadership,
    metrics::Metrics,
    notice::{Notice, Notices},
    publisher::{self, Report},
    resets,
};
use prometheus::Registry;
use std::{collections::BTreeSet, sync::Arc, time::Duration};
use tokio::{
    sync::{mpsc, watch},
    task::JoinHandle,
};
use tokio_util::sync::CancellationToken;

/// A `dev` on a database that others use too leads within this time of their end.
const LEASE_TTL: Duration = Duration::from_secs(10);

/// Changes on their way to the compiler. Full, the reader of the folder waits; it loses nothing.
const CHANGES: usize = 16 * 1024;

/// What came of them, on its way back; one for each revision. Whoever reads these also writes the changes, so it must
/// not fill while a folder's changes are told: at twenty revisions a second it has room for ten seconds of them.
const REPORTS: usize = 256;

/// The publisher's ends that we hold.
#[derive(Debug)]
pub(super) struct Control {
    changes: mpsc::Sender<Change>,
    pub(super) reports: mpsc::Receiver<Report>,
    pub(super) notices: mpsc::Receiver<Notice>,
    tasks: Vec<JoinHandle<()>>,
    token: CancellationToken,
    _wanted: watch::Receiver<BTreeSet<routing::compile::SecretName>>,
}

impl Control {
    pub(super) fn start(
        backing: &Backing,
        holder: &str,
        registry: &Registry,
        sandbox: sandbox::Pool,
    ) -> Control {
        let token = CancellationToken::new();
        let settings = leadership::Settings {
            holder: holder.to_owned(),
            ttl: LEASE_TTL,
        };
        let (leadership, leading) =
            leadership::spawn(backing.store.pool.clone(), settings, token.clone());
        let (changes, to_compile) = mpsc::channel(CHANGES);
        let (reporter, reports) = mpsc::channel(REPORTS);
        let (wanted, wanted_receiver) = watch::channel(BTreeSet::new());
        let (notifier, notices) = Notices::channel();
        let settings = publisher::Settings {
            holder: holder.to_owned(),
            secrets: Secrets::Told,
            // Files are deleted by a person, who wants to see it happen.
            removal_hold: Duration::ZERO,
            compare_every: Duration::from_secs(600),
            gateway_timeout: LEASE_TTL * 2,
            sandbox,
        };
        let channels = publisher::Channels {
            changes: to_compile,
            leadership,
            wanted,
            reports: reporter,
            notices: notifier,
        };
        let (store, keyring, metrics) = (
            backing.store.clone(),
            backing.keyring.clone(),
            Metrics::new(registry),
        );
        let publishing = tokio::spawn(publisher::run(
            store,
            keyring,
            settings,
            metrics,
            channels,
            || {},
            token.clone(),
        ));
        Control {
            changes,
            reports,
            notices,
            tasks: vec![leading, publishing],
            token,
            _wanted: wanted_receiver,
        }
    }

    /// Tells what leads from `before` to `after`.
    pub(super) async fn tell(&self, before: &Declared, after: &Declared) -> Result<usize> {
        let changes = after.changes_since(before);
        let count = changes.len();
        for change in changes {
            self.send(translate(change)?).await?;
        }
        Ok(count)
    }

    /// Says that everything was told once.
    pub(super) async fn synced(&self) -> Result<()> {
        self.send(Change::Synced).await
    }

    async fn send(&self, change: Change) -> Result<()> {
        self.changes
            .send(change)
            .await
            .ok()
            .context("the publisher has ended")
    }

    /// Ends the publisher and gives the lease back.
    pub(super) async fn stop(mut self) {
        self.token.cancel();
        // A report that nobody takes must not hold the publisher up.
        self.reports.close();
        for task in self.tasks {
            // Cancelled or panicked, it has ended; a panic has printed itself.
            let _ = task.await;
        }
    }
}

fn translate(change: folder::Change) -> Result<Change> {
    Ok(match change {
        folder::Change::Apply(resource) => {
            let meta = Arc::new(meta(&resource)?);
            let observed = Observed {
                reset: resets::mark(resource.kind(), resource.metadata()),
                ..Observed::default()
            };
            Change::Apply(Box::new(Object {
                meta,
                resource: Ok(*resource),
                observed,
            }))
        }
        folder::Change::Remove(uid) => Change::Remove(uid),
        folder::Change::Secret(name, data) => Change::Secret(name, data),
        folder::Change::Namespace(name, labels) => Change::Namespace(name, labels),
    })
}

fn meta(resource: &crds::Resource) -> Result<Meta> {
    let metadata = resource.metadata();
    Ok(Meta {
        kind: resource.kind(),
        uid: metadata
            .uid
            .as_deref()
            .context("the folder's reader gives each object a UID")?
            .parse()?,
        namespace: metadata.namespace.clone().unwrap_or_default(),
        name: metadata.name.clone().unwrap_or_default(),
        generation: metadata.generation.unwrap_or_default(),
        path: match resource {
            crds::Resource::Source(source) => source.spec.path.clone(),
            _ => None,
        },
    })
}
