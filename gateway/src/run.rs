//! Starts and stops a gateway: the one file that knows all the others, and the order among them.
//!
//! Start: the ports answer at once (503 and not ready, so that nothing waits in the dark), then Postgres, the first
//! table, delivery, and last ingest and readiness. Postgres that is away is waited for, with the reason on `/readyz`;
//! only what waiting cannot mend ends the process.
//!
//! Stop: readiness off; then at the same time no more connections, requests in flight finished and committed, and no
//! more attempts begun, idle shards handed over, attempts in flight finished or given back; then the replica leaves.
//! Everything has a time limit, so SIGTERM ends the process even with Postgres away.

use crate::{
    args::{Args, Limits, Role},
    bodies::{self, Bodies},
    duty, egress, hints,
    ingest::{Ingest, Proxies, Ready, replicas, replicas::Count},
    metrics::Metrics,
    recorder, scheduled, scheduler,
    seen::Observer,
    server,
    table::{self, Keys, Loader},
    tasks,
};
use anyhow::{Context, bail};
use ipnet::IpNet;
use prometheus::Registry;
use service::{admin, admin::Readiness, clock, task};
use std::{
    future::Future,
    sync::{Arc, OnceLock},
    time::Duration,
};
use store::{Store, replicas::Replica};
use tokio::{net::TcpListener, sync::Notify, task::JoinHandle};
use tokio_util::sync::CancellationToken;

/// All that a gateway is told. `dev` and tests fill it in themselves; [`Options::from_args`] does for the process.
#[derive(Debug)]
pub struct Options {
    pub roles: Vec<Role>,
    /// The public port; `None` without the role `ingest`.
    pub public: Option<TcpListener>,
    /// `None`: somebody else serves it.
    pub admin: Option<TcpListener>,
    pub readiness: Readiness,
    /// Its own for each gateway: a name is registered once.
    pub registry: Registry,
    pub database: store::Options,
    pub keys: Keys,
    /// For a database that nobody has laid out yet.
    pub shards: u16,
    /// Differs between replicas that run at the same time; the process adds what makes it differ from its predecessor.
    pub replica: String,
    pub limits: Limits,
    pub trusted_proxies: Vec<IpNet>,
    /// What senders put before `/v1/ingest/…`; some sign it.
    pub public_url: String,
    /// Connections from those begin with a head of PROXY protocol.
    pub proxy_protocol: bool,
    pub egress: egress::Options,
    /// Where large bodies are kept; `None`: in Postgres.
    pub objects: Option<bodies::Place>,
    /// `None`: one of its own.
    pub sandbox: Option<sandbox::Pool>,
    /// Attempts in flight at once.
    pub attempts: u32,
    pub lease_ttl: Duration,
    pub retention: Duration,
    pub grace: Duration,
    pub observer: Observer,
}

impl Options {
    /// The defaults of the flags: all roles, no ports.
    pub fn new(database: store::Options, keys: Keys) -> Options {
        Options {
            roles: Role::ALL.to_vec(),
            public: None,
            admin: None,
            readiness: Readiness::new("starting"),
            registry: Registry::new(),
            database,
            keys,
            shards: 64,
            replica: "gateway".to_owned(),
            limits: Limits::default(),
            trusted_proxies: Vec::new(),
            public_url: "http://localhost:8080".to_owned(),
            proxy_protocol: false,
            egress: egress::Options::default(),
            objects: None,
            sandbox: None,
            attempts: 1024,
            lease_ttl: Duration::from_secs(10),
            retention: Duration::from_secs(30 * 86_400),
            grace: Duration::from_secs(20),
            observer: Observer::none(),
        }
    }

