//! The routing table's way from the operator to the gateways.

use crate::support::*;
use routing::{
    row::{Kind, Row, SourceSpec, Spec},
    secret::Secret,
};
use store::{
    Error, Keyring, Pool, lease,
    listen::{Hint, Listener},
    routes::{self, Epoch, Head, PublishError},
    testing::Database,
};
use uuid::Uuid;

fn source(n: u128, path: &str, secret: &str) -> Row {
    Row {
        uid: Uuid::from_u128(n),
        namespace: "team".to_owned(),
        name: format!("source-{n}"),
        generation: 1,
        spec: Spec::Source(SourceSpec {
            path: Some(path.to_owned()),
            max_body_bytes: 1 << 20,
            ..SourceSpec::default()
        }),
        secrets: vec![Secret::new(secret)],
    }
}

async fn lead(pool: &Pool, leader: &str) -> Epoch {
    expire(pool, lease::OPERATOR).await;
    let lease = lease::acquire(pool, lease::OPERATOR, leader, TTL)
        .await
        .unwrap()
        .unwrap();
    routes::begin_epoch(pool, leader, &lease).await.unwrap()
}

#[tokio::test]
async fn what_is_published_is_loaded_whole_and_by_revision() {
    let db = Database::create().await;
    let (pool, ring) = (&db.store.pool, Keyring::generate());
    let epoch = lead(pool, "a").await;
    let rows = [
        source(1, "one", "s1"),
        source(2, "two", "s2"),
        source(3, "three", "s3"),
    ];
    let first = routes::publish(pool, epoch, "a", &rows, &[], &ring)
        .await
        .unwrap();
    assert_eq!((first.revision, first.changed), (1, 3));
    let all = routes::load_all(pool, &ring).await.unwrap();
    assert_eq!(
        all.head,
        Head {
            epoch: epoch.0,
            revision: 1
        }
    );
    assert!(all.whole && all.rows.iter().map(|row| &**row).eq(&rows));

    let changed = Row {
        generation: 2,
        ..source(2, "zwei", "s2")
    };
    let second = routes::publish(
        pool,
        epoch,
        "a",
        std::slice::from_ref(&changed),
        &[rows[0].key()],
        &ring,
    )
    .await
    .unwrap();
    assert_eq!((second.revision, second.changed), (2, 2));
    let news = routes::load_since(pool, all.head, &ring).await.unwrap();
    assert!(!news.whole);
    assert_eq!(
        (&*news.rows[0], news.removed.as_slice()),
        (&changed, &[rows[0].key()][..])
    );
    let nothing = routes::load_since(pool, news.head, &ring).await.unwrap();
    assert!(!nothing.whole && nothing.rows.is_empty() && nothing.removed.is_empty());
    assert_eq!(routes::load_all(pool, &ring).await.unwrap().rows.len(), 2);
}

#[tokio::test]
async fn what_is_there_already_is_not_published_again() {
    let db = Database::create().await;
    let (pool, ring) = (&db.store.pool, Keyring::generate());
    let epoch = lead(pool, "a").await;
    let rows = [source(1, "one", "s1"), source(2, "two", "s2")];
    routes::publish(pool, epoch, "a", &rows, &[], &ring)
        .await
        .unwrap();
    let again = routes::publish(pool, epoch, "a", &rows, &[source(9, "", "").key()], &ring)
        .await
        .unwrap();
    assert_eq!((again.revision, again.changed), (1, 0));
    // A secret alone is a change, and so is another first key, by which old keys go out of use.
    let rotated = [source(1, "one", "other"), source(2, "two", "s2")];
    assert_eq!(
        routes::publish(pool, epoch, "a", &rotated, &[], &ring)
            .await
            .unwrap()
            .changed,
        1
    );
    assert_eq!(
        routes::publish(pool, epoch, "a", &rotated, &[], &Keyring::generate())
            .await
            .unwrap()
            .changed,
        2
    );
}

#[tokio::test]
async fn a_removed_row_comes_back_when_it_is_published_again() {
    let db = Database::create().await;
    let (pool, ring) = (&db.store.pool, Keyring::generate());
    let epoch = lead(pool, "a").await;
    let row = [source(1, "one", "s1")];
    routes::publish(pool, epoch, "a", &row, &[], &ring)
        .await
        .unwrap();
    routes::publish(pool, epoch, "a", &[], &[row[0].key()], &ring)
        .await
        .unwrap();
    assert!(routes::load_all(pool, &ring).await.unwrap().rows.is_empty());
    assert_eq!(
        routes::publish(pool, epoch, "a", &row, &[], &ring)
            .await
            .unwrap()
            .revision,
        3
    );
    assert_eq!(routes::load_all(pool, &ring).await.unwrap().rows.len(), 1);
}

