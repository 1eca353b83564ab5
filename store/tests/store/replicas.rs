//! Which replicas are alive.

use crate::support::*;
use jiff::Timestamp;
use std::time::Duration;
use store::{
    replicas::{self, Replica},
    testing::Database,
};

pub(crate) fn replica(id: &str) -> Replica {
    Replica {
        id: id.to_owned(),
        address: "10.0.0.1:9090".to_owned(),
        roles: vec!["ingest".to_owned(), "delivery".to_owned()],
        version: "0.1.0".to_owned(),
        started_at: store::time::stored(Timestamp::now()),
        route_epoch: 1,
        applied_revision: 7,
        unreadable_rows: 0,
        shards: 4,
    }
}

const WITHIN: Duration = Duration::from_secs(20);

#[tokio::test]
async fn a_replica_is_live_while_it_is_heard_of_and_forgotten_later() {
    let db = Database::create().await;
    let pool = &db.store.pool;
    let (a, mut b) = (replica("a"), replica("b"));
    replicas::heartbeat(pool, &a).await.unwrap();
    replicas::heartbeat(pool, &b).await.unwrap();
    b.applied_revision = 8;
    replicas::heartbeat(pool, &b).await.unwrap();
    assert_eq!(
        replicas::live(pool, WITHIN).await.unwrap(),
        [a.clone(), b.clone()]
    );

    execute(
        pool,
        "UPDATE replica SET heartbeat_at = now() - interval '21 s' WHERE id = 'a'",
    )
    .await;
    assert_eq!(replicas::live(pool, WITHIN).await.unwrap(), [b]);
    assert_eq!(number(pool, "SELECT count(*) FROM replica").await, 2);
    execute(
        pool,
        "UPDATE replica SET heartbeat_at = now() - interval '201 s' WHERE id = 'a'",
    )
    .await;
    replicas::live(pool, WITHIN).await.unwrap();
    assert_eq!(number(pool, "SELECT count(*) FROM replica").await, 1);
}

#[tokio::test]
async fn a_replica_that_leaves_is_gone_at_once() {
    let db = Database::create().await;
    let pool = &db.store.pool;
    replicas::heartbeat(pool, &replica("a")).await.unwrap();
    replicas::leave(pool, "a").await.unwrap();
    replicas::leave(pool, "a").await.unwrap();
    assert!(replicas::live(pool, WITHIN).await.unwrap().is_empty());
}
