//! What `hookstream dev` stands on: a data folder, in it a key ring and large bodies, and a Postgres that is its own unless
//! one is given.

use crate::{args, data, data::Data, keyring, operate};
use anyhow::{Context, Result};
use gateway::bodies::{self, place::DEFAULT_THRESHOLD};
use service::clock;
use std::{path::Path, sync::Arc};
use store::{Keyring, Lease, Pool, PrivateServer, Store, lease, private_server, replicas};

/// Held for as long as `dev` runs.
#[derive(Debug)]
pub(super) struct Backing {
    pub(super) store: Store,
    pub(super) keyring: Arc<Keyring>,
    /// Holds a password.
    pub(super) url: String,
    /// What to tell the person about where things are kept.
    pub(super) kept: String,
    /// `None`: the database outlives this run, and nothing beside it would.
    pub(super) objects: Option<bodies::Place>,
    server: Option<PrivateServer>,
    data: Option<Data>,
}

/// One process with few rows needs few connections.
const CONNECTIONS: u32 = 8;

/// Of a new database. One process owns them all; fewer are taken sooner.
pub(super) const SHARDS: u16 = 16;

impl Backing {
    pub(super) async fn start(options: &args::Dev) -> Result<Backing> {
        let data = match &options.data_dir {
            Some(folder) => Some(Data::open(folder)?),
            None if options.ephemeral => None,
            None => {
                let root = rustix::process::geteuid().is_root();
                let folder =
                    data::default_folder(&options.paths, root, |name| std::env::var(name).ok())?;
                Some(Data::open(&folder)?)
            }
        };
        let keyring = match (&options.keyring, &data) {
            (Some(path), _) => Keyring::load(path)?,
            (None, Some(data)) => keyring::load_or_make(&data.path("keyring"))?,
            (None, None) => Keyring::generate(),
        };
        let server = match options.database_url {
            Some(_) => None,
            None => Some(private(data.as_ref()).await?),
        };
        // Without a data folder it goes with the database's, however this ends.
        let folder = match (&data, &server) {
            (Some(data), _) => Some(data.path("bodies")),
            (None, Some(server)) => Some(server.folder().join("bodies")),
            (None, None) => None,
        };
        let objects = folder
            .map(|folder| bodies::Place::folder(&folder, DEFAULT_THRESHOLD))
            .transpose()?;
        let kept = kept(data.as_ref(), server.is_some());
        let url = match (&options.database_url, &server) {
            (Some(url), _) => url.clone(),
            (None, Some(server)) => server.url(private_server::DATABASE),
            (None, None) => unreachable!("a server is started when no URL is given"),
        };
        let connect = store::Options {
            max_connections: CONNECTIONS,
            application_name: "hookstream dev".into(),
            ..store::Options::new(&*url)
        };
        let store = Store::connect(connect)
            .await
            .context("the database can't be reached")?;
        if let (Some(data), Some(_)) = (&data, &server) {
            let path = data.path(operate::URL_FILE);
            keyring::write_private(&path, url.as_bytes())
                .with_context(|| path.display().to_string())?;
        }
        store::migrate(&store.pool, SHARDS)
            .await
            .context("the database can't be brought to this version")?;
        if server.is_some() {
            free_leases(&store.pool)
                .await
                .context("the database of an earlier run")?;
        }
        Ok(Backing {
            store,
            keyring: Arc::new(keyring),
            url,
            kept,
            objects,
            server,
            data,
        })
    }

    /// Stops the private Postgres, once nobody uses it.
    pub(super) async fn stop(mut self) -> Result<()> {
        self.store.pool.close().await;
        if let Some(server) = &mut self.server {
            if let Some(data) = &self.data {
                let _ = std::fs::remove_file(data.path(operate::URL_FILE));
            }
            server.stop().await.context("stopping Postgres")?;
        }
        Ok(())
    }
}

async fn private(data: Option<&Data>) -> Result<PrivateServer> {
    let options = private_server::Options {
        data_dir: data.map(|data| data.path("postgres")),
        // Nothing of it is ever read again.
        fsync: data.is_some(),
        ..private_server::Options::default()
    };
    PrivateServer::start(options)
        .await
        .context("starting a private Postgres database (or give --database-url)")
}

fn kept(data: Option<&Data>, private: bool) -> String {
    match (data.map(Data::folder), private) {
        (Some(folder), true) => format!("events are kept in {} (--ephemeral keeps nothing)", Path::display(folder)),
        (Some(folder), false) => format!("events are kept in the given database, the key ring in {}", Path::display(folder)),
        (None, true) => "nothing is kept: --ephemeral".to_owned(),
        (None, false) => "events are kept in the given database; its secrets are sealed anew at each start: --ephemeral".to_owned(),
    }
}

/// A run that was killed held leases, and nobody but us can hold any in a private server: waiting for them to expire
/// would only be slow.
async fn free_leases(pool: &Pool) -> store::Result<()> {
    let now = tokio::time::Instant::from_std(clock::instant());
    let held = lease::list(pool, "").await?.into_iter().filter_map(|row| {
        Some(Lease {
            holder: row.holder?.into(),
            name: row.name,
            epoch: row.epoch,
            trusted_until: now,
        })
    });
    lease::release_many(pool, &held.collect::<Vec<_>>()).await?;
    for replica in replicas::live(pool, std::time::Duration::from_secs(3600)).await? {
        replicas::leave(pool, &replica.id).await?;
    }
    Ok(())
}
