//! One request on the public port: find its source, judge its head ([`admission`]), read its body ([`body`]), judge the
//! whole ([`judge`]), have it recorded, answer ([`answer`]).
//!
//! 200 only after the commit: the sender forgets the event when we answer. Every refusal means that nothing was kept (one
//! leaves it open: [`Refusal::DatabaseAway`]), and says whether to send again. A [`Reply`] keeps nothing either: it is all
//! that a handshake asks for.
//!
//! A request keeps the source it found, whatever happens to the table while its body arrives; the event's `revision`
//! says which table that was.

pub mod admission;
pub mod answer;
pub mod body;
mod checks;
pub mod client;
pub mod cors;
pub mod documents;
pub mod handshake;
pub mod head;
pub mod ids;
pub mod judge;
pub mod rate;
pub(crate) mod recording;
pub mod replicas;
pub mod sources;
mod streamed;
mod topics;

use crate::{
    args::Limits,
    bodies::{Bodies, MOST_IN_MEMORY, NotKept},
    egress,
    errors::Refusal,
    metrics::Metrics,
    recorder,
    seen::{Observer, Seen},
    table,
};
use admission::{Asked, Share};
use answer::{Marks, Reply};
use bytes::Bytes;
use http::{Method, Request, Response};
use http_body::Body;
use http_body_util::Full;
use ipnet::IpNet;
use judge::{Arrived, Judged};
use recording::{Accepted, Addressed};
use routing::{
    Table,
    ids::{Prefix, format},
    table::Source,
};
use service::clock;
use std::{
    net::SocketAddr,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicU32, Ordering},
    },
    time::Instant,
};
use store::Pool;
use tokio::sync::{Notify, Semaphore};

const INGEST: &str = "/v1/ingest/";
const HEALTH: &str = "/v1/health";

/// The public port's behaviour; one per process.
#[derive(Debug)]
pub struct Ingest {
    limits: Limits,
    /// What senders put before the path; some sign it.
    public_url: Arc<str>,
    documents: documents::Documents,
    proxies: Proxies,
    /// What `Asked::at` counts from.
    epoch: Instant,
    /// Live ones that take events, this one among them.
    replicas: AtomicU32,
    event_ids: ids::Ids,
    /// Of their own: they are handed out more often, and nothing orders by them.
    request_ids: ids::Ids,
    requests: Semaphore,
    budget: body::Budget,
    /// Of bodies that arrive in parts.
    uploads: Semaphore,
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
    pub bodies: Bodies,
    /// For what is scheduled.
    pub pool: Pool,
    /// Told when something was scheduled that is due soon.
    pub scheduled: Arc<Notify>,
    pub table: Arc<table::Current>,
    pub shards: u16,
}

/// Whose word is taken for a sender's address.
#[derive(Debug, Clone, Default)]
pub struct Proxies {
    pub trusted: Vec<IpNet>,
    /// Connections from those begin with a head of PROXY protocol.
    pub protocol: bool,
}

/// The source that a request named, its handles, and what its answers say.
struct Found {
    source: Arc<Source>,
    counts: Arc<sources::Counts>,
    marks: Marks,
}

/// What came of a request that was not refused.
enum Taken {
    Recorded(Accepted),
    Replied(Reply),
}

impl Ingest {
    pub fn new(
        limits: Limits,
        public_url: &str,
        client: egress::Client,
        proxies: Proxies,
        metrics: Arc<Metrics>,
        observer: Observer,
    ) -> Ingest {
        Ingest {
            requests: Semaphore::new(limits.max_requests),
            uploads: Semaphore::new(streamed::at_once(limits.max_body_bytes_in_flight)),
            budget: body::Budget::new(
                limits.max_body_bytes_in_flight,
                metrics.ingest.buffered_bytes.clone(),
            ),
            limits,
            public_url: public_url.into(),
            documents: documents::Documents::new(client, metrics.ingest.documents.clone()),
            proxies,
            epoch: clock::instant(),
            replicas: AtomicU32::new(1),
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
            |uid| {
                table.source(&format(Prefix::Source, uid)).is_some() || table.topic(uid).is_some()
            },
            now,
            &self.metrics.ingest,
        );
    }

    /// Rate limits are shared among so many replicas.
    pub fn share_with(&self, replicas: u32) {
        let replicas = replicas.max(1);
        self.replicas.store(replicas, Ordering::Relaxed);
        self.metrics
            .ingest
            .rate_limit_replicas
            .set(i64::from(replicas));
    }

    pub fn proxies(&self) -> &Proxies {
        &self.proxies
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
        let told = self
            .observer
            .is_some()
            .then(|| (request.method().to_string(), path.to_owned()));
        if path.starts_with(topics::TOPICS) {
            return self.topic(request, peer, started, request_id, told).await;
        }
        let mut found = None;
        let taken = self.accept(request, peer, started, &mut found).await;
        let mut response = match (taken, &found) {
            (Ok(Taken::Recorded(accepted)), Some(found)) => {
                self.accepted(accepted, found, &request_id, told, started)
            }
            (Ok(Taken::Replied(reply)), Some(found)) => self.replied(reply, found, &request_id),
            (Ok(_), None) => unreachable!("what was taken was sent to a source"),
            (Err(refusal), found) => self.refused(&refusal, request_id, found.as_ref(), told),
        };
        if let Some(Found { marks, .. }) = &found {
            marks.put(&mut response, clock::now());
        }
        response
    }

    /// The whole answer to something that was no request, counted: the server has no more to do than to send it.
    pub fn refuse_connection(&self, refusal: &Refusal) -> Bytes {
        let request_id = self.request_id();
        self.sources
            .refused(None, refusal.reason(), &self.metrics.ingest);
        refusal.raw_response(&request_id)
    }

