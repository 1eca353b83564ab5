//! A destination with a strict order: how its deliveries come into memory and leave it. The order itself is `order`'s.

use super::{BEGINNING, Destination, Entry, Loaded, Room, Times};
use crate::scheduler::order::{Forgotten, Lanes, Sorter};
use jiff::Timestamp;
use routing::delivery::BlockedHead;
use std::collections::HashSet;
use uuid::Uuid;

impl Destination {
    pub(in crate::scheduler) fn is_ordered(&self) -> bool {
        self.lanes.is_some()
    }

    /// What becomes of a delivery that fails, where there is an order.
    pub(in crate::scheduler) fn blocked_head(&self) -> Option<BlockedHead> {
        self.lanes.as_ref().map(Lanes::blocked_head)
    }

    /// What tells a page's deliveries apart, where there is an order.
    pub(in crate::scheduler) fn sorter(&self) -> Option<Sorter> {
        self.lanes.as_ref().map(|lanes| lanes.sorter().clone())
    }

    /// Keys that wait for a retry.
    pub(in crate::scheduler) fn blocked(&self) -> usize {
        self.lanes.as_ref().map_or(0, Lanes::blocked)
    }

    pub(in crate::scheduler) fn is_crowded(&self) -> bool {
        self.lanes.as_ref().is_some_and(Lanes::is_crowded)
    }

    pub(in crate::scheduler) fn parked(&self) -> usize {
        self.lanes.as_ref().map_or(0, Lanes::parked)
    }

    /// The deliveries that a page must not show.
    pub(in crate::scheduler) fn all_known(&self) -> Vec<Uuid> {
        self.known.iter().copied().collect()
    }

    /// Takes over what the row says about the order. True: it is another, and what is under way has to be adopted.
    pub(super) fn configure_order(&mut self) -> bool {
        let Some(row) = &self.row else { return false };
        let order = row.row.spec.order.as_ref();
        let same = match (order, &mut self.lanes) {
            (None, None) => true,
            (Some(order), Some(lanes)) => lanes.follows(order),
            _ => false,
        };
        if same {
            return false;
        }
        let lanes = order.map(Lanes::new);
        self.forget();
        self.lanes = lanes;
        true
    }

    /// This one is under way, from an earlier time as owner or in another order.
    pub(in crate::scheduler) fn adopt_in_order(&mut self, entry: &Entry) {
        if let Some(lanes) = &mut self.lanes {
            lanes.adopt(entry);
        }
    }

    /// A delivery is delivered, or given up and that is written.
    pub(in crate::scheduler) fn pass(&mut self, delivery: Uuid, now: Timestamp) {
        self.in_lanes(|lanes| lanes.pass(delivery, now));
    }

    /// A delivery is tried again at `until`, and what is behind it waits.
    pub(in crate::scheduler) fn block(&mut self, delivery: Uuid, until: Timestamp) {
        let mut first = false;
        self.in_lanes(|lanes| {
            let (found, forgotten) = lanes.wait(delivery, until);
            first = found;
            forgotten
        });
        if first {
            self.known.insert(delivery);
        } else {
            self.note_missing(BEGINNING);
        }
    }

    /// A delivery goes back to the table as if it had not begun.
    pub(in crate::scheduler) fn give_back(&mut self, delivery: Uuid) {
        self.in_lanes(|lanes| lanes.give_back(delivery));
    }

    pub(super) fn wake_lanes(&mut self, now: Timestamp) {
        self.in_lanes(|lanes| lanes.wake(now));
    }

    /// Runs `change` on the lanes, if there are any, and lets go of what they forget.
    pub(super) fn in_lanes(&mut self, change: impl FnOnce(&mut Lanes) -> Forgotten) {
        let Some(lanes) = &mut self.lanes else { return };
        let forgotten = change(lanes);
        self.bytes = lanes.bytes();
        if forgotten.is_empty() {
            return;
        }
        for delivery in forgotten {
            self.known.remove(&delivery);
        }
        self.note_missing(BEGINNING);
    }

    /// [`Destination::load`] for these.
    pub(super) fn load_ordered(
        &mut self,
        page: Vec<Entry>,
        limit: usize,
        times: Times,
        room: Room,
        at_least_one: bool,
    ) -> Loaded {
        let Times { now, confirm, .. } = times;
        self.loading = false;
        let missed = self.missed.take().is_some();
        let finished: HashSet<Uuid> = std::mem::take(&mut self.finished);
        let mut loaded = Loaded::default();
        if std::mem::take(&mut self.spoiled) {
            self.note_missing(BEGINNING);
            return loaded;
        }
        let Some(lanes) = &mut self.lanes else {
            return loaded;
        };
        let (empty, short) = (page.is_empty(), page.len() < limit);
        self.unseen &= empty;
        let mut later = None;
        let mut reached = None;
        let mut left_out = missed;
        let before = lanes.bytes();
        lanes.bound(room.window);
        for entry in page {
            let key = entry.key();
            if self.known.contains(&entry.delivery_id) || finished.contains(&entry.delivery_id) {
                reached = Some(key);
                continue;
            }
            if lanes.is_torn(entry.lane) {
                reached = Some(key);
                left_out = true;
                continue;
            }
            if !entry.is_due(now) {
                // The rest of the queue is later still.
                later = Some(entry.due_at);
                break;
            }
            let parks = lanes.would_park(entry.lane, key);
            if parks && lanes.is_crowded() {
                // Others, whose retry has come, may be behind it.
                reached = Some(key);
                loaded.no_room = true;
                continue;
            }
            let left = (room.bytes + before).saturating_sub(lanes.bytes());
            let first = at_least_one && lanes.held() == 0;
            let fits = lanes.held() < room.window && (entry.bytes() <= left || first);
            if !fits && !parks {
                loaded.no_room = true;
                break;
            }
            self.known.insert(entry.delivery_id);
            lanes.admit(entry, now);
            loaded.admitted += 1;
            reached = Some(key);
        }
        self.bytes = lanes.bytes();
        if let Some(due) = later {
            self.leave_for_later(due);
        }
        if left_out {
            // What was committed or forgotten while the page was read comes with the next.
            self.note_missing(BEGINNING);
        } else if empty || later.is_some() {
            self.missing = None;
        } else {
            self.missing = Some(BEGINNING);
            self.confirm_at = (short && !loaded.no_room).then_some(confirm);
        }
        if empty || reached.is_some() {
            self.in_lanes(|lanes| lanes.swept(reached, now));
        }
        loaded
    }
}

#[cfg(test)]
mod tests;