    /// What the flags say, with the ports bound.
    ///
    /// # Errors
    /// A port is taken, an allow rule makes no sense, or the key ring can't be read.
    pub async fn from_args(args: Args) -> anyhow::Result<Options> {
        let keys = Keys::File(args.common.keyring.clone());
        keys.read()
            .with_context(|| format!("--keyring {}", args.common.keyring.display()))?;
        let mut database = store::Options::new(args.common.database_url.clone());
        database.listen_url = args.common.listen_url.clone();
        database.max_connections = args.database_connections;
        database.application_name = "hookstream-gateway".to_owned();
        let public = match args.roles.contains(&Role::Ingest) {
            true => Some(
                TcpListener::bind(args.listen)
                    .await
                    .with_context(|| format!("--listen {}", args.listen))?,
            ),
            false => None,
        };
        let admin = TcpListener::bind(args.common.admin_listen)
            .await
            .with_context(|| format!("--admin-listen {}", args.common.admin_listen))?;
        Ok(Options {
            roles: args.roles,
            public,
            admin: Some(admin),
            shards: args.shards,
            replica: args.replica.unwrap_or_else(host_name),
            limits: args.limits,
            trusted_proxies: args.network.trusted_proxies,
            public_url: args.common.public_url.clone(),
            proxy_protocol: args.proxy_protocol,
            egress: egress_options(&args.egress, &args.network.egress_allow)?,
            objects: objects(&args.objects)?,
            attempts: args.attempts,
            lease_ttl: args.lease_ttl,
            retention: args.retention,
            grace: args.grace,
            ..Options::new(database, keys)
        })
    }
}

fn egress_options(args: &crate::args::Egress, allow: &[String]) -> anyhow::Result<egress::Options> {
    let rules = |texts: &[String], flag: &'static str| {
        let texts = texts.iter().filter(|text| !text.is_empty());
        texts
            .map(|text| text.parse())
            .collect::<Result<Vec<egress::Rule>, egress::InvalidRule>>()
            .context(flag)
    };
    let allow = rules(allow, "--egress-allow")?;
    let policies = match &args.egress_policy {
        Some(path) => egress::Policies::read(path, &allow)
            .with_context(|| format!("--egress-policy {}", path.display()))?,
        None => egress::Policies::same(egress::Policy {
            allow,
            ..egress::Policy::default()
        }),
    };
    let proxy = args
        .egress_proxy
        .as_ref()
        .filter(|proxy| !proxy.0.is_empty());
    let proxy = proxy
        .map(|proxy| proxy.0.parse::<egress::Proxy>().context("--egress-proxy"))
        .transpose()?;
    let except = rules(&args.egress_proxy_except, "--egress-proxy-except")?;
    Ok(egress::Options {
        policy: policies.default,
        namespaces: policies.namespaces,
        proxy: proxy.map(|mut proxy| {
            proxy.except = except;
            proxy
        }),
        ..egress::Options::default()
    })
}

fn objects(args: &crate::args::Objects) -> anyhow::Result<Option<bodies::Place>> {
    let url = args.object_store.as_deref().filter(|url| !url.is_empty());
    url.map(|url| {
        let variables = std::env::vars_os().filter_map(|(name, value)| {
            Some((name.into_string().ok()?, value.into_string().ok()?))
        });
        bodies::Place::parse(url, args.object_threshold, variables)
            .with_context(|| format!("--object-store {url}"))
    })
    .transpose()
}

fn host_name() -> String {
    std::env::var("HOSTNAME")
        .ok()
        .or_else(|| std::fs::read_to_string("/etc/hostname").ok())
        .map_or_else(|| "gateway".to_owned(), |name| name.trim().to_owned())
}

/// Runs until the token is cancelled and the drain is done.
///
/// # Errors
/// What waiting cannot mend: a URL that is none, a database of a newer version, a part of ours that panicked.
pub async fn run(mut options: Options, token: CancellationToken) -> anyhow::Result<()> {
    let metrics = Metrics::new(&options.registry);
    let store = Store::connect_lazy(options.database.clone())?;
    metrics
        .pool
        .max
        .set(i64::from(options.database.max_connections));
    let ends = Ends::default();
    // Whatever way this function ends, nothing that it started goes on.
    let _ends = ends.all.clone().drop_guard();

    let ingest = Arc::new(Ingest::new(
        options.limits.clone(),
        &options.public_url,
        egress::client(options.egress.clone()),
        Proxies {
            trusted: options.trusted_proxies.clone(),
            protocol: options.proxy_protocol,
        },
        metrics.clone(),
        options.observer.clone(),
    ));
    let replica = replica(&options);
    let admin = options.admin.take().map(|listener| {
        let (readiness, registry, end) = (
            options.readiness.clone(),
            options.registry.clone(),
            ends.admin.clone(),
        );
        tokio::spawn(admin::serve(listener, readiness, registry, end))
    });
    let mut server = options.public.take().map(|listener| {
        tracing::info!(
            address = listener
                .local_addr()
                .map(|address| address.to_string())
                .unwrap_or_default(),
            "listening"
        );
        tokio::spawn(server::serve(
            listener,
            ingest.clone(),
            ends.drain.clone(),
            ends.abort.clone(),
        ))
    });

    let started = tokio::select! {
        started = Parts::start(&options, &store, replica, &metrics, &ingest, &ends) => Some(started?),
        () = token.cancelled() => None,
    };
    let mut broken = None;
    if let Some(mut parts) = started {
        options.readiness.ready();
        broken = parts.broken(&token, server.as_mut()).await.err();
        options.readiness.not_ready("draining");
        parts
            .drain(
                &options,
                server.take().filter(|server| !server.is_finished()),
                &ends,
            )
            .await;
    }
    ends.drain.cancel();
    ends.admin.cancel();
    for task in server.into_iter().chain(admin) {
        let _ = tokio::time::timeout(LAST_STEPS, task).await;
    }
    match broken {
        None => Ok(()),
        Some(error) => Err(error),
    }
}

