//! Events: what senders gave us, byte for byte.
//!
//! [`record`] is the accepting commit: an event and its deliveries are there together or not at all.

use crate::{
    Pool, dedup,
    error::{Error, Result},
    idempotency,
    pool::{On, Session},
    time::{from_sql, to_sql},
};
use bytes::Bytes;
use jiff::Timestamp;
use sqlx::{
    Row,
    postgres::{PgBindIterExt, PgRow},
};
use std::{
    fmt,
    net::{IpAddr, Ipv4Addr},
    sync::Arc,
};
use uuid::Uuid;

/// One accepted request.
#[derive(Clone, PartialEq, Eq)]
pub struct Event {
    /// UUIDv7; its millisecond decides the day partition.
    pub id: Uuid,
    pub namespace: Arc<str>,
    pub source_id: Uuid,
    /// The table revision that matched it.
    pub revision: i64,
    pub received_at: Timestamp,
    pub method: String,
    /// As sent, without the query.
    pub path: String,
    /// As sent, without the `?`; empty if there was none.
    pub query: String,
    /// `name: value\r\n` lines as sent, in order, duplicates kept.
    pub headers: Bytes,
    /// As sent.
    pub body: Bytes,
    /// The sender's, through trusted proxies only.
    pub remote_addr: IpAddr,
}

/// Nothing, from nobody, at the beginning of time: what tests begin with.
impl Default for Event {
    fn default() -> Self {
        Event {
            id: Uuid::nil(),
            namespace: Arc::from(""),
            source_id: Uuid::nil(),
            revision: 0,
            received_at: Timestamp::UNIX_EPOCH,
            method: String::new(),
            path: String::new(),
            query: String::new(),
            headers: Bytes::new(),
            body: Bytes::new(),
            remote_addr: Ipv4Addr::UNSPECIFIED.into(),
        }
    }
}

/// One delivery of an event that is about to be recorded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NewDelivery {
    /// From [`routing::ids::delivery`], of the same millisecond as its event's.
    pub id: Uuid,
    pub connection_id: Uuid,
    pub destination_id: Uuid,
    pub shard: u16,
    /// Its destination keeps an order: its place in the queue is by the database's clock, which all replicas share, and so
    /// behind all that were committed before, whichever replica took them.
    pub ordered: bool,
}

/// An event with the deliveries that it matched; none is possible.
#[derive(Debug, Clone, Default)]
pub struct Recorded {
    pub event: Arc<Event>,
    pub deliveries: Vec<NewDelivery>,
    pub verification: Verification,
    /// By which a second copy is recognised; `None`: every event is the first of its kind.
    pub dedup: Option<dedup::Key>,
    /// By which a request that is made again is recognised. Events of one request share it, and are recorded all or not at
    /// all.
    pub claim: Option<Arc<idempotency::Claim>>,
}

/// What became of an event that [`record`] was given.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Kept {
    /// It is recorded, and its deliveries are queued.
    New,
    /// It is recorded as a duplicate of this event, and goes nowhere.
    Duplicate(Uuid),
    /// Nothing was recorded: its request was made before, and this is what it was answered.
    Answered(Bytes),
    /// Nothing was recorded: another request has the same idempotency key.
    Mismatch,
}

/// What the source's checks found out. A request that fails them otherwise is no event.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Verification {
    /// The source asks for no proof.
    #[default]
    None,
    Verified,
    /// The body doesn't fit the source's schema, and the source takes it all the same.
    SchemaInvalid,
}

impl Verification {
    /// The word in the `events.verification_status` column.
    pub const fn as_str(self) -> Option<&'static str> {
        match self {
            Verification::None => None,
            Verification::Verified => Some("verified"),
            Verification::SchemaInvalid => Some("schema_invalid"),
        }
    }
}

/// One statement. `keyed` remembers the keys and gives for each the event that it belongs to: ours, or one that was first.
/// It writes every key it meets, also one that stays as it is: that waits for a transaction which is just recording the
/// same key, and answers what that one has decided. An event finds its key's by the key's place, not by a join, which a
/// plan made for no rows would do row by row.
///
/// `claimed` does the same for idempotency keys; events of a request whose claim is another's are left out.
///
/// `recorded` gives only what this statement inserted, so a batch that is recorded again adds no queue row: its delivery
/// may have been finished meanwhile. `coalesce` keeps the planner from turning the IN into a join; what remains is one
/// look into a hash table per delivery.
pub(crate) const RECORD: &str = concat!(
    "WITH keyed AS (
    INSERT INTO dedup AS d (key, event_id, expires_at)
    SELECT key, event_id, now() + window_ms * interval '1 ms' FROM unnest($19::uuid[], $20::uuid[], $21::bigint[]) AS k (key, event_id, window_ms)
    ON CONFLICT (key) DO UPDATE SET
        event_id = CASE WHEN d.expires_at <= now() THEN excluded.event_id ELSE d.event_id END,
        expires_at = CASE WHEN d.expires_at <= now() THEN excluded.expires_at ELSE d.expires_at END
    RETURNING key, event_id
), claimed AS (
    INSERT INTO idempotency AS i (key, token, fingerprint, answer, expires_at)
    SELECT key, token, fingerprint, answer, now() + kept_ms * interval '1 ms'
    FROM unnest($24::uuid[], $25::uuid[], $26::uuid[], $27::bytea[], $28::bigint[]) AS c (key, token, fingerprint, answer, kept_ms)
    ",
    idempotency::or_find!(),
    "
), recorded AS (
    INSERT INTO events (id, namespace, source_id, revision, received_at, method, path, query, headers, body, remote_addr,
                        verification_status, duplicate_of)
    SELECT id, namespace, source_id, revision, received_at, method, path, query, headers, body, remote_addr::inet,
           verification_status, nullif((SELECT array_agg(event_id ORDER BY key) FROM keyed)[key_place], id)
    FROM unnest($1::uuid[], $2::text[], $3::uuid[], $4::bigint[], $5::timestamptz[], $6::text[], $7::text[], $8::text[],
                $9::bytea[], $10::bytea[], $11::text[], $22::text[], $23::integer[],
                $29::integer[], $30::uuid[])
        AS e (id, namespace, source_id, revision, received_at, method, path, query, headers, body, remote_addr,
              verification_status, key_place, claim_place, claim_token)
    WHERE claim_place IS NULL OR coalesce((SELECT array_agg(token ORDER BY key) FROM claimed)[claim_place] = claim_token, false)
    ON CONFLICT (id) DO NOTHING
    RETURNING id, duplicate_of
), queued AS (
    INSERT INTO queue (shard, destination_id, due_at, delivery_id, event_id, connection_id, namespace, attempts, recorded_at)
    SELECT shard, destination_id, due, delivery_id, event_id, connection_id, namespace, 0, due
    FROM (
        SELECT *, coalesce(due_at, clock_timestamp()) AS due
        FROM unnest($12::smallint[], $13::uuid[], $14::timestamptz[], $15::uuid[], $16::uuid[], $17::uuid[], $18::text[])
            AS u (shard, destination_id, due_at, delivery_id, event_id, connection_id, namespace) OFFSET 0
    ) d
    WHERE coalesce(d.event_id IN (SELECT id FROM recorded WHERE duplicate_of IS NULL), false)
    ON CONFLICT DO NOTHING
)
SELECT (SELECT array_agg(event_id ORDER BY key) FROM keyed) AS firsts, array_agg(token ORDER BY key) AS tokens,
       array_agg(fingerprint ORDER BY key) AS fingerprints, array_agg(answer ORDER BY key) AS answers
