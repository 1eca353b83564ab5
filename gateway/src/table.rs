//! Keeps the routing table current: loads what changed behind its revision, on a hint or every few seconds, and swaps
//! one immutable table for the next.
//!
//! It also says how far it got: a heartbeat with the applied revision is what turns `Programmed` true. A database that
//! can't be reached leaves the table as it is; staleness is a metric and never a failed probe.
//!
//! A row that this version cannot read keeps its last readable content: acting on half of a rule is worse than being
//! late with it.

use crate::metrics;
use anyhow::Context;
use arc_swap::{ArcSwap, ArcSwapOption};
use routing::{RowKey, Table};
use service::{clock, task::Task};
use std::{
    collections::{HashMap, HashSet},
    path::PathBuf,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};
use store::{
    Keyring, Pool,
    keyring::KeyringError,
    replicas::Replica,
    routes::{self, Head, Loaded},
};
use uuid::Uuid;

/// How often the head is looked at when no hint comes, and how often a replica says that it lives.
pub const POLL: Duration = Duration::from_secs(3);

/// One revision and its table.
#[derive(Debug)]
pub struct Applied {
    pub head: Head,
    pub table: Arc<Table>,
}

/// The table in use. Readers take the whole of it once per request.
#[derive(Debug, Default)]
pub struct Current {
    applied: ArcSwapOption<Applied>,
    table: Arc<ArcSwap<Table>>,
    /// When this replica last knew that its table was the newest.
    confirmed: Mutex<Option<Instant>>,
}

impl Current {
    /// `None` until the first table is loaded.
    pub fn get(&self) -> Option<Arc<Applied>> {
        self.applied.load_full()
    }

    /// The table alone, empty at first; what the scheduler follows.
    pub fn table(&self) -> Arc<ArcSwap<Table>> {
        self.table.clone()
    }

    /// Time since the table was last known to be the newest; `None` before the first.
    pub fn staleness(&self, now: Instant) -> Option<Duration> {
        self.confirmed
            .lock()
            .unwrap_or_else(|poisoned| poisoned.into_inner())
            .map(|confirmed| now.duration_since(confirmed))
    }

    /// Puts a table in use.
    pub fn apply(&self, applied: Applied) {
        self.table.store(applied.table.clone());
        self.applied.store(Some(Arc::new(applied)));
    }

    fn confirm(&self, now: Instant) {
        *self
            .confirmed
            .lock()
            .unwrap_or_else(|poisoned| poisoned.into_inner()) = Some(now);
    }
}

/// What the heartbeat says besides the table: asked each time.
pub type Shards = Arc<dyn Fn() -> u32 + Send + Sync>;

/// Where the key ring comes from.
#[derive(Debug, Clone)]
pub enum Keys {
    /// Read anew for each load, so that a rotated ring needs no restart.
    File(PathBuf),
    Given(Arc<Keyring>),
}

impl Keys {
    /// The ring as it is now.
    pub fn read(&self) -> Result<Arc<Keyring>, KeyringError> {
        match self {
            Keys::File(path) => Keyring::load(path).map(Arc::new),
            Keys::Given(keyring) => Ok(keyring.clone()),
        }
    }
}

/// The task; one activation is one look at the head and one heartbeat.
pub struct Loader {
    pub pool: Pool,
    pub keys: Keys,
    pub current: Arc<Current>,
    pub replica: Replica,
    pub shards: Shards,
    /// Called after each new table.
    pub changed: Arc<dyn Fn() + Send + Sync>,
    pub metrics: Arc<metrics::Metrics>,
    pub state: State,
}

/// What the loader knows of the rows in use.
#[derive(Debug, Default)]
pub struct State {
    keys: HashSet<RowKey>,
    /// UIDs and kinds of rows whose newest content is unreadable.
    unreadable: HashMap<Uuid, String>,
    polls: u32,
}

/// Rows that could not be read are tried again every so many looks: the key that was missing may have come.
const TRY_UNREADABLE: u32 = 10;

impl Task for Loader {
    const NAME: &'static str = "table";

    async fn activate(&mut self) -> anyhow::Result<()> {
        let loaded = self.load().await;
        // Also when loading failed: the replica lives, and what it applied is still what it routes by.
        let heartbeat = self.heartbeat().await;
        loaded.context("routing table")?;
        heartbeat.context("heartbeat")
    }
}

