//! The public port as senders meet it: a gateway in this process, a database of its own, and raw bytes.

mod bad_input;
mod checks;
mod client;
mod heads;
mod rules;
mod topics;
mod verification;

use crate::{
    args::Role,
    run::Options,
    testing::{Gateway, Published, connection_row, destination_row, source_row},
};
use client::{Sender, post, send};
use hmac::{Hmac, KeyInit, Mac};
use http_body_util::Full;
use routing::{
    Row,
    filter::{Filter, Op, Rule},
    row::Spec,
};
use std::{net::SocketAddr, sync::Arc, time::Duration};
use store::{events::Event, testing::Database};
use uuid::Uuid;

struct Test {
    database: Database,
    published: Published,
    gateway: Gateway,
}

impl Test {
    /// A gateway that only records: what delivery does is tested where it is.
    async fn start(rows: &[Row], customise: impl FnOnce(&mut Options)) -> Test {
        let database = Database::create().await;
        let published = Published::new(&database.store, rows).await;
        let gateway = Gateway::start(database.options(), &published.keyring, |options| {
            options.roles = vec![Role::Ingest];
            customise(options);
        })
        .await;
        Test {
            database,
            published,
            gateway,
        }
    }

    fn address(&self) -> SocketAddr {
        self.gateway.address
    }

    async fn event(&self, id: Uuid) -> Arc<Event> {
        store::events::get_many(&self.database.store.pool, &[id])
            .await
            .unwrap()
            .pop()
            .expect("the event is recorded")
    }

    async fn count(&self, table: &'static str) -> i64 {
        sqlx::query_scalar(match table {
            "events" => "SELECT count(*) FROM events",
            "queue" => "SELECT count(*) FROM queue",
            _ => unreachable!("the tables that ingest writes"),
        })
        .fetch_one(self.database.store.pool.raw())
        .await
        .unwrap()
    }
}

fn source(change: impl FnOnce(&mut routing::row::SourceSpec)) -> Row {
    let mut row = source_row(Uuid::now_v7(), "github", None);
    let Spec::Source(spec) = &mut row.spec else {
        unreachable!("it is a source")
    };
    change(spec);
    row
}

fn plain() -> Row {
    source(|_| {})
}

fn sign(secret: &str, body: &[u8]) -> String {
    let mut mac = Hmac::<sha2::Sha256>::new_from_slice(secret.as_bytes()).unwrap();
    mac.update(body);
    format!(
        "x-hub-signature-256: sha256={}\r\n",
        hex::encode(mac.finalize().into_bytes())
    )
}

#[tokio::test]
async fn an_event_is_recorded_as_it_came_with_its_deliveries_before_the_200() {
    let source = source_row(Uuid::now_v7(), "github", Some("It's a Secret to Everybody"));
    let [first, second] = ["first", "second"]
        .map(|name| destination_row(Uuid::now_v7(), name, "http://127.0.0.1:1/"));
    let connections =
        [&first, &second].map(|destination| connection_row(Uuid::now_v7(), &source, destination));
    let rows = [vec![source.clone(), first, second], connections.to_vec()].concat();
    let test = Test::start(&rows, |options| {
        options.trusted_proxies = vec!["127.0.0.0/8".parse().unwrap()]
    })
    .await;

    let body = b"{\"ref\":\"refs/heads/main\"}\x00\xff";
    let mut request = format!(
        "PATCH /v1/ingest/github/a%20b/c?x=1&y=%ff HTTP/1.1\r\nHost: hooks\r\nX-Two: one\r\n{}",
        sign("It's a Secret to Everybody", body)
    )
    .into_bytes();
    request.extend_from_slice(b"X-Raw: caf\xe9\r\nX-Two: two\r\nX-Forwarded-For: 6.6.6.6, 203.0.113.7\r\nContent-Encoding: br\r\n");
    request.extend_from_slice(format!("Content-Length: {}\r\n\r\n", body.len()).as_bytes());
    request.extend_from_slice(body);
    let answer = send(test.address(), &request).await;

    let event = test.event(answer.event_id()).await;
    assert_eq!(
        answer.json()["source_id"],
        routing::ids::format(routing::ids::Prefix::Source, source.uid)
    );
    assert!(answer.header("x-request-id").is_some());
    assert_eq!(
        (
            event.method.as_str(),
            event.path.as_str(),
            event.query.as_str()
        ),
        ("PATCH", "/a%20b/c", "x=1&y=%ff")
    );
    assert_eq!(&event.body[..], body);
    let headers = String::from_utf8_lossy(&event.headers).into_owned();
    assert!(
        event
            .headers
            .windows(13)
            .any(|window| window == b"x-raw: caf\xe9\r\n"),
        "{headers}"
    );
    assert!(
        headers.contains("x-raw: caf\u{fffd}\r\nx-two: two\r\nx-forwarded-for"),
        "{headers}"
    );
    assert_eq!(event.remote_addr.to_string(), "203.0.113.7");
    assert_eq!(
        (event.source_id, &*event.namespace),
        (source.uid, "default")
    );
    let table = test.published.publish(&[], &[]).await;
    assert_eq!(event.revision, table, "the revision that matched it");
    assert_eq!(
        (test.count("events").await, test.count("queue").await),
        (1, 2)
    );

    let metrics = test.gateway.metrics();
    for line in [
        "hookstream_ingest_accepted_total{namespace=\"default\",source=\"github\"} 1",
        "hookstream_commit_batch_events_sum 1",
        "hookstream_deliveries_recorded_total 2",
    ] {
        assert!(metrics.contains(line), "{line}\n{metrics}");
    }
    test.gateway.stop().await.unwrap();
}

