//! Who may begin an attempt: the slots that all destinations share, and which of those that wait is next.
//!
//! An attempt that has begun can't be taken back without sending twice, so a slot that a hanging receiver holds is gone
//! until the timeout. What others need must therefore be kept free beforehand. A slot stands for one attempt and 16 KiB
//! of what it sends; an attempt with a larger body takes more, up to a 32nd of all ([`Slots::weight`]).
//!
//! # What is guaranteed
//! - A namespace holds at most half of the slots, and the less of them the more the other namespaces hold ([`may_hold`]).
//!   Of that, one destination holds at most half, and steeply less as the destinations beside it hold more
//!   ([`is_allowed`]). None of both depends on who came first by more than that.
//! - A destination with nothing in flight begins an attempt at once, and one that answers quickly soon has as many as it
//!   needs, up to a 128th of the slots more than a stranger would get (it earns one with each attempt that ends in time,
//!   and loses half of what it earned with each that doesn't). A destination that is alone
//!   may have a quarter of all slots, also while its attempts take long.
//! - Of those that wait, whoever needs the least that is free goes first, and among equals in turn.
//!
//! # Where it ends
//! With 4,096 slots: when 450 destinations of one namespace hang at the same time, each with as many attempts as it may
//! have, the namespace's other destinations wait for the timeouts; other namespaces do not. When 190 namespaces hang in
//! this way, everybody waits. Large bodies bring that nearer: at 2 MiB and more it is nine destinations of one namespace,
//! or eleven namespaces. All of it grows with the number of slots. (The tests count.)
//!
//! Pure: no clock, no IO. Each call costs the logarithm of the destinations that wait.

use std::{
    collections::{BTreeSet, HashMap},
    sync::Arc,
};
use uuid::Uuid;

/// What an attempt may send for one slot.
const BYTES: usize = 16 << 10;

/// No attempt takes more than this part of all slots, however large its body: so many can be in flight, with bodies of
/// whatever size Sources admit (10 MiB unless they say otherwise).
const HEAVIEST: usize = 32;

/// A destination earns at most this part of all slots…
const EARNED: usize = 128;

/// …and where there are few slots, so many.
const EARNED_ANYWAY: usize = 4;

#[derive(Debug)]
pub(super) struct Slots {
    all: usize,
    used: usize,
    /// Counts up whenever a destination begins to wait.
    turn: u64,
    /// Those that wait or have something in flight.
    destinations: HashMap<Uuid, Share>,
    namespaces: HashMap<Arc<str>, Namespace>,
    /// Namespaces in which somebody waits, by the free slots that its first needs, and since when that one waits.
    order: BTreeSet<(usize, u64, Arc<str>)>,
}

#[derive(Debug)]
struct Share {
    namespace: Arc<str>,
    used: usize,
    /// Slots that it may use like a destination that uses none.
    earned: usize,
    /// Its place in the namespace's order.
    waiting: Option<(usize, u64)>,
}

impl Share {
    fn unearned(&self) -> usize {
        self.used.saturating_sub(self.earned)
    }
}

#[derive(Debug, Default)]
struct Namespace {
    used: usize,
    /// Those that wait or have something in flight.
    destinations: usize,
    /// Its destinations that wait, by what they use and haven't earned, and in turn.
    waiting: BTreeSet<(usize, u64, Uuid)>,
    /// Its place in the order of all.
    place: Option<(usize, u64)>,
}

impl Slots {
    pub(super) fn new(all: usize) -> Slots {
        Slots {
            all: all.max(1),
            used: 0,
            turn: 0,
            destinations: HashMap::new(),
            namespaces: HashMap::new(),
            order: BTreeSet::new(),
        }
    }

    /// The slots that an attempt takes which sends so many bytes.
    pub(super) fn weight(&self, bytes: usize) -> usize {
        (1 + bytes / BYTES).min((self.all / HEAVIEST).max(1))
    }

    /// A destination has something to send. It stays where it is if it waits already.
    pub(super) fn wait(&mut self, id: Uuid, namespace: &str) {
        let share = self.share(id, namespace);
        if share.waiting.is_some() {
            return;
        }
        let (key, name) = (share.unearned(), share.namespace.clone());
        self.turn += 1;
        let turn = self.turn;
        self.share(id, namespace).waiting = Some((key, turn));
        if let Some(namespace) = self.namespaces.get_mut(&name) {
            namespace.waiting.insert((key, turn, id));
        }
        self.place(&name);
    }

    /// The next destination that may begin an attempt. It doesn't wait any more: [`Slots::begin`] or [`Slots::pass`].
    pub(super) fn next(&mut self) -> Option<Uuid> {
        let (need, _, name) = self.order.first()?;
        if *need > self.free() {
            // Everybody else needs more.
            return None;
        }
        let name = name.clone();
        let (_, _, id) = self.namespaces.get_mut(&name)?.waiting.pop_first()?;
        if let Some(share) = self.destinations.get_mut(&id) {
            share.waiting = None;
        }
        self.place(&name);
        Some(id)
    }

    /// The destination had nothing to send after all.
    pub(super) fn pass(&mut self, id: Uuid) {
        self.forget(id);
    }

    /// An attempt begins.
    pub(super) fn begin(&mut self, id: Uuid, namespace: &str, weight: usize) {
        let share = self.share(id, namespace);
        share.used += weight;
        let name = share.namespace.clone();
        self.used += weight;
        if let Some(namespace) = self.namespaces.get_mut(&name) {
            namespace.used += weight;
        }
        self.rank(id);
    }

