//! Bounds, and orders of events, that show only when the actor is driven one turn at a time: the test is its loop.

use super::*;
use crate::{
    leases::Released,
    outcomes::{Fate, Job, Written},
};
use bytes::Bytes;
use store::lease;

struct Turns {
    actor: Actor,
    handle: Handle,
    metrics: DeliveryMetrics,
    recorded: mpsc::Receiver<Batch>,
    messages: mpsc::UnboundedSender<Message>,
    inbound: mpsc::UnboundedReceiver<Message>,
    jobs: mpsc::UnboundedReceiver<Job>,
    /// Without it the actor has nobody to give shards back to.
    _released: mpsc::UnboundedReceiver<Released>,
    /// Senders of messages that are no task's.
    idle: usize,
}

impl Turns {
    fn new(ground: &Ground, change: impl FnOnce(&mut Options)) -> Turns {
        let mut options = Options::new("a", SHARDS);
        options.egress.policy = Policy::with_private_networks();
        options.reread = Duration::from_secs(3600);
        change(&mut options);
        let (sender, recorded) = mpsc::channel(RECORDED);
        let (messages, inbound) = mpsc::unbounded_channel();
        let (outcomes, jobs) = mpsc::unbounded_channel();
        let (releases, released) = mpsc::unbounded_channel();
        let metrics = DeliveryMetrics::new(&Registry::new());
        let handle = Handle {
            recorded: sender,
            inbox: Arc::new(Inbox::default()),
            leases: Arc::new(Notify::new()),
            notifier: Notifier::default(),
            held: Arc::new(AtomicU32::new(0)),
        };
        let actor = Actor::new(
            options,
            ground.store.pool.clone(),
            ground.table.clone(),
            metrics.clone(),
            messages.clone(),
            outcomes,
            releases,
            handle.clone(),
        );
        Turns {
            actor,
            handle,
            metrics,
            recorded,
            idle: messages.strong_count(),
            messages,
            inbound,
            jobs,
            _released: released,
        }
    }

    /// A turn with these messages.
    fn turn(&mut self, messages: impl IntoIterator<Item = Message>) {
        let mut messages = messages.into_iter().collect();
        self.actor.turn(None, &mut self.recorded, &mut messages);
    }

    /// A turn with what a task says next.
    async fn next(&mut self) {
        let message = tokio::time::timeout(LONG, self.inbound.recv())
            .await
            .expect("no task ended")
            .expect("the test has a sender");
        self.turn([message]);
    }

    /// Scans, burials, loads and attempts under way: each has a sender, or has sent its message.
    fn tasks(&self) -> usize {
        self.messages.strong_count() - self.idle + self.inbound.len()
    }

    async fn gain(&mut self, ground: &Ground) {
        let names: Vec<String> = (0..SHARDS).map(lease::shard_name).collect();
        let leases = lease::acquire_many(&ground.store.pool, &names, "a", LONG)
            .await
            .unwrap();
        let gained = leases.into_iter().map(|lease| {
            let shard = lease::parse_shard(&lease.name).unwrap();
            (shard, lease.epoch, lease.trusted_until)
        });
        self.turn([Message::Lease(LeaseEvent::Gained(gained.collect()))]);
    }

    /// Turns until an attempt's outcome is with the writer.
    async fn job(&mut self) -> Job {
        loop {
            if let Ok(job) = self.jobs.try_recv() {
                return job;
            }
            self.next().await;
        }
    }
}

/// Without any revision nothing counts as deleted.
async fn publish(ground: &Ground) {
    let other = destination(uid(1000), "http://127.0.0.1:1/", |_| {});
    crate::testing::Published::new(&ground.store, &[other]).await;
}

fn written(job: Job) -> Message {
    let fate = Fate::Written;
    Message::Written(vec![Written { job, fate }])
}

#[tokio::test]
async fn a_delivery_that_is_over_before_its_batch_is_taken_is_not_made_again() {
    let receiver = Receiver::always(Reply::Status(200)).await;
    let ground = Ground::new([destination(uid(1), &receiver.url(), |_| {})]).await;
    let mut turns = Turns::new(&ground, |_| {});
    let batch = ground.record(uid(1), [b"x".to_vec()]).await;
    // The scan and a page are quicker than the batch.
    turns.gain(&ground).await;
    let job = turns.job().await;
    sqlx::query("DELETE FROM queue")
        .execute(ground.store.pool.raw())
        .await
        .unwrap();
    turns.handle.recorded(batch);
    turns.turn([written(job)]);
    assert_eq!(
        (
            turns.metrics.delivered.get(),
            turns.metrics.in_flight.get(),
            turns.metrics.window_deliveries.get()
        ),
        (1, 0, 0)
    );
}

#[tokio::test]
async fn shards_that_are_gained_at_once_are_scanned_a_few_at_a_time() {
    let ground = Ground::new([]).await;
    let mut turns = Turns::new(&ground, |_| {});
    turns.gain(&ground).await;
    let mut scanned = 0;
    while scanned < usize::from(SHARDS) {
        assert_eq!(turns.tasks(), 2.min(usize::from(SHARDS) - scanned));
        turns.next().await;
        scanned += 1;
    }
    assert_eq!(turns.tasks(), 0);
    // Asked for while one is under way: that one may have looked too early, so another follows.
    turns.handle.rescan();
    turns.turn([]);
    turns.handle.rescan();
    turns.turn([]);
    let mut again = 0;
    while turns.tasks() > 0 {
        turns.next().await;
        again += 1;
    }
    assert_eq!(again, usize::from(SHARDS) + 2);
}