impl Loader {
    async fn load(&mut self) -> anyhow::Result<()> {
        let asked = clock::instant();
        let applied = self.current.get();
        let loaded = match &applied {
            Some(applied)
                if routes::head(&self.pool).await? == applied.head
                    && !self.state.tries_unreadable_again() =>
            {
                self.current.confirm(asked);
                return Ok(());
            }
            // Only what can't be read is read again: the rest would be a table of ten thousand new rows that says the same.
            Some(applied) => {
                let (again, keys) = (&self.state.unreadable, self.keys.read()?);
                routes::load_since_and(&self.pool, applied.head, again, &keys).await?
            }
            None => routes::load_all(&self.pool, &*self.keys.read()?).await?,
        };
        // Nobody has ever led: this is no table, and an empty one would turn every event away with a 404.
        if loaded.head.epoch == 0 {
            return Ok(());
        }
        for row in loaded
            .unreadable
            .iter()
            .filter(|row| !self.state.unreadable.contains_key(&row.uid))
        {
            tracing::warn!(
                kind = row.kind,
                namespace = row.namespace,
                name = row.name,
                generation = row.generation,
                why = row.why,
                "a row of the routing table cannot be read; its last readable content stays"
            );
        }
        let head = loaded.head;
        let news = loaded.whole
            || !loaded.rows.is_empty()
            || !loaded.removed.is_empty()
            || applied.as_ref().is_none_or(|applied| applied.head != head);
        let base = applied
            .as_ref()
            .map(|applied| applied.table.clone())
            .unwrap_or_default();
        let table = Arc::new(self.state.next(&base, loaded));
        if news {
            self.current.apply(Applied { head, table });
            (self.changed)();
        }
        self.current.confirm(asked);
        let metrics = &self.metrics.table;
        metrics.epoch.set(head.epoch);
        metrics.revision.set(head.revision);
        metrics
            .unreadable_rows
            .set(self.state.unreadable.len() as i64);
        if applied.is_none_or(|applied| applied.head != head) {
            tracing::info!(
                epoch = head.epoch,
                revision = head.revision,
                rows = self.state.keys.len(),
                "routing table applied"
            );
        }
        Ok(())
    }

    async fn heartbeat(&mut self) -> store::Result<()> {
        let Some(applied) = self.current.get() else {
            return Ok(());
        };
        // A revision of which a row can't be read is not acknowledged, else `Programmed` would say that this replica routes by
        // it. One that starts has no older revision to name.
        let starts = self.replica.route_epoch == 0;
        self.replica.applied_revision = if starts || self.state.unreadable.is_empty() {
            applied.head.revision
        } else {
            self.replica.applied_revision.min(applied.head.revision)
        };
        self.replica.route_epoch = applied.head.epoch;
        self.replica.unreadable_rows =
            u32::try_from(self.state.unreadable.len()).unwrap_or(u32::MAX);
        self.replica.shards = (self.shards)();
        store::replicas::heartbeat(&self.pool, &self.replica).await
    }
}

impl State {
    fn tries_unreadable_again(&mut self) -> bool {
        self.polls = if self.unreadable.is_empty() {
            0
        } else {
            self.polls + 1
        };
        self.polls >= TRY_UNREADABLE
    }

