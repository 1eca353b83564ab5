//! Events before their time. Each becomes an event once: the row goes in the transaction that records it.

use crate::{
    Pool,
    error::{Error, Result},
    events::{self, Recorded, Verification},
    idempotency::{self, Claim, Done},
    pool::On,
    time::{from_sql, to_sql},
};
use bytes::Bytes;
use jiff::Timestamp;
use sqlx::{
    Row,
    postgres::{PgBindIterExt, PgRow},
};
use std::{collections::HashSet, net::IpAddr, sync::Arc, time::Duration};
use uuid::Uuid;

/// One event that is to be published later.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Scheduled {
    /// The event's, a UUIDv7 of the millisecond at which it is due.
    pub id: Uuid,
    pub topic_id: Uuid,
    pub namespace: Arc<str>,
    pub due_at: Timestamp,
    pub scheduled_at: Timestamp,
    pub headers: Bytes,
    pub body: Bytes,
    pub remote_addr: IpAddr,
    /// As it was found when it was scheduled: verified, or at odds with the topic's schema.
    pub verification: Verification,
}

const INSERT: &str = "\
INSERT INTO scheduled (topic_id, id, due_at, namespace, scheduled_at, headers, body, remote_addr, schema_invalid)
SELECT topic_id, id, due_at, namespace, scheduled_at, headers, body, remote_addr::inet, schema_invalid
FROM unnest($1::uuid[], $2::uuid[], $3::timestamptz[], $4::text[], $5::timestamptz[], $6::bytea[], $7::bytea[], $8::text[], $9::boolean[])
    AS s (topic_id, id, due_at, namespace, scheduled_at, headers, body, remote_addr, schema_invalid)";

/// Schedules all of them or none, together with the claim. The caller bounds the batch.
///
/// Without a claim it is no good to call it again when it isn't known whether the first call committed: what was due
/// meanwhile would be published twice.
pub async fn schedule(pool: &Pool, claim: Option<&Claim>, batch: &[Scheduled]) -> Result<Done> {
    let mut session = pool.begin().await?;
    if let Some(claim) = claim {
        match idempotency::claim(pool, &mut session, claim).await? {
            Done::Now => {}
            other => {
                session.done().await?;
                return Ok(other);
            }
        }
    }
    let query = pool
        .query(INSERT)
        .bind(batch.iter().map(|s| s.topic_id).bind_iter())
        .bind(batch.iter().map(|s| s.id).bind_iter())
        .bind(batch.iter().map(|s| to_sql(s.due_at)).bind_iter())
        .bind(batch.iter().map(|s| &*s.namespace).bind_iter())
        .bind(batch.iter().map(|s| to_sql(s.scheduled_at)).bind_iter())
        .bind(batch.iter().map(|s| &s.headers[..]).bind_iter())
        .bind(batch.iter().map(|s| &s.body[..]).bind_iter())
        .bind(batch.iter().map(|s| s.remote_addr.to_string()).bind_iter())
        .bind(
            batch
                .iter()
                .map(|s| s.verification == Verification::SchemaInvalid)
                .bind_iter(),
        );
    query.run(&mut session).await?;
    session.done().await?;
    Ok(Done::Now)
}

/// What a batch of due events holds at most: in memory, and in one transaction.
const DUE: i64 = 256;
const DUE_BYTES: i64 = 8 << 20;

/// The first is always among them, however large it is. Sizes are read without the bodies. OFFSET keeps the look-ups from
/// becoming a join, which a plan made for an empty table would do by reading all of it.
pub(crate) const FIND_DUE: &str = "\
SELECT s.topic_id, s.id, s.due_at, s.namespace, s.scheduled_at, s.headers, s.body, host(s.remote_addr) AS remote_addr,
    s.schema_invalid
FROM (
    SELECT topic_id, id, due_at, sum(octet_length(body) + octet_length(headers)) OVER (ORDER BY due_at, id)
        - octet_length(body) - octet_length(headers) AS before
    FROM (SELECT topic_id, id, due_at, body, headers FROM scheduled WHERE due_at <= now() ORDER BY due_at, id LIMIT $1) AS first
) AS sized
CROSS JOIN LATERAL (SELECT * FROM scheduled d WHERE d.topic_id = sized.topic_id AND d.id = sized.id OFFSET 0) AS s
WHERE sized.before < $2
ORDER BY sized.due_at, sized.id";

/// What is due by the database's clock, the longest due first, up to a bound: call again until there is nothing.
pub async fn due(pool: &Pool) -> Result<Vec<Scheduled>> {
    let mut session = pool.session().await?;
    let query = pool.query(FIND_DUE).bind(DUE).bind(DUE_BYTES);
    let rows = query.all(&mut session).await?;
    session.done().await?;
    rows.iter().map(Scheduled::from_row).collect()
}

/// In how long the next one is due, by the database's clock; `None`: there is none.
pub async fn next_due_in(pool: &Pool) -> Result<Option<Duration>> {
    let mut session = pool.session().await?;
    let query = pool.query(
        "SELECT extract(epoch FROM min(due_at) - clock_timestamp())::float8 AS seconds FROM scheduled",
    );
    let row = query.one(&mut session).await?;
    session.done().await?;
    let seconds: Option<f64> = row.try_get("seconds")?;
    Ok(seconds
        .map(|seconds| Duration::try_from_secs_f64(seconds.max(0.0)).unwrap_or(Duration::MAX)))
}

