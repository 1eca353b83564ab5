//! Leases: who may do what only one may do. One implementation for shards, periodic tasks and the operator's leadership.
//!
//! A lease is a row with a holder, an expiry by the database's clock and an epoch that grows with each new holder.
//! Leases make efficiency and order, not correctness: each write that matters names its epoch and is refused when the
//! lease has moved on. So a holder that was paused for an hour does no harm when it wakes.

use crate::{Pool, error::Result, pool::On};
use sqlx::{
    Postgres, Row as _,
    postgres::{PgArguments, PgBindIterExt, PgRow},
    query::Query,
};
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};
use tokio::time::Instant;

/// The operator's leadership.
pub const OPERATOR: &str = "operator";

/// The lease of a shard: `shard/00017`.
pub fn shard_name(shard: u16) -> String {
    format!("shard/{shard:05}")
}

/// The inverse of [`shard_name`].
pub fn parse_shard(name: &str) -> Option<u16> {
    name.strip_prefix("shard/")
        .filter(|digits| digits.len() == 5 && digits.bytes().all(|b| b.is_ascii_digit()))
        .and_then(|digits| digits.parse().ok())
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
pub async fn acquire(
    pool: &Pool,
    name: &str,
    holder: &str,
    ttl: Duration,
) -> Result<Option<Lease>> {
    Ok(acquire_many(pool, &[name.to_owned()], holder, ttl)
        .await?
        .pop())
}

/// The rows are locked in the order of their names, as everywhere, so that no two of our statements wait for each other.
/// A row whose holder is just writing is waited for: that write then counts, and ours begins after it.
pub(crate) const ACQUIRE: &str = "\
INSERT INTO lease AS l (name, holder, epoch, expires_at)
SELECT name, $2, 1, now() + make_interval(secs => $3) FROM unnest($1::text[]) AS name ORDER BY name
ON CONFLICT (name) DO UPDATE SET holder = excluded.holder, epoch = l.epoch + 1, expires_at = excluded.expires_at
WHERE l.holder IS NULL OR l.expires_at <= now()
RETURNING name, epoch";

/// Takes those of the leases that are free or expired, in one statement; waits for writes in flight that name them.
/// A name that has no row yet is free.
pub async fn acquire_many(
    pool: &Pool,
    names: &[String],
    holder: &str,
    ttl: Duration,
) -> Result<Vec<Lease>> {
    let names: BTreeSet<&str> = names.iter().map(String::as_str).collect();
    if names.is_empty() {
        return Ok(Vec::new());
    }
    let trusted_until = trust(ttl);
    let mut session = pool.session_within(patience(ttl)).await?;
    let query = pool
        .query(ACQUIRE)
        .bind(names.into_iter().bind_iter())
        .bind(holder)
        .bind(ttl.as_secs_f64());
    let rows = query.all(&mut session).await?;
    session.done().await?;
    let holder: Arc<str> = Arc::from(holder);
    let lease = |row: &PgRow| -> Result<Lease> {
        Ok(Lease {
            name: row.try_get("name")?,
            holder: Arc::clone(&holder),
            epoch: row.try_get("epoch")?,
            trusted_until,
        })
    };
    rows.iter().map(lease).collect()
}

pub(crate) const RENEW: &str = "\
WITH mine AS MATERIALIZED (
    SELECT l.name FROM unnest($1::text[], $2::text[], $3::bigint[]) AS k (name, holder, epoch)
    JOIN lease l ON l.name = k.name AND l.holder = k.holder AND l.epoch = k.epoch
    ORDER BY l.name FOR NO KEY UPDATE OF l
)
UPDATE lease l SET expires_at = now() + make_interval(secs => $4) FROM mine WHERE l.name = mine.name
RETURNING l.name";

