//! Decides which delivery is attempted when. Owns everything that this replica remembers of its shards.
//!
//! # The cast
//! - The **actor** (`actor`), one task without locks: per destination a window of deliveries (`destination`), what is in
//!   flight, and timers. Everything else sends it messages.
//! - **Attempts**: a task each, which makes one attempt (`crate::deliver`) and sends back what is known.
//! - The **writer** (`crate::outcomes`): one commit for the outcomes that arrived during the last one.
//! - The **leases** (`crate::leases`): which shards are ours, and until when the local clock may believe it.
//! - The **notifier** (`crate::notifier`): what was recorded here for a shard of another replica.
//!
//! # What holds
//! - A delivery is attempted by the owner of its shard only, while the lease is trusted, and its outcome is written under
//!   the epoch with which its attempt began; a late owner writes nothing.
//! - The queue table is the truth. Memory is bounded whatever is pending: [`Options::window`] deliveries of a
//!   destination, [`Options::window_bytes`] of bodies in all, as much as the slots allow in flight, nothing of a suspended
//!   destination. What doesn't fit is read again.
//! - A delivery whose outcome is not written yet is not started again by a reload.
//! - A slow destination doesn't slow another: the attempts in flight are shared between namespaces, and within one between
//!   destinations, so that the next always finds some free. `actor::slots` says how, and how many must hang until it ends.
//! - Recording never waits for any of this.
//!
//! - A destination whose circuit is open, or whose rate limit is used up, begins nothing and asks for nothing until its time
//!   has come (`destination::gates`). Both hold across owners: what they need is in Postgres (`actor::states`).
//! - With a strict order, a delivery begins after all before it are done with (`order`).
//!
//! # What does not
//! Delivery is at least once: after a crash, a lost lease or an attempt broken off at shutdown, it is made again.
//! Without a strict order, deliveries of one destination begin in the order of their due times, but several are in
//! flight at once.

mod actor;
mod circuit;
mod destination;
mod metrics;
mod order;
mod rate;

pub use metrics::DeliveryMetrics;

use crate::{bodies::Bodies, egress, leases::Leases, notifier::Notifier, outcomes};
use actor::{Actor, Message};
use arc_swap::ArcSwap;
use routing::{Table, retry, table};
use std::{
    collections::{BTreeMap, HashMap, HashSet},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU32, AtomicUsize, Ordering},
    },
    time::Duration,
};
use store::{Store, events::Recorded};
use tokio::{
    sync::{Notify, mpsc},
    task::JoinHandle,
    time::Instant,
};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

/// Batches of recorded events that may wait for the actor. Past it they are read from the table.
const RECORDED: usize = 64;

/// Bytes of events in them, for the same.
const RECORDED_BYTES: usize = 16 << 20;

/// Destinations that may be hinted at between two turns of the actor. Past it everything is looked at.
const HINTS: usize = 50_000;

#[derive(Debug, Clone)]
pub struct Options {
    /// Differs between processes.
    pub replica: Arc<str>,
    /// Of the installation.
    pub shards: u16,
    /// False for a replica that only records: it takes no shards and tells the others.
    pub delivers: bool,
    /// How long a lease lives without being renewed: the longest time that a crash holds deliveries up.
    pub lease_ttl: Duration,
    /// Attempts in flight, of all destinations; one with a body of more than 16 KiB counts as several.
    pub concurrency: usize,
    /// Deliveries of one destination in memory: that many due, that many waiting for a retry.
    pub window: usize,
    /// Bodies and headers in memory, of all destinations; those of answers that wait for their commit included, those in
    /// flight not.
    pub window_bytes: usize,
    /// Each shard's queue is looked at that often, in case a hint was lost.
    pub reread: Duration,
    /// Retries due within that time wait in memory, later ones in the table.
    pub horizon: Duration,
    /// A destination that is out of the routing table for that long is gone, and its deliveries are dead letters.
    pub gone_grace: Duration,
    pub egress: egress::Options,
    /// Where the bodies are that are not with their events.
    pub bodies: Bodies,
    /// Evaluates what connections want evaluated. Starts nothing before one does.
    pub sandbox: sandbox::Pool,
    /// Is told of each attempt; if it is full, it isn't.
    pub observer: Option<mpsc::Sender<Report>>,
}

impl Options {
    pub fn new(replica: impl Into<Arc<str>>, shards: u16) -> Options {
        Options {
            replica: replica.into(),
            shards,
            delivers: true,
            lease_ttl: Duration::from_secs(10),
            concurrency: 4096,
            window: 512,
            window_bytes: 24 << 20,
            reread: Duration::from_secs(30),
            horizon: Duration::from_secs(60),
            gone_grace: Duration::from_secs(60),
            egress: egress::Options::default(),
            bodies: Bodies::default(),
            sandbox: sandbox::Pool::new(sandbox::Options::default(), sandbox::Metrics::default()),
            observer: None,
        }
    }
}