#[tokio::test]
async fn a_leader_of_an_older_epoch_publishes_nothing() {
    let db = Database::create().await;
    let (pool, ring) = (&db.store.pool, Keyring::generate());
    let old = lead(pool, "a").await;
    let new = lead(pool, "b").await;
    assert!(new > old);
    let row = [source(1, "one", "s1")];
    assert!(matches!(
        routes::publish(pool, old, "a", &row, &[], &ring).await,
        Err(PublishError::Fenced)
    ));
    assert!(routes::load_all(pool, &ring).await.unwrap().rows.is_empty());
    routes::publish(pool, new, "b", &row, &[], &ring)
        .await
        .unwrap();
}

#[tokio::test]
async fn an_epoch_begins_only_with_the_lease() {
    let db = Database::create().await;
    let pool = &db.store.pool;
    let late = lease::acquire(pool, lease::OPERATOR, "a", TTL)
        .await
        .unwrap()
        .unwrap();
    let epoch = lead(pool, "b").await;
    assert!(matches!(
        routes::begin_epoch(pool, "a", &late).await,
        Err(Error::Fenced)
    ));
    assert_eq!(routes::head(pool).await.unwrap().epoch, epoch.0);
}

#[tokio::test]
async fn after_a_change_of_epoch_the_whole_table_is_read() {
    let db = Database::create().await;
    let (pool, ring) = (&db.store.pool, Keyring::generate());
    let epoch = lead(pool, "a").await;
    routes::publish(pool, epoch, "a", &[source(1, "one", "s")], &[], &ring)
        .await
        .unwrap();
    let before = routes::head(pool).await.unwrap();
    lead(pool, "b").await;
    let loaded = routes::load_since(pool, before, &ring).await.unwrap();
    assert!(loaded.whole);
    assert_eq!(loaded.rows.len(), 1);
}

#[tokio::test]
async fn a_restored_database_is_noticed_by_leader_and_gateways() {
    let db = Database::create().await;
    let (pool, ring) = (&db.store.pool, Keyring::generate());
    let epoch = lead(pool, "a").await;
    routes::publish(pool, epoch, "a", &[source(1, "one", "s")], &[], &ring)
        .await
        .unwrap();
    execute(
        pool,
        "CREATE TABLE backup AS TABLE routes; CREATE TABLE backup_head AS TABLE route_head",
    )
    .await;
    routes::publish(pool, epoch, "a", &[source(2, "two", "s")], &[], &ring)
        .await
        .unwrap();
    let gateway = routes::head(pool).await.unwrap();
    execute(
        pool,
        "TRUNCATE routes, route_head; INSERT INTO routes TABLE backup; INSERT INTO route_head TABLE backup_head",
    )
    .await;

    // Restored within the same epoch: the gateway is ahead of the head and reads everything.
    let loaded = routes::load_since(pool, gateway, &ring).await.unwrap();
    assert!(loaded.whole && loaded.head < gateway && loaded.rows.len() == 1);
    // The leader sees the head behind what it published and begins an epoch that was never used before.
    let again = lead(pool, "a").await;
    assert!(again > epoch);
    assert!(matches!(
        routes::publish(pool, epoch, "a", &[], &[], &ring).await,
        Err(PublishError::Fenced)
    ));
    routes::publish(pool, again, "a", &[source(3, "three", "s")], &[], &ring)
        .await
        .unwrap();
    // As many revisions as before the restore, but another history.
    assert_eq!(routes::head(pool).await.unwrap().revision, gateway.revision);
    let loaded = routes::load_since(pool, gateway, &ring).await.unwrap();
    assert!(loaded.whole && loaded.rows.len() == 2);
}

#[tokio::test]
async fn a_reader_behind_pruned_tombstones_reads_the_whole_table() {
    let db = Database::create().await;
    let (pool, ring) = (&db.store.pool, Keyring::generate());
    let epoch = lead(pool, "a").await;
    let rows = [source(1, "one", "s"), source(2, "two", "s")];
    routes::publish(pool, epoch, "a", &rows, &[], &ring)
        .await
        .unwrap();
    let slow = routes::head(pool).await.unwrap();
    routes::publish(pool, epoch, "a", &[], &[rows[0].key()], &ring)
        .await
        .unwrap();
    let fast = routes::head(pool).await.unwrap();
    assert_eq!(routes::prune(pool, 1).await.unwrap(), 0);
    assert!(!routes::load_since(pool, slow, &ring).await.unwrap().whole);
    assert_eq!(routes::prune(pool, 2).await.unwrap(), 1);
    assert!(routes::load_since(pool, slow, &ring).await.unwrap().whole);
    assert!(!routes::load_since(pool, fast, &ring).await.unwrap().whole);
    // A replica that claims a revision of the future does not make everybody read everything for ever.
    routes::prune(pool, 1_000).await.unwrap();
    assert!(!routes::load_since(pool, fast, &ring).await.unwrap().whole);
}

