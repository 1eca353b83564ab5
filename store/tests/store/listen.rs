//! Hints, and the certainty that a lost one is noticed.

use crate::{replicas::replica, support::*};
use store::{
    listen::{self, Hint, Listener},
    replicas,
    testing::Database,
};

#[tokio::test]
async fn destinations_arrive_in_as_many_notifications_as_needed() {
    let db = Database::create().await;
    let mut listener = Listener::connect(&db.store).await.unwrap();
    let all: Vec<_> = (0..450).map(destination).collect();
    listen::notify_queue(&db.store.pool, &all).await.unwrap();
    listen::notify_queue(&db.store.pool, &[]).await.unwrap();
    let mut heard = Vec::new();
    while heard.len() < all.len() {
        match listener.next().await.unwrap() {
            Hint::Queue(some) => heard.extend(some),
            other => panic!("{other:?}"),
        }
    }
    heard.sort();
    assert_eq!(heard, all);
}

#[tokio::test]
async fn a_replica_is_heard_of_when_its_revision_changes_and_not_at_every_heartbeat() {
    let db = Database::create().await;
    let pool = &db.store.pool;
    let mut listener = Listener::connect(&db.store).await.unwrap();
    let mut replica = replica("a");
    for revision in [7, 7, 7, 8] {
        replica.applied_revision = revision;
        replicas::heartbeat(pool, &replica).await.unwrap();
    }
    replicas::leave(pool, "a").await.unwrap();
    listen::notify_queue(pool, &[destination(1)]).await.unwrap();
    let mut heard = 0;
    while listener.next().await.unwrap() == Hint::Replicas {
        heard += 1;
    }
    assert_eq!(heard, 3, "first seen, another revision, left");
}

#[tokio::test]
async fn a_lost_connection_is_told_and_then_hints_come_again() {
    let db = Database::create().await;
    let mut listener = Listener::connect(&db.store).await.unwrap();
    for _ in 0..2 {
        execute(&db.store.pool, "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database() AND application_name LIKE '% listener'").await;
        // The driver may call the end of a connection an error or an end; either way the next word is Lost.
        let hint = match listener.next().await {
            Ok(hint) => hint,
            Err(error) => {
                assert!(error.is_transient(), "{error:?}");
                listener.next().await.unwrap()
            }
        };
        assert_eq!(hint, Hint::Lost);
        listen::notify_queue(&db.store.pool, &[destination(1)])
            .await
            .unwrap();
        assert_eq!(
            listener.next().await.unwrap(),
            Hint::Queue(vec![destination(1)])
        );
    }
}

#[tokio::test]
async fn a_listener_may_start_while_nothing_is_there_and_begins_with_lost() {
    let db = Database::create().await;
    let mut listener = Listener::lazy(&db.store);
    assert_eq!(listener.next().await.unwrap(), Hint::Lost);
}
