//! Deliveries that nobody will ever send: their destination was deleted, or retention has dropped their events.
//!
//! The database decides what is really gone; here is only when to ask it. Both end in bounded statements under the
//! shard's epoch, so that a late owner buries nothing.

use super::{Actor, Message};
use crate::scheduler::destination::{BEGINNING, Burial, Destination};
use jiff::Timestamp;
use routing::retry::GaveUp;
use store::outcomes;
use uuid::Uuid;

/// Deliveries of a destination that one statement finishes.
const BURIED: u32 = 500;

/// Statements after which another destination has its turn.
const ROUND: usize = 10;

/// Burials that run at the same time. A namespace that is deleted may take thousands of destinations with it; the others
/// wait for their turn, so that recording and the leases find a connection.
pub(super) const BURIALS: usize = 1;

/// What became of a round.
#[derive(Debug)]
pub(in crate::scheduler) struct Buried {
    destination: Uuid,
    epoch: i64,
    deleted: bool,
    /// Deliveries that it finished.
    buried: u64,
    /// Nothing is left.
    over: store::Result<bool>,
}

impl Actor {
    /// Finishes what is pending for destinations that have been out of the table for long enough. Whether they were
    /// deleted, the database decides: a row that this version can't read is out of our table only.
    pub(super) fn bury(&mut self, now: Timestamp) {
        let gone = |destination: &Destination| {
            let over = destination.gone_since.is_some_and(|since| {
                now.duration_since(since).unsigned_abs() >= self.options.gone_grace
            });
            over && destination.known() == 0
                && destination.burial == Burial::None
                && !destination.is_idle()
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

    /// Puts a destination into the list of burials. `deleted`: else its events are gone.
    pub(super) fn undertake(&mut self, id: Uuid, deleted: bool) {
        if let Some(destination) = self.destinations.get_mut(&id)
            && destination.burial == Burial::None
        {
            destination.burial = Burial::Queued;
            self.unburied.push_back((id, deleted));
        }
    }

    /// Starts as many of the burials in the list as may run.
    pub(super) fn start_burials(&mut self) {
        while self.burials < BURIALS {
            let Some((id, deleted)) = self.unburied.pop_front() else {
                return;
            };
            // One that was dropped and came back meanwhile may be in the list twice.
            let Some(destination) = self
                .destinations
                .get_mut(&id)
                .filter(|destination| destination.burial == Burial::Queued)
            else {
                continue;
            };
            let shard = destination.shard;
            let epoch = match self.shards.get(usize::from(shard)) {
                Some(Some(held)) if !held.leaving => held.epoch,
                // Whoever comes next does it.
                _ => {
                    destination.burial = Burial::None;
                    continue;
                }
            };
            destination.burial = Burial::Running;
            self.burials += 1;
            let (pool, messages, holder) = (
                self.pool.clone(),
                self.messages.clone(),
                self.options.replica.clone(),
            );
            tokio::spawn(async move {
                let mut buried = 0;
                let mut over = Ok(false);
                for _ in 0..ROUND {
                    let one = match deleted {
                        true => outcomes::bury(&pool, shard, epoch, &holder, id, BURIED).await,
                        false => {
                            outcomes::drop_orphans(&pool, shard, epoch, &holder, id, BURIED).await
                        }
                    };
                    match one {
                        Ok(0) => {
                            over = Ok(true);
                            break;
                        }
                        Ok(some) => buried += some,
                        Err(error) => {
                            over = Err(error);
                            break;
                        }
                    }
                }
                let _ = messages.send(Message::Buried(Buried {
                    destination: id,
                    epoch,
                    deleted,
                    buried,
                    over,
                }));
            });
        }
    }

    pub(super) fn buried(&mut self, round: Buried, now: Timestamp) {
        let Buried {
            destination: id,
            epoch,
            deleted,
            buried,
            over,
        } = round;
        self.burials -= 1;
        if buried > 0 && deleted {
            self.metrics.dead_letter(GaveUp::DestinationDeleted, buried);
            tracing::info!(destination = %id, count = buried, "the destination was deleted; its deliveries are dead letters");
        } else if buried > 0 {
            tracing::warn!(destination = %id, count = buried, "retention has dropped the events of deliveries that were still pending");
            self.change(id, |destination| destination.note_missing(BEGINNING));
        }
        let Some(destination) = self.destinations.get_mut(&id) else {
            return;
        };
        destination.burial = Burial::None;
        let shard = destination.shard;
        match over {
            Ok(true) => {}
            // The others have their turn first.
            Ok(false) => return self.undertake(id, deleted),
            Err(error) => {
                tracing::warn!(error = &error as &dyn std::error::Error, destination = %id, "deliveries that can't be made any more were not finished; will try again")
            }
        }
        // The next look after another time of grace, if there's anything by then.
        destination.gone_since = destination.gone_since.map(|_| now);
        let done = destination.gone_since.is_some()
            && destination.known() == 0
            && destination.row.is_none();
        if done && self.shard(shard, epoch).is_some() {
            // If the table still has any, the next scan brings it back.
            self.drop_destination(id);
            if let Some(held) = self.shard(shard, epoch) {
                held.destinations.remove(&id);
            }
            self.release_if_over(shard);
        }
    }
}
