//! What came of attempts: written in batches, each batch one statement, fenced by the leases of its shards.

use crate::{
    Pool,
    error::{Error, Result},
    events::shard_to_sql,
    lease::{Held, shard_name},
    partitions,
    pool::{On, Reused},
    queue::Round,
    time::to_sql,
};
use bytes::Bytes;
use jiff::Timestamp;
use routing::retry::GaveUp;
use sqlx::{Row, postgres::PgBindIterExt};
use std::{
    borrow::Cow,
    collections::{BTreeSet, HashMap, hash_map::Entry},
    sync::Arc,
};
use uuid::Uuid;

/// One attempt that ended, and what becomes of its delivery. The first fields are its queue row's, unchanged.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outcome {
    pub shard: u16,
    pub destination_id: Uuid,
    /// The due time under which the row is in the queue now.
    pub due_at: Timestamp,
    pub delivery_id: Uuid,
    pub event_id: Uuid,
    pub connection_id: Uuid,
    pub namespace: Arc<str>,
    pub recorded_at: Timestamp,
    pub round: Round,
    /// Made in all, this one included.
    pub attempts: u16,
    /// `None`: it was given up without one.
    pub attempt: Option<Attempt>,
    pub step: Finished,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attempt {
    /// From 1.
    pub number: u16,
    pub started_at: Timestamp,
    /// The word for [`routing::retry::Outcome`].
    pub outcome: &'static str,
    pub status: Option<u16>,
    /// What a person reads; at most a few hundred characters.
    pub error: Option<String>,
    pub timings: Timings,
    /// `name: value\r\n` lines.
    pub response_headers: Option<Bytes>,
    /// The first 16 KiB.
    pub response_body: Option<Bytes>,
    /// The replica that made it.
    pub replica: Arc<str>,
}

/// Microseconds since the phase before ended; `None`: that phase did not happen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Timings {
    pub dns_us: Option<u32>,
    pub connect_us: Option<u32>,
    pub tls_us: Option<u32>,
    pub first_byte_us: Option<u32>,
    pub total_us: Option<u32>,
}

/// What becomes of the delivery.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Finished {
    Delivered,
    /// Nothing was sent, as the connection wants it.
    Filtered,
    DeadLetter(GaveUp),
    RetryAt(Timestamp),
    /// As `RetryAt`, and its place in the queue stays: nothing that is behind it goes before it.
    RetryInPlaceAt(Timestamp),
}

impl Finished {
    /// When the next attempt is due, if there is one.
    pub fn retry_at(self) -> Option<Timestamp> {
        match self {
            Finished::RetryAt(at) | Finished::RetryInPlaceAt(at) => Some(at),
            Finished::Delivered | Finished::Filtered | Finished::DeadLetter(_) => None,
        }
    }
}

/// The shards whose outcomes are in the database, ascending. Outcomes of the batch's other shards wrote nothing: their
/// lease is another's by now.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct WrittenShards(pub Vec<u16>);

impl WrittenShards {
    pub fn contains(&self, shard: u16) -> bool {
        self.0.binary_search(&shard).is_ok()
    }
}

/// What was set going again has its row already, and it waits for the end of this very round. Of any other the row is
/// left alone: this is the second time that its end is written, late.
macro_rules! again {
    () => {
        "ON CONFLICT (id) DO UPDATE SET state = excluded.state, reason = excluded.reason, attempts = excluded.attempts, finished_at = now()
    WHERE old.state = 'pending' AND old.round = excluded.round"
    };
}

/// In the place of a dead letter's reason.
const FILTERED: &str = "filtered";

