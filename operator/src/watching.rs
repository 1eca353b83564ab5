//! Which watches have told everything, and which wait for a CRD.
//!
//! Nothing is published before each watch has told all it has, once. A kind whose CRD isn't installed has nothing to
//! tell; it is asked again every few seconds, and `/readyz`, a metric and an Event name it.

use crate::{
    change::Change,
    health::Health,
    metrics::Metrics,
    notice::{Notice, Notices},
};
use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
};
use tokio::sync::mpsc;

/// The part of [`Health`].
pub const PART: &str = "watches";

#[derive(Debug, Clone, PartialEq, Eq)]
enum State {
    /// Hasn't told everything yet.
    Listing,
    Synced,
    /// There is no such resource; the CRD's name.
    Missing(String),
}

/// All watches of a process. Cheap to clone; all clones are one.
#[derive(Debug, Clone)]
pub struct Watching {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    states: Mutex<BTreeMap<String, State>>,
    changes: mpsc::Sender<Change>,
    health: Health,
    metrics: Metrics,
    notices: Notices,
}

/// One watch's say.
#[derive(Debug, Clone)]
pub struct Watch {
    name: String,
    all: Watching,
}

impl Watching {
    pub fn new(
        changes: mpsc::Sender<Change>,
        health: Health,
        metrics: Metrics,
        notices: Notices,
    ) -> Watching {
        Watching {
            inner: Arc::new(Inner {
                states: Mutex::default(),
                changes,
                health,
                metrics,
                notices,
            }),
        }
    }

    /// Register every watch before the first one runs: [`Change::Synced`] is said when all that are registered have synced.
    pub fn register(&self, name: String) -> Watch {
        self.lock().insert(name.clone(), State::Listing);
        Watch {
            name,
            all: self.clone(),
        }
    }

    pub fn changes(&self) -> &mpsc::Sender<Change> {
        &self.inner.changes
    }

    pub fn metrics(&self) -> &Metrics {
        &self.inner.metrics
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, BTreeMap<String, State>> {
        self.inner
            .states
            .lock()
            .unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    /// Answers whether this was the last watch to become synced or missing.
    fn set(&self, name: &str, state: State) -> bool {
        let mut states = self.lock();
        let listing = |states: &BTreeMap<String, State>| {
            states.values().any(|state| *state == State::Listing)
        };
        let before = listing(&states);
        states.insert(name.to_owned(), state);
        let missing: std::collections::BTreeSet<&str> = states
            .values()
            .filter_map(|state| {
                if let State::Missing(crd) = state {
                    Some(crd.as_str())
                } else {
                    None
                }
            })
            .collect();
        self.inner.metrics.crds_missing.set(missing.len() as i64);
        let waiting: Vec<&str> = states
            .iter()
            .filter(|(_, state)| **state == State::Listing)
            .map(|(name, _)| name.as_str())
            .collect();
        match (missing.is_empty(), waiting.is_empty()) {
            (true, true) => self.inner.health.ready(PART),
            (false, _) => {
                let names = missing.into_iter().collect::<Vec<_>>().join(", ");
                self.inner
                    .health
                    .not_ready(PART, format!("these CRDs are not installed: {names}"));
            }
            (true, false) => self.inner.health.not_ready(
                PART,
                format!("waiting for the first list of {}", waiting.join(", ")),
            ),
        }
        before && !listing(&states)
    }
}

impl Watch {
    /// Everything that exists was told.
    pub async fn synced(&self) {
        let last = self.all.set(&self.name, State::Synced);
        self.end(last).await;
    }

    /// The API server has no such resource.
    pub async fn missing(&self, crd: &str) {
        let known = matches!(self.all.lock().get(&self.name), Some(State::Missing(_)));
        if !known {
            tracing::warn!(crd, "this CRD is not installed; waiting for it");
            let note = format!(
                "CustomResourceDefinition {crd} is not installed; waiting for it (it is in the chart, or `crds.install=true`)"
            );
            self.all
                .inner
                .notices
                .send(Notice::warning("CRDMissing", note));
        }
        let last = self.all.set(&self.name, State::Missing(crd.to_owned()));
        self.end(last).await;
    }

    async fn end(&self, last: bool) {
        if last {
            tracing::info!("every watch has told what there is");
            // The other end is gone only when everything ends.
            let _ = self.all.inner.changes.send(Change::Synced).await;
        }
    }
}
