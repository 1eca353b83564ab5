//! The keys by which a second copy of an event is recognised. They are written by [`crate::events::record`], in the commit
//! of the event itself; here they go again.

use crate::{Pool, error::Result, pool::On, time::from_sql};
use chrono::{DateTime, Utc};
use jiff::Timestamp;
use sqlx::Row;
use std::time::Duration;
use uuid::Uuid;

/// What makes an event the first of its kind, and for how long.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Key {
    /// 128 bits of a hash over the source and the value.
    pub key: Uuid,
    /// From the commit on, by the database's clock. A copy doesn't prolong it.
    pub window: Duration,
}

/// In the order of their expiry, by its index. A row that a recording statement holds is about to be taken over.
pub(crate) const EXPIRE: &str = "\
WITH gone AS (
    DELETE FROM dedup WHERE key = ANY (ARRAY(
        SELECT key FROM dedup WHERE expires_at <= now() ORDER BY expires_at LIMIT $1 FOR UPDATE SKIP LOCKED))
    RETURNING 1
)
SELECT count(*) FROM gone";

/// Forgets up to `limit` keys that have expired; returns how many there were.
pub async fn expire(pool: &Pool, limit: u32) -> Result<u64> {
    let mut session = pool.session().await?;
    let query = pool.query(EXPIRE).bind(i64::from(limit));
    let row = query.one(&mut session).await?;
    session.done().await?;
    Ok(row.try_get::<i64, _>(0)?.unsigned_abs())
}

/// When the key that expires next does; `None`: nothing is remembered.
pub async fn next_expiry(pool: &Pool) -> Result<Option<Timestamp>> {
    let mut session = pool.session().await?;
    let query = pool.query("SELECT min(expires_at) AS next FROM dedup");
    let row = query.one(&mut session).await?;
    session.done().await?;
    let next: Option<DateTime<Utc>> = row.try_get("next")?;
    Ok(next.map(from_sql))
}
