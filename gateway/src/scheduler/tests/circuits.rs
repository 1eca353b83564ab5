//! Circuits: what holds deliveries back, and that it holds across owners.

use super::*;
use routing::delivery::{Circuit, Trip};
use std::sync::atomic::AtomicU64;
use store::destination_state::{self, Reset};
use tokio::time::Instant;

const OPEN: &str = "SELECT count(*) FROM destination_state WHERE circuit = 'open'";
const HOUR: Duration = Duration::from_secs(3600);

fn circuit(spec: &mut DestinationSpec, failures: u32, cooldown: Duration) {
    spec.circuit = Some(Circuit {
        trip: Trip::InARow(failures),
        cooldown,
    });
}

/// What fails is not tried again for an hour.
fn patient(spec: &mut DestinationSpec) {
    spec.retry.intervals_ms = vec![3_600_000];
}

/// Fails the first requests, and notes when each came.
struct Weak {
    receiver: Receiver,
    times: Arc<Mutex<Vec<Instant>>>,
}

impl Weak {
    async fn new(fails: usize) -> Weak {
        let times = Arc::new(Mutex::new(Vec::new()));
        let noted = times.clone();
        let receiver = Receiver::start(move |_| {
            let mut noted = noted.lock().unwrap();
            noted.push(Instant::now());
            Reply::Status(if noted.len() <= fails { 500 } else { 200 })
        })
        .await;
        Weak { receiver, times }
    }

    fn between(&self, earlier: usize, later: usize) -> Duration {
        let times = self.times.lock().unwrap();
        times[later].duration_since(times[earlier])
    }
}

fn number(request: &Received) -> u32 {
    u32::from_be_bytes(request.body.as_ref().try_into().unwrap())
}

fn numbers(range: std::ops::Range<u32>) -> impl Iterator<Item = Vec<u8>> {
    range.map(|n| n.to_be_bytes().to_vec())
}

#[tokio::test]
async fn after_five_failures_deliveries_wait_and_one_probe_lets_them_go_in_order() {
    let cooldown = Duration::from_millis(700);
    let mut weak = Weak::new(6).await;
    let ground = Ground::new([destination(uid(1), &weak.receiver.url(), |spec| {
        circuit(spec, 5, cooldown);
        spec.concurrency = 1;
        spec.retry.intervals_ms = vec![1];
    })])
    .await;
    let replica = ground.start("a", |_| {}).await;
    replica.holds(u32::from(SHARDS)).await;
    let batch = ground.record(uid(1), numbers(0..30)).await;
    replica.running.handle().recorded(batch);
    let mut order = Vec::new();
    for _ in 0..36 {
        order.push(number(&weak.receiver.next().await));
    }
    // Five fail and so does the first probe; behind the others they come again.
    let expected: Vec<u32> = (0..6).chain(6..30).chain(0..6).collect();
    assert_eq!(order, expected);
    assert!(weak.between(4, 5) >= cooldown, "{:?}", weak.between(4, 5));
    assert!(weak.between(5, 6) >= cooldown, "{:?}", weak.between(5, 6));
    ground.until(DELIVERED, 30).await;
    ground.until(OPEN, 0).await;
    let became = |to| replica.metrics.circuit_transitions(to).get();
    assert_eq!(
        (became("open"), became("half_open"), became("closed")),
        (2, 2, 1)
    );
}

#[tokio::test]
async fn a_destination_that_is_back_is_not_trampled() {
    let gate = Arc::new(Semaphore::new(0));
    let (first, held) = (AtomicU64::new(0), gate.clone());
    let mut receiver = Receiver::start(move |_| match first.fetch_add(1, Ordering::Relaxed) {
        0 => Reply::Status(500),
        _ => Reply::Gate(held.clone()),
    })
    .await;
    let ground = Ground::new([destination(uid(1), &receiver.url(), |spec| {
        circuit(spec, 1, Duration::from_millis(300));
        patient(spec);
        spec.concurrency = 8;
    })])
    .await;
    let replica = ground.start("a", |_| {}).await;
    replica.holds(u32::from(SHARDS)).await;
    let batch = ground.record(uid(1), numbers(0..1)).await;
    replica.running.handle().recorded(batch);
    receiver.next().await;
    ground.until(OPEN, 1).await;
    let batch = ground.record(uid(1), numbers(1..101)).await;
    replica.running.handle().recorded(batch);
    for in_flight in [1, 1, 2, 4, 8, 8] {
        for _ in 0..in_flight {
            receiver.next().await;
        }
        assert_eq!(receiver.rest().len(), 0, "{in_flight} and no more");
        assert_eq!(replica.metrics.in_flight.get(), in_flight as i64);
        gate.add_permits(in_flight);
    }
    gate.add_permits(100);
    ground.until(DELIVERED, 100).await;
}

