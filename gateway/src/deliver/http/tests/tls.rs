//! Destinations behind TLS. `tls/` holds an authority, and its certificates for `localhost`: one good until 2126, one that
//! was good for a day in 2020. They are good for nothing else; the authority's key was thrown away.

use super::*;
use crate::deliver::receiver::Received;
use rustls::{
    ServerConfig,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
};
use std::net::SocketAddr;
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

const AUTHORITY: &[u8] = include_bytes!("tls/ca.pem");
const GOOD: &[u8] = include_bytes!("tls/server.pem");
const EXPIRED: &[u8] = include_bytes!("tls/expired.pem");

fn server(certificate: &[u8], protocols: &[&str]) -> ServerConfig {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(
            vec![CertificateDer::from_pem_slice(certificate).unwrap()],
            PrivateKeyDer::from_pem_slice(include_bytes!("tls/server.key")).unwrap(),
        )
        .unwrap();
    config.alpn_protocols = protocols
        .iter()
        .map(|name| name.as_bytes().to_vec())
        .collect();
    config
}

/// Trusts the authority besides the system's.
fn trusting() -> Client {
    egress::client(egress::Options {
        policy: Policy::with_private_networks(),
        extra_roots: vec![CertificateDer::from_pem_slice(AUTHORITY).unwrap()],
        ..egress::Options::default()
    })
}

async fn attempt(client: &Client, url: String) -> Answer {
    let event = event(b"", "x");
    let attempt = Attempt {
        event: &event,
        number: 1,
        now: now(),
        set: None,
        bodies: &crate::bodies::NONE,
    };
    Target::prepare(&spec(url), &[], "shop")
        .unwrap()
        .send(client, attempt)
        .await
}

fn yes(_: &Received) -> Reply {
    Reply::Status(200)
}

#[tokio::test]
async fn a_destination_behind_tls_is_delivered_to_over_http_1_and_2() {
    for protocols in [&["http/1.1"][..], &["h2", "http/1.1"], &[]] {
        let mut receiver = Receiver::tls(server(GOOD, protocols), yes).await;
        let client = trusting();
        let first = attempt(&client, receiver.url_by_name()).await;
        assert_eq!(
            first.outcome,
            Outcome::Delivered { status: 200 },
            "{:?}",
            first.error
        );
        assert_eq!(receiver.next().await.body, "x");
        let timings = first.timings;
        assert!(
            timings.dns_us.is_some() && timings.connect_us.is_some() && timings.tls_us > Some(0),
            "{timings:?}"
        );
        assert!(timings.tls_us < timings.total_us, "{timings:?}");
        let second = attempt(&client, receiver.url_by_name()).await;
        assert_eq!(
            (second.timings.tls_us, receiver.next().await.nth),
            (None, 2),
            "on the same connection"
        );
    }
}

#[tokio::test]
async fn a_certificate_that_does_not_hold_is_unreachable_in_words_that_a_person_understands() {
    let check = async |client: Client, url: String, text: &str| {
        let answer = attempt(&client, url).await;
        assert_eq!(
            (answer.outcome, answer.error.as_deref()),
            (Outcome::Unreachable, Some(text))
        );
        assert!(answer.timings.total_us.is_some());
    };
    let mut good = Receiver::tls(server(GOOD, &[]), yes).await;
    check(
        client(),
        good.url_by_name(),
        "no TLS session with localhost: its certificate is from an authority that is not trusted here (trusted are those \
         of the gateway's system, or in the files that SSL_CERT_FILE and SSL_CERT_DIR name)",
    )
    .await;
    check(
        trusting(),
        good.url(),
        "no TLS session with 127.0.0.1: its certificate is not for this name but for DnsName(\"localhost\")",
    )
    .await;
    let mut expired = Receiver::tls(server(EXPIRED, &[]), yes).await;
    check(
        trusting(),
        expired.url_by_name(),
        "no TLS session with localhost: its certificate has expired",
    )
    .await;
    let mut plain = Receiver::always(Reply::Status(200)).await;
    check(
        trusting(),
        plain.url_by_name().replace("http:", "https:"),
        "no TLS session with localhost: it does not speak TLS on this port",
    )
    .await;
    for receiver in [&mut good, &mut expired, &mut plain] {
        assert!(receiver.rest().is_empty(), "nothing was sent");
    }
}

#[tokio::test]
async fn a_kept_tls_connection_that_was_closed_costs_no_attempt() {
    let reply = |request: &Received| match request.nth {
        1 => Reply::Status(200),
        _ => Reply::Close,
    };
    let mut receiver = Receiver::tls(server(GOOD, &["http/1.1"]), reply).await;
    let client = trusting();
    for _ in 0..2 {
        let answer = attempt(&client, receiver.url_by_name()).await;
        assert_eq!(answer.outcome, Outcome::Delivered { status: 200 });
    }
    assert_eq!(receiver.rest().len(), 3);
}

/// What an HTTP/2 receiver does with the second request of a connection.
#[derive(Debug, Clone, Copy)]
enum Farewell {
    GoAway,
    RefusedStream,
    /// The connection ends without a word.
    Cut,
    /// The receiver's own answer to this one request.
    InternalError,
}