#[tokio::test]
async fn what_is_refused_says_why_and_leaves_nothing() {
    let signed = source_row(Uuid::now_v7(), "signed", Some("secret"));
    let named = |name: &str, change: fn(&mut routing::row::SourceSpec)| {
        let mut row = source_row(Uuid::now_v7(), name, None);
        let Spec::Source(spec) = &mut row.spec else {
            unreachable!("it is a source")
        };
        change(spec);
        row
    };
    let paused = named("paused", |spec| spec.suspended = true);
    let methods = named("methods", |spec| {
        spec.methods = vec!["POST".into(), "PUT".into()]
    });
    let small = named("small", |spec| spec.max_body_bytes = 10);
    let test = Test::start(&[signed, paused, methods, small], |_| {}).await;

    let right = sign("secret", b"{}");
    let wrong = sign("other", b"{}");
    let old_style = "x-hub-signature-256: md5=1234\r\n";
    for (request, status, code, reason) in [
        (
            post("/v1/ingest/nobody", "", b"{}"),
            404,
            "SOURCE_NOT_FOUND",
            None,
        ),
        (
            post("/v1/ingest/", "", b"{}"),
            404,
            "SOURCE_NOT_FOUND",
            None,
        ),
        (
            post("/v1/ingest/src_00000000000000000000000000000000", "", b"{}"),
            404,
            "SOURCE_NOT_FOUND",
            None,
        ),
        (post("/v1/ingest", "", b"{}"), 404, "NOT_FOUND", None),
        (post("/", "", b"{}"), 404, "NOT_FOUND", None),
        (post("/metrics", "", b""), 404, "NOT_FOUND", None),
        (post("/v1/health", "", b""), 405, "METHOD_NOT_ALLOWED", None),
        (
            post("/v1/ingest/signed", &wrong, b"{}"),
            401,
            "UNAUTHORIZED",
            Some("signature_mismatch"),
        ),
        (
            post("/v1/ingest/signed", &right, b"{ }"),
            401,
            "UNAUTHORIZED",
            Some("signature_mismatch"),
        ),
        (
            post("/v1/ingest/signed", "", b"{}"),
            401,
            "UNAUTHORIZED",
            Some("signature_missing"),
        ),
        (
            post("/v1/ingest/signed", old_style, b"{}"),
            401,
            "UNAUTHORIZED",
            Some("signature_malformed"),
        ),
        (
            post("/v1/ingest/paused", "", b"{}"),
            409,
            "SOURCE_PAUSED",
            None,
        ),
        (
            b"DELETE /v1/ingest/methods HTTP/1.1\r\nhost: h\r\n\r\n".to_vec(),
            405,
            "METHOD_NOT_ALLOWED",
            None,
        ),
        (
            post("/v1/ingest/small", "", b"12345678901"),
            413,
            "PAYLOAD_TOO_LARGE",
            None,
        ),
        (
            b"GET / HTTP/1.1\r\nbroken\r\n\r\n".to_vec(),
            400,
            "INVALID_REQUEST",
            None,
        ),
        (
            b"POST /v1/ingest/small HTTP/1.1\r\ncontent-length: many\r\n\r\n".to_vec(),
            400,
            "INVALID_REQUEST",
            None,
        ),
        (
            b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n".to_vec(),
            400,
            "INVALID_REQUEST",
            None,
        ),
        (
            post("/v1/ingest/small", &"a: b\r\n".repeat(101), b""),
            431,
            "HEADERS_TOO_LARGE",
            None,
        ),
        (
            post(
                "/v1/ingest/small",
                &format!("a: {}\r\n", "b".repeat(65 << 10)),
                b"",
            ),
            431,
            "HEADERS_TOO_LARGE",
            None,
        ),
    ] {
        let answer = send(test.address(), &request).await;
        let shown = String::from_utf8_lossy(&request[..request.len().min(100)]).into_owned();
        assert_eq!(
            (answer.status, answer.code().as_str()),
            (status, code),
            "{shown}"
        );
        assert_eq!(
            answer.json()["details"]["reason"].as_str(),
            reason,
            "{shown}"
        );
        if status == 405 {
            assert!(answer.header("allow").is_some());
        }
    }
    assert_eq!(
        (test.count("events").await, test.count("queue").await),
        (0, 0)
    );
    let metrics = test.gateway.metrics();
    for line in [
        "hookstream_ingest_refused_total{namespace=\"default\",reason=\"signature_mismatch\",source=\"signed\"} 2",
        "hookstream_ingest_refused_total{namespace=\"\",reason=\"source_not_found\",source=\"\"} 3",
        "hookstream_ingest_refused_total{namespace=\"\",reason=\"headers_too_large\",source=\"\"} 2",
    ] {
        assert!(metrics.contains(line), "{line}\n{metrics}");
    }
    assert_eq!(
        send(test.address(), post("/v1/ingest/signed", &right, b"{}"))
            .await
            .status,
        200
    );
    test.gateway.stop().await.unwrap();
}

