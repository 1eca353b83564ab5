//! The queue: one row for each delivery that is not finished. Small, hot, apart from history.
//!
//! Its only index is its key `(shard, destination, due, delivery)`, which is also the order in which an owner reads.
//! Nobody claims a row: the owner of the shard works on it, and removes or moves it with the outcome (`outcomes`).

use crate::{
    Pool,
    attempts::Trigger,
    error::Result,
    events::{Event, event_columns, shard_to_sql},
    pool::On,
    time::{from_sql, to_sql},
};
use jiff::Timestamp;
use sqlx::{Row, postgres::PgRow};
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
    /// Of the event, or when the delivery was set going again: what the retry policy's age counts from.
    pub recorded_at: Timestamp,
    /// A retry that kept its place in the queue waits until then.
    pub retry_at: Option<Timestamp>,
    pub round: Round,
}

/// Which time this is that the delivery goes through the queue. By default the first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Round {
    /// Times that it was set going again (see `retries`).
    pub number: u32,
    /// Attempts of earlier rounds: they don't count against the retry policy.
    pub attempts_before: u32,
    /// What set it going, unless a person did.
    pub job: Option<Uuid>,
}

impl Round {
    /// How many of so many attempts the retry policy counts.
    pub fn counted(&self, attempts: u32) -> u32 {
        attempts.saturating_sub(self.attempts_before)
    }

    /// Why the attempt of this number (from 1) is made.
    pub fn trigger(&self, number: u32) -> Trigger {
        match (self.counted(number), self.number, self.job) {
            (1, 0, _) => Trigger::Initial,
            (1, _, None) => Trigger::Manual,
            (1, _, Some(job)) => Trigger::Job(job),
            _ => Trigger::Automatic,
        }
    }
}

/// One look into the index per destination, however many rows each has.
pub(crate) const DESTINATIONS: &str = "\
WITH RECURSIVE d AS (
    (SELECT destination_id FROM queue WHERE shard = $1 ORDER BY destination_id LIMIT 1)
    UNION ALL
    SELECT (SELECT q.destination_id FROM queue q WHERE q.shard = $1 AND q.destination_id > d.destination_id
            ORDER BY q.destination_id LIMIT 1)
    FROM d WHERE d.destination_id IS NOT NULL
)
SELECT destination_id FROM d WHERE destination_id IS NOT NULL";

/// The destinations of a shard that have anything in the queue, ascending.
pub async fn destinations(pool: &Pool, shard: u16) -> Result<Vec<Uuid>> {
    let mut session = pool.session().await?;
    let rows = pool
        .query(DESTINATIONS)
        .bind(shard_to_sql(shard))
        .all(&mut session)
        .await?;
    session.done().await?;
    rows.iter()
        .map(|row| Ok(row.try_get("destination_id")?))
        .collect()
}

/// The bodies that one [`head`] may load, in bytes; the first row comes whatever its size.
pub const HEAD_BYTES: u64 = 4 << 20;

/// The keys first, then their events by key, one partition each; LATERAL with a LIMIT keeps the planner from turning the
/// look-ups into a join that reads all events. The sizes are known without reading large bodies,
/// which lie apart; a row is taken while what comes before it is within the bound.
macro_rules! page {
    ($which:literal, $limit:literal, $bytes:literal) => {
        concat!(
            "WITH keys AS MATERIALIZED (
    SELECT due_at, delivery_id, event_id, connection_id, attempts, recorded_at, retry_at, round, attempts_before, job_id FROM queue
    WHERE shard = $1 AND destination_id = $2 AND ",
            $which,
            "
    ORDER BY due_at, delivery_id LIMIT ",
            $limit,
            "
), sized AS MATERIALIZED (
    SELECT k.*, e.bytes FROM keys k CROSS JOIN LATERAL (
        SELECT octet_length(e.headers) + octet_length(e.body) AS bytes FROM events e WHERE e.id = k.event_id LIMIT 1
    ) e
), bounded AS MATERIALIZED (
    SELECT *, sum(bytes) OVER (ORDER BY due_at, delivery_id ROWS UNBOUNDED PRECEDING) - bytes AS bytes_before FROM sized
)
SELECT k.due_at, k.delivery_id, k.connection_id, k.attempts, k.recorded_at, k.retry_at, k.round, k.attempts_before, k.job_id, ",
            "e.* FROM bounded k CROSS JOIN LATERAL (SELECT ",
            event_columns!(),
            " FROM events e WHERE e.id = k.event_id LIMIT 1) e
WHERE k.bytes_before < ",
            $bytes,
            " ORDER BY k.due_at, k.delivery_id"
        )
    };
}

