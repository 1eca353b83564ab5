//! Events: what senders gave us, byte for byte.
//!
//! [`record`] is the accepting commit: an event and its deliveries are there together or not at all.

use crate::{
    Pool,
    error::{Error, Result},
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
}

/// An event with the deliveries that it matched; none is possible.
#[derive(Debug, Clone)]
pub struct Recorded {
    pub event: Arc<Event>,
    pub deliveries: Vec<NewDelivery>,
}

/// One statement. `recorded` gives only what this statement inserted, so a batch that is recorded again adds no queue row:
/// its delivery may have been finished meanwhile. `coalesce` keeps the planner from turning the IN into a join; what
/// remains is one look into a hash table per delivery.
pub(crate) const RECORD: &str = "\
WITH recorded AS (
    INSERT INTO events (id, namespace, source_id, revision, received_at, method, path, query, headers, body, remote_addr)
    SELECT id, namespace, source_id, revision, received_at, method, path, query, headers, body, remote_addr::inet
    FROM unnest($1::uuid[], $2::text[], $3::uuid[], $4::bigint[], $5::timestamptz[], $6::text[], $7::text[], $8::text[],
                $9::bytea[], $10::bytea[], $11::text[])
        AS e (id, namespace, source_id, revision, received_at, method, path, query, headers, body, remote_addr)
    ON CONFLICT (id) DO NOTHING
    RETURNING id
)
INSERT INTO queue (shard, destination_id, due_at, delivery_id, event_id, connection_id, namespace, attempts, recorded_at)
SELECT shard, destination_id, due_at, delivery_id, event_id, connection_id, namespace, 0, due_at
FROM unnest($12::smallint[], $13::uuid[], $14::timestamptz[], $15::uuid[], $16::uuid[], $17::uuid[], $18::text[])
    AS d (shard, destination_id, due_at, delivery_id, event_id, connection_id, namespace)
WHERE coalesce(d.event_id IN (SELECT id FROM recorded), false)
ON CONFLICT DO NOTHING";

/// Records a batch in one statement. The deliveries are due at their event's `received_at`.
///
/// May be called again with the same batch when it is not known whether the first call committed: events that are there
/// already are left alone, and so are their deliveries, also those finished since.
/// [`crate::Error::MissingPartition`]: make the partitions and call again. The caller bounds the batch: Postgres takes
/// 1 GiB of bodies at most.
pub async fn record(pool: &Pool, batch: &[Recorded]) -> Result<()> {
    let mut session = pool.session().await?;
    record_within(pool, &mut session, batch).await?;
    session.done().await
}

/// The same in a transaction that does more.
pub(crate) async fn record_within(
    pool: &Pool,
    session: &mut Session,
    batch: &[Recorded],
) -> Result<()> {
    if batch.is_empty() {
        return Ok(());
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
        .bind(deliveries().map(|(e, _)| to_sql(e.received_at)).bind_iter())
        .bind(deliveries().map(|(_, d)| d.id).bind_iter())
        .bind(deliveries().map(|(e, _)| e.id).bind_iter())
        .bind(deliveries().map(|(_, d)| d.connection_id).bind_iter())
        .bind(deliveries().map(|(e, _)| &*e.namespace).bind_iter());
    query.run(session).await.map(drop)
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
