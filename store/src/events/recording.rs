//! The accepting commit: what it writes, and in how few steps.
//!
//! Nearly all batches are of events that are there for the first time, and nearly all keys are, so that is what the first
//! try takes for granted: an insert that has to look first whether its row is there costs Postgres a third more. A batch
//! that meets a row all the same is recorded by the statement that looks: one whose first commit was carried out although
//! its answer was lost, or one with a copy of an event. Where there was a copy more will come ([`CAREFUL_FOR`]).

use super::{Kept, Recorded, shard_to_sql, size_to_sql};
use crate::{
    Pool, dedup,
    error::Result,
    idempotency,
    pool::{self, On, Session},
    time::to_sql,
};
use bytes::Bytes;
use sqlx::{
    Postgres, Row,
    postgres::{PgArguments, PgBindIterExt, PgRow},
    query::Query,
};
use std::time::Duration;
use tokio::time::Instant;
use uuid::Uuid;

/// The rows of the batch, column by column. Several `unnest` in one list of columns go step by step with each other, and
/// copy nothing; as a table of several columns each of them would be written to a store of its own first.
macro_rules! events {
    ($($more:literal)?) => {
        concat!(
            "SELECT unnest($1::uuid[]) AS id, unnest($2::text[]) AS namespace, unnest($3::uuid[]) AS source_id, \
             unnest($4::bigint[]) AS revision, unnest($5::timestamptz[]) AS received_at, unnest($6::text[]) AS method, \
             unnest($7::text[]) AS path, unnest($8::text[]) AS query, unnest($9::bytea[]) AS headers, \
             unnest($10::bytea[]) AS body, unnest($11::text[])::inet AS remote_addr, \
             unnest($19::text[]) AS verification_status, unnest($20::bigint[]) AS object_bytes",
            $($more)?
        )
    };
}

/// The deliveries' rows: due when their event was received, or, where there is an order, at the moment in which they are
/// written, in the order of the batch.
macro_rules! deliveries {
    () => {
        "SELECT shard, destination_id, coalesce(due_at, clock_timestamp()) AS due, delivery_id, event_id, connection_id, namespace
        FROM (SELECT unnest($12::smallint[]) AS shard, unnest($13::uuid[]) AS destination_id, unnest($14::timestamptz[]) AS due_at,
                     unnest($15::uuid[]) AS delivery_id, unnest($16::uuid[]) AS event_id, unnest($17::uuid[]) AS connection_id,
                     unnest($18::text[]) AS namespace OFFSET 0) u OFFSET 0"
    };
}

macro_rules! into_events {
    () => {
        "INSERT INTO events (id, namespace, source_id, revision, received_at, method, path, query, headers, body, remote_addr,
                        verification_status, object_bytes"
    };
}

macro_rules! into_queue {
    () => {
        "INSERT INTO queue (shard, destination_id, due_at, delivery_id, event_id, connection_id, namespace, attempts, recorded_at)
    SELECT shard, destination_id, due, delivery_id, event_id, connection_id, namespace, 0, due"
    };
}

macro_rules! into_dedup {
    ($($as:literal)?) => {
        concat!(
            "INSERT INTO dedup", $($as,)? " (key, event_id, expires_at)
    SELECT key, event_id, now() + window_ms * interval '1 ms'
    FROM (SELECT unnest($21::uuid[]) AS key, unnest($22::uuid[]) AS event_id, unnest($23::bigint[]) AS window_ms) k"
        )
    };
}

/// Of events of which none has a key of any kind, all there for the first time.
pub(crate) const RECORD_NEW: &str = concat!(
    "WITH recorded AS (
    ",
    into_events!(),
    ")
    ",
    events!(),
    "
)
",
    into_queue!(),
    " FROM (",
    deliveries!(),
    ") d"
);

/// Of events of which some have a key, each a different one and none remembered, and none an idempotency key.
///
/// The keys come first, as what the statement is for: if one is remembered, nothing else was written in vain.
pub(crate) const RECORD_FIRSTS: &str = concat!(
    "WITH recorded AS (
    ",
    into_events!(),
    ")
    ",
    events!(),
    "
), queued AS (
    ",
    into_queue!(),
    " FROM (",
    deliveries!(),
    ") d
)
",
    into_dedup!()
);