/// A page behind a key.
pub(crate) const HEAD: &str = page!("(due_at, delivery_id) > ($3, $4)", "$5", "$6");

/// The next deliveries of a destination behind the key `after`, by `(due_at, delivery_id)`, with their events.
///
/// At most `limit` of them and [`HEAD_BYTES`] of headers and bodies (and one more event): fewer than `limit` does not
/// mean that there are no more, an empty answer does.
pub async fn head(
    pool: &Pool,
    shard: u16,
    destination: Uuid,
    after: Option<(Timestamp, Uuid)>,
    limit: u32,
) -> Result<Vec<(Pending, Arc<Event>)>> {
    head_within(pool, shard, destination, after, limit, HEAD_BYTES).await
}

/// [`head`] with another bound of bytes.
pub async fn head_within(
    pool: &Pool,
    shard: u16,
    destination: Uuid,
    after: Option<(Timestamp, Uuid)>,
    limit: u32,
    bytes: u64,
) -> Result<Vec<(Pending, Arc<Event>)>> {
    let (due_at, delivery_id) = after.unwrap_or(BEFORE_ALL);
    let mut session = pool.session().await?;
    let rows = pool
        .query(HEAD)
        .bind(shard_to_sql(shard))
        .bind(destination)
        .bind(to_sql(due_at))
        .bind(delivery_id)
        .bind(i64::from(limit))
        .bind(i64::try_from(bytes).unwrap_or(i64::MAX))
        .all(&mut session)
        .await?;
    session.done().await?;
    read(&rows, shard, destination)
}

/// [`HEAD`] from the beginning, without what the reader has. NOT IN is one look into a hash table a row.
pub(crate) const HEAD_BUT: &str = page!(
    "coalesce(delivery_id NOT IN (SELECT known FROM unnest($3::uuid[]) AS known), true)",
    "$4",
    "$5"
);

/// The first deliveries of a destination but for those that are `known`, as [`head`] gives them: nothing that was committed
/// before this call and comes before one of them in the queue's order is missing, unless its event is gone.
pub async fn head_but(
    pool: &Pool,
    shard: u16,
    destination: Uuid,
    known: &[Uuid],
    limit: u32,
) -> Result<Vec<(Pending, Arc<Event>)>> {
    let mut session = pool.session().await?;
    let rows = pool
        .query(HEAD_BUT)
        .bind(shard_to_sql(shard))
        .bind(destination)
        .bind(known)
        .bind(i64::from(limit))
        .bind(i64::try_from(HEAD_BYTES).unwrap_or(i64::MAX))
        .all(&mut session)
        .await?;
    session.done().await?;
    read(&rows, shard, destination)
}

fn read(rows: &[PgRow], shard: u16, destination: Uuid) -> Result<Vec<(Pending, Arc<Event>)>> {
    let pending = |row: &PgRow, event: &Event| -> Result<Pending> {
        Ok(Pending {
            shard,
            destination_id: destination,
            due_at: from_sql(row.try_get("due_at")?),
            delivery_id: row.try_get("delivery_id")?,
            event_id: event.id,
            connection_id: row.try_get("connection_id")?,
            namespace: Arc::clone(&event.namespace),
            attempts: row.try_get::<i32, _>("attempts")?.unsigned_abs(),
            recorded_at: from_sql(row.try_get("recorded_at")?),
            retry_at: time(row, "retry_at")?,
            round: Round {
                number: row.try_get::<i32, _>("round")?.unsigned_abs(),
                attempts_before: row.try_get::<i32, _>("attempts_before")?.unsigned_abs(),
                job: row.try_get("job_id")?,
            },
        })
    };
    rows.iter()
        .map(|row| {
            let event = Arc::new(Event::from_row(row)?);
            Ok((pending(row, &event)?, event))
        })
        .collect()
}

/// A key before every key: nothing is due before 1970.
const BEFORE_ALL: (Timestamp, Uuid) = (Timestamp::UNIX_EPOCH, Uuid::nil());

pub(crate) const NEXT_DUE: &str = "\
SELECT due_at, delivery_id FROM queue
WHERE shard = $1 AND destination_id = $2 AND (due_at, delivery_id) > ($3, $4)
ORDER BY due_at, delivery_id LIMIT 1";

