//! A destination for tests: a real HTTP server on loopback that says what it got and behaves as badly as it is told.

use ::http::{HeaderMap, Request, Response};
use bytes::Bytes;
use futures::stream;
use http_body_util::{BodyExt, Full, StreamBody, combinators::UnsyncBoxBody};
use hyper::{
    body::{Frame, Incoming},
    service::service_fn,
};
use hyper_util::{
    rt::{TokioExecutor, TokioIo},
    server::conn::auto,
};
use std::{
    convert::Infallible,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::{Semaphore, mpsc},
    task::JoinHandle,
};
use tokio_rustls::TlsAcceptor;

/// One request as it arrived.
#[derive(Debug)]
pub(crate) struct Received {
    pub(crate) method: String,
    pub(crate) target: String,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
    /// Which request of its connection it is, from 1.
    pub(crate) nth: u32,
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

/// What becomes of a connection whose first request was answered, when a second one comes on it.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Parting {
    /// Closed with the request unread, as by a kernel whose process has ended: a reset.
    Reset,
    /// Closed after the first bytes of an answer.
    Half,
}

/// Stops when it is dropped.
pub(crate) struct Receiver {
    pub(crate) address: SocketAddr,
    scheme: &'static str,
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
        Receiver::serve(None, reply).await
    }

    /// Speaks TLS, and HTTP/2 when both sides offer it.
    pub(crate) async fn tls(
        config: rustls::ServerConfig,
        reply: impl Fn(&Received) -> Reply + Send + Sync + 'static,
    ) -> Receiver {
        Receiver::serve(Some(TlsAcceptor::from(Arc::new(config))), reply).await
    }

    async fn serve(
        tls: Option<TlsAcceptor>,
        reply: impl Fn(&Received) -> Reply + Send + Sync + 'static,
    ) -> Receiver {
        let scheme = if tls.is_some() { "https" } else { "http" };
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (report, received) = mpsc::unbounded_channel();
        let reply = Arc::new(reply);
        let server = tokio::spawn(async move {
            let mut connections = tokio::task::JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                let _ = stream.set_nodelay(true);
                let (report, reply, tls) = (report.clone(), reply.clone(), tls.clone());
                let nth = AtomicU32::new(0);
                let service = service_fn(move |request| {
                    let nth = nth.fetch_add(1, Ordering::Relaxed) + 1;
                    answer(request, nth, reply.clone(), report.clone())
                });
                connections.spawn(async move {
                    let http = auto::Builder::new(TokioExecutor::new());
                    // How a connection ends is the client's to judge.
                    let _ = match tls {
                        None => http.serve_connection(TokioIo::new(stream), service).await,
                        Some(tls) => match tls.accept(stream).await {
                            Ok(stream) => {
                                http.serve_connection(TokioIo::new(stream), service).await
                            }
                            Err(refused) => Err(refused.into()),
                        },
                    };
                });
            }
        });
        Receiver {
            address,
            scheme,
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
            scheme: "http",
            received,
            server,
        }
    }

    /// Answers the first request of each connection, whose body must be `x`, with 200. The next one meets `parting`.
    pub(crate) async fn forgetful(parting: Parting) -> Receiver {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (report, received) = mpsc::unbounded_channel();
        let server = tokio::spawn(async move {
            let mut connections = tokio::task::JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                connections.spawn(forget(stream, parting, report.clone()));
            }
        });
        Receiver {
            address,
            scheme: "http",
            received,
            server,
        }
    }

    pub(crate) fn url(&self) -> String {
        format!("{}://{}/hooks", self.scheme, self.address)
    }

    /// By name, for certificates that hold one.
    pub(crate) fn url_by_name(&self) -> String {
        format!("{}://localhost:{}/hooks", self.scheme, self.address.port())
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

async fn forget(
    mut stream: TcpStream,
    parting: Parting,
    report: mpsc::UnboundedSender<Received>,
) -> std::io::Result<()> {
    let mut request = Vec::new();
    while !request.ends_with(b"\r\n\r\nx") {
        stream.read_buf(&mut request).await?;
    }
    let _ = report.send(Received {
        method: String::new(),
        target: String::new(),
        headers: HeaderMap::new(),
        body: Bytes::from_static(b"x"),
        nth: 1,
    });
    stream
        .write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n")
        .await?;
    // `peek` leaves it unread, and a socket that is closed with anything unread is reset.
    stream.peek(&mut [0]).await?;
    if let Parting::Half = parting {
        stream.write_all(b"HTTP/1.1 2").await?;
        let _ = stream.read(&mut [0; 64 * 1024]).await?;
    }
    Ok(())
}

async fn answer(
    request: Request<Incoming>,
    nth: u32,
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
        nth,
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