/// One statement. `held` locks the lease rows that are still ours against a new holder until this commits: whoever takes a
/// lease over waits for us, or we find it taken and `held` lacks it. Every other part asks `held`, so it runs first.
///
/// Several `unnest` in one list of columns go step by step with each other, and copy nothing; as a table of several columns
/// each of them would be written to a store of its own first.
///
/// Queue rows are found by key in a subquery and reached by their place. A plain join would be shorter, but a plan of it
/// made while the queue was empty reads the whole index, and stays.
macro_rules! statement {
    ($if_attempted:literal, $($if_finished:tt)*) => {
        concat!(
    "WITH held AS MATERIALIZED (
    SELECT k.shard FROM unnest($1::text[], $2::smallint[], $3::bigint[]) AS k (name, shard, epoch)
    JOIN lease l ON l.name = k.name AND l.epoch = k.epoch AND l.holder = $4
    ORDER BY l.name FOR SHARE OF l
), queued AS MATERIALIZED (
    SELECT * FROM (SELECT unnest($5::smallint[]) AS shard, unnest($6::uuid[]) AS destination_id, unnest($7::timestamptz[]) AS due_at,
                 unnest($8::uuid[]) AS delivery_id, unnest($9::timestamptz[]) AS next_due, unnest($10::integer[]) AS attempts,
                 unnest($36::timestamptz[]) AS retry_at) q
    WHERE coalesce(q.shard IN (SELECT shard FROM held), false)
), removed AS (
    DELETE FROM queue WHERE ctid = ANY (ARRAY(
        SELECT (SELECT q.ctid FROM queue q WHERE q.shard = k.shard AND q.destination_id = k.destination_id
                AND q.due_at = k.due_at AND q.delivery_id = k.delivery_id)
        FROM queued k WHERE k.next_due IS NULL))
), moved AS (
    UPDATE queue q SET due_at = m.next_due, attempts = m.attempts, retry_at = m.retry_at
    FROM (SELECT k.next_due, k.attempts, k.retry_at,
                 (SELECT q.ctid FROM queue q WHERE q.shard = k.shard AND q.destination_id = k.destination_id
                  AND q.due_at = k.due_at AND q.delivery_id = k.delivery_id) AS place
          FROM queued k WHERE k.next_due IS NOT NULL OFFSET 0) m
    WHERE q.ctid = m.place
), attempted AS (
    INSERT INTO attempts (delivery_id, number, event_id, started_at, outcome, status, error, dns_us, connect_us, tls_us,
                          first_byte_us, total_us, response_headers, response_body, replica, trigger, job_id)
    SELECT delivery_id, number, event_id, started_at, outcome, status, error, dns_us, connect_us, tls_us,
           first_byte_us, total_us, response_headers, response_body, replica, trigger, job_id
    FROM (SELECT unnest($11::smallint[]) AS shard, unnest($12::uuid[]) AS delivery_id, unnest($13::integer[]) AS number,
                 unnest($14::uuid[]) AS event_id, unnest($15::timestamptz[]) AS started_at, unnest($16::text[]) AS outcome,
                 unnest($17::smallint[]) AS status, unnest($18::text[]) AS error, unnest($19::integer[]) AS dns_us,
                 unnest($20::integer[]) AS connect_us, unnest($21::integer[]) AS tls_us, unnest($22::integer[]) AS first_byte_us,
                 unnest($23::integer[]) AS total_us, unnest($24::bytea[]) AS response_headers,
                 unnest($25::bytea[]) AS response_body, unnest($26::text[]) AS replica, unnest($37::text[]) AS trigger,
                 unnest($38::uuid[]) AS job_id) a
    WHERE coalesce(a.shard IN (SELECT shard FROM held), false)
    ",
    $if_attempted,
    "
), finished AS (
    INSERT INTO deliveries AS old (id, event_id, connection_id, destination_id, namespace, state, reason, attempts, created_at,
                                   finished_at, round)
    SELECT id, event_id, connection_id, destination_id, namespace,
           CASE WHEN reason IS NULL THEN 'delivered' WHEN reason = 'filtered' THEN 'filtered' ELSE 'dead_letter' END,
           nullif(reason, 'filtered'), attempts, created_at, now(), round
    FROM (SELECT unnest($27::smallint[]) AS shard, unnest($28::uuid[]) AS id, unnest($29::uuid[]) AS event_id,
                 unnest($30::uuid[]) AS connection_id, unnest($31::uuid[]) AS destination_id, unnest($32::text[]) AS namespace,
                 unnest($33::text[]) AS reason, unnest($34::integer[]) AS attempts, unnest($35::timestamptz[]) AS created_at,
                 unnest($39::integer[]) AS round) d
    WHERE coalesce(d.shard IN (SELECT shard FROM held), false)
    ",
    $($if_finished)*,
    "
)
SELECT shard FROM held ORDER BY shard"
)
    };
}

/// Of outcomes that are written for the first time, of deliveries that were never set going again. An insert that has to
/// look first whether its row is there costs Postgres a third more.
pub(crate) const WRITE_NEW: &str = statement!("", "");

/// Of any outcomes, also of some that are written already.
pub(crate) const WRITE: &str = statement!("ON CONFLICT DO NOTHING", again!());