/// The key of the first delivery behind `after`: what a timer for a destination waits for.
pub async fn next_due(
    pool: &Pool,
    shard: u16,
    destination: Uuid,
    after: Option<(Timestamp, Uuid)>,
) -> Result<Option<(Timestamp, Uuid)>> {
    let (due_at, delivery_id) = after.unwrap_or(BEFORE_ALL);
    let query = pool
        .query(NEXT_DUE)
        .bind(shard_to_sql(shard))
        .bind(destination)
        .bind(to_sql(due_at))
        .bind(delivery_id);
    let mut session = pool.session().await?;
    let row = query.optional(&mut session).await?;
    session.done().await?;
    row.map(|row| {
        Ok((
            from_sql(row.try_get("due_at")?),
            row.try_get("delivery_id")?,
        ))
    })
    .transpose()
}

/// The queue as metrics show it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Depth {
    /// Never attempted.
    pub pending: u64,
    /// Attempted, waiting for the next attempt.
    pub retrying: u64,
    /// False when the queue is longer than what is counted and the numbers are an estimate.
    pub exact: bool,
    /// When the oldest of those looked at was recorded. Of a queue longer than what is counted, the first of each of up
    /// to 1,000 destinations are looked at as well.
    pub oldest_pending: Option<Timestamp>,
    pub oldest_retrying: Option<Timestamp>,
}

/// Rows that [`depth`] counts one by one: some 10 ms of Postgres' time.
const COUNTED: i64 = 20_000;

pub(crate) const COUNT: &str = "\
SELECT count(*) FILTER (WHERE attempts = 0) AS pending, count(*) FILTER (WHERE attempts > 0) AS retrying,
       min(recorded_at) FILTER (WHERE attempts = 0) AS oldest_pending,
       min(recorded_at) FILTER (WHERE attempts > 0) AS oldest_retrying
FROM (SELECT attempts, recorded_at FROM queue ORDER BY shard, destination_id, due_at, delivery_id LIMIT $1) sample";

/// Postgres' own count of live rows, kept by its statistics, and the first row of each destination.
const ESTIMATE: &str = "\
WITH RECURSIVE d AS (
    (SELECT shard, destination_id, attempts, recorded_at, 1 AS n FROM queue ORDER BY shard, destination_id, due_at, delivery_id LIMIT 1)
    UNION ALL
    SELECT next.shard, next.destination_id, next.attempts, next.recorded_at, d.n + 1
    FROM d CROSS JOIN LATERAL (
        SELECT q.shard, q.destination_id, q.attempts, q.recorded_at FROM queue q
        WHERE (q.shard, q.destination_id) > (d.shard, d.destination_id)
        ORDER BY q.shard, q.destination_id, q.due_at, q.delivery_id LIMIT 1
    ) next
    WHERE d.n < 1000
)
SELECT pg_stat_get_live_tuples(to_regclass('queue')) AS live,
       min(recorded_at) FILTER (WHERE attempts = 0) AS oldest_pending,
       min(recorded_at) FILTER (WHERE attempts > 0) AS oldest_retrying
FROM d";

/// Counts up to 20,000 rows and estimates beyond, so it costs the same for a queue of millions.
pub async fn depth(pool: &Pool) -> Result<Depth> {
    let mut session = pool.session().await?;
    let row = pool.query(COUNT).bind(COUNTED).one(&mut session).await?;
    let count = |name: &str| -> Result<u64> { Ok(row.try_get::<i64, _>(name)?.unsigned_abs()) };
    let mut depth = Depth {
        pending: count("pending")?,
        retrying: count("retrying")?,
        exact: true,
        oldest_pending: time(&row, "oldest_pending")?,
        oldest_retrying: time(&row, "oldest_retrying")?,
    };
    let counted = depth.pending + depth.retrying;
    if counted >= COUNTED.unsigned_abs() {
        let row = pool.query(ESTIMATE).one(&mut session).await?;
        let live = row
            .try_get::<Option<i64>, _>("live")?
            .unwrap_or_default()
            .unsigned_abs()
            .max(counted);
        // The two states in the proportion of what was counted.
        depth.retrying =
            (u128::from(live) * u128::from(depth.retrying) / u128::from(counted)) as u64;
        depth.pending = live - depth.retrying;
        depth.exact = false;
        let earlier = |a: Option<Timestamp>, b: Option<Timestamp>| a.into_iter().chain(b).min();
        depth.oldest_pending = earlier(depth.oldest_pending, time(&row, "oldest_pending")?);
        depth.oldest_retrying = earlier(depth.oldest_retrying, time(&row, "oldest_retrying")?);
    }
    session.done().await?;
    Ok(depth)
}

fn time(row: &PgRow, name: &str) -> Result<Option<Timestamp>> {
    Ok(row
        .try_get::<Option<chrono::DateTime<chrono::Utc>>, _>(name)?
        .map(from_sql))
}
