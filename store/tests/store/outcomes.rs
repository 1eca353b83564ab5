//! Outcomes: what they leave behind, and that a late owner leaves nothing.

use crate::support::*;
use jiff::{Timestamp, ToSpan};
use routing::retry::GaveUp;
use store::{
    Error, Held, events, lease,
    outcomes::{self, Finished},
    partitions,
    queue::Pending,
    testing::Database,
};

async fn record_some(db: &Database, count: usize) -> Vec<Pending> {
    let batch: Vec<_> = (0..count)
        .map(|_| recorded(event(b"x"), &[destination(1)]))
        .collect();
    events::record(&db.store.pool, &batch).await.unwrap();
    queued(&db.store.pool, destination(1)).await
}

#[tokio::test]
async fn each_outcome_leaves_its_attempt_and_moves_its_delivery_on() {
    let db = Database::create().await;
    let pool = &db.store.pool;
    let pending = record_some(&db, 3).await;
    let (_, held) = own(pool, "a").await;
    let later = Timestamp::now() + 1.hour();
    let mut dead = outcome(&pending[1], Finished::DeadLetter(GaveUp::Gone));
    dead.attempt.as_mut().unwrap().error = Some("bad\0answer".to_owned());
    let batch = [
        outcome(&pending[0], Finished::Delivered),
        dead,
        outcome(&pending[2], Finished::RetryAt(later)),
    ];
    let written = outcomes::write(pool, &batch, &held).await.unwrap();
    assert!(written.contains(SHARD));

    let left = queued(pool, destination(1)).await;
    assert_eq!(left.len(), 1);
    assert_eq!(
        (left[0].delivery_id, left[0].attempts, left[0].due_at),
        (pending[2].delivery_id, 1, store::time::stored(later))
    );
    assert_eq!(left[0].recorded_at, pending[2].recorded_at);
    let states = "SELECT string_agg(state || coalesce(':' || reason, '') || ':' || attempts, ' ' ORDER BY id) FROM deliveries";
    let states: String = sqlx::query_scalar(states)
        .fetch_one(pool.raw())
        .await
        .unwrap();
    assert_eq!(states, "delivered:1 dead_letter:gone:1");
    assert_eq!(number(pool, "SELECT count(*) FROM attempts WHERE number = 1 AND status = 200 AND connect_us = 10 AND total_us = 2147483647 AND dns_us IS NULL").await, 3);
}

#[tokio::test]
async fn writing_a_batch_again_changes_nothing() {
    let db = Database::create().await;
    let pool = &db.store.pool;
    let pending = record_some(&db, 2).await;
    let (_, held) = own(pool, "a").await;
    let batch = [
        outcome(&pending[0], Finished::Delivered),
        outcome(&pending[1], Finished::RetryAt(Timestamp::now() + 1.hour())),
    ];
    let once = outcomes::write(pool, &batch, &held).await.unwrap();
    let left = queued(pool, destination(1)).await;
    assert_eq!(outcomes::write(pool, &batch, &held).await.unwrap(), once);
    assert_eq!(queued(pool, destination(1)).await, left);
    assert_eq!(number(pool, "SELECT count(*) FROM attempts").await, 2);
    assert_eq!(number(pool, "SELECT count(*) FROM deliveries").await, 1);
}

#[tokio::test]
async fn two_attempts_of_one_delivery_may_be_in_one_batch() {
    let db = Database::create().await;
    let pool = &db.store.pool;
    let pending = record_some(&db, 1).await.remove(0);
    let (_, held) = own(pool, "a").await;
    let soon = Timestamp::now();
    let again = Pending {
        due_at: soon,
        attempts: 1,
        ..pending.clone()
    };
    let batch = [
        outcome(&pending, Finished::RetryAt(soon)),
        outcome(&again, Finished::Delivered),
    ];
    outcomes::write(pool, &batch, &held).await.unwrap();
    assert!(queued(pool, destination(1)).await.is_empty());
    assert_eq!(
        number(pool, "SELECT attempts::bigint FROM deliveries").await,
        2
    );
    assert_eq!(number(pool, "SELECT count(*) FROM attempts").await, 2);
}

#[tokio::test]
async fn a_late_owner_writes_nothing() {
    let db = Database::create().await;
    let pool = &db.store.pool;
    let pending = record_some(&db, 1).await;
    let (_, late) = own(pool, "a").await;
    expire(pool, &lease::shard_name(SHARD)).await;
    let (_, held) = own(pool, "b").await;
    let batch = [outcome(&pending[0], Finished::Delivered)];
    let made_up = Held {
        holder: "b".into(),
        epochs: late.epochs.clone(),
    };
    let stranger = Held {
        holder: "c".into(),
        epochs: held.epochs.clone(),
    };
    let nothing = Held {
        holder: "b".into(),
        epochs: [].into(),
    };
    for wrong in [late, made_up, stranger, nothing] {
        assert_eq!(
            outcomes::write(pool, &batch, &wrong).await.unwrap().0,
            [0_u16; 0],
            "{wrong:?}"
        );
    }
    assert_eq!(queued(pool, destination(1)).await, pending);
    assert_eq!(
        number(pool, "SELECT count(*) FROM attempts").await
            + number(pool, "SELECT count(*) FROM deliveries").await,
        0
    );
    assert_eq!(
        outcomes::write(pool, &batch, &held).await.unwrap().0,
        [SHARD]
    );
}

