//! Reading the queue by pages.

use crate::support::*;
use jiff::{Timestamp, ToSpan};
use store::{
    events,
    outcomes::{self, Finished},
    queue,
    testing::Database,
};
use uuid::Uuid;

#[tokio::test]
async fn pages_follow_each_other_in_the_order_of_due_times_without_gap_or_overlap() {
    let db = Database::create().await;
    let pool = &db.store.pool;
    let now = Timestamp::now();
    // Many share a due time, so that the delivery's id decides.
    let batch: Vec<_> = (0..25)
        .map(|n| {
            let mut event = event(b"x");
            event.received_at = now + (n / 5).microseconds();
            recorded(event, &[destination(1)])
        })
        .collect();
    events::record(pool, &batch).await.unwrap();
    let mut expected: Vec<(Timestamp, Uuid)> = batch
        .iter()
        .map(|recorded| {
            (
                store::time::stored(recorded.event.received_at),
                recorded.deliveries[0].id,
            )
        })
        .collect();
    expected.sort();

    let mut seen = Vec::new();
    loop {
        let after = seen.last().copied();
        assert_eq!(
            queue::next_due(pool, SHARD, destination(1), after)
                .await
                .unwrap(),
            expected.get(seen.len()).copied()
        );
        let page = queue::head(pool, SHARD, destination(1), after, 7)
            .await
            .unwrap();
        if page.is_empty() {
            break;
        }
        for (pending, event) in page {
            assert_eq!(
                (pending.event_id, pending.attempts, &pending.namespace),
                (event.id, 0, &event.namespace)
            );
            assert_eq!(pending.recorded_at, event.received_at);
            seen.push((pending.due_at, pending.delivery_id));
        }
    }
    assert_eq!(seen, expected);
}

#[tokio::test]
async fn a_page_is_bounded_in_bytes_but_never_empty_before_the_end() {
    let db = Database::create().await;
    let pool = &db.store.pool;
    let batch: Vec<_> = (0..6)
        .map(|_| recorded(event(&[7; 1000]), &[destination(1)]))
        .collect();
    events::record(pool, &batch).await.unwrap();
    for (bytes, expected) in [(0, 0), (1, 1), (1_000, 1), (2_500, 3), (1 << 20, 6)] {
        let page = queue::head_within(pool, SHARD, destination(1), None, 100, bytes)
            .await
            .unwrap();
        assert_eq!(page.len(), expected, "{bytes}");
    }
}

#[tokio::test]
async fn the_destinations_of_a_shard_are_those_with_something_queued() {
    let db = Database::create().await;
    let pool = &db.store.pool;
    assert!(queue::destinations(pool, SHARD).await.unwrap().is_empty());
    let mut other = recorded(event(b"x"), &[destination(9)]);
    other.deliveries[0].shard = SHARD + 1;
    let batch: Vec<_> = (0..20)
        .map(|n| recorded(event(b"x"), &[destination(n % 3)]))
        .chain([other])
        .collect();
    events::record(pool, &batch).await.unwrap();
    assert_eq!(
        queue::destinations(pool, SHARD).await.unwrap(),
        [destination(0), destination(1), destination(2)]
    );
    assert_eq!(
        queue::destinations(pool, SHARD + 1).await.unwrap(),
        [destination(9)]
    );
}

#[tokio::test]
async fn depth_counts_a_short_queue_by_state() {
    let db = Database::create().await;
    let pool = &db.store.pool;
    assert_eq!(
        queue::depth(pool).await.unwrap(),
        queue::Depth {
            exact: true,
            ..queue::Depth::default()
        }
    );
    let batch: Vec<_> = (0..3)
        .map(|_| recorded(event(b"x"), &[destination(1)]))
        .collect();
    events::record(pool, &batch).await.unwrap();
    let (_, held) = own(pool, "a").await;
    let first = queued(pool, destination(1)).await.remove(0);
    outcomes::write(
        pool,
        &[outcome(
            &first,
            Finished::RetryAt(Timestamp::now() + 1.hour()),
        )],
        &held,
    )
    .await
    .unwrap();
    let depth = queue::depth(pool).await.unwrap();
    assert_eq!((depth.pending, depth.retrying, depth.exact), (2, 1, true));
    assert_eq!(depth.oldest_retrying, Some(first.recorded_at));
}

