//! Strict orders, with owners that come and go.

use super::*;
use routing::delivery::{BlockedHead, Key, Order};

fn order(spec: &mut DestinationSpec, key: Option<&str>, blocked_head: BlockedHead) {
    spec.order = Some(Order {
        key: key.map(|path| Key::parse(path).unwrap()),
        blocked_head,
    });
}

/// The `n`-th event of key `k`.
fn body(k: &str, n: usize) -> Vec<u8> {
    format!(r#"{{"k": "{k}", "n": {n}}}"#).into_bytes()
}

/// Records these one commit each, in turn by replicas whose clocks are up to a second ahead or behind.
async fn record_anywhere(ground: &Ground, to: Uuid, bodies: Vec<Vec<u8>>) -> Vec<Recorded> {
    let mut batch = Vec::new();
    for body in bodies {
        let mut one = recorded(to, body);
        let mut event = (*one.event).clone();
        let off = rand::random_range(-1000_i64..=1000);
        event.received_at += jiff::SignedDuration::from_millis(off);
        one.event = Arc::new(event);
        one.deliveries[0].ordered = true;
        events::record(&ground.store.pool, std::slice::from_ref(&one))
            .await
            .unwrap();
        batch.push(one);
    }
    batch
}

/// Key and number of a request.
fn read(request: &Received) -> (String, usize) {
    let body: serde_json::Value = serde_json::from_slice(&request.body).unwrap();
    (
        body["k"].as_str().unwrap().to_owned(),
        body["n"].as_u64().unwrap() as usize,
    )
}

/// Fails event `n` of key `k` until its attempt `last`.
fn failing(k: &'static str, n: usize, last: u32) -> impl Fn(&Received) -> Reply {
    move |request| {
        let attempt: u32 = request
            .header("x-hookstream-delivery-attempt")
            .parse()
            .unwrap();
        let (key, number) = read(request);
        let fails = key == k && number == n && attempt < last;
        Reply::Status(if fails { 503 } else { 200 })
    }
}

#[tokio::test]
async fn the_next_goes_only_after_the_one_before_has_arrived() {
    let mut receiver = Receiver::start(failing("a", 3, 4)).await;
    let ground = Ground::new([destination(uid(1), &receiver.url(), |spec| {
        order(spec, None, BlockedHead::Wait)
    })])
    .await;
    let replica = ground.start("a", |_| {}).await;
    replica.holds(u32::from(SHARDS)).await;
    let batch = ground.record(uid(1), (0..700).map(|n| body("a", n))).await;
    replica.running.handle().recorded(batch);
    ground.until(DELIVERED, 700).await;
    let seen: Vec<usize> = receiver.rest().iter().map(|r| read(r).1).collect();
    let expected: Vec<usize> = (0..3).chain([3, 3, 3]).chain(3..700).collect();
    assert_eq!(seen, expected);
    assert_eq!(replica.metrics.order_blocked.get(), 0);
}

#[tokio::test]
async fn one_that_is_given_up_lets_the_next_go() {
    for (blocked_head, attempts, reason) in [
        (BlockedHead::Wait, 3, "retries_spent"),
        (BlockedHead::DeadLetter, 1, "head_blocked"),
    ] {
        let mut receiver = Receiver::start(failing("a", 2, u32::MAX)).await;
        let ground = Ground::new([destination(uid(1), &receiver.url(), |spec| {
            order(spec, None, blocked_head);
            spec.retry.max_retries = 2;
        })])
        .await;
        let _replica = ground.start("a", |_| {}).await;
        ground.record(uid(1), (0..6).map(|n| body("a", n))).await;
        ground.until(DELIVERED, 5).await;
        let seen: Vec<usize> = receiver.rest().iter().map(|r| read(r).1).collect();
        let failed = std::iter::repeat_n(2, attempts);
        let expected: Vec<usize> = (0..2).chain(failed).chain(3..6).collect();
        assert_eq!(seen, expected, "{reason}");
        let found: String =
            sqlx::query_scalar("SELECT reason FROM deliveries WHERE state = 'dead_letter'")
                .fetch_one(ground.store.pool.raw())
                .await
                .unwrap();
        assert_eq!(found, reason);
    }
}

#[tokio::test]
async fn a_key_that_waits_holds_up_no_other() {
    let mut receiver = Receiver::start(failing("a", 0, u32::MAX)).await;
    let ground = Ground::new([destination(uid(1), &receiver.url(), |spec| {
        order(spec, Some("body.k"), BlockedHead::Wait);
        spec.retry.intervals_ms = vec![3_600_000];
    })])
    .await;
    let replica = ground.start("a", |_| {}).await;
    replica.holds(u32::from(SHARDS)).await;
    // More behind the first than memory holds of anything.
    let bodies = (0..900).flat_map(|n| [body("a", n), body("b", n)]);
    let batch = ground.record(uid(1), bodies).await;
    replica.running.handle().recorded(batch);
    ground.until(DELIVERED, 900).await;
    let mut seen: Vec<(String, usize)> = receiver.rest().iter().map(read).collect();
    seen.retain(|(key, _)| key == "b");
    assert!(seen.into_iter().map(|(_, n)| n).eq(0..900));
    assert_eq!(
        (
            ground.count(ATTEMPTS).await,
            replica.metrics.order_blocked.get()
        ),
        (901, 1)
    );
}

#[tokio::test]
async fn a_head_that_waits_for_its_retry_holds_up_the_next_owner_too() {
    let mut receiver = Receiver::start(failing("a", 0, 2)).await;
    let ground = Ground::new([destination(uid(1), &receiver.url(), |spec| {
        order(spec, Some("body.k"), BlockedHead::Wait);
        spec.retry.intervals_ms = vec![3_000];
    })])
    .await;
    let mut first = ground.start("a", |_| {}).await;
    first.holds(u32::from(SHARDS)).await;
    let batch = ground.record(uid(1), (0..3).map(|n| body("a", n))).await;
    first.running.handle().recorded(batch);
    let failed = first.report().await;
    let Step::RetryAt(retry_at) = failed.step else {
        panic!("{failed:?}")
    };
    first.running.drain(LONG).await;
    receiver.rest();
    let mut second = ground.start("b", |_| {}).await;
    second.holds(u32::from(SHARDS)).await;
    // Another key shows that the queue was read.
    ground.record(uid(1), [body("b", 0)]).await;
    assert_eq!(read(&receiver.next().await), ("b".to_owned(), 0));
    second.report().await;
    for n in 0..3 {
        assert_eq!(read(&receiver.next().await), ("a".to_owned(), n));
    }
    assert!(now() >= retry_at);
    ground.until(DELIVERED, 4).await;
}

/// Deliveries are recorded, fail, and are retried while owners are drained, killed and joined by others. Whatever was
/// sent twice, what a receiver saw for the first time it saw in order, and all of it.
#[tokio::test]
async fn owners_that_come_and_go_deliver_each_key_in_order() {
    const KEYS: [&str; 3] = ["a", "b", "c"];
    const ROUNDS: usize = 6;
    const EACH: usize = 60;
    // One in five attempts fails, by what is in it.
    let mut receiver = Receiver::start(|request| {
        let (key, n) = read(request);
        let attempt: usize = request
            .header("x-hookstream-delivery-attempt")
            .parse()
            .unwrap();
        let sum = n * 7 + attempt * 3 + key.len() + usize::from(key.as_bytes()[0]);
        let fails = sum.is_multiple_of(5);
        Reply::Status(if fails { 500 } else { 200 })
    })
    .await;
    let ground = Ground::new([
        destination(uid(1), &receiver.url(), |spec| {
            order(spec, Some("body.k"), BlockedHead::Wait)
        }),
        // So that each of two replicas has something.
        destination(uid(2), &receiver.url(), |spec| {
            order(spec, None, BlockedHead::Wait)
        }),
    ])
    .await;
    let mut owners = vec![ground.start("owner-0", |_| {}).await];
    owners[0].holds(u32::from(SHARDS)).await;
    for round in 0..ROUNDS {
        for n in round * EACH..(round + 1) * EACH {
            let bodies = KEYS.iter().map(|key| body(key, n));
            let batch = record_anywhere(&ground, uid(1), bodies.collect()).await;
            let owner = owners.last().unwrap().running.handle();
            owner.recorded(batch);
            let batch = record_anywhere(&ground, uid(2), vec![body("all", n)]).await;
            owner.recorded(batch);
        }
        let next = ground
            .start(&format!("owner-{}", round + 1), |options| {
                options.lease_ttl = Duration::from_millis(900)
            })
            .await;
        owners.push(next);
        let mut first = owners.remove(0);
        // In the middle of things: attempts are in flight and outcomes unwritten.
        first.report().await;
        if round % 2 == 0 {
            first.running.drain(LONG).await;
        } else {
            drop(first.running);
        }
        owners[0].running.handle().replicas_changed();
        owners[0].holds(u32::from(SHARDS)).await;
    }
    let all = ROUNDS * EACH;
    ground.until(QUEUED, 0).await;
    assert_eq!(ground.count(DELIVERED).await, (all * 4) as i64);
    let requests = receiver.rest();
    for key in KEYS.into_iter().chain(["all"]) {
        let mut seen = HashSet::new();
        let first_seen: Vec<usize> = requests
            .iter()
            .map(read)
            .filter(|(other, n)| other == key && seen.insert(*n))
            .map(|(_, n)| n)
            .collect();
        assert!(
            first_seen.iter().copied().eq(0..all),
            "{key}: {first_seen:?}"
        );
    }
    let replicas = ground
        .count("SELECT count(DISTINCT replica) FROM attempts")
        .await;
    assert!(replicas as usize >= ROUNDS, "{replicas}");
}
