//! The shards that are ours: gaining, leaving and losing them, and looking at what their queues hold.
//!
//! A shard is scanned when it is gained, on a timer in case a hint was lost, and when somebody asks. A scan reads which
//! destinations have anything at all; the deliveries themselves are `pages`' business.

use super::{Actor, Message};
use crate::{
    leases::Released,
    scheduler::destination::{BEGINNING, Destination},
};
use jiff::Timestamp;
use std::{
    collections::{HashMap, HashSet},
    sync::atomic::Ordering,
};
use store::{
    Pool,
    destination_state::{self, Reset, State},
    queue,
};
use tokio::time::Instant;
use uuid::Uuid;

/// Scans that run at the same time. A replica may gain thousands of shards at once; the others wait for their turn, so
/// that recording and the leases find a connection.
pub(super) const SCANS: usize = 2;

/// A shard that is ours.
#[derive(Debug)]
pub(super) struct Shard {
    pub(super) epoch: i64,
    pub(super) trusted_until: Instant,
    pub(super) destinations: HashSet<Uuid>,
    pub(super) gained_at: Timestamp,
    /// What is remembered of destinations that aren't among these.
    pub(super) states: HashMap<Uuid, State>,
    pub(super) in_flight: usize,
    pub(super) unwritten: usize,
    /// No attempt begins; it is given back when nothing is under way.
    pub(super) leaving: bool,
    /// Attempts were held back because the trust ran out.
    pub(super) stalled: bool,
    /// All destinations with anything in the queue have been seen once.
    pub(super) scanned: bool,
    /// A scan is under way or in the list.
    pub(super) scanning: bool,
    /// When the next scan is due. One that is asked for during a scan follows it.
    pub(super) scan_at: Timestamp,
}

/// What a look at a shard finds.
#[derive(Debug)]
pub(in crate::scheduler) struct Found {
    /// Those that have anything in the queue.
    destinations: Vec<Uuid>,
    /// At the first look: what the last owner remembered.
    states: Option<Vec<State>>,
    resets: Vec<Reset>,
}

async fn look(pool: &Pool, shard: u16, first: bool) -> store::Result<Found> {
    let states = match first {
        true => Some(destination_state::of_shard(pool, shard).await?),
        false => None,
    };
    Ok(Found {
        states,
        resets: destination_state::resets(pool, shard).await?,
        destinations: queue::destinations(pool, shard).await?,
    })
}

impl Actor {
    pub(super) fn gained(
        &mut self,
        shard: u16,
        epoch: i64,
        trusted_until: Instant,
        now: Timestamp,
    ) {
        self.drop_shard(shard);
        let Some(place) = self.shards.get_mut(usize::from(shard)) else {
            return;
        };
        *place = Some(Shard {
            epoch,
            trusted_until,
            destinations: HashSet::new(),
            gained_at: now,
            states: HashMap::new(),
            in_flight: 0,
            unwritten: 0,
            leaving: false,
            stalled: false,
            scanned: false,
            scanning: false,
            scan_at: now,
        });
        self.count_shards();
        if self.retiring {
            // Taken while we were being told to go.
            self.leave(shard);
        } else {
            self.want_scan(shard);
        }
    }

    pub(super) fn trusted(&mut self, shard: u16, until: Instant) {
        let Some(Some(held)) = self.shards.get_mut(usize::from(shard)) else {
            return;
        };
        held.trusted_until = until;
        if std::mem::take(&mut held.stalled) {
            self.enqueue_shard(shard);
        }
    }

    fn enqueue_shard(&mut self, shard: u16) {
        let Some(Some(held)) = self.shards.get(usize::from(shard)) else {
            return;
        };
        let all: Vec<Uuid> = held.destinations.iter().copied().collect();
        for id in all {
            self.enqueue(id);
        }
    }

    /// Forgets a shard. Attempts in flight go on; their outcomes are not written.
    pub(super) fn drop_shard(&mut self, shard: u16) {
        let Some(held) = self
            .shards
            .get_mut(usize::from(shard))
            .and_then(Option::take)
        else {
            return;
        };
        for id in held.destinations {
            self.drop_destination(id);
        }
        self.count_shards();
    }

    /// Lets a shard go once nothing of it is under way; until then no attempt begins.
    pub(super) fn leave(&mut self, shard: u16) {
        let Some(Some(held)) = self.shards.get_mut(usize::from(shard)) else {
            return;
        };
        held.leaving = true;
        self.release_if_over(shard);
    }

    pub(super) fn release_if_over(&mut self, shard: u16) {
        let Some(Some(held)) = self.shards.get(usize::from(shard)) else {
            return;
        };
        if held.leaving && held.in_flight == 0 && held.unwritten == 0 && self.is_saved(shard) {
            let epoch = held.epoch;
            self.drop_shard(shard);
            // Without the leases' task nobody renews either.
            let _ = self.released.send(Released::Shard(shard, epoch));
        }
    }

    pub(super) fn retire(&mut self) {
        if self.retiring {
            return;
        }
        self.retiring = true;
        let _ = self.released.send(Released::Retiring);
        for shard in 0..self.options.shards {
            self.leave(shard);
        }
    }

