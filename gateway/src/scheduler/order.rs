//! The deliveries of a destination with a strict order: in lanes, one for each key, of which only the first may go.
//!
//! Pure: no clock, no IO. The order is that of the queue's key: when the delivery was written, by the database's clock, then
//! its id. A retry keeps its place there (its row says when it may go), so whoever reads the queue from its beginning, after
//! a crash as well, sees the same order.
//!
//! # What is guaranteed
//! - Of one key, a delivery goes only after all before it were delivered, or were given up and that is written. What a
//!   sender sent after its last request was answered comes after it: memory is filled from the table alone, always from
//!   its beginning, so a page that shows a delivery shows everything that was committed before it.
//! - A lane that something of was forgotten while a page is read takes nothing from that page ([`Lanes::is_torn`]): it was asked
//!   for as if that was still here, and could show what comes behind it alone.
//! - A key that waits, for a retry or behind many of its own, holds up no other: of its deliveries memory keeps the keys,
//!   and up to [`BODIES`] whole. That ends at [`PARKED`] keys of a destination: then later deliveries, of whatever key, stay in the
//!   table until there are fewer (`hookstream_delivery_order_crowded`); retries go all the same.
//! - Without a key there is one lane: nothing is kept behind a delivery that waits, and nothing is read.

use super::destination::{Entry, Key as QueueKey};
use jiff::Timestamp;
use routing::delivery::{BlockedHead, Key, Order};
use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet},
    hash::{BuildHasher, RandomState},
};
use store::events::Event;
use uuid::Uuid;

/// Whole deliveries that wait behind the first of a key.
const BODIES: usize = 16;

/// Deliveries of a destination of which memory has only the key: some 300 KB, and as many entries of the index that a page
/// passes over.
const PARKED: usize = 8192;

/// What was forgotten: the table has it, and memory doesn't know it any more.
pub(super) type Forgotten = Vec<Uuid>;

/// Finds an event's lane. To read the key out of a large body takes time, so a page is sorted where it is read.
#[derive(Debug, Clone)]
pub(super) struct Sorter {
    key: Option<Key>,
    /// Differs between processes: nobody can choose keys that share a lane.
    hasher: RandomState,
}

impl Sorter {
    /// Events without the key are in order among themselves.
    pub(super) fn lane_of(&self, event: &Event) -> u64 {
        let key = self.key.as_ref();
        key.map_or(0, |key| {
            self.hasher.hash_one(key.of(&event.headers, &event.body))
        })
    }
}

#[derive(Debug)]
pub(super) struct Lanes {
    sorter: Sorter,
    blocked_head: BlockedHead,
    lanes: HashMap<u64, Lane>,
    /// The lanes of the first deliveries.
    heads: HashMap<Uuid, u64>,
    /// Those that may go.
    ready: BTreeMap<QueueKey, Entry>,
    /// Lanes whose first waits for its retry.
    waiting: BTreeSet<(Timestamp, u64)>,
    /// Lanes whose next is in the table only, and its place there.
    reloading: HashMap<u64, QueueKey>,
    /// Lanes of which something was forgotten since the page was asked for that comes next.
    torn: HashSet<u64>,
    /// Behind the first, whole.
    followers: usize,
    /// With a key, of all lanes: what is slow leaves room for the first of others.
    most_followers: usize,
    parked: usize,
    /// [`PARKED`], but in tests.
    pub(super) most_parked: usize,
    /// Of `ready` and the followers.
    bytes: usize,
}

#[derive(Debug, Default)]
struct Lane {
    head: Option<(QueueKey, Head)>,
    followers: BTreeMap<QueueKey, Entry>,
    /// All behind the followers.
    parked: BTreeSet<QueueKey>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Head {
    Ready,
    /// From the beginning of its attempt until its end, or until that is written.
    UnderWay,
    Waits(Timestamp),
}

impl Lanes {
    pub(super) fn new(order: &Order) -> Lanes {
        Lanes {
            sorter: Sorter {
                key: order.key.clone(),
                hasher: RandomState::new(),
            },
            blocked_head: order.blocked_head,
            lanes: HashMap::new(),
            heads: HashMap::new(),
            ready: BTreeMap::new(),
            waiting: BTreeSet::new(),
            reloading: HashMap::new(),
            torn: HashSet::new(),
            followers: 0,
            most_followers: usize::MAX,
            parked: 0,
            most_parked: PARKED,
            bytes: 0,
        }
    }