/// Answers the first request of each connection with 200.
async fn second_request_meets(farewell: Farewell) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let acceptor = TlsAcceptor::from(Arc::new(server(GOOD, &["h2"])));
    let serve = async move |stream| -> Result<(), Box<dyn Error + Send + Sync>> {
        let mut connection = h2::server::handshake(acceptor.accept(stream).await?).await?;
        let (_, mut respond) = connection.accept().await.ok_or("no request")??;
        respond.send_response(Response::new(()), true)?;
        let (_, mut respond) = connection.accept().await.ok_or("no second request")??;
        match farewell {
            Farewell::GoAway => connection.abrupt_shutdown(h2::Reason::NO_ERROR),
            Farewell::RefusedStream => respond.send_reset(h2::Reason::REFUSED_STREAM),
            Farewell::InternalError => respond.send_reset(h2::Reason::INTERNAL_ERROR),
            Farewell::Cut => return Ok(()),
        }
        while connection.accept().await.is_some() {}
        Ok(())
    };
    tokio::spawn(async move {
        let mut connections = tokio::task::JoinSet::new();
        while let Ok((stream, _)) = listener.accept().await {
            let serve = serve.clone();
            connections.spawn(async move { serve(stream).await });
        }
    });
    address
}

#[tokio::test]
async fn a_kept_http_2_connection_that_ends_costs_no_attempt() {
    for farewell in [Farewell::GoAway, Farewell::RefusedStream, Farewell::Cut] {
        let address = second_request_meets(farewell).await;
        let client = trusting();
        for _ in 0..2 {
            let url = format!("https://localhost:{}/", address.port());
            let answer = attempt(&client, url).await;
            assert_eq!(
                answer.outcome,
                Outcome::Delivered { status: 200 },
                "{farewell:?}: {:?}",
                answer.error
            );
        }
    }
}

#[tokio::test]
async fn a_stream_that_an_http_2_receiver_resets_is_its_answer() {
    let address = second_request_meets(Farewell::InternalError).await;
    let client = trusting();
    let url = || format!("https://localhost:{}/", address.port());
    attempt(&client, url()).await;
    let answer = attempt(&client, url()).await;
    assert_eq!(answer.outcome, Outcome::Unreachable);
}

const CLIENTS: &[u8] = include_bytes!("tls/client-ca.pem");
const CLIENT: &[u8] = include_bytes!("tls/client.pem");
const CLIENT_KEY: &[u8] = include_bytes!("tls/client.key");

/// Admits only those who show a certificate of `client-ca.pem`.
fn strict() -> ServerConfig {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut roots = rustls::RootCertStore::empty();
    roots
        .add(CertificateDer::from_pem_slice(CLIENTS).unwrap())
        .unwrap();
    let verifier = rustls::server::WebPkiClientVerifier::builder_with_provider(
        Arc::new(roots),
        provider.clone(),
    )
    .build()
    .unwrap();
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_client_cert_verifier(verifier)
        .with_single_cert(
            vec![CertificateDer::from_pem_slice(GOOD).unwrap()],
            PrivateKeyDer::from_pem_slice(include_bytes!("tls/server.key")).unwrap(),
        )
        .unwrap();
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    config
}

/// With an authority, a certificate and its key of its own, as far as there are any.
async fn identified(client: &Client, url: String, ca: bool, certificate: bool) -> Answer {
    let secrets = [AUTHORITY, CLIENT, CLIENT_KEY].map(Secret::new);
    let spec = HttpSpec {
        tls: Some(routing::row::Tls {
            ca: ca.then_some(SecretIndex(0)),
            certificate: certificate.then_some(SecretIndex(1)),
            key: certificate.then_some(SecretIndex(2)),
        }),
        ..spec(url)
    };
    let event = event(b"", "x");
    let attempt = Attempt {
        event: &event,
        number: 1,
        now: now(),
        set: None,
        bodies: &crate::bodies::NONE,
    };
    Target::prepare(&spec, &secrets, "shop")
        .unwrap()
        .send(client, attempt)
        .await
}

#[tokio::test]
async fn a_private_authority_and_a_client_certificate_are_a_destinations_own() {
    let mut receiver = Receiver::tls(strict(), yes).await;
    let client = client();
    let url = || receiver.url_by_name();
    let answer = identified(&client, url(), true, true).await;
    assert_eq!(
        answer.outcome,
        Outcome::Delivered { status: 200 },
        "{:?}",
        answer.error
    );
    // Another destination of the same certificates uses the same connection.
    let answer = identified(&client, url(), true, true).await;
    assert_eq!(
        (answer.outcome, answer.timings.tls_us),
        (Outcome::Delivered { status: 200 }, None)
    );
    // Its connections are not for those without the certificate, nor for those who don't trust it.
    let answer = identified(&client, url(), true, false).await;
    assert_eq!(answer.outcome, Outcome::Unreachable);
    assert!(
        answer.error.as_ref().unwrap().contains("ertificate"),
        "{answer:?}"
    );
    for (ca, certificate) in [(false, true), (false, false)] {
        let answer = identified(&client, url(), ca, certificate).await;
        assert_eq!(answer.outcome, Outcome::Unreachable);
        assert!(
            answer.error.as_ref().unwrap().contains("not trusted here"),
            "{answer:?}"
        );
    }
    assert_eq!(receiver.rest().len(), 2);
}

#[test]
fn a_certificate_without_its_key_is_refused_when_the_destination_is_made_ready() {
    let other = include_bytes!("tls/server.key");
    let refused = |ca: Option<&[u8]>, certificate| {
        crate::egress::Identity::new(ca, certificate)
            .unwrap_err()
            .to_string()
    };
    assert!(refused(None, Some((CLIENT, &other[..]))).contains("can't be used together"));
    assert!(refused(Some(b"nothing"), None).contains("no certificate of an authority"));
}
