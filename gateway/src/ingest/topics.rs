//! `/v1/topics/…`: publishing to a topic, now or later, and what is scheduled.
//!
//! A publication ends where a sender's request does: in the recorder's next commit, which holds its events, their
//! deliveries and its idempotency key. What is to be published later is stored away from the queue, and `crate::scheduled`
//! publishes it when it is due.
//!
//! A request that is made again with its idempotency key gets the first one's answer, whatever has become of the topic's
//! rules since: where a rule would refuse it, the answers are asked first.

mod judge;
mod pending;
mod request;

use super::{
    Ingest, Ready,
    answer::{self, Reply},
    body, client, head, ids,
    recording::deliveries,
    sources::Counts,
};
use crate::{
    bodies::{Bodies, NotKept},
    errors::{Publisher, Refusal},
    seen::Seen,
};
use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Request, Response, header};
use http_body::Body;
use http_body_util::Full;
use jiff::Timestamp;
use judge::{Asked, Judged};
use request::{Act, Idempotency};
use routing::{
    Table, cloudevents,
    compile::DEFAULT_MAX_BODY_BYTES,
    ids::{Prefix, format},
    publication,
    table::{PublishKey, Topic},
};
use serde_json::json;
use service::clock;
use std::{
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Instant,
};
use store::{
    events::{Event, Kept, Recorded, Verification},
    idempotency::{self, Claim, Done},
    scheduled::{self, Scheduled},
};
use uuid::Uuid;

pub(super) const TOPICS: &str = "/v1/topics/";

/// A body beyond this is parsed and matched on a thread where it holds up nobody else.
const LARGE_BODY: usize = 256 << 10;

/// Something due later than that is found by the owner's next look.
const SOON: jiff::SignedDuration = jiff::SignedDuration::from_secs(60);

/// What an answer says that was given before.
const REPLAYED: header::HeaderName = header::HeaderName::from_static("idempotent-replayed");

/// The topic that a request was let in to, and its counts.
struct Found {
    topic: Arc<Topic>,
    counts: Arc<Counts>,
}

/// What came of a request that was not refused.
enum Taken {
    Published(Published),
    /// As it was answered when it was made first.
    Before(Bytes),
    Replied(Reply),
}

struct Published {
    first: Uuid,
    events: usize,
    body_bytes: u64,
    deliveries: usize,
    marks: usize,
    scheduled: bool,
    answer: Bytes,
}

impl Ingest {
    pub(super) async fn topic<B>(
        &self,
        request: Request<B>,
        peer: SocketAddr,
        started: Instant,
        request_id: String,
        told: Option<(String, String)>,
    ) -> Response<Full<Bytes>>
    where
        B: Body<Data = Bytes> + Unpin,
    {
        let mut found = None;
        let taken = self.topic_request(request, peer, &mut found).await;
        let counts = found.as_ref().map(|found| &*found.counts);
        let metrics = &self.metrics.ingest;
        match (taken, counts) {
            (Ok(Taken::Published(published)), Some(counts)) => {
                let took = clock::instant().duration_since(started);
                counts.accepted.inc_by(published.events as u64);
                metrics.body_bytes.inc_by(published.body_bytes);
                metrics.request_seconds.observe(took.as_secs_f64());
                for _ in 0..published.marks {
                    self.sources.marked(counts, "schema_invalid", metrics);
                }
                for _ in 0..if published.scheduled {
                    published.events
                } else {
                    0
                } {
                    self.sources.marked(counts, "scheduled", metrics);
                }
                self.observer.tell(|| Seen::Accepted {
                    event_id: published.first,
                    namespace: counts.namespace().to_string(),
                    source: counts.name().to_owned(),
                    method: told.map(|(method, _)| method).unwrap_or_default(),
                    body_bytes: published.body_bytes,
                    deliveries: published.deliveries,
                    took,
                });
                answer::json(published.answer, &request_id)
            }
            (Ok(Taken::Before(answer)), counts) => {
                if let Some(counts) = counts {
                    self.sources.replied(counts, "idempotent", metrics);
                }
                let mut response = answer::json(answer, &request_id);
                let headers = response.headers_mut();
                headers.insert(REPLAYED, HeaderValue::from_static("true"));
                response
            }
            (Ok(Taken::Replied(reply)), counts) => {
                if let Some(counts) = counts {
                    self.sources.replied(counts, reply.kind, metrics);
                }
                reply.response(&request_id)
            }
            (Ok(Taken::Published(_)), None) => unreachable!("it was published to a topic"),
            (Err(refusal), counts) => self.refused_of(&refusal, request_id, counts, told),
        }
    }

