//! The gateway replicas that are alive, and the revision by which each of them routes.

use crate::{
    Pool,
    error::Result,
    lease::PATIENCE,
    pool::On,
    time::{from_sql, to_sql},
};
use jiff::Timestamp;
use sqlx::{Row, postgres::PgRow};
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

/// `before` reads what was there when the statement began.
const HEARTBEAT: &str = "\
WITH before AS (
    SELECT route_epoch, applied_revision, unreadable_rows FROM replica WHERE id = $1
), written AS (
    INSERT INTO replica (id, address, roles, version, started_at, route_epoch, applied_revision, unreadable_rows, shards, heartbeat_at)
    VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, now())
    ON CONFLICT (id) DO UPDATE SET address = excluded.address, roles = excluded.roles, version = excluded.version,
        started_at = excluded.started_at, route_epoch = excluded.route_epoch, applied_revision = excluded.applied_revision,
        unreadable_rows = excluded.unreadable_rows, shards = excluded.shards, heartbeat_at = excluded.heartbeat_at
)
SELECT pg_notify('hookstream_replicas', '')
WHERE NOT EXISTS (SELECT FROM before WHERE route_epoch = $6 AND applied_revision = $7 AND unreadable_rows = $8)";

/// Says that `replica` is alive, and NOTIFYs the operator when what it routes by has changed. Written twice is written once.
pub async fn heartbeat(pool: &Pool, replica: &Replica) -> Result<()> {
    let bounded = |n: u32| i32::try_from(n).unwrap_or(i32::MAX);
    let query = pool
        .query(HEARTBEAT)
        .bind(&replica.id)
        .bind(&replica.address)
        .bind(&replica.roles)
        .bind(&replica.version)
        .bind(to_sql(replica.started_at))
        .bind(replica.route_epoch)
        .bind(replica.applied_revision)
        .bind(bounded(replica.unreadable_rows))
        .bind(bounded(replica.shards));
    let mut session = pool.session_within(PATIENCE).await?;
    query.run(&mut session).await?;
    session.done().await
}

const LIVE: &str = "\
WITH forgotten AS (
    DELETE FROM replica WHERE heartbeat_at < now() - 10 * make_interval(secs => $1)
)
SELECT id, address, roles, version, started_at, route_epoch, applied_revision, unreadable_rows, shards FROM replica
WHERE heartbeat_at > now() - make_interval(secs => $1) ORDER BY id";

/// The replicas heard of `within` that time, by id. Rows unheard of for ten times as long are deleted on the way.
pub async fn live(pool: &Pool, within: Duration) -> Result<Vec<Replica>> {
    let mut session = pool.session_within(PATIENCE).await?;
    let rows = pool
        .query(LIVE)
        .bind(within.as_secs_f64())
        .all(&mut session)
        .await?;
    session.done().await?;
    let replica = |row: &PgRow| -> Result<Replica> {
        Ok(Replica {
            id: row.try_get("id")?,
            address: row.try_get("address")?,
            roles: row.try_get("roles")?,
            version: row.try_get("version")?,
            started_at: from_sql(row.try_get("started_at")?),
            route_epoch: row.try_get("route_epoch")?,
            applied_revision: row.try_get("applied_revision")?,
            unreadable_rows: row.try_get::<i32, _>("unreadable_rows")?.unsigned_abs(),
            shards: row.try_get::<i32, _>("shards")?.unsigned_abs(),
        })
    };
    rows.iter().map(replica).collect()
}

/// Says that the shards are to be shared anew: some were let go.
pub async fn announce(pool: &Pool) -> Result<()> {
    let mut session = pool.session_within(PATIENCE).await?;
    pool.query("SELECT pg_notify('hookstream_replicas', '')")
        .run(&mut session)
        .await?;
    session.done().await
}

const LEAVE: &str = "\
WITH gone AS (DELETE FROM replica WHERE id = $1 RETURNING id) SELECT pg_notify('hookstream_replicas', '') FROM gone";

/// Removes a replica that ends, and NOTIFYs.
pub async fn leave(pool: &Pool, id: &str) -> Result<()> {
    let mut session = pool.session_within(PATIENCE).await?;
    pool.query(LEAVE).bind(id).run(&mut session).await?;
    session.done().await
}
