//! Brings the database to this version's tables. Forward only.
//!
//! Whoever starts first does it: one transaction under an advisory lock holds all that is missing, so several processes
//! that start at once wait for the first one and find nothing to do, and a crash half-way leaves nothing behind. The
//! lock belongs to the transaction, so this works through a transaction pooler too. No superuser is needed: whoever owns
//! the database, or may create in the schema that the search path names first, can do it.

use crate::{
    Pool,
    error::{Error, Result},
    lease, partitions,
    pool::{On, Session},
};
use sqlx::Row;
use std::{collections::BTreeSet, time::Duration};

/// All migrations, in order. Never edit one that was released: add the next.
const MIGRATIONS: &[(i32, &str, &str)] = &[
    (1, "spine", include_str!("../migrations/0001_spine.sql")),
    (2, "checks", include_str!("../migrations/0002_checks.sql")),
    (3, "topics", include_str!("../migrations/0003_topics.sql")),
    (
        4,
        "scheduler",
        include_str!("../migrations/0004_scheduler.sql"),
    ),
    (5, "retries", include_str!("../migrations/0005_retries.sql")),
    (6, "bodies", include_str!("../migrations/0006_bodies.sql")),
    (7, "sandbox", include_str!("../migrations/0007_sandbox.sql")),
    (
        8,
        "scheduled_verification",
        include_str!("../migrations/0008_scheduled_verification.sql"),
    ),
];

/// The newest migration that this version knows.
const KNOWN: i32 = MIGRATIONS[MIGRATIONS.len() - 1].0;

/// Keys of advisory locks: the first four bytes say whose they are ("hkst").
pub(crate) const MIGRATE_LOCK: i64 = 0x686b_7374_0000_0001;
pub(crate) const PARTITIONS_LOCK: i64 = 0x686b_7374_0000_0002;

/// The shards of a database when nobody says otherwise.
pub const DEFAULT_SHARDS: u16 = 64;

/// The text of all migrations, by which tests recognise a template.
#[cfg(feature = "testing")]
pub(crate) fn sources() -> Vec<&'static str> {
    MIGRATIONS.iter().map(|(_, _, sql)| *sql).collect()
}

/// What [`migrate`] found and did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Migrated {
    /// Versions applied by this call, in order.
    pub applied: Vec<i32>,
    /// The shards that this database has.
    pub shards: u16,
    /// Settings of the server by which its crash may lose what it has committed: `fsync`, `synchronous_commit`. Worth a
    /// warning: an event is answered for once it's committed.
    pub volatile: Vec<String>,
    /// The number asked for, when the database was laid out with another one: it was ignored. Worth a warning.
    pub ignored_shards: Option<u16>,
}

/// Applies what is missing, makes the partitions of yesterday, today (by the database's clock) and the three days after,
/// and lays out `shards` leases if nobody has before. [`Error::Newer`] when a newer version has been here,
/// [`Error::Encoding`] when the database isn't in UTF-8; nothing was done then.
///
/// `shards` is 1 to 4096.
pub async fn migrate(pool: &Pool, shards: u16) -> Result<Migrated> {
    let mut session = pool.begin().await?;
    let volatile = judge(pool, &mut session).await?;
    // The transaction may have to wait for another process's whole migration.
    session.raw("SET LOCAL statement_timeout = '10min'").await?;
    session.wait_for(Duration::from_secs(605));
    pool.query("SELECT pg_advisory_xact_lock($1)")
        .bind(MIGRATE_LOCK)
        .run(&mut session)
        .await?;
    let applied = apply_missing(pool, &mut session).await?;
    let shards_now = lay_out(pool, &mut session, shards).await?;
    let now = partitions::database_now(pool, &mut session).await?;
    partitions::ensure_within(pool, &mut session, now).await?;
    session.done().await?;
    Ok(Migrated {
        applied,
        shards: shards_now,
        volatile,
        ignored_shards: (shards_now != shards).then_some(shards),
    })
}

/// Whether the database can hold what it's to hold. Returns the settings that a crash would be rued for.
async fn judge(pool: &Pool, session: &mut Session) -> Result<Vec<String>> {
    let row = pool
        .query(
            "SELECT current_setting('server_encoding') AS encoding, ARRAY(
                 SELECT name FROM unnest(ARRAY['fsync', 'synchronous_commit']) AS name WHERE current_setting(name) = 'off'
             ) AS volatile",
        )
        .one(session)
        .await?;
    let found: String = row.try_get("encoding")?;
    if found != "UTF8" {
        return Err(Error::Encoding { found });
    }
    Ok(row.try_get("volatile")?)
}

async fn apply_missing(pool: &Pool, session: &mut Session) -> Result<Vec<i32>> {
    let table = "CREATE TABLE IF NOT EXISTS schema_migration \
                 (version integer PRIMARY KEY, name text NOT NULL, applied_at timestamptz NOT NULL DEFAULT now())";
    // Asked for first: IF NOT EXISTS would need the right to create even when the table is there.
    let exists = pool
        .query("SELECT to_regclass('schema_migration') IS NOT NULL AS there")
        .one(session)
        .await?;
    if !exists.try_get::<bool, _>("there")? {
        session.raw(table).await?;
    }
    let there = pool
        .query("SELECT version FROM schema_migration")
        .all(session)
        .await?;
    let there = there
        .iter()
        .map(|row| Ok(row.try_get("version")?))
        .collect::<Result<BTreeSet<i32>>>()?;
    let newest = there.last().copied().unwrap_or(0);
    if newest > KNOWN {
        return Err(Error::Newer {
            found: newest,
            known: KNOWN,
        });
    }
    let mut applied = Vec::new();
    for &(version, name, sql) in MIGRATIONS
        .iter()
        .filter(|(version, ..)| !there.contains(version))
    {
        session.raw(sql).await?;
        let insert = "INSERT INTO schema_migration (version, name) VALUES ($1, $2)";
        pool.query(insert)
            .bind(version)
            .bind(name)
            .run(session)
            .await?;
        applied.push(version);
    }
    Ok(applied)
}

/// The number of shards that the database has, after giving it `shards` if it has none. Each shard gets a free lease.
async fn lay_out(pool: &Pool, session: &mut Session, shards: u16) -> Result<u16> {
    let wanted = i16::try_from(shards).unwrap_or(i16::MAX);
    let insert = "INSERT INTO installation (shards) VALUES ($1) ON CONFLICT DO NOTHING";
    let laid_out = pool
        .query(insert)
        .bind(wanted)
        .run(session)
        .await?
        .rows_affected()
        == 1;
    let row = pool
        .query("SELECT shards FROM installation")
        .one(session)
        .await?;
    let shards = row.try_get::<i16, _>("shards")?.unsigned_abs();
    if laid_out {
        let names: Vec<String> = (0..shards).map(lease::shard_name).collect();
        let free = "INSERT INTO lease (name, expires_at) SELECT name, now() FROM unnest($1::text[]) AS name ON CONFLICT DO NOTHING";
        pool.query(free).bind(names).run(session).await?;
    }
    Ok(shards)
}
