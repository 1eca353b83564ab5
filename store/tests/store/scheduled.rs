//! Events before their time: each becomes an event once, when it is due, unless it is cancelled.

use crate::support::*;
use bytes::Bytes;
use jiff::{SignedDuration, Timestamp};
use std::{sync::Arc, time::Duration};
use store::{
    events::{self, Event, Recorded, Verification},
    idempotency::{Claim, Done},
    scheduled::{self, Scheduled},
    testing::Database,
};
use uuid::Uuid;

const TOPIC: Uuid = Uuid::from_u128(7);

fn due_in(seconds: i64, body: &[u8]) -> Scheduled {
    let now = Timestamp::now();
    let due_at = now + SignedDuration::from_secs(seconds);
    let millis = u64::try_from(due_at.as_millisecond()).unwrap();
    let id = uuid::Builder::from_unix_timestamp_millis(millis, &rand::random());
    Scheduled {
        id: id.into_uuid(),
        topic_id: TOPIC,
        namespace: "team".into(),
        due_at: store::time::stored(due_at),
        scheduled_at: store::time::stored(now),
        headers: Bytes::from_static(b"a: b\r\n"),
        body: Bytes::copy_from_slice(body),
        remote_addr: "2001:db8::1".parse().unwrap(),
        verification: match body {
            b"misfit" => Verification::SchemaInvalid,
            _ => Verification::Verified,
        },
    }
}

/// The event of a scheduled one, to one destination.
fn made(scheduled: &Scheduled) -> Recorded {
    let event = Event {
        id: scheduled.id,
        source_id: scheduled.topic_id,
        ..event(&scheduled.body)
    };
    let mut recorded = recorded(event, &[destination(1)]);
    let millis = scheduled.due_at.as_millisecond();
    let id = uuid::Builder::from_unix_timestamp_millis(millis.unsigned_abs(), &rand::random());
    recorded.deliveries[0].id = routing::ids::delivery(id.into_uuid());
    recorded
}

#[tokio::test]
async fn what_is_due_is_found_in_its_order_and_becomes_an_event_once() {
    let db = Database::create().await;
    let pool = &db.store.pool;
    assert_eq!(scheduled::next_due_in(pool).await.unwrap(), None);
    let (first, second, later) = (due_in(-2, b"1"), due_in(-1, b"misfit"), due_in(1000, b"3"));
    let all = [later.clone(), second.clone(), first.clone()];
    assert_eq!(
        scheduled::schedule(pool, None, &all).await.unwrap(),
        Done::Now
    );
    assert_eq!(
        scheduled::next_due_in(pool).await.unwrap(),
        Some(Duration::ZERO)
    );
    let due = scheduled::due(pool).await.unwrap();
    assert_eq!(due, [first.clone(), second.clone()]);

    // Two owners at once, as after a hand-over: each event is made by one of them.
    let recorded: Vec<Recorded> = due.iter().map(made).collect();
    let (one, other) = tokio::join!(
        scheduled::publish(pool, &due, &recorded),
        scheduled::publish(pool, &due, &recorded)
    );
    let (one, other) = (one.unwrap(), other.unwrap());
    assert_eq!(one.iter().chain(&other).filter(|made| **made).count(), 2);
    assert!(scheduled::due(pool).await.unwrap().is_empty());
    let kept = events::get_many(pool, &[first.id, second.id])
        .await
        .unwrap();
    assert_eq!(kept.len(), 2);
    let queued: i64 = sqlx::query_scalar("SELECT count(*) FROM queue")
        .fetch_one(pool.raw())
        .await
        .unwrap();
    assert_eq!(queued, 2);
    let next = scheduled::next_due_in(pool).await.unwrap().unwrap();
    assert!(next > Duration::from_secs(900), "{next:?}");
}

