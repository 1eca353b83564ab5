//! A sender that can do what no HTTP library lets it: stop half-way, dawdle, send nonsense.

use std::{net::SocketAddr, time::Duration};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

/// One answer, as it was written.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) status: u16,
    pub(super) headers: Vec<(String, String)>,
    pub(super) body: Vec<u8>,
}

impl Answer {
    pub(super) fn header(&self, name: &str) -> Option<&str> {
        self.headers
            .iter()
            .find(|(other, _)| other == name)
            .map(|(_, value)| value.as_str())
    }

    pub(super) fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|_| panic!("not JSON: {self:?}"))
    }

    pub(super) fn event_id(&self) -> uuid::Uuid {
        assert_eq!(self.status, 200, "{}", String::from_utf8_lossy(&self.body));
        let json = self.json();
        routing::ids::parse(
            routing::ids::Prefix::Event,
            json["event_id"].as_str().expect("a text"),
        )
        .expect("an event's id")
    }

    /// The envelope's code, checked for what every envelope has.
    pub(super) fn code(&self) -> String {
        let json = self.json();
        assert_eq!(json["status"], self.status);
        assert_eq!(json["request_id"].as_str(), self.header("x-request-id"));
        assert!(
            self.header("x-request-id")
                .is_some_and(|id| id.starts_with("req_") && id.len() == 36),
            "{self:?}"
        );
        assert!(json["error"].as_str().is_some_and(|text| !text.is_empty()));
        assert_eq!(self.header("content-type"), Some("application/json"));
        assert_eq!(
            self.header("retry-after").is_some(),
            matches!(self.status, 429 | 503)
        );
        json["code"].as_str().expect("a code").to_owned()
    }
}

/// A connection that keeps what it read too much.
pub(super) struct Sender {
    pub(super) stream: TcpStream,
    read: Vec<u8>,
}

impl Sender {
    pub(super) async fn connect(address: SocketAddr) -> Sender {
        Sender {
            stream: TcpStream::connect(address).await.expect("the port is open"),
            read: Vec::new(),
        }
    }

    pub(super) async fn write(&mut self, bytes: impl AsRef<[u8]>) {
        self.stream
            .write_all(bytes.as_ref())
            .await
            .expect("the gateway reads");
    }

    /// The next answer; `None` when the connection ends without one.
    pub(super) async fn answer(&mut self) -> Option<Answer> {
        tokio::time::timeout(Duration::from_secs(20), self.read_answer())
            .await
            .expect("an answer, or the end, within 20 s")
    }

    async fn read_answer(&mut self) -> Option<Answer> {
        let head = loop {
            if let Some(end) = self
                .read
                .windows(4)
                .position(|window| window == b"\r\n\r\n")
            {
                break self.read.drain(..end + 4).collect::<Vec<u8>>();
            }
            if !self.more().await {
                return None;
            }
        };
        let head = String::from_utf8(head).expect("our heads are ASCII");
        let mut lines = head.lines();
        let status = lines
            .next()
            .and_then(|line| line.split(' ').nth(1))
            .and_then(|status| status.parse().ok())
            .expect("a status line");
        let headers: Vec<(String, String)> = lines
            .filter_map(|line| line.split_once(':'))
            .map(|(name, value)| (name.to_lowercase(), value.trim().to_owned()))
            .collect();
        let mut answer = Answer {
            status,
            headers,
            body: Vec::new(),
        };
        let length: usize = answer
            .header("content-length")
            .map_or(0, |length| length.parse().expect("a number"));
        while self.read.len() < length {
            assert!(self.more().await, "the answer ends early: {answer:?}");
        }
        answer.body = self.read.drain(..length).collect();
        Some(answer)
    }

    async fn more(&mut self) -> bool {
        self.stream
            .read_buf(&mut self.read)
            .await
            .is_ok_and(|read| read > 0)
    }

    /// Waits for the other side to end the connection.
    pub(super) async fn closed(&mut self) {
        let closed = async { while self.more().await {} };
        tokio::time::timeout(Duration::from_secs(20), closed)
            .await
            .expect("the connection ends within 20 s");
    }
}

/// Sends these bytes on a connection of their own and waits for the answer.
pub(super) async fn send(address: SocketAddr, request: impl AsRef<[u8]>) -> Answer {
    let mut sender = Sender::connect(address).await;
    sender.write(request).await;
    sender.answer().await.expect("an answer")
}

/// A POST with `Content-Length`.
pub(super) fn post(path: &str, headers: &str, body: &[u8]) -> Vec<u8> {
    let mut request = format!(
        "POST {path} HTTP/1.1\r\nhost: hooks\r\ncontent-length: {}\r\n{headers}\r\n",
        body.len()
    )
    .into_bytes();
    request.extend_from_slice(body);
    request
}