#[tokio::test]
async fn of_a_mixed_batch_only_the_shards_still_held_are_written() {
    let db = Database::create().await;
    let pool = &db.store.pool;
    let mine = recorded(event(b"x"), &[destination(1)]);
    let mut lost = recorded(event(b"x"), &[destination(2)]);
    lost.deliveries[0].shard = SHARD + 1;
    events::record(pool, &[mine, lost]).await.unwrap();
    let names = [lease::shard_name(SHARD), lease::shard_name(SHARD + 1)];
    let leases = lease::acquire_many(pool, &names, "a", TTL).await.unwrap();
    let epochs = leases
        .iter()
        .map(|lease| (lease::parse_shard(&lease.name).unwrap(), lease.epoch))
        .collect();
    let held = Held {
        holder: "a".into(),
        epochs,
    };
    expire(pool, &names[1]).await;
    lease::acquire(pool, &names[1], "b", TTL)
        .await
        .unwrap()
        .unwrap();

    let first = queued(pool, destination(1)).await.remove(0);
    let second = store::queue::head(pool, SHARD + 1, destination(2), None, 1)
        .await
        .unwrap()
        .remove(0)
        .0;
    let batch = [
        outcome(&first, Finished::Delivered),
        outcome(&second, Finished::Delivered),
    ];
    assert_eq!(
        outcomes::write(pool, &batch, &held).await.unwrap().0,
        [SHARD]
    );
    assert_eq!(number(pool, "SELECT count(*) FROM queue").await, 1);
    assert_eq!(number(pool, "SELECT count(*) FROM attempts").await, 1);
}

#[tokio::test]
async fn an_expired_lease_that_nobody_took_still_writes() {
    let db = Database::create().await;
    let pool = &db.store.pool;
    let pending = record_some(&db, 1).await;
    let (_, held) = own(pool, "a").await;
    expire(pool, &lease::shard_name(SHARD)).await;
    assert_eq!(
        outcomes::write(pool, &[outcome(&pending[0], Finished::Delivered)], &held)
            .await
            .unwrap()
            .0,
        [SHARD]
    );
}

#[tokio::test]
async fn a_takeover_waits_for_a_write_in_flight() {
    let db = Database::create().await;
    let pool = db.store.pool.clone();
    let pending = record_some(&db, 1).await;
    let (_, held) = own(&pool, "a").await;
    let name = lease::shard_name(SHARD);
    expire(&pool, &name).await;

    // The write has its lease locked, and is held up at the queue row by a transaction of ours.
    let mut blocker = pool.raw().begin().await.unwrap();
    sqlx::query("SELECT FROM queue FOR UPDATE")
        .execute(&mut *blocker)
        .await
        .unwrap();
    let (writer_pool, batch) = (pool.clone(), [outcome(&pending[0], Finished::Delivered)]);
    let writer =
        tokio::spawn(async move { outcomes::write(&writer_pool, &batch, &held).await.unwrap() });
    until_somebody_waits(&pool).await;
    let taker_pool = pool.clone();
    let taker = tokio::spawn(async move {
        lease::acquire(&taker_pool, &lease::shard_name(SHARD), "b", TTL)
            .await
            .unwrap()
    });
    let two_wait = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'";
    while number(&pool, two_wait).await < 2 {
        tokio::task::yield_now().await;
    }
    assert!(!taker.is_finished());
    blocker.rollback().await.unwrap();
    assert_eq!(writer.await.unwrap().0, [SHARD]);
    assert!(taker.await.unwrap().is_some());
    assert!(queued(&pool, destination(1)).await.is_empty());
}

#[tokio::test]
async fn a_write_that_waits_for_a_takeover_finds_itself_late() {
    let db = Database::create().await;
    let pool = db.store.pool.clone();
    let pending = record_some(&db, 1).await;
    let (_, held) = own(&pool, "a").await;
    let mut takeover = pool.raw().begin().await.unwrap();
    sqlx::query("UPDATE lease SET holder = 'b', epoch = epoch + 1 WHERE name = $1")
        .bind(lease::shard_name(SHARD))
        .execute(&mut *takeover)
        .await
        .unwrap();
    let (writer_pool, batch) = (pool.clone(), [outcome(&pending[0], Finished::Delivered)]);
    let writer =
        tokio::spawn(async move { outcomes::write(&writer_pool, &batch, &held).await.unwrap() });
    until_somebody_waits(&pool).await;
    takeover.commit().await.unwrap();
    assert_eq!(writer.await.unwrap().0, [0_u16; 0]);
    assert_eq!(queued(&pool, destination(1)).await, pending);
}