#[tokio::test]
async fn those_of_a_topic_are_listed_in_their_order_and_cancelled() {
    let db = Database::create().await;
    let pool = &db.store.pool;
    let all: Vec<Scheduled> = [30, 10, 20].map(|seconds| due_in(seconds, b"abc")).to_vec();
    scheduled::schedule(pool, None, &all).await.unwrap();
    let listed = scheduled::list(pool, TOPIC, None, 2).await.unwrap();
    let ids: Vec<Uuid> = listed.iter().map(|listed| listed.id).collect();
    assert_eq!(ids, [all[1].id, all[2].id]);
    assert_eq!((listed[0].due_at, listed[0].body_bytes), (all[1].due_at, 3));
    let rest = scheduled::list(pool, TOPIC, Some(ids[1]), 2).await.unwrap();
    assert_eq!(rest.len(), 1);
    assert!(
        scheduled::list(pool, Uuid::from_u128(8), None, 2)
            .await
            .unwrap()
            .is_empty()
    );

    assert!(
        !scheduled::cancel(pool, Uuid::from_u128(8), all[0].id)
            .await
            .unwrap()
    );
    assert!(scheduled::cancel(pool, TOPIC, all[0].id).await.unwrap());
    assert!(!scheduled::cancel(pool, TOPIC, all[0].id).await.unwrap());
    assert_eq!(scheduled::count(pool, 100).await.unwrap(), 2);
    // One that was cancelled while its owner was at it.
    let gone = scheduled::publish(pool, &all[..1], &[made(&all[0])])
        .await
        .unwrap();
    assert_eq!(gone, [false]);
    assert!(
        events::get_many(pool, &[all[0].id])
            .await
            .unwrap()
            .is_empty()
    );
}

#[tokio::test]
async fn a_claim_holds_for_what_is_scheduled_too() {
    let db = Database::create().await;
    let pool = &db.store.pool;
    let claim = |says| {
        Arc::new(Claim {
            key: Uuid::from_u128(1),
            token: fresh_id(),
            fingerprint: Uuid::from_u128(says),
            answer: Bytes::from_static(b"later"),
        })
    };
    let schedule = async |says| {
        let claim = claim(says);
        scheduled::schedule(pool, Some(&claim), &[due_in(10, b"x")])
            .await
            .unwrap()
    };
    assert_eq!(schedule(1).await, Done::Now);
    assert_eq!(schedule(1).await, Done::Before("later".into()));
    assert_eq!(schedule(2).await, Done::Mismatch);
    assert_eq!(scheduled::count(pool, 100).await.unwrap(), 1);
}

#[tokio::test]
async fn a_batch_of_due_ones_is_bounded_by_bytes_and_the_first_is_always_in_it() {
    let db = Database::create().await;
    let pool = &db.store.pool;
    let large = vec![b'x'; 9 << 20];
    let all = [due_in(-3, &large), due_in(-2, b"2"), due_in(-1, b"3")];
    scheduled::schedule(pool, None, &all).await.unwrap();
    let due = scheduled::due(pool).await.unwrap();
    assert_eq!(due.len(), 1);
    scheduled::cancel(pool, TOPIC, all[0].id).await.unwrap();
    assert_eq!(scheduled::due(pool).await.unwrap().len(), 2);
}

/// A million that are due in years: what is due now is found by an index, whatever else there is.
#[tokio::test]
async fn what_is_due_in_years_costs_no_look_at_it() {
    let db = Database::create().await;
    let pool = &db.store.pool;
    let fill = "INSERT INTO scheduled SELECT gen_random_uuid(), gen_random_uuid(), now() + interval '1 year' + n * interval '1 s',
                'team', now(), '', 'x', '::1' FROM generate_series(1, 100000) n";
    execute(pool, fill).await;
    execute(pool, "ANALYZE scheduled").await;
    scheduled::schedule(pool, None, &[due_in(-1, b"x")])
        .await
        .unwrap();
    let (_, sql) = store::testing::HOT_STATEMENTS
        .iter()
        .find(|(name, _)| *name == "find_due")
        .unwrap();
    let mut connection = pool.raw().acquire().await.unwrap();
    let prepare = format!("PREPARE due AS {sql}");
    sqlx::raw_sql(sqlx::AssertSqlSafe(prepare))
        .execute(&mut *connection)
        .await
        .unwrap();
    let plan: Vec<String> = sqlx::query_scalar(
        "EXPLAIN (ANALYZE, BUFFERS, COSTS OFF, TIMING OFF) EXECUTE due(256, 8388608)",
    )
    .persistent(false)
    .fetch_all(&mut *connection)
    .await
    .unwrap();
    let plan = plan.join("\n");
    let hit = |line: &str| -> Option<u32> {
        let at = line.trim().strip_prefix("Buffers: shared hit=")?;
        at.split_whitespace().next()?.parse().ok()
    };
    let buffers = plan.lines().find_map(hit).unwrap_or(u32::MAX);
    assert!(buffers < 50, "{plan}");
}