/// Each of the last steps gets this long; with Postgres away they are in vain anyway. At most eight of them follow each
/// other after the grace: with its 20 s that is well within the 60 s that Kubernetes waits.
const LAST_STEPS: Duration = Duration::from_secs(3);

/// What ends what.
struct Ends {
    all: CancellationToken,
    /// No more connections; those that are open finish their request.
    drain: CancellationToken,
    /// Connections end at once.
    abort: CancellationToken,
    /// The recorder ends once its queue is empty.
    recorder: CancellationToken,
    /// Table, hints, housekeeping.
    background: CancellationToken,
    admin: CancellationToken,
}

impl Default for Ends {
    fn default() -> Self {
        let all = CancellationToken::new();
        let end = || all.child_token();
        Ends {
            drain: end(),
            abort: end(),
            recorder: end(),
            background: end(),
            admin: end(),
            all: all.clone(),
        }
    }
}

/// What is running once a gateway has started.
struct Parts {
    store: Store,
    replica: Arc<str>,
    recorder: recorder::Running,
    delivery: scheduler::Running,
    heartbeat: JoinHandle<()>,
    heartbeat_end: CancellationToken,
    background: Vec<JoinHandle<()>>,
    leases: duty::Leases,
}

impl Parts {
    async fn start(
        options: &Options,
        store: &Store,
        replica: Replica,
        metrics: &Arc<Metrics>,
        ingest: &Arc<Ingest>,
        ends: &Ends,
    ) -> anyhow::Result<Parts> {
        let shards = prepare(store, options).await?;
        let bodies = objects_of(store, options, metrics).await?;
        let id: Arc<str> = replica.id.as_str().into();
        let current = Arc::new(table::Current::default());
        let delivery = Arc::new(OnceLock::<scheduler::Handle>::new());
        let (first, wake) = (Arc::new(Notify::new()), Arc::new(Notify::new()));

        options
            .readiness
            .not_ready("waiting for the operator to publish the first routing table");
        let loader = Loader {
            pool: store.pool.clone(),
            keys: options.keys.clone(),
            current: current.clone(),
            replica,
            shards: shards_held(delivery.clone()),
            changed: changed(delivery.clone(), first.clone()),
            metrics: metrics.clone(),
            state: table::State::default(),
        };
        // Apart from the rest: it stops first, since a heartbeat would call a replica that hands over a deliverer.
        let heartbeat_end = ends.background.child_token();
        let heartbeat = task::spawn(
            loader,
            table::POLL,
            wake.clone(),
            &metrics.tasks,
            heartbeat_end.clone(),
        );
        first.notified().await;

        let running = scheduler::start(
            scheduler::Options {
                bodies: bodies.clone(),
                ..delivery_options(options, &id, shards, metrics)
            },
            store,
            current.table(),
            metrics.delivery.clone(),
            CancellationToken::new(),
        );
        let handle = running.handle();
        assert!(delivery.set(handle.clone()).is_ok(), "delivery starts once");
        let recorder_options = recorder::Options {
            writers: options.limits.recorders,
            ..recorder::Options::default()
        };
        let (recorder_handle, recorder) = recorder::start(
            recorder_options,
            store::events::Recorder::new(store.pool.clone()),
            hand_over(handle.clone()),
            metrics.clone(),
            ends.recorder.clone(),
        );
        let scheduled = scheduled::Wakes::default();
        ingest.open(Ready {
            recorder: recorder_handle,
            bodies: bodies.clone(),
            pool: store.pool.clone(),
            scheduled: scheduled.tell.clone(),
            table: current.clone(),
            shards,
        });

        let asked = Arc::new(Notify::new());
        let mut background = vec![hints::start(
            store.clone(),
            ears(handle.clone(), wake, scheduled.due.clone(), asked.clone()),
            ends.background.clone(),
        )];
        let leases = duty::Leases::new(store.pool.clone(), id.clone());
        background.extend(tasks::start(
            &leases,
            tasks::Objects {
                retention: options.retention,
                bodies,
                ingest: ingest.clone(),
                table: current.clone(),
                asked,
            },
            metrics,
            &ends.background,
        ));
        background.extend(scheduled.start(
            &leases,
            current,
            shards,
            hand_over(handle),
            metrics,
            &ends.background,
        ));
        if options.roles.contains(&Role::Ingest) {
            background.push(task::spawn(
                Count {
                    pool: store.pool.clone(),
                    ingest: ingest.clone(),
                    within: options.lease_ttl,
                },
                replicas::PERIOD,
                Arc::new(Notify::new()),
                &metrics.tasks,
                ends.background.clone(),
            ));
        }
        tracing::info!(replica = %id, shards, roles = ?options.roles, "ready");
        Ok(Parts {
            store: store.clone(),
            replica: id,
            recorder,
            delivery: running,
            heartbeat,
            heartbeat_end,
            background,
            leases,
        })
    }

