//! The routing table on its way from the operator to the gateways, by revision.
//!
//! One transaction per publish, by the leader only: it locks the head, checks that the epoch is still its own, writes what
//! changed and advances the head. Rows carry the revision that last changed them, so a gateway reads what is new since
//! its own; removed rows stay as tombstones until every live replica has passed them.

use crate::{Keyring, Lease, Pool, error::{Error, Result}};
use routing::row::{Row, RowKey};
use std::sync::Arc;

/// The term of one leader. Writes of an older one are refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Epoch(pub i64);

/// How far the table has got.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, PartialOrd, Ord)]
pub struct Head {
    pub epoch: i64,
    pub revision: i64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Published {
    /// The head's revision; unchanged when nothing was to be written.
    pub revision: i64,
    /// Rows written and removed.
    pub changed: u32,
}

#[derive(Debug, thiserror::Error)]
pub enum PublishError {
    /// Another leader has begun an epoch. Nothing was written.
    #[error("another operator leads by now; nothing was published")]
    Fenced,
    #[error(transparent)]
    Store(#[from] Error),
}

/// What a gateway or a new leader reads.
#[derive(Debug, Clone, Default)]
pub struct Loaded {
    pub head: Head,
    pub rows: Vec<Arc<Row>>,
    pub removed: Vec<RowKey>,
    /// Rows that this version must not act on. The reader keeps what it had of them.
    pub unreadable: Vec<Unreadable>,
    /// `load_since` could not tell what was removed since (its tombstones are gone, or the epoch's revisions began anew):
    /// the answer is the whole table, and what is not in it is to be dropped.
    pub whole: bool,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unreadable {
    /// As in the table; a newer operator may have kinds that we don't know.
    pub kind: String,
    pub uid: uuid::Uuid,
    pub namespace: String,
    pub name: String,
    pub generation: i64,
    /// The whole chain, without secrets.
    pub why: String,
}

/// Begins a new epoch as the holder of `lease`. [`Error::Fenced`] when the lease is no longer its holder's.
pub async fn begin_epoch(pool: &Pool, leader: &str, lease: &Lease) -> Result<Epoch> {
    let _ = (pool, leader, lease);
    unimplemented!()
}

/// Publishes what changed, in one transaction. Rows that are there already with the same content are not written again,
/// and when nothing remains the head stays as it is.
pub async fn publish(
    pool: &Pool,
    epoch: Epoch,
    leader: &str,
    changed: &[Row],
    removed: &[RowKey],
    keyring: &Keyring,
) -> Result<Published, PublishError> {
    let _ = (pool, epoch, leader, changed, removed, keyring);
    unimplemented!()
}

/// The head alone: what a poll looks at.
pub async fn head(pool: &Pool) -> Result<Head> {
    let _ = pool;
    unimplemented!()
}

/// What changed behind `since`. When that cannot be told, the whole table ([`Loaded::whole`]).
pub async fn load_since(pool: &Pool, since: Head, keyring: &Keyring) -> Result<Loaded> {
    let _ = (pool, since, keyring);
    unimplemented!()
}

/// The whole table.
pub async fn load_all(pool: &Pool, keyring: &Keyring) -> Result<Loaded> {
    let _ = (pool, keyring);
    unimplemented!()
}

/// Deletes tombstones of revisions up to `revision` (the slowest live replica's). Returns how many.
pub async fn prune(pool: &Pool, revision: i64) -> Result<u64> {
    let _ = (pool, revision);
    unimplemented!()
}