/// One attempt, for whoever watches.
#[derive(Debug, Clone)]
pub struct Report {
    pub event_id: Uuid,
    pub delivery_id: Uuid,
    pub destination: Arc<table::Destination>,
    /// From 1.
    pub attempt: u32,
    pub outcome: retry::Outcome,
    pub error: Option<String>,
    pub took: Duration,
    pub step: retry::Step,
}

/// What the leases tell the actor.
#[derive(Debug)]
pub(crate) enum LeaseEvent {
    Gained(Vec<(u16, i64, Instant)>),
    Trusted(Vec<(u16, Instant)>),
    Lost(Vec<u16>),
    /// Let go once nothing is under way.
    Release(Vec<u16>),
}

/// Recorded events on their way to the actor.
#[derive(Debug)]
struct Batch {
    events: Vec<Recorded>,
    /// Of headers and bodies.
    bytes: usize,
}

impl Batch {
    fn new(events: Vec<Recorded>) -> Batch {
        let size = |recorded: &Recorded| recorded.event.headers.len() + recorded.event.body.len();
        Batch {
            bytes: events.iter().map(size).sum(),
            events,
        }
    }

    fn destinations(&self) -> impl Iterator<Item = Uuid> {
        let deliveries = self.events.iter().flat_map(|recorded| &recorded.deliveries);
        deliveries.map(|delivery| delivery.destination_id)
    }
}

/// What is handed to the actor without waiting and without being lost.
#[derive(Debug, Default)]
struct Inbox {
    hints: Mutex<Hints>,
    wake: Notify,
    /// Of the batches that wait for the actor.
    bytes: AtomicUsize,
}

#[derive(Debug, Default)]
struct Hints {
    destinations: HashSet<Uuid>,
    /// Somebody asks for resets of these.
    resets: HashSet<Uuid>,
    everything: bool,
}

impl Inbox {
    fn hint(&self, destinations: impl IntoIterator<Item = Uuid>) {
        let mut hints = self.hints.lock().unwrap_or_else(PoisonError::into_inner);
        hints.destinations.extend(destinations);
        if hints.destinations.len() > HINTS {
            hints.destinations = HashSet::new();
            hints.everything = true;
        }
        drop(hints);
        self.wake.notify_one();
    }

    fn resets(&self, destinations: impl IntoIterator<Item = Uuid>) {
        let mut hints = self.hints.lock().unwrap_or_else(PoisonError::into_inner);
        hints.resets.extend(destinations);
        if hints.resets.len() > HINTS {
            // The scans find them.
            hints.resets = HashSet::new();
            hints.everything = true;
        }
        drop(hints);
        self.wake.notify_one();
    }

    fn everything(&self) {
        self.hints
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .everything = true;
        self.wake.notify_one();
    }

    /// May so many bytes more wait? One batch always may, however large.
    fn admit(&self, bytes: usize) -> bool {
        let waiting = self.bytes.fetch_add(bytes, Ordering::Relaxed);
        let fits = waiting == 0 || waiting + bytes <= RECORDED_BYTES;
        if !fits {
            self.taken(bytes);
        }
        fits
    }

    fn taken(&self, bytes: usize) {
        self.bytes.fetch_sub(bytes, Ordering::Relaxed);
    }

