//! Leases: who may do what only one may do. One implementation for shards, periodic tasks and the operator's leadership.
//!
//! A lease is a row with a holder, an expiry by the database's clock and an epoch that grows with each new holder.
//! Leases make efficiency and order, not correctness: each write that matters names its epoch and is refused when the
//! lease has moved on. So a holder that was paused for an hour does no harm when it wakes.

use crate::{Pool, error::Result};
use std::{collections::BTreeMap, sync::Arc, time::Duration};
use tokio::time::Instant;

/// The operator's leadership.
pub const OPERATOR: &str = "operator";

/// The lease of a shard: `shard/00017`.
pub fn shard_name(shard: u16) -> String {
    format!("shard/{shard:05}")
}

/// The inverse of [`shard_name`].
pub fn parse_shard(name: &str) -> Option<u16> {
    name.strip_prefix("shard/").filter(|digits| digits.len() == 5).and_then(|digits| digits.parse().ok())
}

/// The lease of a periodic task: `task/partitions`.
pub fn task_name(task: &str) -> String {
    format!("task/{task}")
}

/// A lease that was ours when the database last said so.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lease {
    pub name: String,
    pub holder: Arc<str>,
    pub epoch: i64,
    /// Until then nobody else can have taken it: taken before the call that got it, plus the time to live, less a margin
    /// of a fifth for clocks that run at different speeds. Past it, stop acting and ask the database.
    pub trusted_until: Instant,
}

/// The shards that a writer believes to be its own, with the epochs that its writes name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Held {
    pub holder: Arc<str>,
    pub epochs: BTreeMap<u16, i64>,
}

/// Takes a lease that is free or expired; `None`: somebody else's (or our own from an earlier call).
///
/// `holder` must differ between processes, also between a process and the one that it replaces.
pub async fn acquire(pool: &Pool, name: &str, holder: &str, ttl: Duration) -> Result<Option<Lease>> {
    Ok(acquire_many(pool, &[name.to_owned()], holder, ttl).await?.pop())
}

/// Takes those of the leases that are free or expired, in one statement; waits for writes in flight that name them.
pub async fn acquire_many(pool: &Pool, names: &[String], holder: &str, ttl: Duration) -> Result<Vec<Lease>> {
    let _ = (pool, names, holder, ttl);
    unimplemented!()
}

/// Prolongs leases in one statement. Returns those that are still ours; the others are lost.
///
/// An expired lease that nobody has taken is still ours: its epoch proves that nobody was between.
pub async fn renew_many(pool: &Pool, leases: &[Lease], ttl: Duration) -> Result<Vec<Lease>> {
    let _ = (pool, leases, ttl);
    unimplemented!()
}

/// Gives leases back, in one statement: they are free at once, their epochs stay. Those that are no longer ours are left alone.
pub async fn release_many(pool: &Pool, leases: &[Lease]) -> Result<()> {
    let _ = (pool, leases);
    unimplemented!()
}

/// A lease as the database has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Row {
    pub name: String,
    /// `None`: free.
    pub holder: Option<String>,
    pub epoch: i64,
    pub expired: bool,
}

/// The leases whose names begin with `prefix`, by name.
pub async fn list(pool: &Pool, prefix: &str) -> Result<Vec<Row>> {
    let _ = (pool, prefix);
    unimplemented!()
}
