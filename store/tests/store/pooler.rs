//! Through a transaction pooler: every transaction may meet another server connection, and finds nothing there that an
//! earlier one left.
//!
//! The pooler is ours: it gives each client another server connection after each transaction, which is the worst that
//! PgBouncer's transaction mode may do.

use crate::support::*;
use std::sync::Arc;
use store::{
    Options, Store, events, lease,
    listen::{self, Hint, Listener},
    outcomes::{self, Finished},
    partitions, queue,
    testing::Database,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::Mutex,
};

type Connections = Arc<Mutex<Vec<TcpStream>>>;

/// Three server connections, logged in and at rest.
async fn pool_of(database: &Database) -> Connections {
    let url = database.url();
    let (address, name) = url.rsplit_once('@').unwrap().1.split_once('/').unwrap();
    let mut connections = Vec::new();
    for _ in 0..3 {
        let mut server = TcpStream::connect(address).await.unwrap();
        server.set_nodelay(true).unwrap();
        let parameters = format!("user\0hookstream\0database\0{name}\0\0");
        let mut startup = u32::try_from(parameters.len() + 8)
            .unwrap()
            .to_be_bytes()
            .to_vec();
        startup.extend(196_608_u32.to_be_bytes());
        startup.extend(parameters.as_bytes());
        server.write_all(&startup).await.unwrap();
        while message(&mut server).await.unwrap().0 != b'Z' {}
        connections.push(server);
    }
    Arc::new(Mutex::new(connections))
}

/// One message with its type: `(type, whole message)`.
async fn message(stream: &mut TcpStream) -> Option<(u8, Vec<u8>)> {
    let mut whole = vec![0; 5];
    stream.read_exact(&mut whole).await.ok()?;
    let length = u32::from_be_bytes(whole[1..5].try_into().unwrap()) as usize;
    whole.resize(1 + length, 0);
    stream.read_exact(&mut whole[5..]).await.ok()?;
    Some((whole[0], whole))
}

async fn serve(mut client: TcpStream, connections: Connections) -> Option<()> {
    loop {
        let mut length = [0; 4];
        client.read_exact(&mut length).await.ok()?;
        let mut rest = vec![0; u32::from_be_bytes(length) as usize - 4];
        client.read_exact(&mut rest).await.ok()?;
        if rest == 80_877_103_u32.to_be_bytes() {
            client.write_all(b"N").await.ok()?;
        } else {
            // Options at start belong to a session, and a pooler has none to give: PgBouncer refuses them.
            assert!(
                !rest.windows(7).any(|window| window == b"options"),
                "start-up options do not pass a pooler"
            );
            break;
        }
    }
    client
        .write_all(b"R\0\0\0\x08\0\0\0\0S\0\0\0\x18server_version\x0015.0\0Z\0\0\0\x05I")
        .await
        .ok()?;
    loop {
        let (kind, first) = message(&mut client).await?;
        if kind == b'X' {
            return Some(());
        }
        // The one that was used longest ago.
        let mut server = loop {
            if let Some(server) = {
                let mut free = connections.lock().await;
                (!free.is_empty()).then(|| free.remove(0))
            } {
                break server;
            }
            tokio::task::yield_now().await;
        };
        let mut request = Some((kind, first));
        loop {
            let (kind, whole) = match request.take() {
                Some(request) => request,
                None => message(&mut client).await?,
            };
            server.write_all(&whole).await.ok()?;
            // Only a query or a Sync is answered to its end.
            if kind != b'Q' && kind != b'S' {
                continue;
            }
            let state = loop {
                let (kind, answer) = message(&mut server).await?;
                client.write_all(&answer).await.ok()?;
                if kind == b'Z' {
                    break answer[5];
                }
            };
            if state == b'I' {
                break;
            }
        }
        connections.lock().await.push(server);
    }
}

async fn pooler(database: &Database) -> u16 {
    let connections = pool_of(database).await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((client, _)) = listener.accept().await {
            client.set_nodelay(true).unwrap();
            tokio::spawn(serve(client, Arc::clone(&connections)));
        }
    });
    port
}

#[tokio::test]
async fn everything_works_through_a_transaction_pooler_and_hints_by_the_direct_url() {
    let db = Database::empty().await;
    let port = pooler(&db).await;
    let name = db.url().rsplit_once('/').unwrap().1;
    let url = format!("postgres://hookstream@127.0.0.1:{port}/{name}?pooler=transaction");
    let options = Options {
        listen_url: Some(db.url().to_owned()),
        ..Options::new(url)
    };
    let store = Store::connect(options).await.unwrap();
    let pool = &store.pool;
    store::migrate(pool, 8).await.unwrap();
    let mut listener = Listener::connect(&store).await.unwrap();
    for round in 0..8 {
        let batch = [
            recorded(event(b"1"), &[destination(1)]),
            recorded(event(b"2"), &[destination(2)]),
        ];
        events::record(pool, &batch).await.unwrap();
        let (lease, held) = own(pool, &format!("a{round}")).await;
        assert_eq!(queue::destinations(pool, SHARD).await.unwrap().len(), 2);
        let pending = queued(pool, destination(1)).await;
        let all: Vec<_> = pending
            .iter()
            .map(|pending| outcome(pending, Finished::Delivered))
            .collect();
        assert!(
            outcomes::write(pool, &all, &held)
                .await
                .unwrap()
                .contains(SHARD)
        );
        assert_eq!(
            lease::renew_many(pool, std::slice::from_ref(&lease), TTL)
                .await
                .unwrap()
                .len(),
            1
        );
        lease::release_many(pool, &[lease]).await.unwrap();
        listen::notify_queue(pool, &[destination(1)]).await.unwrap();
        assert_eq!(
            listener.next().await.unwrap(),
            Hint::Queue(vec![destination(1)])
        );
        let head = store::routes::load_all(pool, &store::Keyring::generate())
            .await
            .unwrap()
            .head;
        assert_eq!(head.revision, 0);
        partitions::ensure(pool, jiff::Timestamp::now())
            .await
            .unwrap();
        assert_eq!(queue::depth(pool).await.unwrap().pending, round + 1);
    }
}

#[tokio::test]
async fn a_transaction_behind_a_pooler_has_the_time_outs_and_waits_for_the_disk() {
    let db = Database::create().await;
    execute(
        &db.store.pool,
        "CREATE TABLE seen (setting text);
         CREATE FUNCTION see() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
             INSERT INTO seen SELECT name || '=' || current_setting(name) FROM unnest(ARRAY[
                 'statement_timeout', 'idle_in_transaction_session_timeout', 'synchronous_commit']) AS name;
             RETURN NEW;
         END $$;
         CREATE TRIGGER see AFTER INSERT ON replica FOR EACH ROW EXECUTE FUNCTION see()",
    )
    .await;
    set_synchronous_commit(&db.store.pool, "off").await;
    let port = pooler(&db).await;
    let name = db.url().rsplit_once('/').unwrap().1;
    let url = format!("postgres://hookstream@127.0.0.1:{port}/{name}?pooler=transaction");
    let store = Store::connect(Options::new(url)).await.unwrap();
    store::replicas::heartbeat(&store.pool, &crate::replicas::replica("a"))
        .await
        .unwrap();
    let seen: Vec<String> = sqlx::query_scalar("SELECT setting FROM seen ORDER BY 1")
        .fetch_all(db.store.pool.raw())
        .await
        .unwrap();
    assert_eq!(
        seen,
        [
            "idle_in_transaction_session_timeout=30s",
            "statement_timeout=30s",
            "synchronous_commit=on"
        ]
    );
}