    async fn topic_request<B>(
        &self,
        request: Request<B>,
        peer: SocketAddr,
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
        let path = head.uri.path().strip_prefix(TOPICS).unwrap_or_default();
        let (slug, act) = request::act(path, &head.method)?;
        let ready = self.ready.get().ok_or(Refusal::NotReady)?;
        let applied = ready.table.get().ok_or(Refusal::NotReady)?;
        let topic = admitted(&applied.table, slug, &head.headers)?;
        let counts = self.sources.of_topic(&topic, &self.metrics.ingest);
        let Found { topic, counts } = found.insert(Found { topic, counts });

        // Both are given back when this request is answered; the commit's queue has its own bound.
        let _in_flight = self
            .requests
            .try_acquire()
            .map_err(|_| Refusal::TooManyRequests)?;
        let _counted = super::InFlight::new(&self.metrics.ingest.in_flight);
        let query = head.uri.query().unwrap_or_default();
        let batch = match act {
            Act::List => return pending::list(ready, topic, query).await.map(Taken::Replied),
            Act::Cancel(id) => return pending::cancel(ready, topic, id).await.map(Taken::Replied),
            Act::Publish { batch } => batch,
        };
        let buffered = body::read(
            target_bytes + head::size(&head.headers),
            body,
            DEFAULT_MAX_BODY_BYTES.min(self.limits.max_body as u64),
            self.limits.body_timeout,
            &self.budget,
        )
        .await?;
        let key = Idempotency::of(&head.headers, topic.uid, batch, query, &buffered.bytes)?;
        let cloud_batch = cloudevents::said(&head.headers) == cloudevents::Said::Batch;
        let now = store::time::stored(clock::now());
        let remote_addr = client::address(peer.ip(), &head.headers, &self.proxies.trusted);
        let several = batch || cloud_batch;
        let asked = Asked {
            batch,
            several,
            query: query.to_owned(),
            headers: head.headers,
            version: head.version,
            body: buffered.bytes,
            remote_addr,
            now,
        };
        let judged = if asked.body.len() <= LARGE_BODY {
            asked.judge(topic)
        } else {
            let topic = topic.clone();
            match tokio::task::spawn_blocking(move || asked.judge(&topic)).await {
                Ok(judged) => judged,
                Err(panicked) => std::panic::resume_unwind(panicked.into_panic()),
            }
        };
        let judged = match judged {
            Ok(judged) => judged,
            Err(refusal) => return answered_before(ready, key, refusal).await,
        };
        let new = New {
            topic,
            counts,
            key,
            several,
            now,
            remote_addr,
            revision: applied.head.revision,
            shards: ready.shards,
            table: &applied.table,
        };
        match judged.publication.due {
            None => self.publish(ready, new, judged, buffered.charge).await,
            Some(due) => self.schedule(ready, new, judged, due).await,
        }
    }