#[tokio::test]
async fn a_delivery_whose_day_retention_dropped_is_only_taken_off_the_queue() {
    let db = Database::create().await;
    let pool = &db.store.pool;
    let pending = record_some(&db, 1).await.remove(0);
    let (_, held) = own(pool, "a").await;
    let long_ago = uuid::Uuid::from_u128(0x0170_0000_0000 << 80 | 0x7 << 76);
    sqlx::query("UPDATE queue SET delivery_id = $1")
        .bind(long_ago)
        .execute(pool.raw())
        .await
        .unwrap();
    let gone = Pending {
        delivery_id: long_ago,
        ..pending
    };
    assert_eq!(
        outcomes::write(pool, &[outcome(&gone, Finished::Delivered)], &held)
            .await
            .unwrap()
            .0,
        [SHARD]
    );
    assert_eq!(number(pool, "SELECT count(*) FROM queue").await, 0);
    assert_eq!(number(pool, "SELECT count(*) FROM attempts").await, 0);
}

#[tokio::test]
async fn outcomes_make_the_missing_days_themselves() {
    let db = Database::create().await;
    let pool = &db.store.pool;
    let pending = record_some(&db, 1).await;
    let (_, held) = own(pool, "a").await;
    let day = partitions::day_of_id(pending[0].delivery_id)
        .strftime("%Y%m%d")
        .to_string();
    sqlx::raw_sql(sqlx::AssertSqlSafe(format!("DROP TABLE attempts_{day}")))
        .execute(pool.raw())
        .await
        .unwrap();
    outcomes::write(pool, &[outcome(&pending[0], Finished::Delivered)], &held)
        .await
        .unwrap();
    assert_eq!(number(pool, "SELECT count(*) FROM attempts").await, 1);
}

#[tokio::test]
async fn a_word_that_the_table_does_not_allow_is_an_error_of_the_data() {
    let db = Database::create().await;
    let pool = &db.store.pool;
    let pending = record_some(&db, 1).await;
    let (_, held) = own(pool, "a").await;
    let mut wrong = outcome(&pending[0], Finished::Delivered);
    wrong.attempt.as_mut().unwrap().number = 0;
    let error = outcomes::write(pool, &[wrong], &held).await.unwrap_err();
    assert!(matches!(error, Error::Data(_)), "{error:?}");
    assert!(!error.is_transient());
}

/// A destination in the routing table, so that something was published.
async fn publish(pool: &store::Pool, deleted: bool) {
    let sql = "INSERT INTO routes VALUES ('destination', $1, 'team', 'd', 1, 1, '', '', '', $2)
               ON CONFLICT (kind, uid) DO UPDATE SET deleted = excluded.deleted";
    sqlx::query(sql)
        .bind(destination(1))
        .bind(deleted)
        .execute(pool.raw())
        .await
        .unwrap();
    execute(pool, "UPDATE route_head SET revision = 1").await;
}

#[tokio::test]
async fn the_deliveries_of_a_deleted_destination_become_dead_letters_and_those_of_a_live_one_do_not()
 {
    let db = Database::create().await;
    let pool = &db.store.pool;
    record_some(&db, 3).await;
    let (lease, _) = own(pool, "a").await;
    let bury = |epoch| outcomes::bury(pool, SHARD, epoch, "a", destination(1), 2);
    assert_eq!(
        bury(lease.epoch).await.unwrap(),
        0,
        "nothing was ever published"
    );
    publish(pool, false).await;
    assert_eq!(
        bury(lease.epoch).await.unwrap(),
        0,
        "the destination is there"
    );
    publish(pool, true).await;
    assert_eq!(
        bury(lease.epoch + 1).await.unwrap(),
        0,
        "the lease is another's"
    );
    assert_eq!(bury(lease.epoch).await.unwrap(), 2);
    assert_eq!(bury(lease.epoch).await.unwrap(), 1);
    assert_eq!(number(pool, "SELECT count(*) FROM deliveries WHERE state = 'dead_letter' AND reason = 'destination_deleted'").await, 3);
    assert_eq!(number(pool, "SELECT count(*) FROM queue").await, 0);
}

#[tokio::test]
async fn only_deliveries_without_their_event_are_orphans() {
    let db = Database::create().await;
    let pool = &db.store.pool;
    let pending = record_some(&db, 2).await;
    let (lease, _) = own(pool, "a").await;
    sqlx::query("DELETE FROM events WHERE id = $1")
        .bind(pending[0].event_id)
        .execute(pool.raw())
        .await
        .unwrap();
    let drop_orphans = |epoch| outcomes::drop_orphans(pool, SHARD, epoch, "a", destination(1), 10);
    assert_eq!(drop_orphans(lease.epoch + 1).await.unwrap(), 0);
    assert_eq!(drop_orphans(lease.epoch).await.unwrap(), 1);
    assert_eq!(
        queued(pool, destination(1)).await[0].delivery_id,
        pending[1].delivery_id
    );
}