#[tokio::test]
async fn failures_are_counted_and_waited_for_whoever_owns_the_shard() {
    let cooldown = Duration::from_secs(4);
    let mut weak = Weak::new(4).await;
    let ground = Ground::new([destination(uid(1), &weak.receiver.url(), |spec| {
        circuit(spec, 4, cooldown);
        patient(spec);
        spec.concurrency = 1;
    })])
    .await;
    let mut first = ground.start("a", |_| {}).await;
    first.holds(u32::from(SHARDS)).await;
    let batch = ground.record(uid(1), numbers(0..2)).await;
    first.running.handle().recorded(batch);
    for _ in 0..2 {
        first.report().await;
    }
    first.running.drain(LONG).await;
    assert_eq!(
        ground
            .count("SELECT failures::bigint FROM destination_state")
            .await,
        2
    );
    let second = ground.start("b", |_| {}).await;
    second.holds(u32::from(SHARDS)).await;
    let batch = ground.record(uid(1), numbers(2..20)).await;
    second.running.handle().recorded(batch);
    ground.until(OPEN, 1).await;
    let seen = weak.receiver.rest();
    assert_eq!(seen.len(), 4, "two of each");
    // An attempt whose outcome isn't written is made again, which is another matter.
    ground.until("SELECT count(*) FROM attempts", 4).await;
    // As a crash would.
    drop(second.running);
    let third = ground.start("c", |_| {}).await;
    third.holds(u32::from(SHARDS)).await;
    ground.until(DELIVERED, 16).await;
    assert!(weak.between(3, 4) >= cooldown, "{:?}", weak.between(3, 4));
    let order: Vec<u32> = weak.receiver.rest().iter().map(number).collect();
    assert!(order.into_iter().eq(4..20), "in their order");
    assert_eq!(third.metrics.circuit_transitions("half_open").get(), 1);
    assert_eq!(third.metrics.circuit_transitions("open").get(), 0);
}

#[tokio::test]
async fn a_share_of_failures_opens_a_circuit_that_no_row_of_them_would() {
    let count = AtomicU64::new(0);
    let mut receiver = Receiver::start(move |_| {
        let odd = count.fetch_add(1, Ordering::Relaxed) % 2 == 1;
        Reply::Status(if odd { 503 } else { 200 })
    })
    .await;
    let ground = Ground::new([destination(uid(1), &receiver.url(), |spec| {
        spec.circuit = Some(Circuit {
            trip: Trip::Share {
                threshold: 5_000,
                window: Duration::from_secs(300),
                minimum: 10,
            },
            cooldown: HOUR,
        });
        patient(spec);
        spec.concurrency = 1;
    })])
    .await;
    let mut first = ground.start("a", |_| {}).await;
    first.holds(u32::from(SHARDS)).await;
    let batch = ground.record(uid(1), numbers(0..6)).await;
    first.running.handle().recorded(batch);
    for _ in 0..6 {
        first.report().await;
    }
    // The counts go with the shard.
    first.running.drain(LONG).await;
    let second = ground.start("b", |_| {}).await;
    ground.record(uid(1), numbers(6..30)).await;
    ground.until(OPEN, 1).await;
    assert_eq!(receiver.rest().len(), 10);
    assert_eq!(second.metrics.in_flight.get(), 0);
}

