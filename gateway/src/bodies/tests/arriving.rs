//! Bodies that go into the store while they arrive.

use super::*;
use crate::testing::source_row;
use hmac::{Hmac, KeyInit, Mac};
use routing::row::Spec;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

const SECRET: &str = "It's a Secret to Everybody";
const LARGE: usize = (MOST_IN_MEMORY + (9 << 20)) as usize;

/// Sends this much of the body and gives the status and what follows it.
async fn send(
    address: SocketAddr,
    signature: &str,
    body: &[u8],
    announced: usize,
) -> Option<(u16, String)> {
    let mut stream = TcpStream::connect(address).await.unwrap();
    let head = format!(
        "POST /v1/ingest/signed HTTP/1.1\r\nhost: hooks\r\nconnection: close\r\ncontent-length: {announced}\r\n{signature}\r\n"
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    // A refusal may come before the end.
    let _ = stream.write_all(body).await;
    if body.len() < announced {
        return None;
    }
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer).await;
    let answer = String::from_utf8(answer).unwrap();
    let status = answer.split(' ').nth(1)?.parse().ok()?;
    Some((status, answer))
}

fn signature(body: &[u8]) -> String {
    let mut mac = Hmac::<sha2::Sha256>::new_from_slice(SECRET.as_bytes()).unwrap();
    mac.update(body);
    let tag = hex::encode(mac.finalize().into_bytes());
    format!("x-hub-signature-256: sha256={tag}\r\n")
}

struct Arriving {
    test: Test,
    signed: routing::Row,
    published: Published,
}

async fn start(place: Place) -> Arriving {
    let database = Database::create().await;
    let receiver = Receiver::always(Reply::Status(200)).await;
    let mut signed = source_row(Uuid::now_v7(), "signed", Some(SECRET));
    if let Spec::Source(spec) = &mut signed.spec {
        spec.max_body_bytes = 512 << 20;
    }
    let destination = destination_row(Uuid::now_v7(), "all", &receiver.url());
    let connection = connection_row(Uuid::now_v7(), &signed, &destination);
    let rows = [signed.clone(), destination, connection];
    let published = Published::new(&database.store, &rows).await;
    let gateway = Gateway::start(database.options(), &published.keyring, |options| {
        options.egress.policy = Policy::with_private_networks();
        options.objects = Some(place.clone());
        options.limits.max_body = 512 << 20;
    })
    .await;
    let test = Test {
        database,
        place,
        receiver,
        gateway,
    };
    Arriving {
        test,
        signed,
        published,
    }
}

async fn until(gateway: &Gateway, line: &str) {
    for _ in 0..2000 {
        if gateway.metrics().lines().any(|other| other == line) {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("no {line} within 20 s: {}", gateway.metrics());
}

async fn a_body_beyond_memory_goes_into_the_store_as_it_arrives(place: Place) {
    let Arriving { mut test, .. } = start(place).await;
    let address = test.gateway.address;
    let body = large(LARGE);
    let (status, answer) = send(address, &signature(&body), &body, LARGE)
        .await
        .unwrap();
    assert_eq!(status, 200, "{answer}");
    let there = objects(&test.place).await;
    assert_eq!((there.len(), there[0].size), (1, LARGE as u64));
    let received = test.receiver.next().await;
    assert!(received.body == body, "another body");
    assert_eq!(received.header("content-length"), LARGE.to_string());

    // A body that isn't what was signed, or ends half-way, leaves nothing.
    let (status, answer) = send(address, &signature(b"another"), &body, LARGE)
        .await
        .unwrap();
    assert_eq!(status, 401, "{answer}");
    assert!(
        send(address, &signature(&body), &body[..20 << 20], LARGE)
            .await
            .is_none()
    );
    until(&test.gateway, "hookstream_ingest_requests_in_flight 0").await;
    until(&test.gateway, "hookstream_ingest_buffered_bytes 0").await;
    assert_eq!(objects(&test.place).await.len(), 1);
    assert_eq!(test.events().await, 1);
    test.gateway.stop().await.unwrap();
}

#[tokio::test]
async fn a_body_beyond_memory_goes_into_a_folder_as_it_arrives() {
    let (_folder, place) = folder();
    a_body_beyond_memory_goes_into_the_store_as_it_arrives(place).await;
}

#[tokio::test]
async fn a_body_beyond_memory_goes_into_s3_as_it_arrives() {
    let store = s3::start().await;
    a_body_beyond_memory_goes_into_the_store_as_it_arrives(store.place()).await;
}

#[tokio::test]
async fn a_body_beyond_memory_goes_into_azure_as_it_arrives() {
    let store = azure::start().await;
    a_body_beyond_memory_goes_into_the_store_as_it_arrives(store.place()).await;
}

#[tokio::test]
async fn a_body_beyond_memory_goes_by_googles_api_as_it_arrives() {
    let store = google::in_moto().await;
    a_body_beyond_memory_goes_into_the_store_as_it_arrives(store.place()).await;
}

#[tokio::test]
async fn a_source_that_has_to_look_takes_no_body_beyond_memory() {
    let (_folder, place) = folder();
    let Arriving {
        test,
        mut signed,
        published,
    } = start(place).await;
    if let Spec::Source(spec) = &mut signed.spec {
        spec.dedup = Some(routing::dedup::Rule {
            by: routing::dedup::By::Payload,
            window: Duration::from_secs(60),
            conflict: false,
        });
    }
    let revision = published.publish(&[signed], &[]).await;
    until(
        &test.gateway,
        &format!("hookstream_table_revision {revision}"),
    )
    .await;
    let answer = send(test.gateway.address, "", b"", LARGE).await;
    assert_eq!(answer, None);
    until(
        &test.gateway,
        "hookstream_ingest_refused_total{namespace=\"default\",reason=\"payload_too_large\",source=\"signed\"} 1",
    )
    .await;
    assert_eq!(objects(&test.place).await, []);
    test.gateway.stop().await.unwrap();
}