    /// Waits for the end; `Err` when a part ended that shouldn't have: better a restart than half a gateway.
    async fn broken(
        &mut self,
        token: &CancellationToken,
        server: Option<&mut JoinHandle<()>>,
    ) -> anyhow::Result<()> {
        let server = async {
            match server {
                Some(server) => drop(server.await),
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            biased;
            () = token.cancelled() => Ok(()),
            () = self.recorder.broken() => bail!("the recorder ended; see the log for its panic"),
            () = self.delivery.broken() => bail!("delivery ended; see the log for its panic"),
            () = server => bail!("the public port ended; see the log for its panic"),
        }
    }

    async fn drain(mut self, options: &Options, server: Option<JoinHandle<()>>, ends: &Ends) {
        let started = clock::instant();
        let requests = async {
            ends.drain.cancel();
            if let Some(mut server) = server
                && tokio::time::timeout(options.grace, &mut server)
                    .await
                    .is_err()
            {
                tracing::warn!(
                    "requests in flight took longer than the grace; their connections are closed, nothing of them was recorded"
                );
                ends.abort.cancel();
                let _ = tokio::time::timeout(LAST_STEPS, server).await;
            }
            ends.recorder.cancel();
            // All who waited for an answer have it, or have lost their connection: the rest is for nobody.
            let _ = tokio::time::timeout(LAST_STEPS, self.recorder.finish()).await;
        };
        let delivery = async {
            self.heartbeat_end.cancel();
            let _ = tokio::time::timeout(LAST_STEPS, &mut self.heartbeat).await;
            self.delivery.drain(options.grace).await;
        };
        // At once, not one after the other: idle shards go to other replicas while requests are still finished here.
        tokio::join!(requests, delivery);
        // What was recorded last is named to the others in a batch that goes out within this time.
        tokio::time::sleep(Duration::from_millis(50)).await;
        drop(self.delivery);
        ends.background.cancel();
        let background = futures::future::join_all(self.background);
        let _ = tokio::time::timeout(LAST_STEPS, background).await;
        last_step("giving back task leases", self.leases.release()).await;
        last_step(
            "leaving",
            store::replicas::leave(&self.store.pool, &self.replica),
        )
        .await;
        let _ = tokio::time::timeout(LAST_STEPS, self.store.pool.close()).await;
        tracing::info!(
            took_ms = clock::instant().duration_since(started).as_millis(),
            "drained"
        );
    }
}

async fn last_step(what: &str, step: impl Future<Output = store::Result<()>>) {
    match tokio::time::timeout(LAST_STEPS, step).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => tracing::warn!(error = service::log::chain(&error), "{what}"),
        Err(_) => tracing::warn!("{what}: the database does not answer"),
    }
}