    pub(super) fn sorter(&self) -> &Sorter {
        &self.sorter
    }

    pub(super) fn blocked_head(&self) -> BlockedHead {
        self.blocked_head
    }

    /// Takes another word on the same order. False: it is another order.
    pub(super) fn follows(&mut self, order: &Order) -> bool {
        let same = self.sorter.key == order.key;
        if same {
            self.blocked_head = order.blocked_head;
        }
        same
    }

    fn is_keyed(&self) -> bool {
        self.sorter.key.is_some()
    }

    /// Deliveries that may go.
    pub(super) fn ready(&self) -> usize {
        self.ready.len()
    }

    /// Whole deliveries in memory.
    pub(super) fn held(&self) -> usize {
        self.ready.len() + self.followers
    }

    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Lanes that wait for a retry.
    pub(super) fn blocked(&self) -> usize {
        self.waiting.len()
    }

    pub(super) fn parked(&self) -> usize {
        self.parked
    }

    pub(super) fn is_crowded(&self) -> bool {
        self.parked >= self.most_parked
    }

    /// No page would bring anything that may go.
    pub(super) fn is_blocked(&self) -> bool {
        match self.is_keyed() {
            true => self.is_crowded() && self.reloading.is_empty(),
            false => !self.waiting.is_empty(),
        }
    }

    /// When [`Self::wake`] has something to do.
    pub(super) fn next_wake(&self) -> Option<Timestamp> {
        self.waiting.first().map(|(at, _)| *at)
    }

    /// A page is asked for that leaves out what is here now.
    pub(super) fn begin_page(&mut self) {
        self.torn.clear();
    }

    /// Should more of the table be read, where memory may hold `window` whole deliveries?
    pub(super) fn wants_more(&self, window: usize) -> bool {
        match self.is_keyed() {
            // Those behind slow ones don't count: they take half of the window at most.
            true => self.ready() < (window / 4).max(1),
            false => self.held() < window / 2,
        }
    }

    /// Memory may hold so many whole deliveries.
    pub(super) fn bound(&mut self, window: usize) {
        self.most_followers = window / 2;
    }

    /// The page says nothing about this lane: part of it was forgotten since.
    pub(super) fn is_torn(&self, lane: u64) -> bool {
        self.torn.contains(&lane)
    }

    /// Of a delivery of this lane only the key would be kept.
    pub(super) fn would_park(&self, lane: u64, key: QueueKey) -> bool {
        let Some(lane) = self.lanes.get(&lane) else {
            return false;
        };
        let behind_parked = lane.parked.first().is_some_and(|first| *first < key);
        match lane.head {
            None => behind_parked,
            Some((head, Head::Ready)) if key < head => false,
            Some((_, head)) => {
                let waits = matches!(head, Head::Waits(_));
                let many = lane.followers.len() >= BODIES || self.followers >= self.most_followers;
                let full = waits || many;
                behind_parked || (self.is_keyed() && full)
            }
        }
    }

    /// Takes a delivery that a page shows. Pages come in order, from the beginning.
    pub(super) fn admit(&mut self, entry: Entry, now: Timestamp) {
        let (id, key) = (entry.lane, entry.key());
        let parks = self.would_park(id, key);
        let lane = self.lanes.entry(id).or_default();
        match &mut lane.head {
            _ if parks => {
                lane.parked.insert(key);
                self.parked += 1;
            }
            None => {
                self.reloading.remove(&id);
                self.lead(id, entry, now);
            }
            // It was committed by another replica after a later one was: nobody can have waited for the one before.
            Some((head, state @ Head::Ready)) if key < *head => {
                if let Some(other) = self.ready.remove(head) {
                    self.heads.remove(&other.delivery_id);
                    lane.followers.insert(other.key(), other);
                    self.followers += 1;
                }
                (*head, *state) = (key, Head::Ready);
                self.heads.insert(entry.delivery_id, id);
                self.bytes += entry.bytes();
                self.ready.insert(key, entry);
            }
            Some(_) => {
                self.bytes += entry.bytes();
                self.followers += 1;
                lane.followers.insert(key, entry);
            }
        }
    }