    fn count_shards(&self) {
        let held = self.shards.iter().filter(|held| held.is_some()).count();
        self.handle
            .held
            .store(u32::try_from(held).unwrap_or(u32::MAX), Ordering::Relaxed);
    }

    pub(super) fn shard(&mut self, shard: u16, epoch: i64) -> Option<&mut Shard> {
        self.shards
            .get_mut(usize::from(shard))?
            .as_mut()
            .filter(|held| held.epoch == epoch)
    }

    fn want_scan(&mut self, shard: u16) {
        if let Some(Some(held)) = self.shards.get_mut(usize::from(shard))
            && !std::mem::replace(&mut held.scanning, true)
        {
            self.unscanned.push_back((shard, held.epoch));
        }
    }

    /// Looks at a shard now, or again once the look that is under way has ended.
    pub(super) fn scan_now(&mut self, shard: u16, now: Timestamp) {
        if let Some(Some(held)) = self.shards.get_mut(usize::from(shard))
            && !held.leaving
        {
            held.scan_at = now;
            self.want_scan(shard);
        }
    }

    /// Asks which destinations of a shard have anything in the queue: of those that want it, as many as may run.
    pub(super) fn start_scans(&mut self, now: Timestamp) {
        while self.scans < SCANS {
            let Some((shard, epoch)) = self.unscanned.pop_front() else {
                return;
            };
            // Jittered, so that the shards' scans spread over the period.
            let next = now + self.options.reread.mul_f64(rand::random_range(0.75..1.25));
            let Some(held) = self.shard(shard, epoch).filter(|held| !held.leaving) else {
                continue;
            };
            held.scan_at = next;
            let first = !held.scanned;
            self.scans += 1;
            let (pool, messages) = (self.pool.clone(), self.messages.clone());
            tokio::spawn(async move {
                let found = look(&pool, shard, first).await;
                let _ = messages.send(Message::Scanned {
                    shard,
                    epoch,
                    found,
                });
            });
        }
    }

    pub(super) fn scanned(
        &mut self,
        shard: u16,
        epoch: i64,
        found: store::Result<Found>,
        now: Timestamp,
    ) {
        self.scans -= 1;
        let Some(held) = self.shard(shard, epoch) else {
            return;
        };
        held.scanning = false;
        let Found {
            destinations: found,
            states,
            resets,
        } = match found {
            Ok(found) => found,
            Err(error) => {
                tracing::debug!(%error, shard, "the queue was not looked at; will try again");
                held.scan_at = now;
                return;
            }
        };
        let first = !std::mem::replace(&mut held.scanned, true);
        if held.scan_at <= now && !held.leaving {
            self.want_scan(shard);
        }
        if let Some(states) = states {
            self.restore(shard, states);
        }
        self.carry_out(resets, now);
        for id in &found {
            self.ensure(*id, shard, false, now);
            if let Some(destination) = self.destinations.get_mut(id) {
                destination.note_missing(BEGINNING);
                destination.unseen = true;
                // Much shorter than a scan's period, unless the wall clock was set back.
                destination.pause_until = None;
            }
            self.want(*id);
        }
        if first {
            // Nothing of this shard was sent before.
            self.enqueue_shard(shard);
            return;
        }
        let found: HashSet<Uuid> = found.into_iter().collect();
        let table = self.current.clone();
        let Some(held) = self.shard(shard, epoch) else {
            return;
        };
        // Of those that were deleted nothing is remembered. An empty table is one that has not come yet.
        if table.destinations().next().is_some() {
            held.states.retain(|id, _| table.destination(*id).is_some());
        }
        let others: Vec<Uuid> = held
            .destinations
            .iter()
            .copied()
            .filter(|id| !found.contains(id))
            .collect();
        for id in others {
            let idle = self
                .destinations
                .get(&id)
                .filter(|destination| destination.is_idle() && destination.gates.is_rested(now));
            if let Some(destination) = idle
                && !self.is_unsaved(id)
            {
                let state = (!destination.is_plain()).then(|| destination.state(id, now));
                self.drop_destination(id);
                if let Some(held) = self.shard(shard, epoch) {
                    held.destinations.remove(&id);
                    held.states.extend(state.map(|state| (id, state)));
                }
            }
        }
    }

    pub(super) fn rescan(&mut self, now: Timestamp) {
        for shard in self.shards.iter_mut().flatten() {
            shard.scan_at = now;
        }
        self.tick(now);
    }

    pub(super) fn tick(&mut self, now: Timestamp) {
        // A scan that lies further ahead was planned before the wall clock was set back.
        let latest = now + self.options.reread * 2;
        let due: Vec<u16> = (0..self.options.shards)
            .filter(|shard| {
                self.shards[usize::from(*shard)]
                    .as_ref()
                    .is_some_and(|held| {
                        let due = held.scan_at <= now || held.scan_at > latest;
                        due && !held.leaving && !held.scanning
                    })
            })
            .collect();
        for shard in due {
            self.want_scan(shard);
        }
        if now < std::mem::replace(&mut self.ticked_at, now) {
            let all: Vec<Uuid> = self.destinations.keys().copied().collect();
            for id in all {
                self.change(id, Destination::distrust_times);
            }
        }
        self.expire(now);
        self.bury(now);
    }
}
