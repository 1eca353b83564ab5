//! What the owner of a destination remembers of it: its circuit, what its rate limit has granted, resets.
//!
//! Written by the owner of its shard under the lease's epoch, so a late owner changes nothing, and only when something
//! changed; read when a shard is gained. A destination that never failed has no row.

use crate::{
    Pool,
    error::Result,
    events::shard_to_sql,
    lease::{Held, shard_name},
    outcomes::WrittenShards,
    pool::On,
    time::{from_sql, to_sql},
};
use chrono::{DateTime, Utc};
use jiff::Timestamp;
use sqlx::{
    Row,
    postgres::{PgBindIterExt, PgRow},
};
use uuid::Uuid;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Circuit {
    #[default]
    Closed,
    /// Or half-open: that lasts as long as the probe's attempt, which is its owner's.
    Open,
}

impl Circuit {
    const fn as_str(self) -> &'static str {
        match self {
            Circuit::Closed => "closed",
            Circuit::Open => "open",
        }
    }
}

/// One destination's row.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct State {
    pub destination_id: Uuid,
    pub shard: u16,
    pub circuit: Circuit,
    /// Once this has come, one delivery is tried.
    pub open_until: Option<Timestamp>,
    /// When the circuit last left Closed.
    pub opened_at: Option<Timestamp>,
    /// In a row.
    pub failures: u32,
    /// It closed a while ago, and attempts in flight still grow.
    pub ramping: bool,
    /// Counts of attempts, as the scheduler writes them.
    pub samples: Vec<i64>,
    /// What of its rate limit may be used, and counts as used by the next owner.
    pub rate_granted: Option<Timestamp>,
    /// The last reset that was carried out.
    pub reset_done: Option<String>,
}

/// Locks the leases that are still ours as the writing of outcomes does.
const WRITE: &str = "\
WITH held AS MATERIALIZED (
    SELECT k.shard, k.epoch FROM unnest($1::text[], $2::smallint[], $3::bigint[]) AS k (name, shard, epoch)
    JOIN lease l ON l.name = k.name AND l.epoch = k.epoch AND l.holder = $4
    ORDER BY l.name FOR SHARE OF l
), written AS (
    INSERT INTO destination_state AS d (destination_id, shard, circuit, open_until, opened_at, failures, ramping, samples,
                                        rate_granted, reset_done, epoch, updated_at)
    SELECT destination_id, shard, circuit, open_until, opened_at, failures, ramping, string_to_array(samples, ',')::bigint[],
           rate_granted, reset_done, (SELECT h.epoch FROM held h WHERE h.shard = s.shard), now()
    FROM unnest($5::uuid[], $6::smallint[], $7::text[], $8::timestamptz[], $9::timestamptz[], $10::integer[], $11::boolean[],
                $12::text[], $13::timestamptz[], $14::text[])
        AS s (destination_id, shard, circuit, open_until, opened_at, failures, ramping, samples, rate_granted, reset_done)
    WHERE coalesce(s.shard IN (SELECT shard FROM held), false)
    ORDER BY destination_id
    ON CONFLICT (destination_id) DO UPDATE SET shard = excluded.shard, circuit = excluded.circuit, open_until = excluded.open_until,
        opened_at = excluded.opened_at, failures = excluded.failures, ramping = excluded.ramping, samples = excluded.samples,
        rate_granted = excluded.rate_granted, reset_done = excluded.reset_done, epoch = excluded.epoch,
        updated_at = excluded.updated_at
)
SELECT shard FROM held ORDER BY shard";

