//! Deliveries that nobody will ever send: their destination was deleted, or retention has dropped their events.
//!
//! The database decides what is really gone; here is only when to ask it. Both end in bounded statements under the
//! shard's epoch, so that a late owner buries nothing.

use super::{Actor, Message};
use crate::scheduler::destination::{BEGINNING, Destination};
use jiff::Timestamp;
use store::outcomes;
use uuid::Uuid;

/// Deliveries of a deleted destination that one statement finishes.
const BURIED: u32 = 500;

impl Actor {
    /// Finishes what is pending for destinations that have been out of the table for long enough. Whether they were
    /// deleted, the database decides: a row that this version can't read is out of our table only.
    pub(super) fn bury(&mut self, now: Timestamp) {
        let gone = |destination: &Destination| {
            let over = destination.gone_since.is_some_and(|since| {
                now.duration_since(since).unsigned_abs() >= self.options.gone_grace
            });
            over && destination.known() == 0 && !destination.burying && !destination.is_idle()
        };
        let gone: Vec<Uuid> = self
            .destinations
            .iter()
            .filter(|(_, destination)| gone(destination))
            .map(|(id, _)| *id)
            .collect();
        for id in gone {
            self.undertake(id, true);
        }
    }

    pub(super) fn undertake(&mut self, id: Uuid, deleted: bool) {
        let Some(destination) = self.destinations.get_mut(&id) else {
            return;
        };
        let Some(Some(held)) = self.shards.get(usize::from(destination.shard)) else {
            return;
        };
        if held.leaving || std::mem::replace(&mut destination.burying, true) {
            return;
        }
        let (pool, messages, holder) = (
            self.pool.clone(),
            self.messages.clone(),
            self.options.replica.clone(),
        );
        let (shard, epoch) = (destination.shard, held.epoch);
        tokio::spawn(async move {
            let mut total = 0;
            let buried = loop {
                let one = match deleted {
                    true => outcomes::bury(&pool, shard, epoch, &holder, id, BURIED).await,
                    false => outcomes::drop_orphans(&pool, shard, epoch, &holder, id, BURIED).await,
                };
                match one {
                    Ok(0) => break Ok(total),
                    Ok(some) => total += some,
                    Err(error) => break Err(error),
                }
            };
            let _ = messages.send(Message::Buried {
                destination: id,
                epoch,
                buried,
            });
        });
    }

    pub(super) fn buried(
        &mut self,
        id: Uuid,
        epoch: i64,
        buried: store::Result<u64>,
        now: Timestamp,
    ) {
        let Some(destination) = self.destinations.get_mut(&id) else {
            return;
        };
        destination.burying = false;
        let shard = destination.shard;
        let deleted = destination.gone_since.is_some();
        // The next look after another time of grace, if there's anything by then.
        destination.gone_since = destination.gone_since.map(|_| now);
        match buried {
            Err(error) => {
                tracing::warn!(error = &error as &dyn std::error::Error, destination = %id, "deliveries of a deleted destination were not finished; will try again")
            }
            Ok(0) => {}
            Ok(count) if deleted => {
                self.metrics.dead_letters.inc_by(count);
                tracing::info!(destination = %id, count, "the destination was deleted; its deliveries are dead letters");
            }
            Ok(count) => {
                tracing::warn!(destination = %id, count, "retention has dropped the events of deliveries that were still pending");
                self.change(id, |destination| destination.note_missing(BEGINNING));
            }
        }
        if deleted
            && self.shard(shard, epoch).is_some()
            && self
                .destinations
                .get(&id)
                .is_some_and(|destination| destination.known() == 0 && destination.row.is_none())
        {
            // If the table still has any, the next scan brings it back.
            self.drop_destination(id);
            if let Some(held) = self.shard(shard, epoch) {
                held.destinations.remove(&id);
            }
        }
    }
}
