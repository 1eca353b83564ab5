//! What comes into the windows: deliveries recorded here, hints from other replicas, and pages of the queue table.
//!
//! The table is the truth and memory is bounded, so everything here may be dropped: what finds no room is noted as
//! missing and read again as a page once there is some.

use super::{Actor, Message};
use crate::scheduler::{
    Batch,
    destination::{BEGINNING, Entry, Times},
};
use jiff::{SignedDuration, Timestamp};
use routing::shard;
use service::clock;
use store::{
    events::{Event, Recorded},
    queue::{self, Round},
    time::stored,
};
use uuid::Uuid;

/// Pages that are read at the same time: enough to keep Postgres busy, and never all connections of the pool.
const LOADS: usize = 4;

/// Hints are about what was recorded this long ago at most; what is older, the timer finds.
const HINT_AGE: SignedDuration = SignedDuration::from_secs(10);

/// After a load that failed or found no room.
const PAUSE: SignedDuration = SignedDuration::from_millis(250);

/// A page that proves the end of a sweep can wait this long.
const CONFIRM: SignedDuration = SignedDuration::from_millis(50);

/// A page of an ordered destination passes over what is known of it, which costs Postgres time when that is much: then what
/// is recorded meanwhile comes in one page.
const MANY_PARKED: usize = 1024;

impl Actor {
    pub(super) fn recorded(&mut self, batch: Batch) {
        self.handle.inbox.taken(batch.bytes);
        let now = clock::now();
        let mut elsewhere = Vec::new();
        for Recorded {
            event, deliveries, ..
        } in batch.events
        {
            for delivery in deliveries {
                let id = delivery.destination_id;
                let Some(Some(held)) = self.shards.get(usize::from(delivery.shard)) else {
                    elsewhere.push(id);
                    continue;
                };
                if held.leaving {
                    // Whoever comes next reads it.
                    elsewhere.push(id);
                    continue;
                }
                let scanned = held.scanned;
                self.ensure(id, delivery.shard, scanned, now);
                if delivery.ordered {
                    // Only the table knows its place.
                    self.change(id, |destination| destination.note_missing(BEGINNING));
                    continue;
                }
                let entry = Entry {
                    due_at: stored(event.received_at),
                    delivery_id: delivery.id,
                    connection_id: delivery.connection_id,
                    recorded_at: stored(event.received_at),
                    attempts: 0,
                    retry_at: None,
                    round: Round::default(),
                    lane: 0,
                    event: event.clone(),
                };
                let room = self.room();
                self.pressed |= entry.bytes() > room.bytes;
                self.change(id, |destination| destination.record(entry, room));
            }
        }
        if !elsewhere.is_empty() {
            self.handle.notifier.tell(elsewhere);
        }
    }

    pub(super) fn hint(&mut self, id: Uuid, now: Timestamp) {
        let shard = shard::of(id, self.options.shards);
        if let Some(Some(held)) = self.shards.get(usize::from(shard)) {
            self.ensure(id, shard, held.scanned, now);
            self.change(id, |destination| {
                destination.note_missing((now - HINT_AGE, Uuid::nil()))
            });
        }
    }

