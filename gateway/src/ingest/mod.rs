//! One request on the public port: find its source, read it, verify it, match it, have it recorded, answer.
//!
//! 200 only after the commit: the sender forgets the event when we answer. Every other answer means that nothing was
//! kept (one leaves it open: [`Refusal::DatabaseAway`]), and says whether to send again. The checks run in the order of the documents (signature, then storage), and the
//! cheap ones (source, method, announced size) before a byte of the body is read.
//!
//! A request keeps the source it found, whatever happens to the table while its body arrives; the event's `revision`
//! says which table that was.

pub mod body;
pub mod client;
pub mod head;
pub mod ids;
pub mod sources;

use crate::{
    args::Limits,
    errors::{REQUEST_ID, Refusal},
    metrics::Metrics,
    recorder,
    seen::{Observer, Seen},
    table,
};
use bytes::Bytes;
use http::{HeaderValue, Method, Request, Response, header, request::Parts};
use http_body::Body;
use http_body_util::Full;
use ipnet::IpNet;
use jiff::Timestamp;
use routing::{
    EventView, Table,
    ids::{Prefix, format},
    table::Source,
};
use service::clock;
use std::{
    net::{IpAddr, SocketAddr},
    sync::{Arc, OnceLock},
    time::Instant,
};
use store::events::{Event, NewDelivery, Recorded};
use tokio::sync::Semaphore;
use uuid::Uuid;

const INGEST: &str = "/v1/ingest/";
const HEALTH: &str = "/v1/health";

/// A body beyond this is hashed, parsed and matched on a thread where it holds up nobody else: 256 KiB take about a
/// millisecond.
const LARGE_BODY: usize = 256 << 10;

/// The public port's behaviour; one per process.
#[derive(Debug)]
pub struct Ingest {
    limits: Limits,
    trusted_proxies: Vec<IpNet>,
    event_ids: ids::Ids,
    /// Of their own: they are handed out more often, and nothing orders by them.
    request_ids: ids::Ids,
    requests: Semaphore,
    budget: body::Budget,
    sources: sources::Sources,
    metrics: Arc<Metrics>,
    observer: Observer,
    /// Empty while starting: requests get 503, not a 404 that would make a sender forget its event.
    ready: OnceLock<Ready>,
}

/// What ingest needs of the database; there once it has been reached.
#[derive(Debug)]
pub struct Ready {
    pub recorder: recorder::Handle,
    pub table: Arc<table::Current>,
    pub shards: u16,
}

/// The source that a request named, and its handles.
struct Found {
    source: Arc<Source>,
    counts: Arc<sources::Counts>,
}

struct Accepted {
    event_id: Uuid,
    found: Found,
    body_bytes: usize,
    deliveries: usize,
}

impl Ingest {
    pub fn new(
        limits: Limits,
        trusted_proxies: Vec<IpNet>,
        metrics: Arc<Metrics>,
        observer: Observer,
    ) -> Ingest {
        Ingest {
            requests: Semaphore::new(limits.max_requests),
            budget: body::Budget::new(
                limits.max_body_bytes_in_flight,
                metrics.ingest.buffered_bytes.clone(),
            ),
            limits,
            trusted_proxies,
            event_ids: ids::Ids::default(),
            request_ids: ids::Ids::default(),
            sources: sources::Sources::default(),
            metrics,
            observer,
            ready: OnceLock::new(),
        }
    }

    /// From now on events are accepted, as soon as `ready.table` has its first revision. Once per process.
    pub fn open(&self, ready: Ready) {
        assert!(self.ready.set(ready).is_ok(), "ingest opens once");
    }

    /// Takes away what was counted for sources that left the table a while ago; called every few seconds.
    pub fn tidy(&self, table: &Table, now: Instant) {
        self.sources.tidy(
            |source| table.source(&format(Prefix::Source, source)).is_some(),
            now,
            &self.metrics.ingest,
        );
    }

    pub fn limits(&self) -> &Limits {
        &self.limits
    }

    pub fn metrics(&self) -> &Metrics {
        &self.metrics
    }

    /// Answers one request. Dropping the future (the sender went away) leaves nothing half-written: it is recorded whole
    /// or not at all.
    pub async fn handle<B>(&self, request: Request<B>, peer: SocketAddr) -> Response<Full<Bytes>>
    where
        B: Body<Data = Bytes> + Unpin,
    {
        let started = clock::instant();
        let request_id = self.request_id();
        let path = request.uri().path();
        if path == HEALTH {
            return self.health(request.method(), &request_id);
        }
        let mut found = None;
        let told = self
            .observer
            .is_some()
            .then(|| (request.method().to_string(), path.to_owned()));
        match self.accept(request, peer, &mut found).await {
            Ok(accepted) => self.accepted(accepted, &request_id, told, started),
            Err(refusal) => self.refused(&refusal, request_id, found.as_ref(), told),
        }
    }

