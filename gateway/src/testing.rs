//! A gateway in the process of a test: on a database of its own, with rows published as the operator would.

use crate::{
    args::Role,
    run::{self, Options},
    table::Keys,
};
use prometheus::Registry;
use routing::{
    Row, RowKey, Table,
    ids::{Prefix, format},
    retry, row,
    secret::Secret,
    table, verify,
};
use service::admin::Readiness;
use std::{net::SocketAddr, sync::Arc, time::Duration};
use store::{
    Keyring, Store, lease,
    replicas::Replica,
    routes::{self, Epoch},
};
use tokio::{net::TcpListener, task::JoinHandle};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

/// A source at `/v1/ingest/{name}`; with a secret it verifies as GitHub signs.
pub fn source_row(uid: Uuid, name: &str, secret: Option<&str>) -> Row {
    let verification = secret.map(|_| verify::Verification {
        scheme: verify::templates::Template::named("github")
            .and_then(verify::templates::Template::scheme)
            .expect("it is one of the templates"),
        secrets: vec![row::SecretIndex(0)],
        handshake: None,
        verify_token: None,
    });
    let spec = row::SourceSpec {
        path: Some(name.to_owned()),
        verification,
        max_body_bytes: 10 << 20,
        ..row::SourceSpec::default()
    };
    Row {
        uid,
        namespace: "default".to_owned(),
        name: name.to_owned(),
        generation: 1,
        spec: row::Spec::Source(spec),
        secrets: secret.into_iter().map(Secret::new).collect(),
    }
}

/// An HTTP destination with a retry after 50 ms, 100 ms and so on, ten times, whose circuit never opens.
pub fn destination_row(uid: Uuid, name: &str, url: &str) -> Row {
    let http = row::HttpSpec {
        url: url.to_owned(),
        timeout: Duration::from_secs(5),
        ..row::HttpSpec::default()
    };
    let retry = retry::Policy {
        backoff: retry::Backoff::Linear,
        intervals_ms: vec![50],
        max_retries: 10,
        ..retry::Policy::default()
    };
    let spec = row::DestinationSpec {
        provider: row::Provider::Http(http),
        retry,
        concurrency: 16,
        circuit: None,
        ..row::DestinationSpec::default()
    };
    Row {
        uid,
        namespace: "default".to_owned(),
        name: name.to_owned(),
        generation: 1,
        spec: row::Spec::Destination(spec),
        secrets: Vec::new(),
    }
}

/// Everything from the source goes to the destination.
pub fn connection_row(uid: Uuid, source: &Row, destination: &Row) -> Row {
    let spec = row::ConnectionSpec {
        source: source.uid,
        destination: destination.uid,
        ..row::ConnectionSpec::default()
    };
    let name = format!("{}-to-{}", source.name, destination.name);
    Row {
        uid,
        namespace: "default".to_owned(),
        name,
        generation: 1,
        spec: row::Spec::Connection(spec),
        secrets: Vec::new(),
    }
}

/// A topic; with a key that may publish to it.
pub fn topic_row(uid: Uuid, name: &str, key: Option<&str>) -> Row {
    let spec = row::TopicSpec {
        publish_keys: key.map(|_| row::SecretIndex(0)).into_iter().collect(),
        ..row::TopicSpec::default()
    };
    Row {
        uid,
        namespace: "default".to_owned(),
        name: name.to_owned(),
        generation: 1,
        spec: row::Spec::Topic(spec),
        secrets: key.into_iter().map(Secret::new).collect(),
    }
}

/// Everything from the topic goes to the destination.
pub fn subscription_row(uid: Uuid, topic: &Row, destination: &Row) -> Row {
    let connection = connection_row(uid, topic, destination);
    match connection.spec {
        row::Spec::Connection(spec) => Row {
            spec: row::Spec::Subscription(spec),
            ..connection
        },
        _ => connection,
    }
}

/// The source that [`source_row`] makes, as a table has it.
pub fn source(uid: Uuid, name: &str) -> Arc<table::Source> {
    let table = Table::build([source_row(uid, name, None)]);
    table
        .source(&format(Prefix::Source, uid))
        .expect("it is the one row")
        .0
        .clone()
}