/// `keyed` remembers the keys and gives for each the event that it belongs to: ours, or one that was first.
/// It writes every key it meets, also one that stays as it is: that waits for a transaction which is just recording the
/// same key, and answers what that one has decided. An event finds its key's by the key's place, not by a join, which a
/// plan made for no rows would do row by row.
///
/// `claimed` does the same for idempotency keys; events of a request whose claim is another's are left out.
///
/// `recorded` gives only what this statement inserted, so a batch that is recorded again adds no queue row: its delivery
/// may have been finished meanwhile. `coalesce` keeps the planner from turning the IN into a join; what remains is one
/// look into a hash table per delivery.
macro_rules! record {
    ($if_there:literal) => {
        concat!(
            "WITH keyed AS (
    ",
            into_dedup!(" AS d"),
            "
    ON CONFLICT (key) DO UPDATE SET
        event_id = CASE WHEN d.expires_at <= now() THEN excluded.event_id ELSE d.event_id END,
        expires_at = CASE WHEN d.expires_at <= now() THEN excluded.expires_at ELSE d.expires_at END
    RETURNING key, event_id
), claimed AS (
    INSERT INTO idempotency AS i (key, token, fingerprint, answer, expires_at)
    SELECT key, token, fingerprint, answer, now() + kept_ms * interval '1 ms'
    FROM (SELECT unnest($25::uuid[]) AS key, unnest($26::uuid[]) AS token, unnest($27::uuid[]) AS fingerprint,
                 unnest($28::bytea[]) AS answer, unnest($29::bigint[]) AS kept_ms) c
    ",
            idempotency::or_find!(),
            "
), recorded AS (
    ",
            into_events!(),
            ", duplicate_of)
    SELECT id, namespace, source_id, revision, received_at, method, path, query, headers, body, remote_addr,
           verification_status, object_bytes, nullif((SELECT array_agg(event_id ORDER BY key) FROM keyed)[key_place], id)
    FROM (",
            events!(
                ", unnest($24::integer[]) AS key_place, unnest($30::integer[]) AS claim_place, unnest($31::uuid[]) AS claim_token"
            ),
            ") e
    WHERE claim_place IS NULL OR coalesce((SELECT array_agg(token ORDER BY key) FROM claimed)[claim_place] = claim_token, false)
    ",
            $if_there,
            "
    RETURNING id, duplicate_of
), queued AS (
    ",
            into_queue!(),
            "
    FROM (",
            deliveries!(),
            ") d
    WHERE coalesce(d.event_id IN (SELECT id FROM recorded WHERE duplicate_of IS NULL), false)
    ",
            $if_there,
            "
)
SELECT (SELECT array_agg(event_id ORDER BY key) FROM keyed) AS firsts, array_agg(token ORDER BY key) AS tokens,
       array_agg(fingerprint ORDER BY key) AS fingerprints, array_agg(answer ORDER BY key) AS answers
FROM claimed"
        )
    };
}

/// Of events of which some have keys, remembered ones perhaps, all there for the first time.
pub(crate) const RECORD_KEYED: &str = record!("");

/// Of any events, also of some that are there already.
pub(crate) const RECORD: &str = record!("ON CONFLICT DO NOTHING");

/// Records a batch in one statement, and returns for each event what became of it. A duplicate is recorded as such and gets
/// no deliveries. The deliveries are due at their event's `received_at`, or, where there is an order, at the moment in
/// which they are written, in the order of the batch.
///
/// Of events with the same key in one batch the first is the first, and of requests the first claims. Two batches that
/// share a key wait for each other, in the order of the keys, so they never wait in a circle.
///
/// May be called again with the same batch when it is not known whether the first call committed: events that are there
/// already are left alone, and so are their deliveries, also those finished since.
/// [`crate::Error::MissingPartition`]: make the partitions and call again. The caller bounds the batch: Postgres takes
/// 1 GiB of bodies at most.
pub async fn record(pool: &Pool, batch: &[Recorded]) -> Result<Vec<Kept>> {
    Recorder::new(pool.clone()).record(batch).await
}

/// How long after a remembered key was met the keys of a batch are looked up before they are written. A batch that takes
/// its keys for new and meets one is written twice, and leaves an error in the server's log: once in this time at most.
const CAREFUL_FOR: Duration = Duration::from_secs(10);

/// Records one batch after another, on a connection that it keeps while they follow each other.
#[derive(Debug, Clone)]
pub struct Recorder {
    reused: pool::Reused,
    /// Until when keys are looked up first.
    careful_until: Option<Instant>,
}

impl Recorder {
    /// Takes its connections from `pool`, one at a time.
    pub fn new(pool: Pool) -> Recorder {
        Recorder {
            reused: pool::Reused::new(pool),
            careful_until: None,
        }
    }

    /// Where its connections come from.
    pub fn pool(&self) -> &Pool {
        &self.reused.pool
    }

    /// Gives the connection back; for whoever is going to wait for work.
    pub fn rest(&mut self) {
        self.reused.rest();
    }

    /// As [`record()`].
    pub async fn record(&mut self, batch: &[Recorded]) -> Result<Vec<Kept>> {
        if batch.is_empty() {
            return Ok(Vec::new());
        }
        let parts = Batch::of(batch);
        let careful = self.careful_until.is_some_and(|end| Instant::now() < end);
        let (mut session, since) = self.reused.take().await?;
        let pool = &self.reused.pool;
        // A key that is there, if only because its window has just ended.
        let mut met = false;
        let kept = match parts.record_first(careful, pool, &mut session).await {
            // The session may be a transaction, and that has failed.
            Err(error) if error.is_unique_violation() => {
                drop(session);
                met = !parts.keys.sorted.is_empty();
                session = pool.session().await?;
                parts.record(RECORD, pool, &mut session).await?
            }
            result => result?,
        };
        if met || kept.iter().any(|kept| matches!(kept, Kept::Duplicate(_))) {
            self.careful_until = Some(Instant::now() + CAREFUL_FOR);
        }
        self.reused.give(session, since).await?;
        Ok(kept)
    }
}

/// The same in a transaction that does more.
pub(crate) async fn record_within(
    pool: &Pool,
    session: &mut Session,
    batch: &[Recorded],
) -> Result<Vec<Kept>> {
    if batch.is_empty() {
        return Ok(Vec::new());
    }
    Batch::of(batch).record(RECORD, pool, session).await
}

/// Events and their keys.
struct Batch<'b> {
    events: &'b [Recorded],
    keys: Keys,
    claims: Claims<'b>,
}

