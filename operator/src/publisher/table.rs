//! The published table as its writer knows it, and how a new writer gets to know it.

use super::Settings;
use routing::{Kind, Row, RowKey};
use service::log::chain;
use std::{collections::HashSet, time::Duration};
use store::{
    Error, Keyring, Lease, Store, replicas,
    routes::{self, Epoch, Head, Loaded},
};

/// A database whose head is further behind than this is not one of ours.
const EPOCHS_TO_SKIP: usize = 10_000;

#[derive(Debug, Clone)]
pub(super) struct Table {
    pub(super) term: u64,
    pub(super) epoch: Epoch,
    pub(super) revision: i64,
    /// The rows that are there.
    pub(super) keys: HashSet<RowKey>,
}

impl Table {
    pub(super) fn published(&mut self, revision: i64, changed: &[Row], removed: &[RowKey]) {
        self.revision = revision;
        self.keys.extend(changed.iter().map(Row::key));
        for key in removed {
            self.keys.remove(key);
        }
    }
}

pub(super) struct Taken {
    pub(super) table: Table,
    pub(super) loaded: Loaded,
    /// The database is older than what was published before.
    pub(super) restored: bool,
}

/// The rows that are published now. Tries until the database answers: without them an object that doesn't compile would
/// lose its row.
pub(super) async fn last_good(store: &Store, keyring: &Keyring) -> Vec<Row> {
    loop {
        match routes::load_all(&store.pool, keyring).await {
            Ok(loaded) => return loaded.rows.iter().map(|row| Row::clone(row)).collect(),
            Err(error) => tracing::warn!(
                error = chain(&error),
                "can't read the published table; will try again"
            ),
        }
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
}

/// Begins an epoch that is newer than all that anybody has seen, and reads the table.
pub(super) async fn take_over(
    store: &Store,
    keyring: &Keyring,
    settings: &Settings,
    lease: &Lease,
    newest: Head,
) -> Result<Taken, Error> {
    // What gateways route by was published, even if this process never saw it. Read first: they may be quick to follow.
    let seen = replicas::live(&store.pool, settings.gateway_timeout)
        .await?
        .iter()
        .map(|replica| Head {
            epoch: replica.route_epoch,
            revision: replica.applied_revision,
        })
        .fold(newest, |a, b| Head {
            epoch: a.epoch.max(b.epoch),
            revision: a.revision.max(b.revision),
        });
    let mut epoch = routes::begin_epoch(&store.pool, &settings.holder, lease).await?;
    let loaded = routes::load_all(&store.pool, keyring).await?;
    let restored = epoch.0 <= seen.epoch || loaded.head.revision < seen.revision;
    for _ in 0..EPOCHS_TO_SKIP {
        if epoch.0 > seen.epoch {
            break;
        }
        epoch = routes::begin_epoch(&store.pool, &settings.holder, lease).await?;
    }
    let keys = loaded
        .rows
        .iter()
        .map(|row| row.key())
        .chain(unreadable_keys(&loaded))
        .collect();
    Ok(Taken {
        table: Table {
            term: 0,
            epoch,
            revision: loaded.head.revision,
            keys,
        },
        loaded,
        restored,
    })
}

/// The table as it is in the database; and deletes the tombstones that every live gateway has passed.
pub(super) async fn compare(
    store: &Store,
    keyring: &Keyring,
    settings: &Settings,
    table: &Table,
) -> Result<Loaded, Error> {
    let slowest = replicas::live(&store.pool, settings.gateway_timeout)
        .await?
        .iter()
        .map(|replica| replica.applied_revision)
        .min();
    routes::prune(
        &store.pool,
        slowest.unwrap_or(table.revision).min(table.revision),
    )
    .await?;
    routes::load_all(&store.pool, keyring).await
}

/// Keys of the rows that a newer version wrote, of the kinds that we know.
pub(super) fn unreadable_keys(loaded: &Loaded) -> Vec<RowKey> {
    loaded
        .unreadable
        .iter()
        .filter_map(|row| {
            Some(RowKey {
                kind: Kind::parse(&row.kind)?,
                uid: row.uid,
            })
        })
        .collect()
}