/// Writes a batch in one statement: attempts and finished deliveries are appended, their queue rows deleted or moved to
/// the next due time; only for shards whose lease is still `held`.
///
/// May be called again with the same batch when it is not known whether the first call committed. Several attempts of
/// one delivery may be in one batch, in their order. Of a delivery whose day retention has dropped meanwhile, only the
/// queue row is taken away.
pub async fn write(pool: &Pool, batch: &[Outcome], held: &Held) -> Result<WrittenShards> {
    Writer::new(pool.clone()).write(batch, held).await
}

/// Writes one batch after another, on a connection that it keeps while they follow each other.
#[derive(Debug, Clone)]
pub struct Writer(Reused);

impl Writer {
    /// Takes its connections from `pool`, one at a time.
    pub fn new(pool: Pool) -> Writer {
        Writer(Reused::new(pool))
    }

    /// Where its connections come from.
    pub fn pool(&self) -> &Pool {
        &self.0.pool
    }

    /// Gives the connection back; for whoever is going to wait for work.
    pub fn rest(&mut self) {
        self.0.rest();
    }

    /// As [`write()`].
    pub async fn write(&mut self, batch: &[Outcome], held: &Held) -> Result<WrittenShards> {
        if batch.is_empty() {
            return Ok(WrittenShards::default());
        }
        let queued = last_steps(batch);
        match self.write_days(batch, &queued, held, |_| true).await {
            Err(Error::MissingPartition(source)) => {
                partitions::ensure_now(self.pool()).await?;
                let days = partitions::complete_days(self.pool()).await?;
                let Some(oldest) = days.first() else {
                    return Err(Error::MissingPartition(source));
                };
                let kept = |id: Uuid| partitions::day_of_id(id) >= *oldest;
                self.write_days(batch, &queued, held, kept).await
            }
            result => result,
        }
    }

    /// Takes for granted, if that is possible, that nothing of it is there.
    async fn write_days(
        &mut self,
        batch: &[Outcome],
        queued: &[Queued<'_>],
        held: &Held,
        kept: impl Fn(Uuid) -> bool + Copy,
    ) -> Result<WrittenShards> {
        if batch.iter().all(|outcome| outcome.round.number == 0) {
            match self.write_once(WRITE_NEW, batch, queued, held, kept).await {
                Err(error) if error.is_unique_violation() => {}
                result => return result,
            }
        }
        self.write_once(WRITE, batch, queued, held, kept).await
    }
}

/// What the batch makes of one queue row: the key it has now, and the last word on it.
struct Queued<'a> {
    first: &'a Outcome,
    last: &'a Outcome,
}

fn last_steps(batch: &[Outcome]) -> Vec<Queued<'_>> {
    let mut places: HashMap<Uuid, usize> = HashMap::with_capacity(batch.len());
    let mut queued: Vec<Queued<'_>> = Vec::with_capacity(batch.len());
    for outcome in batch {
        match places.entry(outcome.delivery_id) {
            Entry::Occupied(place) => queued[*place.get()].last = outcome,
            Entry::Vacant(place) => {
                place.insert(queued.len());
                queued.push(Queued {
                    first: outcome,
                    last: outcome,
                });
            }
        }
    }
    queued
}

