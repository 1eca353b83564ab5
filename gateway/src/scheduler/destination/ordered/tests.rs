//! A destination with an order, its queue and its owners, driven by chance: pages are read while attempts end, retries come,
//! memory is trimmed and owners follow each other.

use super::*;
use crate::scheduler::destination::{Key as Place, tests};
use proptest::prelude::*;
use routing::delivery::{Key, Order};
use std::{collections::BTreeMap, sync::Arc};
use store::events::Event;

/// Rows of a page, and deliveries in memory.
const WINDOW: usize = 6;

fn at(milliseconds: i64) -> Timestamp {
    Timestamp::from_millisecond(1_800_000_000_000 + milliseconds).unwrap()
}

fn ordered(order: Order) -> Destination {
    let mut made = Destination::new(0, false, at(0));
    made.row = Some(tests::row(|spec| spec.order = Some(order)));
    made.configure();
    made
}

/// A row of the queue.
#[derive(Debug, Clone)]
struct Queued {
    key: u8,
    /// In the order of commits.
    commit: usize,
    retry_at: Option<Timestamp>,
    attempts: u32,
    event: Arc<Event>,
}

#[derive(Debug)]
enum Page {
    Asked(HashSet<Uuid>),
    Read(Vec<Entry>),
}

#[derive(Debug, Clone, Copy)]
enum End {
    Delivered,
    GivenUp,
    RetryAt(Timestamp),
}

struct World {
    order: Order,
    most_parked: usize,
    queue: BTreeMap<Place, Queued>,
    commits: usize,
    now: i64,
    owner: Destination,
    page: Option<Page>,
    flying: Vec<Entry>,
    /// Of an owner that lost the shard: their ends are not written.
    late: Vec<Entry>,
    unwritten: Vec<(Entry, End)>,
    /// By this owner, whether that's written or not.
    delivered: HashSet<Uuid>,
}

impl World {
    fn new(order: Order, most_parked: usize) -> World {
        let mut world = World {
            owner: ordered(order.clone()),
            order,
            most_parked,
            queue: BTreeMap::new(),
            commits: 0,
            now: 0,
            page: None,
            flying: Vec::new(),
            late: Vec::new(),
            unwritten: Vec::new(),
            delivered: HashSet::new(),
        };
        world.bound();
        world
    }

    fn bound(&mut self) {
        self.owner.lanes.as_mut().unwrap().most_parked = self.most_parked;
    }

    fn now(&self) -> Timestamp {
        at(self.now)
    }

