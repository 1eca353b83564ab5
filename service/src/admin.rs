//! The admin port: `/livez`, `/readyz`, `/metrics`. Never on the public one.
//!
//! Live means that the process answers. Ready means what its owner says it means; the answer's body names what is
//! missing, so that `kubectl describe pod` or a curl explains itself.

use crate::metrics;
use bytes::Bytes;
use http::{Method, Request, Response, StatusCode, header};
use http_body_util::Full;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use prometheus::Registry;
use std::{
    convert::Infallible,
    sync::{Arc, Mutex},
    time::Duration,
};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

/// Ready, or the reason why not. Cheap to clone; all clones are one.
#[derive(Debug, Clone)]
pub struct Readiness(Arc<Mutex<Result<(), String>>>);

impl Readiness {
    /// Not ready yet, for this reason.
    pub fn new(reason: impl Into<String>) -> Readiness {
        Readiness(Arc::new(Mutex::new(Err(reason.into()))))
    }

    pub fn ready(&self) {
        self.set(Ok(()));
    }

    pub fn not_ready(&self, reason: impl Into<String>) {
        self.set(Err(reason.into()));
    }

    pub fn get(&self) -> Result<(), String> {
        self.0
            .lock()
            .unwrap_or_else(|poisoned| poisoned.into_inner())
            .clone()
    }

    fn set(&self, state: Result<(), String>) {
        *self
            .0
            .lock()
            .unwrap_or_else(|poisoned| poisoned.into_inner()) = state;
    }
}

/// Answers until the token is cancelled. Each connection is bounded in time, so a scraper that hangs costs nothing.
pub async fn serve(
    listener: TcpListener,
    readiness: Readiness,
    registry: Registry,
    token: CancellationToken,
) {
    loop {
        let stream = tokio::select! {
            () = token.cancelled() => return,
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => stream,
                Err(error) => {
                    // Out of file descriptors, most likely: without a pause this would spin.
                    tracing::warn!(%error, "admin port");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                    continue;
                }
            },
        };
        let (readiness, registry) = (readiness.clone(), registry.clone());
        tokio::spawn(async move {
            let service = service_fn(move |request: Request<hyper::body::Incoming>| {
                let response = respond(
                    request.method(),
                    request.uri().path(),
                    &readiness,
                    &registry,
                );
                async move { Ok::<_, Infallible>(response) }
            });
            let connection = hyper::server::conn::http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(Duration::from_secs(5))
                .serve_connection(TokioIo::new(stream), service);
            let _ = tokio::time::timeout(Duration::from_secs(300), connection).await;
        });
    }
}

fn respond(
    method: &Method,
    path: &str,
    readiness: &Readiness,
    registry: &Registry,
) -> Response<Full<Bytes>> {
    let (status, kind, body) = match (method, path) {
        (&Method::GET | &Method::HEAD, "/livez") => {
            (StatusCode::OK, "text/plain", "ok\n".to_owned())
        }
        (&Method::GET | &Method::HEAD, "/readyz") => match readiness.get() {
            Ok(()) => (StatusCode::OK, "text/plain", "ok\n".to_owned()),
            Err(reason) => (StatusCode::SERVICE_UNAVAILABLE, "text/plain", reason + "\n"),
        },
        (&Method::GET | &Method::HEAD, "/metrics") => (
            StatusCode::OK,
            "text/plain; version=0.0.4",
            metrics::render(registry),
        ),
        _ => (
            StatusCode::NOT_FOUND,
            "text/plain",
            "there are /livez, /readyz and /metrics\n".to_owned(),
        ),
    };
    let mut response = Response::new(Full::new(Bytes::from(body)));
    *response.status_mut() = status;
    response
        .headers_mut()
        .insert(header::CONTENT_TYPE, header::HeaderValue::from_static(kind));
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn readiness_says_what_is_missing() {
        let readiness = Readiness::new("waiting for the first routing table");
        let registry = Registry::new();
        assert_eq!(
            respond(&Method::GET, "/readyz", &readiness, &registry).status(),
            StatusCode::SERVICE_UNAVAILABLE
        );
        readiness.ready();
        assert_eq!(
            respond(&Method::GET, "/readyz", &readiness, &registry).status(),
            StatusCode::OK
        );
        assert_eq!(
            respond(&Method::POST, "/livez", &readiness, &registry).status(),
            StatusCode::NOT_FOUND
        );
    }
}
