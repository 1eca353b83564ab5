//! The scheduler's one task: takes messages, keeps the windows, starts attempts.
//!
//! A turn: everything that has arrived is taken in, then pages are asked for, then attempts are started as far as the
//! bounds allow. Nothing in a turn waits.

use super::{
    Handle, LeaseEvent, Options, Report,
    destination::{BEGINNING, Destination, Entry, Room, Row, Times},
    metrics::DeliveryMetrics,
};
use crate::{
    deliver::{self, Answer, Attempt, Target},
    egress::{self, Client},
    leases::Released,
    outcomes::{Fate, Job, Written},
};
use arc_swap::ArcSwap;
use jiff::{SignedDuration, Timestamp};
use routing::{
    Table,
    retry::{self, Step},
    shard,
};
use service::clock;
use std::{
    collections::{BTreeSet, HashMap, HashSet, VecDeque, hash_map},
    sync::{Arc, atomic::Ordering},
    time::Duration,
};
use store::{
    Pool,
    events::{Event, Recorded},
    outcomes::{self, Finished},
    queue::{self, Pending},
    time::stored,
};
use tokio::{
    sync::mpsc::{self, UnboundedSender},
    task::AbortHandle,
    time::Instant,
};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

/// Pages that are read at the same time: enough to keep Postgres busy, and never all connections of the pool.
const LOADS: usize = 4;

/// Outcomes that may wait for their commit before no attempt begins: two batches, so that a slow commit doesn't stop
/// deliveries and a lost Postgres does.
const UNWRITTEN: usize = 1024;

/// Messages taken in before attempts are started.
const TURN: usize = 512;

/// Deliveries of a deleted destination that one statement finishes.
const BURIED: u32 = 500;

/// Hints are about what was recorded this long ago at most; what is older, the timer finds.
const HINT_AGE: SignedDuration = SignedDuration::from_secs(10);

/// After a load that failed or found no room.
const PAUSE: SignedDuration = SignedDuration::from_millis(250);

/// A page that proves the end of a sweep can wait this long.
const CONFIRM: SignedDuration = SignedDuration::from_millis(50);

/// How often the table's pointer and the shards' timers are looked at.
const TICK: Duration = Duration::from_secs(1);

#[derive(Debug)]
pub(super) enum Message {
    /// `None`: broken off.
    Ended {
        flight: u64,
        answer: Option<Answer>,
        took: Duration,
    },
    Page {
        destination: Uuid,
        epoch: i64,
        limit: usize,
        page: store::Result<Vec<(Pending, Arc<Event>)>>,
    },
    Scanned {
        shard: u16,
        epoch: i64,
        found: store::Result<Vec<Uuid>>,
    },
    Written(Vec<Written>),
    /// Deliveries of a destination that is gone, or whose events are, are finished: as many.
    Buried {
        destination: Uuid,
        epoch: i64,
        buried: store::Result<u64>,
    },
    Lease(LeaseEvent),
    Retire,
    /// Break off what is in flight.
    Abort,
}

/// A shard that is ours.
#[derive(Debug)]
struct Shard {
    epoch: i64,
    trusted_until: Instant,
    destinations: HashSet<Uuid>,
    in_flight: usize,
    unwritten: usize,
    /// No attempt begins; it is given back when nothing is under way.
    leaving: bool,
    /// Attempts were held back because the trust ran out.
    stalled: bool,
    /// All destinations with anything in the queue have been seen once.
    scanned: bool,
    scanning: bool,
    scan_at: Timestamp,
}

/// An attempt under way.
#[derive(Debug)]
struct Flight {
    destination: Uuid,
    shard: u16,
    epoch: i64,
    entry: Entry,
    row: Arc<Row>,
    started_at: Timestamp,
    task: AbortHandle,
}

impl Drop for Flight {
    fn drop(&mut self) {
        // No effect on one that has ended.
        self.task.abort();
    }
}

/// What must be known when the outcome of a delivery is written.
#[derive(Debug)]
struct Unwritten {
    entry: Entry,
    retry_at: Option<Timestamp>,
}