/// A replica's row, of this version, that routes by nothing yet.
pub fn replica(id: &str) -> Replica {
    Replica {
        id: id.to_owned(),
        address: String::new(),
        roles: Role::ALL.map(|role| role.as_str().to_owned()).to_vec(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        started_at: service::clock::now(),
        route_epoch: 0,
        applied_revision: 0,
        unreadable_rows: 0,
        shards: 0,
    }
}

/// Publishes as the operator does.
#[derive(Debug, Clone)]
pub struct Published {
    pub keyring: Arc<Keyring>,
    store: Store,
    epoch: Epoch,
}

const LEADER: &str = "a test";

impl Published {
    /// Leads, and publishes these rows.
    pub async fn new(store: &Store, rows: &[Row]) -> Published {
        let lease = lease::acquire(
            &store.pool,
            lease::OPERATOR,
            LEADER,
            Duration::from_secs(3600),
        )
        .await
        .expect("Postgres is there");
        let lease = lease.expect("a test's database is its own");
        let epoch = routes::begin_epoch(&store.pool, LEADER, &lease)
            .await
            .expect("the lease is held");
        let published = Published {
            keyring: Arc::new(Keyring::generate()),
            store: store.clone(),
            epoch,
        };
        published.publish(rows, &[]).await;
        published
    }

    /// Returns the revision.
    pub async fn publish(&self, changed: &[Row], removed: &[RowKey]) -> i64 {
        routes::publish(
            &self.store.pool,
            self.epoch,
            LEADER,
            changed,
            removed,
            &self.keyring,
        )
        .await
        .expect("nobody else leads")
        .revision
    }
}

/// A gateway that runs in this process.
#[derive(Debug)]
pub struct Gateway {
    /// The public port.
    pub address: SocketAddr,
    pub admin: SocketAddr,
    pub registry: Registry,
    pub readiness: Readiness,
    /// SIGTERM.
    pub token: CancellationToken,
    running: JoinHandle<anyhow::Result<()>>,
}

impl Gateway {
    /// Starts it on free ports and waits until it is ready.
    pub async fn start(
        database: store::Options,
        keyring: &Arc<Keyring>,
        customise: impl FnOnce(&mut Options),
    ) -> Gateway {
        let gateway = Gateway::begin(database, keyring, customise).await;
        for _ in 0..3000 {
            if gateway.readiness.get().is_ok() {
                return gateway;
            }
            assert!(
                !gateway.running.is_finished(),
                "the gateway ended instead of becoming ready: {:?}",
                gateway.running.await
            );
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!(
            "the gateway is not ready after 30 s: {:?}",
            gateway.readiness.get()
        );
    }

    /// Starts it and doesn't wait.
    pub async fn begin(
        database: store::Options,
        keyring: &Arc<Keyring>,
        customise: impl FnOnce(&mut Options),
    ) -> Gateway {
        // Whoever is first in this process installs it.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let [public, admin] = [listener().await, listener().await];
        let [address, admin_address] =
            [&public, &admin].map(|listener| listener.local_addr().expect("it is bound"));
        let mut options = Options::new(database, Keys::Given(keyring.clone()));
        options.public = Some(public);
        options.admin = Some(admin);
        customise(&mut options);
        let (registry, readiness, token) = (
            options.registry.clone(),
            options.readiness.clone(),
            CancellationToken::new(),
        );
        let running = tokio::spawn(run::run(options, token.clone()));
        Gateway {
            address,
            admin: admin_address,
            registry,
            readiness,
            token,
            running,
        }
    }

    /// SIGTERM, and its end.
    pub async fn stop(self) -> anyhow::Result<()> {
        self.token.cancel();
        self.ended().await
    }

    /// Waits for its end.
    pub async fn ended(self) -> anyhow::Result<()> {
        self.running.await.expect("the gateway does not panic")
    }

    /// As if the process had been killed: nothing is finished or handed over.
    pub async fn kill(self) {
        self.running.abort();
        let _ = self.running.await;
    }

    /// All metrics, as a scrape gets them.
    pub fn metrics(&self) -> String {
        service::metrics::render(&self.registry)
    }
}

async fn listener() -> TcpListener {
    TcpListener::bind("127.0.0.1:0")
        .await
        .expect("loopback has free ports")
}
