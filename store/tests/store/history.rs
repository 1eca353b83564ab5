//! Recording events, and the day partitions that hold them.

use crate::support::*;
use jiff::{Timestamp, ToSpan, civil::Date, tz::TimeZone};
use store::{Error, events, partitions, queue, testing::Database};
use uuid::Uuid;

fn today() -> Date {
    Timestamp::now().to_zoned(TimeZone::UTC).date()
}

fn id_of(day: Date) -> Uuid {
    let ms = day
        .at(12, 0, 0, 0)
        .to_zoned(TimeZone::UTC)
        .unwrap()
        .timestamp()
        .as_millisecond();
    Uuid::from_u128(u128::from(ms.unsigned_abs()) << 80 | 0x7 << 76 | rand::random::<u64>() as u128)
}

#[tokio::test]
async fn an_event_comes_back_byte_for_byte() {
    let db = Database::create().await;
    let pool = &db.store.pool;
    let all: Vec<u8> = (0..=255).collect();
    let bodies: [&[u8]; 4] = [b"", b"x", &all, &vec![0; 3 << 20]];
    let batch: Vec<_> = bodies
        .iter()
        .map(|body| recorded(event(body), &[destination(1)]))
        .collect();
    events::record(pool, &batch).await.unwrap();
    let ids: Vec<Uuid> = batch.iter().map(|recorded| recorded.event.id).collect();
    let mut found = events::get_many(pool, &ids).await.unwrap();
    found.sort_by_key(|event| event.id);
    assert_eq!(found.len(), batch.len());
    for (found, recorded) in found.iter().zip(&batch) {
        let mut expected = (*recorded.event).clone();
        expected.received_at = store::time::stored(expected.received_at);
        assert!(**found == expected, "{found:?}");
    }
    assert!(
        events::get_many(pool, &[Uuid::nil()])
            .await
            .unwrap()
            .is_empty()
    );
}

#[tokio::test]
async fn an_event_that_matched_nothing_is_recorded_too() {
    let db = Database::create().await;
    let batch = [recorded(event(b"x"), &[])];
    events::record(&db.store.pool, &batch).await.unwrap();
    events::record(&db.store.pool, &[]).await.unwrap();
    assert_eq!(
        number(&db.store.pool, "SELECT count(*) FROM events").await,
        1
    );
    assert_eq!(
        number(&db.store.pool, "SELECT count(*) FROM queue").await,
        0
    );
}

#[tokio::test]
async fn recording_a_batch_again_adds_nothing_and_brings_back_no_finished_delivery() {
    let db = Database::create().await;
    let pool = &db.store.pool;
    let first = recorded(event(b"1"), &[destination(1), destination(2)]);
    events::record(pool, std::slice::from_ref(&first))
        .await
        .unwrap();
    let (_, held) = own(pool, "a").await;
    let pending = queued(pool, destination(1)).await.remove(0);
    store::outcomes::write(
        pool,
        &[outcome(&pending, store::outcomes::Finished::Delivered)],
        &held,
    )
    .await
    .unwrap();

    let second = recorded(event(b"2"), &[destination(1)]);
    events::record(pool, &[first.clone(), second.clone()])
        .await
        .unwrap();
    assert_eq!(number(pool, "SELECT count(*) FROM events").await, 2);
    let left: Vec<Uuid> = queued(pool, destination(1))
        .await
        .iter()
        .map(|pending| pending.delivery_id)
        .collect();
    assert_eq!(left, [second.deliveries[0].id]);
    assert_eq!(queued(pool, destination(2)).await.len(), 1);
}

#[tokio::test]
async fn a_batch_is_recorded_whole_or_not_at_all() {
    let db = Database::create().await;
    let pool = &db.store.pool;
    let mut misplaced = event(b"2");
    misplaced.id = id_of(today().saturating_add(30.days()));
    let batch = [
        recorded(event(b"1"), &[destination(1)]),
        recorded(misplaced, &[destination(1)]),
    ];
    let error = events::record(pool, &batch).await.unwrap_err();
    assert!(matches!(error, Error::MissingPartition(_)), "{error:?}");
    assert_eq!(
        number(pool, "SELECT count(*) FROM events").await
            + number(pool, "SELECT count(*) FROM queue").await,
        0
    );
}

#[tokio::test]
async fn a_missing_day_is_told_apart_and_making_it_helps() {
    let db = Database::create().await;
    let pool = &db.store.pool;
    let name = format!("DROP TABLE events_{}", today().strftime("%Y%m%d"));
    sqlx::raw_sql(sqlx::AssertSqlSafe(name))
        .execute(pool.raw())
        .await
        .unwrap();
    let batch = [recorded(event(b"1"), &[destination(1)])];
    assert!(matches!(
        events::record(pool, &batch).await,
        Err(Error::MissingPartition(_))
    ));
    assert_eq!(partitions::ensure(pool, Timestamp::now()).await.unwrap(), 1);
    events::record(pool, &batch).await.unwrap();
}

#[tokio::test]
async fn days_are_made_from_yesterday_to_three_days_ahead_and_only_once() {
    let db = Database::create().await;
    let pool = &db.store.pool;
    let later = Timestamp::now() + 96.hours();
    // The template has -1..=3; four days later -1 and 0 of the new window are its last and a new one.
    let made = partitions::ensure_around(pool, later).await.unwrap();
    assert_eq!(made, 4 * 3);
    assert_eq!(partitions::ensure_around(pool, later).await.unwrap(), 0);
    let lag = partitions::lag(pool, later, today()).await.unwrap();
    assert_eq!(
        lag,
        partitions::Lag {
            overdue_days: 1,
            ahead_days: 3
        }
    );
    let lag = partitions::lag(pool, later + 48.hours(), today().saturating_sub(5.days()))
        .await
        .unwrap();
    assert_eq!(
        lag,
        partitions::Lag {
            overdue_days: 0,
            ahead_days: 1
        }
    );
}