#[tokio::test]
async fn many_deleted_destinations_are_buried_one_after_the_other() {
    const GONE: i64 = 60;
    let ground = Ground::new([]).await;
    publish(&ground).await;
    for n in 0..GONE.unsigned_abs() {
        ground.record(uid(n.into()), [b"x".to_vec()]).await;
    }
    let mut turns = Turns::new(&ground, |options| options.gone_grace = Duration::ZERO);
    turns.gain(&ground).await;
    while turns.tasks() > 0 {
        turns.next().await;
    }
    assert_eq!(turns.metrics.destinations.get(), GONE);
    // A scan may find one that is buried before its answer is here: then twice.
    while turns.metrics.destinations.get() > 0 {
        turns.handle.rescan();
        turns.turn([]);
        while turns.tasks() > 0 {
            assert!(turns.tasks() <= 3, "two scans and a burial");
            turns.next().await;
        }
    }
    assert_eq!(ground.count(DEAD).await, GONE);
}

#[tokio::test]
async fn a_long_burial_lets_others_have_their_turn() {
    let ground = Ground::new([]).await;
    publish(&ground).await;
    ground
        .record(uid(1), (0..5200).map(|_| b"x".to_vec()))
        .await;
    let mut turns = Turns::new(&ground, |options| options.gone_grace = Duration::ZERO);
    turns.gain(&ground).await;
    while turns.tasks() > 0 {
        turns.next().await;
    }
    turns.handle.rescan();
    turns.turn([]);
    let mut rounds = Vec::new();
    while turns.tasks() > 0 {
        turns.next().await;
        let dead = turns.metrics.dead_letters.get();
        if rounds.last() != Some(&dead) {
            rounds.push(dead);
        }
    }
    assert_eq!(rounds.last(), Some(&5200));
    assert!(rounds.contains(&5000), "{rounds:?}");
}

#[tokio::test]
async fn batches_wait_for_the_scheduler_up_to_so_many_bytes() {
    const MIB: usize = 1 << 20;
    let ground = Ground::new([]).await;
    let mut turns = Turns::new(&ground, |_| {});
    let hand_over = |turns: &Turns, n, bytes| {
        let batch = vec![recorded(uid(n), vec![0; bytes])];
        turns.handle.recorded(batch);
    };
    hand_over(&turns, 1, 10 * MIB);
    hand_over(&turns, 2, 10 * MIB);
    hand_over(&turns, 3, MIB);
    assert_eq!(turns.recorded.len(), 2);
    // What did not fit is read from the table.
    let hints = turns.handle.inbox.take();
    assert_eq!(hints.destinations, HashSet::from([uid(2)]));
    turns.turn([]);
    assert_eq!(turns.handle.inbox.bytes.load(Ordering::Relaxed), 0);
    hand_over(&turns, 4, 20 * MIB);
    assert_eq!(turns.recorded.len(), 1, "alone it may be larger");
    // Nobody is left to read the table here: others are told.
    turns.recorded.close();
    hand_over(&turns, 5, MIB);
    assert!(turns.handle.inbox.take().destinations.is_empty());
}

#[tokio::test]
async fn answers_that_cannot_be_written_count_and_hold_attempts_back() {
    let body = Bytes::from(vec![b'v'; 16 << 10]);
    let receiver = Receiver::always(Reply::With(200, Vec::new(), body)).await;
    let row = destination(uid(1), &receiver.url(), |spec| spec.concurrency = 1);
    let ground = Ground::new([row]).await;
    ground.record(uid(1), (0..10).map(|_| b"x".to_vec())).await;
    let mut turns = Turns::new(&ground, |options| options.window_bytes = 64 << 10);
    turns.gain(&ground).await;
    // Postgres is away: the test is the writer, and writes nothing.
    let first = turns.job().await;
    turns.job().await;
    while turns.tasks() > 0 {
        turns.next().await;
    }
    assert_eq!(turns.metrics.outcomes_unwritten.get(), 2);
    assert!(turns.metrics.window_bytes.get() > 32 << 10);
    turns.turn([written(first)]);
    assert_eq!(turns.metrics.in_flight.get(), 1);
    turns.job().await;
}

#[tokio::test]
async fn an_answer_that_the_database_refuses_does_not_repeat_the_delivery() {
    let reply = Reply::With(200, Vec::new(), "thank you".into());
    let mut receiver = Receiver::always(reply).await;
    let ground = Ground::new([destination(uid(1), &receiver.url(), |_| {})]).await;
    sqlx::query("ALTER TABLE attempts ADD CONSTRAINT refused CHECK (response_body IS NULL)")
        .execute(ground.store.pool.raw())
        .await
        .unwrap();
    let replica = ground.start("a", |_| {}).await;
    ground.record(uid(1), [b"x".to_vec()]).await;
    replica.running.handle().rescan();
    ground.until(DELIVERED, 1).await;
    assert_eq!(
        (ground.count(ATTEMPTS).await, ground.count(QUEUED).await),
        (1, 0)
    );
    assert_eq!(receiver.rest().len(), 1);
    assert_eq!(replica.metrics.outcomes_discarded.get(), 0);
}
