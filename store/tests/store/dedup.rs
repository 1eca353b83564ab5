//! A second copy of an event is recognised in the commit that records it.

use crate::support::*;
use std::time::Duration;
use store::{
    Pool, dedup,
    events::{self, Kept, Recorded, Verification},
    queue,
    testing::Database,
};
use uuid::Uuid;

const LONG: Duration = Duration::from_secs(3600);

fn copy(key: u128, window: Duration) -> Recorded {
    Recorded {
        dedup: Some(dedup::Key {
            key: Uuid::from_u128(key),
            window,
        }),
        ..recorded(event(b"x"), &[destination(1)])
    }
}

fn id(recorded: &Recorded) -> Uuid {
    recorded.event.id
}

/// The events as the table has them: the id and what it is a duplicate of.
async fn kept(pool: &Pool) -> Vec<(Uuid, Option<Uuid>)> {
    sqlx::query_as("SELECT id, duplicate_of FROM events ORDER BY id")
        .fetch_all(pool.raw())
        .await
        .unwrap()
}

async fn queued(pool: &Pool) -> Vec<Uuid> {
    let head = queue::head(pool, SHARD, destination(1), None, 100).await;
    head.unwrap().iter().map(|(_, event)| event.id).collect()
}

async fn let_expire(pool: &Pool, key: u128) {
    sqlx::query("UPDATE dedup SET expires_at = now() - interval '1 s' WHERE key = $1")
        .bind(Uuid::from_u128(key))
        .execute(pool.raw())
        .await
        .unwrap();
}

#[tokio::test]
async fn the_first_of_a_batch_is_the_first_and_later_batches_find_it() {
    let db = Database::create().await;
    let pool = &db.store.pool;
    let batch = [copy(2, LONG), copy(1, LONG), copy(2, LONG), copy(1, LONG)];
    let (first, second) = (id(&batch[0]), id(&batch[1]));
    assert_eq!(
        events::record(pool, &batch).await.unwrap(),
        [
            Kept::New,
            Kept::New,
            Kept::Duplicate(first),
            Kept::Duplicate(second)
        ]
    );
    let plain = recorded(event(b"x"), &[destination(1)]);
    let later = [copy(1, LONG), plain.clone(), copy(3, LONG)];
    assert_eq!(
        events::record(pool, &later).await.unwrap(),
        [Kept::Duplicate(second), Kept::New, Kept::New]
    );
    assert_eq!(kept(pool).await.len(), 7, "duplicates are kept, too");
    let duplicates = kept(pool).await.into_iter().filter_map(|(_, of)| of);
    assert_eq!(duplicates.collect::<Vec<_>>(), [first, second, second]);
    let mut goes = vec![first, second, id(&plain), id(&later[2])];
    goes.sort();
    let mut queued = queued(pool).await;
    queued.sort();
    assert_eq!(queued, goes, "duplicates go nowhere");
}

#[tokio::test]
async fn a_commit_whose_answer_was_lost_is_made_again_and_is_no_copy_of_itself() {
    let db = Database::create().await;
    let pool = &db.store.pool;
    let batch = [copy(1, LONG), copy(1, LONG)];
    for _ in 0..3 {
        assert_eq!(
            events::record(pool, &batch).await.unwrap(),
            [Kept::New, Kept::Duplicate(id(&batch[0]))]
        );
    }
    assert_eq!(kept(pool).await.len(), 2);
    assert_eq!(queued(pool).await, [id(&batch[0])]);
}

/// By a sequence, which counts on when a transaction fails.
async fn count_tries(pool: &Pool) {
    execute(
        pool,
        "CREATE SEQUENCE tries;
         CREATE FUNCTION count_try() RETURNS trigger LANGUAGE plpgsql AS
            $$ BEGIN PERFORM nextval('tries'); RETURN NULL; END $$;
         CREATE TRIGGER count_try BEFORE INSERT ON dedup FOR EACH STATEMENT EXECUTE FUNCTION count_try()",
    )
    .await;
}

async fn tries(pool: &Pool) -> i64 {
    sqlx::query_scalar("SELECT last_value FROM tries")
        .fetch_one(pool.raw())
        .await
        .unwrap()
}

#[tokio::test]
async fn whoever_has_met_a_key_whose_window_is_over_looks_first_too() {
    let db = Database::create().await;
    let pool = &db.store.pool;
    events::record(pool, &[copy(1, LONG)]).await.unwrap();
    count_tries(pool).await;
    let mut recorder = events::Recorder::new(pool.clone());
    for _ in 0..3 {
        let_expire(pool, 1).await;
        let kept = recorder.record(&[copy(1, LONG)]).await.unwrap();
        assert_eq!(kept, [Kept::New]);
    }
    assert_eq!(tries(pool).await, 4);
}