    async fn publish(
        &self,
        ready: &Ready,
        new: New<'_>,
        judged: Judged,
        charge: body::Charge,
    ) -> Result<Taken, Refusal> {
        let made = judged.publication.events.into_iter().zip(judged.events);
        let mut events: Vec<Recorded> = made
            .map(|(event, (matched, verification))| {
                let id = self.event_ids.next(new.now);
                Recorded {
                    deliveries: deliveries(id, matched, new.table, new.shards),
                    event: Arc::new(Event {
                        id,
                        namespace: new.counts.namespace().clone(),
                        source_id: new.topic.uid,
                        revision: new.revision,
                        received_at: new.now,
                        method: "POST".to_owned(),
                        path: String::new(),
                        query: String::new(),
                        headers: judged.headers.clone(),
                        body: event.body,
                        object_bytes: None,
                        remote_addr: new.remote_addr,
                    }),
                    verification,
                    dedup: None,
                    claim: None,
                }
            })
            .collect();
        let ids: Vec<Uuid> = events.iter().map(|recorded| recorded.event.id).collect();
        let answer = answer_of(&new, &ids, None);
        if let Some(claim) = new.claim(&answer) {
            let claim = Arc::new(claim);
            for recorded in &mut events {
                recorded.claim = Some(claim.clone());
            }
        }
        let invalid = |recorded: &&Recorded| recorded.verification == Verification::SchemaInvalid;
        let published = Published {
            first: ids[0],
            events: ids.len(),
            body_bytes: events
                .iter()
                .map(|recorded| recorded.event.body_bytes())
                .sum(),
            deliveries: events
                .iter()
                .map(|recorded| recorded.deliveries.len())
                .sum(),
            marks: events.iter().filter(invalid).count(),
            scheduled: false,
            answer,
        };
        let kept = keep_all(&ready.bodies, &mut events).await?;
        let more = events.split_off(1);
        let first = events.pop().expect("a publication has one event at least");
        let recorded = ready.recorder.record_all(first, more, charge).await;
        // Where nobody can know whether they were recorded, the sweep will.
        if !matches!(
            recorded,
            Ok(Kept::New | Kept::Duplicate(_)) | Err(Refusal::DatabaseAway)
        ) {
            forget_all(&ready.bodies, &kept).await;
        }
        match recorded? {
            // No topic has a dedup rule.
            Kept::New | Kept::Duplicate(_) => Ok(Taken::Published(published)),
            Kept::Answered(answer) => Ok(Taken::Before(answer)),
            Kept::Mismatch => Err(Refusal::IdempotencyMismatch),
        }
    }

    async fn schedule(
        &self,
        ready: &Ready,
        new: New<'_>,
        judged: Judged,
        due: Timestamp,
    ) -> Result<Taken, Refusal> {
        let due = store::time::stored(due);
        let batch: Vec<Scheduled> = judged
            .publication
            .events
            .into_iter()
            .zip(&judged.events)
            .enumerate()
            .map(|(place, (event, (_, verification)))| Scheduled {
                id: ids::due(due, place),
                topic_id: new.topic.uid,
                namespace: new.counts.namespace().clone(),
                due_at: due,
                scheduled_at: new.now,
                headers: judged.headers.clone(),
                body: event.body,
                remote_addr: new.remote_addr,
                verification: *verification,
            })
            .collect();
        let ids: Vec<Uuid> = batch.iter().map(|scheduled| scheduled.id).collect();
        let answer = answer_of(&new, &ids, Some(due));
        let claim = new.claim(&answer);
        let done = scheduled::schedule(&ready.pool, claim.as_ref(), &batch)
            .await
            .map_err(away)?;
        match done {
            Done::Before(answer) => return Ok(Taken::Before(answer)),
            Done::Mismatch => return Err(Refusal::IdempotencyMismatch),
            Done::Now => {}
        }
        if due.duration_since(new.now) < SOON {
            ready.scheduled.notify_one();
        }
        let invalid =
            |(_, verification): &&(_, Verification)| *verification == Verification::SchemaInvalid;
        Ok(Taken::Published(Published {
            first: ids[0],
            events: ids.len(),
            body_bytes: batch
                .iter()
                .map(|scheduled| scheduled.body.len() as u64)
                .sum(),
            deliveries: 0,
            marks: judged.events.iter().filter(invalid).count(),
            scheduled: true,
            answer,
        }))
    }
}