impl<'b> Batch<'b> {
    fn of(events: &'b [Recorded]) -> Batch<'b> {
        Batch {
            events,
            keys: Keys::of(events),
            claims: Claims::of(events),
        }
    }

    /// Takes for granted that no event is there, and unless it is to be `careful`, that no key is remembered.
    /// [`crate::Error::is_unique_violation`]: one is, and nothing was written.
    async fn record_first(
        &self,
        careful: bool,
        pool: &Pool,
        session: &mut Session,
    ) -> Result<Vec<Kept>> {
        let query = if !self.claims.sorted.is_empty() {
            return self.record(RECORD_KEYED, pool, session).await;
        } else if self.keys.sorted.is_empty() {
            self.bind(pool.query(RECORD_NEW))
        } else if careful || self.keys.repeated() {
            return self.record(RECORD_KEYED, pool, session).await;
        } else {
            self.bind_keys(self.bind(pool.query(RECORD_FIRSTS)))
        };
        query.run(session).await?;
        Ok(vec![Kept::New; self.events.len()])
    }

    /// By one of the statements that know keys.
    async fn record(
        &self,
        statement: &'static str,
        pool: &Pool,
        session: &mut Session,
    ) -> Result<Vec<Kept>> {
        let query = self.bind_places(self.bind_keys(self.bind(pool.query(statement))));
        let row = query.one(session).await?;
        let firsts: Option<Vec<Uuid>> = row.try_get("firsts")?;
        let mut kept = self.keys.kept(self.events, &firsts.unwrap_or_default());
        if !self.claims.sorted.is_empty() {
            self.claims.correct(self.events, &row, &mut kept)?;
        }
        Ok(kept)
    }

    /// The parameters that all statements have.
    fn bind<'q>(
        &self,
        query: Query<'q, Postgres, PgArguments>,
    ) -> Query<'q, Postgres, PgArguments> {
        let batch = self.events;
        let events = || batch.iter().map(|recorded| &*recorded.event);
        let deliveries = || {
            batch.iter().flat_map(|recorded| {
                let event = &*recorded.event;
                recorded
                    .deliveries
                    .iter()
                    .map(move |delivery| (event, delivery))
            })
        };
        query
            .bind(events().map(|e| e.id).bind_iter())
            .bind(events().map(|e| &*e.namespace).bind_iter())
            .bind(events().map(|e| e.source_id).bind_iter())
            .bind(events().map(|e| e.revision).bind_iter())
            .bind(events().map(|e| to_sql(e.received_at)).bind_iter())
            .bind(events().map(|e| &*e.method).bind_iter())
            .bind(events().map(|e| &*e.path).bind_iter())
            .bind(events().map(|e| &*e.query).bind_iter())
            .bind(events().map(|e| &e.headers[..]).bind_iter())
            .bind(events().map(|e| &e.body[..]).bind_iter())
            .bind(events().map(|e| e.remote_addr.to_string()).bind_iter())
            .bind(deliveries().map(|(_, d)| shard_to_sql(d.shard)).bind_iter())
            .bind(deliveries().map(|(_, d)| d.destination_id).bind_iter())
            .bind(
                deliveries()
                    .map(|(e, d)| (!d.ordered).then(|| to_sql(e.received_at)))
                    .bind_iter(),
            )
            .bind(deliveries().map(|(_, d)| d.id).bind_iter())
            .bind(deliveries().map(|(e, _)| e.id).bind_iter())
            .bind(deliveries().map(|(_, d)| d.connection_id).bind_iter())
            .bind(deliveries().map(|(e, _)| &*e.namespace).bind_iter())
            .bind(batch.iter().map(|r| r.verification.as_str()).bind_iter())
            .bind(
                events()
                    .map(|e| e.object_bytes.map(size_to_sql))
                    .bind_iter(),
            )
    }

    /// The keys.
    fn bind_keys<'q>(
        &self,
        query: Query<'q, Postgres, PgArguments>,
    ) -> Query<'q, Postgres, PgArguments> {
        let keys = &self.keys.sorted;
        query
            .bind(keys.iter().map(|(key, ..)| *key).bind_iter())
            .bind(keys.iter().map(|(_, event, _)| *event).bind_iter())
            .bind(keys.iter().map(|(.., window)| *window).bind_iter())
    }

    /// Whose the keys are, and the idempotency keys.
    fn bind_places<'q>(
        &self,
        query: Query<'q, Postgres, PgArguments>,
    ) -> Query<'q, Postgres, PgArguments> {
        let (keys, claims) = (&self.keys, &self.claims);
        let tokens = self
            .events
            .iter()
            .map(|recorded| recorded.claim.as_ref().map(|claim| claim.token));
        query
            .bind(keys.places.iter().copied().bind_iter())
            .bind(claims.sorted.iter().map(|claim| claim.key).bind_iter())
            .bind(claims.sorted.iter().map(|claim| claim.token).bind_iter())
            .bind(
                claims
                    .sorted
                    .iter()
                    .map(|claim| claim.fingerprint)
                    .bind_iter(),
            )
            .bind(
                claims
                    .sorted
                    .iter()
                    .map(|claim| &claim.answer[..])
                    .bind_iter(),
            )
            .bind(
                claims
                    .sorted
                    .iter()
                    .map(|_| idempotency::KEPT_MS)
                    .bind_iter(),
            )
            .bind(claims.places.iter().copied().bind_iter())
            .bind(tokens.bind_iter())
    }
}

