//! Events: what senders gave us, byte for byte.
//!
//! [`record`] is the accepting commit: an event and its deliveries are there together or not at all.

pub(crate) mod recording;

pub(crate) use recording::record_within;
pub use recording::{Recorder, record};

use crate::{
    Pool, dedup,
    error::{Error, Result},
    idempotency,
    pool::On,
    time::from_sql,
};
use bytes::Bytes;
use jiff::Timestamp;
use sqlx::{Row, postgres::PgRow};
use std::{
    collections::HashSet,
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
    /// As sent; empty when it is an object.
    pub body: Bytes,
    /// The size of a body that is in the object store.
    pub object_bytes: Option<u64>,
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
            object_bytes: None,
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

/// The columns of [`Event::from_row`], of a table or alias `e`.
macro_rules! event_columns {
    () => {
        "e.id AS event_id, e.namespace, e.source_id, e.revision, e.received_at, e.method, e.path, e.query, e.headers, e.body, e.object_bytes, \
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

pub(crate) const EXISTING: &str = "SELECT id FROM events WHERE id = ANY($1::uuid[])";

/// Which of these events there are.
pub async fn existing(pool: &Pool, ids: &[Uuid]) -> Result<HashSet<Uuid>> {
    let mut session = pool.session().await?;
    let rows = pool.query(EXISTING).bind(ids).all(&mut session).await?;
    session.done().await?;
    rows.iter().map(|row| Ok(row.try_get("id")?)).collect()
}

impl Event {
    /// The size of the body, wherever it is.
    pub fn body_bytes(&self) -> u64 {
        self.object_bytes.unwrap_or(self.body.len() as u64)
    }

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
            object_bytes: row
                .try_get::<Option<i64>, _>("object_bytes")?
                .map(i64::unsigned_abs),
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
            .field("body_bytes", &self.body_bytes())
            .finish_non_exhaustive()
    }
}

fn size_to_sql(bytes: u64) -> i64 {
    i64::try_from(bytes).unwrap_or(i64::MAX)
}

/// Shards are below 4096.
pub(crate) fn shard_to_sql(shard: u16) -> i16 {
    i16::try_from(shard).unwrap_or(i16::MAX)
}
