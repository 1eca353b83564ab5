//! Against Azurite, Microsoft's emulator: it judges the signature of every request.

use super::{
    stores::{BUCKET, Server, Store, parse, place},
    *,
};
use object_store::azure::{AzureAccessKey, AzureAuthorizer, AzureCredential};

/// Azurite's own account, the same everywhere.
const ACCOUNT: &str = "devstoreaccount1";
const KEY: &str =
    "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw==";

/// Of the same length.
const ANOTHER_KEY: &str =
    "bmV2ZXItdG8tYmUtc2hvd24tbmV2ZXItdG8tYmUtc2hvd24tbmV2ZXItdG8tYmUtc2hvd24tbmV2ZXItdG8tYg==";

fn with_key(address: SocketAddr, container: &str, key: &str) -> Place {
    place(
        &format!("az://{container}/some/where"),
        [
            ("AZURE_STORAGE_ACCOUNT_NAME", ACCOUNT),
            ("AZURE_STORAGE_ACCOUNT_KEY", key),
            ("AZURE_ENDPOINT", &format!("http://{address}/{ACCOUNT}")),
        ],
    )
}

pub(super) async fn start() -> Store {
    let program = "azurite/node_modules/.bin/azurite-blob";
    let server = Server::start("azurite", program, &[], |port| {
        let mut arguments = vec!["--blobHost", "127.0.0.1", "--blobPort", &port];
        arguments.extend(["--inMemoryPersistence", "--disableTelemetry"]);
        // After 5 s it would close an idle connection, on a busy machine with a request in it that it hasn't read.
        arguments.extend(["--blobKeepAliveTimeout", "3600"]);
        arguments.into_iter().map(str::to_owned).collect()
    })
    .await;
    let container = format!(
        "http://{}/{ACCOUNT}/{BUCKET}?restype=container",
        server.address
    );
    let mut signed = Request::put(&container)
        .header("content-length", "0")
        .body(Bytes::new().into())
        .unwrap();
    let key = AzureCredential::AccessKey(AzureAccessKey::try_new(KEY).unwrap());
    AzureAuthorizer::new(&key, ACCOUNT)
        .try_authorize(&mut signed)
        .unwrap();
    let mut request = Request::put(&container);
    for (name, value) in signed.headers() {
        request = request.header(name, value);
    }
    server.request(request, Bytes::new()).await;
    let at = |address, container: &str| with_key(address, container, KEY);
    Store { server, at }
}

#[tokio::test]
async fn a_large_body_goes_by_way_of_azure() {
    let store = start().await;
    a_large_body_goes_by_way_of_the_store(store.place()).await;
}

#[tokio::test]
async fn a_container_that_azure_does_not_have_is_503() {
    let store = start().await;
    let place = (store.at)(store.server.address, "nobodys");
    stores::a_store_that_refuses_is_503(place, "ContainerNotFound", KEY).await;
}

#[tokio::test]
async fn a_key_that_is_not_the_accounts_is_503() {
    let store = start().await;
    let place = with_key(store.server.address, BUCKET, ANOTHER_KEY);
    stores::a_store_that_refuses_is_503(place, "AuthorizationFailure", ANOTHER_KEY).await;
}

#[tokio::test]
async fn a_signature_that_is_not_the_accounts_is_503() {
    let store = start().await;
    let place = place(
        &format!("az://{BUCKET}/some/where"),
        [
            ("AZURE_STORAGE_ACCOUNT_NAME", ACCOUNT),
            (
                "AZURE_STORAGE_SAS_TOKEN",
                "sv=2023-11-03&ss=b&srt=sco&sp=rwdl&se=2099-01-01&sig=never-to-be-shown",
            ),
            (
                "AZURE_ENDPOINT",
                &format!("http://{}/{ACCOUNT}", store.server.address),
            ),
        ],
    );
    stores::a_store_that_refuses_is_503(place, "AuthorizationFailure", "never-to-be-shown").await;
}

#[tokio::test]
async fn many_orphans_are_swept_from_azure() {
    // One request removes 256 at most.
    stores::many_orphans_are_swept_and_no_more(start().await, 300).await;
}

#[tokio::test]
async fn a_connection_to_azure_that_breaks_half_way_costs_no_attempt() {
    let store = start().await;
    stores::a_connection_that_breaks_half_way_costs_no_attempt(&store, kept).await;
}

#[test]
fn a_key_that_is_none_is_refused_and_not_shown() {
    let account = ("AZURE_STORAGE_ACCOUNT_NAME", ACCOUNT);
    let key = "never-to-be-shown";
    let error = parse("az://hooks", [account, ("AZURE_STORAGE_ACCOUNT_KEY", key)]).unwrap_err();
    let shown = format!("{} {error:?}", service::log::chain(&error));
    assert!(!shown.contains(key), "{shown}");
}
