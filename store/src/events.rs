//! Events: what senders gave us, byte for byte.
//!
//! [`record`] is the accepting commit: an event and its deliveries are there together or not at all.

use crate::{Pool, error::Result};
use bytes::Bytes;
use jiff::Timestamp;
use std::{net::IpAddr, sync::Arc};
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

/// Records a batch in one statement. The deliveries are due at their event's `received_at`.
///
/// May be called again with the same batch when it is not known whether the first call committed: events that are there
/// already are left alone, and so are their deliveries, also those finished since.
/// [`crate::Error::MissingPartition`]: make the partitions and call again.
pub async fn record(pool: &Pool, batch: &[Recorded]) -> Result<()> {
    let _ = (pool, batch);
    unimplemented!()
}

/// The events of these ids that still exist, in no particular order.
pub async fn get_many(pool: &Pool, ids: &[Uuid]) -> Result<Vec<Arc<Event>>> {
    let _ = (pool, ids);
    unimplemented!()
}