#[tokio::test]
async fn health_is_public_and_every_answer_has_an_id_of_its_own() {
    let test = Test::start(&[plain()], |_| {}).await;
    let mut sender = Sender::connect(test.address()).await;
    let mut ids = std::collections::HashSet::new();
    for _ in 0..3 {
        sender
            .write("GET /v1/health HTTP/1.1\r\nhost: h\r\n\r\n")
            .await;
        let health = sender.answer().await.unwrap();
        assert_eq!(
            (health.status, health.json()["status"].as_str()),
            (200, Some("ok"))
        );
        ids.insert(health.header("x-request-id").unwrap().to_owned());
        sender.write(post("/v1/ingest/github", "", b"{}")).await;
        ids.insert(
            sender
                .answer()
                .await
                .unwrap()
                .header("x-request-id")
                .unwrap()
                .to_owned(),
        );
    }
    assert_eq!(ids.len(), 6);
    test.gateway.stop().await.unwrap();
}

#[tokio::test]
async fn bodies_of_nothing_one_byte_the_limit_and_one_more() {
    let limit = 1 << 20;
    let test = Test::start(&[source(|spec| spec.max_body_bytes = limit as u64)], |_| {}).await;
    for (bytes, status) in [
        (0, 200),
        (1, 200),
        (limit, 200),
        (limit + 1, 413),
        (limit * 3, 413),
    ] {
        let body = vec![b'x'; bytes];
        let answer = send(test.address(), post("/v1/ingest/github", "", &body)).await;
        assert_eq!(answer.status, status, "{bytes}");
        if status == 200 {
            assert_eq!(test.event(answer.event_id()).await.body, body);
        } else {
            assert_eq!(
                (
                    answer.code().as_str(),
                    answer.json()["details"]["limit_bytes"].as_u64()
                ),
                ("PAYLOAD_TOO_LARGE", Some(limit as u64))
            );
        }
        // In chunks nobody knows the size ahead.
        let mut chunked =
            b"POST /v1/ingest/github HTTP/1.1\r\nhost: h\r\ntransfer-encoding: chunked\r\n\r\n"
                .to_vec();
        for chunk in body.chunks(70_000) {
            chunked.extend_from_slice(format!("{:x}\r\n", chunk.len()).as_bytes());
            chunked.extend_from_slice(chunk);
            chunked.extend_from_slice(b"\r\n");
        }
        chunked.extend_from_slice(b"0\r\n\r\n");
        let answer = send(test.address(), &chunked).await;
        assert_eq!(answer.status, status, "{bytes} in chunks");
        if status == 200 {
            assert_eq!(test.event(answer.event_id()).await.body, body);
        }
    }
    assert_eq!(test.count("events").await, 6);
    test.gateway.stop().await.unwrap();
}