    /// It has ended. `quick`: in time, with whatever outcome.
    pub(super) fn end(&mut self, id: Uuid, weight: usize, quick: bool) {
        let most = (self.all / EARNED).max(EARNED_ANYWAY);
        let Some(share) = self.destinations.get_mut(&id) else {
            return;
        };
        share.used -= weight;
        share.earned = (share.earned + usize::from(quick)).min(most);
        let name = share.namespace.clone();
        self.used -= weight;
        if let Some(namespace) = self.namespaces.get_mut(&name) {
            namespace.used -= weight;
        }
        self.rank(id);
        self.forget(id);
    }

    /// An attempt takes long.
    pub(super) fn drags(&mut self, id: Uuid) {
        if let Some(share) = self.destinations.get_mut(&id) {
            share.earned /= 2;
            self.rank(id);
        }
    }

    /// Could it begin an attempt now?
    pub(super) fn may_begin(&self, id: Uuid) -> bool {
        let free = self.free();
        let Some(share) = self.destinations.get(&id) else {
            return free > 0;
        };
        let namespace = self.namespaces.get(&share.namespace);
        let beside = namespace.map_or(0, |namespace| namespace.used);
        free > 0 && is_allowed(self.all, free, beside, share.used, share.unearned())
    }

    fn free(&self) -> usize {
        // The last attempt may have been larger than what was free.
        self.all.saturating_sub(self.used)
    }

    fn share(&mut self, id: Uuid, namespace: &str) -> &mut Share {
        let namespaces = &mut self.namespaces;
        self.destinations.entry(id).or_insert_with(|| {
            let known = namespaces.get_key_value(namespace);
            let name = known.map_or_else(|| Arc::from(namespace), |(name, _)| name.clone());
            namespaces.entry(name.clone()).or_default().destinations += 1;
            Share {
                namespace: name,
                used: 0,
                earned: 0,
                waiting: None,
            }
        })
    }

    /// Puts a destination that waits where it belongs now, and its namespace as well.
    fn rank(&mut self, id: Uuid) {
        let Some(share) = self.destinations.get_mut(&id) else {
            return;
        };
        let (key, name) = (share.unearned(), share.namespace.clone());
        if let Some((was, turn)) = share.waiting
            && was != key
            && let Some(namespace) = self.namespaces.get_mut(&name)
        {
            share.waiting = Some((key, turn));
            namespace.waiting.remove(&(was, turn, id));
            namespace.waiting.insert((key, turn, id));
        }
        self.place(&name);
    }

    /// Puts a namespace where it belongs by what its first needs.
    fn place(&mut self, name: &Arc<str>) {
        let Some(namespace) = self.namespaces.get_mut(name) else {
            return;
        };
        let place = namespace.waiting.first().map(|(key, turn, id)| {
            let used = self.destinations.get(id).map_or(0, |share| share.used);
            (need(self.all, namespace.used, used, *key), *turn)
        });
        if place == namespace.place {
            return;
        }
        if let Some((need, turn)) = namespace.place {
            self.order.remove(&(need, turn, name.clone()));
        }
        namespace.place = place;
        self.order
            .extend(place.map(|(need, turn)| (need, turn, name.clone())));
    }

    /// Forgets a destination of which nothing is in flight and nothing waits, with what it has earned.
    fn forget(&mut self, id: Uuid) {
        let idle = |share: &Share| share.used == 0 && share.waiting.is_none();
        if !self.destinations.get(&id).is_some_and(idle) {
            return;
        }
        let Some(Share { namespace, .. }) = self.destinations.remove(&id) else {
            return;
        };
        if let Some(known) = self.namespaces.get_mut(&namespace) {
            known.destinations -= 1;
            if known.destinations == 0 {
                self.namespaces.remove(&namespace);
            }
        }
    }
}

/// What a namespace may use that uses `used`, while `free` are free: half of all when nobody else has any, and less by
/// the square of what the others leave. So what is free after many greedy namespaces falls with their number, and doesn't
/// halve with each.
fn may_hold(all: usize, free: usize, used: usize) -> u64 {
    let left = (free + used) as u64;
    (left * left / (2 * all as u64)).max(1)
}

/// May a destination begin an attempt that uses `used`, `unearned` of them unearned, in a namespace that uses `beside`?
///
/// Of what the other destinations of its namespace leave it may have half, times the cube of that part: alone half, when
/// half is left a sixteenth, when a tenth is left nothing beyond its first attempt. The cube is what lets hundreds come
/// later: a share that only follows what is left halves with each.
fn is_allowed(all: usize, free: usize, beside: usize, used: usize, unearned: usize) -> bool {
    let whole = may_hold(all, free, beside);
    let Some(room) = whole.checked_sub(beside as u64).filter(|room| *room > 0) else {
        return false;
    };
    let (whole, left) = (u128::from(whole), u128::from(room) + used as u128);
    unearned == 0 || (unearned as u128) * 2 * whole.pow(3) < left.pow(4)
}

/// The fewest free slots with which [`is_allowed`]; more than all when it never is.
fn need(all: usize, beside: usize, used: usize, unearned: usize) -> usize {
    let (mut few, mut enough) = (0, all + 1);
    while enough - few > 1 {
        let middle = few + (enough - few) / 2;
        if is_allowed(all, middle, beside, used, unearned) {
            enough = middle;
        } else {
            few = middle;
        }
    }
    enough
}

#[cfg(test)]
mod tests;