    /// `behind`: by a replica whose clock is so many milliseconds behind.
    fn commit(&mut self, key: u8, behind: i64) {
        self.commits += 1;
        let event = Event {
            body: format!(r#"{{"k": {key}}}"#).into_bytes().into(),
            ..Event::default()
        };
        let place = (
            at(self.now - behind),
            Uuid::from_u128((self.commits as u128) << 16),
        );
        let queued = Queued {
            key,
            commit: self.commits,
            retry_at: None,
            attempts: 0,
            event: Arc::new(event),
        };
        let entry = self.entry(place, &queued);
        self.queue.insert(place, queued);
        self.owner.record(entry, ROOM);
    }

    fn entry(&self, (due_at, delivery_id): Place, queued: &Queued) -> Entry {
        Entry {
            due_at,
            delivery_id,
            connection_id: Uuid::nil(),
            recorded_at: due_at,
            attempts: queued.attempts,
            retry_at: queued.retry_at,
            round: Default::default(),
            lane: self.owner.sorter().unwrap().lane_of(&queued.event),
            event: queued.event.clone(),
        }
    }

    fn ask(&mut self) {
        if self.page.is_none() && self.owner.wants_load(WINDOW, 1000) {
            self.page = Some(Page::Asked(self.owner.all_known().into_iter().collect()));
            self.owner.begin_load();
        }
    }

    fn read(&mut self) {
        if let Some(Page::Asked(known)) = &self.page {
            let rows = self
                .queue
                .iter()
                .filter(|((_, id), _)| !known.contains(id))
                .take(WINDOW)
                .map(|(place, queued)| self.entry(*place, queued));
            self.page = Some(Page::Read(rows.collect()));
        }
    }

    fn arrive(&mut self) {
        if !matches!(self.page, Some(Page::Read(_))) {
            return;
        }
        let Some(Page::Read(rows)) = self.page.take() else {
            return;
        };
        let times = Times {
            now: self.now(),
            soon: self.now(),
            confirm: self.now(),
        };
        self.owner.load(rows, WINDOW, times, ROOM, true);
        self.owner.advance(self.now());
    }

    /// Begins an attempt; what is before it, by its key and by the order of commits, must be done with.
    fn take(&mut self) {
        if self.owner.in_flight >= 4 {
            return;
        }
        let Some(entry) = self.owner.take() else {
            return;
        };
        let mine = self.queue[&entry.key()].clone();
        for ((_, id), other) in self.queue.range(..entry.key()) {
            let same = self.order.key.is_none() || other.key == mine.key;
            assert!(
                !same || other.commit > mine.commit || self.delivered.contains(id),
                "{} went before {}",
                mine.commit,
                other.commit
            );
        }
        let ours = self.flying.iter().map(|other| self.queue[&other.key()].key);
        assert!(
            ours.into_iter()
                .all(|key| self.order.key.is_some() && key != mine.key),
            "two of a key at once"
        );
        self.flying.push(entry);
    }

    fn end(&mut self, which: usize, end: End) {
        if self.flying.is_empty() {
            return;
        }
        let entry = self.flying.swap_remove(which % self.flying.len());
        self.owner.in_flight -= 1;
        if let End::Delivered = end {
            self.delivered.insert(entry.delivery_id);
            self.owner.pass(entry.delivery_id, self.now());
        }
        self.unwritten.push((entry, end));
    }

    fn end_late(&mut self) {
        if let Some(entry) = self.late.pop() {
            self.owner.settle(entry.delivery_id);
            self.owner.give_back(entry.delivery_id);
            self.owner.note_missing(BEGINNING);
        }
    }

    fn write(&mut self) {
        if self.unwritten.is_empty() {
            return;
        }
        let (entry, end) = self.unwritten.remove(0);
        match end {
            End::Delivered | End::GivenUp => {
                self.queue.remove(&entry.key());
            }
            End::RetryAt(at) => {
                let queued = self.queue.get_mut(&entry.key()).unwrap();
                queued.retry_at = Some(at);
                queued.attempts += 1;
            }
        }
        self.owner.settle(entry.delivery_id);
        match end {
            End::RetryAt(at) => self.owner.block(entry.delivery_id, at),
            _ => self.owner.pass(entry.delivery_id, self.now()),
        }
    }

    fn pass_time(&mut self, milliseconds: i64) {
        self.now += milliseconds;
        self.owner.advance(self.now());
    }

    /// `kept`: the process is the same, and its attempts go on.
    fn hand_over(&mut self, kept: bool) {
        self.owner = ordered(self.order.clone());
        self.bound();
        self.late.append(&mut self.flying);
        if !kept {
            self.late.clear();
        }
        for entry in &self.late {
            self.owner.adopt(entry.delivery_id);
            self.owner.adopt_in_order(entry);
        }
        self.page = None;
        self.unwritten.clear();
        self.delivered.clear();
    }

    fn check_sums(&self) {
        let lanes = self.owner.lanes.as_ref().unwrap();
        assert_eq!(lanes.bytes(), self.owner.bytes);
        let under_way = self.flying.len() + self.late.len() + self.unwritten.len();
        assert!(
            self.owner.known() <= lanes.held() + lanes.parked() + lanes.blocked() + under_way,
            "{} known",
            self.owner.known()
        );
        assert!(lanes.held() <= WINDOW + 1);
    }

    /// Lets everything go well until nothing is left.
    fn drain(&mut self) {
        for _ in 0..20_000 {
            if self.queue.is_empty() {
                break;
            }
            self.pass_time(1000);
            self.end_late();
            self.ask();
            self.read();
            self.arrive();
            self.take();
            self.end(0, End::Delivered);
            self.write();
        }
        assert!(self.queue.is_empty(), "{:?} is stuck", self.owner);
        for _ in 0..10 {
            self.pass_time(1000);
            self.end_late();
            self.ask();
            self.read();
            self.arrive();
        }
        assert!(self.owner.is_idle(), "{:?}", self.owner);
        let lanes = self.owner.lanes.as_ref().unwrap();
        assert_eq!((lanes.bytes(), lanes.parked(), lanes.held()), (0, 0, 0));
    }
}

const ROOM: Room = Room {
    window: WINDOW,
    bytes: 1000,
};

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn nothing_overtakes_and_nothing_is_forgotten(
        keyed in any::<bool>(),
        most_parked in prop_oneof![Just(3_usize), Just(8192_usize)],
        keys in 1..6_u8,
        steps in prop::collection::vec((0..30_u8, any::<u8>()), 0..400),
    ) {
        let key = keyed.then(|| Key::parse("body.k").unwrap());
        let mut world = World::new(Order { key, blocked_head: BlockedHead::Wait }, most_parked);
        for (step, chance) in steps {
            match step {
                0..=5 => world.commit(chance % keys, if chance > 220 { 40 } else { 0 }),
                6..=8 => world.ask(),
                9..=11 => world.read(),
                12..=14 => world.arrive(),
                15..=18 => world.take(),
                19..=21 => {
                    let end = match chance % 4 {
                        0 | 1 => End::Delivered,
                        2 => End::RetryAt(at(world.now + i64::from(chance))),
                        _ => End::GivenUp,
                    };
                    world.end(usize::from(chance), end);
                }
                22..=24 => world.write(),
                25 | 26 => world.pass_time(i64::from(chance % 64)),
                27 => world.end_late(),
                28 => world.owner.trim(usize::from(chance)),
                _ if chance < 40 => world.hand_over(chance % 2 == 0),
                _ => world.pass_time(7),
            }
            world.check_sums();
        }
        world.drain();
    }
}

