//! TLS with `sslmode=verify-full`: to the server that its certificate names, and to no other.
//!
//! `tests/tls` holds an authority and a certificate for `localhost`, good for a hundred years and for nothing else; the
//! authority's key was thrown away.

use crate::support::*;
use std::os::unix::fs::PermissionsExt;
use store::{
    Options, Store, events,
    listen::{Hint, Listener, notify_queue},
    private_server::{DATABASE, Options as ServerOptions, PrivateServer},
};

const AUTHORITY: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/tls/ca.pem");

async fn tls_server() -> PrivateServer {
    let mut server = PrivateServer::start(ServerOptions {
        fsync: false,
        ..ServerOptions::default()
    })
    .await
    .unwrap();
    // Into its folder, as its user: Postgres takes a key only from itself.
    let data = server.folder().join("data");
    let owner = std::fs::metadata(&data).unwrap();
    use std::os::unix::fs::MetadataExt;
    for (name, text) in [
        ("server.crt", include_str!("../tls/server.pem")),
        ("server.key", include_str!("../tls/server.key")),
    ] {
        let path = data.join(name);
        std::fs::write(&path, text).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
        std::os::unix::fs::chown(&path, Some(owner.uid()), Some(owner.gid())).unwrap();
    }
    std::fs::write(data.join("postgresql.auto.conf"), "ssl = on\n").unwrap();
    server.restart().await.unwrap();
    server
}

#[tokio::test]
async fn a_verified_server_is_used_and_an_unverified_one_refused() {
    let server = tls_server().await;
    let by_name = server.url(DATABASE).replace("127.0.0.1", "localhost");
    let verified = format!("{by_name}?sslmode=verify-full&sslrootcert={AUTHORITY}");
    let store = Store::connect(Options::new(verified)).await.unwrap();
    assert_eq!(
        number(
            &store.pool,
            "SELECT count(*) FROM pg_stat_ssl WHERE pid = pg_backend_pid() AND ssl"
        )
        .await,
        1
    );
    store::migrate(&store.pool, 8).await.unwrap();
    events::record(&store.pool, &[recorded(event(b"x"), &[destination(1)])])
        .await
        .unwrap();
    let mut listener = Listener::connect(&store).await.unwrap();
    notify_queue(&store.pool, &[destination(1)]).await.unwrap();
    assert_eq!(
        listener.next().await.unwrap(),
        Hint::Queue(vec![destination(1)])
    );

    // Another name than the certificate's, and an authority that the machine doesn't know.
    let other_name = format!(
        "{}?sslmode=verify-full&sslrootcert={AUTHORITY}",
        server.url(DATABASE)
    );
    let unknown = format!("{by_name}?sslmode=verify-full");
    for url in [other_name, unknown] {
        let error = Store::connect(Options {
            acquire_timeout: std::time::Duration::from_secs(2),
            ..Options::new(url)
        })
        .await
        .unwrap_err();
        assert!(error.is_transient(), "{error:?}");
    }
}
