//! Bringing a database to this version.

use crate::support::*;
use store::{Error, Options, Store, events, installation, lease, routes, testing::Database};

#[tokio::test]
async fn an_empty_database_is_laid_out_and_a_second_start_finds_nothing_to_do() {
    let db = Database::empty().await;
    let pool = &db.store.pool;
    let first = store::migrate(pool, 16).await.unwrap();
    assert_eq!(
        (first.applied.first(), first.shards, first.ignored_shards),
        (Some(&1), 16, None)
    );
    assert_eq!(installation::load(pool).await.unwrap().shards, 16);
    assert_eq!(lease::list(pool, "shard/").await.unwrap().len(), 16);
    let second = store::migrate(pool, 16).await.unwrap();
    assert_eq!(
        (second.applied.as_slice(), second.ignored_shards),
        (&[][..], None)
    );
    events::record(pool, &[recorded(event(b"x"), &[destination(1)])])
        .await
        .unwrap();
}

#[tokio::test]
async fn the_number_of_shards_is_set_once() {
    let db = Database::empty().await;
    store::migrate(&db.store.pool, 4).await.unwrap();
    let again = store::migrate(&db.store.pool, 32).await.unwrap();
    assert_eq!((again.shards, again.ignored_shards), (4, Some(32)));
    assert_eq!(
        lease::list(&db.store.pool, "shard/").await.unwrap().len(),
        4
    );
}

