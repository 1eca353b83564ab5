//! The scheduler's one task: takes messages, keeps the windows, starts attempts.
//!
//! A turn: everything that has arrived is taken in, then pages are asked for, then attempts are started as far as the
//! bounds allow. Nothing in a turn waits.
//!
//! Here are the state, the messages and the loop. What a turn does is told by subject: [`shards`] (which are ours),
//! [`destinations`] (what is known of each), [`pages`] (what comes in), [`slots`] (who may begin an attempt), [`flights`]
//! (attempts), [`burials`] (what can never be sent).

mod burials;
mod destinations;
mod flights;
mod pages;
mod shards;
mod slots;
mod states;

use super::{
    Batch, Handle, LeaseEvent, Options, RECORDED,
    destination::{Destination, Entry},
    metrics::DeliveryMetrics,
};
use crate::{
    deliver::Answer,
    egress::{self, Client},
    leases::Released,
    outcomes::{Job, Written},
};
use arc_swap::ArcSwap;
use burials::Buried;
use flights::{Flight, Unwritten};
use jiff::Timestamp;
use routing::Table;
use service::clock;
use shards::{Found, Shard};
use slots::Slots;
use states::{Saved, Unsaved};
use std::{
    collections::{BTreeMap, BTreeSet, HashMap, VecDeque},
    sync::Arc,
    time::Duration,
};
use store::Pool;
use tokio::sync::mpsc::{self, UnboundedSender};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

/// Messages taken in before attempts are started.
const TURN: usize = 512;

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
        page: store::Result<Vec<Entry>>,
    },
    Scanned {
        shard: u16,
        epoch: i64,
        found: store::Result<Found>,
    },
    Written(Vec<Written>),
    Buried(Buried),
    Saved(Saved),
    Lease(LeaseEvent),
    Retire,
    /// Break off what is in flight.
    Abort,
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
    /// Destinations with something to send, and what is in flight of whom.
    slots: Slots,
    /// Destinations that want a page.
    wanted: VecDeque<Uuid>,
    loads: usize,
    /// Shards that want to be scanned, with the lease's epoch.
    unscanned: VecDeque<(u16, i64)>,
    scans: usize,
    /// Destinations whose deliveries can't be made any more, and whether it was deleted.
    unburied: VecDeque<(Uuid, bool)>,
    burials: usize,
    unsaved: Unsaved,
    timers: BTreeSet<(Timestamp, Uuid)>,
    /// In the order in which they began.
    flights: BTreeMap<u64, Flight>,
    next_flight: u64,
    /// The first flight of which it isn't known that it takes long.
    brisk: u64,
    unwritten: HashMap<(u16, i64, Uuid), Unwritten>,
    /// In windows, and waiting for the commit of an outcome, with the answer.
    bytes: usize,
    /// Of those, what waits for a commit.
    unwritten_bytes: usize,
    /// In flight: bounded by the slots, so that what hangs takes no room from the windows.
    flying: usize,
    /// Destinations that hold any that is not in flight.
    holders: usize,
    /// Deliveries in windows.
    held: usize,
    /// Keys of strict orders that wait for a retry.
    blocked: usize,
    /// Destinations of which so many keys wait that memory takes no more.
    crowded: usize,
    /// The last tick: a wall clock that was set back shows.
    ticked_at: Timestamp,
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
        let slots = Slots::new(options.concurrency);
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
            slots,
            wanted: VecDeque::new(),
            loads: 0,
            unscanned: VecDeque::new(),
            scans: 0,
            unburied: VecDeque::new(),
            burials: 0,
            unsaved: Unsaved::default(),
            timers: BTreeSet::new(),
            flights: BTreeMap::new(),
            next_flight: 0,
            brisk: 0,
            unwritten: HashMap::new(),
            bytes: 0,
            unwritten_bytes: 0,
            flying: 0,
            holders: 0,
            held: 0,
            blocked: 0,
            crowded: 0,
            ticked_at: Timestamp::MIN,
            pressed: false,
            retiring: false,
            aborting: false,
        }
    }

    /// Runs until it has retired.
    pub(super) async fn run(
        mut self,
        mut recorded: mpsc::Receiver<Batch>,
        mut inbound: mpsc::UnboundedReceiver<Message>,
        token: CancellationToken,
    ) {
        let inbox = self.handle.inbox.clone();
        let mut messages = Vec::with_capacity(TURN);
        let mut tick = tokio::time::interval(TICK);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            let mut first = None;
            let timer = self.next_timer();
            tokio::select! {
                _ = inbound.recv_many(&mut messages, TURN) => {}
                Some(batch) = recorded.recv() => first = Some(batch),
                () = inbox.wake.notified() => {}
                () = tokio::time::sleep_until(timer) => {}
                _ = tick.tick() => self.tick(clock::now()),
                () = token.cancelled(), if !self.retiring => self.retire(),
            }
            self.turn(first, &mut recorded, &mut messages);
            if self.retiring && self.is_over() {
                break;
            }
        }
        // What is still in the channel is for others to deliver.
        recorded.close();
        while let Ok(batch) = recorded.try_recv() {
            self.recorded(batch);
        }
    }

    /// Takes in what has arrived, and starts what can be started. `messages` is empty afterwards.
    pub(super) fn turn(
        &mut self,
        first: Option<Batch>,
        recorded: &mut mpsc::Receiver<Batch>,
        messages: &mut Vec<Message>,
    ) {
        let now = clock::now();
        self.follow_table(now);
        // All that was handed over before the messages were sent, so ahead of them: a delivery that a page brought in,
        // and whose outcome is among them, must not look new when its batch comes.
        let rest = std::iter::from_fn(|| recorded.try_recv().ok());
        for batch in first.into_iter().chain(rest).take(RECORDED) {
            self.recorded(batch);
        }
        for message in messages.drain(..) {
            self.take(message, now);
        }
        let hints = self.handle.inbox.take();
        if hints.everything {
            self.rescan(now);
        }
        for destination in hints.destinations {
            self.hint(destination, now);
        }
        self.look_for_resets(hints.resets, now);
        self.wake(now);
        self.trim();
        self.load();
        self.start_scans(now);
        self.start_burials();
        self.launch(now);
        self.start_saving(now);
        self.count();
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
            Message::Buried(round) => self.buried(round, now),
            Message::Saved(saved) => self.saved(saved, now),
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

    fn count(&self) {
        self.metrics.in_flight.set(self.flights.len() as i64);
        self.metrics
            .outcomes_unwritten
            .set(self.unwritten.len() as i64);
        self.metrics.window_deliveries.set(self.held as i64);
        self.metrics.order_blocked.set(self.blocked as i64);
        self.metrics.order_crowded.set(self.crowded as i64);
        let bytes = self.bytes + self.flying;
        self.metrics.window_bytes.set(bytes as i64);
        self.metrics
            .destinations
            .set(self.destinations.len() as i64);
    }
}
