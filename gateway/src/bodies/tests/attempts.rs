//! What an attempt does with a body that is an object.

use super::*;
use crate::deliver::{Answer, Attempt, http::Target};
use routing::{
    retry::Outcome,
    row::{HttpSpec, SecretIndex},
    secret::Secret,
    sign::{Scheme, Signing},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
};

const KEY: &str = "whsec_AAECAwQFBgcICQoLDA0ODxAREhMUFRYX";

async fn attempt(spec: HttpSpec, event: &Event, bodies: &Bodies) -> Answer {
    let client = egress::client(egress::Options {
        policy: Policy::with_private_networks(),
        ..egress::Options::default()
    });
    let attempt = Attempt {
        event,
        number: 1,
        now: clock::now(),
        set: None,
        bodies,
    };
    Target::prepare(&spec, &[Secret::new(KEY)], "shop")
        .unwrap()
        .send(&client, attempt)
        .await
}

fn to(receiver: &Receiver) -> HttpSpec {
    HttpSpec {
        url: receiver.url(),
        timeout: Duration::from_secs(10),
        ..HttpSpec::default()
    }
}

fn in_a_folder() -> (TempDir, Bodies) {
    let (folder, place) = folder();
    let bodies = Bodies::new(place, Uuid::now_v7(), Metrics::default());
    (folder, bodies)
}

fn is_ours(answer: &Answer, words: &str) {
    assert_eq!(answer.outcome, Outcome::Internal, "{answer:?}");
    let error = answer.error.as_deref().unwrap_or_default();
    assert!(error.contains(words), "{error}");
}

#[tokio::test]
async fn a_body_that_cannot_be_had_is_our_fault_and_the_attempt_says_why() {
    let (folder, bodies) = in_a_folder();
    let mut receiver = Receiver::always(Reply::Status(200)).await;
    let event = kept(&bodies, Uuid::now_v7(), large(THRESHOLD + 1)).await;
    is_ours(
        &attempt(to(&receiver), &event, &NONE).await,
        "give --object-store",
    );
    let shorter = Event {
        object_bytes: Some(THRESHOLD as u64),
        ..event.clone()
    };
    is_ours(
        &attempt(to(&receiver), &shorter, &bodies).await,
        "in the object store has 262145 bytes",
    );
    bodies.forget(event.id).await;
    let missing = attempt(to(&receiver), &event, &bodies).await;
    is_ours(&missing, "is not in the object store: there is no");
    std::fs::remove_dir_all(folder.path().join("bodies")).unwrap();
    is_ours(
        &attempt(to(&receiver), &event, &bodies).await,
        "is not in the object store",
    );
    assert!(receiver.rest().is_empty(), "nothing was sent");
}

#[tokio::test]
async fn what_is_signed_is_read_first_and_arrives_whole() {
    let (_folder, bodies) = in_a_folder();
    let mut receiver = Receiver::always(Reply::Status(200)).await;
    let body = large(THRESHOLD + 1);
    let event = kept(&bodies, Uuid::now_v7(), body.clone()).await;
    let signed = || HttpSpec {
        signing: Some(Signing {
            scheme: Scheme::StandardWebhooks {},
            keys: vec![SecretIndex(0)],
        }),
        ..to(&receiver)
    };
    let spec = signed();
    let answer = attempt(spec.clone(), &event, &bodies).await;
    assert_eq!(answer.outcome, Outcome::Delivered { status: 200 });
    let sent = receiver.next().await;
    assert!(sent.body == body, "another body");
    // The same as of an event that has its body with it.
    let with_it = Event {
        body: body.clone(),
        object_bytes: None,
        ..event.clone()
    };
    let answer = attempt(spec.clone(), &with_it, &NONE).await;
    assert_eq!(answer.outcome, Outcome::Delivered { status: 200 });
    let same = receiver.next().await;
    if same.header("webhook-timestamp") == sent.header("webhook-timestamp") {
        assert_eq!(
            same.header("webhook-signature"),
            sent.header("webhook-signature")
        );
    }
    assert!(sent.header("webhook-signature").starts_with("v1,"));
    let larger = Event {
        object_bytes: Some(MOST_IN_MEMORY + 1),
        ..event
    };
    is_ours(&attempt(spec, &larger, &bodies).await, "looks into a body");
}

