//! What the scheduler knows of one destination: the deliveries in memory, and which part of the queue they are.
//!
//! Pure: no clock, no IO. The queue table is the truth and memory a window on it, so the one thing to get right is to
//! know what is *not* in memory. That is [`Destination::missing`]: deliveries behind that key may be in the table only.
//! Everything that is left out (no room, a lost hint, a window that was trimmed) moves the key back, and each page that
//! is loaded moves it on; nothing else can lose a delivery.

mod gates;
mod ordered;

pub(super) use gates::Gate;

use super::order::Lanes;
use gates::Gates;
use jiff::Timestamp;
use routing::table;
use std::{
    collections::{BTreeMap, HashSet},
    sync::Arc,
};
use store::{events::Event, queue::Round};
use uuid::Uuid;

use crate::deliver::Target;

/// The queue's order within a destination.
pub(super) type Key = (Timestamp, Uuid);

/// Before every key.
pub(super) const BEGINNING: Key = (Timestamp::MIN, Uuid::nil());

/// One delivery in memory.
#[derive(Debug, Clone)]
pub(super) struct Entry {
    /// As in its queue row.
    pub(super) due_at: Timestamp,
    pub(super) delivery_id: Uuid,
    pub(super) connection_id: Uuid,
    pub(super) recorded_at: Timestamp,
    /// Made so far.
    pub(super) attempts: u32,
    /// A retry that kept its place in the queue may not go before then.
    pub(super) retry_at: Option<Timestamp>,
    pub(super) round: Round,
    /// Of its destination's order, if that has one.
    pub(super) lane: u64,
    pub(super) event: Arc<Event>,
}

impl Entry {
    pub(super) fn key(&self) -> Key {
        (self.due_at, self.delivery_id)
    }

    pub(super) fn bytes(&self) -> usize {
        self.event.body.len() + self.event.headers.len()
    }

    /// A delivery that was never tried is due at once, also when the clock of the replica that recorded it is ahead.
    pub(super) fn is_due(&self, now: Timestamp) -> bool {
        self.due_at <= now || (self.attempts == 0 && self.due_at == self.recorded_at)
    }
}

/// A destination of the table, made ready to be sent to.
#[derive(Debug)]
pub(super) struct Row {
    pub(super) row: Arc<table::Destination>,
    pub(super) target: Target,
}

/// What memory may hold.
#[derive(Debug, Clone, Copy)]
pub(super) struct Room {
    /// Deliveries of a destination that are due; as many again that wait for their time.
    pub(super) window: usize,
    /// Bytes that may still be taken.
    pub(super) bytes: usize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Burial {
    None,
    /// In the scheduler's list of burials.
    Queued,
    Running,
}

#[derive(Debug)]
pub(super) struct Destination {
    pub(super) shard: u16,
    /// `None`: not in the routing table, since…
    pub(super) row: Option<Arc<Row>>,
    /// …this time, as far as we have seen.
    pub(super) gone_since: Option<Timestamp>,
    /// Are its deliveries being finished without an attempt?
    pub(super) burial: Burial,
    /// The table has deliveries of it, and no page has shown any yet.
    pub(super) unseen: bool,
    /// To be sent now, in order.
    ready: BTreeMap<Key, Entry>,
    /// To be sent soon.
    waiting: BTreeMap<Key, Entry>,
    /// With a strict order all of them are here, and none in the two above.
    lanes: Option<Lanes>,
    /// Everything was forgotten while a page is read that left it out, or was asked for in another order.
    spoiled: bool,
    pub(super) gates: Gates,
    /// Deliveries that a load must not bring in again: those in `ready` and `waiting`, in flight, and not written yet.
    known: HashSet<Uuid>,
    /// Finished while a load was under way: its snapshot may be older.
    finished: HashSet<Uuid>,
    pub(super) in_flight: usize,
    /// Of `ready` and `waiting`.
    pub(super) bytes: usize,
    /// Behind this key the table may have more than memory; `None`: memory has all that is due soon.
    missing: Option<Key>,
    /// As `missing`, noticed while a load is under way.
    missed: Option<Key>,
    /// The last page was short: what is missing is little, and new deliveries needn't wait for it.
    tail: bool,
    /// Nothing new is known to be missing: the load that proves it can wait until then.
    confirm_at: Option<Timestamp>,
    pub(super) loading: bool,
    /// When the earliest delivery that memory has left out because it can wait, is due.
    later: Option<Timestamp>,
    /// No load before then: the last one failed or found no room.
    pub(super) pause_until: Option<Timestamp>,
    /// Does it wait for a slot?
    pub(super) queued: bool,
    /// Is it in the scheduler's list of loads?
    pub(super) wanted: bool,
    /// Its place among the scheduler's timers.
    pub(super) wake_at: Option<Timestamp>,
}

/// The times that a page is judged by.
#[derive(Debug, Clone, Copy)]
pub(super) struct Times {
    pub(super) now: Timestamp,
    /// What is due after this stays in the table.
    pub(super) soon: Timestamp,
    /// When a short page is followed by the one that proves the end.
    pub(super) confirm: Timestamp,
}

/// What a page of the queue did to memory.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Loaded {
    pub(super) admitted: usize,
    /// Something did not fit.
    pub(super) no_room: bool,
}