impl Writer {
    async fn write_once(
        &mut self,
        statement: &'static str,
        batch: &[Outcome],
        queued: &[Queued<'_>],
        held: &Held,
        kept: impl Fn(Uuid) -> bool + Copy,
    ) -> Result<WrittenShards> {
        let named: BTreeSet<u16> = batch.iter().map(|outcome| outcome.shard).collect();
        let leases = || {
            named
                .iter()
                .filter_map(|shard| held.epochs.get(shard).map(|epoch| (*shard, *epoch)))
        };
        let attempts = || {
            batch
                .iter()
                .filter(|o| kept(o.delivery_id))
                .filter_map(|o| o.attempt.as_ref().map(|attempt| (o, attempt)))
        };
        let triggers = || attempts().map(|(o, a)| o.round.trigger(a.number.into()).to_sql());
        let timing = |us: Option<u32>| us.map(|us| i32::try_from(us).unwrap_or(i32::MAX));
        let finished = || {
            let finished = queued
                .iter()
                .map(|q| q.last)
                .filter(|o| kept(o.delivery_id));
            finished.filter(|o| o.step.retry_at().is_none())
        };
        let next_due = |q: &Queued<'_>| match q.last.step {
            Finished::RetryAt(at) => Some(to_sql(at)),
            Finished::RetryInPlaceAt(_) => Some(to_sql(q.first.due_at)),
            Finished::Delivered | Finished::Filtered | Finished::DeadLetter(_) => None,
        };
        let retry_at = |o: &Outcome| match o.step {
            Finished::RetryInPlaceAt(at) => Some(to_sql(at)),
            Finished::RetryAt(_)
            | Finished::Delivered
            | Finished::Filtered
            | Finished::DeadLetter(_) => None,
        };
        let reason = |o: &Outcome| match o.step {
            Finished::DeadLetter(reason) => Some(reason.as_str()),
            Finished::Filtered => Some(FILTERED),
            Finished::Delivered | Finished::RetryAt(_) | Finished::RetryInPlaceAt(_) => None,
        };
        let query = self
            .0
            .pool
            .query(statement)
            .bind(leases().map(|(shard, _)| shard_name(shard)).bind_iter())
            .bind(leases().map(|(shard, _)| shard_to_sql(shard)).bind_iter())
            .bind(leases().map(|(_, epoch)| epoch).bind_iter())
            .bind(&*held.holder)
            .bind(
                queued
                    .iter()
                    .map(|q| shard_to_sql(q.first.shard))
                    .bind_iter(),
            )
            .bind(queued.iter().map(|q| q.first.destination_id).bind_iter())
            .bind(queued.iter().map(|q| to_sql(q.first.due_at)).bind_iter())
            .bind(queued.iter().map(|q| q.first.delivery_id).bind_iter())
            .bind(queued.iter().map(next_due).bind_iter())
            .bind(
                queued
                    .iter()
                    .map(|q| i32::from(q.last.attempts))
                    .bind_iter(),
            )
            .bind(attempts().map(|(o, _)| shard_to_sql(o.shard)).bind_iter())
            .bind(attempts().map(|(o, _)| o.delivery_id).bind_iter())
            .bind(attempts().map(|(_, a)| i32::from(a.number)).bind_iter())
            .bind(attempts().map(|(o, _)| o.event_id).bind_iter())
            .bind(attempts().map(|(_, a)| to_sql(a.started_at)).bind_iter())
            .bind(attempts().map(|(_, a)| a.outcome).bind_iter())
            .bind(
                attempts()
                    .map(|(_, a)| {
                        a.status
                            .map(|status| i16::try_from(status).unwrap_or(i16::MAX))
                    })
                    .bind_iter(),
            )
            .bind(
                attempts()
                    .map(|(_, a)| a.error.as_deref().map(storable))
                    .bind_iter(),
            )
            .bind(
                attempts()
                    .map(|(_, a)| timing(a.timings.dns_us))
                    .bind_iter(),
            )
            .bind(
                attempts()
                    .map(|(_, a)| timing(a.timings.connect_us))
                    .bind_iter(),
            )
            .bind(
                attempts()
                    .map(|(_, a)| timing(a.timings.tls_us))
                    .bind_iter(),
            )
            .bind(
                attempts()
                    .map(|(_, a)| timing(a.timings.first_byte_us))
                    .bind_iter(),
            )
            .bind(
                attempts()
                    .map(|(_, a)| timing(a.timings.total_us))
                    .bind_iter(),
            )
            .bind(
                attempts()
                    .map(|(_, a)| a.response_headers.as_deref())
                    .bind_iter(),
            )
            .bind(
                attempts()
                    .map(|(_, a)| a.response_body.as_deref())
                    .bind_iter(),
            )
            .bind(attempts().map(|(_, a)| &*a.replica).bind_iter())
            .bind(finished().map(|o| shard_to_sql(o.shard)).bind_iter())
            .bind(finished().map(|o| o.delivery_id).bind_iter())
            .bind(finished().map(|o| o.event_id).bind_iter())
            .bind(finished().map(|o| o.connection_id).bind_iter())
            .bind(finished().map(|o| o.destination_id).bind_iter())
            .bind(finished().map(|o| &*o.namespace).bind_iter())
            .bind(finished().map(reason).bind_iter())
            .bind(finished().map(|o| i32::from(o.attempts)).bind_iter())
            .bind(finished().map(|o| to_sql(o.recorded_at)).bind_iter())
            .bind(queued.iter().map(|q| retry_at(q.last)).bind_iter())
            .bind(triggers().map(|(word, _)| word).bind_iter())
            .bind(triggers().map(|(_, job)| job).bind_iter())
            .bind(
                finished()
                    .map(|o| i32::try_from(o.round.number).unwrap_or(i32::MAX))
                    .bind_iter(),
            );
        let (mut session, since) = self.0.take().await?;
        let rows = query.all(&mut session).await?;
        self.0.give(session, since).await?;
        let shards = rows
            .iter()
            .map(|row| Ok(row.try_get::<i16, _>("shard")?.unsigned_abs()));
        Ok(WrittenShards(shards.collect::<Result<_>>()?))
    }
}

