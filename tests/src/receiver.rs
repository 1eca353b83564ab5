//! A destination for tests: keeps what it received, answers what the test says.

use bytes::Bytes;
use http::{HeaderMap, Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use std::{
    convert::Infallible,
    net::SocketAddr,
    sync::{Arc, Mutex},
    time::Duration,
};
use tokio::{net::TcpListener, sync::watch, task::JoinSet};

/// One request as it arrived.
#[derive(Debug, Clone)]
pub struct Received {
    pub method: Method,
    pub path: String,
    pub headers: HeaderMap,
    pub body: Bytes,
}

impl Received {
    /// `X-Hookstream-Event-Id`, or nothing.
    pub fn event_id(&self) -> &str {
        self.headers
            .get("x-hookstream-event-id")
            .and_then(|value| value.to_str().ok())
            .unwrap_or_default()
    }
}

type Answer = dyn Fn(&Received, usize) -> StatusCode + Send + Sync;

/// Runs until it is dropped; its connections end with it.
pub struct Receiver {
    pub address: SocketAddr,
    received: Arc<Mutex<Vec<Received>>>,
    count: watch::Sender<usize>,
    _server: JoinSet<()>,
}

impl Receiver {
    /// Answers 200 to all.
    pub async fn start() -> anyhow::Result<Receiver> {
        Receiver::answering(|_, _| StatusCode::OK).await
    }

    /// Answers what `answer` says to a request and the number of requests before it.
    pub async fn answering(
        answer: impl Fn(&Received, usize) -> StatusCode + Send + Sync + 'static,
    ) -> anyhow::Result<Receiver> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let received: Arc<Mutex<Vec<Received>>> = Arc::default();
        let count = watch::Sender::new(0);
        let answer: Arc<Answer> = Arc::new(answer);
        let mut server = JoinSet::new();
        let (kept, counted) = (received.clone(), count.clone());
        server.spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                let (kept, counted, answer) = (kept.clone(), counted.clone(), answer.clone());
                let service = service_fn(move |request: Request<hyper::body::Incoming>| {
                    let (kept, counted, answer) = (kept.clone(), counted.clone(), answer.clone());
                    async move { Ok::<_, Infallible>(take(request, &kept, &counted, &*answer).await) }
                });
                connections.spawn(async move {
                    // A sender that goes away is not the receiver's error.
                    let _ = hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
                });
                while connections.try_join_next().is_some() {}
            }
        });
        Ok(Receiver {
            address,
            received,
            count,
            _server: server,
        })
    }

    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    /// All that arrived so far, in order of arrival.
    pub fn received(&self) -> Vec<Received> {
        self.received.lock().expect("no holder panics").clone()
    }

    /// Waits until at least `count` requests have arrived, within `limit`.
    pub async fn until(&self, count: usize, limit: Duration) -> anyhow::Result<Vec<Received>> {
        let mut seen = self.count.subscribe();
        match tokio::time::timeout(limit, seen.wait_for(|have| *have >= count)).await {
            Ok(_) => Ok(self.received()),
            Err(_) => anyhow::bail!(
                "{} of {count} requests arrived within {limit:?}",
                self.received().len()
            ),
        }
    }
}

async fn take(
    request: Request<hyper::body::Incoming>,
    kept: &Mutex<Vec<Received>>,
    counted: &watch::Sender<usize>,
    answer: &Answer,
) -> Response<Full<Bytes>> {
    let (head, body) = request.into_parts();
    let mut response = Response::new(Full::new(Bytes::from_static(b"ok")));
    let Ok(body) = body.collect().await else {
        *response.status_mut() = StatusCode::BAD_REQUEST;
        return response;
    };
    let received = Received {
        method: head.method,
        path: head.uri.to_string(),
        headers: head.headers,
        body: body.to_bytes(),
    };
    let before = {
        let mut kept = kept.lock().expect("no holder panics");
        *response.status_mut() = answer(&received, kept.len());
        kept.push(received);
        kept.len()
    };
    counted.send_replace(before);
    response
}
