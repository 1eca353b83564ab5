//! What no well-behaved sender does: each gets a clear error, leaves nothing behind, and the next request is served.

use super::*;
use bytes::Bytes;
use futures::StreamExt;
use http::{Request, Response};
use http_body::Frame;
use http_body_util::{BodyExt, StreamBody, combinators::UnsyncBoxBody};
use hyper::{body::Incoming, client::conn::http2::SendRequest};
use hyper_util::rt::{TokioExecutor, TokioIo};
use std::io;

type Body = UnsyncBoxBody<Bytes, io::Error>;

/// An HTTP/2 connection that lives until its sender is dropped.
async fn http2(address: SocketAddr) -> SendRequest<Body> {
    let stream = tokio::net::TcpStream::connect(address).await.unwrap();
    let (sender, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream))
            .await
            .unwrap();
    tokio::spawn(connection);
    sender
}

/// A few bytes, and then this.
fn begins(then: Option<io::ErrorKind>) -> Body {
    let first = futures::stream::iter([Ok(Frame::data(Bytes::from_static(b"half of it")))]);
    let stream = match then {
        Some(error) => first
            .chain(futures::stream::iter([Err(error.into())]))
            .boxed(),
        None => first.chain(futures::stream::pending()).boxed(),
    };
    StreamBody::new(stream).boxed_unsync()
}

fn whole(body: &'static [u8]) -> Body {
    Full::new(Bytes::from_static(body))
        .map_err(|never| match never {})
        .boxed_unsync()
}

fn request(target: &str, body: Body) -> Request<Body> {
    Request::post(format!("http://hooks{target}"))
        .body(body)
        .unwrap()
}

async fn code(response: Response<Incoming>) -> (u16, String) {
    let status = response.status().as_u16();
    let id = response.headers()["x-request-id"].clone();
    let body = response.into_body().collect().await.unwrap().to_bytes();
    let json: serde_json::Value = serde_json::from_slice(&body).unwrap();
    assert_eq!(json["request_id"].as_str(), id.to_str().ok());
    (status, json["code"].as_str().unwrap_or_default().to_owned())
}