/// Postgres' text holds no NUL, and a destination's answer may have put one into the message.
fn storable(text: &str) -> Cow<'_, str> {
    if text.contains('\0') {
        Cow::Owned(text.replace('\0', "\u{fffd}"))
    } else {
        Cow::Borrowed(text)
    }
}

/// The first deliveries of a destination, if the routing table has no such destination any more. One whose event
/// retention has dropped leaves no trace.
const BURY: &str = concat!(
    "WITH held AS MATERIALIZED (
    SELECT FROM lease WHERE name = $1 AND epoch = $2 AND holder = $3 FOR SHARE
), gone AS (
    DELETE FROM queue q
    USING (SELECT due_at, delivery_id FROM queue WHERE shard = $4 AND destination_id = $5 ORDER BY due_at, delivery_id LIMIT $6) k
    WHERE q.shard = $4 AND q.destination_id = $5 AND q.due_at = k.due_at AND q.delivery_id = k.delivery_id
      AND EXISTS (SELECT FROM held)
      AND EXISTS (SELECT FROM route_head WHERE revision > 0)
      AND NOT EXISTS (SELECT FROM routes WHERE kind = 'destination' AND uid = $5 AND NOT deleted)
    RETURNING q.*
), finished AS (
    INSERT INTO deliveries AS old (id, event_id, connection_id, destination_id, namespace, state, reason, attempts, created_at,
                                   finished_at, round)
    SELECT delivery_id, event_id, connection_id, destination_id, namespace, 'dead_letter', $7, attempts, recorded_at, now(), round
    FROM gone WHERE EXISTS (SELECT FROM events e WHERE e.id = gone.event_id)
    ",
    again!(),
    "
)
SELECT count(*) FROM gone"
);

/// Finishes up to `limit` pending deliveries of a destination that was deleted, as dead letters without another attempt.
///
/// Returns how many; none when the routing table still has the destination (a gateway that cannot read its row must not
/// take it for deleted), when nothing was ever published, or when the lease is another's.
pub async fn bury(
    pool: &Pool,
    shard: u16,
    epoch: i64,
    holder: &str,
    destination: Uuid,
    limit: u32,
) -> Result<u64> {
    let query = pool
        .query(BURY)
        .bind(shard_name(shard))
        .bind(epoch)
        .bind(holder)
        .bind(shard_to_sql(shard))
        .bind(destination)
        .bind(i64::from(limit))
        .bind(GaveUp::DestinationDeleted.as_str());
    let mut session = pool.session().await?;
    let row = query.one(&mut session).await?;
    session.done().await?;
    Ok(row.try_get::<i64, _>(0)?.unsigned_abs())
}

/// Deliveries whose event is gone, among the first of a destination.
const DROP_ORPHANS: &str = "\
WITH held AS MATERIALIZED (
    SELECT FROM lease WHERE name = $1 AND epoch = $2 AND holder = $3 FOR SHARE
), gone AS (
    DELETE FROM queue q
    USING (SELECT due_at, delivery_id FROM queue WHERE shard = $4 AND destination_id = $5 ORDER BY due_at, delivery_id LIMIT $6) k
    WHERE q.shard = $4 AND q.destination_id = $5 AND q.due_at = k.due_at AND q.delivery_id = k.delivery_id
      AND EXISTS (SELECT FROM held)
      AND NOT EXISTS (SELECT FROM events e WHERE e.id = q.event_id)
    RETURNING 1
)
SELECT count(*) FROM gone";

/// Removes pending deliveries that can't be made since retention has dropped their events, among the first `limit`.
pub async fn drop_orphans(
    pool: &Pool,
    shard: u16,
    epoch: i64,
    holder: &str,
    destination: Uuid,
    limit: u32,
) -> Result<u64> {
    let query = pool
        .query(DROP_ORPHANS)
        .bind(shard_name(shard))
        .bind(epoch)
        .bind(holder)
        .bind(shard_to_sql(shard))
        .bind(destination)
        .bind(i64::from(limit));
    let mut session = pool.session().await?;
    let row = query.one(&mut session).await?;
    session.done().await?;
    Ok(row.try_get::<i64, _>(0)?.unsigned_abs())
}
