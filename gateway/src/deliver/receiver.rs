//! A destination for tests: a real HTTP server on loopback that says what it got and behaves as badly as it is told.

use ::http::{HeaderMap, Request, Response};
use bytes::Bytes;
use futures::stream;
use http_body_util::{BodyExt, Full, StreamBody, combinators::UnsyncBoxBody};
use hyper::{
    body::{Frame, Incoming},
    service::service_fn,
};
use hyper_util::rt::TokioIo;
use std::{convert::Infallible, net::SocketAddr, sync::Arc, time::Duration};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
    sync::{Semaphore, mpsc},
    task::JoinHandle,
};

/// One request as it arrived.
#[derive(Debug)]
pub(crate) struct Received {
    pub(crate) method: String,
    pub(crate) target: String,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
}

impl Received {
    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers
            .get(name)
            .map_or("", |value| value.to_str().unwrap())
    }
}

/// What it does with a request.
#[derive(Debug, Clone)]
pub(crate) enum Reply {
    Status(u16),
    With(u16, Vec<(&'static str, String)>, Bytes),
    /// 200 once a permit is there.
    Gate(Arc<Semaphore>),
    /// Never answers.
    Hang,
    /// Reads the request and closes.
    Close,
    /// 200, and a body that never ends.
    Stream,
    /// 200, a few bytes of body, and silence.
    Stall,
}

/// Stops when it is dropped.
pub(crate) struct Receiver {
    pub(crate) address: SocketAddr,
    received: mpsc::UnboundedReceiver<Received>,
    server: JoinHandle<()>,
}

impl Drop for Receiver {
    fn drop(&mut self) {
        self.server.abort();
    }
}

type Sent = UnsyncBoxBody<Bytes, Infallible>;

impl Receiver {
    pub(crate) async fn always(reply: Reply) -> Receiver {
        Receiver::start(move |_| reply.clone()).await
    }

    /// `reply` sees each request before it is reported.
    pub(crate) async fn start(
        reply: impl Fn(&Received) -> Reply + Send + Sync + 'static,
    ) -> Receiver {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (report, received) = mpsc::unbounded_channel();
        let reply = Arc::new(reply);
        let server = tokio::spawn(async move {
            let mut connections = tokio::task::JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                let _ = stream.set_nodelay(true);
                let (report, reply) = (report.clone(), reply.clone());
                let service =
                    service_fn(move |request| answer(request, reply.clone(), report.clone()));
                connections.spawn(async move {
                    hyper::server::conn::http1::Builder::new()
                        .serve_connection(TokioIo::new(stream), service)
                        .await
                });
            }
        });
        Receiver {
            address,
            received,
            server,
        }
    }

    /// Answers each connection with these bytes and closes it.
    pub(crate) async fn raw(bytes: &'static [u8]) -> Receiver {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (_, received) = mpsc::unbounded_channel();
        let server = tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let _ = stream.read(&mut [0; 4096]).await;
                let _ = stream.write_all(bytes).await;
            }
        });
        Receiver {
            address,
            received,
            server,
        }
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}/hooks", self.address)
    }

    /// The next request; fails the test when none comes.
    pub(crate) async fn next(&mut self) -> Received {
        tokio::time::timeout(Duration::from_secs(20), self.received.recv())
            .await
            .expect("no request came")
            .expect("the receiver runs")
    }

    /// The requests that came and were not looked at.
    pub(crate) fn rest(&mut self) -> Vec<Received> {
        std::iter::from_fn(|| self.received.try_recv().ok()).collect()
    }
}

async fn answer(
    request: Request<Incoming>,
    reply: Arc<impl Fn(&Received) -> Reply>,
    report: mpsc::UnboundedSender<Received>,
) -> Result<Response<Sent>, std::io::Error> {
    let (head, body) = request.into_parts();
    let body = body
        .collect()
        .await
        .map_err(std::io::Error::other)?
        .to_bytes();
    let received = Received {
        method: head.method.to_string(),
        target: head.uri.to_string(),
        headers: head.headers,
        body,
    };
    let reply = reply(&received);
    let _ = report.send(received);
    let full = |bytes: Bytes| Full::new(bytes).boxed_unsync();
    let mut response = Response::new(full(Bytes::new()));
    match reply {
        Reply::Status(status) => *response.status_mut() = status.try_into().unwrap(),
        Reply::With(status, headers, body) => {
            response = Response::new(full(body));
            *response.status_mut() = status.try_into().unwrap();
            for (name, value) in headers {
                response.headers_mut().append(name, value.parse().unwrap());
            }
        }
        Reply::Gate(gate) => gate.acquire().await.unwrap().forget(),
        Reply::Hang => std::future::pending().await,
        Reply::Close => return Err(std::io::Error::other("told to close")),
        Reply::Stream => {
            let chunk = || Ok::<_, Infallible>(Frame::data(Bytes::from_static(&[b'x'; 1024])));
            response = Response::new(StreamBody::new(stream::repeat_with(chunk)).boxed_unsync());
        }
        Reply::Stall => {
            let first = stream::iter([Ok::<_, Infallible>(Frame::data(Bytes::from_static(
                b"so far",
            )))]);
            response = Response::new(
                StreamBody::new(futures::StreamExt::chain(first, stream::pending())).boxed_unsync(),
            );
        }
    }
    Ok(response)
}
