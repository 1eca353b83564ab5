//! The queue: one row for each delivery that is not finished. Small, hot, apart from history.
//!
//! Its only index is its key `(shard, destination, due, delivery)`, which is also the order in which an owner reads.
//! Nobody claims a row: the owner of the shard works on it, and removes or moves it with the outcome (`outcomes`).

use crate::{Pool, error::Result, events::Event};
use jiff::Timestamp;
use std::sync::Arc;
use uuid::Uuid;

/// One unfinished delivery.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pending {
    pub shard: u16,
    pub destination_id: Uuid,
    /// Whole microseconds, see [`crate::time::stored`].
    pub due_at: Timestamp,
    pub delivery_id: Uuid,
    pub event_id: Uuid,
    pub connection_id: Uuid,
    pub namespace: Arc<str>,
    /// Attempts made so far.
    pub attempts: u32,
    pub recorded_at: Timestamp,
}

/// The destinations of a shard that have anything in the queue, ascending.
pub async fn destinations(pool: &Pool, shard: u16) -> Result<Vec<Uuid>> {
    let _ = (pool, shard);
    unimplemented!()
}

/// The bodies that one [`head`] may load, in bytes; the first row comes whatever its size.
pub const HEAD_BYTES: u64 = 4 << 20;

/// The next deliveries of a destination behind the key `after`, by `(due_at, delivery_id)`, with their events.
///
/// At most `limit` of them and [`HEAD_BYTES`] of bodies: fewer than `limit` does not mean that there are no more, an
/// empty answer does.
pub async fn head(
    pool: &Pool,
    shard: u16,
    destination: Uuid,
    after: Option<(Timestamp, Uuid)>,
    limit: u32,
) -> Result<Vec<(Pending, Arc<Event>)>> {
    let _ = (pool, shard, destination, after, limit);
    unimplemented!()
}

/// When the first delivery behind `after` is due: what a timer for a destination waits for.
pub async fn next_due(pool: &Pool, shard: u16, destination: Uuid, after: Option<(Timestamp, Uuid)>) -> Result<Option<(Timestamp, Uuid)>> {
    let _ = (pool, shard, destination, after);
    unimplemented!()
}

/// The queue as metrics show it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Depth {
    /// Never attempted.
    pub pending: u64,
    /// Attempted, waiting for the next attempt.
    pub retrying: u64,
    /// False when the queue is longer than what is counted and the numbers are Postgres' estimate.
    pub exact: bool,
    /// When the oldest was recorded, among the first rows of each destination.
    pub oldest_pending: Option<Timestamp>,
    pub oldest_retrying: Option<Timestamp>,
}

/// Counts up to 20,000 rows and estimates beyond, so it costs the same for a queue of millions.
pub async fn depth(pool: &Pool) -> Result<Depth> {
    let _ = pool;
    unimplemented!()
}
