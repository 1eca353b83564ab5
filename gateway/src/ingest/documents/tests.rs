//! Documents of a real server behind TLS, with the certificates of the delivery tests.

use super::*;
use crate::{
    deliver::receiver::{Receiver, Reply},
    egress::Policy,
    metrics::Metrics,
};
use prometheus::Registry;
use routing::verify::DocumentKind;
use rustls::pki_types::{PrivateKeyDer, pem::PemObject};
use std::sync::atomic::{AtomicUsize, Ordering};

const AUTHORITY: &[u8] = include_bytes!("../../deliver/http/tests/tls/ca.pem");
const KEYS: &str = r#"{"keys":[{"kty":"OKP","crv":"Ed25519","kid":"one","x":"snsoFCuzzd6pjsLmHxvl6hPwbyy_mcTim4orW9_uyrE"}]}"#;

fn tls() -> rustls::ServerConfig {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(
            vec![
                CertificateDer::from_pem_slice(include_bytes!(
                    "../../deliver/http/tests/tls/server.pem"
                ))
                .unwrap(),
            ],
            PrivateKeyDer::from_pem_slice(include_bytes!(
                "../../deliver/http/tests/tls/server.key"
            ))
            .unwrap(),
        )
        .unwrap()
}

/// A place for documents that trusts the test's authority (and this one) and may reach loopback.
fn documents(authority: &[u8]) -> Documents {
    let client = egress::client(egress::Options {
        policy: Policy::with_private_networks(),
        extra_roots: [AUTHORITY, authority]
            .map(|pem| CertificateDer::from_pem_slice(pem).unwrap())
            .to_vec(),
        ..egress::Options::default()
    });
    let metrics = Metrics::new(&Registry::new());
    Documents::new(client, metrics.ingest.documents.clone())
}

fn asker() -> Asker<'static> {
    Asker {
        source: Uuid::from_u128(1),
        namespace: "shop",
    }
}

fn wanted(url: &str, key_id: Option<&str>) -> Wanted {
    Wanted {
        url: url.to_owned(),
        kind: DocumentKind::KeySet,
        key_id: key_id.map(str::to_owned),
    }
}

/// A server that counts its requests.
async fn server(
    reply: impl Fn(usize) -> Reply + Send + Sync + 'static,
) -> (Receiver, Arc<AtomicUsize>) {
    let count = Arc::new(AtomicUsize::new(0));
    let own = count.clone();
    let receiver = Receiver::tls(tls(), move |_| reply(own.fetch_add(1, Ordering::SeqCst))).await;
    (receiver, count)
}

fn with(body: impl Into<Bytes>) -> Reply {
    Reply::With(200, Vec::new(), body.into())
}

fn fetches(documents: &Documents, result: &str) -> u64 {
    documents.fetches.with_label_values(&["jwks", result]).get()
}

#[tokio::test]
async fn many_requests_cause_one_fetch_and_the_next_ones_none() {
    let (receiver, count) = server(|_| with(KEYS)).await;
    let documents = documents(AUTHORITY);
    let wanted = wanted(&receiver.url_by_name(), Some("one"));
    let all = (0..20).map(|_| documents.get(asker(), &wanted));
    for got in futures::future::join_all(all).await {
        assert!(got.unwrap().has(Some("one")));
    }
    assert!(documents.get(asker(), &wanted).await.is_ok());
    assert_eq!(count.load(Ordering::SeqCst), 1);
    assert_eq!(fetches(&documents, "ok"), 1);
}

#[tokio::test]
async fn an_unknown_key_is_looked_for_again_but_not_at_once() {
    let second = KEYS.replace("one", "two");
    let (receiver, count) = server(move |nth| match nth {
        0 => with(KEYS),
        _ => with(second.clone()),
    })
    .await;
    let documents = documents(AUTHORITY);
    let url = receiver.url_by_name();
    assert!(
        documents
            .get(asker(), &wanted(&url, Some("one")))
            .await
            .is_ok()
    );
    let two = wanted(&url, Some("two"));
    for _ in 0..5 {
        let got = documents.get(asker(), &two).await.unwrap();
        assert!(!got.has(Some("two")), "the old document, which refuses");
    }
    assert_eq!(count.load(Ordering::SeqCst), 1);
    // As if AGAIN had gone by.
    *documents.entry("shop", &two).tried.lock().await = None;
    assert!(documents.get(asker(), &two).await.unwrap().has(Some("two")));
    assert_eq!(count.load(Ordering::SeqCst), 2);
}

#[tokio::test]
async fn what_is_no_document_is_not_kept_and_not_asked_for_at_once_again() {
    for reply in [
        Reply::Status(500),
        Reply::With(
            302,
            vec![("location", "https://localhost/".to_owned())],
            Bytes::new(),
        ),
        with("<html>"),
        with(vec![b' '; MOST_BYTES + 1]),
        Reply::Close,
    ] {
        let (receiver, count) = server(move |_| reply.clone()).await;
        let documents = documents(AUTHORITY);
        let wanted = wanted(&receiver.url_by_name(), None);
        for _ in 0..3 {
            assert_eq!(
                documents.get(asker(), &wanted).await.err(),
                Some(Unavailable)
            );
        }
        assert!(count.load(Ordering::SeqCst) <= 1);
        assert_eq!(fetches(&documents, "error"), 1);
    }
}

