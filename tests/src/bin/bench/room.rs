//! The room that every scenario runs in: one private Postgres with fsync on, a database per scenario.

use anyhow::Context;
use sqlx::postgres::PgPoolOptions;
use std::sync::Mutex;
use store::{PrivateServer, Store, private_server};

pub(crate) struct Room {
    server: Mutex<Option<PrivateServer>>,
    url: Box<dyn Fn(&str) -> String + Send + Sync>,
    /// The last scenario's.
    database: Mutex<Option<String>>,
}

impl Room {
    pub(crate) async fn start() -> anyhow::Result<Room> {
        let settings = [
            ("shared_preload_libraries", "pg_stat_statements"),
            ("pg_stat_statements.track", "top"),
            ("max_wal_size", "4GB"),
            ("shared_buffers", "512MB"),
        ];
        let settings = settings
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .to_vec();
        let server = PrivateServer::start(private_server::Options {
            data_dir: None,
            fsync: true,
            settings,
        })
        .await
        .context("a private Postgres with pg_stat_statements (postgresql-contrib)")?;
        let base = server.url("\u{1}");
        Ok(Room {
            server: Mutex::new(Some(server)),
            url: Box::new(move |database| base.replace('\u{1}', database)),
            database: Mutex::new(None),
        })
    }

    /// A new, migrated database.
    pub(crate) async fn database(&self, name: &str) -> anyhow::Result<Store> {
        let admin = PgPoolOptions::new()
            .max_connections(1)
            .connect(&(self.url)("postgres"))
            .await?;
        sqlx::query(sqlx::AssertSqlSafe(format!("create database {name}")))
            .execute(&admin)
            .await?;
        // What the scenario before left to be written and vacuumed would be during this one.
        let before = self
            .database
            .lock()
            .expect("no holder panics")
            .replace(name.to_owned());
        if let Some(before) = before {
            let drop = format!("drop database {before} with (force)");
            sqlx::query(sqlx::AssertSqlSafe(drop))
                .execute(&admin)
                .await?;
        }
        sqlx::query("checkpoint").execute(&admin).await?;
        admin.close().await;
        let store = Store::connect(store::Options::new((self.url)(name))).await?;
        store::migrate(&store.pool, 64).await?;
        store::partitions::ensure(&store.pool, service::clock::now()).await?;
        sqlx::query("create extension if not exists pg_stat_statements")
            .execute(store.pool.raw())
            .await?;
        Ok(store)
    }

    pub(crate) fn url(&self, database: &str) -> String {
        (self.url)(database)
    }

    pub(crate) async fn stop(self) -> anyhow::Result<()> {
        let server = self.server.lock().expect("no holder panics").take();
        if let Some(mut server) = server {
            server.stop().await?;
        }
        Ok(())
    }
}

/// Statements that the server has run since the last reset, transaction control and this question left out.
pub(crate) async fn statements(store: &Store) -> anyhow::Result<i64> {
    let calls: Option<i64> = sqlx::query_scalar(
        "select sum(calls)::bigint from pg_stat_statements s join pg_database d on d.oid = s.dbid
         where d.datname = current_database() and query not ilike '%pg_stat_statements%'",
    )
    .fetch_one(store.pool.raw())
    .await?;
    Ok(calls.unwrap_or(0))
}

pub(crate) async fn reset_statements(store: &Store) -> anyhow::Result<()> {
    sqlx::query("select pg_stat_statements_reset()")
        .execute(store.pool.raw())
        .await?;
    Ok(())
}
