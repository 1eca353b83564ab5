//! Leases: one owner at a time, and a bigger epoch for each next one.

use crate::support::*;
use std::{
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering},
    },
    time::Duration,
};
use store::{lease, testing::Database};
use tokio::time::Instant;

const NAME: &str = "task/example";

#[tokio::test]
async fn a_held_lease_is_nobody_elses_until_it_expires() {
    let db = Database::create().await;
    let pool = &db.store.pool;
    let first = lease::acquire(pool, NAME, "a", TTL).await.unwrap().unwrap();
    assert!(
        lease::acquire(pool, NAME, "b", TTL)
            .await
            .unwrap()
            .is_none()
    );
    assert!(
        lease::acquire(pool, NAME, "a", TTL)
            .await
            .unwrap()
            .is_none()
    );
    expire(pool, NAME).await;
    let second = lease::acquire(pool, NAME, "b", TTL).await.unwrap().unwrap();
    assert!(second.epoch > first.epoch);
    assert!(
        lease::renew_many(pool, &[first], TTL)
            .await
            .unwrap()
            .is_empty()
    );
    assert_eq!(
        lease::renew_many(pool, std::slice::from_ref(&second), TTL)
            .await
            .unwrap()
            .len(),
        1
    );
}

#[tokio::test]
async fn a_released_lease_is_free_at_once_and_its_next_epoch_is_bigger() {
    let db = Database::create().await;
    let pool = &db.store.pool;
    let first = lease::acquire(pool, NAME, "a", TTL).await.unwrap().unwrap();
    lease::release_many(pool, std::slice::from_ref(&first))
        .await
        .unwrap();
    let row = lease::list(pool, "task/").await.unwrap().remove(0);
    assert_eq!(
        (row.holder, row.epoch, row.expired),
        (None, first.epoch, true)
    );
    let second = lease::acquire(pool, NAME, "b", TTL).await.unwrap().unwrap();
    assert_eq!(second.epoch, first.epoch + 1);
    // A late release by the one before takes nothing away.
    lease::release_many(pool, &[first]).await.unwrap();
    assert_eq!(
        lease::renew_many(pool, &[second], TTL).await.unwrap().len(),
        1
    );
}

#[tokio::test]
async fn an_expired_lease_that_nobody_took_can_be_renewed() {
    let db = Database::create().await;
    let lease = lease::acquire(&db.store.pool, NAME, "a", TTL)
        .await
        .unwrap()
        .unwrap();
    expire(&db.store.pool, NAME).await;
    let renewed = lease::renew_many(&db.store.pool, std::slice::from_ref(&lease), TTL)
        .await
        .unwrap();
    assert_eq!(renewed[0].epoch, lease.epoch);
    assert!(renewed[0].trusted_until >= lease.trusted_until);
}

#[tokio::test]
async fn trust_ends_before_the_database_lets_anybody_else_in() {
    let db = Database::create().await;
    let before = Instant::now();
    let lease = lease::acquire(&db.store.pool, NAME, "a", Duration::from_secs(10))
        .await
        .unwrap()
        .unwrap();
    assert!(lease.trusted_until >= before + Duration::from_secs(8));
    assert!(lease.trusted_until <= Instant::now() + Duration::from_secs(8));
}

#[tokio::test]
async fn many_leases_are_taken_renewed_and_released_in_one_statement_each() {
    let db = Database::create().await;
    let pool = &db.store.pool;
    let names: Vec<String> = (0..store::testing::SHARDS).map(lease::shard_name).collect();
    lease::acquire(pool, &names[2], "b", TTL)
        .await
        .unwrap()
        .unwrap();
    // A name that is given twice is one lease.
    let twice = [names.clone(), names.clone()].concat();
    let mine = lease::acquire_many(pool, &twice, "a", TTL).await.unwrap();
    assert_eq!(mine.len(), names.len() - 1);
    assert_eq!(
        lease::renew_many(pool, &mine, TTL).await.unwrap().len(),
        mine.len()
    );
    lease::release_many(pool, &mine).await.unwrap();
    let held = lease::list(pool, "shard/")
        .await
        .unwrap()
        .into_iter()
        .filter(|row| row.holder.is_some())
        .count();
    assert_eq!(held, 1);
    assert!(
        lease::acquire_many(pool, &[], "a", TTL)
            .await
            .unwrap()
            .is_empty()
    );
}

/// Several contenders take, use, and let go of one lease, sometimes by dying (it expires). Whoever holds it enters a room
/// that must be empty.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn two_never_hold_the_same_lease() {
    let db = Database::create().await;
    let inside = Arc::new(AtomicI64::new(0));
    let newest = Arc::new(AtomicI64::new(0));
    let contender = |n: usize| {
        let (pool, inside, newest) = (
            db.store.pool.clone(),
            Arc::clone(&inside),
            Arc::clone(&newest),
        );
        async move {
            let holder = format!("holder-{n}");
            let mut terms = 0;
            while terms < 15 {
                let Some(lease) = lease::acquire(&pool, NAME, &holder, TTL).await.unwrap() else {
                    tokio::task::yield_now().await;
                    continue;
                };
                terms += 1;
                assert_eq!(
                    inside.fetch_add(1, Ordering::SeqCst),
                    0,
                    "somebody else holds the lease"
                );
                let before = newest.swap(lease.epoch, Ordering::SeqCst);
                assert!(
                    lease.epoch > before,
                    "epochs grow: {before} then {}",
                    lease.epoch
                );
                let kept = lease::renew_many(&pool, std::slice::from_ref(&lease), TTL)
                    .await
                    .unwrap();
                assert_eq!(kept.len(), 1, "a held lease is renewed");
                inside.fetch_sub(1, Ordering::SeqCst);
                if terms % 2 == 0 {
                    lease::release_many(&pool, &kept).await.unwrap();
                } else {
                    expire(&pool, NAME).await;
                }
            }
        }
    };
    let tasks: Vec<_> = (0..5).map(|n| tokio::spawn(contender(n))).collect();
    for task in tasks {
        task.await.unwrap();
    }
}

/// Renewals and takings of many leases at once, in different orders, with writers that lock them too.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn statements_on_many_leases_never_deadlock() {
    let db = Database::create().await;
    let names: Vec<String> = (0..store::testing::SHARDS).map(lease::shard_name).collect();
    let contender = |n: usize| {
        let (pool, mut names) = (db.store.pool.clone(), names.clone());
        async move {
            let holder = format!("holder-{n}");
            for round in 0..30 {
                names.rotate_left((n + round) % 8);
                let mine = lease::acquire_many(&pool, &names, &holder, TTL)
                    .await
                    .unwrap();
                let mut kept = lease::renew_many(&pool, &mine, TTL).await.unwrap();
                kept.reverse();
                lease::release_many(&pool, &kept).await.unwrap();
            }
        }
    };
    let tasks: Vec<_> = (0..6).map(|n| tokio::spawn(contender(n))).collect();
    for task in tasks {
        task.await.unwrap();
    }
}