pub(super) struct Actor {
    options: Options,
    pool: Pool,
    client: Client,
    table: Arc<ArcSwap<Table>>,
    /// The revision that `destinations` follow.
    current: Arc<Table>,
    metrics: DeliveryMetrics,
    messages: UnboundedSender<Message>,
    jobs: UnboundedSender<Job>,
    released: UnboundedSender<Released>,
    handle: Handle,

    shards: Vec<Option<Shard>>,
    destinations: HashMap<Uuid, Destination>,
    /// Destinations with something to send, in turn.
    ring: VecDeque<Uuid>,
    /// Destinations that want a page.
    wanted: VecDeque<Uuid>,
    loads: usize,
    timers: BTreeSet<(Timestamp, Uuid)>,
    flights: HashMap<u64, Flight>,
    next_flight: u64,
    unwritten: HashMap<(u16, i64, Uuid), Unwritten>,
    /// Of everything in memory: in windows, in flight, and waiting for its outcome's commit.
    bytes: usize,
    /// Destinations that hold any that is not in flight.
    holders: usize,
    /// Deliveries in windows.
    held: usize,
    /// Something found no room in this turn.
    pressed: bool,
    retiring: bool,
    aborting: bool,
}

impl Actor {
    #[expect(
        clippy::too_many_arguments,
        reason = "called once, by `start`, which makes all of these"
    )]
    pub(super) fn new(
        options: Options,
        pool: Pool,
        table: Arc<ArcSwap<Table>>,
        metrics: DeliveryMetrics,
        messages: UnboundedSender<Message>,
        jobs: UnboundedSender<Job>,
        released: UnboundedSender<Released>,
        handle: Handle,
    ) -> Actor {
        let client = egress::client(options.egress.clone());
        let shards = (0..options.shards).map(|_| None).collect();
        let current = table.load_full();
        Actor {
            client,
            shards,
            current,
            options,
            pool,
            table,
            metrics,
            messages,
            jobs,
            released,
            handle,
            destinations: HashMap::new(),
            ring: VecDeque::new(),
            wanted: VecDeque::new(),
            loads: 0,
            timers: BTreeSet::new(),
            flights: HashMap::new(),
            next_flight: 0,
            unwritten: HashMap::new(),
            bytes: 0,
            holders: 0,
            held: 0,
            pressed: false,
            retiring: false,
            aborting: false,
        }
    }

    /// Runs until it has retired.
    pub(super) async fn run(
        mut self,
        mut recorded: mpsc::Receiver<Vec<Recorded>>,
        mut inbound: mpsc::UnboundedReceiver<Message>,
        token: CancellationToken,
    ) {
        let inbox = self.handle.inbox.clone();
        let mut messages = Vec::with_capacity(TURN);
        let mut tick = tokio::time::interval(TICK);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            let mut batch = None;
            let timer = self.next_timer();
            tokio::select! {
                _ = inbound.recv_many(&mut messages, TURN) => {}
                Some(first) = recorded.recv() => batch = Some(first),
                () = inbox.wake.notified() => {}
                () = tokio::time::sleep_until(timer) => {}
                _ = tick.tick() => self.tick(clock::now()),
                () = token.cancelled(), if !self.retiring => self.retire(),
            }
            let now = clock::now();
            self.follow_table(now);
            for message in messages.drain(..) {
                self.take(message, now);
            }
            let mut batches = 0;
            while let Some(recordeds) = batch.take() {
                self.recorded(recordeds);
                batches += 1;
                // The rest next turn: what was just taken wants to be sent.
                batch = if batches < 16 {
                    recorded.try_recv().ok()
                } else {
                    None
                };
            }
            let hints = inbox.take();
            if hints.everything {
                self.rescan(now);
            }
            for destination in hints.destinations {
                self.hint(destination, now);
            }
            self.wake(now);
            self.trim();
            self.load();
            self.launch(now);
            self.count();
            if self.retiring && self.is_over() {
                return;
            }
        }
    }

    fn is_over(&self) -> bool {
        self.flights.is_empty()
            && self.unwritten.is_empty()
            && self.shards.iter().all(Option::is_none)
    }

    fn take(&mut self, message: Message, now: Timestamp) {
        match message {
            Message::Ended {
                flight,
                answer,
                took,
            } => self.ended(flight, answer, took, now),
            Message::Page {
                destination,
                epoch,
                limit,
                page,
            } => self.page(destination, epoch, limit, page, now),
            Message::Scanned {
                shard,
                epoch,
                found,
            } => self.scanned(shard, epoch, found, now),
            Message::Written(batch) => self.written(batch, now),
            Message::Buried {
                destination,
                epoch,
                buried,
            } => self.buried(destination, epoch, buried, now),
            Message::Lease(LeaseEvent::Gained(shards)) => {
                for (shard, epoch, trusted_until) in shards {
                    self.gained(shard, epoch, trusted_until, now);
                }
            }
            Message::Lease(LeaseEvent::Trusted(shards)) => {
                for (shard, until) in shards {
                    self.trusted(shard, until);
                }
            }
            Message::Lease(LeaseEvent::Lost(shards)) => {
                shards.into_iter().for_each(|shard| self.drop_shard(shard))
            }
            Message::Lease(LeaseEvent::Release(shards)) => {
                shards.into_iter().for_each(|shard| self.leave(shard))
            }
            Message::Retire => self.retire(),
            Message::Abort => {
                self.aborting = true;
                for flight in self.flights.values() {
                    flight.task.abort();
                }
            }
        }
    }

    // Shards.

    fn gained(&mut self, shard: u16, epoch: i64, trusted_until: Instant, now: Timestamp) {
        self.drop_shard(shard);
        let Some(place) = self.shards.get_mut(usize::from(shard)) else {
            return;
        };
        *place = Some(Shard {
            epoch,
            trusted_until,
            destinations: HashSet::new(),
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
            self.scan(shard);
        }
    }

    fn trusted(&mut self, shard: u16, until: Instant) {
        let Some(Some(held)) = self.shards.get_mut(usize::from(shard)) else {
            return;
        };
        held.trusted_until = until;
        if std::mem::take(&mut held.stalled) {
            let stalled: Vec<Uuid> = held.destinations.iter().copied().collect();
            for id in stalled {
                self.enqueue(id);
            }
        }
    }

    /// Forgets a shard. Attempts in flight go on; their outcomes are not written.
    fn drop_shard(&mut self, shard: u16) {
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
    fn leave(&mut self, shard: u16) {
        let Some(Some(held)) = self.shards.get_mut(usize::from(shard)) else {
            return;
        };
        held.leaving = true;
        self.release_if_over(shard);
    }

    fn release_if_over(&mut self, shard: u16) {
        let Some(Some(held)) = self.shards.get(usize::from(shard)) else {
            return;
        };
        if held.leaving && held.in_flight == 0 && held.unwritten == 0 {
            self.drop_shard(shard);
            // Without the leases' task nobody renews either.
            let _ = self.released.send(Released::Shard(shard));
        }
    }

    fn retire(&mut self) {
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

    fn shard(&mut self, shard: u16, epoch: i64) -> Option<&mut Shard> {
        self.shards
            .get_mut(usize::from(shard))?
            .as_mut()
            .filter(|held| held.epoch == epoch)
    }

    /// Asks which destinations of a shard have anything in the queue.
    fn scan(&mut self, shard: u16) {
        let Some(Some(held)) = self.shards.get_mut(usize::from(shard)) else {
            return;
        };
        if std::mem::replace(&mut held.scanning, true) {
            return;
        }
        let (pool, messages, epoch) = (self.pool.clone(), self.messages.clone(), held.epoch);
        tokio::spawn(async move {
            let found = queue::destinations(&pool, shard).await;
            let _ = messages.send(Message::Scanned {
                shard,
                epoch,
                found,
            });
        });
    }

    fn scanned(&mut self, shard: u16, epoch: i64, found: store::Result<Vec<Uuid>>, now: Timestamp) {
        // Jittered, so that the shards' scans spread over the period.
        let next = now + self.options.reread.mul_f64(rand::random_range(0.75..1.25));
        let Some(held) = self.shard(shard, epoch) else {
            return;
        };
        held.scanning = false;
        held.scan_at = next;
        let found = match found {
            Ok(found) => found,
            Err(error) => {
                tracing::debug!(%error, shard, "the queue was not looked at; will try again");
                held.scan_at = now;
                return;
            }
        };
        let first = !std::mem::replace(&mut held.scanned, true);
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
            return;
        }
        let found: HashSet<Uuid> = found.into_iter().collect();
        let Some(held) = self.shard(shard, epoch) else {
            return;
        };
        let others: Vec<Uuid> = held
            .destinations
            .iter()
            .copied()
            .filter(|id| !found.contains(id))
            .collect();
        for id in others {
            if self.destinations.get(&id).is_some_and(Destination::is_idle) {
                self.drop_destination(id);
                if let Some(held) = self.shard(shard, epoch) {
                    held.destinations.remove(&id);
                }
            }
        }
    }

    fn rescan(&mut self, now: Timestamp) {
        for shard in self.shards.iter_mut().flatten() {
            shard.scan_at = now;
        }
        self.tick(now);
    }

    fn tick(&mut self, now: Timestamp) {
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
            self.scan(shard);
        }
        self.bury(now);
    }

    // Destinations.

    /// Makes sure that a destination of a shard of ours is known.
    fn ensure(&mut self, id: Uuid, shard: u16, complete: bool, now: Timestamp) {
        let hash_map::Entry::Vacant(place) = self.destinations.entry(id) else {
            return;
        };
        let mut destination = Destination::new(shard, complete);
        for flight in self
            .flights
            .values()
            .filter(|flight| flight.destination == id)
        {
            destination.adopt(flight.entry.delivery_id);
        }
        prepare(&mut destination, &self.current, id, now);
        if !destination.is_active() {
            destination.note_missing(BEGINNING);
        }
        place.insert(destination);
        if let Some(Some(held)) = self.shards.get_mut(usize::from(shard)) {
            held.destinations.insert(id);
        }
    }

    fn drop_destination(&mut self, id: Uuid) {
        let Some(destination) = self.destinations.remove(&id) else {
            return;
        };
        self.bytes -= destination.bytes;
        self.held -= destination.held();
        self.holders -= usize::from(destination.bytes > 0);
        if let Some(at) = destination.wake_at {
            self.timers.remove(&(at, id));
        }
    }

    /// Runs `change` on a destination and keeps the sums, the timer, the ring and the list of loads right.
    fn change<T>(&mut self, id: Uuid, change: impl FnOnce(&mut Destination) -> T) -> Option<T> {
        let destination = self.destinations.get_mut(&id)?;
        let (before, held) = (destination.bytes, destination.held());
        let result = change(destination);
        let after = destination.bytes;
        self.bytes = self.bytes + after - before;
        self.held = self.held + destination.held() - held;
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

    fn room(&self) -> Room {
        Room {
            window: self.options.window,
            bytes: self.options.window_bytes.saturating_sub(self.bytes),
        }
    }

    /// What one destination may hold when memory is short.
    fn share(&self) -> usize {
        self.options.window_bytes / (self.holders + 1)
    }

    /// Puts a destination with something to send into the ring.
    fn enqueue(&mut self, id: Uuid) {
        let Some(destination) = self.destinations.get_mut(&id) else {
            return;
        };
        if !destination.queued
            && destination.ready() > 0
            && destination.is_active()
            && destination.in_flight < destination.concurrency()
        {
            destination.queued = true;
            self.ring.push_back(id);
        }
    }

    fn want(&mut self, id: Uuid) {
        let share = self.share();
        let Some(destination) = self.destinations.get_mut(&id) else {
            return;
        };
        if !destination.wanted && destination.wants_load(self.options.window, share) {
            destination.wanted = true;
            self.wanted.push_back(id);
        }
    }

    /// Takes over a new revision of the routing table.
    fn follow_table(&mut self, now: Timestamp) {
        if Arc::ptr_eq(&self.current, &self.table.load()) {
            return;
        }
        self.current = self.table.load_full();
        let ids: Vec<Uuid> = self.destinations.keys().copied().collect();
        let table = self.current.clone();
        for id in ids {
            self.change(id, |destination| {
                let was = destination.is_active();
                prepare(destination, &table, id, now);
                if was && !destination.is_active() {
                    destination.forget();
                }
            });
        }
    }

    fn wake(&mut self, now: Timestamp) {
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

    fn next_timer(&self) -> Instant {
        // The tick comes sooner than this anyway.
        let Some((at, _)) = self.timers.first() else {
            return Instant::now() + TICK * 2;
        };
        Instant::now() + Duration::try_from(at.duration_since(clock::now())).unwrap_or_default()
    }

    /// Finishes what is pending for destinations that have been out of the table for long enough. Whether they were
    /// deleted, the database decides: a row that this version can't read is out of our table only.
    fn bury(&mut self, now: Timestamp) {
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

    fn undertake(&mut self, id: Uuid, deleted: bool) {
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

    fn buried(&mut self, id: Uuid, epoch: i64, buried: store::Result<u64>, now: Timestamp) {
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

    // What comes in.

    fn recorded(&mut self, batch: Vec<Recorded>) {
        let now = clock::now();
        let mut elsewhere = Vec::new();
        for Recorded { event, deliveries } in batch {
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
                let entry = Entry {
                    due_at: stored(event.received_at),
                    delivery_id: delivery.id,
                    connection_id: delivery.connection_id,
                    recorded_at: stored(event.received_at),
                    attempts: 0,
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

    fn hint(&mut self, id: Uuid, now: Timestamp) {
        let shard = shard::of(id, self.options.shards);
        if let Some(Some(held)) = self.shards.get(usize::from(shard)) {
            self.ensure(id, shard, held.scanned, now);
            self.change(id, |destination| {
                destination.note_missing((now - HINT_AGE, Uuid::nil()))
            });
        }
    }

    /// Starts the loads that are wanted.
    fn load(&mut self) {
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
            destination.begin_load();
            self.loads += 1;
            self.metrics.loads.inc();
            let (pool, messages) = (self.pool.clone(), self.messages.clone());
            tokio::spawn(async move {
                let page = queue::head(
                    &pool,
                    shard,
                    id,
                    after,
                    u32::try_from(limit).unwrap_or(u32::MAX),
                )
                .await;
                let _ = messages.send(Message::Page {
                    destination: id,
                    epoch,
                    limit,
                    page,
                });
            });
        }
    }

    fn page(
        &mut self,
        id: Uuid,
        epoch: i64,
        limit: usize,
        page: store::Result<Vec<(Pending, Arc<Event>)>>,
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
                let entries = page.into_iter().map(|(pending, event)| Entry {
                    due_at: pending.due_at,
                    delivery_id: pending.delivery_id,
                    connection_id: pending.connection_id,
                    recorded_at: pending.recorded_at,
                    attempts: pending.attempts,
                    event,
                });
                let loaded = destination.load(entries.collect(), limit, times, room, at_least_one);
                // Also when what it has can't be sent yet: the same page would be read again and again.
                if loaded.no_room && (destination.ready() == 0 || loaded.admitted == 0) {
                    destination.pause_until = Some(now + PAUSE);
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
    fn trim(&mut self) {
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

    // Attempts.

    fn launch(&mut self, now: Timestamp) {
        if self.retiring {
            return;
        }
        let trusted = Instant::now();
        let mut passed_over = 0;
        while passed_over < self.ring.len()
            && self.flights.len() < self.options.concurrency
            && self.unwritten.len() < UNWRITTEN
        {
            let Some(id) = self.ring.pop_front() else {
                return;
            };
            let free = self.options.concurrency - self.flights.len();
            let Some(destination) = self.destinations.get_mut(&id) else {
                continue;
            };
            destination.queued = false;
            let Some(Some(held)) = self.shards.get_mut(usize::from(destination.shard)) else {
                continue;
            };
            if held.leaving
                || !destination.is_active()
                || destination.in_flight >= destination.concurrency()
            {
                continue;
            }
            if held.trusted_until <= trusted {
                held.stalled = true;
                continue;
            }
            if destination.in_flight >= free {
                // It has as many as are left for all: it waits, and stays in the ring.
                destination.queued = true;
                self.ring.push_back(id);
                passed_over += 1;
                continue;
            }
            passed_over = 0;
            held.in_flight += 1;
            let (shard, epoch) = (destination.shard, held.epoch);
            let row = destination
                .row
                .clone()
                .expect("active destinations have one");
            if let Some(Some(entry)) = self.change(id, Destination::take) {
                self.bytes += entry.bytes();
                self.start(id, shard, epoch, entry, row, now);
            } else if let Some(held) = self.shard(shard, epoch) {
                held.in_flight -= 1;
            }
        }
    }

    fn start(
        &mut self,
        destination: Uuid,
        shard: u16,
        epoch: i64,
        entry: Entry,
        row: Arc<Row>,
        now: Timestamp,
    ) {
        let id = self.next_flight;
        self.next_flight += 1;
        let mut ending = Ending {
            flight: id,
            messages: self.messages.clone(),
            answer: None,
            took: Duration::ZERO,
        };
        let (client, event, number, target) = (
            self.client.clone(),
            entry.event.clone(),
            entry.attempts + 1,
            row.clone(),
        );
        let task = tokio::spawn(async move {
            let started = clock::instant();
            let answer = target
                .target
                .send(
                    &client,
                    Attempt {
                        event: &event,
                        number,
                        now,
                    },
                )
                .await;
            ending.with(answer, started.elapsed());
        });
        self.flights.insert(
            id,
            Flight {
                destination,
                shard,
                epoch,
                entry,
                row,
                started_at: now,
                task: task.abort_handle(),
            },
        );
    }

    fn ended(&mut self, flight: u64, answer: Option<Answer>, took: Duration, now: Timestamp) {
        let Some(flight) = self.flights.remove(&flight) else {
            return;
        };
        let (id, shard, epoch) = (flight.destination, flight.shard, flight.epoch);
        let entry = flight.entry.clone();
        let ours = match self.shard(shard, epoch) {
            Some(held) => {
                held.in_flight -= 1;
                true
            }
            None => false,
        };
        let answer = match answer {
            Some(answer) => answer,
            None if self.aborting => {
                self.metrics.given_back.inc();
                self.bytes -= entry.bytes();
                self.change(id, |destination| {
                    destination.in_flight -= usize::from(ours);
                    destination.settle(entry.delivery_id);
                });
                self.release_if_over(shard);
                return;
            }
            None => Answer::internal("the attempt broke off inside the gateway; see its log"),
        };
        self.metrics.attempt(&answer.outcome, took);
        if !ours {
            // The new owner makes it again. If that's us, it has waited for this one to end.
            self.metrics.outcomes_discarded.inc();
            self.bytes -= entry.bytes();
            self.change(id, |destination| {
                destination.settle(entry.delivery_id);
                destination.note_missing(BEGINNING);
            });
            return;
        }
        let number = entry.attempts + 1;
        let spec = &flight.row.row.spec;
        let own = self
            .current
            .connection(entry.connection_id)
            .and_then(|connection| connection.retry.as_ref())
            .unwrap_or(&spec.retry);
        let step = retry::next_step(own, number, &answer.outcome, entry.recorded_at, now);
        if number == 1
            && let Ok(since) = Duration::try_from(now.duration_since(entry.recorded_at))
        {
            self.metrics
                .first_attempt_seconds
                .observe(since.as_secs_f64());
        }
        if let Some(observer) = &self.options.observer {
            let report = Report {
                event_id: entry.event.id,
                delivery_id: entry.delivery_id,
                destination: flight.row.row.clone(),
                attempt: number,
                outcome: answer.outcome.clone(),
                error: answer.error.clone(),
                took,
                step: step.clone(),
            };
            // A watcher that is behind misses some.
            let _ = observer.try_send(report);
        }
        let finished = match step {
            Step::Done => Finished::Delivered,
            Step::DeadLetter(reason) => Finished::DeadLetter(reason),
            Step::RetryAt(at) => Finished::RetryAt(stored(at)),
        };
        let attempt = outcomes::Attempt {
            number: u16::try_from(number).unwrap_or(u16::MAX),
            started_at: flight.started_at,
            outcome: answer.outcome.as_str(),
            status: deliver::status(&answer.outcome),
            // Postgres' text has no NUL.
            error: answer.error.map(|error| error.replace('\0', "")),
            timings: answer.timings,
            response_headers: answer.headers,
            response_body: answer.body,
            replica: self.options.replica.clone(),
        };
        self.finish(id, shard, epoch, entry, attempt, finished);
        self.change(id, |destination| destination.in_flight -= 1);
    }

    /// Hands an outcome to the writer.
    fn finish(
        &mut self,
        id: Uuid,
        shard: u16,
        epoch: i64,
        entry: Entry,
        attempt: outcomes::Attempt,
        step: Finished,
    ) {
        let outcome = outcomes::Outcome {
            shard,
            destination_id: id,
            due_at: entry.due_at,
            delivery_id: entry.delivery_id,
            event_id: entry.event.id,
            connection_id: entry.connection_id,
            namespace: entry.event.namespace.clone(),
            recorded_at: entry.recorded_at,
            attempt,
            step,
        };
        if let Some(held) = self.shard(shard, epoch) {
            held.unwritten += 1;
        }
        let retry_at = if let Finished::RetryAt(at) = step {
            Some(at)
        } else {
            None
        };
        self.unwritten.insert(
            (shard, epoch, entry.delivery_id),
            Unwritten { entry, retry_at },
        );
        // The writer outlives the actor.
        let _ = self.jobs.send(Job { outcome, epoch });
    }

    fn written(&mut self, batch: Vec<Written>, now: Timestamp) {
        let soon = now + self.options.horizon;
        for Written { job, fate } in batch {
            let (shard, delivery) = (job.outcome.shard, job.outcome.delivery_id);
            let unwritten = self.unwritten.remove(&(shard, job.epoch, delivery));
            if let Some(Unwritten { entry, .. }) = &unwritten {
                self.bytes -= entry.bytes();
            }
            let ours = match self.shard(shard, job.epoch) {
                Some(held) => {
                    held.unwritten -= 1;
                    true
                }
                None => false,
            };
            match fate {
                Fate::Written => match job.outcome.step {
                    Finished::Delivered => self.metrics.delivered.inc(),
                    Finished::DeadLetter(_) => self.metrics.dead_letters.inc(),
                    Finished::RetryAt(_) => self.metrics.retries.inc(),
                },
                Fate::Fenced | Fate::Refused => self.metrics.outcomes_discarded.inc(),
            }
            if !ours {
                continue;
            }
            let room = self.room();
            self.change(job.outcome.destination_id, |destination| {
                destination.settle(delivery);
                match (fate, unwritten) {
                    (
                        Fate::Written,
                        Some(Unwritten {
                            mut entry,
                            retry_at: Some(at),
                        }),
                    ) => {
                        entry.due_at = at;
                        entry.attempts += 1;
                        destination.retry(entry, soon, room);
                    }
                    // Not at once: it would be refused again.
                    (Fate::Refused, Some(_)) => destination.leave_for_later(soon),
                    _ => {}
                }
            });
            if fate == Fate::Fenced {
                // The database says that it is another's before the next renewal does.
                self.drop_shard(shard);
            } else {
                self.release_if_over(shard);
            }
        }
    }

    fn count(&self) {
        self.metrics.in_flight.set(self.flights.len() as i64);
        self.metrics
            .outcomes_unwritten
            .set(self.unwritten.len() as i64);
        self.metrics.window_deliveries.set(self.held as i64);
        self.metrics.window_bytes.set(self.bytes as i64);
        self.metrics
            .destinations
            .set(self.destinations.len() as i64);
    }
}

/// Takes over a destination's row of the table, if it is another than before.
fn prepare(destination: &mut Destination, table: &Table, id: Uuid, now: Timestamp) {
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
            }
        }
        None => {
            destination.row = None;
            destination.gone_since.get_or_insert(now);
        }
    }
}

/// Sends what an attempt's task knows when it ends, however it ends.
struct Ending {
    flight: u64,
    messages: UnboundedSender<Message>,
    answer: Option<Answer>,
    took: Duration,
}

impl Ending {
    fn with(&mut self, answer: Answer, took: Duration) {
        self.answer = Some(answer);
        self.took = took;
    }
}

impl Drop for Ending {
    fn drop(&mut self) {
        let _ = self.messages.send(Message::Ended {
            flight: self.flight,
            answer: self.answer.take(),
            took: self.took,
        });
    }
}