    /// The whole answer to something that was no request, counted: the server has no more to do than to send it.
    pub fn refuse_connection(&self, refusal: &Refusal) -> Bytes {
        let request_id = self.request_id();
        self.sources
            .refused(None, refusal.reason(), &self.metrics.ingest);
        refusal.raw_response(&request_id)
    }

    fn request_id(&self) -> String {
        format(Prefix::Request, self.request_ids.next(clock::now()))
    }

    fn health(&self, method: &Method, request_id: &str) -> Response<Full<Bytes>> {
        if method != Method::GET && method != Method::HEAD {
            return self.refused(
                &Refusal::MethodNotAllowed {
                    allow: "GET, HEAD".into(),
                },
                request_id.to_owned(),
                None,
                None,
            );
        }
        success(
            concat!(
                r#"{"status":"ok","version":""#,
                env!("CARGO_PKG_VERSION"),
                r#""}"#
            )
            .into(),
            request_id,
        )
    }

    async fn accept<B>(
        &self,
        request: Request<B>,
        peer: SocketAddr,
        found: &mut Option<Found>,
    ) -> Result<Accepted, Refusal>
    where
        B: Body<Data = Bytes> + Unpin,
    {
        let (head, body) = request.into_parts();
        let target_bytes = head::target_size(&head.uri);
        let max_bytes = self.limits.max_target_bytes();
        if target_bytes > max_bytes {
            return Err(Refusal::UriTooLong { max_bytes });
        }
        let key = head
            .uri
            .path()
            .strip_prefix(INGEST)
            .ok_or(Refusal::PathNotFound)?;
        let ready = self.ready.get().ok_or(Refusal::NotReady)?;
        let applied = ready.table.get().ok_or(Refusal::NotReady)?;
        let (source, rest) = applied.table.source(key).ok_or(Refusal::SourceNotFound)?;
        let source = source.clone();
        let counts = self.sources.get(&source, &self.metrics.ingest);
        *found = Some(Found {
            source: source.clone(),
            counts: counts.clone(),
        });
        self.check_head(&head, &source)?;

        // Both are given back when this request is answered; the commit's queue has its own bound.
        let _in_flight = self
            .requests
            .try_acquire()
            .map_err(|_| Refusal::TooManyRequests)?;
        let _counted = InFlight::new(&self.metrics.ingest.in_flight);
        let buffered = body::read(
            target_bytes + head::size(&head.headers),
            body,
            source.max_body_bytes,
            self.limits.body_timeout,
            &self.budget,
        )
        .await?;

        let request = Whole {
            rest_at: head.uri.path().len() - rest.len(),
            remote_addr: client::address(peer.ip(), &head.headers, &self.trusted_proxies),
            // Whole microseconds, as the queue's key will have them.
            received_at: store::time::stored(clock::now()),
            head,
            body: buffered.bytes,
        };
        let (request, matched) = request.judge(&source).await?;
        let event = self.event(
            request,
            &source,
            counts.namespace().clone(),
            applied.head.revision,
        );
        let (event_id, body_bytes) = (event.id, event.body.len());
        let deliveries = deliveries(event_id, matched, ready.shards);
        let accepted = Accepted {
            event_id,
            found: Found { source, counts },
            body_bytes,
            deliveries: deliveries.len(),
        };
        ready
            .recorder
            .record(
                Recorded {
                    event: Arc::new(event),
                    deliveries,
                },
                buffered.charge,
            )
            .await?;
        Ok(accepted)
    }

    /// What can be said before the body.
    fn check_head(&self, head: &Parts, source: &Source) -> Result<(), Refusal> {
        let (max_bytes, max_count) = (self.limits.max_header_bytes, self.limits.max_headers);
        if head.headers.len() > max_count || head::size(&head.headers) > max_bytes {
            return Err(Refusal::HeadersTooLarge {
                max_bytes,
                max_count,
            });
        }
        if source.suspended {
            return Err(Refusal::SourcePaused);
        }
        if !source.methods.is_empty() && !source.methods.contains(&head.method) {
            let allow = source
                .methods
                .iter()
                .map(Method::as_str)
                .collect::<Vec<_>>()
                .join(", ");
            return Err(Refusal::MethodNotAllowed { allow });
        }
        Ok(())
    }

    fn event(&self, request: Whole, source: &Source, namespace: Arc<str>, revision: i64) -> Event {
        Event {
            id: self.event_ids.next(request.received_at),
            namespace,
            source_id: source.uid,
            revision,
            received_at: request.received_at,
            method: request.head.method.as_str().to_owned(),
            path: request.rest().to_owned(),
            query: request.query().to_owned(),
            headers: head::lines(&request.head.headers),
            body: request.body,
            remote_addr: request.remote_addr,
        }
    }