/// The claims of a batch, one for each key.
#[derive(Debug, Default)]
struct Claims<'b> {
    /// In the keys' order, which is Postgres' too.
    sorted: Vec<&'b idempotency::Claim>,
    /// Of each event: its claim's key's place in `sorted`, from 1.
    places: Vec<Option<i32>>,
}

impl<'b> Claims<'b> {
    fn of(batch: &'b [Recorded]) -> Claims<'b> {
        let claims = batch
            .iter()
            .filter_map(|recorded| recorded.claim.as_deref());
        let mut sorted: Vec<&idempotency::Claim> = claims.collect();
        // Stable, so of several with one key the first of the batch stays.
        sorted.sort_by_key(|claim| claim.key);
        sorted.dedup_by_key(|claim| claim.key);
        let place = |recorded: &Recorded| {
            let key = recorded.claim.as_ref()?.key;
            let found = sorted.binary_search_by_key(&key, |claim| claim.key).ok()?;
            i32::try_from(found + 1).ok()
        };
        let places = batch.iter().map(place).collect();
        Claims { sorted, places }
    }

    /// Of events whose claim is another's.
    fn correct(&self, batch: &[Recorded], row: &PgRow, kept: &mut [Kept]) -> Result<()> {
        let tokens: Vec<Uuid> = row.try_get("tokens")?;
        let fingerprints: Vec<Uuid> = row.try_get("fingerprints")?;
        let mut answers: Option<Vec<Vec<u8>>> = None;
        for ((recorded, place), kept) in batch.iter().zip(&self.places).zip(kept) {
            let (Some(claim), Some(place)) = (&recorded.claim, place) else {
                continue;
            };
            let found = usize::try_from(place - 1).unwrap_or(usize::MAX);
            if tokens.get(found) == Some(&claim.token) {
                continue;
            }
            if fingerprints.get(found) != Some(&claim.fingerprint) {
                *kept = Kept::Mismatch;
                continue;
            }
            let answers = match &answers {
                Some(answers) => answers,
                None => answers.insert(row.try_get("answers")?),
            };
            let answer = answers.get(found).map(Vec::as_slice).unwrap_or_default();
            *kept = Kept::Answered(Bytes::copy_from_slice(answer));
        }
        Ok(())
    }
}

/// The keys of a batch, each once.
#[derive(Debug, Default)]
struct Keys {
    /// Key, first event of the batch, window in milliseconds; in the keys' order, which is Postgres' too: by bytes.
    sorted: Vec<(Uuid, Uuid, i64)>,
    /// Of each event of the batch: its key's place in `sorted`, from 1 as arrays of Postgres count.
    places: Vec<Option<i32>>,
}

impl Keys {
    fn of(batch: &[Recorded]) -> Keys {
        let mut sorted: Vec<(Uuid, Uuid, i64)> = batch
            .iter()
            .filter_map(|recorded| {
                let dedup::Key { key, window } = recorded.dedup?;
                let window = i64::try_from(window.as_millis()).unwrap_or(i64::MAX);
                Some((key, recorded.event.id, window))
            })
            .collect();
        // Stable, so of several with one key the first of the batch stays.
        sorted.sort_by_key(|(key, ..)| *key);
        sorted.dedup_by_key(|(key, ..)| *key);
        let place = |key: &dedup::Key| {
            let found = sorted.binary_search_by_key(&key.key, |(key, ..)| *key);
            found.ok().and_then(|place| i32::try_from(place + 1).ok())
        };
        let places = batch
            .iter()
            .map(|recorded| recorded.dedup.as_ref().and_then(place))
            .collect();
        Keys { sorted, places }
    }

    /// Whether several events of the batch have the same.
    fn repeated(&self) -> bool {
        self.places.iter().flatten().count() > self.sorted.len()
    }

    /// Of each event whether it was the first of its key. `firsts` are in the keys' order.
    fn kept(&self, batch: &[Recorded], firsts: &[Uuid]) -> Vec<Kept> {
        let first = |place: &Option<i32>| {
            let place = usize::try_from((*place)?).ok()?;
            firsts.get(place.checked_sub(1)?).copied()
        };
        self.places
            .iter()
            .zip(batch)
            .map(|(place, recorded)| {
                first(place)
                    .filter(|first| *first != recorded.event.id)
                    .map_or(Kept::New, Kept::Duplicate)
            })
            .collect()
    }
}