impl Destination {
    /// `complete`: the table has nothing of it that memory doesn't.
    pub(super) fn new(shard: u16, complete: bool, gained: Timestamp) -> Destination {
        Destination {
            shard,
            row: None,
            gone_since: None,
            burial: Burial::None,
            unseen: false,
            ready: BTreeMap::new(),
            waiting: BTreeMap::new(),
            lanes: None,
            spoiled: false,
            gates: Gates::new(gained),
            known: HashSet::new(),
            finished: HashSet::new(),
            in_flight: 0,
            bytes: 0,
            missing: (!complete).then_some(BEGINNING),
            missed: None,
            tail: false,
            confirm_at: None,
            loading: false,
            later: None,
            pause_until: None,
            queued: false,
            wanted: false,
            wake_at: None,
        }
    }

    /// In the table and not suspended.
    pub(super) fn is_active(&self) -> bool {
        self.row.as_ref().is_some_and(|row| !row.row.spec.suspended)
    }

    pub(super) fn concurrency(&self) -> usize {
        self.row
            .as_ref()
            .map_or(0, |row| row.row.spec.concurrency.max(1) as usize)
    }

    pub(super) fn ready(&self) -> usize {
        self.lanes.as_ref().map_or(self.ready.len(), Lanes::ready)
    }

    /// The delivery that [`Self::take`] would give.
    pub(super) fn first(&self) -> Option<&Entry> {
        match &self.lanes {
            Some(lanes) => lanes.first(),
            None => self.ready.first_key_value().map(|(_, entry)| entry),
        }
    }

    pub(super) fn held(&self) -> usize {
        let plain = self.ready.len() + self.waiting.len();
        self.lanes.as_ref().map_or(plain, Lanes::held)
    }

    /// Takes over what its row says. True: deliveries that are under way have to be adopted.
    pub(super) fn configure(&mut self) -> bool {
        self.configure_gates();
        self.configure_order()
    }

    pub(super) fn known(&self) -> usize {
        self.known.len()
    }

    pub(super) fn missing(&self) -> Option<Key> {
        self.missing
    }

    /// Nothing in memory, nothing under way and nothing known to be in the table: as good as not there.
    pub(super) fn is_idle(&self) -> bool {
        self.known.is_empty()
            && self.in_flight == 0
            && !self.loading
            && self.missing.is_none()
            && self.later.is_none()
    }

    /// The table may have deliveries behind `key` that memory doesn't.
    pub(super) fn note_missing(&mut self, key: Key) {
        let key = if self.is_ordered() { BEGINNING } else { key };
        let place = if self.loading {
            &mut self.missed
        } else {
            &mut self.missing
        };
        *place = Some(place.map_or(key, |earlier| earlier.min(key)));
        self.confirm_at = None;
    }

    /// Takes a delivery that was just recorded, or notes that it is in the table only.
    pub(super) fn record(&mut self, entry: Entry, room: Room) -> bool {
        if self.known.contains(&entry.delivery_id) {
            return false;
        }
        if self.is_ordered() {
            // Another replica may have recorded an earlier one: the table knows.
            self.note_missing(BEGINNING);
            return false;
        }
        // What is behind `missing` comes with the next pages, in order.
        let behind = !self.tail && self.missing.is_some_and(|missing| missing < entry.key());
        if !self.is_active()
            || behind
            || self.ready.len() >= room.window
            || entry.bytes() > room.bytes
        {
            self.tail = false;
            self.note_missing(before(entry.key()));
            return false;
        }
        self.known.insert(entry.delivery_id);
        self.bytes += entry.bytes();
        self.ready.insert(entry.key(), entry);
        true
    }

    /// A load behind [`Self::missing`] begins.
    pub(super) fn begin_load(&mut self) {
        self.loading = true;
        self.spoiled = false;
        if let Some(lanes) = &mut self.lanes {
            lanes.begin_page();
        }
        self.missed = None;
        self.finished.clear();
    }