    /// Starts the loads that are wanted.
    pub(super) fn load(&mut self) {
        while self.loads < LOADS {
            let Some(id) = self.wanted.pop_front() else {
                return;
            };
            let share = self.share();
            let Some(destination) = self.destinations.get_mut(&id) else {
                continue;
            };
            destination.wanted = false;
            if !destination.wants_load(self.options.window, share) {
                continue;
            }
            let Some(Some(held)) = self.shards.get(usize::from(destination.shard)) else {
                continue;
            };
            if held.leaving {
                continue;
            }
            // As many as have room, and those that are known already and come again.
            let limit = (self.options.window - destination.ready() + destination.known())
                .min(4 * self.options.window);
            let (shard, epoch, after) = (
                destination.shard,
                held.epoch,
                destination.missing().filter(|key| *key != BEGINNING),
            );
            let order = destination
                .sorter()
                .map(|sorter| (sorter, destination.all_known()));
            let limit = if order.is_some() {
                self.options.window
            } else {
                limit
            };
            destination.begin_load();
            self.loads += 1;
            self.metrics.loads.inc();
            let (pool, messages) = (self.pool.clone(), self.messages.clone());
            tokio::spawn(async move {
                let rows = u32::try_from(limit).unwrap_or(u32::MAX);
                let page = match &order {
                    Some((_, known)) => queue::head_but(&pool, shard, id, known, rows).await,
                    None => queue::head(&pool, shard, id, after, rows).await,
                };
                let lane = |event: &Event| {
                    let sorter = order.as_ref().map(|(sorter, _)| sorter);
                    sorter.map_or(0, |sorter| sorter.lane_of(event))
                };
                let page = page.map(|rows| {
                    let entries = rows.into_iter().map(|(pending, event)| Entry {
                        due_at: pending.due_at,
                        delivery_id: pending.delivery_id,
                        connection_id: pending.connection_id,
                        recorded_at: pending.recorded_at,
                        attempts: pending.attempts,
                        retry_at: pending.retry_at,
                        round: pending.round,
                        lane: lane(&event),
                        event,
                    });
                    entries.collect()
                });
                let _ = messages.send(Message::Page {
                    destination: id,
                    epoch,
                    limit,
                    page,
                });
            });
        }
    }

    pub(super) fn page(
        &mut self,
        id: Uuid,
        epoch: i64,
        limit: usize,
        page: store::Result<Vec<Entry>>,
        now: Timestamp,
    ) {
        self.loads -= 1;
        let Some(shard) = self
            .destinations
            .get(&id)
            .map(|destination| destination.shard)
        else {
            return;
        };
        if self.shard(shard, epoch).is_none() {
            // Asked under an earlier lease.
            return;
        }
        let orphaned = page.as_ref().is_ok_and(Vec::is_empty)
            && self.destinations.get(&id).is_some_and(|destination| {
                // The scan found rows, a page from the beginning none: their events are gone.
                destination.unseen
                    && destination.missing() == Some(BEGINNING)
                    && destination.known() == 0
            });
        if orphaned {
            if let Some(destination) = self.destinations.get_mut(&id) {
                destination.unseen = false;
            }
            self.undertake(id, false);
        }
        let times = Times {
            now,
            soon: now + self.options.horizon,
            confirm: now + CONFIRM,
        };
        let room = self.room();
        // However short memory is, every destination moves on by one delivery at a time.
        let at_least_one = self.bytes < 2 * self.options.window_bytes;
        let loaded = self.change(id, |destination| match page {
            Ok(_) if !destination.is_active() => {
                destination.load_failed();
                None
            }
            Ok(page) => {
                let loaded = destination.load(page, limit, times, room, at_least_one);
                // Also when what it has can't be sent yet: the same page would be read again and again.
                if loaded.no_room && (destination.ready() == 0 || loaded.admitted == 0) {
                    destination.pause_until = Some(now + PAUSE);
                } else if destination.parked() > MANY_PARKED {
                    destination.pause_until = Some(now + CONFIRM);
                }
                Some(loaded)
            }
            Err(error) => {
                tracing::debug!(%error, "a page of the queue was not read; will try again");
                destination.load_failed();
                destination.pause_until = Some(now + PAUSE);
                None
            }
        });
        self.pressed |= loaded.flatten().is_some_and(|loaded| loaded.no_room);
    }

    /// Makes room when something found none: who holds more than a fair share gives the end of it back to the table.
    pub(super) fn trim(&mut self) {
        if !std::mem::take(&mut self.pressed) || self.bytes < self.options.window_bytes / 4 * 3 {
            return;
        }
        let share = self.share();
        let greedy: Vec<Uuid> = self
            .destinations
            .iter()
            .filter(|(_, destination)| destination.bytes > share)
            .map(|(id, _)| *id)
            .collect();
        for id in greedy {
            self.change(id, |destination| destination.trim(share));
        }
    }
}