    /// The table after what was loaded, which answers for every row that was unreadable.
    fn next(&mut self, base: &Table, loaded: Loaded) -> Table {
        let unreadable = loaded.unreadable.into_iter();
        self.unreadable = unreadable.map(|row| (row.uid, row.kind)).collect();
        let mut removed = loaded.removed;
        self.polls = 0;
        if loaded.whole {
            let there: HashSet<RowKey> = loaded.rows.iter().map(|row| row.key()).collect();
            removed.extend(
                self.keys
                    .iter()
                    .filter(|key| !there.contains(key) && !self.unreadable.contains_key(&key.uid)),
            );
        }
        for key in &removed {
            self.keys.remove(key);
        }
        self.keys.extend(loaded.rows.iter().map(|row| row.key()));
        base.with(loaded.rows.into_iter().map(Arc::unwrap_or_clone), removed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{self, Published};
    use routing::Row;
    use store::routes::Unreadable;

    fn loaded(rows: &[&Row], whole: bool) -> Loaded {
        Loaded {
            rows: rows.iter().map(|row| Arc::new((*row).clone())).collect(),
            whole,
            ..Loaded::default()
        }
    }

    fn unreadable(row: &Row) -> Unreadable {
        Unreadable {
            kind: "source".into(),
            uid: row.uid,
            namespace: row.namespace.clone(),
            name: row.name.clone(),
            generation: 2,
            why: "newer".into(),
        }
    }

    fn has(table: &Table, row: &Row) -> bool {
        table
            .source(&routing::ids::format(routing::ids::Prefix::Source, row.uid))
            .is_some()
    }

    #[test]
    fn a_row_that_became_unreadable_keeps_its_last_content_and_a_missing_one_goes() {
        let [kept, gone, other] =
            ["kept", "gone", "other"].map(|name| testing::source_row(Uuid::now_v7(), name, None));
        let mut state = State::default();
        let first = state.next(&Table::default(), loaded(&[&kept, &gone, &other], true));
        let second = state.next(
            &first,
            Loaded {
                unreadable: vec![unreadable(&kept)],
                ..loaded(&[&other], true)
            },
        );
        assert!(has(&second, &kept) && has(&second, &other) && !has(&second, &gone));
        assert_eq!(state.unreadable.len(), 1);
        assert!(
            (0..TRY_UNREADABLE).any(|_| state.tries_unreadable_again()),
            "it is tried again"
        );
        let third = state.next(&second, loaded(&[&kept, &other], true));
        assert!(has(&third, &kept) && state.unreadable.is_empty());
        let fourth = state.next(
            &third,
            Loaded {
                removed: vec![kept.key()],
                ..Loaded::default()
            },
        );
        assert!(!has(&fourth, &kept) && has(&fourth, &other));
    }

    #[tokio::test]
    async fn what_is_published_is_applied_and_acknowledged() {
        let database = store::testing::Database::create().await;
        let published = Published::new(&database.store, &[]).await;
        let current = Arc::new(Current::default());
        let metrics = metrics::Metrics::new(&prometheus::Registry::new());
        let mut loader = Loader {
            pool: database.store.pool.clone(),
            keys: Keys::Given(published.keyring.clone()),
            current: current.clone(),
            replica: testing::replica("one"),
            shards: Arc::new(|| 3),
            changed: Arc::new(|| {}),
            metrics: metrics.clone(),
            state: State::default(),
        };
        assert!(current.get().is_none());
        loader.activate().await.unwrap();
        let row = testing::source_row(Uuid::now_v7(), "github", None);
        let revision = published.publish(std::slice::from_ref(&row), &[]).await;
        loader.activate().await.unwrap();
        let applied = current.get().unwrap();
        assert!(has(&applied.table, &row));
        assert_eq!(
            (applied.head.revision, metrics.table.revision.get()),
            (revision, revision)
        );
        let live = store::replicas::live(&database.store.pool, Duration::from_secs(60))
            .await
            .unwrap();
        assert_eq!((live[0].applied_revision, live[0].shards), (revision, 3));
        published.publish(&[], &[row.key()]).await;
        loader.activate().await.unwrap();
        assert!(!has(&current.get().unwrap().table, &row));
    }

    #[tokio::test]
    async fn a_row_that_cannot_be_read_costs_the_others_nothing_and_is_read_once_it_can() {
        let database = store::testing::Database::create().await;
        let pool = &database.store.pool;
        let [broken, other] =
            ["broken", "other"].map(|name| testing::source_row(Uuid::now_v7(), name, None));
        let published = Published::new(&database.store, &[broken.clone(), other.clone()]).await;
        let current = Arc::new(Current::default());
        let changes = Arc::new(std::sync::atomic::AtomicU32::new(0));
        let counted = changes.clone();
        let mut loader = Loader {
            pool: pool.clone(),
            keys: Keys::Given(published.keyring.clone()),
            current: current.clone(),
            replica: testing::replica("one"),
            shards: Arc::new(|| 0),
            changed: Arc::new(move || {
                counted.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
            }),
            metrics: metrics::Metrics::new(&prometheus::Registry::new()),
            state: State::default(),
        };
        let others = || {
            let table = current.get().unwrap().table.clone();
            let id = routing::ids::format(routing::ids::Prefix::Source, other.uid);
            table.source(&id).unwrap().0.clone()
        };
        loader.activate().await.unwrap();
        let first = others();

        // As if a newer operator had written it.
        let newer = "ALTER TABLE routes ADD COLUMN kept bytea; UPDATE routes SET kept = payload; \
             UPDATE routes SET payload = 'of the future', revision = revision + 1 WHERE name = 'broken'; \
             UPDATE route_head SET revision = revision + 1";
        sqlx::raw_sql(newer).execute(pool.raw()).await.unwrap();
        for _ in 0..=TRY_UNREADABLE {
            loader.activate().await.unwrap();
            assert_eq!(loader.state.unreadable.len(), 1);
            assert!(has(&current.get().unwrap().table, &broken));
        }
        let changes = || changes.load(std::sync::atomic::Ordering::Relaxed);
        assert_eq!(changes(), 2, "the first table, and the new revision");

        let mended = "UPDATE routes SET payload = kept WHERE name = 'broken'";
        sqlx::raw_sql(mended).execute(pool.raw()).await.unwrap();
        for _ in 0..=TRY_UNREADABLE {
            loader.activate().await.unwrap();
        }
        assert!(loader.state.unreadable.is_empty());
        assert_eq!(changes(), 3);
        assert!(
            Arc::ptr_eq(&first, &others()),
            "its row was never made anew"
        );
    }
}
