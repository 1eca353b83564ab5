//! Whole gateways in this process: from a sender to a receiver, across replicas and their ends.

use super::*;
use crate::{
    deliver::receiver::{Receiver, Reply},
    testing::{Gateway, Published, connection_row, destination_row, source_row},
};
use store::testing::{Database, Network};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use uuid::Uuid;

struct Test {
    database: Database,
    published: Published,
    receiver: Receiver,
}

impl Test {
    /// One source, one receiver, everything goes from one to the other.
    async fn new(reply: Reply) -> Test {
        let database = Database::create().await;
        let receiver = Receiver::always(reply).await;
        let source = source_row(Uuid::now_v7(), "github", None);
        let url = format!("http://{}/hooks", receiver.address);
        let destination = destination_row(Uuid::now_v7(), "ci", &url);
        let connection = connection_row(Uuid::now_v7(), &source, &destination);
        let published = Published::new(&database.store, &[source, destination, connection]).await;
        Test {
            database,
            published,
            receiver,
        }
    }

    async fn gateway(&self, roles: &[Role]) -> Gateway {
        Gateway::start(
            self.database.options(),
            &self.published.keyring,
            |options| {
                options.roles = roles.to_vec();
                options.egress.policy = egress::Policy::with_private_networks();
            },
        )
        .await
    }

    async fn received(&mut self, within: Duration) -> String {
        let received = tokio::time::timeout(within, self.receiver.next()).await;
        let received = received.expect("the event is delivered in time");
        String::from_utf8(received.body.to_vec()).unwrap()
    }
}

/// Sends one event and checks that it was accepted.
async fn send(gateway: &Gateway, body: &str) {
    let mut stream = tokio::net::TcpStream::connect(gateway.address)
        .await
        .unwrap();
    let length = body.len();
    let request = format!(
        "POST /v1/ingest/github HTTP/1.1\r\nconnection: close\r\ncontent-length: {length}\r\n\r\n{body}"
    );
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
}

#[tokio::test]
async fn an_event_goes_from_its_sender_to_its_destination() {
    let mut test = Test::new(Reply::Status(204)).await;
    let gateway = test.gateway(&Role::ALL).await;
    send(&gateway, "first").await;
    assert_eq!(test.received(Duration::from_secs(10)).await, "first");
    gateway.stop().await.unwrap();
}

#[tokio::test]
async fn what_one_replica_records_another_delivers_within_a_moment() {
    let mut test = Test::new(Reply::Status(204)).await;
    let delivers = test.gateway(&[Role::Delivery]).await;
    let records = test.gateway(&[Role::Ingest]).await;
    // The first one waits until the shards are taken; from then on only the notification decides.
    send(&records, "first").await;
    assert_eq!(test.received(Duration::from_secs(15)).await, "first");
    for n in 0..5 {
        send(&records, &n.to_string()).await;
        assert_eq!(test.received(Duration::from_secs(5)).await, n.to_string());
    }
    records.stop().await.unwrap();
    delivers.stop().await.unwrap();
}

#[tokio::test]
async fn a_replica_that_stops_hands_its_shards_over_long_before_their_leases_end() {
    let mut test = Test::new(Reply::Status(204)).await;
    let first = test.gateway(&Role::ALL).await;
    send(&first, "first").await;
    assert_eq!(test.received(Duration::from_secs(15)).await, "first");
    let second = test.gateway(&Role::ALL).await;
    first.stop().await.unwrap();
    let stopped = tokio::time::Instant::now();
    send(&second, "second").await;
    assert_eq!(test.received(Duration::from_secs(8)).await, "second");
    assert!(
        stopped.elapsed() < Duration::from_secs(3),
        "{:?}; a lease lives for 10 s",
        stopped.elapsed()
    );
    second.stop().await.unwrap();
}

