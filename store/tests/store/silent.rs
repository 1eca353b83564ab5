//! A server that falls silent without a word, as after a failover or in a partition: nothing is refused, nothing is closed,
//! and no byte comes back. A proxy between us and Postgres stands for the network.
//!
//! The clock is stopped while the network is silent: nothing but our own time-outs can then wake a call, and they come at
//! once, in their order.

use crate::support::*;
use std::{pin::Pin, task::Poll, time::Duration};
use store::{
    Error, Options, Store, events, lease,
    listen::{self, Hint, Listener},
    outcomes::{self, Finished},
    partitions, queue, replicas, routes,
    testing::{Database, Network},
};
use tokio::time::Instant;

/// Polls once and goes on, ready or not.
async fn poll_once<F: Future + Unpin>(future: &mut F) -> Poll<F::Output> {
    std::future::poll_fn(|context| Poll::Ready(Pin::new(&mut *future).poll(context))).await
}

/// What `call` says while its connections are silent, and how long it took.
async fn in_silence<T>(call: impl Future<Output = Result<T, Error>>) -> (Error, Duration) {
    tokio::time::pause();
    let began = Instant::now();
    let ended = tokio::time::timeout(Duration::from_secs(3600), call).await;
    let error = ended.expect("it ends").err().expect("nobody answers");
    let took = began.elapsed();
    // What the call left behind ends as well: connections that wait for an answer give up their places.
    tokio::time::sleep(Duration::from_secs(10)).await;
    tokio::time::resume();
    (error, took)
}

/// A store whose connections run through the network, with one for the whole pool.
async fn store_of_one(database: &Database, network: &Network, more: &str) -> Store {
    let options = Options {
        max_connections: 1,
        ..Options::new(network.url(database) + more)
    };
    Store::connect(options).await.unwrap()
}

/// Comes back when the one connection is in the pool: the driver puts it there in the background.
async fn at_rest(store: &Store) {
    while store.pool.idle() == 0 {
        tokio::task::yield_now().await;
    }
}

/// Each call of `$calls` in turn finds its connection silent, says so in time, and leaves the pool as good as new.
macro_rules! each_ends {
    ($network:ident, $store:ident: $($name:literal within $limit:literal s: $call:expr;)*) => {$(
        // Used a moment ago, so it's not tried before it's used again.
        queue::destinations(&$store.pool, SHARD).await.expect($name);
        at_rest(&$store).await;
        $network.forget_connections();
        let (error, took) = in_silence($call).await;
        assert!(error.is_transient(), "{}: {error:?}", $name);
        assert!(took <= Duration::from_secs($limit), "{} took {took:?}", $name);
        queue::destinations(&$store.pool, SHARD).await.expect($name);
    )*};
}

async fn every_call_ends(more: &str) {
    let db = Database::create().await;
    let network = Network::before(&db).await;
    let store = store_of_one(&db, &network, more).await;
    let pool = &store.pool;
    let (lease, held) = own(pool, "a").await;
    let batch = [recorded(event(b"1"), &[destination(1)])];
    events::record(pool, &batch).await.unwrap();
    let pending = queued(pool, destination(1)).await.remove(0);
    let delivered = [outcome(&pending, Finished::Delivered)];
    let ring = store::Keyring::generate();
    let now = jiff::Timestamp::now();
    let ttl = Duration::from_secs(9);
    let leases = [lease];
    let name = [lease::shard_name(SHARD)];
    each_ends! { network, store:
        "record" within 40 s: events::record(pool, &batch);
        "outcomes" within 40 s: outcomes::write(pool, &delivered, &held);
        "head" within 40 s: queue::head(pool, SHARD, destination(1), None, 1);
        "depth" within 40 s: queue::depth(pool);
        "partitions" within 40 s: partitions::ensure(pool, now);
        "table" within 40 s: routes::load_all(pool, &ring);
        "notify" within 40 s: listen::notify_queue(pool, &[destination(1)]);
        "renew" within 4 s: lease::renew_many(pool, &leases, ttl);
        "acquire" within 4 s: lease::acquire_many(pool, &name, "b", ttl);
        "leases" within 6 s: lease::list(pool, "shard/");
        "release" within 6 s: lease::release_many(pool, &leases);
        "replicas" within 6 s: replicas::live(pool, ttl);
        "migrate" within 611 s: store::migrate(pool, 8);
    }
}

#[tokio::test]
async fn no_call_waits_for_a_silent_server_for_ever_and_none_keeps_its_connection() {
    every_call_ends("").await;
}

#[tokio::test]
async fn nor_does_one_behind_a_transaction_pooler() {
    every_call_ends("?pooler=transaction").await;
}

#[tokio::test]
async fn a_call_that_its_caller_gives_up_keeps_no_connection_either() {
    let db = Database::create().await;
    let network = Network::before(&db).await;
    let store = store_of_one(&db, &network, "").await;
    let batch = [recorded(event(b"1"), &[destination(1)])];
    at_rest(&store).await;
    network.forget_connections();
    let (error, _) = in_silence(async {
        tokio::time::timeout(Duration::from_secs(1), events::record(&store.pool, &batch))
            .await
            .unwrap_or(Err(Error::Unavailable("given up".into())))
    })
    .await;
    assert_eq!(format!("{error:?}"), "Unavailable(\"given up\")");
    events::record(&store.pool, &batch).await.unwrap();
}

#[tokio::test]
async fn a_listener_whose_connection_fell_silent_says_so_and_hears_again() {
    let db = Database::create().await;
    let network = Network::before(&db).await;
    let store = store_of_one(&db, &network, "").await;
    let mut listener = Listener::connect(&store).await.unwrap();
    network.forget_connections();
    let (error, took) = in_silence(listener.next()).await;
    assert!(error.is_transient(), "{error:?}");
    assert!(took <= Duration::from_secs(26), "{took:?}");
    assert_eq!(listener.next().await.unwrap(), Hint::Lost);
    listen::notify_queue(&db.store.pool, &[destination(1)])
        .await
        .unwrap();
    let heard = listener.next().await.unwrap();
    assert_eq!(heard, Hint::Queue(vec![destination(1)]));
}

#[tokio::test]
async fn a_listener_to_whom_nobody_speaks_keeps_its_connection_and_what_is_said_while_it_asks() {
    let db = Database::create().await;
    let mut listener = Listener::connect(&db.store).await.unwrap();
    for round in 0..3 {
        let mut next = Box::pin(listener.next());
        // Half a minute passes while it listens: then it asks, and that takes real time.
        tokio::time::pause();
        assert!(poll_once(&mut next).await.is_pending());
        tokio::time::advance(Duration::from_secs(21)).await;
        tokio::time::resume();
        assert!(poll_once(&mut next).await.is_pending());
        listen::notify_queue(&db.store.pool, &[destination(round)])
            .await
            .unwrap();
        assert_eq!(next.await.unwrap(), Hint::Queue(vec![destination(round)]));
    }
}