FROM claimed"
);

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
    let mut session = pool.session().await?;
    let kept = record_within(pool, &mut session, batch).await?;
    session.done().await?;
    Ok(kept)
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
    let events = || batch.iter().map(|recorded| &*recorded.event);
    let deliveries = || {
        batch.iter().flat_map(|recorded| {
            recorded
                .deliveries
                .iter()
                .map(|delivery| (&*recorded.event, delivery))
        })
    };
    let keys = Keys::of(batch);
    let claims = Claims::of(batch);
    let query = pool
        .query(RECORD)
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
        .bind(keys.sorted.iter().map(|(key, ..)| *key).bind_iter())
        .bind(keys.sorted.iter().map(|(_, event, _)| *event).bind_iter())
        .bind(keys.sorted.iter().map(|(.., window)| *window).bind_iter())
        .bind(batch.iter().map(|r| r.verification.as_str()).bind_iter())
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
        .bind(
            batch
                .iter()
                .map(|recorded| recorded.claim.as_ref().map(|claim| claim.token))
                .bind_iter(),
        );
    let row = query.one(session).await?;
    let firsts: Option<Vec<Uuid>> = row.try_get("firsts")?;
    let mut kept = keys.kept(batch, &firsts.unwrap_or_default());
    if !claims.sorted.is_empty() {
        claims.correct(batch, &row, &mut kept)?;
    }
    Ok(kept)
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

/// The columns of [`Event::from_row`], of a table or alias `e`.
macro_rules! event_columns {
    () => {
        "e.id AS event_id, e.namespace, e.source_id, e.revision, e.received_at, e.method, e.path, e.query, e.headers, e.body, \
         host(e.remote_addr) AS remote_addr"
    };
}

pub(crate) use event_columns;

pub(crate) const GET_MANY: &str = concat!(
    "SELECT ",
    event_columns!(),
    " FROM events e WHERE e.id = ANY($1::uuid[])"
);

/// The events of these ids that still exist, in no particular order.
pub async fn get_many(pool: &Pool, ids: &[Uuid]) -> Result<Vec<Arc<Event>>> {
    let mut session = pool.session().await?;
    let rows = pool.query(GET_MANY).bind(ids).all(&mut session).await?;
    session.done().await?;
    rows.iter()
        .map(|row| Event::from_row(row).map(Arc::new))
        .collect()
}

impl Event {
    pub(crate) fn from_row(row: &PgRow) -> Result<Event> {
        let remote_addr: &str = row.try_get("remote_addr")?;
        Ok(Event {
            id: row.try_get("event_id")?,
            namespace: Arc::from(row.try_get::<&str, _>("namespace")?),
            source_id: row.try_get("source_id")?,
            revision: row.try_get("revision")?,
            received_at: from_sql(row.try_get("received_at")?),
            method: row.try_get("method")?,
            path: row.try_get("path")?,
            query: row.try_get("query")?,
            headers: Bytes::from(row.try_get::<Vec<u8>, _>("headers")?),
            body: Bytes::from(row.try_get::<Vec<u8>, _>("body")?),
            remote_addr: remote_addr
                .parse()
                .map_err(|error| Error::Data(Box::new(error)))?,
        })
    }
}

/// A sender's headers and body may hold secrets, so only their sizes are printed.
impl fmt::Debug for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Event")
            .field("id", &self.id)
            .field("namespace", &self.namespace)
            .field("source_id", &self.source_id)
            .field("received_at", &self.received_at)
            .field("method", &self.method)
            .field("path", &self.path)
            .field("header_bytes", &self.headers.len())
            .field("body_bytes", &self.body.len())
            .finish_non_exhaustive()
    }
}

/// Shards are below 4096.
pub(crate) fn shard_to_sql(shard: u16) -> i16 {
    i16::try_from(shard).unwrap_or(i16::MAX)
}
