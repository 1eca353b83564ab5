//! What is kept per source beyond one table: handles of what is counted, looked up once, and the bucket of its rate limit.
//!
//! A source that has left the table keeps its series for [`KEPT`], so that the last scrapes see its last counts.

use super::rate::Bucket;
use crate::metrics::Ingest;
use arc_swap::ArcSwap;
use prometheus::IntCounter;
use std::{
    collections::{HashMap, HashSet},
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};
use uuid::Uuid;

/// Two scrapes at the usual interval of up to a minute.
const KEPT: Duration = Duration::from_secs(120);

/// The handles of one source.
#[derive(Debug)]
pub struct Counts {
    namespace: Arc<str>,
    name: String,
    pub accepted: IntCounter,
    /// Of the source's rate limit.
    pub bucket: Bucket,
    refused: Mutex<HashSet<&'static str>>,
    replied: Mutex<HashSet<&'static str>>,
    marked: Mutex<HashSet<&'static str>>,
}

impl Counts {
    /// The namespace, shared by all events of the source.
    pub fn namespace(&self) -> &Arc<str> {
        &self.namespace
    }

    /// As metrics and `hookstream dev` say it.
    pub fn name(&self) -> &str {
        &self.name
    }
}

/// All sources that anything was counted for.
#[derive(Debug, Default)]
pub struct Sources {
    counts: ArcSwap<HashMap<Uuid, Arc<Counts>>>,
    leaving: Mutex<HashMap<Uuid, Instant>>,
}

impl Sources {
    /// The handles of a source; made when it is first seen.
    pub fn get(&self, source: &routing::table::Source, metrics: &Ingest) -> Arc<Counts> {
        self.counts(
            source.uid,
            &source.namespace,
            || source.name.clone(),
            metrics,
        )
    }

    /// Those of a topic, which is counted as the source `topic/<name>`: no source has a slash in its name.
    pub fn of_topic(&self, topic: &routing::table::Topic, metrics: &Ingest) -> Arc<Counts> {
        let name = || format!("topic/{}", topic.name);
        self.counts(topic.uid, &topic.namespace, name, metrics)
    }

    fn counts(
        &self,
        uid: Uuid,
        namespace: &str,
        name: impl FnOnce() -> String,
        metrics: &Ingest,
    ) -> Arc<Counts> {
        if let Some(counts) = self.counts.load().get(&uid) {
            return counts.clone();
        }
        let name = name();
        let counts = Arc::new(Counts {
            namespace: namespace.into(),
            accepted: metrics
                .accepted
                .with_label_values(&[namespace, name.as_str()]),
            name,
            bucket: Bucket::default(),
            refused: Mutex::default(),
            replied: Mutex::default(),
            marked: Mutex::default(),
        });
        self.counts.rcu(|all| {
            let mut all = HashMap::clone(all);
            all.entry(uid).or_insert_with(|| counts.clone());
            all
        });
        counts
    }

    /// Counts a refusal; `counts` is `None` when the request named no source that exists.
    pub fn refused(&self, counts: Option<&Counts>, reason: &'static str, metrics: &Ingest) {
        let (namespace, name) = counts.map_or(("", ""), |counts| (&counts.namespace, &counts.name));
        metrics
            .refused
            .with_label_values(&[namespace, name, reason])
            .inc();
        if let Some(counts) = counts {
            words(&counts.refused).insert(reason);
        }
    }

    /// Counts an answer of which nothing is recorded.
    pub fn replied(&self, counts: &Counts, kind: &'static str, metrics: &Ingest) {
        metrics
            .replied
            .with_label_values(&[&counts.namespace, counts.name.as_str(), kind])
            .inc();
        words(&counts.replied).insert(kind);
    }

    /// Counts a recorded event of which the checks found something out.
    pub fn marked(&self, counts: &Counts, mark: &'static str, metrics: &Ingest) {
        metrics
            .marked
            .with_label_values(&[&counts.namespace, counts.name.as_str(), mark])
            .inc();
        words(&counts.marked).insert(mark);
    }