    /// The load gave nothing: Postgres was away.
    pub(super) fn load_failed(&mut self) {
        self.loading = false;
        if let Some(missed) = self.missed.take() {
            self.note_missing(missed);
        }
        self.finished.clear();
    }

    /// Takes a page that a load gave. An empty one ends the sweep; one of fewer than `limit` rows probably does, but the
    /// bodies' size may have cut it. `at_least_one`: the first row comes in although there's no room.
    pub(super) fn load(
        &mut self,
        page: Vec<Entry>,
        limit: usize,
        times: Times,
        mut room: Room,
        at_least_one: bool,
    ) -> Loaded {
        if self.is_ordered() {
            return self.load_ordered(page, limit, times, room, at_least_one);
        }
        let Times { now, soon, confirm } = times;
        self.loading = false;
        let mut loaded = Loaded::default();
        let mut reached = None;
        let mut sweep_over = page.is_empty();
        self.unseen &= sweep_over;
        self.tail = page.len() < limit;
        for entry in page {
            let key = entry.key();
            if entry.due_at > soon && !entry.is_due(now) {
                // The rest of the queue is later still.
                self.leave_for_later(entry.due_at);
                sweep_over = true;
                break;
            }
            if self.known.contains(&entry.delivery_id) || self.finished.contains(&entry.delivery_id)
            {
                reached = Some(key);
                continue;
            }
            let due = entry.is_due(now);
            if !due && !self.may_wait(&entry, &mut room) {
                // What waits is earlier, and the rest of the queue is later still: it is read when this is due, not
                // swept again and again. Only first attempts dated by a clock that is ahead may be behind it; those on
                // this page needn't wait.
                self.leave_for_later(entry.due_at);
                sweep_over = true;
                continue;
            }
            let first = at_least_one && loaded.admitted == 0 && self.ready.is_empty();
            if due && (self.ready.len() >= room.window || (entry.bytes() > room.bytes && !first)) {
                // Behind a retry that was left out it comes with that one.
                loaded.no_room = !sweep_over;
                break;
            }
            room.bytes = room.bytes.saturating_sub(entry.bytes());
            self.bytes += entry.bytes();
            self.known.insert(entry.delivery_id);
            if due {
                &mut self.ready
            } else {
                &mut self.waiting
            }
            .insert(key, entry);
            loaded.admitted += 1;
            reached = Some(key);
        }
        if sweep_over {
            self.missing = None;
        } else if let Some(reached) = reached {
            self.missing = Some(reached);
            self.confirm_at = (self.tail && !loaded.no_room).then_some(confirm);
        }
        self.tail &= !loaded.no_room;
        if let Some(missed) = self.missed.take() {
            self.note_missing(missed);
        }
        self.finished.clear();
        loaded
    }

    /// The next delivery to send; it stays known until [`Self::settle`].
    pub(super) fn take(&mut self) -> Option<Entry> {
        if let Some(lanes) = &mut self.lanes {
            let entry = lanes.take()?;
            self.bytes = lanes.bytes();
            self.in_flight += 1;
            return Some(entry);
        }
        let (_, entry) = self.ready.pop_first()?;
        self.bytes -= entry.bytes();
        self.in_flight += 1;
        Some(entry)
    }

    /// The outcome of a delivery is in the table, or will never be: from now on a load may bring it in again.
    pub(super) fn settle(&mut self, delivery: Uuid) {
        self.known.remove(&delivery);
        if self.loading {
            self.finished.insert(delivery);
        }
    }

    /// Keeps a delivery whose retry is written, if it is due soon and there's room.
    pub(super) fn retry(&mut self, entry: Entry, soon: Timestamp, room: Room) -> bool {
        if self.is_ordered() {
            // It was not when the attempt began.
            self.give_back(entry.delivery_id);
            self.note_missing(BEGINNING);
            return false;
        }
        if !self.is_active() {
            self.note_missing(before(entry.key()));
            return false;
        }
        // Half of the bytes at most wait, so that what can be sent now finds room.
        let mut half = Room {
            bytes: room.bytes / 2,
            ..room
        };
        if entry.due_at > soon || !self.may_wait(&entry, &mut half) {
            self.leave_for_later(entry.due_at);
            return false;
        }
        self.known.insert(entry.delivery_id);
        self.bytes += entry.bytes();
        self.waiting.insert(entry.key(), entry);
        true
    }