    fn accepted(
        &self,
        accepted: Accepted,
        request_id: &str,
        told: Option<(String, String)>,
        started: Instant,
    ) -> Response<Full<Bytes>> {
        let took = clock::instant().duration_since(started);
        let metrics = &self.metrics.ingest;
        let Found { source, counts } = &accepted.found;
        counts.accepted.inc();
        metrics.body_bytes.inc_by(accepted.body_bytes as u64);
        metrics.request_seconds.observe(took.as_secs_f64());
        self.observer.tell(|| Seen::Accepted {
            event_id: accepted.event_id,
            namespace: source.namespace.clone(),
            source: source.name.clone(),
            method: told.map(|(method, _)| method).unwrap_or_default(),
            body_bytes: accepted.body_bytes,
            deliveries: accepted.deliveries,
            took,
        });
        let mut body = String::with_capacity(112);
        body.push_str(r#"{"event_id":""#);
        body.push_str(&format(Prefix::Event, accepted.event_id));
        body.push_str(r#"","source_id":""#);
        body.push_str(&source.id);
        body.push_str(r#""}"#);
        success(body.into(), request_id)
    }

    fn refused(
        &self,
        refusal: &Refusal,
        request_id: String,
        found: Option<&Found>,
        told: Option<(String, String)>,
    ) -> Response<Full<Bytes>> {
        let source = found.map(|found| &*found.source);
        self.sources.refused(
            found.map(|found| &*found.counts),
            refusal.reason(),
            &self.metrics.ingest,
        );
        tracing::debug!(
            request_id,
            reason = refusal.reason(),
            source = source.map(|source| &source.id),
            "refused"
        );
        let response = refusal.response(&request_id);
        self.observer.tell(|| {
            let (method, path) = told.unwrap_or_default();
            Seen::Refused {
                request_id,
                source: source.map(|source| format!("{}/{}", source.namespace, source.name)),
                method,
                path,
                status: refusal.status().as_u16(),
                code: refusal.code(),
                message: refusal.to_string(),
            }
        });
        response
    }
}

/// A request that has arrived whole.
struct Whole {
    head: Parts,
    /// Where in the path the part behind the source's key begins.
    rest_at: usize,
    body: Bytes,
    remote_addr: IpAddr,
    received_at: Timestamp,
}

impl Whole {
    fn rest(&self) -> &str {
        &self.head.uri.path()[self.rest_at..]
    }

    fn query(&self) -> &str {
        self.head.uri.query().unwrap_or_default()
    }

    /// Verifies and matches. Gives the request back with the (connection, destination) pairs that it goes by.
    async fn judge(self, source: &Arc<Source>) -> Result<(Whole, Vec<(Uuid, Uuid)>), Refusal> {
        if self.body.len() <= LARGE_BODY {
            return self.judge_here(source);
        }
        let source = source.clone();
        match tokio::task::spawn_blocking(move || self.judge_here(&source)).await {
            Ok(judged) => judged,
            Err(panicked) => std::panic::resume_unwind(panicked.into_panic()),
        }
    }

    fn judge_here(self, source: &Source) -> Result<(Whole, Vec<(Uuid, Uuid)>), Refusal> {
        let view = EventView::new(
            &self.head.method,
            self.rest(),
            self.query(),
            &self.head.headers,
            &self.body,
            self.remote_addr,
        );
        if let Some(verifier) = &source.verifier {
            verifier
                .verify(&view, self.received_at)
                .map_err(Refusal::Unauthorized)?;
        }
        let matched = source
            .route(&view)
            .into_iter()
            .map(|connection| (connection.uid, connection.destination))
            .collect();
        Ok((self, matched))
    }
}

fn deliveries(event_id: Uuid, matched: Vec<(Uuid, Uuid)>, shards: u16) -> Vec<NewDelivery> {
    if matched.is_empty() {
        return Vec::new();
    }
    let base = ids::random();
    let delivery = |(index, (connection_id, destination_id))| NewDelivery {
        id: ids::delivery(event_id, base, index),
        connection_id,
        destination_id,
        shard: routing::shard::of(destination_id, shards),
    };
    matched.into_iter().enumerate().map(delivery).collect()
}

fn success(body: Bytes, request_id: &str) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(body));
    let headers = response.headers_mut();
    headers.insert(
        header::CONTENT_TYPE,
        HeaderValue::from_static("application/json"),
    );
    headers.insert(
        REQUEST_ID,
        HeaderValue::from_str(request_id).expect("a request id is ASCII"),
    );
    response
}

/// Counts a request for as long as it lives, also when its future is dropped half-way.
struct InFlight<'a>(&'a prometheus::IntGauge);

impl<'a> InFlight<'a> {
    fn new(gauge: &'a prometheus::IntGauge) -> InFlight<'a> {
        gauge.inc();
        InFlight(gauge)
    }
}

impl Drop for InFlight<'_> {
    fn drop(&mut self) {
        self.0.dec();
    }
}

#[cfg(test)]
mod tests;