    /// Takes away what was counted for sources that left the table a while ago. Called with each look at the table.
    pub fn tidy(&self, exists: impl Fn(Uuid) -> bool, now: Instant, metrics: &Ingest) {
        let mut leaving = self
            .leaving
            .lock()
            .unwrap_or_else(|poisoned| poisoned.into_inner());
        let all = self.counts.load_full();
        leaving.retain(|source, _| !exists(*source));
        let mut gone = HashSet::new();
        for source in all.keys().filter(|source| !exists(**source)) {
            if now.duration_since(*leaving.entry(*source).or_insert(now)) >= KEPT {
                gone.insert(*source);
            }
        }
        if gone.is_empty() {
            return;
        }
        leaving.retain(|source, _| !gone.contains(source));
        self.counts.rcu(|all| {
            all.iter()
                .filter(|(source, _)| !gone.contains(source))
                .map(|(source, counts)| (*source, counts.clone()))
                .collect::<HashMap<_, _>>()
        });
        for counts in gone.iter().filter_map(|source| all.get(source)) {
            // A source made anew under the same name counts on in the same series.
            if self
                .counts
                .load()
                .values()
                .any(|other| other.name == counts.name && other.namespace == counts.namespace)
            {
                continue;
            }
            let _ = metrics
                .accepted
                .remove_label_values(&[&counts.namespace, counts.name.as_str()]);
            for (series, made) in [
                (&metrics.refused, &counts.refused),
                (&metrics.replied, &counts.replied),
                (&metrics.marked, &counts.marked),
            ] {
                for word in words(made).iter() {
                    let labels = [&counts.namespace, counts.name.as_str(), word];
                    let _ = series.remove_label_values(&labels);
                }
            }
        }
    }
}

fn words<'a>(
    made: &'a Mutex<HashSet<&'static str>>,
) -> std::sync::MutexGuard<'a, HashSet<&'static str>> {
    made.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
}

#[cfg(test)]
mod tests {
    use super::*;
    use prometheus::{Registry, core::Collector};

    fn source(uid: u128, name: &str) -> Arc<routing::table::Source> {
        crate::testing::source(Uuid::from_u128(uid), name)
    }

    fn series(metrics: &Ingest) -> usize {
        [&metrics.accepted, &metrics.refused, &metrics.replied]
            .map(|family| family.collect())
            .iter()
            .flatten()
            .map(|family| family.get_metric().len())
            .sum()
    }

    #[test]
    fn a_source_that_left_keeps_its_series_for_two_scrapes() {
        let metrics = crate::metrics::Metrics::new(&Registry::new());
        let metrics = &metrics.ingest;
        let sources = Sources::default();
        let (kept, left) = (source(1, "kept"), source(2, "left"));
        for source in [&kept, &left] {
            let counts = sources.get(source, metrics);
            counts.accepted.inc();
            sources.refused(Some(&counts), "queue_full", metrics);
            sources.replied(&counts, "handshake", metrics);
        }
        sources.refused(None, "source_not_found", metrics);
        assert_eq!(series(metrics), 7);
        let start = service::clock::instant();
        let exists = |uid: Uuid| uid == kept.uid;
        sources.tidy(exists, start, metrics);
        sources.tidy(exists, start + KEPT / 2, metrics);
        assert_eq!(series(metrics), 7);
        sources.tidy(exists, start + KEPT, metrics);
        assert_eq!(series(metrics), 4);
    }

    #[test]
    fn a_source_that_came_back_counts_on() {
        let metrics = crate::metrics::Metrics::new(&Registry::new());
        let sources = Sources::default();
        sources
            .get(&source(1, "same"), &metrics.ingest)
            .accepted
            .inc();
        let start = service::clock::instant();
        sources.tidy(|_| false, start, &metrics.ingest);
        sources
            .get(&source(2, "same"), &metrics.ingest)
            .accepted
            .inc();
        sources.tidy(
            |uid| uid == Uuid::from_u128(2),
            start + KEPT,
            &metrics.ingest,
        );
        assert_eq!(
            sources
                .get(&source(2, "same"), &metrics.ingest)
                .accepted
                .get(),
            2
        );
    }
}