/// Writes the states of a batch in one statement, each destination's once; those of shards that are not ours any more are left out.
pub async fn write(pool: &Pool, batch: &[State], held: &Held) -> Result<WrittenShards> {
    if batch.is_empty() {
        return Ok(WrittenShards::default());
    }
    let mut shards: Vec<u16> = batch.iter().map(|state| state.shard).collect();
    shards.sort_unstable();
    shards.dedup();
    let leases = || {
        shards
            .iter()
            .filter_map(|shard| held.epochs.get(shard).map(|epoch| (*shard, *epoch)))
    };
    let time = |time: Option<Timestamp>| time.map(bounded);
    let samples = |samples: &[i64]| {
        let numbers: Vec<String> = samples.iter().map(i64::to_string).collect();
        numbers.join(",")
    };
    let query = pool
        .query(WRITE)
        .bind(leases().map(|(shard, _)| shard_name(shard)).bind_iter())
        .bind(leases().map(|(shard, _)| shard_to_sql(shard)).bind_iter())
        .bind(leases().map(|(_, epoch)| epoch).bind_iter())
        .bind(&*held.holder)
        .bind(batch.iter().map(|s| s.destination_id).bind_iter())
        .bind(batch.iter().map(|s| shard_to_sql(s.shard)).bind_iter())
        .bind(batch.iter().map(|s| s.circuit.as_str()).bind_iter())
        .bind(batch.iter().map(|s| time(s.open_until)).bind_iter())
        .bind(batch.iter().map(|s| time(s.opened_at)).bind_iter())
        .bind(
            batch
                .iter()
                .map(|s| i32::try_from(s.failures).unwrap_or(i32::MAX))
                .bind_iter(),
        )
        .bind(batch.iter().map(|s| s.ramping).bind_iter())
        .bind(batch.iter().map(|s| samples(&s.samples)).bind_iter())
        .bind(batch.iter().map(|s| time(s.rate_granted)).bind_iter())
        .bind(batch.iter().map(|s| s.reset_done.as_deref()).bind_iter());
    let mut session = pool.session().await?;
    let rows = query.all(&mut session).await?;
    session.done().await?;
    let shards = rows
        .iter()
        .map(|row| Ok(row.try_get::<i16, _>("shard")?.unsigned_abs()));
    Ok(WrittenShards(shards.collect::<Result<_>>()?))
}

/// Postgres' years begin later than a `Timestamp`'s: what is that long ago is as well said by 1970.
fn bounded(time: Timestamp) -> DateTime<Utc> {
    to_sql(time.max(Timestamp::UNIX_EPOCH))
}

/// The states of a shard's destinations.
pub async fn of_shard(pool: &Pool, shard: u16) -> Result<Vec<State>> {
    let sql = "SELECT destination_id, circuit, open_until, opened_at, failures, ramping, samples, rate_granted, reset_done \
               FROM destination_state WHERE shard = $1";
    let mut session = pool.session().await?;
    let rows = pool
        .query(sql)
        .bind(shard_to_sql(shard))
        .all(&mut session)
        .await?;
    session.done().await?;
    let state = |row: &PgRow| -> Result<State> {
        Ok(State {
            destination_id: row.try_get("destination_id")?,
            shard,
            circuit: match row.try_get("circuit")? {
                "open" => Circuit::Open,
                _ => Circuit::Closed,
            },
            open_until: time(row, "open_until")?,
            opened_at: time(row, "opened_at")?,
            failures: row.try_get::<i32, _>("failures")?.unsigned_abs(),
            ramping: row.try_get("ramping")?,
            samples: row.try_get("samples")?,
            rate_granted: time(row, "rate_granted")?,
            reset_done: row.try_get("reset_done")?,
        })
    };
    rows.iter().map(state).collect()
}

/// A destination whose circuit is open.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Open {
    pub destination_id: Uuid,
    /// `None`: written by a version that didn't know.
    pub opened_at: Option<Timestamp>,
    /// The cooldown is over: one delivery is being tried, or will be as soon as there is one.
    pub half: bool,
}

/// The destinations whose circuit isn't closed.
pub async fn open(pool: &Pool) -> Result<Vec<Open>> {
    let sql = "SELECT destination_id, opened_at, coalesce(open_until <= now(), true) AS half \
               FROM destination_state WHERE circuit = 'open'";
    let mut session = pool.session().await?;
    let rows = pool.query(sql).all(&mut session).await?;
    session.done().await?;
    let open = |row: &PgRow| -> Result<Open> {
        Ok(Open {
            destination_id: row.try_get("destination_id")?,
            opened_at: time(row, "opened_at")?,
            half: row.try_get("half")?,
        })
    };
    rows.iter().map(open).collect()
}

