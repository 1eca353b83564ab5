//! Postgres restarts, crashes and hangs in the middle of deliveries. Nothing is lost; an attempt is made again only when
//! its outcome could not be written, which is counted.

use super::*;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{
        TcpListener, TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
    sync::watch,
};

async fn server() -> (Server, Store) {
    let server = Server::start(ServerOptions {
        // What is killed here is Postgres, not the machine.
        fsync: false,
        ..ServerOptions::default()
    })
    .await
    .unwrap();
    let store = Store::connect(store::Options::new(server.url("hookstream")))
        .await
        .unwrap();
    store::migrate(&store.pool, SHARDS).await.unwrap();
    (server, store)
}

/// Ends Postgres the polite way, or as a crash would.
async fn end(server: &mut Server, crash: bool) {
    if crash {
        server.kill();
    } else {
        server.stop().await.unwrap();
    }
}

fn distinct(requests: &[Received]) -> usize {
    let ids = requests
        .iter()
        .map(|request| request.header("x-hookstream-event-id"));
    ids.collect::<HashSet<_>>().len()
}

#[tokio::test]
async fn attempts_that_end_while_postgres_is_away_are_written_when_it_is_back() {
    let (mut server, store) = server().await;
    let gate = Arc::new(Semaphore::new(0));
    let mut receiver = Receiver::always(Reply::Gate(gate.clone())).await;
    let ground = Ground::on(store, [destination(uid(1), &receiver.url(), |_| {})]);
    let replica = ground
        .start("a", |options| options.lease_ttl = Duration::from_secs(60))
        .await;
    replica.holds(u32::from(SHARDS)).await;
    for (round, crash) in [(1, false), (2, true)] {
        let batch = ground.record(uid(1), (0..200).map(|_| b"x".to_vec())).await;
        replica.running.handle().recorded(batch);
        let mut requests = Vec::new();
        for _ in 0..64 {
            requests.push(receiver.next().await);
        }
        end(&mut server, crash).await;
        // What is in memory goes on being delivered, as long as the leases are trusted.
        gate.add_permits(200);
        for _ in 64..200 {
            requests.push(receiver.next().await);
        }
        server.restart().await.unwrap();
        ground.until(DELIVERED, 200 * round).await;
        assert_eq!(
            (
                ground.count(QUEUED).await,
                ground.count(ATTEMPTS).await,
                distinct(&requests),
                receiver.rest().len()
            ),
            (0, 200 * round, 200, 0),
            "each once"
        );
    }
    assert_eq!(replica.metrics.outcomes_discarded.get(), 0);
}

#[tokio::test]
async fn a_restart_under_load_loses_nothing_and_repeats_nothing_while_the_leases_live() {
    const EVENTS: i64 = 1500;
    let (mut server, store) = server().await;
    let mut receiver = Receiver::always(Reply::Status(200)).await;
    let ground = Ground::on(store, [destination(uid(1), &receiver.url(), |_| {})]);
    let mut replica = ground
        .start("a", |options| options.lease_ttl = Duration::from_secs(60))
        .await;
    replica.holds(u32::from(SHARDS)).await;
    for (round, crash) in [(1, false), (2, true)] {
        // More than the window: pages are being read, too, when it happens.
        ground
            .record(uid(1), (0..EVENTS).map(|_| b"x".to_vec()))
            .await;
        replica.running.handle().rescan();
        for _ in 0..200 {
            replica.report().await;
        }
        end(&mut server, crash).await;
        server.restart().await.unwrap();
        ground.until(DELIVERED, EVENTS * round).await;
        ground.until(QUEUED, 0).await;
        while replica.reports.try_recv().is_ok() {}
        let requests = receiver.rest();
        assert_eq!(
            (
                distinct(&requests) as i64,
                requests.len() as i64,
                ground.count(ATTEMPTS).await
            ),
            (EVENTS, EVENTS, EVENTS * round)
        );
    }
    assert_eq!(replica.metrics.outcomes_discarded.get(), 0);
}