/// What the events of one request have in common.
struct New<'a> {
    topic: &'a Topic,
    counts: &'a Counts,
    key: Option<Idempotency>,
    /// It was a batch, also one of one event.
    several: bool,
    now: Timestamp,
    remote_addr: IpAddr,
    revision: i64,
    shards: u16,
    table: &'a Table,
}

impl New<'_> {
    fn claim(&self, answer: &Bytes) -> Option<Claim> {
        self.key.as_ref().map(|key| key.claim(answer.clone()))
    }
}

/// The topic that a request names and whose key it has.
fn admitted(table: &Table, slug: &str, headers: &HeaderMap) -> Result<Arc<Topic>, Refusal> {
    let mut named = table.topics_named(slug).peekable();
    if named.peek().is_none() {
        return Err(Refusal::TopicNotFound);
    }
    let key = publication::headers::publish_key(headers)
        .ok_or(Refusal::NotAPublisher(Publisher::KeyMissing))?;
    let key = PublishKey::new(key);
    let mut anybody = false;
    let mut found = None;
    for topic in named {
        anybody |= topic.has_keys();
        if topic.admits(&key) && found.replace(topic).is_some() {
            return Err(Refusal::TopicAmbiguous);
        }
    }
    let why = if anybody {
        Publisher::KeyWrong
    } else {
        Publisher::NoKeys
    };
    found.cloned().ok_or(Refusal::NotAPublisher(why))
}

/// Of a request that would be refused now: its answer, if it was made before.
async fn answered_before(
    ready: &Ready,
    key: Option<Idempotency>,
    refusal: Refusal,
) -> Result<Taken, Refusal> {
    let Some(key) = key else {
        return Err(refusal);
    };
    let claim = key.claim(Bytes::new());
    match idempotency::find(&ready.pool, &claim).await.map_err(away)? {
        Some(Done::Before(answer)) => Ok(Taken::Before(answer)),
        Some(Done::Mismatch) => Err(Refusal::IdempotencyMismatch),
        Some(Done::Now) | None => Err(refusal),
    }
}

fn away(error: store::Error) -> Refusal {
    if matches!(error, store::Error::Data(_)) {
        return Refusal::NotStorable;
    }
    tracing::error!(
        error = service::log::chain(&error),
        "what is scheduled could not be reached"
    );
    Refusal::DatabaseAway
}

fn answer_of(new: &New<'_>, ids: &[Uuid], due: Option<Timestamp>) -> Bytes {
    let event = |id: &Uuid| format(Prefix::Event, *id);
    let mut answer = match ids {
        [one] if !new.several => json!({ "event_id": event(one) }),
        several => json!({ "event_ids": several.iter().map(event).collect::<Vec<_>>() }),
    };
    answer["topic"] = new.topic.name.as_str().into();
    match due {
        None => answer["received_at"] = new.now.to_string().into(),
        Some(due) => {
            answer["status"] = "scheduled".into();
            answer["due_at"] = due.to_string().into();
        }
    }
    answer.to_string().into()
}

/// Puts large bodies where they belong. Returns the events whose bodies are objects now.
async fn keep_all(bodies: &Bodies, events: &mut [Recorded]) -> Result<Vec<Uuid>, Refusal> {
    let mut kept = Vec::new();
    for recorded in events {
        match bodies.keep(recorded).await {
            Ok(true) => kept.push(recorded.event.id),
            Ok(false) => {}
            Err(NotKept) => {
                forget_all(bodies, &kept).await;
                return Err(Refusal::StoreAway);
            }
        }
    }
    Ok(kept)
}

async fn forget_all(bodies: &Bodies, kept: &[Uuid]) {
    for event in kept {
        bodies.forget(*event).await;
    }
}