/// A reset of a destination's circuit that somebody asked for. The mark tells one request from the next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reset {
    pub destination_id: Uuid,
    pub shard: u16,
    pub mark: String,
}

/// One statement; the NOTIFY goes out when it commits.
const ASK: &str = "\
WITH asked AS (
    INSERT INTO destination_state AS d (destination_id, shard, reset_wanted)
    SELECT * FROM unnest($1::uuid[], $2::smallint[], $3::text[]) AS r (destination_id, shard, mark) ORDER BY destination_id
    ON CONFLICT (destination_id) DO UPDATE SET reset_wanted = excluded.reset_wanted, updated_at = now()
    WHERE d.reset_wanted IS DISTINCT FROM excluded.reset_wanted
    RETURNING destination_id
)
SELECT destination_id, pg_notify('hookstream_resets', replace(destination_id::text, '-', ''))::text FROM asked";

/// Asks the owners for resets and tells them. One that was asked for before, with the same mark, is not asked for again.
/// Returns the destinations of the others.
pub async fn ask_for_resets(pool: &Pool, resets: &[Reset]) -> Result<Vec<Uuid>> {
    if resets.is_empty() {
        return Ok(Vec::new());
    }
    let query = pool
        .query(ASK)
        .bind(resets.iter().map(|r| r.destination_id).bind_iter())
        .bind(resets.iter().map(|r| shard_to_sql(r.shard)).bind_iter())
        .bind(resets.iter().map(|r| &*r.mark).bind_iter());
    let mut session = pool.session().await?;
    let rows = query.all(&mut session).await?;
    session.done().await?;
    rows.iter()
        .map(|row| Ok(row.try_get("destination_id")?))
        .collect()
}

/// The resets of a shard's destinations that are asked for and not done.
pub async fn resets(pool: &Pool, shard: u16) -> Result<Vec<Reset>> {
    let sql = "SELECT destination_id, reset_wanted FROM destination_state \
               WHERE shard = $1 AND reset_wanted IS DISTINCT FROM reset_done AND reset_wanted IS NOT NULL";
    let mut session = pool.session().await?;
    let rows = pool
        .query(sql)
        .bind(shard_to_sql(shard))
        .all(&mut session)
        .await?;
    session.done().await?;
    let reset = |row: &PgRow| -> Result<Reset> {
        Ok(Reset {
            destination_id: row.try_get("destination_id")?,
            shard,
            mark: row.try_get("reset_wanted")?,
        })
    };
    rows.iter().map(reset).collect()
}

/// Nothing pending, nothing in the table: nobody will ask for it. An hour, since a destination may be made anew meanwhile.
/// The rows are locked in the order in which owners write them, and what one is just writing is left alone.
const FORGET: &str = "\
DELETE FROM destination_state WHERE destination_id IN (
    SELECT destination_id FROM destination_state s
    WHERE updated_at < now() - interval '1 hour'
      AND EXISTS (SELECT FROM route_head WHERE revision > 0)
      AND NOT EXISTS (SELECT FROM routes r WHERE r.kind = 'destination' AND r.uid = s.destination_id AND NOT r.deleted)
      AND NOT EXISTS (SELECT FROM queue q WHERE q.shard = s.shard AND q.destination_id = s.destination_id)
    ORDER BY destination_id LIMIT 1000 FOR UPDATE SKIP LOCKED)";

/// Removes up to a thousand rows of destinations that were deleted and did nothing for an hour.
pub async fn forget(pool: &Pool) -> Result<u64> {
    let mut session = pool.session().await?;
    let removed = pool.query(FORGET).run(&mut session).await?.rows_affected();
    session.done().await?;
    Ok(removed)
}

fn time(row: &PgRow, name: &str) -> Result<Option<Timestamp>> {
    Ok(row.try_get::<Option<DateTime<Utc>>, _>(name)?.map(from_sql))
}
