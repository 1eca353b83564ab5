//! Rate limits: deliveries wait for them, are never failed by them, and no hand-over lets more through.

use super::*;
use routing::delivery::RateLimit;

fn limit(spec: &mut DestinationSpec, deliveries: u32, per: Duration) {
    spec.rate_limit = Some(RateLimit { deliveries, per });
}

/// When the attempts began, in microseconds.
async fn began(ground: &Ground) -> Vec<i64> {
    let sql = "SELECT (extract(epoch FROM started_at) * 1000000)::bigint FROM attempts ORDER BY started_at";
    sqlx::query_scalar(sql)
        .fetch_all(ground.store.pool.raw())
        .await
        .unwrap()
}

/// The most that began in any stretch of so long.
fn most(began: &[i64], per: Duration) -> usize {
    let within = |first: &i64| {
        let end = first + i64::try_from(per.as_micros()).unwrap();
        began.iter().filter(|at| (*first..end).contains(at)).count()
    };
    began.iter().map(within).max().unwrap_or(0)
}

#[tokio::test]
async fn a_limit_holds_through_hand_overs_and_fails_nothing() {
    let second = Duration::from_secs(1);
    let receiver = Receiver::always(Reply::Status(200)).await;
    let ground = Ground::new([destination(uid(1), &receiver.url(), |spec| {
        limit(spec, 40, second)
    })])
    .await;
    ground.record(uid(1), (0..160).map(|_| b"x".to_vec())).await;
    let mut last = ground.start("a", |_| {}).await;
    for (name, last_began) in [
        (
            "b",
            "SELECT (count(*) > 10)::int::bigint FROM attempts WHERE replica = 'a'",
        ),
        (
            "c",
            "SELECT (count(*) > 10)::int::bigint FROM attempts WHERE replica = 'b'",
        ),
        (
            "d",
            "SELECT (count(*) > 10)::int::bigint FROM attempts WHERE replica = 'c'",
        ),
    ] {
        ground.until(last_began, 1).await;
        last.holds(u32::from(SHARDS)).await;
        let next = ground.start(name, |_| {}).await;
        last.running.drain(LONG).await;
        next.running.handle().replicas_changed();
        next.holds(u32::from(SHARDS)).await;
        last = next;
    }
    ground.until(DELIVERED, 160).await;
    let began = began(&ground).await;
    assert_eq!((began.len(), ground.count(DEAD).await), (160, 0));
    let most = most(&began, second);
    assert!(most <= 40 + 4, "{most} in a second");
    assert!(most >= 20, "{most}: it is a limit and not a standstill");
    let replicas = "SELECT count(DISTINCT replica) FROM attempts";
    assert_eq!(ground.count(replicas).await, 4);
    assert!(last.metrics.rate_limited.get() > 0);
}

#[tokio::test]
async fn what_a_long_limit_granted_is_used_up_for_the_next_owner_even_after_a_crash() {
    let hour = Duration::from_secs(3600);
    let mut receiver = Receiver::always(Reply::Status(200)).await;
    let ground = Ground::new([destination(uid(1), &receiver.url(), |spec| {
        limit(spec, 20, hour)
    })])
    .await;
    ground.record(uid(1), (0..10).map(|_| b"x".to_vec())).await;
    let first = ground.start("a", |_| {}).await;
    // A tenth goes at once.
    ground.until(DELIVERED, 2).await;
    assert_eq!(
        ground
            .count("SELECT count(*) FROM destination_state WHERE rate_granted > now() + interval '5 min'")
            .await,
        1,
        "written before it is used"
    );
    drop(first.running);
    let second = ground.start("b", |_| {}).await;
    second.holds(u32::from(SHARDS)).await;
    let waits = async {
        while second.metrics.rate_limited.get() == 0 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(LONG, waits).await.unwrap();
    receiver.next().await;
    receiver.next().await;
    assert_eq!(
        (
            receiver.rest().len(),
            ground.count(QUEUED).await,
            ground
                .count("SELECT max(attempts)::bigint FROM queue")
                .await
        ),
        (0, 8, 0)
    );
}

#[tokio::test]
async fn a_destination_that_waits_for_its_limit_holds_up_no_other() {
    let hour = Duration::from_secs(3600);
    let slow = Receiver::always(Reply::Status(200)).await;
    let mut quick = Receiver::always(Reply::Status(200)).await;
    let ground = Ground::new([
        destination(uid(1), &slow.url(), |spec| limit(spec, 1, hour)),
        destination(uid(2), &quick.url(), |_| {}),
    ])
    .await;
    let replica = ground.start("a", |options| options.concurrency = 4).await;
    replica.holds(u32::from(SHARDS)).await;
    let batch = ground.record(uid(1), (0..600).map(|_| b"x".to_vec())).await;
    replica.running.handle().recorded(batch);
    ground.until(DELIVERED, 1).await;
    let batch = ground.record(uid(2), (0..50).map(|_| b"y".to_vec())).await;
    replica.running.handle().recorded(batch);
    for _ in 0..50 {
        quick.next().await;
    }
    ground.until(DELIVERED, 51).await;
    // A limit that is raised is followed at once.
    ground.change(destination(uid(1), &slow.url(), |_| {}));
    replica.running.handle().table_changed();
    ground.until(DELIVERED, 650).await;
}