    /// Counts a connection that ended without an answer, since there was nobody to understand one.
    pub fn count_closed(&self, reason: &'static str) {
        self.sources.refused(None, reason, &self.metrics.ingest);
    }

    /// The same on a connection that goes on, for a request that HTTP/2's library refused before we saw it.
    pub fn refuse_stream(&self, refusal: &Refusal) -> Response<Bytes> {
        let request_id = self.request_id();
        self.sources
            .refused(None, refusal.reason(), &self.metrics.ingest);
        refusal.envelope(&request_id)
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
        answer::json(
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
        started: Instant,
        found: &mut Option<Found>,
    ) -> Result<Taken, Refusal>
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
        let remote_addr = client::address(peer.ip(), &head.headers, &self.proxies.trusted);
        let found = found.insert(Found {
            source: source.clone(),
            counts: counts.clone(),
            marks: Marks::default(),
        });
        let asked = Asked {
            head: &head,
            has_body: !body.is_end_stream(),
            sender: remote_addr,
            at: started.duration_since(self.epoch),
        };
        let share = Share {
            bucket: &counts.bucket,
            replicas: self.replicas.load(Ordering::Relaxed),
        };
        let reply = admission::judge(&asked, &source, &share, &self.limits, &mut found.marks)?;
        if let Some(reply) = reply {
            return Ok(Taken::Replied(reply));
        }

        // Both are given back when this request is answered; the commit's queue has its own bound.
        let _in_flight = self
            .requests
            .try_acquire()
            .map_err(|_| Refusal::TooManyRequests)?;
        let _counted = InFlight::new(&self.metrics.ingest.in_flight);
        let limit_bytes = self.limit(&source);
        if body.size_hint().lower() > limit_bytes {
            return Err(Refusal::PayloadTooLarge { limit_bytes });
        }
        let arrived = Arrived {
            rest_at: head.uri.path().len() - rest.len(),
            head_bytes: target_bytes + head::size(&head.headers),
            head,
            remote_addr,
        };
        let to = Addressed {
            ready,
            applied: &applied,
            source: &source,
            counts: &counts,
        };
        match self.in_parts(&body, &to) {
            Some(bytes) => self.take_in_parts(arrived, body, bytes, &to).await,
            None => self.take_whole(arrived, body, &to).await,
        }
    }

    /// The usual way: the body is in memory, and whoever has to look into it does.
    async fn take_whole<B>(
        &self,
        arrived: Arrived,
        body: B,
        to: &Addressed<'_>,
    ) -> Result<Taken, Refusal>
    where
        B: Body<Data = Bytes> + Unpin,
    {
        let buffered = body::read(
            arrived.head_bytes,
            body,
            self.limit(to.source).min(MOST_IN_MEMORY),
            self.limits.body_timeout,
            &self.budget,
        )
        .await?;
        let request = arrived.with(buffered.bytes);
        let judged = request.judge(to.source, &self.public_url, &self.documents);
        let record = match judged.await? {
            Judged::Record(record) => record,
            Judged::Reply(reply) => return Ok(Taken::Replied(reply)),
        };
        let id = self.event_ids.next(record.request.received_at);
        let mut recorded = recording::rows(id, record, to);
        // From here on an object may be there without a row: what isn't taken back, the sweep finds.
        let kept = to.ready.bodies.keep(&mut recorded).await;
        let kept = kept.map_err(|NotKept| Refusal::StoreAway)?;
        self.record(recorded, kept, buffered.charge, to).await
    }

    /// The largest body that a source takes here.
    fn limit(&self, source: &Source) -> u64 {
        source.max_body_bytes.min(self.limits.max_body as u64)
    }

    fn accepted(
        &self,
        accepted: Accepted,
        found: &Found,
        request_id: &str,
        told: Option<(String, String)>,
        started: Instant,
    ) -> Response<Full<Bytes>> {
        let took = clock::instant().duration_since(started);
        let metrics = &self.metrics.ingest;
        let Found { source, counts, .. } = found;
        counts.accepted.inc();
        metrics.body_bytes.inc_by(accepted.body_bytes);
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
        answer::recorded(source, accepted.event_id, accepted.duplicate, request_id)
    }

    fn replied(&self, reply: Reply, found: &Found, request_id: &str) -> Response<Full<Bytes>> {
        self.sources
            .replied(&found.counts, reply.kind, &self.metrics.ingest);
        tracing::debug!(
            request_id,
            kind = reply.kind,
            source = found.source.id,
            "answered without recording"
        );
        reply.response(request_id)
    }

    fn refused(
        &self,
        refusal: &Refusal,
        request_id: String,
        found: Option<&Found>,
        told: Option<(String, String)>,
    ) -> Response<Full<Bytes>> {
        let counts = found.map(|found| &*found.counts);
        self.refused_of(refusal, request_id, counts, told)
    }

    fn refused_of(
        &self,
        refusal: &Refusal,
        request_id: String,
        counts: Option<&sources::Counts>,
        told: Option<(String, String)>,
    ) -> Response<Full<Bytes>> {
        self.sources
            .refused(counts, refusal.reason(), &self.metrics.ingest);
        tracing::debug!(
            request_id,
            reason = refusal.reason(),
            source = counts.map(sources::Counts::name),
            "refused"
        );
        let response = refusal.response(&request_id);
        self.observer.tell(|| {
            let (method, path) = told.unwrap_or_default();
            Seen::Refused {
                request_id,
                source: counts.map(|counts| format!("{}/{}", counts.namespace(), counts.name())),
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