#[tokio::test]
async fn a_kept_connection_that_died_costs_no_attempt_of_a_streamed_body_either() {
    let folder = tempfile::tempdir().unwrap();
    let place = Place::folder(folder.path(), 0).unwrap();
    let bodies = Bodies::new(place, Uuid::now_v7(), Metrics::default());
    // All that such a receiver takes.
    let event = kept(&bodies, Uuid::now_v7(), Bytes::from_static(b"x")).await;
    let receiver = Receiver::forgetful(crate::deliver::receiver::Parting::Reset).await;
    let client = egress::client(egress::Options {
        policy: Policy::with_private_networks(),
        ..egress::Options::default()
    });
    let target = Target::prepare(&to(&receiver), &[], "shop").unwrap();
    for number in 1..=2 {
        let attempt = Attempt {
            event: &event,
            number,
            now: clock::now(),
            set: None,
            bodies: &bodies,
        };
        let answer = target.send(&client, attempt).await;
        assert_eq!(
            answer.outcome,
            Outcome::Delivered { status: 200 },
            "{answer:?}"
        );
    }
}

/// A store that answers every request with these bytes and then says and closes nothing.
async fn stalling(bytes: String) -> (Place, tokio::task::JoinHandle<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let server = tokio::spawn(async move {
        let mut held = Vec::new();
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut read = [0; 8192];
            let _ = stream.read(&mut read).await;
            let _ = stream.write_all(bytes.as_bytes()).await;
            held.push(stream);
        }
    });
    let variables = [
        ("AWS_ACCESS_KEY_ID", "test".to_owned()),
        ("AWS_SECRET_ACCESS_KEY", "test".to_owned()),
        ("AWS_REGION", "us-east-1".to_owned()),
        ("AWS_ENDPOINT_URL", format!("http://{address}")),
        ("AWS_ALLOW_HTTP", "true".to_owned()),
    ];
    let variables = variables.map(|(name, value)| (name.to_owned(), value));
    let place = Place::parse("s3://hooks", THRESHOLD, variables).unwrap();
    (place, server)
}

#[tokio::test]
async fn a_store_that_stalls_half_way_is_not_the_receivers_fault() {
    let head = "HTTP/1.1 200 OK\r\nETag: \"x\"\r\nLast-Modified: Sat, 21 Nov 2026 10:00:00 GMT\r\nContent-Length: 300000\r\n\r\n";
    let event = Event {
        id: Uuid::now_v7(),
        object_bytes: Some(300_000),
        ..Event::default()
    };
    let receiver = Receiver::always(Reply::Status(200)).await;
    let spec = HttpSpec {
        timeout: Duration::from_millis(700),
        ..to(&receiver)
    };
    for bytes in [format!("{head}{}", "x".repeat(5000)), String::new()] {
        let (place, server) = stalling(bytes).await;
        let bodies = Bodies::new(place, Uuid::now_v7(), Metrics::default());
        let answer = attempt(spec.clone(), &event, &bodies).await;
        is_ours(&answer, "within the timeout");
        server.abort();
    }
}

#[tokio::test]
async fn a_receiver_that_hangs_is_the_receivers_fault_also_with_a_streamed_body() {
    let (_folder, bodies) = in_a_folder();
    let receiver = Receiver::always(Reply::Hang).await;
    let event = kept(&bodies, Uuid::now_v7(), large(THRESHOLD + 1)).await;
    let spec = HttpSpec {
        timeout: Duration::from_millis(700),
        ..to(&receiver)
    };
    let answer = attempt(spec, &event, &bodies).await;
    assert_eq!(answer.outcome, Outcome::TimedOut, "{answer:?}");
}