/// How many there are, counted up to `most`.
pub async fn count(pool: &Pool, most: u32) -> Result<u64> {
    let mut session = pool.session().await?;
    let query = pool
        .query("SELECT count(*) AS pending FROM (SELECT FROM scheduled ORDER BY due_at LIMIT $1) AS counted")
        .bind(i64::from(most));
    let row = query.one(&mut session).await?;
    session.done().await?;
    Ok(row.try_get::<i64, _>("pending")?.unsigned_abs())
}

const TAKE: &str = "\
DELETE FROM scheduled s USING unnest($1::uuid[], $2::uuid[]) AS t (topic_id, id)
WHERE s.topic_id = t.topic_id AND s.id = t.id
RETURNING s.id";

/// Makes events of scheduled ones: each of `recorded` stands beside the one that it is made of. Returns whether each was
/// made: one that is no longer there was cancelled, or is an event already.
///
/// One transaction deletes and records, so that each becomes an event once whoever calls this, and how often.
/// [`Error::MissingPartition`]: make the partitions and call again.
pub async fn publish(
    pool: &Pool,
    scheduled: &[Scheduled],
    recorded: &[Recorded],
) -> Result<Vec<bool>> {
    if scheduled.len() != recorded.len() {
        return Err(Error::Other("an event for each scheduled one".into()));
    }
    let mut session = pool.begin().await?;
    let query = pool
        .query(TAKE)
        .bind(scheduled.iter().map(|s| s.topic_id).bind_iter())
        .bind(scheduled.iter().map(|s| s.id).bind_iter());
    let rows = query.all(&mut session).await?;
    let taken = rows
        .iter()
        .map(|row| Ok(row.try_get("id")?))
        .collect::<Result<HashSet<Uuid>>>()?;
    let made: Vec<bool> = scheduled.iter().map(|s| taken.contains(&s.id)).collect();
    let batch: Vec<Recorded> = recorded
        .iter()
        .zip(&made)
        .filter(|(_, made)| **made)
        .map(|(recorded, _)| recorded.clone())
        .collect();
    events::record_within(pool, &mut session, &batch).await?;
    session.done().await?;
    Ok(made)
}

/// Those of a topic, the next due first, after `after`.
pub async fn list(
    pool: &Pool,
    topic_id: Uuid,
    after: Option<Uuid>,
    limit: u16,
) -> Result<Vec<Listed>> {
    let mut session = pool.session().await?;
    let query = pool
        .query(
            "SELECT id, due_at, scheduled_at, octet_length(body) AS body_bytes FROM scheduled \
             WHERE topic_id = $1 AND id > $2 ORDER BY id LIMIT $3",
        )
        .bind(topic_id)
        .bind(after.unwrap_or_default())
        .bind(i64::from(limit));
    let rows = query.all(&mut session).await?;
    session.done().await?;
    let listed = |row: &PgRow| -> Result<Listed> {
        Ok(Listed {
            id: row.try_get("id")?,
            due_at: from_sql(row.try_get("due_at")?),
            scheduled_at: from_sql(row.try_get("scheduled_at")?),
            body_bytes: row.try_get::<i32, _>("body_bytes")?.unsigned_abs(),
        })
    };
    rows.iter().map(listed).collect()
}

/// What a list says of one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listed {
    pub id: Uuid,
    pub due_at: Timestamp,
    pub scheduled_at: Timestamp,
    pub body_bytes: u32,
}

/// Whether it was there; one that is an event by now isn't.
pub async fn cancel(pool: &Pool, topic_id: Uuid, id: Uuid) -> Result<bool> {
    let mut session = pool.session().await?;
    let query = pool
        .query("DELETE FROM scheduled WHERE topic_id = $1 AND id = $2")
        .bind(topic_id)
        .bind(id);
    let deleted = query.run(&mut session).await?;
    session.done().await?;
    Ok(deleted.rows_affected() > 0)
}

impl Scheduled {
    fn from_row(row: &PgRow) -> Result<Scheduled> {
        let remote_addr: &str = row.try_get("remote_addr")?;
        Ok(Scheduled {
            id: row.try_get("id")?,
            topic_id: row.try_get("topic_id")?,
            namespace: Arc::from(row.try_get::<&str, _>("namespace")?),
            due_at: from_sql(row.try_get("due_at")?),
            scheduled_at: from_sql(row.try_get("scheduled_at")?),
            headers: Bytes::from(row.try_get::<Vec<u8>, _>("headers")?),
            body: Bytes::from(row.try_get::<Vec<u8>, _>("body")?),
            remote_addr: remote_addr
                .parse()
                .map_err(|error| Error::Data(Box::new(error)))?,
            verification: match row.try_get("schema_invalid")? {
                true => Verification::SchemaInvalid,
                false => Verification::Verified,
            },
        })
    }
}
