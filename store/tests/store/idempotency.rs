//! A request that is made again gets its first answer, and does nothing.

use crate::support::*;
use bytes::Bytes;
use std::sync::Arc;
use store::{
    Pool,
    events::{self, Kept, Recorded},
    idempotency::{self, Claim, Done},
    testing::Database,
};
use uuid::Uuid;

/// A request with this key that says this.
fn claim(key: u128, says: u128) -> Arc<Claim> {
    Arc::new(Claim {
        key: Uuid::from_u128(key),
        token: fresh_id(),
        fingerprint: Uuid::from_u128(says),
        answer: Bytes::from(format!("{key} {says}")),
    })
}

fn of(claim: &Arc<Claim>) -> Recorded {
    Recorded {
        claim: Some(claim.clone()),
        ..recorded(event(b"x"), &[destination(1)])
    }
}

async fn count(pool: &Pool, table: &str) -> i64 {
    let sql = format!("SELECT count(*) FROM {table}");
    sqlx::query_scalar(sqlx::AssertSqlSafe(sql))
        .fetch_one(pool.raw())
        .await
        .unwrap()
}

async fn let_expire(pool: &Pool) {
    execute(
        pool,
        "UPDATE idempotency SET expires_at = now() - interval '1 s'",
    )
    .await;
}

#[tokio::test]
async fn the_first_request_of_a_key_records_and_the_others_get_its_answer() {
    let db = Database::create().await;
    let pool = &db.store.pool;
    let (first, again, other) = (claim(1, 10), claim(1, 10), claim(1, 11));
    let free = claim(2, 10);
    let plain = recorded(event(b"x"), &[destination(1)]);
    // All in one batch, the first with two events; and once more in a batch of its own.
    let batch = [
        of(&first),
        of(&first),
        of(&again),
        of(&other),
        of(&free),
        plain,
    ];
    let answer = Kept::Answered("1 10".into());
    assert_eq!(
        events::record(pool, &batch).await.unwrap(),
        [
            Kept::New,
            Kept::New,
            answer.clone(),
            Kept::Mismatch,
            Kept::New,
            Kept::New
        ]
    );
    let later = [of(&claim(2, 10)), of(&claim(1, 12)), of(&claim(1, 10))];
    assert_eq!(
        events::record(pool, &later).await.unwrap(),
        [Kept::Answered("2 10".into()), Kept::Mismatch, answer]
    );
    assert_eq!(count(pool, "events").await, 4);
    assert_eq!(count(pool, "queue").await, 4);
    assert_eq!(
        idempotency::find(pool, &claim(1, 10)).await.unwrap(),
        Some(Done::Before("1 10".into()))
    );
    assert_eq!(
        idempotency::find(pool, &claim(1, 9)).await.unwrap(),
        Some(Done::Mismatch)
    );
    assert_eq!(idempotency::find(pool, &claim(3, 9)).await.unwrap(), None);
}

#[tokio::test]
async fn a_commit_whose_answer_was_lost_is_made_again_and_knows_its_own_claim() {
    let db = Database::create().await;
    let pool = &db.store.pool;
    let batch = [of(&claim(1, 1))];
    for _ in 0..2 {
        assert_eq!(events::record(pool, &batch).await.unwrap(), [Kept::New]);
    }
    assert_eq!(count(pool, "events").await, 1);
    assert_eq!(count(pool, "queue").await, 1);
}

#[tokio::test]
async fn of_many_that_are_made_at_once_one_records() {
    let db = Database::create().await;
    let pool = &db.store.pool;
    for round in 0..10 {
        // Each batch has the keys in another order, which would be a deadlock if they were taken as they come.
        let batches: Vec<Vec<Recorded>> = (0..6)
            .map(|n| {
                (0..4)
                    .map(|k| of(&claim(round * 10 + (k + n) % 4, 1)))
                    .collect()
            })
            .collect();
        let recording = batches.iter().map(|batch| events::record(pool, batch));
        let kept = futures::future::join_all(recording).await;
        let new = kept.iter().flat_map(|kept| kept.as_ref().unwrap());
        assert_eq!(new.filter(|kept| **kept == Kept::New).count(), 4);
    }
    assert_eq!(count(pool, "events").await, 40);
}

#[tokio::test]
async fn an_expired_key_is_taken_over_or_swept() {
    let db = Database::create().await;
    let pool = &db.store.pool;
    events::record(pool, &[of(&claim(1, 1))]).await.unwrap();
    assert_eq!(idempotency::expire(pool, 10).await.unwrap(), 0);
    let_expire(pool).await;
    assert_eq!(idempotency::find(pool, &claim(1, 1)).await.unwrap(), None);
    // Another payload, and no mismatch any more.
    assert_eq!(
        events::record(pool, &[of(&claim(1, 2))]).await.unwrap(),
        [Kept::New]
    );
    assert_eq!(
        events::record(pool, &[of(&claim(1, 2))]).await.unwrap(),
        [Kept::Answered("1 2".into())],
        "it is kept anew"
    );
    let_expire(pool).await;
    assert_eq!(idempotency::expire(pool, 10).await.unwrap(), 1);
    assert_eq!(count(pool, "idempotency").await, 0);
}
