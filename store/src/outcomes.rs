//! What came of attempts: written in batches, each batch one statement, fenced by the leases of its shards.

use crate::{Pool, error::Result, lease::Held};
use bytes::Bytes;
use jiff::Timestamp;
use std::sync::Arc;
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
    pub attempt: Attempt,
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
    DeadLetter(routing::retry::GaveUp),
    RetryAt(Timestamp),
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

/// Writes a batch in one statement: attempts and finished deliveries are appended, their queue rows deleted or moved to
/// the next due time; only for shards whose lease is still `held`.
///
/// May be called again with the same batch when it is not known whether the first call committed.
/// [`crate::Error::MissingPartition`]: make the partitions and call again.
pub async fn write(pool: &Pool, batch: &[Outcome], held: &Held) -> Result<WrittenShards> {
    let _ = (pool, batch, held);
    unimplemented!()
}
