//! Google's storage is reached by its XML API, whose requests for objects are S3's. fake-gcs-server has a part of it:
//! reading, listing and removing. It takes no object by a plain `PUT`, and knows no upload in parts. So what is written is
//! written into moto, an S3 server that leaves Google's `Authorization` unread.

use super::{
    stores::{BUCKET, Server, Store, parse, place},
    *,
};

const TOKEN: &str = "never-to-be-shown";

fn at(address: SocketAddr, bucket: &str) -> Place {
    place(
        &format!("gs://{bucket}/some/where"),
        [
            ("GOOGLE_BASE_URL", &format!("http://{address}")),
            ("GOOGLE_BEARER_TOKEN", TOKEN),
        ],
    )
}

pub(super) async fn in_moto() -> Store {
    let server = s3::server(&[]).await;
    Store { server, at }
}

async fn start() -> Store {
    let server = Server::start("gcs", "bin/fake-gcs-server", &[], |port| {
        let host = ["-host", "127.0.0.1", "-public-host", "127.0.0.1"];
        ["-scheme", "http", "-backend", "memory", "-port", &port]
            .into_iter()
            .chain(host)
            .map(str::to_owned)
            .collect()
    })
    .await;
    let bucket = Request::post(format!("http://{}/storage/v1/b", server.address))
        .header("content-type", "application/json");
    let name = format!("{{\"name\":\"{BUCKET}\"}}").into();
    server.request(bucket, name).await;
    Store { server, at }
}

/// By the JSON API, which the gateway doesn't use.
async fn put(server: &Server, bodies: &Bodies, id: Uuid, body: Bytes) -> Event {
    let key = bodies.0.as_ref().unwrap().key(id).to_string();
    let name = key.replace('/', "%2F");
    let request = Request::post(format!(
        "http://{}/upload/storage/v1/b/{BUCKET}/o?uploadType=media&name={name}",
        server.address
    ));
    let object_bytes = Some(body.len() as u64);
    server.request(request, body).await;
    Event {
        id,
        object_bytes,
        ..Event::default()
    }
}

#[tokio::test]
async fn a_large_body_goes_by_way_of_googles_api() {
    let store = in_moto().await;
    a_large_body_goes_by_way_of_the_store(store.place()).await;
}

#[tokio::test]
async fn a_bucket_that_google_does_not_have_is_503() {
    let store = in_moto().await;
    let place = at(store.server.address, "nobodys");
    stores::a_store_that_refuses_is_503(place, "NoSuchBucket", TOKEN).await;
}

#[tokio::test]
async fn an_upload_that_is_given_up_leaves_nothing_by_googles_api() {
    stores::an_upload_that_is_given_up_leaves_nothing(in_moto().await).await;
}

#[tokio::test]
async fn many_orphans_are_swept_by_googles_api() {
    stores::many_orphans_are_swept_and_no_more(in_moto().await, 1001).await;
}

#[tokio::test]
async fn what_google_has_is_read_and_swept() {
    let store = start().await;
    let database = Database::create().await;
    let bodies = Bodies::new(store.place(), Uuid::now_v7(), Metrics::default());
    let body = large(THRESHOLD + 1);
    let event = put(&store.server, &bodies, Uuid::now_v7(), body.clone()).await;
    let read = bodies.open(&event).await.unwrap().collect().await.unwrap();
    assert!(read.to_bytes() == body, "another body");
    assert!(bodies.load(&event).await.unwrap().event.body == body);
    let missing = Event {
        id: Uuid::now_v7(),
        ..event.clone()
    };
    let lost = bodies.load(&missing).await.unwrap_err();
    assert!(matches!(lost, Lost::Missing { .. }), "{lost:?}");

    let ancient = Uuid::from_u128(event.id.as_u128() - ((40 * 86_400_000) << 80));
    put(&store.server, &bodies, ancient, body.clone()).await;
    let mut sweep = Sweep {
        pool: database.store.pool.clone(),
        bodies: bodies.clone(),
        grace: super::sweep::GRACE,
        from: None,
    };
    sweep.perform().await.unwrap();
    let left = objects(&store.place()).await;
    assert_eq!(left.len(), 1, "{left:?}");
    assert_eq!(left[0].size, body.len() as u64);
    sweep.grace = Duration::ZERO;
    sweep.perform().await.unwrap();
    assert_eq!(objects(&store.place()).await, []);

    let event = put(&store.server, &bodies, Uuid::now_v7(), body.clone()).await;
    bodies.forget(event.id).await;
    assert_eq!(objects(&store.place()).await, []);

    // A version that takes it is one that moto's part here can be given to.
    let written = bodies.0.as_ref().unwrap().put(event.id, body).await;
    assert_eq!(written, Err(NotKept));
}

#[tokio::test]
async fn a_connection_to_google_that_breaks_half_way_costs_no_attempt() {
    let store = start().await;
    let put = async |bodies: &Bodies, id, body| put(&store.server, bodies, id, body).await;
    stores::a_connection_that_breaks_half_way_costs_no_attempt(&store, put).await;
}

#[test]
fn credentials_that_google_cannot_read_are_refused_and_not_shown() {
    let key = "{\"private_key\": \"never-to-be-shown\"}";
    for (name, value) in [
        ("GOOGLE_SERVICE_ACCOUNT", key),
        ("GOOGLE_SERVICE_ACCOUNT_KEY", key),
        ("GOOGLE_SERVICE_ACCOUNT_KEY", "\"never-to-be-shown\""),
        ("GOOGLE_APPLICATION_CREDENTIALS", key),
        (
            "GOOGLE_SERVICE_ACCOUNT_KEY",
            "{\"private_key\": \"never-to-be-shown\", \"private_key_id\": \"\", \"client_email\": \"\"}",
        ),
    ] {
        let error = parse("gs://hooks", [(name, value)]).unwrap_err();
        let shown = format!("{} {error:?}", service::log::chain(&error));
        assert!(!shown.contains("never-to-be-shown"), "{shown}");
    }
    // Its value is a part of the other's.
    let project = ("GOOGLE_PROJECT", "\"private_key\"");
    let error = parse("gs://hooks", [project, ("GOOGLE_SERVICE_ACCOUNT", key)]).unwrap_err();
    let shown = error.to_string();
    assert!(!shown.contains("never-to-be-shown"), "{shown}");
    let error = parse("gs://hooks", [("GOOGLE_SERVICE_ACCOUNT", key)]).unwrap_err();
    let shown = error.to_string();
    assert!(
        shown.contains("file from $GOOGLE_SERVICE_ACCOUNT: No such file"),
        "{shown}"
    );
}
