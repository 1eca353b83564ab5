//! The destinations that are known: following the routing table, their timers, and the sums over all of them.
//!
//! Whatever changes a destination goes through [`Actor::change`], which keeps the bytes, the timers, those that wait
//! for a slot and the list of those that want a page in step with it.

use super::{Actor, TICK};
use crate::{
    deliver::Target,
    scheduler::destination::{BEGINNING, Destination, Room, Row},
};
use jiff::Timestamp;
use routing::Table;
use service::clock;
use std::{collections::hash_map, sync::Arc, time::Duration};
use tokio::time::Instant;
use uuid::Uuid;

impl Actor {
    /// Makes sure that a destination of a shard of ours is known.
    pub(super) fn ensure(&mut self, id: Uuid, shard: u16, complete: bool, now: Timestamp) {
        let hash_map::Entry::Vacant(place) = self.destinations.entry(id) else {
            return;
        };
        let mut held = self.shards.get_mut(usize::from(shard));
        let held = held.as_mut().and_then(|held| held.as_mut());
        let gained = held.as_ref().map_or(now, |held| held.gained_at);
        let mut destination = Destination::new(shard, complete, gained);
        prepare(&mut destination, &self.current, id, now);
        if let Some(state) = held.and_then(|held| held.states.remove(&id)) {
            destination.restore(&state);
        }
        for flight in self
            .flights
            .values()
            .filter(|flight| flight.destination == id)
        {
            destination.adopt(flight.entry.delivery_id);
            destination.adopt_in_order(&flight.entry);
        }
        if !destination.is_active() {
            destination.note_missing(BEGINNING);
        }
        place.insert(destination);
        if let Some(Some(held)) = self.shards.get_mut(usize::from(shard)) {
            held.destinations.insert(id);
        }
        self.show_circuit(id);
    }

    pub(super) fn drop_destination(&mut self, id: Uuid) {
        let Some(destination) = self.destinations.remove(&id) else {
            return;
        };
        self.hide_circuit(&destination);
        self.forget_unsaved(id);
        self.bytes -= destination.bytes;
        self.held -= destination.held();
        self.blocked -= destination.blocked();
        self.crowded -= usize::from(destination.is_crowded());
        self.holders -= usize::from(destination.bytes > 0);
        if let Some(at) = destination.wake_at {
            self.timers.remove(&(at, id));
        }
    }

    /// Runs `change` on a destination and keeps the sums, the timer, the slots and the list of loads right.
    pub(super) fn change<T>(
        &mut self,
        id: Uuid,
        change: impl FnOnce(&mut Destination) -> T,
    ) -> Option<T> {
        let destination = self.destinations.get_mut(&id)?;
        let (before, held) = (destination.bytes, destination.held());
        let (blocked, crowded) = (destination.blocked(), destination.is_crowded());
        let result = change(destination);
        let after = destination.bytes;
        self.bytes = self.bytes + after - before;
        self.held = self.held + destination.held() - held;
        self.blocked = self.blocked + destination.blocked() - blocked;
        self.crowded = self.crowded + usize::from(destination.is_crowded()) - usize::from(crowded);
        self.holders = self.holders + usize::from(after > 0) - usize::from(before > 0);
        let wake = destination.next_wake();
        if wake != destination.wake_at {
            if let Some(at) = destination.wake_at {
                self.timers.remove(&(at, id));
            }
            destination.wake_at = wake;
            self.timers.extend(wake.map(|at| (at, id)));
        }
        self.enqueue(id);
        self.want(id);
        Some(result)
    }

    pub(super) fn room(&self) -> Room {
        Room {
            window: self.options.window,
            bytes: self.options.window_bytes.saturating_sub(self.bytes),
        }
    }

    /// What one destination may hold when memory is short.
    pub(super) fn share(&self) -> usize {
        self.options.window_bytes / (self.holders + 1)
    }

    /// Lets a destination with something to send wait for a slot.
    pub(super) fn enqueue(&mut self, id: Uuid) {
        let Some(destination) = self.destinations.get_mut(&id) else {
            return;
        };
        if !destination.queued
            && destination.ready() > 0
            && destination.is_active()
            && destination.in_flight < destination.concurrency()
            && !destination.is_held()
            && let Some(row) = &destination.row
        {
            self.slots.wait(id, &row.row.namespace);
            destination.queued = true;
        }
    }

    pub(super) fn want(&mut self, id: Uuid) {
        let share = self.share();
        let Some(destination) = self.destinations.get_mut(&id) else {
            return;
        };
        // When memory is short, who couldn't begin an attempt anyway leaves it to others. It asks again when one of its
        // attempts has ended, and has one: without any it may begin.
        let stuck = self.bytes > self.options.window_bytes / 2
            && destination.in_flight > 0
            && !self.slots.may_begin(id);
        if !destination.wanted && !stuck && destination.wants_load(self.options.window, share) {
            destination.wanted = true;
            self.wanted.push_back(id);
        }
    }

    /// Takes over a new revision of the routing table.
    pub(super) fn follow_table(&mut self, now: Timestamp) {
        if Arc::ptr_eq(&self.current, &self.table.load()) {
            return;
        }
        self.current = self.table.load_full();
        let ids: Vec<Uuid> = self.destinations.keys().copied().collect();
        let table = self.current.clone();
        for id in ids {
            if let Some(destination) = self.destinations.get(&id) {
                self.hide_circuit(destination);
            }
            let reordered = self.change(id, |destination| {
                let was = destination.is_active();
                let reordered = prepare(destination, &table, id, now);
                if was && !destination.is_active() {
                    destination.forget();
                }
                reordered
            });
            if reordered == Some(true) {
                self.adopt_what_is_under_way(id);
            }
            self.show_circuit(id);
        }
    }

    /// What is under way has no place in a new order yet.
    fn adopt_what_is_under_way(&mut self, id: Uuid) {
        let Some(destination) = self.destinations.get_mut(&id) else {
            return;
        };
        let flights = self.flights.values().filter(|f| f.destination == id);
        for flight in flights {
            destination.adopt_in_order(&flight.entry);
        }
        for unwritten in self.unwritten.values().filter(|u| u.destination == id) {
            destination.adopt_in_order(&unwritten.entry);
        }
    }

    pub(super) fn wake(&mut self, now: Timestamp) {
        while let Some(&(at, id)) = self.timers.first() {
            if at > now {
                break;
            }
            self.timers.pop_first();
            if let Some(destination) = self.destinations.get_mut(&id) {
                destination.wake_at = None;
            }
            self.change(id, |destination| destination.advance(now));
        }
    }

    pub(super) fn next_timer(&self) -> Instant {
        // The tick comes sooner than this anyway.
        let Some((at, _)) = self.timers.first() else {
            return Instant::now() + TICK * 2;
        };
        Instant::now() + Duration::try_from(at.duration_since(clock::now())).unwrap_or_default()
    }
}

/// Takes over a destination's row of the table, if it is another than before. True: with another order.
fn prepare(destination: &mut Destination, table: &Table, id: Uuid, now: Timestamp) -> bool {
    match table.destination(id) {
        Some(row) => {
            destination.gone_since = None;
            if !destination
                .row
                .as_ref()
                .is_some_and(|known| Arc::ptr_eq(&known.row, row))
            {
                destination.row = Some(Arc::new(Row {
                    row: row.clone(),
                    target: Target::prepare(row),
                }));
                return destination.configure();
            }
        }
        None => {
            destination.row = None;
            destination.gone_since.get_or_insert(now);
        }
    }
    false
}