#[tokio::test]
async fn a_request_without_any_body_and_of_any_method_is_an_event() {
    let test = Test::start(&[plain()], |_| {}).await;
    for method in ["GET", "PUT", "DELETE", "OPTIONS", "PROPFIND", "X-OWN"] {
        let answer = send(
            test.address(),
            format!("{method} /v1/ingest/github/?a HTTP/1.1\r\nhost: h\r\n\r\n"),
        )
        .await;
        assert_eq!(answer.status, 200, "{method}");
    }
    let answer = send(
        test.address(),
        "GET http://hooks.example.com/v1/ingest/github?challenge=1 HTTP/1.0\r\n\r\n",
    )
    .await;
    let event = test.event(answer.event_id()).await;
    assert_eq!(
        (
            event.method.as_str(),
            event.query.as_str(),
            event.body.len()
        ),
        ("GET", "challenge=1", 0)
    );
    test.gateway.stop().await.unwrap();
}

#[tokio::test]
async fn slow_heads_and_slow_bodies_get_408_and_idle_connections_are_closed_later() {
    let test = Test::start(&[plain()], |options| {
        options.limits.head_timeout = Duration::from_millis(300);
        options.limits.body_timeout = Duration::from_millis(300);
        options.limits.idle_timeout = Duration::from_millis(900);
    })
    .await;
    for slow in [
        "P",
        "PRI * HTT",
        "POST /v1/ingest/github HTTP/1.1\r\nhost:",
        "POST /v1/ingest/github HTTP/1.1\r\ncontent-length: 10\r\n\r\n12345",
    ] {
        let mut sender = Sender::connect(test.address()).await;
        sender.write(slow).await;
        let answer = sender
            .answer()
            .await
            .unwrap_or_else(|| panic!("no answer to {slow:?}"));
        assert_eq!(
            (answer.status, answer.code().as_str()),
            (408, "REQUEST_TIMEOUT"),
            "{slow:?}"
        );
        sender.closed().await;
    }
    // The second head of a connection is as slow.
    let mut sender = Sender::connect(test.address()).await;
    sender.write(post("/v1/ingest/github", "", b"{}")).await;
    assert_eq!(sender.answer().await.unwrap().status, 200);
    sender.write("POST /v1/ing").await;
    assert_eq!(sender.answer().await.unwrap().code(), "REQUEST_TIMEOUT");

    let mut idle = Sender::connect(test.address()).await;
    let mut used = Sender::connect(test.address()).await;
    used.write(post("/v1/ingest/github", "", b"{}")).await;
    assert_eq!(used.answer().await.unwrap().status, 200);
    assert!(
        idle.answer().await.is_none() && used.answer().await.is_none(),
        "idle is no error"
    );
    assert_eq!(test.count("events").await, 2);
    test.gateway.stop().await.unwrap();
}