/// Waits for Postgres and brings it to this version's tables. Returns the number of shards.
async fn prepare(store: &Store, options: &Options) -> anyhow::Result<u16> {
    let mut pause = Duration::from_millis(250);
    loop {
        let error = match store::migrate(&store.pool, options.shards).await {
            Ok(migrated) => {
                if let Some(ignored) = migrated.ignored_shards {
                    tracing::warn!(
                        asked = ignored,
                        shards = migrated.shards,
                        "this database was laid out with another number of shards, which stays"
                    );
                }
                if !migrated.volatile.is_empty() {
                    tracing::warn!(
                        off = migrated.volatile.join(", "),
                        "this Postgres answers before a commit is on disk: a crash of its machine loses events that were accepted"
                    );
                }
                return Ok(migrated.shards);
            }
            Err(
                error @ (store::Error::Newer { .. }
                | store::Error::Encoding { .. }
                | store::Error::Url(_)
                | store::Error::Schema(_)),
            ) => return Err(error.into()),
            Err(error) => error,
        };
        let why = service::log::chain(&error);
        tracing::warn!(error = why, "waiting for Postgres");
        options
            .readiness
            .not_ready(format!("waiting for Postgres: {why}"));
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(Duration::from_secs(5));
    }
}

/// Under the installation's id, which the database has.
async fn objects_of(store: &Store, options: &Options, metrics: &Metrics) -> anyhow::Result<Bodies> {
    let Some(place) = &options.objects else {
        return Ok(Bodies::default());
    };
    let installation = store::installation::load(&store.pool)
        .await
        .context("reading the installation's id")?;
    tracing::info!(?place, "large bodies are kept in an object store");
    Ok(Bodies::new(
        place.clone(),
        installation.id,
        metrics.bodies.clone(),
    ))
}

fn replica(options: &Options) -> Replica {
    let admin = options
        .admin
        .as_ref()
        .and_then(|admin| admin.local_addr().ok());
    Replica {
        // A container that restarts keeps its name, and its predecessor's leases must not look like its own.
        id: format!("{}-{:08x}", options.replica, rand::random::<u32>()),
        address: admin.map(|admin| admin.to_string()).unwrap_or_default(),
        roles: options
            .roles
            .iter()
            .map(|role| role.as_str().to_owned())
            .collect(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        started_at: clock::now(),
        route_epoch: 0,
        applied_revision: 0,
        unreadable_rows: 0,
        shards: 0,
    }
}

/// What follows from a new table.
fn changed(
    delivery: Arc<OnceLock<scheduler::Handle>>,
    first: Arc<Notify>,
) -> Arc<dyn Fn() + Send + Sync> {
    Arc::new(move || match delivery.get() {
        Some(delivery) => delivery.table_changed(),
        None => first.notify_one(),
    })
}

fn shards_held(delivery: Arc<OnceLock<scheduler::Handle>>) -> table::Shards {
    Arc::new(move || delivery.get().map_or(0, scheduler::Handle::shards_held))
}

fn hand_over(delivery: scheduler::Handle) -> recorder::HandOver {
    Arc::new(move |recorded| delivery.recorded(recorded))
}

fn ears(
    delivery: scheduler::Handle,
    routes: Arc<Notify>,
    scheduled: Arc<Notify>,
    jobs: Arc<Notify>,
) -> hints::Ears {
    let (queue, resets) = (delivery.clone(), delivery.clone());
    let (replicas, lost) = (delivery.clone(), delivery);
    hints::Ears {
        routes,
        queue: Box::new(move |destinations| queue.hint(destinations)),
        resets: Box::new(move |destinations| resets.resets(destinations)),
        scheduled,
        jobs,
        replicas: Box::new(move || replicas.replicas_changed()),
        lost: Box::new(move || lost.rescan()),
    }
}

fn delivery_options(
    options: &Options,
    replica: &Arc<str>,
    shards: u16,
    metrics: &Metrics,
) -> scheduler::Options {
    scheduler::Options {
        delivers: options.roles.contains(&Role::Delivery),
        lease_ttl: options.lease_ttl,
        concurrency: options.attempts as usize,
        egress: egress::Options {
            metrics: metrics.egress.clone(),
            ..options.egress.clone()
        },
        sandbox: options.sandbox.clone().unwrap_or_else(|| {
            let metrics = sandbox::Metrics::new(&options.registry);
            sandbox::Pool::new(sandbox::Options::default(), metrics)
        }),
        observer: options.observer.attempts(),
        ..scheduler::Options::new(replica.clone(), shards)
    }
}

#[cfg(test)]
mod tests;
