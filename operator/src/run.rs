//! Wires the operator together.
//!
//! Ends in the order in which things depend on each other: the watches and the publisher first, then the statuses, and
//! the lease last, so that the next leader finds nobody at work.

use crate::{
    Args, circuits, core, events,
    fleet::{self, Database, Fleet},
    health::Health,
    leadership,
    metrics::Metrics,
    notice::Notices,
    publisher,
    secrets::Fetcher,
    statuses::{Inputs, Statuses},
    watch::{self, Scope, metadata},
    watching::{self, Watching},
};
use anyhow::Context;
use k8s_openapi::api::core::v1::ObjectReference;
use kube::Client;
use prometheus::Registry;
use service::{admin, log, log::chain, signals};
use std::{future::Future, sync::Arc, time::Duration};
use store::{Keyring, Options, Store, listen};
use tokio::{
    net::TcpListener,
    sync::{Notify, mpsc, watch as channel},
    task::JoinSet,
};
use tokio_util::sync::CancellationToken;

/// Changes on their way to the compiler. Full: the watches wait, and with them the API server's connection.
const CHANGES: usize = 4096;

/// Reports on their way to the statuses. Full: the publisher waits; statuses never wait for anything but memory.
const REPORTS: usize = 16;

/// Connections to Postgres: lease, publisher, fleet, and one to spare.
const CONNECTIONS: u32 = 4;

/// After a failed attempt at the database while starting.
const RETRY: Duration = Duration::from_secs(1);

/// The whole process: logs, signals, and the operator until it is told to end.
pub fn main(args: Args) -> anyhow::Result<()> {
    log::init(&args.common.log)?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .context("the runtime can't start")?;
    runtime.block_on(async {
        let token = signals::shutdown_token().context("signals can't be handled")?;
        let client = Client::try_default()
            .await
            .context("there is neither a kubeconfig (KUBECONFIG) nor a pod's service account")?;
        run(args, client, token).await
    })
}

/// Runs until the token is cancelled.
///
/// # Errors
/// Only what waiting can't mend: a flag that can't be used, a key ring that can't be read, a port that is taken, a
/// database that a newer version has changed.
pub async fn run(args: Args, client: Client, token: CancellationToken) -> anyhow::Result<()> {
    let keyring = Arc::new(
        Keyring::load(&args.common.keyring)
            .with_context(|| format!("the key ring {}", args.common.keyring.display()))?,
    );
    let listener = TcpListener::bind(args.common.admin_listen)
        .await
        .with_context(|| format!("the admin port {}", args.common.admin_listen))?;
    let registry = Registry::new();
    let metrics = Metrics::new(&registry);
    // Expressions are only read here, and the pod's memory is less than a gateway's.
    let options = sandbox::Options {
        children: 1,
        memory: 128 << 20,
        program: args.sandbox.clone(),
        ..sandbox::Options::default()
    };
    let sandbox = sandbox::Pool::new(options, sandbox::Metrics::new(&registry));
    let health = Health::new(&[
        ("database", "waiting for the database"),
        (watching::PART, "waiting for the first lists"),
    ]);
    // The admin port outlives everything else: `/livez` must answer while the rest drains.
    let last = CancellationToken::new();
    let admin = tokio::spawn(admin::serve(
        listener,
        health.readiness().clone(),
        registry,
        last.clone(),
    ));

    let options = Options {
        listen_url: args.common.listen_url.clone(),
        max_connections: CONNECTIONS,
        application_name: "hookstream-operator".to_owned(),
        ..Options::new(&args.common.database_url)
    };
    let store = Store::connect_lazy(options).context("--database-url")?;
    let migrated = tokio::select! {
        () = token.cancelled() => Ok(()),
        migrated = migrate(&store, args.shards) => migrated,
    };
    let ended = match migrated {
        Ok(()) if !token.is_cancelled() => {
            Operator {
                args,
                client,
                store: store.clone(),
                keyring,
                sandbox,
                metrics,
                health,
                token,
            }
            .run()
            .await
        }
        other => other,
    };
    last.cancel();
    let _ = admin.await;
    store.pool.close().await;
    ended
}

/// Brings the tables up to date, however long the database takes to appear.
async fn migrate(store: &Store, shards: u16) -> anyhow::Result<()> {
    loop {
        match store::migrate(&store.pool, shards).await {
            Ok(_) => return Ok(()),
            Err(error @ store::Error::Newer { .. }) => return Err(error.into()),
            Err(error) => tracing::warn!(error = chain(&error), "waiting for the database"),
        }
        tokio::time::sleep(RETRY).await;
    }
}

struct Operator {
    args: Args,
    client: Client,
    store: Store,
    keyring: Arc<Keyring>,
    sandbox: sandbox::Pool,
    metrics: Metrics,
    health: Health,
    token: CancellationToken,
}

