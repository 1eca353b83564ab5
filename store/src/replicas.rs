//! The gateway replicas that are alive, and the revision by which each of them routes.

use crate::{Pool, error::Result};
use jiff::Timestamp;
use std::time::Duration;

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Replica {
    /// Differs between processes.
    pub id: String,
    /// Where its admin port is.
    pub address: String,
    /// `ingest`, `delivery`, `api`.
    pub roles: Vec<String>,
    pub version: String,
    pub started_at: Timestamp,
    /// Epoch and revision of the table that it routes by.
    pub route_epoch: i64,
    pub applied_revision: i64,
    /// Rows of that revision that it could not read and keeps an older version of.
    pub unreadable_rows: u32,
    /// Shards that it holds.
    pub shards: u32,
}

/// Says that `replica` is alive, and NOTIFYs the operator when its applied revision has changed. Written twice is
/// written once.
pub async fn heartbeat(pool: &Pool, replica: &Replica) -> Result<()> {
    let _ = (pool, replica);
    unimplemented!()
}

/// The replicas heard of `within` that time, by id. Rows unheard of for ten times as long are deleted on the way.
pub async fn live(pool: &Pool, within: Duration) -> Result<Vec<Replica>> {
    let _ = (pool, within);
    unimplemented!()
}

/// Removes a replica that ends, and NOTIFYs.
pub async fn leave(pool: &Pool, id: &str) -> Result<()> {
    let _ = (pool, id);
    unimplemented!()
}