    /// Puts a delivery, whose bytes aren't counted, at the head of its lane.
    fn lead(&mut self, id: u64, entry: Entry, now: Timestamp) {
        let lane = self.lanes.entry(id).or_default();
        self.heads.insert(entry.delivery_id, id);
        match entry.retry_at.filter(|at| *at > now) {
            Some(at) => {
                lane.head = Some((entry.key(), Head::Waits(at)));
                self.waiting.insert((at, id));
            }
            None => {
                lane.head = Some((entry.key(), Head::Ready));
                self.bytes += entry.bytes();
                self.ready.insert(entry.key(), entry);
            }
        }
    }

    /// A delivery that is under way already, from an earlier time as owner or in another order.
    pub(super) fn adopt(&mut self, entry: &Entry) {
        let id = self.sorter.lane_of(&entry.event);
        let lane = self.lanes.entry(id).or_default();
        // Of two of a lane the later one: it ends when both have, or nearly.
        if lane
            .head
            .is_none_or(|(key, head)| head == Head::UnderWay && key < entry.key())
        {
            lane.head = Some((entry.key(), Head::UnderWay));
            self.heads.retain(|_, lane| *lane != id);
            self.heads.insert(entry.delivery_id, id);
        }
    }

    /// The next delivery to send.
    pub(super) fn take(&mut self) -> Option<Entry> {
        let (key, entry) = self.ready.pop_first()?;
        self.bytes -= entry.bytes();
        if let Some(lane) = self
            .heads
            .get(&entry.delivery_id)
            .and_then(|id| self.lanes.get_mut(id))
        {
            lane.head = Some((key, Head::UnderWay));
        }
        Some(entry)
    }

    /// What would be taken next.
    pub(super) fn first(&self) -> Option<&Entry> {
        self.ready.first_key_value().map(|(_, entry)| entry)
    }

    /// A delivery is done with: the next of its lane may go.
    pub(super) fn pass(&mut self, delivery: Uuid, now: Timestamp) -> Forgotten {
        let Some(id) = self.heads.remove(&delivery) else {
            return Vec::new();
        };
        let Some(lane) = self.lanes.get_mut(&id) else {
            return Vec::new();
        };
        lane.head = None;
        if let Some((_, next)) = lane.followers.pop_first() {
            self.followers -= 1;
            self.bytes -= next.bytes();
            self.lead(id, next, now);
            return Vec::new();
        }
        if lane.parked.is_empty() {
            self.lanes.remove(&id);
            return Vec::new();
        }
        self.reload(id)
    }

    /// A delivery will be tried again at `until`, and its lane waits for it. False: it isn't first of any.
    pub(super) fn wait(&mut self, delivery: Uuid, until: Timestamp) -> (bool, Forgotten) {
        let Some(&id) = self.heads.get(&delivery) else {
            return (false, Vec::new());
        };
        let Some(lane) = self.lanes.get_mut(&id) else {
            return (false, Vec::new());
        };
        if let Some((_, head)) = &mut lane.head {
            *head = Head::Waits(until);
        }
        self.waiting.insert((until, id));
        let followers = std::mem::take(&mut lane.followers);
        self.followers -= followers.len();
        self.bytes -= followers.values().map(Entry::bytes).sum::<usize>();
        if self.sorter.key.is_some() {
            self.parked += followers.len();
            lane.parked.extend(followers.into_keys());
            return (true, Vec::new());
        }
        self.torn.insert(id);
        let forgotten = followers.into_keys().map(|(_, id)| id).collect();
        (true, forgotten)
    }

    /// A delivery goes back to the table as if it had not begun.
    pub(super) fn give_back(&mut self, delivery: Uuid) -> Forgotten {
        match self.heads.get(&delivery) {
            Some(&id) => self.reload(id),
            None => Vec::new(),
        }
    }

    /// Forgets the firsts whose time has come: the next page brings them.
    pub(super) fn wake(&mut self, now: Timestamp) -> Forgotten {
        let mut forgotten = Vec::new();
        while let Some(&(_, id)) = self.waiting.first().filter(|(at, _)| *at <= now) {
            forgotten.extend(self.reload(id));
        }
        forgotten
    }