/// Stands before Postgres. When it is shut nothing passes and nobody is told: a partition, or a machine that hangs.
struct Valve {
    port: u16,
    open: watch::Sender<bool>,
    server: JoinHandle<()>,
}

impl Drop for Valve {
    fn drop(&mut self) {
        self.server.abort();
    }
}

impl Valve {
    async fn before(port: u16) -> Valve {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let own = listener.local_addr().unwrap().port();
        let (open, state) = watch::channel(true);
        let server = tokio::spawn(async move {
            let mut flows = tokio::task::JoinSet::new();
            while let Ok((client, _)) = listener.accept().await {
                let postgres = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
                let (client, postgres) = (client.into_split(), postgres.into_split());
                flows.spawn(flow(client.0, postgres.1, state.clone()));
                flows.spawn(flow(postgres.0, client.1, state.clone()));
            }
        });
        Valve {
            port: own,
            open,
            server,
        }
    }
}

async fn flow(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, mut open: watch::Receiver<bool>) {
    let mut bytes = vec![0; 64 << 10];
    while let Ok(read @ 1..) = from.read(&mut bytes).await {
        if open.wait_for(|open| *open).await.is_err() || to.write_all(&bytes[..read]).await.is_err()
        {
            return;
        }
    }
}

#[tokio::test]
async fn no_attempt_begins_after_the_trust_in_the_lease_has_ended_while_postgres_hangs() {
    const EVENTS: i64 = 100;
    let (first_gate, second_gate) = (Arc::new(Semaphore::new(0)), Arc::new(Semaphore::new(0)));
    let mut first_receiver = Receiver::always(Reply::Gate(first_gate.clone())).await;
    let mut second_receiver = Receiver::always(Reply::Gate(second_gate.clone())).await;
    // The same destination; where a request arrives tells who sent it.
    let row = |url: &str| destination(uid(1), url, |spec| spec.concurrency = 1);
    let ground = Ground::new([row(&second_receiver.url())]).await;
    let url = ground.database.as_ref().unwrap().url();
    let (head, tail) = url.rsplit_once('/').unwrap();
    let (host, port) = head.rsplit_once(':').unwrap();
    let valve = Valve::before(port.parse().unwrap()).await;
    let hanging = Store::connect(store::Options::new(format!("{host}:{}/{tail}", valve.port)))
        .await
        .unwrap();
    let ttl = Duration::from_secs(3);
    let mut first = Ground::on(hanging, [row(&first_receiver.url())])
        .start("a", |options| options.lease_ttl = ttl)
        .await;
    first.holds(u32::from(SHARDS)).await;
    let batch = ground
        .record(uid(1), (0..EVENTS).map(|_| b"x".to_vec()))
        .await;
    first.running.handle().recorded(batch);
    first_receiver.next().await;
    valve.open.send_replace(false);
    first_gate.add_permits(1);
    // As long as the lease is trusted, it goes on.
    first_receiver.next().await;
    let second = ground.start("b", |options| options.lease_ttl = ttl).await;
    second.holds(u32::from(SHARDS)).await;
    // Another has the shards, so the first one's trust has ended: it has deliveries in memory and room to send them.
    second_receiver.next().await;
    first_gate.add_permits(100);
    for _ in 0..2 {
        first.report().await;
    }
    second_gate.add_permits(100);
    ground.until(DELIVERED, EVENTS).await;
    assert_eq!(
        (first.metrics.in_flight.get(), first_receiver.rest().len()),
        (0, 0)
    );
    // What it had sent is what was sent twice, and its outcomes come too late.
    valve.open.send_replace(true);
    let discarded = async {
        while first.metrics.outcomes_discarded.get() < 2 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(LONG, discarded).await.unwrap();
    assert_eq!(
        second_receiver.rest().len() as i64,
        EVENTS - 1,
        "and one that was waited for"
    );
    assert_eq!(
        ground
            .count("SELECT count(*) FROM attempts WHERE replica = 'b'")
            .await,
        EVENTS
    );
    assert_eq!(ground.count(ATTEMPTS).await, EVENTS);
}