impl Test {
    /// Waits until the metrics have this line.
    async fn until(&self, line: &str) {
        for _ in 0..1000 {
            if self.gateway.metrics().lines().any(|other| other == line) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("no {line:?} within 10 s:\n{}", self.gateway.metrics());
    }

    /// Nothing was kept, nothing is held, and the port still serves.
    async fn ends_unharmed(self) {
        for gauge in ["requests_in_flight", "buffered_bytes"] {
            self.until(&format!("hookstream_ingest_{gauge} 0")).await;
        }
        assert_eq!(
            (self.count("events").await, self.count("queue").await),
            (0, 0)
        );
        let answer = send(self.address(), post("/v1/ingest/github", "", b"{}")).await;
        assert_eq!(answer.status, 200);
        self.gateway.stop().await.unwrap();
    }
}

#[tokio::test]
async fn a_header_that_is_not_utf8_is_kept_is_missing_to_filters_and_verifies_nothing() {
    let plain = plain();
    let signed = source_row(Uuid::now_v7(), "signed", Some("secret"));
    let destination = destination_row(Uuid::now_v7(), "all", "http://127.0.0.1:1/");
    let filtered = |there: bool| {
        let mut row = connection_row(Uuid::now_v7(), &plain, &destination);
        let Spec::Connection(spec) = &mut row.spec else {
            unreachable!("it is a connection")
        };
        spec.filter = Some(Filter {
            all: vec![Rule::parse("headers.x-raw", Op::Exists, Some(&there.into())).unwrap()],
            ..Filter::default()
        });
        row.name = format!("exists-{there}");
        row
    };
    let [there, missing] = [true, false].map(filtered);
    let missing_uid = missing.uid;
    let rows = [plain.clone(), signed, destination, there, missing];
    let test = Test::start(&rows, |_| {}).await;

    let with = |path: &str, header: &[u8]| {
        let head = format!("POST {path} HTTP/1.1\r\nhost: h\r\ncontent-length: 2\r\n");
        [head.as_bytes(), header, b"\r\n\r\n{}"].concat()
    };
    let answer = send(test.address(), with("/v1/ingest/github", b"X-Raw: caf\xe9")).await;
    let event = test.event(answer.event_id()).await;
    assert!(
        event
            .headers
            .windows(13)
            .any(|window| window == b"x-raw: caf\xe9\r\n")
    );
    let matched: Vec<Uuid> = sqlx::query_scalar("SELECT connection_id FROM queue")
        .fetch_all(test.database.store.pool.raw())
        .await
        .unwrap();
    assert_eq!(matched, [missing_uid], "it is no text, so it is missing");

    for (path, header, status, code) in [
        (
            "/v1/ingest/signed",
            &b"X-Hub-Signature-256: sha256=\xff\xfe"[..],
            401,
            "UNAUTHORIZED",
        ),
        (
            "/v1/ingest/github",
            b"X-\xff: in a name",
            400,
            "INVALID_REQUEST",
        ),
        ("/v1/ingest/github", b"X-Zero: a\0b", 400, "INVALID_REQUEST"),
    ] {
        let answer = send(test.address(), with(path, header)).await;
        assert_eq!(
            (answer.status, answer.code().as_str()),
            (status, code),
            "{}",
            String::from_utf8_lossy(header)
        );
    }
    assert_eq!(test.count("events").await, 1);
    test.gateway.stop().await.unwrap();
}

#[tokio::test]
async fn a_body_that_stops_gets_408_in_chunks_and_over_http2_too() {
    let test = Test::start(&[plain()], |options| {
        options.limits.body_timeout = Duration::from_millis(300);
    })
    .await;
    let mut chunked = Sender::connect(test.address()).await;
    chunked
        .write("POST /v1/ingest/github HTTP/1.1\r\nhost: h\r\ntransfer-encoding: chunked\r\n\r\n5\r\n12")
        .await;
    let answer = chunked.answer().await.unwrap();
    assert_eq!(
        (answer.status, answer.code().as_str()),
        (408, "REQUEST_TIMEOUT")
    );
    chunked.closed().await;

    let mut sender = http2(test.address()).await;
    let slow = sender.send_request(request("/v1/ingest/github", begins(None)));
    assert_eq!(
        code(slow.await.unwrap()).await,
        (408, "REQUEST_TIMEOUT".to_owned())
    );
    test.ends_unharmed().await;
}

#[tokio::test]
async fn a_body_that_is_cut_leaves_nothing_in_chunks_and_over_http2_too() {
    let test = Test::start(&[plain()], |_| {}).await;
    let mut chunked = Sender::connect(test.address()).await;
    chunked
        .write("POST /v1/ingest/github HTTP/1.1\r\nhost: h\r\ntransfer-encoding: chunked\r\n\r\n5\r\n12")
        .await;
    drop(chunked);
    test.until("hookstream_ingest_refused_total{namespace=\"default\",reason=\"body_aborted\",source=\"github\"} 1").await;

    // A stream that is reset ends its request without a word; the connection's others go on.
    let mut sender = http2(test.address()).await;
    let cut = begins(Some(io::ErrorKind::ConnectionAborted));
    assert!(
        sender
            .send_request(request("/v1/ingest/github", cut))
            .await
            .is_err()
    );
    let next = sender.send_request(request("/v1/health", whole(b"")));
    assert_eq!(
        code(next.await.unwrap()).await,
        (405, "METHOD_NOT_ALLOWED".to_owned())
    );
    test.ends_unharmed().await;
}

#[tokio::test]
async fn a_target_that_is_too_long_gets_414() {
    let test = Test::start(&[plain()], |_| {}).await;
    let long = |bytes: usize| format!("/v1/ingest/github?{}", "x".repeat(bytes - 18));
    let most = 32 << 10;
    for (bytes, status) in [(most, 200), (most + 1, 414), (60_000, 414), (100_000, 431)] {
        let answer = send(test.address(), post(&long(bytes), "", b"{}")).await;
        assert_eq!(answer.status, status, "{bytes}");
        if status == 414 {
            assert_eq!(
                (
                    answer.code().as_str(),
                    answer.json()["details"]["max_bytes"].as_u64()
                ),
                ("URI_TOO_LONG", Some(most as u64))
            );
        }
    }
    let mut sender = http2(test.address()).await;
    let answer = sender.send_request(request(&long(most + 1), whole(b"{}")));
    assert_eq!(
        code(answer.await.unwrap()).await,
        (414, "URI_TOO_LONG".to_owned())
    );
    assert_eq!(test.count("events").await, 1);
    test.gateway.stop().await.unwrap();

    // Where larger heads are allowed, the HTTP library's own bound comes first; the answer is ours.
    let test = Test::start(&[plain()], |options| {
        options.limits.max_header_bytes = 256 << 10
    })
    .await;
    let answer = send(test.address(), post(&long(70_000), "", b"{}")).await;
    assert_eq!(
        (
            answer.status,
            answer.code().as_str(),
            answer.json()["details"]["max_bytes"].as_u64()
        ),
        (414, "URI_TOO_LONG", Some(65_534))
    );
    test.ends_unharmed().await;
}

#[tokio::test]
async fn one_http2_connection_cannot_take_every_place() {
    let test = Test::start(&[plain()], |options| options.limits.max_requests = 65).await;
    let mut holding = http2(test.address()).await;
    let first = holding.send_request(request("/v1/health", whole(b"")));
    assert_eq!(
        first.await.unwrap().status(),
        405,
        "now it knows how many it may send"
    );
    let held: Vec<_> = (0..100)
        .map(|_| tokio::spawn(holding.send_request(request("/v1/ingest/github", begins(None)))))
        .collect();
    test.until("hookstream_ingest_requests_in_flight 64").await;
    let answer = send(test.address(), post("/v1/ingest/github", "", b"{}")).await;
    assert_eq!(answer.status, 200, "there is a place for somebody else");
    held.iter().for_each(|request| request.abort());
    drop(holding);
    test.until("hookstream_ingest_requests_in_flight 0").await;
    test.gateway.stop().await.unwrap();
}

#[tokio::test]
async fn heads_count_among_the_bytes_in_flight() {
    let test = Test::start(&[plain()], |options| {
        options.limits.max_body_bytes_in_flight = 1000
    })
    .await;
    let large = format!("x-large: {}\r\n", "v".repeat(1000));
    for request in [
        post("/v1/ingest/github", &large, b""),
        post(&format!("/v1/ingest/github?{}", "v".repeat(1000)), "", b""),
    ] {
        let answer = send(test.address(), request).await;
        assert_eq!(
            (answer.status, answer.code().as_str()),
            (503, "UNAVAILABLE")
        );
    }
    test.until("hookstream_ingest_refused_total{namespace=\"default\",reason=\"too_many_bytes\",source=\"github\"} 2").await;
    test.ends_unharmed().await;
}

#[tokio::test]
async fn a_connection_that_never_says_a_word_is_closed_long_before_an_idle_one() {
    let test = Test::start(&[plain()], |options| {
        options.limits.head_timeout = Duration::from_millis(200);
        options.limits.idle_timeout = Duration::from_secs(600);
    })
    .await;
    let mut used = Sender::connect(test.address()).await;
    used.write(post("/v1/ingest/github", "", b"{}")).await;
    assert_eq!(used.answer().await.unwrap().status, 200);
    let mut silent = Sender::connect(test.address()).await;
    assert!(
        silent.answer().await.is_none(),
        "it asked nothing and is told nothing"
    );
    used.write(post("/v1/ingest/github", "", b"{}")).await;
    assert_eq!(
        used.answer().await.unwrap().status,
        200,
        "idle all the while"
    );
    test.gateway.stop().await.unwrap();
}
