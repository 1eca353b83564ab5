//! What a request becomes: the rows, and after their commit what its sender is told.

use super::{Ingest, Ready, Taken, body, head, ids, judge::Record, sources};
use crate::{errors::Refusal, table::Applied};
use routing::{
    Table,
    ids::{Prefix, format},
    table::{Connection, Source},
};
use std::sync::Arc;
use store::events::{Event, Kept, NewDelivery, Recorded, Verification};
use uuid::Uuid;

/// The source that a request goes to, and the table in which it was found.
pub(super) struct Addressed<'a> {
    pub(super) ready: &'a Ready,
    pub(super) applied: &'a Applied,
    pub(super) source: &'a Arc<Source>,
    pub(super) counts: &'a sources::Counts,
}

/// An event that is recorded.
pub(super) struct Accepted {
    pub(super) event_id: Uuid,
    /// It had been there before; the id is the first event's.
    pub(super) duplicate: bool,
    pub(super) body_bytes: u64,
    pub(super) deliveries: usize,
}

/// The rows of a request, whose body is in memory or (see [`Event::object_bytes`]) will be said to be elsewhere.
pub(super) fn rows(id: Uuid, record: Record, to: &Addressed<'_>) -> Recorded {
    let request = record.request;
    let event = Event {
        id,
        namespace: to.counts.namespace().clone(),
        source_id: to.source.uid,
        revision: to.applied.head.revision,
        received_at: request.received_at,
        method: request.head.method.as_str().to_owned(),
        path: request.rest().to_owned(),
        query: request.query().to_owned(),
        headers: head::lines(request.head.version, &request.head.headers),
        body: request.body,
        object_bytes: None,
        remote_addr: request.remote_addr,
    };
    Recorded {
        deliveries: deliveries(id, record.matched, &to.applied.table, to.ready.shards),
        event: Arc::new(event),
        verification: record.verification,
        dedup: record.dedup,
        claim: None,
    }
}

/// The (connection, destination) pairs of [`deliveries`].
pub(crate) fn pairs(matched: Vec<&Arc<Connection>>) -> Vec<(Uuid, Uuid)> {
    let pair = |connection: &Arc<Connection>| (connection.uid, connection.destination);
    matched.into_iter().map(pair).collect()
}

/// Of the (connection, destination) pairs that an event goes by.
pub(crate) fn deliveries(
    event_id: Uuid,
    matched: Vec<(Uuid, Uuid)>,
    table: &Table,
    shards: u16,
) -> Vec<NewDelivery> {
    if matched.is_empty() {
        return Vec::new();
    }
    let base = ids::random();
    let delivery = |(index, (connection_id, destination_id))| NewDelivery {
        id: ids::delivery(event_id, base, index),
        connection_id,
        destination_id,
        shard: routing::shard::of(destination_id, shards),
        ordered: table
            .destination(destination_id)
            .is_some_and(|row| row.spec.order.is_some()),
    };
    matched.into_iter().enumerate().map(delivery).collect()
}

impl Ingest {
    /// Commits what a request became; `kept`: its body is an object, which goes again if the event isn't recorded.
    pub(super) async fn record(
        &self,
        recorded: Recorded,
        kept: bool,
        charge: body::Charge,
        to: &Addressed<'_>,
    ) -> Result<Taken, Refusal> {
        let mut accepted = Accepted {
            event_id: recorded.event.id,
            duplicate: false,
            body_bytes: recorded.event.body_bytes(),
            deliveries: recorded.deliveries.len(),
        };
        let marked = recorded.verification == Verification::SchemaInvalid;
        let committed = match to.ready.recorder.record(recorded, charge).await {
            Ok(committed) => committed,
            Err(refusal) => {
                if kept && !matches!(refusal, Refusal::DatabaseAway) {
                    to.ready.bodies.forget(accepted.event_id).await;
                }
                return Err(refusal);
            }
        };
        if marked {
            self.sources
                .marked(to.counts, "schema_invalid", &self.metrics.ingest);
        }
        if let Kept::Duplicate(first) = committed {
            self.sources
                .marked(to.counts, "duplicate", &self.metrics.ingest);
            if to.source.dedup.as_ref().is_some_and(|rule| rule.conflict) {
                let first = format(Prefix::Event, first);
                return Err(Refusal::Duplicate { first });
            }
            accepted.event_id = first;
            accepted.duplicate = true;
            accepted.deliveries = 0;
        }
        Ok(Taken::Recorded(accepted))
    }
}
