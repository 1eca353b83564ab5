//! hyper's own HTTP/1 server over bytes that arrive in pieces of our choosing: what [`lines`] rests on is its behaviour.

use super::*;
use http_body_util::{BodyExt, Empty};
use hyper::{
    body::Incoming,
    rt::{Read, ReadBufCursor, Write},
    server::conn::http1,
    service::service_fn,
};
use std::{
    collections::VecDeque,
    convert::Infallible,
    io,
    pin::Pin,
    sync::Mutex,
    task::{Context, Poll},
};

/// Gives one piece at each read and then the end; takes whatever is written.
struct Pieces(VecDeque<Vec<u8>>);

impl Read for Pieces {
    fn poll_read(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
        mut buf: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        if let Some(piece) = self.0.pop_front() {
            buf.put_slice(&piece);
        }
        Poll::Ready(Ok(()))
    }
}

impl Write for Pieces {
    fn poll_write(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

/// The lines and the body of each request in these bytes. The lines are taken when the body is there, as ingest does.
async fn served<'a>(pieces: impl IntoIterator<Item = &'a [u8]>) -> Vec<(Vec<u8>, Bytes)> {
    let requests = Mutex::new(Vec::new());
    let service = service_fn(async |request: hyper::Request<Incoming>| {
        let (head, body) = request.into_parts();
        let body = body.collect().await.expect("the body is whole").to_bytes();
        let lines = lines(head.version, &head.headers).to_vec();
        requests.lock().unwrap().push((lines, body));
        Ok::<_, Infallible>(hyper::Response::new(Empty::<Bytes>::new()))
    });
    let pieces = pieces.into_iter().map(<[u8]>::to_vec).collect();
    http1::Builder::new()
        // The pieces end before the answers are written.
        .half_close(true)
        .serve_connection(Pieces(pieces), service)
        .await
        .expect("these are requests");
    requests.into_inner().unwrap()
}

/// Three requests without a pause between them: one without a body, one with chunks, trailers, and a body that looks like a
/// head, one whose body does too.
fn pipelined() -> (Vec<u8>, Vec<(Vec<u8>, Bytes)>) {
    let sent = [
        &b"GET /a HTTP/1.1\r\nX-Dup: 1\r\nHoSt: h\r\nx-other:  spaced \t\r\nx-dUP: caf\xe9\r\nX-Empty:\r\nX-Other: 2\r\nX-DUP:3\r\n\r\n"[..],
        b"POST /b HTTP/1.1\r\nB: 1\r\nA: 2\r\nTransfer-Encoding: chunked\r\nB: 3\r\nTrailer: A\r\n\r\n",
        b"1b;x=\"y\"\r\nGET /no HTTP/1.1\r\nA: no\r\n\r\n\r\n3\r\n\r\n\r\r\n0\r\nA: trailer\r\nB: trailer\r\n\r\n",
        b"PUT /c HTTP/1.1\r\nA: 1\r\nContent-Length: 19\r\nB: 2\r\nA: 3\r\n\r\nA: 1\r\nB: 2\r\nA: 3\r\n\r",
    ]
    .concat();
    let kept = [
        (&b"x-dup: 1\r\nhost: h\r\nx-other: spaced\r\nx-dup: caf\xe9\r\nx-empty: \r\nx-other: 2\r\nx-dup: 3\r\n"[..], &b""[..]),
        (
            b"b: 1\r\na: 2\r\ntransfer-encoding: chunked\r\nb: 3\r\ntrailer: A\r\n",
            b"GET /no HTTP/1.1\r\nA: no\r\n\r\n\r\n\r",
        ),
        (b"a: 1\r\ncontent-length: 19\r\nb: 2\r\na: 3\r\n", b"A: 1\r\nB: 2\r\nA: 3\r\n\r"),
    ];
    let kept = kept.map(|(lines, body)| (lines.to_vec(), Bytes::from_static(body)));
    (sent, kept.to_vec())
}

fn shown(requests: &[(Vec<u8>, Bytes)]) -> String {
    requests
        .iter()
        .map(|(lines, body)| format!("{}\n{}\n", lines.escape_ascii(), body.escape_ascii()))
        .collect()
}

#[tokio::test]
async fn lines_are_kept_in_their_order_however_the_bytes_arrive() {
    let (sent, kept) = pipelined();
    for split in 0..=sent.len() {
        let (first, second) = sent.split_at(split);
        let pieces = [first, second]
            .into_iter()
            .filter(|piece| !piece.is_empty());
        let served = served(pieces).await;
        assert_eq!(shown(&served), shown(&kept), "split at {split}");
    }
    for size in [1, 2, 3, 7] {
        let served = served(sent.chunks(size)).await;
        assert_eq!(shown(&served), shown(&kept), "in pieces of {size}");
    }
}

#[tokio::test]
async fn every_order_of_a_few_lines_is_kept() {
    let lines = ["a: 1", "a: ", "b: 2", "content-length: 0", "b: ", "c: 3"];
    for mut number in 0..720 {
        let mut left = lines.to_vec();
        let mut order = Vec::new();
        for base in (1..=left.len()).rev() {
            order.push(left.remove(number % base));
            number /= base;
        }
        let head: String = order.iter().map(|line| format!("{line}\r\n")).collect();
        let sent = format!("POST / HTTP/1.1\r\n{head}\r\n");
        let served = served([sent.as_bytes()]).await;
        assert_eq!(
            served[0].0.escape_ascii().to_string(),
            head.escape_default().to_string()
        );
    }
}

#[tokio::test]
async fn a_length_that_chunks_overrule_is_left_out_and_moves_no_other_line() {
    let chunked = "0\r\n\r\n";
    for (head, kept) in [
        (
            "A: 1\r\nContent-Length: 9\r\nB: 2\r\nTransfer-Encoding: chunked\r\nC: 3\r\n",
            "a: 1\r\nb: 2\r\ntransfer-encoding: chunked\r\nc: 3\r\n",
        ),
        (
            "Transfer-Encoding: chunked\r\nB: 1\r\nContent-Length: 9\r\nA: 2\r\nB: 3\r\n",
            "transfer-encoding: chunked\r\nb: 1\r\na: 2\r\nb: 3\r\n",
        ),
    ] {
        let sent = format!("POST / HTTP/1.1\r\n{head}\r\n{chunked}");
        let served = served([sent.as_bytes()]).await;
        assert_eq!(String::from_utf8_lossy(&served[0].0), kept);
    }
}

#[test]
fn values_of_other_memory_and_http2_keep_the_order_of_the_map() {
    let buffer = Bytes::from_static(b"x-a: 1\r\nx-b: 2\r\nx-a: 3\r\n");
    let map = |values: [Bytes; 3]| {
        let mut headers = HeaderMap::new();
        for (name, value) in ["x-a", "x-b", "x-a"].into_iter().zip(values) {
            headers.append(name, HeaderValue::from_maybe_shared(value).unwrap());
        }
        headers
    };
    let at = |place: usize| buffer.slice(place..place + 1);
    let grouped = "x-a: 1\r\nx-a: 3\r\nx-b: 2\r\n";
    let one_head = map([at(5), at(13), at(21)]);
    assert_eq!(lines(Version::HTTP_11, &one_head), buffer);
    assert_eq!(lines(Version::HTTP_2, &one_head), grouped);
    // Neither can be the lines of a head: values too close to each other, one name's values the wrong way round.
    let packed = Bytes::from_static(b"123");
    let close = map([packed.slice(..1), packed.slice(1..2), packed.slice(2..)]);
    assert_eq!(lines(Version::HTTP_11, &close), grouped);
    let round = map([at(21), at(13), at(5)]);
    assert_eq!(
        lines(Version::HTTP_11, &round),
        "x-a: 3\r\nx-a: 1\r\nx-b: 2\r\n"
    );
    for headers in [one_head, close, round] {
        assert_eq!(lines(Version::HTTP_10, &headers).len(), size(&headers));
    }
}
