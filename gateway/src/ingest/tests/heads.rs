//! Heads as they are kept, and heads that are too large, over both protocols.

use super::*;
use bytes::Bytes;
use h2::{Reason, client::SendRequest};
use http::{HeaderMap, HeaderName, HeaderValue, Request};
use tokio::{net::TcpStream, task::JoinHandle};

impl Test {
    /// The lines and the body of every event, in the order of their acceptance.
    async fn kept(&self) -> Vec<(String, Vec<u8>)> {
        let rows: Vec<(Vec<u8>, Vec<u8>)> =
            sqlx::query_as("SELECT headers, body FROM events ORDER BY id")
                .fetch_all(self.database.store.pool.raw())
                .await
                .unwrap();
        rows.into_iter()
            .map(|(lines, body)| (lines.escape_ascii().to_string(), body))
            .collect()
    }
}

#[tokio::test]
async fn lines_keep_their_order_and_duplicates_over_keep_alive_and_pipelining() {
    let test = Test::start(&[source(|spec| spec.max_body_bytes = 64)], |_| {}).await;
    let to = "POST /v1/ingest/github HTTP/1.1\r\n";
    let first = [
        to.as_bytes(),
        b"X-Dup: 1\r\nhOSt: h\r\nX-Empty:\r\nx-dup:  caf\xe9\t\r\nA: 1\r\nContent-Length: 2\r\nX-DUP: 3\r\n\r\n{}",
    ]
    .concat();
    let second = format!(
        "{to}B: 1\r\nA: 1\r\nTransfer-Encoding: chunked\r\nB: 2\r\n\r\n19\r\n{to}\r\n2\r\n\r\n\r\n0\r\nA: trailer\r\n\r\n"
    )
    .replace("\r\n19\r\n", &format!("\r\n{:x}\r\n", to.len()));
    let third = format!("{to}B: 3\r\nContent-Length: 4\r\nA: 3\r\nB: 4\r\n\r\n\r\n\r\n");
    let expected = [
        (r"x-dup: 1\r\nhost: h\r\nx-empty: \r\nx-dup: caf\xe9\r\na: 1\r\ncontent-length: 2\r\nx-dup: 3\r\n", "{}".to_owned()),
        (r"b: 1\r\na: 1\r\ntransfer-encoding: chunked\r\nb: 2\r\n", format!("{to}\r\n")),
        (r"b: 3\r\ncontent-length: 4\r\na: 3\r\nb: 4\r\n", "\r\n\r\n".to_owned()),
    ]
    .map(|(lines, body)| (lines.to_owned(), body.into_bytes()));
    let sent = [first, second.into_bytes(), third.into_bytes()];

    let mut kept_alive = Sender::connect(test.address()).await;
    for request in &sent {
        kept_alive.write(request).await;
        assert_eq!(kept_alive.answer().await.unwrap().status, 200);
    }
    let mut pipelined = Sender::connect(test.address()).await;
    pipelined.write(sent.concat()).await;
    for _ in &sent {
        assert_eq!(pipelined.answer().await.unwrap().status, 200);
    }
    assert_eq!(test.kept().await, [expected.clone(), expected].concat());

    // A body that is refused half-way ends its connection: what stands in it, and behind it, is no request.
    let refused = format!("{to}A: 1\r\nContent-Length: 99999\r\n\r\n");
    let mut sender = Sender::connect(test.address()).await;
    sender
        .write([refused.as_bytes(), &sent[0], &sent[2]].concat())
        .await;
    assert_eq!(sender.answer().await.unwrap().status, 413);
    sender.closed().await;
    assert_eq!(test.count("events").await, 6);
    test.gateway.stop().await.unwrap();
}

/// A connection that shows its end: the reason that the gateway gave.
async fn http2(address: SocketAddr) -> (SendRequest<Bytes>, JoinHandle<Result<(), h2::Error>>) {
    let stream = TcpStream::connect(address).await.unwrap();
    let (sender, connection) = h2::client::handshake(stream).await.unwrap();
    (sender, tokio::spawn(connection))
}

/// Status, headers and body of the answer to a POST with these headers and a body that, if `held`, isn't sent to its end
/// before the answer is there.
async fn answer(
    sender: &mut SendRequest<Bytes>,
    headers: &HeaderMap,
    held: bool,
) -> Result<(u16, HeaderMap, Bytes), h2::Error> {
    let mut request = Request::post("http://hooks/v1/ingest/github")
        .body(())
        .unwrap();
    request.headers_mut().extend(headers.clone());
    let mut ready = sender.clone().ready().await?;
    let (response, mut body) = ready.send_request(request, false)?;
    if !held {
        body.send_data(Bytes::from_static(b"{}"), true)?;
    }
    let (head, mut answered) = response.await?.into_parts();
    let mut bytes = Vec::new();
    while let Some(data) = answered.data().await {
        match data {
            Ok(data) => bytes.extend_from_slice(&data),
            // The whole answer is there; the rest of the request is not wanted.
            Err(error) if error.reason() == Some(Reason::NO_ERROR) => break,
            Err(error) => return Err(error),
        }
    }
    Ok((head.status.as_u16(), head.headers, bytes.into()))
}

/// One header that makes the lines this long.
fn one(bytes: usize) -> HeaderMap {
    let value = "v".repeat(bytes - "x-large: \r\n".len());
    HeaderMap::from_iter([(
        HeaderName::from_static("x-large"),
        value.try_into().unwrap(),
    )])
}