#[tokio::test]
async fn a_reset_lets_deliveries_go_at_once_and_is_carried_out_once() {
    let mut weak = Weak::new(2).await;
    let ground = Ground::new([destination(uid(1), &weak.receiver.url(), |spec| {
        circuit(spec, 1, HOUR);
        patient(spec);
        spec.concurrency = 1;
    })])
    .await;
    let replica = ground.start("a", |options| options.reread = HOUR).await;
    replica.holds(u32::from(SHARDS)).await;
    let batch = ground.record(uid(1), numbers(0..3)).await;
    replica.running.handle().recorded(batch);
    weak.receiver.next().await;
    ground.until(OPEN, 1).await;
    let reset = |mark: &str| {
        vec![Reset {
            destination_id: uid(1),
            shard: shard::of(uid(1), SHARDS),
            mark: mark.to_owned(),
        }]
    };
    let pool = &ground.store.pool;
    let asked = destination_state::ask_for_resets(pool, &reset("one")).await;
    replica.running.handle().resets(asked.unwrap());
    // It fails again, and the same request closes no circuit twice.
    weak.receiver.next().await;
    let again =
        "SELECT count(*) FROM destination_state WHERE circuit = 'open' AND reset_done = 'one'";
    ground.until(again, 1).await;
    let asked = destination_state::ask_for_resets(pool, &reset("one")).await;
    assert!(asked.unwrap().is_empty());
    replica.running.handle().rescan();
    assert_eq!(ground.count(OPEN).await, 1);
    // One whose notification was lost is found by whoever owns the shard next.
    drop(replica.running);
    let asked = destination_state::ask_for_resets(pool, &reset("two")).await;
    assert_eq!(asked.unwrap(), [uid(1)]);
    let next = ground.start("b", |_| {}).await;
    weak.receiver.next().await;
    ground.until(OPEN, 0).await;
    assert_eq!(next.metrics.circuit_transitions("closed").get(), 1);
    let left = destination_state::resets(pool, shard::of(uid(1), SHARDS)).await;
    assert!(left.unwrap().is_empty());
}

#[tokio::test]
async fn what_waits_behind_an_open_circuit_for_too_long_is_given_up() {
    let mut weak = Weak::new(1).await;
    let ground = Ground::new([destination(uid(1), &weak.receiver.url(), |spec| {
        circuit(spec, 1, HOUR);
        patient(spec);
        spec.retry.max_age_ms = Some(1500);
        spec.concurrency = 1;
    })])
    .await;
    let replica = ground.start("a", |_| {}).await;
    replica.holds(u32::from(SHARDS)).await;
    let batch = ground.record(uid(1), numbers(0..20)).await;
    replica.running.handle().recorded(batch);
    ground.until(DEAD, 20).await;
    assert_eq!(
        weak.receiver
            .next()
            .await
            .header("x-hookstream-delivery-attempt"),
        "1"
    );
    assert_eq!(
        (
            weak.receiver.rest().len(),
            ground.count(ATTEMPTS).await,
            ground
                .count("SELECT count(*) FROM deliveries WHERE reason = 'too_old' AND attempts = 0")
                .await
        ),
        (0, 1, 19)
    );
}

#[tokio::test]
async fn our_own_faults_open_no_circuit() {
    let receiver = Receiver::always(Reply::Status(200)).await;
    let ground = Ground::new([destination(uid(1), &receiver.url(), |spec| {
        circuit(spec, 1, HOUR);
        spec.retry.max_retries = 0;
    })])
    .await;
    let mut replica = ground
        .start("a", |options| {
            // Loopback is forbidden, so nothing is ever sent.
            options.egress.policy = Policy::default();
        })
        .await;
    ground.record(uid(1), numbers(0..10)).await;
    for _ in 0..10 {
        assert_eq!(replica.report().await.outcome, Outcome::Blocked);
    }
    ground.until(DEAD, 10).await;
    assert_eq!(
        ground.count("SELECT count(*) FROM destination_state").await,
        0
    );
}

#[tokio::test]
async fn while_postgres_does_not_take_a_state_its_shard_is_not_given_away() {
    let mut weak = Weak::new(1).await;
    let ground = Ground::new([destination(uid(1), &weak.receiver.url(), |spec| {
        circuit(spec, 1, HOUR);
        patient(spec);
    })])
    .await;
    let mut replica = ground.start("a", |_| {}).await;
    replica.holds(u32::from(SHARDS)).await;
    let mut lock = ground.store.pool.raw().begin().await.unwrap();
    sqlx::query("LOCK TABLE destination_state IN EXCLUSIVE MODE")
        .execute(&mut *lock)
        .await
        .unwrap();
    let batch = ground.record(uid(1), numbers(0..1)).await;
    replica.running.handle().recorded(batch);
    weak.receiver.next().await;
    replica.report().await;
    ground
        .until("SELECT count(*) FROM queue WHERE attempts = 1", 1)
        .await;
    replica.running.retire();
    // All but the one whose circuit is not written.
    replica.holds(1).await;
    lock.rollback().await.unwrap();
    replica.holds(0).await;
    assert_eq!(ground.count(OPEN).await, 1);
}