#[tokio::test]
async fn whoever_has_met_a_copy_looks_for_the_next_and_says_the_same() {
    let db = Database::create().await;
    let pool = &db.store.pool;
    let first = copy(1, LONG);
    let mut recorder = events::Recorder::new(pool.clone());
    count_tries(pool).await;
    let batches = [
        vec![copy(1, LONG), copy(2, LONG)],
        vec![copy(3, LONG), copy(1, LONG)],
        vec![copy(4, LONG), copy(5, LONG)],
    ];
    let duplicate = Kept::Duplicate(id(&first));
    let said = [
        [duplicate.clone(), Kept::New],
        [Kept::New, duplicate],
        [Kept::New, Kept::New],
    ];
    assert_eq!(
        recorder.record(std::slice::from_ref(&first)).await.unwrap(),
        [Kept::New]
    );
    for (batch, said) in batches.iter().zip(said) {
        assert_eq!(recorder.record(batch).await.unwrap(), said);
    }
    assert_eq!(kept(pool).await.len(), 7);
    assert_eq!(queued(pool).await.len(), 5);
    assert_eq!(
        tries(pool).await,
        5,
        "only the first copy was met unprepared"
    );
}

#[tokio::test]
async fn of_many_replicas_that_record_a_key_at_once_one_is_first() {
    let db = Database::create().await;
    let pool = &db.store.pool;
    for round in 0..20 {
        // Every batch has the keys in another order, which would be a deadlock if they were taken as they come.
        let batches: Vec<Vec<Recorded>> = (0..6)
            .map(|n| {
                (0..4)
                    .map(|k| copy(round * 10 + (k + n) % 4, LONG))
                    .collect()
            })
            .collect();
        let recording = batches.iter().map(|batch| events::record(pool, batch));
        let answers = futures::future::join_all(recording).await;
        for key in 0..4 {
            let mut firsts = Vec::new();
            let mut pointed = Vec::new();
            for (batch, answer) in batches.iter().zip(&answers) {
                for (recorded, of) in batch.iter().zip(answer.as_ref().unwrap()) {
                    if recorded.dedup.unwrap().key != Uuid::from_u128(round * 10 + key) {
                        continue;
                    }
                    match of {
                        Kept::New => firsts.push(id(recorded)),
                        Kept::Duplicate(of) => pointed.push(*of),
                        other => panic!("{other:?}"),
                    }
                }
            }
            assert_eq!((firsts.len(), pointed.len()), (1, 5), "key {key}");
            assert!(pointed.iter().all(|of| *of == firsts[0]));
        }
    }
}

#[tokio::test]
async fn a_recording_that_fails_remembers_nothing() {
    let db = Database::create().await;
    let pool = &db.store.pool;
    let mut broken = copy(1, LONG);
    let event = std::sync::Arc::make_mut(&mut broken.event);
    event.method = "no\0text".to_owned();
    events::record(pool, &[broken]).await.unwrap_err();
    assert_eq!(
        events::record(pool, &[copy(1, LONG)]).await.unwrap(),
        [Kept::New]
    );
}

#[tokio::test]
async fn after_its_window_a_key_is_another_event_s() {
    let db = Database::create().await;
    let pool = &db.store.pool;
    let (first, second, third) = (copy(1, LONG), copy(1, LONG), copy(1, LONG));
    events::record(pool, &[first]).await.unwrap();
    let_expire(pool, 1).await;
    assert_eq!(
        events::record(pool, std::slice::from_ref(&second))
            .await
            .unwrap(),
        [Kept::New]
    );
    let again = events::record(pool, &[third]).await.unwrap();
    assert_eq!(
        again,
        [Kept::Duplicate(id(&second))],
        "its window begins anew"
    );
}

#[tokio::test]
async fn what_has_expired_is_swept_in_bounded_steps_and_nothing_else() {
    let db = Database::create().await;
    let pool = &db.store.pool;
    assert_eq!(dedup::next_expiry(pool).await.unwrap(), None);
    let batch: Vec<_> = (0..10).map(|key| copy(key, LONG)).collect();
    events::record(pool, &batch).await.unwrap();
    assert_eq!(dedup::expire(pool, 100).await.unwrap(), 0);
    for key in 0..7 {
        let_expire(pool, key).await;
    }
    assert_eq!(dedup::expire(pool, 5).await.unwrap(), 5);
    assert_eq!(dedup::expire(pool, 5).await.unwrap(), 2);
    assert_eq!(dedup::expire(pool, 5).await.unwrap(), 0);
    let next = dedup::next_expiry(pool).await.unwrap().unwrap();
    assert!(next > jiff::Timestamp::now());
    let again = events::record(pool, &[copy(9, LONG)]).await.unwrap();
    assert_eq!(again, [Kept::Duplicate(id(&batch[9]))]);
}

#[tokio::test]
async fn what_the_checks_found_is_kept_with_the_event() {
    let db = Database::create().await;
    let pool = &db.store.pool;
    let batch = [
        Verification::None,
        Verification::Verified,
        Verification::SchemaInvalid,
    ]
    .map(|verification| Recorded {
        verification,
        ..recorded(event(b"x"), &[])
    });
    events::record(pool, &batch).await.unwrap();
    for recorded in &batch {
        let status: Option<String> =
            sqlx::query_scalar("SELECT verification_status FROM events WHERE id = $1")
                .bind(id(recorded))
                .fetch_one(pool.raw())
                .await
                .unwrap();
        assert_eq!(status.as_deref(), recorded.verification.as_str());
    }
}