/// Prolongs leases in one statement. Returns those that are still ours; the others are lost.
///
/// An expired lease that nobody has taken is still ours: its epoch proves that nobody was between.
pub async fn renew_many(pool: &Pool, leases: &[Lease], ttl: Duration) -> Result<Vec<Lease>> {
    if leases.is_empty() {
        return Ok(Vec::new());
    }
    let trusted_until = trust(ttl);
    let mut session = pool.session_within(patience(ttl)).await?;
    let rows = bind_leases(pool.query(RENEW), leases)
        .bind(ttl.as_secs_f64())
        .all(&mut session)
        .await?;
    session.done().await?;
    let renewed = rows
        .iter()
        .map(|row| Ok(row.try_get("name")?))
        .collect::<Result<BTreeSet<&str>>>()?;
    let still = leases.iter().filter(|lease| renewed.contains(&*lease.name));
    Ok(still
        .map(|lease| Lease {
            trusted_until,
            ..lease.clone()
        })
        .collect())
}

const RELEASE: &str = "\
WITH mine AS MATERIALIZED (
    SELECT l.name FROM unnest($1::text[], $2::text[], $3::bigint[]) AS k (name, holder, epoch)
    JOIN lease l ON l.name = k.name AND l.holder = k.holder AND l.epoch = k.epoch
    ORDER BY l.name FOR NO KEY UPDATE OF l
)
UPDATE lease l SET holder = NULL, expires_at = now() FROM mine WHERE l.name = mine.name";

/// Gives leases back, in one statement: they are free at once, their epochs stay. Those that are no longer ours are left alone.
pub async fn release_many(pool: &Pool, leases: &[Lease]) -> Result<()> {
    if leases.is_empty() {
        return Ok(());
    }
    let mut session = pool.session_within(PATIENCE).await?;
    bind_leases(pool.query(RELEASE), leases)
        .run(&mut session)
        .await?;
    session.done().await
}

fn bind_leases(
    query: Query<'static, Postgres, PgArguments>,
    leases: &[Lease],
) -> Query<'static, Postgres, PgArguments> {
    query
        .bind(leases.iter().map(|lease| &*lease.name).bind_iter())
        .bind(leases.iter().map(|lease| &*lease.holder).bind_iter())
        .bind(leases.iter().map(|lease| lease.epoch).bind_iter())
}

/// Until when to trust what the call that is about to be made will say. Taken before it, so that the time it takes only
/// shortens the trust.
fn trust(ttl: Duration) -> Instant {
    Instant::now() + ttl - ttl / 5
}

/// How long the calls of which a lease's time to live depends may take. What a call that was given up did all the same
/// is undone by time: a lease taken by it expires.
fn patience(ttl: Duration) -> Duration {
    (ttl / 3).clamp(Duration::from_secs(1), PATIENCE)
}

/// A replica asks for all of these between two renewals, so none may take as long as a lease lives.
pub(crate) const PATIENCE: Duration = Duration::from_secs(5);

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
    let mut session = pool.session_within(PATIENCE).await?;
    let sql = "SELECT name, holder, epoch, expires_at <= now() AS expired FROM lease WHERE starts_with(name, $1) ORDER BY name";
    let rows = pool.query(sql).bind(prefix).all(&mut session).await?;
    session.done().await?;
    let lease = |row: &PgRow| -> Result<Row> {
        Ok(Row {
            name: row.try_get("name")?,
            holder: row.try_get("holder")?,
            epoch: row.try_get("epoch")?,
            expired: row.try_get("expired")?,
        })
    };
    rows.iter().map(lease).collect()
}

#[cfg(test)]
mod unit {
    use super::*;

    #[test]
    fn a_shards_lease_names_it() {
        assert_eq!(shard_name(17), "shard/00017");
        assert_eq!(parse_shard("shard/00017"), Some(17));
        for name in [
            "shard/17",
            "shard/",
            "shard/000017",
            "task/00017",
            "shard/+0017",
        ] {
            assert_eq!(parse_shard(name), None, "{name}");
        }
    }
}