#[tokio::test]
async fn rows_that_this_version_must_not_act_on_are_reported_and_the_others_load() {
    let db = Database::create().await;
    let (pool, ring) = (&db.store.pool, Keyring::generate());
    let epoch = lead(pool, "a").await;
    let rows: Vec<Row> = (1..=7)
        .map(|n| source(n, &format!("p{n}"), "topsecret"))
        .collect();
    routes::publish(pool, epoch, "a", &rows, &[], &ring)
        .await
        .unwrap();
    let spoil = "
        UPDATE routes SET payload = convert_to('{\"format\": 99, \"spec\": {}}', 'UTF8') WHERE name = 'source-1';
        UPDATE routes SET payload = convert_to(replace(convert_from(payload, 'UTF8'), '\"path\"', '\"of_the_future\": 1, \"path\"'), 'UTF8') WHERE name = 'source-2';
        UPDATE routes SET payload = 'no json' WHERE name = 'source-3';
        UPDATE routes SET kind = 'wormhole' WHERE name = 'source-4';
        UPDATE routes SET sealed = '' WHERE name = 'source-5';
        UPDATE routes SET payload = convert_to(replace(convert_from(payload, 'UTF8'), 'p6', 'x6'), 'UTF8') WHERE name = 'source-6'";
    execute(pool, spoil).await;
    let loaded = routes::load_all(pool, &ring).await.unwrap();
    assert_eq!(
        loaded
            .rows
            .iter()
            .map(|row| row.name.as_str())
            .collect::<Vec<_>>(),
        ["source-7"]
    );
    assert_eq!(loaded.unreadable.len(), 6);
    for unreadable in &loaded.unreadable {
        assert!(!unreadable.why.contains("topsecret") && !unreadable.why.is_empty());
    }
    let why = |name: &str| {
        &loaded
            .unreadable
            .iter()
            .find(|row| row.name == name)
            .unwrap()
            .why
    };
    assert!(
        why("source-1").contains("newer operator"),
        "{}",
        why("source-1")
    );
    assert!(
        why("source-2").contains("of_the_future"),
        "{}",
        why("source-2")
    );
    assert!(why("source-4").contains("wormhole"), "{}", why("source-4"));

    // A gateway with another ring reads nothing, and says which key it lacks.
    let stranger = routes::load_all(pool, &Keyring::generate()).await.unwrap();
    assert!(
        stranger.rows.is_empty()
            && stranger
                .unreadable
                .iter()
                .any(|row| row.why.contains("does not have"))
    );
}

#[tokio::test]
async fn secrets_are_nowhere_in_the_database_in_the_clear() {
    let db = Database::create().await;
    let (pool, ring) = (&db.store.pool, Keyring::generate());
    let epoch = lead(pool, "a").await;
    routes::publish(
        pool,
        epoch,
        "a",
        &[source(1, "one", "topsecret")],
        &[],
        &ring,
    )
    .await
    .unwrap();
    let found = "SELECT count(*) FROM routes r WHERE position('topsecret'::bytea IN payload || sealed || digest) > 0";
    assert_eq!(number(pool, found).await, 0);
}

#[tokio::test]
async fn a_publish_is_heard_by_the_gateways() {
    let db = Database::create().await;
    let (pool, ring) = (&db.store.pool, Keyring::generate());
    let mut listener = Listener::connect(&db.store).await.unwrap();
    let epoch = lead(pool, "a").await;
    routes::publish(pool, epoch, "a", &[source(1, "one", "s")], &[], &ring)
        .await
        .unwrap();
    assert_eq!(
        listener.next().await.unwrap(),
        Hint::Routes {
            epoch: epoch.0,
            revision: 1
        }
    );
}

#[tokio::test]
async fn ten_thousand_rows_are_published_and_loaded() {
    let db = Database::create().await;
    let (pool, ring) = (&db.store.pool, Keyring::generate());
    let epoch = lead(pool, "a").await;
    let rows: Vec<Row> = (0..10_000)
        .map(|n| source(n, &format!("p{n}"), "s"))
        .collect();
    assert_eq!(
        routes::publish(pool, epoch, "a", &rows, &[], &ring)
            .await
            .unwrap()
            .changed,
        10_000
    );
    assert_eq!(
        routes::load_all(pool, &ring).await.unwrap().rows.len(),
        10_000
    );
    assert_eq!(rows[0].kind(), Kind::Source);
}
