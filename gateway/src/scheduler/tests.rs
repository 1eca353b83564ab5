//! Against a real Postgres and a real receiver. What a test waits for is a request that arrives or a row that is there.

use super::*;
use crate::{
    deliver::receiver::{Received, Receiver, Reply},
    egress::Policy,
};
use jiff::Timestamp;
use prometheus::Registry;
use routing::{
    Row, RowKey, ids,
    retry::{Backoff, GaveUp, Outcome, Policy as Retry, Retryable, Step},
    row::{DestinationSpec, HttpSpec, Kind, Provider, Spec},
    shard,
};
use sqlx::Row as _;
use store::{
    events::{self, Event, NewDelivery},
    replicas::{self, Replica},
    testing::{Database, SHARDS, Server, ServerOptions},
};
use tokio::sync::Semaphore;

mod circuits;
mod fairness;
mod findings;
mod orders;
mod outages;
mod rates;

const LONG: Duration = Duration::from_secs(20);

fn destination(uid: Uuid, url: &str, change: impl FnOnce(&mut DestinationSpec)) -> Row {
    let mut spec = DestinationSpec {
        provider: Provider::Http(HttpSpec {
            url: url.to_owned(),
            timeout: LONG,
            ..HttpSpec::default()
        }),
        retry: Retry {
            backoff: Backoff::Fixed,
            intervals_ms: vec![20],
            max_retries: 5,
            retry_on: Retryable::everything(),
            respect_retry_after: true,
            ..Retry::default()
        },
        concurrency: 64,
        // Most tests fail deliveries on purpose.
        circuit: None,
        ..DestinationSpec::default()
    };
    change(&mut spec);
    Row {
        uid,
        namespace: "shop".into(),
        name: format!("d-{}", uid.simple()),
        generation: 1,
        spec: Spec::Destination(spec),
        secrets: Vec::new(),
    }
}

fn timeout(spec: &mut DestinationSpec, timeout: Duration) {
    let Provider::Http(http) = &mut spec.provider;
    http.timeout = timeout;
}

fn uid(n: u128) -> Uuid {
    // Spread over the shards.
    Uuid::from_u128(n.wrapping_mul(0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835))
}

/// A database, a table and the replicas that a test starts on them.
struct Ground {
    store: Store,
    table: Arc<ArcSwap<Table>>,
    /// Unless the test has a server of its own.
    database: Option<Database>,
}

struct Replicas {
    running: Running,
    metrics: DeliveryMetrics,
    reports: mpsc::Receiver<Report>,
}

impl Ground {
    async fn new(rows: impl IntoIterator<Item = Row>) -> Ground {
        let database = Database::create().await;
        Ground {
            table: Arc::new(ArcSwap::from_pointee(Table::build(rows))),
            store: database.store.clone(),
            database: Some(database),
        }
    }

    fn on(store: Store, rows: impl IntoIterator<Item = Row>) -> Ground {
        Ground {
            store,
            table: Arc::new(ArcSwap::from_pointee(Table::build(rows))),
            database: None,
        }
    }

    fn change(&self, row: Row) {
        self.table
            .store(Arc::new(self.table.load().with([row], [])));
    }

    fn remove(&self, uid: Uuid) {
        self.table.store(Arc::new(self.table.load().with(
            [],
            [RowKey {
                kind: Kind::Destination,
                uid,
            }],
        )));
    }

    async fn start(&self, name: &str, change: impl FnOnce(&mut Options)) -> Replicas {
        let mut options = Options::new(name, SHARDS);
        options.egress.policy = Policy::with_private_networks();
        // Short enough for a test to wait for, long enough for a machine that is busy.
        options.lease_ttl = Duration::from_millis(1500);
        options.reread = Duration::from_millis(300);
        let (observer, reports) = mpsc::channel(100_000);
        options.observer = Some(observer);
        change(&mut options);
        let metrics = DeliveryMetrics::new(&Registry::new());
        self.beat(name).await;
        let running = start(
            options,
            &self.store,
            self.table.clone(),
            metrics.clone(),
            CancellationToken::new(),
        );
        Replicas {
            running,
            metrics,
            reports,
        }
    }