#[tokio::test]
async fn a_gateway_without_a_published_table_is_not_ready_and_answers_503() {
    let database = Database::create().await;
    let keyring = Arc::new(store::Keyring::generate());
    let gateway = Gateway::begin(database.options(), &keyring, |_| {}).await;
    for _ in 0..1000 {
        if gateway
            .readiness
            .get()
            .is_err_and(|reason| reason.contains("operator"))
        {
            break;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert!(
        gateway
            .readiness
            .get()
            .is_err_and(|reason| reason.contains("operator"))
    );
    let mut stream = tokio::net::TcpStream::connect(gateway.address)
        .await
        .unwrap();
    stream
        .write_all(
            b"POST /v1/ingest/github HTTP/1.1\r\nconnection: close\r\ncontent-length: 0\r\n\r\n",
        )
        .await
        .unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 503"), "{answer}");
    gateway.stop().await.unwrap();
}

#[tokio::test]
async fn a_gateway_ends_in_time_while_postgres_is_silent_and_an_event_waits_to_be_recorded() {
    let test = Test::new(Reply::Status(204)).await;
    let network = Network::before(&test.database).await;
    let gateway = Gateway::start(
        store::Options::new(network.url(&test.database)),
        &test.published.keyring,
        |options| options.grace = Duration::from_secs(20),
    )
    .await;
    network.forget_connections();
    let mut stream = tokio::net::TcpStream::connect(gateway.address)
        .await
        .unwrap();
    let request = "POST /v1/ingest/github HTTP/1.1\r\ncontent-length: 1\r\n\r\n1";
    stream.write_all(request.as_bytes()).await.unwrap();
    // Nothing but time-outs can end what follows, so they come at once.
    tokio::time::pause();
    let began = tokio::time::Instant::now();
    let stopped = tokio::time::timeout(Duration::from_secs(3600), gateway.stop()).await;
    stopped.expect("it ends").unwrap();
    assert!(
        began.elapsed() <= Duration::from_secs(50),
        "{:?}",
        began.elapsed()
    );
}

fn egress(policy: Option<&std::path::Path>, proxy: &str) -> Result<egress::Options, String> {
    let args = crate::args::Egress {
        egress_policy: policy.map(std::path::Path::to_owned),
        egress_proxy: Some(proxy.into()),
        egress_proxy_except: vec!["10.0.0.0/8".to_owned()],
    };
    assert!(!format!("{args:?}").contains("hunter2"));
    egress_options(&args, &["127.0.0.0/8".to_owned()]).map_err(|error| format!("{error:#}"))
}

#[test]
fn the_flags_of_the_way_out_become_policies_and_a_mistake_tells_no_password() {
    let file = std::env::temp_dir().join(format!("egress-{}.yaml", uuid::Uuid::now_v7()));
    std::fs::write(&file, "namespaces: {shop: {ports: [443]}}").unwrap();
    let options = egress(Some(&file), "http://me:hunter2@proxy:3128").unwrap();
    assert_eq!(options.policy.allow.len(), 1);
    let shop = &options.namespaces["shop"];
    assert_eq!(
        (&shop.allow, shop.ports.as_slice()),
        (&options.policy.allow, &[443][..])
    );
    assert_eq!(options.proxy.as_ref().unwrap().except.len(), 1);
    assert!(!format!("{options:?}").contains("hunter2"));

    std::fs::write(&file, "default: {alow: []}").unwrap();
    let error = egress(Some(&file), "").unwrap_err();
    assert!(
        error.contains("--egress-policy") && error.contains("alow"),
        "{error}"
    );
    std::fs::remove_file(&file).unwrap();
    let error = egress(Some(&file), "").unwrap_err();
    assert!(error.contains("can't be read"), "{error}");
    let error = egress(None, "https://me:hunter2@proxy").unwrap_err();
    assert!(
        error.contains("--egress-proxy") && !error.contains("hunter2"),
        "{error}"
    );
    assert!(egress(None, "").unwrap().proxy.is_none());
}