#[tokio::test]
async fn an_aborted_body_leaves_nothing() {
    let test = Test::start(&[plain()], |_| {}).await;
    let mut sender = Sender::connect(test.address()).await;
    sender
        .write(
            "POST /v1/ingest/github HTTP/1.1\r\nhost: h\r\ncontent-length: 100\r\n\r\nhalf of it",
        )
        .await;
    drop(sender);
    let broken = "POST /v1/ingest/github HTTP/1.1\r\nhost: h\r\ntransfer-encoding: chunked\r\n\r\nzz\r\nnot a chunk\r\n";
    let answer = send(test.address(), broken).await;
    assert_eq!(
        (answer.status, answer.code().as_str()),
        (400, "INVALID_REQUEST")
    );
    for _ in 0..1000 {
        if test.gateway.metrics().contains("hookstream_ingest_refused_total{namespace=\"default\",reason=\"body_aborted\",source=\"github\"} 2") {
            break;
        }
        tokio::task::yield_now().await;
    }
    assert_eq!(
        (test.count("events").await, test.count("queue").await),
        (0, 0)
    );
    let metrics = test.gateway.metrics();
    for line in [
        "hookstream_ingest_requests_in_flight 0",
        "hookstream_ingest_buffered_bytes 0",
    ] {
        assert!(metrics.contains(line), "{line}\n{metrics}");
    }
    test.gateway.stop().await.unwrap();
}

#[tokio::test]
async fn http2_without_tls_carries_many_requests_on_one_connection() {
    let test = Test::start(&[plain()], |_| {}).await;
    let stream = tokio::net::TcpStream::connect(test.address())
        .await
        .unwrap();
    let executor = hyper_util::rt::TokioExecutor::new();
    let (sender, connection) =
        hyper::client::conn::http2::handshake(executor, hyper_util::rt::TokioIo::new(stream))
            .await
            .unwrap();
    let connection = tokio::spawn(connection);
    let post = |path: &str, headers: usize| {
        let mut request = http::Request::post(format!("http://hooks{path}"));
        for n in 0..headers {
            request = request.header(format!("x-{n}"), "value");
        }
        let request = request
            .body(Full::new(bytes::Bytes::from_static(b"{\"a\":1}")))
            .unwrap();
        let mut sender = sender.clone();
        async move { sender.send_request(request).await.unwrap() }
    };
    let answers = futures::future::join_all((0..50).map(|_| post("/v1/ingest/github", 3))).await;
    assert!(
        answers
            .iter()
            .all(|answer| answer.status() == 200 && answer.headers().contains_key("x-request-id"))
    );
    assert_eq!(test.count("events").await, 50);
    for (path, headers, status) in [
        ("/v1/ingest/nobody", 1, 404),
        ("/v1/ingest/github", 101, 431),
    ] {
        let answer = post(path, headers).await;
        assert_eq!(
            (
                answer.status().as_u16(),
                answer.headers().contains_key("x-request-id")
            ),
            (status, true)
        );
    }
    test.gateway.stop().await.unwrap();
    drop(sender);
    connection.await.unwrap().unwrap();
}

#[tokio::test]
async fn json_nested_ten_thousand_deep_is_an_event_that_no_body_filter_matches() {
    let source = plain();
    let [all, some] =
        ["all", "some"].map(|name| destination_row(Uuid::now_v7(), name, "http://127.0.0.1:1/"));
    let everything = connection_row(Uuid::now_v7(), &source, &all);
    let mut filtered = connection_row(Uuid::now_v7(), &source, &some);
    let Spec::Connection(spec) = &mut filtered.spec else {
        unreachable!("it is a connection")
    };
    let rule = Rule::parse("body.a", Op::Exists, Some(&serde_json::json!(true))).unwrap();
    spec.filter = Some(Filter {
        all: vec![rule],
        ..Filter::default()
    });
    let test = Test::start(&[source, all, some, everything, filtered], |_| {}).await;
    let arrays = [b"[".repeat(10_000), b"]".repeat(10_000)].concat();
    // What the filter asks for is there, at the very top.
    let objects = [
        b"{\"a\":".repeat(10_000),
        b"1".to_vec(),
        b"}".repeat(10_000),
    ]
    .concat();
    for (queued, deep) in [(1, arrays), (2, objects)] {
        let answer = send(
            test.address(),
            post(
                "/v1/ingest/github",
                "content-type: application/json\r\n",
                &deep,
            ),
        )
        .await;
        assert_eq!(test.event(answer.event_id()).await.body, deep);
        assert_eq!(test.count("queue").await, queued);
    }
    // Large enough for a thread of its own, and matched by both.
    let large = format!("{{\"a\":\"{}\"}}", "x".repeat(600_000));
    assert_eq!(
        send(
            test.address(),
            post("/v1/ingest/github", "", large.as_bytes())
        )
        .await
        .status,
        200
    );
    assert_eq!(test.count("queue").await, 4);
    test.gateway.stop().await.unwrap();
}