#[tokio::test]
async fn partitions_are_made_by_several_at_once_without_quarrel() {
    let db = Database::create().await;
    let later = Timestamp::now() + 240.hours();
    let tasks: Vec<_> = (0..4)
        .map(|_| {
            let pool = db.store.pool.clone();
            tokio::spawn(async move { partitions::ensure_around(&pool, later).await.unwrap() })
        })
        .collect();
    let mut made = 0;
    for task in tasks {
        made += task.await.unwrap();
    }
    assert_eq!(made, 15);
}

#[tokio::test]
async fn retention_drops_whole_days_and_what_the_queue_still_has_of_them() {
    let db = Database::create().await;
    let pool = &db.store.pool;
    let yesterday = today().saturating_sub(1.days());
    let mut old = event(b"old");
    old.id = id_of(yesterday);
    let kept = recorded(event(b"new"), &[destination(1)]);
    events::record(pool, &[recorded(old, &[destination(1)]), kept.clone()])
        .await
        .unwrap();
    assert_eq!(queued(pool, destination(1)).await.len(), 2);

    assert_eq!(
        partitions::drop_before(pool, today(), |_| {})
            .await
            .unwrap(),
        [yesterday]
    );
    assert_eq!(
        partitions::drop_before(pool, today(), |_| {})
            .await
            .unwrap(),
        []
    );
    let left = queued(pool, destination(1)).await;
    assert_eq!(
        left.iter()
            .map(|pending| pending.event_id)
            .collect::<Vec<_>>(),
        [kept.event.id]
    );
    assert_eq!(queue::depth(pool).await.unwrap().pending, 1);
    assert_eq!(
        partitions::lag(pool, Timestamp::now(), today())
            .await
            .unwrap()
            .overdue_days,
        0
    );
}

#[tokio::test]
async fn retention_gives_up_rather_than_make_writers_wait_for_a_long_query() {
    let db = Database::create().await;
    let pool = &db.store.pool;
    let mut reader = pool.raw().begin().await.unwrap();
    sqlx::query("SELECT count(*) FROM events")
        .execute(&mut *reader)
        .await
        .unwrap();
    let error = partitions::drop_before(pool, today(), |_| {})
        .await
        .unwrap_err();
    assert!(error.is_transient(), "{error:?}");
    reader.rollback().await.unwrap();
    assert_eq!(
        partitions::drop_before(pool, today(), |_| {})
            .await
            .unwrap()
            .len(),
        1
    );
}

#[tokio::test]
async fn large_bodies_are_compressed_in_every_partition_by_lz4_where_the_server_has_it() {
    let db = Database::create().await;
    let batch = [recorded(event(&vec![b'a'; 100_000]), &[])];
    events::record(&db.store.pool, &batch).await.unwrap();
    let method: Option<String> =
        sqlx::query_scalar("SELECT pg_column_compression(body) FROM events")
            .fetch_one(db.store.pool.raw())
            .await
            .unwrap();
    let has_lz4: bool = sqlx::query_scalar(
        "SELECT 'lz4' = ANY (enumvals) FROM pg_settings WHERE name = 'default_toast_compression'",
    )
    .fetch_one(db.store.pool.raw())
    .await
    .unwrap();
    assert_eq!(
        method.as_deref(),
        Some(if has_lz4 { "lz4" } else { "pglz" })
    );
}

#[tokio::test]
async fn what_retention_takes_from_the_queue_goes_page_by_page_and_is_counted() {
    let db = Database::create().await;
    let pool = &db.store.pool;
    // Every other row is of an event that is kept; several destinations, so that pages end within one.
    execute(
        pool,
        "INSERT INTO queue SELECT n % 3, uuid_in(md5((n % 7)::text)::cstring), now(), gen_random_uuid(),
             CASE n % 2 WHEN 0 THEN '00000000-0000-7000-8000-000000000000' ELSE 'ffffffff-ffff-7000-8000-000000000000' END::uuid,
             gen_random_uuid(), 'team', 1, now()
         FROM generate_series(1, 25000) n",
    )
    .await;
    let told = std::sync::Mutex::new(Vec::new());
    let dropped = partitions::drop_before(pool, today(), |lost| told.lock().unwrap().push(lost))
        .await
        .unwrap();
    assert_eq!(dropped.len(), 1);
    let told = told.into_inner().unwrap();
    assert_eq!(told.iter().sum::<u64>(), 12_500);
    assert!(told.len() >= 3, "{told:?}");
    assert_eq!(number(pool, "SELECT count(*) FROM queue").await, 12_500);
    let lost = "SELECT count(*) FROM queue WHERE event_id < 'f0000000-0000-7000-8000-000000000000'";
    assert_eq!(number(pool, lost).await, 0);
}

#[tokio::test]
async fn a_clock_that_is_more_than_a_day_off_makes_no_days() {
    let db = Database::create().await;
    let pool = &db.store.pool;
    for hours in [-960, -25, 25, 960] {
        let error = partitions::ensure(pool, Timestamp::now() + hours.hours())
            .await
            .unwrap_err();
        assert!(matches!(error, Error::Clock { .. }), "{hours}: {error:?}");
    }
    assert_eq!(
        number(pool, "SELECT count(*) FROM pg_inherits WHERE inhparent IN ('events'::regclass, 'deliveries'::regclass, 'attempts'::regclass)").await,
        5 * 3,
        "those of the template"
    );
    for hours in [-23, 23] {
        partitions::ensure(pool, Timestamp::now() + hours.hours())
            .await
            .unwrap();
    }
}