#[test]
fn slow_keys_leave_room_for_others() {
    let order = Order {
        key: Some(Key::parse("body.k").unwrap()),
        blocked_head: BlockedHead::Wait,
    };
    let mut world = World::new(order, 8192);
    for key in (0..50).flat_map(|_| [0, 1]).chain([2]) {
        world.commit(key, 0);
    }
    for _ in 0..50 {
        world.ask();
        world.read();
        world.arrive();
        world.take();
        world.check_sums();
    }
    let keys: HashSet<u8> = world
        .flying
        .iter()
        .map(|entry| world.queue[&entry.key()].key)
        .collect();
    assert_eq!(keys, [0, 1, 2].into());
    world.drain();
}

#[test]
fn another_order_is_followed_once_what_is_under_way_has_ended() {
    let by = |path: Option<&str>| Order {
        key: path.map(|path| Key::parse(path).unwrap()),
        blocked_head: BlockedHead::Wait,
    };
    let mut world = World::new(by(Some("body.k")), 8192);
    for key in 0..4 {
        world.commit(key, 0);
    }
    world.ask();
    world.read();
    world.arrive();
    world.take();
    world.take();
    assert_eq!(world.flying.len(), 2);
    // A page is on its way that was asked for in the first order.
    world.commit(5, 0);
    world.ask();
    world.read();
    world.order = by(None);
    let row = ordered(world.order.clone()).row;
    world.owner.row = row;
    assert!(world.owner.configure());
    for entry in world.flying.clone() {
        world.owner.adopt_in_order(&entry);
    }
    world.arrive();
    world.take();
    assert_eq!(world.flying.len(), 2, "nothing goes beside them");
    world.end(1, End::Delivered);
    world.write();
    world.end(0, End::Delivered);
    world.write();
    world.drain();
}

#[test]
fn the_word_on_a_blocked_head_may_change_without_another_order() {
    let order = |blocked_head| Order {
        key: None,
        blocked_head,
    };
    let mut one = ordered(order(BlockedHead::Wait));
    assert_eq!(one.blocked_head(), Some(BlockedHead::Wait));
    one.row = ordered(order(BlockedHead::DeadLetter)).row;
    assert!(!one.configure());
    assert_eq!(one.blocked_head(), Some(BlockedHead::DeadLetter));
    // Out of the table for a moment: what fails meanwhile keeps its place.
    one.row = None;
    assert_eq!(one.blocked_head(), Some(BlockedHead::DeadLetter));
}