impl Operator {
    async fn run(self) -> anyhow::Result<()> {
        let Operator {
            args,
            client,
            store,
            keyring,
            sandbox,
            metrics,
            health,
            token,
        } = self;
        let stop = token.clone();
        let name = args
            .pod_name
            .clone()
            .or_else(host_name)
            .unwrap_or_else(|| "hookstream-operator".to_owned());
        // A restarted container has the same pod name, and must not take its predecessor's lease for its own.
        let holder = format!("{name}/{:016x}", rand::random::<u64>());
        let gateway_timeout = args.gateway_timeout;

        let resign = CancellationToken::new();
        let settings = leadership::Settings {
            holder: holder.clone(),
            ttl: args.lease_ttl,
        };
        let (leadership, leading) = leadership::spawn(store.pool.clone(), settings, resign.clone());

        let (notices, notes) = Notices::channel();
        let (events, sending) = events::channel(client.clone(), name.clone(), metrics.clone());
        let (changes, changes_in) = mpsc::channel(CHANGES);
        let (reports, reports_in) = mpsc::channel(REPORTS);
        let (wanted, wanted_in) = channel::channel(Default::default());
        let (fleet, fleet_in) = channel::channel(Fleet {
            replicas: Vec::new(),
            since_epoch: 0,
            database: Database::Here,
        });
        let heartbeats = Arc::new(Notify::new());

        let mut tasks = JoinSet::new();
        tasks.spawn(sending.run(token.clone()));
        tasks.spawn(until(
            token.clone(),
            events::about_the_operator(notes, pod(&args), events.clone()),
        ));
        tasks.spawn(until(
            token.clone(),
            hints(store.clone(), heartbeats.clone()),
        ));
        tasks.spawn(fleet::watching::run(
            store.pool.clone(),
            gateway_timeout,
            heartbeats,
            metrics.clone(),
            fleet,
            token.clone(),
        ));

        let watching = Watching::new(
            changes.clone(),
            health.clone(),
            metrics.clone(),
            notices.clone(),
        );
        watch_all(
            &args, &client, &watching, &mut tasks, wanted_in, &metrics, changes, &token,
        );

        let settings = publisher::Settings {
            holder,
            secrets: core::Secrets::OnDemand,
            removal_hold: args.removal_hold,
            compare_every: args.compare_every,
            gateway_timeout,
            sandbox,
        };
        let ends = publisher::Channels {
            changes: changes_in,
            leadership: leadership.clone(),
            wanted,
            reports,
            notices,
        };
        let loaded = move || health.ready("database");
        tasks.spawn(publisher::run(
            store.clone(),
            keyring,
            settings,
            metrics.clone(),
            ends,
            loaded,
            token.clone(),
        ));

        let (circuits, circuits_in) = channel::channel(circuits::Circuits::default());
        tasks.spawn(circuits::run(store.pool.clone(), circuits, token.clone()));

        let statuses = Statuses::new(client, args.common.public_url.clone(), events, metrics);
        tasks.spawn(statuses.run(
            Inputs {
                reports: reports_in,
                leadership,
                fleet: fleet_in,
                circuits: circuits_in,
            },
            token,
        ));

        let mut ended = Ok(());
        while let Some(task) = tasks.join_next().await {
            if let Err(error) = task {
                // A bug of ours. The pod's restart is the remedy, and a half-dead operator the worst state.
                ended = Err(error).context("a task of the operator died");
            }
            // Each of them ends only when all do.
            stop.cancel();
        }
        resign.cancel();
        let _ = leading.await;
        ended
    }
}

#[expect(clippy::too_many_arguments, reason = "called once, and only passes on")]
fn watch_all(
    args: &Args,
    client: &Client,
    watching: &Watching,
    tasks: &mut JoinSet<()>,
    wanted: channel::Receiver<std::collections::BTreeSet<routing::compile::SecretName>>,
    metrics: &Metrics,
    changes: mpsc::Sender<crate::change::Change>,
    token: &CancellationToken,
) {
    let scopes = Scope::of(&args.watch_namespaces);
    let (seen, seen_in) = mpsc::channel(CHANGES);
    let fetcher = Fetcher::new(client.clone(), changes, metrics.clone(), &scopes);
    tasks.spawn(fetcher.run(seen_in, wanted, token.clone()));
    // Registered before the first one runs, else the first would be the last to sync.
    let mut watches = Vec::new();
    for scope in &scopes {
        for kind in crds::Kind::ALL {
            watches.push((
                scope.clone(),
                kind,
                watching.register(format!("{} in {scope}", kind.as_str())),
            ));
        }
    }
    for scope in &scopes {
        let watch = watching.register(format!("namespaces of {scope}"));
        tasks.spawn(metadata::namespaces(
            client.clone(),
            scope.clone(),
            watching.clone(),
            watch,
            token.clone(),
        ));
        tasks.spawn(metadata::secrets(
            client.clone(),
            scope.clone(),
            seen.clone(),
            watching.clone(),
            token.clone(),
        ));
    }
    for (scope, kind, watch) in watches {
        tasks.spawn(watch::run(
            client.clone(),
            kind,
            scope,
            watching.clone(),
            watch,
            token.clone(),
        ));
    }
}

/// Runs a future until the token is cancelled.
async fn until(token: CancellationToken, future: impl Future<Output = ()> + Send) {
    tokio::select! {
        () = token.cancelled() => {}
        () = future => {}
    }
}

/// Passes on that a gateway has said something.
async fn hints(store: Store, heartbeats: Arc<Notify>) {
    loop {
        match listen::Listener::connect(&store).await {
            Ok(mut listener) => loop {
                match listener.next().await {
                    Ok(listen::Hint::Replicas | listen::Hint::Lost) => heartbeats.notify_one(),
                    Ok(_) => {}
                    Err(error) => {
                        tracing::debug!(error = chain(&error), "no hints for now");
                        tokio::time::sleep(RETRY).await;
                    }
                }
            },
            Err(error) => tracing::debug!(error = chain(&error), "no hints for now"),
        }
        tokio::time::sleep(RETRY).await;
    }
}

fn host_name() -> Option<String> {
    std::fs::read_to_string("/proc/sys/kernel/hostname")
        .ok()
        .map(|name| name.trim().to_owned())
        .filter(|name| !name.is_empty())
}

/// The operator's own pod, if it was told which one it is.
fn pod(args: &Args) -> Option<ObjectReference> {
    Some(ObjectReference {
        api_version: Some("v1".to_owned()),
        kind: Some("Pod".to_owned()),
        name: Some(args.pod_name.clone()?),
        namespace: Some(args.pod_namespace.clone()?),
        ..ObjectReference::default()
    })
}