#[tokio::test]
async fn a_number_of_shards_out_of_range_is_refused_and_leaves_nothing() {
    let db = Database::empty().await;
    for shards in [0, 4097, u16::MAX] {
        let error = store::migrate(&db.store.pool, shards).await.unwrap_err();
        assert!(matches!(error, Error::Data(_)), "{error:?}");
    }
    assert!(store::migrate(&db.store.pool, 4096).await.is_ok());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn processes_that_start_at_once_do_not_disturb_each_other() {
    let db = Database::empty().await;
    let start = |_| {
        let options = db.options();
        tokio::spawn(async move {
            let store = Store::connect(options).await.unwrap();
            store::migrate(&store.pool, 8).await.unwrap().applied.len()
        })
    };
    let mut applied = 0;
    for task in (0..6).map(start).collect::<Vec<_>>() {
        applied += task.await.unwrap();
    }
    let there = number(&db.store.pool, "SELECT count(*) FROM schema_migration").await;
    assert_eq!(i64::try_from(applied).ok(), Some(there));
}

#[tokio::test]
async fn a_database_of_a_newer_version_is_refused_with_what_to_do() {
    let db = Database::create().await;
    execute(
        &db.store.pool,
        "INSERT INTO schema_migration (version, name) VALUES (99, 'of the future')",
    )
    .await;
    let error = store::migrate(&db.store.pool, 8).await.unwrap_err();
    assert!(matches!(error, Error::Newer { found: 99, .. }), "{error:?}");
    assert!(
        error.to_string().contains("run the newer version"),
        "{error}"
    );
}

#[tokio::test]
async fn a_migration_that_was_left_out_is_made_up_for_and_ends_the_same() {
    const CHECKS: &str = "SELECT string_agg(conname || pg_get_constraintdef(oid), ' ' ORDER BY conname) FROM pg_constraint
                          WHERE conrelid = 'deliveries'::regclass AND contype = 'c'";
    let whole = Database::create().await;
    let checks: String = sqlx::query_scalar(CHECKS)
        .fetch_one(whole.store.pool.raw())
        .await
        .unwrap();
    let db = Database::empty().await;
    let pool = &db.store.pool;
    // As an installation has it that got filtered deliveries before those that are set going again.
    execute(
        pool,
        concat!(
            include_str!("../../migrations/0001_spine.sql"),
            include_str!("../../migrations/0002_checks.sql"),
            include_str!("../../migrations/0004_scheduler.sql"),
            "ALTER TABLE deliveries DROP CONSTRAINT a_finished_delivery_is_delivered_or_a_dead_letter;
             ALTER TABLE deliveries ADD CONSTRAINT a_finished_delivery_is_delivered_filtered_or_a_dead_letter
                 CHECK (state IN ('delivered', 'filtered', 'dead_letter')) NOT VALID;
             CREATE TABLE schema_migration (version integer PRIMARY KEY, name text NOT NULL, applied_at timestamptz NOT NULL DEFAULT now());
             INSERT INTO schema_migration (version, name) VALUES (1, 'spine'), (2, 'checks'), (4, 'scheduler'), (7, 'sandbox')",
        ),
    )
    .await;
    let migrated = store::migrate(pool, 8).await.unwrap();
    assert!(migrated.applied.contains(&5), "{:?}", migrated.applied);
    let made_up: String = sqlx::query_scalar(CHECKS)
        .fetch_one(pool.raw())
        .await
        .unwrap();
    assert_eq!(made_up, checks);
}

#[tokio::test]
async fn a_database_that_was_never_migrated_is_told_apart() {
    let db = Database::empty().await;
    let error = installation::load(&db.store.pool).await.unwrap_err();
    assert!(matches!(error, Error::Schema(_)), "{error:?}");
    let error = events::record(&db.store.pool, &[recorded(event(b"x"), &[])])
        .await
        .unwrap_err();
    assert!(matches!(error, Error::Schema(_)), "{error:?}");
}

#[tokio::test]
async fn a_column_that_an_older_database_lacks_is_an_error_of_the_schema_and_a_further_one_is_none()
{
    let db = Database::create().await;
    let pool = &db.store.pool;
    execute(pool, "ALTER TABLE queue ADD COLUMN of_the_future text; ALTER TABLE routes ADD COLUMN of_the_future text").await;
    events::record(pool, &[recorded(event(b"x"), &[destination(1)])])
        .await
        .unwrap();
    assert_eq!(queued(pool, destination(1)).await.len(), 1);
    routes::load_all(pool, &store::Keyring::generate())
        .await
        .unwrap();
    execute(pool, "ALTER TABLE queue DROP COLUMN recorded_at").await;
    let fresh = Store::connect(db.options()).await.unwrap();
    let error = events::record(&fresh.pool, &[recorded(event(b"x"), &[destination(1)])])
        .await
        .unwrap_err();
    assert!(matches!(error, Error::Schema(_)), "{error:?}");
    assert_eq!(number(pool, "SELECT count(*) FROM events").await, 1);
}

#[tokio::test]
async fn migrating_needs_no_superuser() {
    let db = Database::empty().await;
    execute(
        &db.store.pool,
        "DO $$ BEGIN CREATE ROLE plain LOGIN NOSUPERUSER; EXCEPTION WHEN duplicate_object OR unique_violation THEN NULL; END $$;
         GRANT CREATE ON SCHEMA public TO plain",
    )
    .await;
    let store = Store::connect(Options::new(db.url().replace("hookstream@", "plain@")))
        .await
        .unwrap();
    store::migrate(&store.pool, 8).await.unwrap();
    events::record(&store.pool, &[recorded(event(b"x"), &[destination(1)])])
        .await
        .unwrap();
    store.pool.close().await;
}

#[tokio::test]
async fn an_unusable_url_is_refused_without_repeating_its_password() {
    for url in [
        "",
        "mysql://u:topsecret@h/d",
        "postgres://u:topsecret@h:99999/d",
        "postgres://u:topsecret@h/d?pooler=magic",
        "postgres://u:topsecret@h/d?sslmode=maybe",
    ] {
        let error = Store::connect_lazy(Options::new(url)).unwrap_err();
        assert!(matches!(error, Error::Url(_)), "{url}: {error:?}");
        assert!(!format!("{error:?} {error}").contains("topsecret"), "{url}");
    }
}

#[tokio::test]
async fn a_server_that_is_away_is_unavailable() {
    let options = Options {
        acquire_timeout: std::time::Duration::from_millis(300),
        ..Options::new("postgres://u@127.0.0.1:1/d")
    };
    let error = Store::connect(options).await.unwrap_err();
    assert!(error.is_transient(), "{error:?}");
}

#[tokio::test]
async fn a_database_in_another_encoding_is_refused_with_what_to_do() {
    let db = Database::empty().await;
    let (url, name) = db.url().rsplit_once('/').unwrap();
    let create = format!(
        "CREATE DATABASE {name}_latin TEMPLATE template0 ENCODING 'LATIN1' LC_COLLATE 'C' LC_CTYPE 'C'"
    );
    sqlx::raw_sql(sqlx::AssertSqlSafe(create))
        .execute(db.store.pool.raw())
        .await
        .unwrap();
    let latin = Store::connect(Options::new(format!("{url}/{name}_latin")))
        .await
        .unwrap();
    let error = store::migrate(&latin.pool, 8).await.unwrap_err();
    assert!(
        matches!(&error, Error::Encoding { found } if found == "LATIN1"),
        "{error:?}"
    );
    assert!(error.to_string().contains("ENCODING 'UTF8'"), "{error}");
    let tables = "SELECT count(*) FROM pg_class WHERE relnamespace = 'public'::regnamespace";
    assert_eq!(number(&latin.pool, tables).await, 0);
    latin.pool.close().await;
    let drop = format!("DROP DATABASE {name}_latin");
    sqlx::raw_sql(sqlx::AssertSqlSafe(drop))
        .execute(db.store.pool.raw())
        .await
        .unwrap();
}

#[tokio::test]
async fn commits_wait_for_the_disk_whatever_the_role_says_unless_the_url_says_so_too() {
    let db = Database::create().await;
    // What `db` runs on has no fsync.
    for (default, url, committed, volatile) in [
        ("off", "", "on", &["fsync"][..]),
        ("on", "", "on", &["fsync"]),
        ("local", "", "local", &["fsync"]),
        (
            "on",
            "?options[synchronous_commit]=off",
            "off",
            &["fsync", "synchronous_commit"],
        ),
    ] {
        set_synchronous_commit(&db.store.pool, default).await;
        let store = Store::connect(Options::new(format!("{}{url}", db.url())))
            .await
            .unwrap();
        let found: String = sqlx::query_scalar("SHOW synchronous_commit")
            .fetch_one(store.pool.raw())
            .await
            .unwrap();
        assert_eq!(found, committed, "{default} {url}");
        let migrated = store::migrate(&store.pool, 8).await.unwrap();
        assert_eq!(migrated.volatile, volatile, "{default} {url}");
    }
}