    fn take(&self) -> Hints {
        std::mem::take(&mut *self.hints.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// How the rest of the gateway talks to the scheduler. Cheap to clone; nothing here waits.
#[derive(Debug, Clone)]
pub struct Handle {
    recorded: mpsc::Sender<Batch>,
    inbox: Arc<Inbox>,
    leases: Arc<Notify>,
    notifier: Notifier,
    held: Arc<AtomicU32>,
}

impl Handle {
    /// These are committed. The scheduler takes what is its own and tells other replicas about the rest.
    pub fn recorded(&self, batch: Vec<Recorded>) {
        let batch = Batch::new(batch);
        match self.recorded.try_reserve() {
            Ok(place) if self.inbox.admit(batch.bytes) => place.send(batch),
            // The deliveries are in the table: a hint finds them.
            Ok(_) | Err(mpsc::error::TrySendError::Full(())) => {
                self.inbox.hint(batch.destinations())
            }
            // Shut down before the recorder was: others deliver.
            Err(mpsc::error::TrySendError::Closed(())) => self.notifier.tell(batch.destinations()),
        }
    }

    /// Another replica recorded something for these destinations. Those of other shards are ignored.
    pub fn hint(&self, destinations: Vec<Uuid>) {
        self.inbox.hint(destinations);
    }

    /// Somebody asks for these destinations' circuits to be reset. Those of other shards are ignored.
    pub fn resets(&self, destinations: Vec<Uuid>) {
        self.inbox.resets(destinations);
    }

    /// Hints may have been lost: look at the whole queue, and at the leases.
    pub fn rescan(&self) {
        self.inbox.everything();
        self.leases.notify_one();
    }

    /// The routing table was swapped. (It is also looked at once a second.)
    pub fn table_changed(&self) {
        self.inbox.wake.notify_one();
    }

    /// A replica came or went: share the shards anew.
    pub fn replicas_changed(&self) {
        self.leases.notify_one();
    }

    /// The shards that this replica owns now.
    pub fn shards_held(&self) -> u32 {
        self.held.load(Ordering::Relaxed)
    }
}

/// The running tasks. Dropping it stops them as a crash would: nothing is released, leases expire.
#[derive(Debug)]
pub struct Running {
    handle: Handle,
    messages: mpsc::UnboundedSender<Message>,
    /// In the order in which they end: actor, writer, leases.
    ending: Vec<JoinHandle<()>>,
    notifier: JoinHandle<()>,
}

impl Drop for Running {
    fn drop(&mut self) {
        // The actor's attempts end with it: their handles abort when they are dropped.
        for task in self.ending.iter().chain([&self.notifier]) {
            task.abort();
        }
    }
}

/// Starts delivering. Nothing is sent before `table` has its first rows. Cancelling the token is [`Running::retire`].
pub fn start(
    options: Options,
    store: &Store,
    table: Arc<ArcSwap<Table>>,
    metrics: DeliveryMetrics,
    token: CancellationToken,
) -> Running {
    let (recorded, incoming) = mpsc::channel(RECORDED);
    // Unbounded, and bounded by what may be under way: a message an attempt, a batch, a load, a round of the leases.
    let (messages, inbound) = mpsc::unbounded_channel();
    let (jobs, written) = mpsc::unbounded_channel();
    let (released, releases) = mpsc::unbounded_channel();
    let handle = Handle {
        recorded,
        inbox: Arc::new(Inbox::default()),
        leases: Arc::new(Notify::new()),
        notifier: Notifier::default(),
        held: Arc::new(AtomicU32::new(0)),
    };
    let notifier = tokio::spawn(
        handle
            .notifier
            .clone()
            .run(store.pool.clone(), metrics.clone()),
    );
    let report = messages.clone();
    let writer = tokio::spawn(outcomes::run(
        store.pool.clone(),
        options.replica.clone(),
        written,
        metrics.clone(),
        move |batch| {
            // Without an actor nobody is left to tell.
            let _ = report.send(Message::Written(batch));
        },
    ));
    let events = messages.clone();
    let leases = Leases {
        pool: store.pool.clone(),
        replica: options.replica.clone(),
        shards: if options.delivers { options.shards } else { 0 },
        ttl: options.lease_ttl,
        held: BTreeMap::new(),
        surplus: 0,
        dead: HashMap::new(),
        free_since: None,
        metrics: metrics.clone(),
        events: Box::new(move |event| {
            let _ = events.send(Message::Lease(event));
        }),
    };
    let leases = tokio::spawn(leases.run(releases, handle.leases.clone()));
    let actor = Actor::new(
        options,
        store.pool.clone(),
        table,
        metrics,
        messages.clone(),
        jobs,
        released,
        handle.clone(),
    );
    let actor = tokio::spawn(actor.run(incoming, inbound, token));
    Running {
        handle,
        messages,
        ending: vec![actor, writer, leases],
        notifier,
    }
}

impl Running {
    pub fn handle(&self) -> Handle {
        self.handle.clone()
    }

    /// Returns when one of its tasks has ended, which none does before it retires unless it panicked.
    pub async fn broken(&mut self) {
        let tasks = self.ending.iter_mut().chain([&mut self.notifier]);
        let _ = futures::future::select_all(tasks).await;
    }

    /// Begins to hand over: idle shards are released at once, the others as their attempts end, no attempt begins. What
    /// is still recorded is told to other replicas. Stop the heartbeat first, or it calls this replica a deliverer again.
    pub fn retire(&self) {
        let _ = self.messages.send(Message::Retire);
    }

    /// Hands over and ends. Attempts that are not through within `grace` are broken off and count for nothing; the
    /// outcomes of the others are written if Postgres answers within five seconds more.
    pub async fn drain(&mut self, grace: Duration) {
        self.retire();
        // One that has ended may have been waited for already (`broken`).
        let mut tasks = std::mem::take(&mut self.ending);
        tasks.retain(|task| !task.is_finished());
        let aborts: Vec<_> = tasks.iter().map(JoinHandle::abort_handle).collect();
        let mut all = std::pin::pin!(futures::future::join_all(tasks));
        if tokio::time::timeout(grace, &mut all).await.is_ok() {
            return;
        }
        let _ = self.messages.send(Message::Abort);
        if tokio::time::timeout(Duration::from_secs(5), &mut all)
            .await
            .is_err()
        {
            tracing::warn!(
                "shut down before all outcomes were written; their attempts will be made again"
            );
            for task in aborts {
                task.abort();
            }
        }
    }
}

#[cfg(test)]
mod tests;
