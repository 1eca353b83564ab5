//! The whole, under load, while fate kills parts of it: an API server, an operator, two gateways and Postgres, all real
//! processes. At the end every event whose sender got a 2xx has been delivered or is a dead letter; none is lost, and
//! each duplicate has a crash to explain it. Once with as few rules as there can be, once with all of them on.

mod parts;
mod rules;

use anyhow::Context;
use parts::{Part, gateway};
use rand::{Rng, SeedableRng, rngs::StdRng};
use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};
use store::{PrivateServer, Store, private_server};
use tests::{
    cluster::Cluster,
    process::free_port,
    receiver::{Received, Receiver},
    sender::Sender,
};

/// How long the load and the killing go on.
const LENGTH: Duration = Duration::from_secs(40);
const BETWEEN_KILLS: Duration = Duration::from_secs(3);
const SENDERS: usize = 8;
/// In flight at the destination; what a crash may repeat, together with the outcomes that are not yet written.
const CONCURRENCY: usize = 8;
pub(crate) const LEASE: &str = "2s";

/// One at a time: each takes the machine for a minute.
static ALONE: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());

/// What is on, and what must be true of it.
struct Rules {
    /// `URL` stands for the receiver's.
    manifests: &'static str,
    /// The headers of the request with this number and body.
    headers: fn(u64, &str) -> Vec<(&'static str, String)>,
    /// Whether the receiver fails, by how many requests it had before.
    fails: fn(usize) -> bool,
    /// A sender that isn't answered sends the same again.
    repeats: bool,
    /// Looks at one request that arrived.
    check: fn(&Received) -> anyhow::Result<()>,
}

const FEW: Rules = Rules {
    manifests: r#"
apiVersion: hookstream.io/v1alpha1
kind: Source
metadata: {name: shop}
spec: {path: shop}
---
apiVersion: hookstream.io/v1alpha1
kind: Destination
metadata: {name: orders}
spec:
  http: {url: "URL", timeout: 5s}
  retry: {backoff: Fixed, intervals: [250ms], maxRetries: 30}
  concurrency: 8
---
apiVersion: hookstream.io/v1alpha1
kind: Connection
metadata: {name: shop-to-orders}
spec:
  source: {name: shop}
  destination: {name: orders}
  filter: {all: [{path: body.n, op: gte, value: 0}]}
"#,
    headers: |_, _| Vec::new(),
    // Retries are in flight at every kill.
    fails: |before| before % 10 == 9,
    repeats: false,
    check: |_| Ok(()),
};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_accepted_event_is_lost_while_fate_kills_parts_of_the_whole() -> anyhow::Result<()> {
    let _alone = ALONE.lock().await;
    endure(&FEW).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn none_is_lost_nor_taken_twice_with_all_rules_on() -> anyhow::Result<()> {
    let _alone = ALONE.lock().await;
    endure(&rules::ALL).await
}

async fn endure(rules: &Rules) -> anyhow::Result<()> {
    let seed: u64 = rand::rng().random();
    println!("seed {seed}");
    let mut fate = StdRng::seed_from_u64(seed);

    let folder = tempfile::tempdir()?;
    let keyring = folder.path().join("keyring");
    std::fs::write(&keyring, store::Keyring::generate().to_text().expose())?;
    let mut postgres = PrivateServer::start(private_server::Options {
        data_dir: None,
        fsync: true,
        settings: Vec::new(),
    })
    .await?;
    let url = postgres.url(private_server::DATABASE);
    let cluster = Cluster::start().await;
    cluster.install_crds().await;

    let fails = rules.fails;
    let receiver = Receiver::answering(move |_, before| match fails(before) {
        true => http::StatusCode::SERVICE_UNAVAILABLE,
        false => http::StatusCode::OK,
    })
    .await?;
    let ports = [free_port(), free_port()];
    let mut parts = [
        gateway("gateway-0", ports[0], &url, &keyring)?,
        gateway("gateway-1", ports[1], &url, &keyring)?,
        Part::start(
            "hookstream-operator",
            [
                "--admin-listen",
                &format!("127.0.0.1:{}", free_port()),
                "--lease-ttl",
                LEASE,
                "--log",
                "warn",
            ]
            .map(str::to_owned)
            .to_vec(),
            vec![
                ("DATABASE_URL", url.clone()),
                ("HOOKSTREAM_KEYRING", keyring.display().to_string()),
                ("KUBECONFIG", cluster.kubeconfig().display().to_string()),
            ],
        )?,
    ];
    let manifests = rules.manifests.replace("URL", &receiver.url("/orders"));
    cluster
        .kubectl(
            &["apply", "--server-side", "-n", "default", "-f", "-"],
            &manifests,
        )
        .await?;
    all_ready(&cluster).await.with_context(|| {
        parts
            .iter()
            .map(Part::output)
            .collect::<Vec<_>>()
            .join("\n---\n")
    })?;

    let accepted: Arc<Mutex<Vec<String>>> = Arc::default();
    let (sent, stop) = (
        Arc::new(AtomicU64::new(0)),
        Arc::new(AtomicBool::new(false)),
    );
    let mut senders = tokio::task::JoinSet::new();
    for _ in 0..SENDERS {
        let (accepted, sent, stop) = (accepted.clone(), sent.clone(), stop.clone());
        let (headers, repeats) = (rules.headers, rules.repeats);
        senders.spawn(async move {
            let sender = Sender::default();
            let mut again = None;
            while !stop.load(Ordering::Relaxed) {
                let n = again
                    .take()
                    .unwrap_or_else(|| sent.fetch_add(1, Ordering::Relaxed));
                let port = ports[rand::random_range(0..2)];
                let url = format!("http://127.0.0.1:{port}/v1/ingest/shop");
                let body = format!("{{\"n\":{n},\"key\":{}}}", n % 64);
                let headers = headers(n, &body);
                let headers: Vec<(&str, &str)> = headers
                    .iter()
                    .map(|(name, value)| (*name, &**value))
                    .collect();
                match sender.post(&url, &headers, body.clone()).await {
                    Ok(answer) if answer.status.is_success() => accepted
                        .lock()
                        .expect("no holder panics")
                        .push(answer.event_id()?),
                    Ok(answer) if answer.status.is_client_error() => {
                        anyhow::bail!("{} {:?}", answer.status, answer.body)
                    }
                    // 503, or nobody there: not accepted; a pause keeps the log readable.
                    _ => {
                        again = repeats.then_some(n);
                        tokio::time::sleep(Duration::from_millis(20)).await;
                    }
                }
            }
            anyhow::Ok(())
        });
    }

    let end = tokio::time::Instant::now() + LENGTH;
    let (mut kills, mut turn) = (0, 0);
    while tokio::time::Instant::now() < end {
        tokio::time::sleep(BETWEEN_KILLS).await;
        turn += 1;
        if turn == 6 {
            println!("restarting Postgres");
            postgres.restart().await?;
            continue;
        }
        let victim = fate.random_range(0..parts.len());
        println!("killing {} {victim}", parts[victim].program);
        parts[victim].kill().await?;
        kills += 1;
        parts[victim].again()?;
        // A change of the resources in between: the operator has to live on as well.
        let patch = format!(r#"{{"spec":{{"displayName":"turn {turn}"}}}}"#);
        cluster
            .kubectl(
                &[
                    "patch",
                    "-n",
                    "default",
                    "hconn",
                    "shop-to-orders",
                    "--type=merge",
                    "-p",
                    &patch,
                ],
                "",
            )
            .await?;
    }
    stop.store(true, Ordering::Relaxed);
    while let Some(sender) = senders.join_next().await {
        sender??;
    }

    let accepted = accepted.lock().expect("no holder panics").clone();
    let store = Store::connect(store::Options::new(&url)).await?;
    drained(&store).await.with_context(|| {
        parts
            .iter()
            .map(Part::output)
            .collect::<Vec<_>>()
            .join("\n---\n")
    })?;

    let mut arrivals: HashMap<String, usize> = HashMap::new();
    for (index, received) in receiver.received().iter().enumerate() {
        (rules.check)(received).with_context(|| format!("{received:?}"))?;
        if !(rules.fails)(index) {
            *arrivals.entry(received.event_id().to_owned()).or_default() += 1;
        }
    }
    let dead: Vec<uuid::Uuid> =
        sqlx::query_scalar("select event_id from deliveries where state = 'dead_letter'")
            .fetch_all(store.pool.raw())
            .await?;
    let dead: Vec<String> = dead
        .into_iter()
        .map(|id| routing::ids::format(routing::ids::Prefix::Event, id))
        .collect();
    let lost: Vec<&String> = accepted
        .iter()
        .filter(|id| !arrivals.contains_key(*id) && !dead.contains(id))
        .collect();
    assert!(
        lost.is_empty(),
        "seed {seed}: {} of {} accepted events are lost: {:?}",
        lost.len(),
        accepted.len(),
        &lost[..lost.len().min(10)]
    );

    let duplicates: usize = arrivals.values().map(|count| count - 1).sum();
    println!(
        "{} sent, {} accepted, {} events arrived, {} dead letters, {duplicates} duplicates over {kills} kills and a restart of Postgres",
        sent.load(Ordering::Relaxed),
        accepted.len(),
        arrivals.len(),
        dead.len()
    );
    assert!(
        accepted.len() > 500,
        "only {} events were accepted: the load did not get through",
        accepted.len()
    );
    // A crash repeats at most what was in flight or unwritten then: the attempts in flight, and one batch of outcomes that
    // was being written and one that was being gathered.
    let explained = (kills + 1) * (CONCURRENCY + 2 * 512);
    assert!(
        duplicates <= explained,
        "{duplicates} duplicates, at most {explained} are explained by {kills} kills"
    );

    let (deliveries, most): (i64, Option<i32>) =
        sqlx::query_as("select count(*), max(attempts)::int from deliveries")
            .fetch_one(store.pool.raw())
            .await?;
    let (firsts, bodies, copies): (i64, i64, i64) = sqlx::query_as(
        "select count(*) filter (where duplicate_of is null), count(distinct body) filter (where duplicate_of is null),
                count(duplicate_of) from events",
    )
    .fetch_one(store.pool.raw())
    .await?;
    println!("{firsts} events are firsts, {copies} copies of them");
    assert_eq!(
        deliveries, firsts,
        "each event that is no copy has one delivery, finished once"
    );
    if rules.repeats {
        assert_eq!(firsts, bodies, "what a sender repeats is taken once");
        assert!(
            accepted.len() as i64 <= firsts,
            "no answer tells a copy's own id"
        );
    }
    assert!(
        most.unwrap_or(0) <= 31,
        "{most:?} attempts of a delivery that may have 31"
    );

    all_ready(&cluster)
        .await
        .with_context(|| parts[2].output())?;
    for part in &mut parts {
        let process = part.process.take().context("it runs")?;
        let status = process.stop(Duration::from_secs(30)).await?;
        assert!(status.success(), "{} ended with {status}", part.program);
    }
    store.pool.close().await;
    postgres.stop().await?;
    Ok(())
}

/// Waits until nothing is pending any more.
async fn drained(store: &Store) -> anyhow::Result<()> {
    let end = tokio::time::Instant::now() + Duration::from_secs(150);
    loop {
        let pending: i64 = sqlx::query_scalar("select count(*) from queue")
            .fetch_one(store.pool.raw())
            .await?;
        if pending == 0 {
            return Ok(());
        }
        anyhow::ensure!(
            tokio::time::Instant::now() < end,
            "{pending} deliveries are still pending"
        );
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

/// As scripts wait; and what keeps them waiting.
async fn all_ready(cluster: &Cluster) -> anyhow::Result<()> {
    let wait = "wait --for=condition=Ready -n default hsrc,hdst,hconn --all --timeout=50s";
    let words = |line: &'static str| line.split(' ').collect::<Vec<_>>();
    if let Err(error) = cluster.kubectl(&words(wait), "").await {
        let describe = "get -n default hsrc,hdst,hconn -o jsonpath={range.items[*]}{.metadata.name}{.status.conditions}{end}";
        let statuses = cluster.kubectl(&words(describe), "").await?;
        return Err(error.context(statuses));
    }
    Ok(())
}