#[tokio::test]
async fn a_connection_or_a_request_too_many_gets_503() {
    let test = Test::start(&[plain()], |options| {
        options.limits.max_connections = 3;
        options.limits.max_requests = 1;
        options.limits.max_body_bytes_in_flight = 1000;
    })
    .await;
    let mut holding = Sender::connect(test.address()).await;
    holding
        .write(
            "POST /v1/ingest/github HTTP/1.1\r\ncontent-length: 10\r\nexpect: 100-continue\r\n\r\n",
        )
        .await;
    assert_eq!(
        holding.answer().await.unwrap().status,
        100,
        "now it is in flight"
    );
    let mut second = Sender::connect(test.address()).await;
    second.write(post("/v1/ingest/github", "", b"{}")).await;
    assert_eq!(second.answer().await.unwrap().code(), "UNAVAILABLE");
    let mut third = Sender::connect(test.address()).await;
    third.write("GET /v1/health HTTP/1.1\r\n\r\n").await;
    assert_eq!(third.answer().await.unwrap().status, 200);
    let mut fourth = Sender::connect(test.address()).await;
    assert_eq!(fourth.answer().await.unwrap().code(), "UNAVAILABLE");
    fourth.closed().await;
    holding.write("0123456789").await;
    assert_eq!(holding.answer().await.unwrap().status, 200);
    holding
        .write(post("/v1/ingest/github", "", &[b'x'; 1001]))
        .await;
    assert_eq!(
        holding.answer().await.unwrap().code(),
        "UNAVAILABLE",
        "more bytes than the budget"
    );
    let metrics = test.gateway.metrics();
    for reason in [
        "too_many_requests",
        "too_many_connections",
        "too_many_bytes",
    ] {
        assert!(
            metrics
                .lines()
                .any(|line| line.contains(&format!("reason=\"{reason}\"")) && line.ends_with(" 1")),
            "{reason}\n{metrics}"
        );
    }
    test.gateway.stop().await.unwrap();
}

#[tokio::test]
async fn sigterm_finishes_what_is_in_flight_and_takes_no_more() {
    let test = Test::start(&[plain()], |_| {}).await;
    let address = test.address();
    let mut busy = Sender::connect(address).await;
    busy.write(
        "POST /v1/ingest/github HTTP/1.1\r\ncontent-length: 10\r\nexpect: 100-continue\r\n\r\n",
    )
    .await;
    assert_eq!(busy.answer().await.unwrap().status, 100);
    let mut idle = Sender::connect(address).await;
    idle.write("GET /v1/health HTTP/1.1\r\n\r\n").await;
    assert_eq!(idle.answer().await.unwrap().status, 200);

    test.gateway.token.cancel();
    idle.closed().await;
    assert!(test.gateway.readiness.get().is_err());
    assert!(
        tokio::net::TcpStream::connect(address).await.is_err(),
        "the port is closed"
    );
    busy.write("0123456789").await;
    let answer = busy.answer().await.unwrap();
    let event = test.event(answer.event_id()).await;
    assert_eq!(&event.body[..], b"0123456789");
    busy.closed().await;
    test.gateway.ended().await.unwrap();
    assert!(
        store::replicas::live(&test.database.store.pool, Duration::from_secs(60))
            .await
            .unwrap()
            .is_empty(),
        "it has left"
    );
}