fn many(count: usize) -> HeaderMap {
    (0..count)
        .map(|n| {
            let name: HeaderName = format!("x-{n}").try_into().unwrap();
            (name, HeaderValue::from_static("v"))
        })
        .collect()
}

/// The same line again and again, which HTTP/2 packs into a byte each.
fn repeated(count: usize) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for _ in 0..count {
        headers.append("x-same", HeaderValue::from_static("v"));
    }
    headers
}

#[tokio::test]
async fn http2_headers_beyond_the_limit_get_the_envelope_and_the_connection_goes_on() {
    let test = Test::start(&[plain()], |_| {}).await;
    let limit = 64 << 10;
    let (mut sender, connection) = http2(test.address()).await;
    let (status, ..) = answer(&mut sender, &one(limit), false).await.unwrap();
    assert_eq!(status, 200, "at the limit");
    let mut ids = std::collections::HashSet::new();
    for (what, headers) in [
        ("one byte more", one(limit + 1)),
        ("near the library's own limit", one(limit * 2 + 6000)),
        ("beyond it", one(limit * 2 + 6400)),
        ("two and a half times as much", one(limit * 5 / 2)),
        ("twice as much", one(limit * 2)),
        ("a line too many", many(101)),
        ("many lines", many(5000)),
        ("many lines that take few bytes", repeated(5000)),
    ] {
        for held in [true, false] {
            // Ours waits for no body; the library's neither.
            let (status, headers, body) = answer(&mut sender, &headers, held)
                .await
                .unwrap_or_else(|error| panic!("{what}: {error}"));
            assert_eq!(status, 431, "{what}");
            let json: serde_json::Value = serde_json::from_slice(&body).unwrap();
            let id = headers["x-request-id"].to_str().unwrap();
            assert_eq!(json["request_id"], id, "{what}");
            assert_eq!(json["code"], "HEADERS_TOO_LARGE", "{what}");
            assert_eq!(json["details"]["max_bytes"], limit, "{what}");
            assert_eq!(headers["content-type"], "application/json", "{what}");
            if let Some(length) = headers.get("content-length") {
                assert_eq!(length.to_str().unwrap(), body.len().to_string());
            }
            assert!(ids.insert(id.to_owned()), "an id of its own");
        }
    }
    // What the answers packed and the windows they took are still agreed on.
    let (status, ..) = answer(&mut sender, &one(100), false).await.unwrap();
    assert_eq!(status, 200);
    let kept = test.kept().await;
    assert_eq!(kept.len(), 2);
    let refused: u64 = test
        .gateway
        .metrics()
        .lines()
        .filter(|line| {
            line.contains("hookstream_ingest_refused_total{") && line.contains("headers_too_large")
        })
        .filter_map(|line| line.rsplit(' ').next()?.parse::<u64>().ok())
        .sum();
    assert_eq!(refused, ids.len() as u64, "every one is counted");
    drop(sender);
    connection.await.unwrap().unwrap();
    test.gateway.stop().await.unwrap();
}

#[tokio::test]
async fn http2_headers_many_times_beyond_the_limit_end_the_connection_and_no_bare_answer_leaves() {
    let test = Test::start(&[plain()], |_| {}).await;
    let limit = 64 << 10;
    for (what, headers) in [
        ("5x", one(limit * 5)),
        ("20x", one(limit * 20)),
        ("many lines", many(20_000)),
        ("many lines that take few bytes", repeated(20_000)),
    ] {
        let (mut sender, connection) = http2(test.address()).await;
        match answer(&mut sender, &headers, true).await {
            Ok((status, headers, body)) => {
                assert_eq!(status, 431, "{what}");
                assert!(headers.contains_key("x-request-id"), "{what}: {headers:?}");
                let json: serde_json::Value = serde_json::from_slice(&body).unwrap();
                assert_eq!(json["code"], "HEADERS_TOO_LARGE", "{what}");
            }
            Err(error) => {
                assert!(error.is_go_away() && error.is_remote(), "{what}: {error}");
                assert_eq!(error.reason(), Some(Reason::ENHANCE_YOUR_CALM), "{what}");
                assert!(connection.await.unwrap().is_err(), "{what}");
            }
        }
    }
    let answer = send(test.address(), post("/v1/ingest/github", "", b"{}")).await;
    assert_eq!(answer.status, 200, "others are served");
    test.gateway.stop().await.unwrap();
}

#[tokio::test]
async fn over_http2_names_stand_as_they_first_came() {
    let test = Test::start(&[plain()], |_| {}).await;
    let (mut sender, _connection) = http2(test.address()).await;
    let mut headers = HeaderMap::new();
    for (name, value) in [("b", "1"), ("a", "2"), ("b", "3"), ("c", "caf\u{e9}")] {
        headers.append(name, HeaderValue::from_bytes(value.as_bytes()).unwrap());
    }
    let (status, ..) = answer(&mut sender, &headers, false).await.unwrap();
    assert_eq!(status, 200);
    let [(lines, _)] = &test.kept().await[..] else {
        panic!("one event")
    };
    assert_eq!(lines, r"b: 1\r\nb: 3\r\na: 2\r\nc: caf\xc3\xa9\r\n");
    test.gateway.stop().await.unwrap();
}
