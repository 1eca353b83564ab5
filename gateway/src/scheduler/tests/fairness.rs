//! Receivers that hang, with as many attempts as they may have, and others beside them. Nothing that hangs ends during
//! a test: whatever is delivered has not waited for it.

use super::*;

/// So many destinations whose receiver never answers, at `uid(from)` and on.
fn hanging(from: u128, count: u128, receiver: &Receiver) -> Vec<Row> {
    let row = |n| {
        destination(uid(n), &receiver.url(), |spec| {
            spec.concurrency = 1000;
            timeout(spec, Duration::from_secs(600));
        })
    };
    (from..from + count).map(row).collect()
}

impl Ground {
    /// So many deliveries with bodies of so many bytes for each of these destinations.
    async fn record_for_each(&self, rows: &[Row], each: usize, bytes: usize) {
        let batch: Vec<Recorded> = (0..each)
            .flat_map(|_| rows)
            .map(|row| recorded(row.uid, vec![7; bytes]))
            .collect();
        for part in batch.chunks(500) {
            events::record(&self.store.pool, part).await.unwrap();
        }
    }
}

impl Replicas {
    async fn has_in_flight(&self, attempts: i64) {
        let wait = async {
            while self.metrics.in_flight.get() < attempts {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        if tokio::time::timeout(LONG * 2, wait).await.is_err() {
            panic!("{} and not {attempts}", self.metrics.in_flight.get());
        }
    }

    /// Hands over `count` deliveries to a destination that answers, and waits for all of them.
    async fn deliver(&self, ground: &Ground, to: Uuid, bytes: usize, receiver: &mut Receiver) {
        let bodies = (0..QUICK).map(|_| vec![1; bytes]);
        let batch = ground.record(to, bodies).await;
        self.running.handle().recorded(batch);
        for _ in 0..QUICK {
            receiver.next().await;
        }
    }
}

const QUICK: i64 = 200;

#[tokio::test]
async fn a_dozen_destinations_that_hang_leave_slots_for_the_next() {
    let black = Receiver::always(Reply::Hang).await;
    let mut quick = Receiver::always(Reply::Status(200)).await;
    let rows = hanging(1, 12, &black);
    let ground = Ground::new(rows.iter().cloned().chain([destination(
        uid(99),
        &quick.url(),
        |_| {},
    )]))
    .await;
    let replica = ground.start("a", |_| {}).await;
    replica.holds(u32::from(SHARDS)).await;
    // One after another, so that the first ones take as much as they can get.
    let mut attempts = 0;
    for (row, most) in rows
        .iter()
        .zip([1000, 71, 54, 43, 35, 30, 26, 23, 21, 18, 17, 15])
    {
        ground
            .record_for_each(std::slice::from_ref(row), 1100, 1)
            .await;
        replica.running.handle().hint(vec![row.uid]);
        attempts += most;
        replica.has_in_flight(attempts).await;
    }
    replica.deliver(&ground, uid(99), 1, &mut quick).await;
    ground.until(DELIVERED, QUICK).await;
    assert_eq!(
        (
            replica.metrics.in_flight.get(),
            ground.count(ATTEMPTS).await
        ),
        (attempts, QUICK)
    );
}

#[tokio::test]
async fn hundreds_that_hang_slow_neither_their_own_namespace_nor_another() {
    let black = Receiver::always(Reply::Hang).await;
    let (mut beside, mut elsewhere) = (
        Receiver::always(Reply::Status(200)).await,
        Receiver::always(Reply::Status(200)).await,
    );
    let rows = hanging(1, 400, &black);
    let mut stranger = destination(uid(1001), &elsewhere.url(), |_| {});
    stranger.namespace = "bank".into();
    let others = [destination(uid(1000), &beside.url(), |_| {}), stranger];
    let ground = Ground::new(rows.iter().cloned().chain(others)).await;
    ground.record_for_each(&rows, 12, 1).await;
    let replica = ground.start("a", |_| {}).await;
    replica.has_in_flight(1200).await;
    replica.deliver(&ground, uid(1000), 1, &mut beside).await;
    replica.deliver(&ground, uid(1001), 1, &mut elsewhere).await;
    ground.until(DELIVERED, 2 * QUICK).await;
    assert_eq!(ground.count(ATTEMPTS).await, 2 * QUICK);
    let hanging = replica.metrics.in_flight.get();
    assert!(hanging <= 2048, "the namespace has half: {hanging}");
}

#[tokio::test]
async fn bodies_that_hang_leave_memory_for_others() {
    const LARGE: usize = 64 << 10;
    let black = Receiver::always(Reply::Hang).await;
    let mut quick = Receiver::always(Reply::Status(200)).await;
    let rows = hanging(1, 12, &black);
    let ground = Ground::new(rows.iter().cloned().chain([destination(
        uid(99),
        &quick.url(),
        |_| {},
    )]))
    .await;
    ground.record_for_each(&rows, 40, LARGE).await;
    let replica = ground
        .start("a", |options| options.window_bytes = 1 << 20)
        .await;
    // More than the windows may hold, several times over.
    replica.has_in_flight(100).await;
    replica.deliver(&ground, uid(99), LARGE, &mut quick).await;
    ground.until(DELIVERED, QUICK).await;
    assert_eq!(ground.count(ATTEMPTS).await, QUICK);
    let bytes = replica.metrics.window_bytes.get();
    assert!(bytes < 36 << 20, "half of 64 MiB, and windows: {bytes}");
}