#[tokio::test]
async fn without_postgres_the_answer_is_503_and_with_it_again_200() {
    let mut server = store::testing::Server::start(store::testing::ServerOptions {
        fsync: false,
        ..Default::default()
    })
    .await
    .unwrap();
    let url = server.url(store::private_server::DATABASE);
    let setup = store::Store::connect(store::Options::new(&url))
        .await
        .unwrap();
    store::migrate(&setup.pool, 8).await.unwrap();
    let source = plain();
    let published = Published::new(&setup, std::slice::from_ref(&source)).await;
    setup.pool.close().await;
    server.stop().await.unwrap();

    // Away at the start: ports answer, nothing is ready, and it doesn't give up.
    let options = || store::Options {
        acquire_timeout: Duration::from_secs(1),
        ..store::Options::new(&url)
    };
    let gateway = Gateway::begin(options(), &published.keyring, |options| {
        options.roles = vec![Role::Ingest]
    })
    .await;
    let answer = send(gateway.address, post("/v1/ingest/github", "", b"{}")).await;
    assert_eq!(
        (answer.status, answer.code().as_str()),
        (503, "UNAVAILABLE")
    );
    assert_eq!(
        send(gateway.address, "GET /v1/health HTTP/1.1\r\n\r\n")
            .await
            .status,
        200
    );
    assert_eq!(
        send(gateway.admin, "GET /livez HTTP/1.1\r\n\r\n")
            .await
            .status,
        200
    );
    assert_eq!(
        send(gateway.admin, "GET /readyz HTTP/1.1\r\n\r\n")
            .await
            .status,
        503
    );

    server.restart().await.unwrap();
    let mut answer = send(gateway.address, post("/v1/ingest/github", "", b"one")).await;
    for _ in 0..600 {
        if answer.status == 200 {
            break;
        }
        assert_eq!(answer.status, 503);
        tokio::time::sleep(Duration::from_millis(50)).await;
        answer = send(gateway.address, post("/v1/ingest/github", "", b"one")).await;
    }
    let one = answer.event_id();

    // Away while running: not recorded, said so, and readiness stays.
    server.stop().await.unwrap();
    let answer = send(gateway.address, post("/v1/ingest/github", "", b"two")).await;
    assert_eq!(
        (answer.status, answer.code().as_str()),
        (503, "UNAVAILABLE")
    );
    assert_eq!(
        send(gateway.admin, "GET /readyz HTTP/1.1\r\n\r\n")
            .await
            .status,
        200,
        "staleness never fails it"
    );

    // A restart while a request waits costs that request some time and nothing else.
    let waiting = tokio::spawn(send(
        gateway.address,
        post("/v1/ingest/github", "", b"three"),
    ));
    server.restart().await.unwrap();
    let mut answer = waiting.await.unwrap();
    while answer.status == 503 {
        answer = send(gateway.address, post("/v1/ingest/github", "", b"three")).await;
    }
    let three = answer.event_id();
    let check = store::Store::connect(options()).await.unwrap();
    let bodies: Vec<Vec<u8>> = sqlx::query_scalar("SELECT body FROM events ORDER BY id")
        .fetch_all(check.pool.raw())
        .await
        .unwrap();
    assert_eq!(
        bodies,
        [b"one".to_vec(), b"three".to_vec()],
        "{one} {three}"
    );
    gateway.stop().await.unwrap();
}

#[tokio::test]
async fn a_newer_database_ends_the_process_with_what_to_do() {
    let database = Database::create().await;
    sqlx::query("INSERT INTO schema_migration (version, name) VALUES (9999, 'future')")
        .execute(database.store.pool.raw())
        .await
        .unwrap();
    let keyring = Arc::new(store::Keyring::generate());
    let gateway = Gateway::begin(database.options(), &keyring, |_| {}).await;
    let error = gateway.ended().await.unwrap_err();
    assert!(
        format!("{error:#}").contains("newer hookstream"),
        "{error:#}"
    );
}

#[tokio::test]
async fn a_source_that_is_published_or_removed_is_so_within_seconds() {
    let test = Test::start(&[], |_| {}).await;
    let source = plain();
    assert_eq!(
        send(test.address(), post("/v1/ingest/github", "", b""))
            .await
            .status,
        404
    );
    test.published
        .publish(std::slice::from_ref(&source), &[])
        .await;
    let until = async |status: u16| {
        for _ in 0..500 {
            if send(test.address(), post("/v1/ingest/github", "", b""))
                .await
                .status
                == status
            {
                return;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("no {status} within 5 s");
    };
    until(200).await;
    test.published.publish(&[], &[source.key()]).await;
    until(404).await;
    test.gateway.stop().await.unwrap();
}