    async fn beat(&self, name: &str) {
        let replica = Replica {
            id: name.into(),
            address: "127.0.0.1:1".into(),
            roles: vec![crate::leases::DELIVERY.into()],
            version: "0".into(),
            started_at: now(),
            route_epoch: 1,
            applied_revision: 1,
            unreadable_rows: 0,
            shards: 0,
        };
        replicas::heartbeat(&self.store.pool, &replica)
            .await
            .unwrap();
    }

    async fn record(
        &self,
        destination: Uuid,
        bodies: impl IntoIterator<Item = Vec<u8>>,
    ) -> Vec<Recorded> {
        let batch: Vec<Recorded> = bodies
            .into_iter()
            .map(|body| recorded(destination, body))
            .collect();
        for part in batch.chunks(1000) {
            events::record(&self.store.pool, part).await.unwrap();
        }
        batch
    }

    async fn count(&self, sql: &'static str) -> i64 {
        self.try_count(sql).await.unwrap()
    }

    async fn try_count(&self, sql: &'static str) -> sqlx::Result<i64> {
        let row = sqlx::query(sql).fetch_one(self.store.pool.raw()).await?;
        Ok(row.get(0))
    }

    /// Waits for a count. Rows have no signal of their own, so this looks every few milliseconds. Connections that a
    /// restart has cut fail once.
    async fn until(&self, sql: &'static str, wanted: i64) {
        let wait = async {
            while self.try_count(sql).await.ok() != Some(wanted) {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        if tokio::time::timeout(LONG, wait).await.is_err() {
            panic!("{sql} is {} and not {wanted}", self.count(sql).await);
        }
    }
}

impl Replicas {
    async fn report(&mut self) -> Report {
        tokio::time::timeout(LONG, self.reports.recv())
            .await
            .expect("no attempt ended")
            .expect("it runs")
    }

    async fn holds(&self, shards: u32) {
        let handle = self.running.handle();
        let wait = async {
            while handle.shards_held() != shards {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        if tokio::time::timeout(LONG, wait).await.is_err() {
            panic!("{} shards and not {shards}", handle.shards_held());
        }
    }
}

fn now() -> Timestamp {
    service::clock::now()
}

fn recorded(destination: Uuid, body: Vec<u8>) -> Recorded {
    let id = Uuid::now_v7();
    let event = Event {
        id,
        namespace: "shop".into(),
        source_id: uid(77),
        revision: 1,
        received_at: now(),
        method: "POST".into(),
        headers: "Content-Type: application/octet-stream\r\n".into(),
        body: body.into(),
        remote_addr: [127, 0, 0, 1].into(),
        ..Event::default()
    };
    let delivery = NewDelivery {
        id: ids::delivery(id),
        connection_id: uid(78),
        destination_id: destination,
        shard: shard::of(destination, SHARDS),
        ordered: false,
    };
    Recorded {
        event: Arc::new(event),
        deliveries: vec![delivery],
        ..Recorded::default()
    }
}

fn fail_first(times: u32, status: u16) -> impl Fn(&Received) -> Reply {
    move |request| {
        Reply::Status(
            if request
                .header("x-hookstream-delivery-attempt")
                .parse::<u32>()
                .unwrap()
                <= times
            {
                status
            } else {
                200
            },
        )
    }
}

const QUEUED: &str = "SELECT count(*) FROM queue";
const DELIVERED: &str = "SELECT count(*) FROM deliveries WHERE state = 'delivered'";
const DEAD: &str = "SELECT count(*) FROM deliveries WHERE state = 'dead_letter'";
const ATTEMPTS: &str = "SELECT count(*) FROM attempts";

#[tokio::test]
async fn what_is_recorded_is_delivered_byte_for_byte_and_leaves_the_queue() {
    let mut receiver = Receiver::always(Reply::Status(200)).await;
    let ground = Ground::new([destination(uid(1), &receiver.url(), |_| {})]).await;
    let mut replica = ground.start("a", |_| {}).await;
    replica.holds(u32::from(SHARDS)).await;
    let body: Vec<u8> = (0..=255).cycle().take(5000).collect();
    let batch = ground.record(uid(1), [body.clone()]).await;
    replica.running.handle().recorded(batch);
    let received = receiver.next().await;
    assert_eq!(received.body, body);
    assert_eq!(received.header("x-hookstream-delivery-attempt"), "1");
    assert_eq!(
        replica.report().await.outcome,
        Outcome::Delivered { status: 200 }
    );
    ground.until(DELIVERED, 1).await;
    assert_eq!(
        (ground.count(QUEUED).await, ground.count(ATTEMPTS).await),
        (0, 1)
    );
    replica.running.drain(LONG).await;
}

#[tokio::test]
async fn a_failing_destination_is_tried_again_until_it_takes_the_delivery() {
    let mut receiver = Receiver::start(fail_first(3, 503)).await;
    let ground = Ground::new([destination(uid(1), &receiver.url(), |_| {})]).await;
    let replica = ground.start("a", |_| {}).await;
    let batch = ground.record(uid(1), [b"x".to_vec()]).await;
    replica.running.handle().recorded(batch);
    for attempt in ["1", "2", "3", "4"] {
        assert_eq!(
            receiver
                .next()
                .await
                .header("x-hookstream-delivery-attempt"),
            attempt
        );
    }
    ground.until(DELIVERED, 1).await;
    assert_eq!(ground.count(ATTEMPTS).await, 4);
    assert_eq!(
        ground
            .count("SELECT attempts::bigint FROM deliveries")
            .await,
        4
    );
}

#[tokio::test]
async fn a_delivery_whose_retries_are_spent_or_pointless_is_a_dead_letter() {
    for (status, retries, attempts, reason) in [(500, 2, 3, "retries_spent"), (410, 5, 1, "gone")] {
        let receiver = Receiver::always(Reply::Status(status)).await;
        let ground = Ground::new([destination(uid(1), &receiver.url(), |spec| {
            spec.retry.max_retries = retries
        })])
        .await;
        let _replica = ground.start("a", |_| {}).await;
        ground.record(uid(1), [b"x".to_vec()]).await;
        ground.until(DEAD, 1).await;
        assert_eq!(
            (ground.count(ATTEMPTS).await, ground.count(QUEUED).await),
            (attempts, 0)
        );
        let found: String = sqlx::query("SELECT reason FROM deliveries")
            .fetch_one(ground.store.pool.raw())
            .await
            .unwrap()
            .get(0);
        assert_eq!(found, reason);
    }
}

#[tokio::test]
async fn retry_after_is_waited_for_in_the_table() {
    let receiver = Receiver::start(|_| {
        Reply::With(429, vec![("retry-after", "90".into())], Default::default())
    })
    .await;
    let ground = Ground::new([destination(uid(1), &receiver.url(), |_| {})]).await;
    let mut replica = ground.start("a", |_| {}).await;
    ground.record(uid(1), [b"x".to_vec()]).await;
    let report = replica.report().await;
    let Step::RetryAt(at) = report.step else {
        panic!("{report:?}")
    };
    assert!(at.duration_since(now()).as_secs() > 80);
    ground
        .until(
            "SELECT count(*) FROM queue WHERE attempts = 1 AND due_at > now() + interval '80 s'",
            1,
        )
        .await;
    // Past the horizon: nothing of it stays in memory.
    let emptied = async {
        while replica.metrics.window_deliveries.get() != 0
            || replica.metrics.window_bytes.get() != 0
        {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(LONG, emptied).await.unwrap();
}

#[tokio::test]
async fn a_retry_that_left_memory_comes_back_when_it_is_due() {
    let mut receiver = Receiver::start(fail_first(1, 500)).await;
    let ground = Ground::new([destination(uid(1), &receiver.url(), |spec| {
        spec.retry.intervals_ms = vec![400]
    })])
    .await;
    let _replica = ground
        .start("a", |options| {
            options.horizon = Duration::ZERO;
            // The timer of the destination has to do it.
            options.reread = Duration::from_secs(3600);
        })
        .await;
    let batch = ground.record(uid(1), [b"x".to_vec()]).await;
    _replica.running.handle().recorded(batch);
    assert_eq!(
        receiver
            .next()
            .await
            .header("x-hookstream-delivery-attempt"),
        "1"
    );
    assert_eq!(
        receiver
            .next()
            .await
            .header("x-hookstream-delivery-attempt"),
        "2"
    );
    ground.until(DELIVERED, 1).await;
}

#[tokio::test]
async fn a_slow_destination_does_not_slow_another() {
    let gate = Arc::new(Semaphore::new(0));
    let slow = Receiver::always(Reply::Gate(gate.clone())).await;
    let mut quick = Receiver::always(Reply::Status(200)).await;
    let ground = Ground::new([
        destination(uid(1), &slow.url(), |spec| spec.concurrency = 1000),
        destination(uid(2), &quick.url(), |_| {}),
    ])
    .await;
    let replica = ground.start("a", |options| options.concurrency = 16).await;
    replica.holds(u32::from(SHARDS)).await;
    let batch = ground
        .record(uid(1), (0..200).map(|_| b"slow".to_vec()))
        .await;
    replica.running.handle().recorded(batch);
    let filled = async {
        while replica.metrics.in_flight.get() < 4 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(LONG, filled).await.unwrap();
    let batch = ground
        .record(uid(2), (0..100).map(|_| b"quick".to_vec()))
        .await;
    replica.running.handle().recorded(batch);
    for _ in 0..100 {
        quick.next().await;
    }
    ground.until(DELIVERED, 100).await;
    assert_eq!(
        replica.metrics.in_flight.get(),
        4,
        "the slow one has a quarter and no more"
    );
    gate.add_permits(1000);
    ground.until(DELIVERED, 300).await;
}

#[tokio::test]
async fn no_more_attempts_are_in_flight_than_the_destination_allows() {
    let gate = Arc::new(Semaphore::new(0));
    let mut receiver = Receiver::always(Reply::Gate(gate.clone())).await;
    let ground = Ground::new([destination(uid(1), &receiver.url(), |spec| {
        spec.concurrency = 3
    })])
    .await;
    let replica = ground.start("a", |_| {}).await;
    ground.record(uid(1), (0..10).map(|_| Vec::new())).await;
    for _ in 0..3 {
        receiver.next().await;
    }
    replica.running.handle().rescan();
    assert_eq!(
        (replica.metrics.in_flight.get(), receiver.rest().len()),
        (3, 0)
    );
    gate.add_permits(100);
    ground.until(DELIVERED, 10).await;
}

#[tokio::test]
async fn deliveries_of_a_suspended_destination_wait_and_drain_when_it_is_released() {
    let mut receiver = Receiver::always(Reply::Status(200)).await;
    let row = |suspended| destination(uid(1), &receiver.url(), |spec| spec.suspended = suspended);
    let (paused, released) = (row(true), row(false));
    let ground = Ground::new([paused]).await;
    let replica = ground.start("a", |_| {}).await;
    replica.holds(u32::from(SHARDS)).await;
    let batch = ground
        .record(uid(1), (0..3000).map(|n: u32| n.to_be_bytes().to_vec()))
        .await;
    replica.running.handle().recorded(batch);
    // A delivery behind them shows that they had their turn.
    replica.running.handle().rescan();
    ground.until(QUEUED, 3000).await;
    assert_eq!(
        (
            replica.metrics.window_deliveries.get(),
            receiver.rest().len()
        ),
        (0, 0)
    );
    ground.change(released);
    replica.running.handle().table_changed();
    ground.until(DELIVERED, 3000).await;
    let mut bodies: Vec<u32> = receiver
        .rest()
        .into_iter()
        .map(|request| u32::from_be_bytes(request.body.as_ref().try_into().unwrap()))
        .collect();
    bodies.sort_unstable();
    assert!(bodies.iter().copied().eq(0..3000), "each once");
}

#[tokio::test]
async fn memory_is_bounded_whatever_is_pending() {
    let gate = Arc::new(Semaphore::new(0));
    let receiver = Receiver::always(Reply::Gate(gate.clone())).await;
    let ground = Ground::new([
        destination(uid(1), &receiver.url(), |_| {}),
        destination(uid(2), &receiver.url(), |_| {}),
    ])
    .await;
    // One event with all the deliveries: what the queue holds is what is tested.
    let batch = ground.record(uid(1), [b"x".to_vec()]).await;
    let sql = "INSERT INTO queue (shard, destination_id, due_at, delivery_id, event_id, connection_id, namespace, attempts, recorded_at)
               SELECT shard, destination_id, due_at + n * interval '1 us', (left(delivery_id::text, 24) || lpad(to_hex(n), 8, '0') || '0000')::uuid, event_id, connection_id, namespace, 0, due_at + n * interval '1 us'
               FROM queue, generate_series(1, 99999) n";
    sqlx::query(sql)
        .execute(ground.store.pool.raw())
        .await
        .unwrap();
    drop(batch);
    let replica = ground.start("a", |options| options.concurrency = 64).await;
    gate.add_permits(20_000);
    let mut most = 0;
    let drained = ground.until("SELECT (count(*) >= 20000)::int::bigint FROM attempts", 1);
    let mut drained = std::pin::pin!(drained);
    while tokio::time::timeout(Duration::from_millis(1), &mut drained)
        .await
        .is_err()
    {
        most = most.max(replica.metrics.window_deliveries.get());
    }
    assert!(most > 100 && most <= 512, "{most}");
}

#[tokio::test]
async fn bodies_are_bounded_too_and_everything_is_delivered_all_the_same() {
    let receiver = Receiver::always(Reply::Status(200)).await;
    let ground = Ground::new(
        (1..=4).map(|n| destination(uid(n), &receiver.url(), |spec| spec.concurrency = 2)),
    )
    .await;
    for n in 1..=4 {
        ground
            .record(uid(n), (0..12).map(|_| vec![7; 300 << 10]))
            .await;
    }
    let replica = ground
        .start("a", |options| options.window_bytes = 1 << 20)
        .await;
    ground.until(DELIVERED, 48).await;
    assert_eq!(replica.metrics.outcomes_discarded.get(), 0);
}

#[tokio::test]
async fn a_shard_is_handed_over_at_once_on_shutdown() {
    let mut receiver = Receiver::always(Reply::Status(200)).await;
    let ground = Ground::new([destination(uid(1), &receiver.url(), |_| {})]).await;
    // So long that only a release can explain what follows.
    let ttl = Duration::from_secs(3);
    let mut first = ground.start("a", |options| options.lease_ttl = ttl).await;
    first.holds(u32::from(SHARDS)).await;
    let second = ground.start("b", |options| options.lease_ttl = ttl).await;
    second.holds(u32::from(SHARDS / 2)).await;
    first.holds(u32::from(SHARDS / 2)).await;
    let started = service::clock::instant();
    first.running.drain(LONG).await;
    second.running.handle().replicas_changed();
    second.holds(u32::from(SHARDS)).await;
    assert!(
        started.elapsed() < Duration::from_secs(1),
        "{:?}",
        started.elapsed()
    );
    let batch = ground.record(uid(1), [b"x".to_vec()]).await;
    second.running.handle().recorded(batch);
    receiver.next().await;
}

#[tokio::test]
async fn two_replicas_that_start_at_once_share_the_shards() {
    let ground = Ground::new([]).await;
    ground.beat("a").await;
    ground.beat("b").await;
    let (a, b) = tokio::join!(ground.start("a", |_| {}), ground.start("b", |_| {}));
    a.holds(u32::from(SHARDS / 2)).await;
    b.holds(u32::from(SHARDS / 2)).await;
    assert_eq!(
        ground
            .count("SELECT count(DISTINCT holder) FROM lease WHERE expires_at > now()")
            .await,
        2
    );
}

#[tokio::test]
async fn a_process_that_died_before_it_took_a_shard_keeps_none_free() {
    let ground = Ground::new([]).await;
    // Its last heartbeat is a moment old.
    ground.beat("dead").await;
    let replica = ground.start("a", |_| {}).await;
    replica.holds(u32::from(SHARDS)).await;
}

#[tokio::test]
async fn after_a_crash_another_replica_delivers() {
    let gate = Arc::new(Semaphore::new(0));
    let mut receiver = Receiver::always(Reply::Gate(gate.clone())).await;
    let ground = Ground::new([destination(uid(1), &receiver.url(), |_| {})]).await;
    let first = ground.start("a", |_| {}).await;
    first.holds(u32::from(SHARDS)).await;
    ground.record(uid(1), [b"x".to_vec()]).await;
    first.running.handle().rescan();
    receiver.next().await;
    // In the middle of an attempt.
    drop(first.running);
    let _second = ground.start("b", |_| {}).await;
    // One for the request whose sender is gone, should the receiver not have noticed yet.
    gate.add_permits(2);
    assert_eq!(
        receiver
            .next()
            .await
            .header("x-hookstream-delivery-attempt"),
        "1",
        "the attempt that broke off counts for nothing"
    );
    ground.until(DELIVERED, 1).await;
    assert_eq!(ground.count(ATTEMPTS).await, 1);
}

#[tokio::test]
async fn a_replica_that_lost_its_lease_writes_nothing() {
    let gate = Arc::new(Semaphore::new(0));
    let mut receiver = Receiver::always(Reply::Gate(gate.clone())).await;
    let ground = Ground::new([destination(uid(1), &receiver.url(), |_| {})]).await;
    let replica = ground
        .start("a", |options| options.lease_ttl = Duration::from_secs(60))
        .await;
    replica.holds(u32::from(SHARDS)).await;
    let batch = ground.record(uid(1), [b"x".to_vec()]).await;
    replica.running.handle().recorded(batch);
    receiver.next().await;
    // As if it had been paused until another one took over, and doesn't know yet.
    sqlx::query(
        "UPDATE lease SET holder = 'z', epoch = epoch + 1, expires_at = now() + interval '1 h'",
    )
    .execute(ground.store.pool.raw())
    .await
    .unwrap();
    gate.add_permits(1);
    let discarded = async {
        while replica.metrics.outcomes_discarded.get() == 0 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(LONG, discarded).await.unwrap();
    assert_eq!(
        (
            ground.count(ATTEMPTS).await,
            ground.count(QUEUED).await,
            ground.count(DELIVERED).await
        ),
        (0, 1, 0)
    );
    assert_eq!(
        replica.running.handle().shards_held(),
        u32::from(SHARDS) - 1
    );
}

#[tokio::test]
async fn shutdown_gives_attempts_that_do_not_end_back_uncounted() {
    let mut receiver = Receiver::always(Reply::Hang).await;
    let ground = Ground::new([destination(uid(1), &receiver.url(), |_| {})]).await;
    let mut replica = ground.start("a", |_| {}).await;
    ground.record(uid(1), [b"x".to_vec()]).await;
    receiver.next().await;
    replica.running.drain(Duration::from_millis(50)).await;
    assert_eq!(
        (
            ground.count(ATTEMPTS).await,
            ground.count("SELECT attempts::bigint FROM queue").await
        ),
        (0, 0)
    );
    assert_eq!(
        ground
            .count("SELECT count(*) FROM lease WHERE holder IS NOT NULL")
            .await,
        0
    );
    assert_eq!(replica.metrics.given_back.get(), 1);
}

#[tokio::test]
async fn shutdown_lets_attempts_end_and_writes_them() {
    let gate = Arc::new(Semaphore::new(0));
    let mut receiver = Receiver::always(Reply::Gate(gate.clone())).await;
    let ground = Ground::new([destination(uid(1), &receiver.url(), |_| {})]).await;
    let mut replica = ground.start("a", |_| {}).await;
    ground.record(uid(1), [b"x".to_vec()]).await;
    receiver.next().await;
    replica.running.retire();
    replica.holds(1).await;
    gate.add_permits(1);
    replica.running.drain(LONG).await;
    assert_eq!(
        (
            ground.count(DELIVERED).await,
            ground
                .count("SELECT count(*) FROM lease WHERE holder IS NOT NULL")
                .await
        ),
        (1, 0)
    );
}

#[tokio::test]
async fn a_hint_and_a_lost_hint_both_lead_to_the_delivery() {
    let mut receiver = Receiver::always(Reply::Status(200)).await;
    let ground = Ground::new([destination(uid(1), &receiver.url(), |_| {})]).await;
    let replica = ground
        .start("a", |options| options.reread = Duration::from_secs(3600))
        .await;
    replica.holds(u32::from(SHARDS)).await;
    let batch = ground.record(uid(1), [b"first".to_vec()]).await;
    replica.running.handle().recorded(batch);
    receiver.next().await;
    // Recorded by another replica.
    ground.record(uid(1), [b"hinted".to_vec()]).await;
    replica.running.handle().hint(vec![uid(1)]);
    assert_eq!(receiver.next().await.body, "hinted");
    ground.until(DELIVERED, 2).await;
    drop(replica);
    let _again = ground.start("b", |_| {}).await;
    ground.record(uid(1), [b"found".to_vec()]).await;
    assert_eq!(receiver.next().await.body, "found");
}

#[tokio::test]
async fn what_belongs_to_another_replica_is_told_once_a_batch() {
    let ground = Ground::new([]).await;
    let mut listener = store::listen::Listener::connect(&ground.store)
        .await
        .unwrap();
    let replica = ground.start("a", |options| options.delivers = false).await;
    let batch = ground.record(uid(5), (0..50).map(|_| Vec::new())).await;
    replica.running.handle().recorded(batch);
    let heard = async {
        loop {
            if let store::listen::Hint::Queue(destinations) = listener.next().await.unwrap() {
                return destinations;
            }
        }
    };
    assert_eq!(tokio::time::timeout(LONG, heard).await.unwrap(), [uid(5)]);
    assert_eq!(replica.metrics.notifications.get(), 1);
}

#[tokio::test]
async fn bad_receivers_are_outcomes_and_the_scheduler_goes_on() {
    let bad = [
        (Receiver::always(Reply::Hang).await, Outcome::TimedOut),
        (Receiver::always(Reply::Close).await, Outcome::Unreachable),
        (
            Receiver::raw(b"not http at all\r\n\r\n").await,
            Outcome::Unreachable,
        ),
        (
            Receiver::always(Reply::With(
                302,
                vec![("location", "/".into())],
                Default::default(),
            ))
            .await,
            Outcome::Refused {
                status: 302,
                retry_after: None,
            },
        ),
        (
            Receiver::always(Reply::Stream).await,
            Outcome::Delivered { status: 200 },
        ),
    ];
    let rows = bad.iter().enumerate().map(|(n, (receiver, _))| {
        destination(uid(n as u128), &receiver.url(), |spec| {
            spec.retry.max_retries = 0;
            timeout(spec, Duration::from_millis(300));
        })
    });
    let ground = Ground::new(rows).await;
    let mut replica = ground.start("a", |_| {}).await;
    for n in 0..bad.len() {
        ground.record(uid(n as u128), [b"x".to_vec()]).await;
    }
    for _ in 0..bad.len() {
        let report = replica.report().await;
        let n = (0..bad.len())
            .find(|n| uid(*n as u128) == report.destination.uid)
            .unwrap();
        assert_eq!(report.outcome, bad[n].1, "{n}");
        assert!(matches!(
            report.step,
            Step::Done | Step::DeadLetter(GaveUp::RetriesSpent | GaveUp::NotRetryable)
        ));
    }
    ground.until(QUEUED, 0).await;
    assert_eq!(
        ground
            .count("SELECT max(length(response_body))::bigint FROM attempts")
            .await,
        16 * 1024
    );
}

#[tokio::test]
async fn nothing_is_sent_before_the_first_table_and_nothing_is_lost_either() {
    let mut receiver = Receiver::always(Reply::Status(200)).await;
    let ground = Ground::new([]).await;
    // An installation that never published anything: its destinations aren't deleted, they are not there yet.
    let replica = ground
        .start("a", |options| options.gone_grace = Duration::ZERO)
        .await;
    replica.holds(u32::from(SHARDS)).await;
    let batch = ground.record(uid(1), [b"x".to_vec()]).await;
    replica.running.handle().recorded(batch);
    replica.running.handle().rescan();
    ground.change(destination(uid(1), &receiver.url(), |_| {}));
    replica.running.handle().table_changed();
    receiver.next().await;
    ground.until(DELIVERED, 1).await;
}

#[tokio::test]
async fn what_is_pending_for_a_deleted_destination_becomes_a_dead_letter() {
    let receiver = Receiver::always(Reply::Status(200)).await;
    let rows = [
        destination(uid(1), &receiver.url(), |spec| spec.suspended = true),
        destination(uid(2), &receiver.url(), |_| {}),
    ];
    let ground = Ground::new(rows.clone()).await;
    let published = crate::testing::Published::new(&ground.store, &rows).await;
    ground.record(uid(1), (0..700).map(|_| b"x".to_vec())).await;
    let replica = ground
        .start("a", |options| options.gone_grace = Duration::ZERO)
        .await;
    replica.holds(u32::from(SHARDS)).await;
    // Out of our table, but not deleted: a row that this version can't read.
    ground.remove(uid(1));
    replica.running.handle().table_changed();
    replica.running.handle().rescan();
    ground.record(uid(2), [b"y".to_vec()]).await;
    ground.until(DELIVERED, 1).await;
    assert_eq!(
        (ground.count(QUEUED).await, ground.count(DEAD).await),
        (700, 0)
    );
    published.publish(&[], &[rows[0].key()]).await;
    ground.until(DEAD, 700).await;
    assert_eq!(
        (ground.count(QUEUED).await, ground.count(ATTEMPTS).await),
        (0, 1)
    );
    assert_eq!(ground.count("SELECT count(*) FROM deliveries WHERE reason = 'destination_deleted' AND attempts = 0").await, 700);
}

#[tokio::test]
async fn deliveries_whose_events_retention_has_dropped_do_not_hold_up_the_others() {
    let mut receiver = Receiver::always(Reply::Status(200)).await;
    let row = |suspended| destination(uid(1), &receiver.url(), |spec| spec.suspended = suspended);
    let (paused, released) = (row(true), row(false));
    let ground = Ground::new([paused]).await;
    ground
        .record(uid(1), (0..1200).map(|_| b"old".to_vec()))
        .await;
    sqlx::query("DELETE FROM events")
        .execute(ground.store.pool.raw())
        .await
        .unwrap();
    ground.record(uid(1), [b"new".to_vec()]).await;
    let replica = ground.start("a", |_| {}).await;
    ground.change(released);
    replica.running.handle().table_changed();
    assert_eq!(receiver.next().await.body, "new");
    ground.until(QUEUED, 0).await;
}