#[tokio::test(start_paused = true)]
async fn a_server_that_never_answers_is_waited_for_five_seconds() {
    let (receiver, _) = server(|_| Reply::Hang).await;
    let documents = documents(AUTHORITY);
    let wanted = wanted(&receiver.url_by_name(), None);
    let started = tokio::time::Instant::now();
    assert_eq!(
        documents.get(asker(), &wanted).await.err(),
        Some(Unavailable)
    );
    let waited = started.elapsed();
    assert!(waited <= TIMEOUT + Duration::from_millis(10), "{waited:?}");
    assert_eq!(fetches(&documents, "timeout"), 1);
}

#[tokio::test]
async fn an_old_document_serves_while_it_cannot_be_fetched() {
    let (receiver, _) = server(|nth| match nth {
        0 => with(KEYS),
        _ => Reply::Status(503),
    })
    .await;
    let documents = documents(AUTHORITY);
    let wanted = wanted(&receiver.url_by_name(), Some("one"));
    assert!(documents.get(asker(), &wanted).await.is_ok());
    let entry = documents.entry("shop", &wanted);
    for (age, serves) in [(FRESH * 2, true), (STALE + AGAIN, false)] {
        let Some(at) = clock::instant().checked_sub(age) else {
            continue;
        };
        let document = entry.fetched.load().as_ref().unwrap().document.clone();
        entry
            .fetched
            .store(Some(Arc::new(Fetched { document, at })));
        *entry.tried.lock().await = None;
        assert_eq!(
            documents.get(asker(), &wanted).await.is_ok(),
            serves,
            "{age:?}"
        );
    }
}

#[tokio::test]
async fn a_source_causes_no_more_fetches_than_its_allowance() {
    let (receiver, count) = server(|_| with(KEYS)).await;
    let documents = documents(AUTHORITY);
    for n in 0..30 {
        let url = format!("{}{n}", receiver.url_by_name());
        let got = documents.get(asker(), &wanted(&url, None)).await;
        assert_eq!(got.is_ok(), n < BURST, "{n}");
    }
    assert_eq!(count.load(Ordering::SeqCst), BURST as usize);
    assert_eq!(fetches(&documents, "limited"), u64::from(30 - BURST));
    let other = Asker {
        source: Uuid::from_u128(2),
        ..asker()
    };
    let url = format!("{}other", receiver.url_by_name());
    assert!(documents.get(other, &wanted(&url, None)).await.is_ok());
}

#[tokio::test]
async fn nothing_is_kept_beyond_the_bound() {
    let documents = documents(AUTHORITY);
    for n in 0..MOST_KEPT + 10 {
        documents.entry("shop", &wanted(&format!("https://a.example/{n}"), None));
    }
    assert_eq!(documents.kept.lock().unwrap().len(), MOST_KEPT);
}

#[tokio::test]
async fn only_https_and_only_where_the_egress_policy_permits() {
    let (receiver, count) = server(|_| with(KEYS)).await;
    let plain = receiver.url_by_name().replace("https", "http");
    let got = documents(AUTHORITY)
        .get(asker(), &wanted(&plain, None))
        .await;
    assert_eq!(got.err(), Some(Unavailable));
    let guarded = Documents::new(
        egress::client(egress::Options::default()),
        Metrics::new(&Registry::new()).ingest.documents.clone(),
    );
    let got = guarded
        .get(asker(), &wanted(&receiver.url_by_name(), None))
        .await;
    assert_eq!(got.err(), Some(Unavailable));
    assert_eq!(
        guarded.confirm(asker(), &receiver.url_by_name()).await,
        Err(Unavailable)
    );
    assert_eq!(count.load(Ordering::SeqCst), 0);
}

/// The vector's chain is of an authority of its own: trusted by one of the two.
#[tokio::test]
async fn paypals_certificate_must_be_of_a_trusted_authority_and_for_paypal() {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/data/verification");
    let authority = std::fs::read(format!("{folder}/paypal-authority.pem")).unwrap();
    let vector: serde_json::Value =
        serde_json::from_slice(&std::fs::read(format!("{folder}/paypal.json")).unwrap()).unwrap();
    let pem = vector["vectors"][0]["documents"]
        .as_object()
        .and_then(|documents| documents.values().next()?.as_str())
        .unwrap();
    let chain = DocumentKind::PaypalCertificate
        .chain(pem.as_bytes())
        .unwrap()
        .unwrap();
    assert_eq!(chain.name, "messageverificationcerts.paypal.com");
    assert_eq!(documents(&authority).check(&chain), Ok(()));
    let refused = documents(AUTHORITY).check(&chain).unwrap_err();
    assert!(refused.contains("UnknownIssuer"), "{refused}");

    let server = include_bytes!("../../deliver/http/tests/tls/server.pem");
    let refused = DocumentKind::PaypalCertificate.chain(server).unwrap_err();
    assert_eq!(refused, "its certificate isn't the provider's");
}