#[tokio::test]
async fn depth_estimates_a_long_queue_and_stays_cheap() {
    let db = Database::create().await;
    let pool = &db.store.pool;
    execute(
        pool,
        "INSERT INTO queue SELECT 1, gen_random_uuid(), now() - n * interval '1 s', gen_random_uuid(), gen_random_uuid(), gen_random_uuid(), 'n',
         (n % 4 = 0)::int, now() - n * interval '1 s' FROM generate_series(1, 60000) n;
         DO $$ BEGIN PERFORM pg_stat_force_next_flush(); EXCEPTION WHEN undefined_function THEN NULL; END $$",
    )
    .await;
    // The session's own count is flushed before, or it would be added to what ANALYZE finds.
    execute(pool, "ANALYZE queue").await;
    let depth = queue::depth(pool).await.unwrap();
    assert!(!depth.exact);
    assert!(
        (55_000..=65_000).contains(&(depth.pending + depth.retrying)),
        "{depth:?}"
    );
    assert!(depth.pending > 2 * depth.retrying, "{depth:?}");
    assert!(depth.oldest_pending.is_some() && depth.oldest_retrying.is_some());
}

#[tokio::test]
async fn a_page_from_the_beginning_shows_all_but_what_is_known() {
    let db = Database::create().await;
    let pool = &db.store.pool;
    let now = store::time::stored(Timestamp::now());
    let delivery = |seconds: i64| {
        let mut event = event(b"x");
        event.received_at = now + seconds.seconds();
        recorded(event, &[destination(1), destination(2)])
    };
    let first: Vec<_> = (0..10).map(delivery).collect();
    events::record(pool, &first).await.unwrap();
    let ids: Vec<Uuid> = first.iter().map(|r| r.deliveries[0].id).collect();
    let page = |known: Vec<Uuid>, limit| async move {
        let page = queue::head_but(pool, SHARD, destination(1), &known, limit)
            .await
            .unwrap();
        let ids = page.into_iter().map(|(pending, event)| {
            assert_eq!(pending.event_id, event.id);
            pending.delivery_id
        });
        ids.collect::<Vec<Uuid>>()
    };
    assert_eq!(page(vec![], 4).await, ids[..4]);
    let known = vec![ids[0], ids[2], ids[3], fresh_id()];
    assert_eq!(page(known, 4).await, [ids[1], ids[4], ids[5], ids[6]]);
    // By another replica, whose clock is behind: it comes first although it was committed last.
    let late = delivery(-5);
    events::record(pool, std::slice::from_ref(&late))
        .await
        .unwrap();
    assert_eq!(page(ids.clone(), 4).await, [late.deliveries[0].id]);
    let mut known = ids;
    known.push(late.deliveries[0].id);
    assert!(page(known, 4).await.is_empty());
}

#[tokio::test]
async fn a_retry_in_its_place_stays_where_it_was_and_says_when_it_may_go() {
    let db = Database::create().await;
    let pool = &db.store.pool;
    let (_, held) = own(pool, "a").await;
    let batch: Vec<_> = (0..3)
        .map(|_| recorded(event(b"x"), &[destination(1)]))
        .collect();
    events::record(pool, &batch).await.unwrap();
    let before = queued(pool, destination(1)).await;
    let retry_at = store::time::stored(Timestamp::now() + 1.hour());
    let outcome = outcome(&before[0], Finished::RetryInPlaceAt(retry_at));
    outcomes::write(pool, &[outcome], &held).await.unwrap();
    let after = queue::head_but(pool, SHARD, destination(1), &[], 10)
        .await
        .unwrap();
    let first = &after[0].0;
    assert_eq!(
        (
            first.delivery_id,
            first.due_at,
            first.attempts,
            first.retry_at
        ),
        (before[0].delivery_id, before[0].due_at, 1, Some(retry_at))
    );
    assert!(
        after[1..]
            .iter()
            .all(|(pending, _)| pending.retry_at.is_none())
    );
}

#[tokio::test]
async fn where_there_is_an_order_it_is_that_of_the_commits_whatever_replicas_clocks_say() {
    let db = Database::create().await;
    let pool = &db.store.pool;
    let now = Timestamp::now();
    let mut expected = Vec::new();
    // Each commit by a replica whose clock is further behind.
    for commit in 0..10 {
        let batch: Vec<_> = (0..5)
            .map(|n| {
                let mut event = event(b"x");
                event.received_at = now - (commit * 10 + n).minutes();
                let mut recorded = recorded(event, &[destination(1), destination(2)]);
                recorded.deliveries[0].ordered = true;
                recorded
            })
            .collect();
        events::record(pool, &batch).await.unwrap();
        expected.extend(batch.iter().map(|recorded| recorded.deliveries[0].id));
    }
    let queue = queued(pool, destination(1)).await;
    let ids: Vec<Uuid> = queue.iter().map(|pending| pending.delivery_id).collect();
    assert_eq!(ids, expected);
    assert!(
        queue
            .iter()
            .all(|p| p.due_at == p.recorded_at && p.due_at > now - 1.minute())
    );
    // Others go by the time of their receipt, which the replica that took them knows.
    let others = queued(pool, destination(2)).await;
    assert_eq!(others[0].due_at, store::time::stored(now - 94.minutes()));
}
