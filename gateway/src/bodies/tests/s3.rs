//! Against moto, which judges credentials only where it is told to.

use super::{
    stores::{BUCKET, Server, Store, place},
    *,
};

const SECRET: &str = "never-to-be-shown";

pub(super) async fn server(options: &[(&str, &str)]) -> Server {
    let server = Server::start("moto", "moto/bin/moto_server", options, |port| {
        ["-H", "127.0.0.1", "-p", &port].map(str::to_owned).to_vec()
    })
    .await;
    let bucket = Request::put(format!("http://{}/{BUCKET}", server.address));
    server.request(bucket, Bytes::new()).await;
    server
}

fn at(address: SocketAddr, bucket: &str) -> Place {
    place(
        &format!("s3://{bucket}/some/where"),
        [
            ("AWS_ACCESS_KEY_ID", "test"),
            ("AWS_SECRET_ACCESS_KEY", SECRET),
            ("AWS_REGION", "us-east-1"),
            ("AWS_ENDPOINT_URL", &format!("http://{address}")),
        ],
    )
}

pub(super) async fn start() -> Store {
    let server = server(&[]).await;
    Store { server, at }
}

#[tokio::test]
async fn a_large_body_goes_by_way_of_s3() {
    let store = start().await;
    a_large_body_goes_by_way_of_the_store(store.place()).await;
}

#[tokio::test]
async fn a_bucket_that_s3_does_not_have_is_503() {
    let store = start().await;
    let place = at(store.server.address, "nobodys");
    stores::a_store_that_refuses_is_503(place, "NoSuchBucket", SECRET).await;
}

#[tokio::test]
async fn a_key_that_s3_does_not_know_is_503() {
    // One request for the bucket is free.
    let server = server(&[("INITIAL_NO_AUTH_ACTION_COUNT", "1")]).await;
    let place = at(server.address, BUCKET);
    stores::a_store_that_refuses_is_503(place, "InvalidAccessKeyId", SECRET).await;
}

#[tokio::test]
async fn an_upload_that_is_given_up_leaves_nothing_in_s3() {
    stores::an_upload_that_is_given_up_leaves_nothing(start().await).await;
}

#[tokio::test]
async fn many_orphans_are_swept_from_s3() {
    // A list has a thousand at most.
    stores::many_orphans_are_swept_and_no_more(start().await, 1001).await;
}

#[tokio::test]
async fn a_connection_to_s3_that_breaks_half_way_costs_no_attempt() {
    let store = start().await;
    stores::a_connection_that_breaks_half_way_costs_no_attempt(&store, kept).await;
}