    /// A page has shown all that memory doesn't have, up to a place or to the end: lanes whose next did not come go on without
    /// it.
    pub(super) fn swept(&mut self, up_to: Option<QueueKey>, now: Timestamp) -> Forgotten {
        let mut forgotten = Vec::new();
        let seen = |(id, next): (&u64, &QueueKey)| {
            let seen = up_to.is_none_or(|up_to| *next <= up_to) && !self.torn.contains(id);
            seen.then_some(*id)
        };
        let without: Vec<u64> = self.reloading.iter().filter_map(seen).collect();
        for id in without {
            self.reloading.remove(&id);
            let Some(lane) = self.lanes.get_mut(&id).filter(|lane| lane.head.is_none()) else {
                continue;
            };
            if let Some((_, next)) = lane.followers.pop_first() {
                self.followers -= 1;
                self.bytes -= next.bytes();
                self.lead(id, next, now);
            } else if lane.parked.is_empty() {
                self.lanes.remove(&id);
            } else {
                forgotten.extend(self.reload(id));
            }
        }
        forgotten
    }

    /// Forgets the first of a lane and those behind it, but for keys that lie further back.
    fn reload(&mut self, id: u64) -> Forgotten {
        let Some(lane) = self.lanes.get_mut(&id) else {
            return Vec::new();
        };
        let mut forgotten = Vec::new();
        let mut next = None;
        if let Some((key, head)) = lane.head.take() {
            next = Some(key);
            self.heads.remove(&key.1);
            if let Some(entry) = self.ready.remove(&key) {
                self.bytes -= entry.bytes();
            }
            if let Head::Waits(at) = head {
                self.waiting.remove(&(at, id));
            }
            forgotten.push(key.1);
        }
        let followers = std::mem::take(&mut lane.followers);
        self.followers -= followers.len();
        self.bytes -= followers.values().map(Entry::bytes).sum::<usize>();
        next = next
            .into_iter()
            .chain(followers.first_key_value().map(|(key, _)| *key))
            .min();
        forgotten.extend(followers.into_keys().map(|(_, id)| id));
        for _ in 0..BODIES {
            let Some(key) = lane.parked.pop_first() else {
                break;
            };
            self.parked -= 1;
            next = next.into_iter().chain([key]).min();
            forgotten.push(key.1);
        }
        self.torn.insert(id);
        self.reloading.extend(next.map(|next| (id, next)));
        forgotten
    }

    /// Keeps less in memory, until it holds no more than `share` bytes; one that may go always stays.
    pub(super) fn trim(&mut self, share: usize) -> Forgotten {
        let mut forgotten = Vec::new();
        let keyed = self.is_keyed();
        for (id, lane) in &mut self.lanes {
            while self.bytes > share
                && let Some((key, entry)) = lane.followers.pop_last()
            {
                self.bytes -= entry.bytes();
                self.followers -= 1;
                if keyed {
                    lane.parked.insert(key);
                    self.parked += 1;
                } else {
                    self.torn.insert(*id);
                    forgotten.push(key.1);
                }
            }
        }
        while self.bytes > share
            && self.ready.len() > 1
            && let Some(entry) = self.ready.last_entry()
        {
            let delivery = entry.get().delivery_id;
            let Some(&id) = self.heads.get(&delivery) else {
                break;
            };
            forgotten.extend(self.reload(id));
        }
        forgotten
    }

    /// Forgets everything but what is under way.
    pub(super) fn forget(&mut self) -> Forgotten {
        let mut forgotten = Vec::new();
        self.lanes.retain(|_, lane| {
            let followers = std::mem::take(&mut lane.followers).into_keys();
            forgotten.extend(followers.map(|(_, id)| id));
            let parked = std::mem::take(&mut lane.parked).into_iter();
            forgotten.extend(parked.map(|(_, id)| id));
            match lane.head {
                Some((_, Head::UnderWay)) => true,
                Some(((_, id), _)) => {
                    forgotten.push(id);
                    self.heads.remove(&id);
                    false
                }
                None => false,
            }
        });
        self.ready.clear();
        self.waiting.clear();
        self.reloading.clear();
        (self.followers, self.parked, self.bytes) = (0, 0, 0);
        forgotten
    }
}

#[cfg(test)]
mod tests;