    /// Is there room for one more that waits? The last one that waits gives its place to an earlier one: if later
    /// retries kept the places, each of the earlier ones would be read from the table by itself.
    fn may_wait(&mut self, entry: &Entry, room: &mut Room) -> bool {
        if self.waiting.len() < room.window && entry.bytes() <= room.bytes {
            return true;
        }
        let Some(last) = self.waiting.last_entry().filter(|last| {
            *last.key() > entry.key() && entry.bytes() <= room.bytes + last.get().bytes()
        }) else {
            return false;
        };
        let last = last.remove();
        self.bytes -= last.bytes();
        room.bytes += last.bytes();
        self.known.remove(&last.delivery_id);
        self.leave_for_later(last.due_at);
        true
    }

    pub(super) fn leave_for_later(&mut self, due: Timestamp) {
        self.later = Some(self.later.map_or(due, |earlier| earlier.min(due)));
    }

    /// Moves on what has become due.
    pub(super) fn advance(&mut self, now: Timestamp) {
        while let Some(first) = self.waiting.first_entry() {
            if !first.get().is_due(now) {
                break;
            }
            let (key, entry) = first.remove_entry();
            self.ready.insert(key, entry);
        }
        if let Some(due) = self.later.filter(|due| *due <= now) {
            self.later = None;
            self.note_missing(before((due, Uuid::nil())));
        }
        self.wake_lanes(now);
        self.gates.until = self.gates.until.filter(|until| *until > now);
        self.pause_until = self.pause_until.filter(|until| *until > now);
        self.confirm_at = self.confirm_at.filter(|at| *at > now);
    }

    /// When [`Self::advance`] has something to do.
    pub(super) fn next_wake(&self) -> Option<Timestamp> {
        let waiting = self.waiting.first_key_value().map(|((due, _), _)| *due);
        let pause = self
            .pause_until
            .max(self.confirm_at)
            .filter(|_| self.missing.is_some());
        let later = self.later.filter(|_| self.is_active());
        let lanes = self.lanes.as_ref().and_then(Lanes::next_wake);
        [waiting, later, pause, lanes, self.gates.until]
            .into_iter()
            .flatten()
            .min()
    }

    /// Should a page be loaded now?
    pub(super) fn wants_load(&self, window: usize, share: usize) -> bool {
        self.missing.is_some()
            && !self.loading
            && self.pause_until.is_none()
            && self.confirm_at.is_none()
            && self.is_active()
            && match &self.lanes {
                Some(lanes) if lanes.is_blocked() => false,
                Some(lanes) => {
                    lanes.held() == 0 || (lanes.wants_more(window) && self.bytes < share)
                }
                None => {
                    self.ready.is_empty() || (self.ready.len() < window / 2 && self.bytes < share)
                }
            }
    }

    /// Forgets the end of what it holds until it holds no more than `share` bytes. The next delivery stays where
    /// nothing is in flight: else hundreds that hang could fill memory with one each.
    pub(super) fn trim(&mut self, share: usize) {
        if self.is_ordered() {
            return self.in_lanes(|lanes| lanes.trim(share));
        }
        while self.bytes > share {
            let Some((_, entry)) = self.waiting.pop_last() else {
                break;
            };
            self.bytes -= entry.bytes();
            self.known.remove(&entry.delivery_id);
            self.leave_for_later(entry.due_at);
        }
        let mut gone = None;
        let stay = usize::from(self.in_flight == 0);
        while self.bytes > share && self.ready.len() > stay {
            let Some((key, entry)) = self.ready.pop_last() else {
                break;
            };
            self.bytes -= entry.bytes();
            self.known.remove(&entry.delivery_id);
            gone = Some(key);
        }
        if let Some(key) = gone {
            self.note_missing(before(key));
        }
    }

    /// Forgets all that is not in flight: the destination is suspended or gone. It is read again when it is back.
    pub(super) fn forget(&mut self) {
        self.in_lanes(Lanes::forget);
        self.spoiled |= self.loading;
        self.gates.until = None;
        for entry in self.ready.values().chain(self.waiting.values()) {
            self.known.remove(&entry.delivery_id);
        }
        self.ready.clear();
        self.waiting.clear();
        self.bytes = 0;
        self.later = None;
        self.tail = false;
        self.note_missing(BEGINNING);
    }

    /// A delivery of this destination is in flight from an earlier time as owner.
    pub(super) fn adopt(&mut self, delivery: Uuid) {
        self.known.insert(delivery);
    }
}

/// The key just before `key`, so that a load behind it finds `key`.
fn before((due, _): Key) -> Key {
    let earlier = due.as_microsecond().saturating_sub(1);
    (
        Timestamp::from_microsecond(earlier).unwrap_or(Timestamp::MIN),
        Uuid::max(),
    )
}

#[cfg(test)]
mod tests;
