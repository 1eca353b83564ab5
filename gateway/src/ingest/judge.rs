//! A request with its body in hand: is it genuine, is it answered by itself, does it fit, was it there before, where does
//! it go?
//!
//! The order is the documents': signature, then schema, then dedup. Each check is a line of [`Whole::judge_here`] and a file
//! of its own; none of them waits for anything, so all of them run in one go, and for a large body on a thread that holds
//! up nobody else.

use super::{
    answer::Reply,
    checks,
    documents::{Asker, Documents, Unavailable},
    handshake,
    recording::pairs,
};
use crate::errors::Refusal;
use bytes::Bytes;
use http::request::Parts;
use jiff::Timestamp;
use routing::{
    EventView,
    table::Source,
    verify::{Document, Refused, Verdict, Verifier, Wanted},
};
use service::clock;
use std::{net::IpAddr, sync::Arc};
use store::{dedup, events::Verification};
use uuid::Uuid;

/// A body beyond this is hashed, parsed and matched on a thread where it holds up nobody else: 256 KiB take about a
/// millisecond.
const LARGE_BODY: usize = 256 << 10;

/// A request that is taken, and whose body is still to come.
pub struct Arrived {
    pub head: Parts,
    /// Where in the path the part behind the source's key begins.
    pub rest_at: usize,
    /// What the head takes in memory, the target included.
    pub head_bytes: usize,
    pub remote_addr: IpAddr,
}

impl Arrived {
    /// Its body has come, now.
    pub fn with(self, body: Bytes) -> Whole {
        Whole {
            head: self.head,
            rest_at: self.rest_at,
            body,
            remote_addr: self.remote_addr,
            // Whole microseconds, as the queue's key will have them.
            received_at: store::time::stored(clock::now()),
        }
    }
}

/// A request that has arrived whole.
pub struct Whole {
    pub head: Parts,
    /// Where in the path the part behind the source's key begins.
    pub rest_at: usize,
    pub body: Bytes,
    pub remote_addr: IpAddr,
    pub received_at: Timestamp,
}

/// What becomes of a request that was not refused.
#[expect(
    clippy::large_enum_variant,
    reason = "nearly all are records, and a box is an allocation for each"
)]
pub enum Judged {
    Record(Record),
    /// It wants an answer and nothing else, as a provider's handshake does.
    Reply(Reply),
}

/// A request that is to be recorded, and what was found out about it.
pub struct Record {
    pub request: Whole,
    /// The (connection, destination) pairs that it goes by.
    pub matched: Vec<(Uuid, Uuid)>,
    pub verification: Verification,
    /// By which a second copy is recognised.
    pub dedup: Option<dedup::Key>,
}

impl Whole {
    pub fn rest(&self) -> &str {
        &self.head.uri.path()[self.rest_at..]
    }

    pub fn query(&self) -> &str {
        self.head.uri.query().unwrap_or_default()
    }

    pub async fn judge(
        self,
        source: &Arc<Source>,
        public_url: &Arc<str>,
        documents: &Documents,
    ) -> Result<Judged, Refusal> {
        let asker = Asker {
            source: source.uid,
            namespace: &source.namespace,
        };
        let document = match self.wants(source, public_url)? {
            None => None,
            Some(wanted) => match documents.get(asker, &wanted).await {
                Ok(document) => Some(document),
                Err(Unavailable) => return Err(Refusal::KeysAway),
            },
        };
        let judged = if self.body.len() <= LARGE_BODY {
            self.judge_here(source, public_url, document.as_deref())
        } else {
            let (source, public_url) = (source.clone(), public_url.clone());
            let judge = move || self.judge_here(&source, &public_url, document.as_deref());
            match tokio::task::spawn_blocking(judge).await {
                Ok(judged) => judged,
                Err(panicked) => std::panic::resume_unwind(panicked.into_panic()),
            }
        };
        match judged? {
            Found::Judged(judged) => Ok(judged),
            Found::Confirm(url) => match documents.confirm(asker, &url).await {
                Ok(()) => Ok(Judged::Reply(handshake::confirmed())),
                Err(Unavailable) => Err(Refusal::KeysAway),
            },
        }
    }

    /// What verification needs and has to be fetched. Few schemes do; the others decide without a look at the request.
    fn wants(&self, source: &Source, public_url: &str) -> Result<Option<Wanted>, Refusal> {
        let Some(verifier) = &source.verifier else {
            return Ok(None);
        };
        verifier
            .wants(&self.view(public_url))
            .map_err(|refused| unauthorized(verifier, refused))
    }

    pub(super) fn view<'v>(&'v self, public_url: &'v str) -> EventView<'v> {
        let target = self
            .head
            .uri
            .path_and_query()
            .map_or("", |all| all.as_str());
        EventView::new(
            &self.head.method,
            self.rest(),
            self.query(),
            &self.head.headers,
            &self.body,
            self.remote_addr,
        )
        .called_at(public_url, target)
    }

    fn judge_here(
        self,
        source: &Source,
        public_url: &str,
        document: Option<&Document>,
    ) -> Result<Found, Refusal> {
        let view = self.view(public_url);
        match self.verify(source, &view, document)? {
            Verdict::Genuine => {}
            Verdict::Answer(answer) => {
                return Ok(Found::Judged(Judged::Reply(handshake::reply(answer))));
            }
            Verdict::Confirm(url) => return Ok(Found::Confirm(url)),
        }
        let verification = checks::schema(source, &view)?;
        let dedup = checks::key(source, &view);
        let matched = pairs(source.route(&view));
        Ok(Found::Judged(Judged::Record(Record {
            request: self,
            matched,
            verification,
            dedup,
        })))
    }

    fn verify(
        &self,
        source: &Source,
        view: &EventView<'_>,
        document: Option<&Document>,
    ) -> Result<Verdict, Refusal> {
        source
            .verifier
            .as_ref()
            .map_or(Ok(Verdict::Genuine), |verifier| {
                verifier
                    .verify(view, self.received_at, document)
                    .map_err(|refused| unauthorized(verifier, refused))
            })
    }
}

/// What came of the part that waits for nothing.
#[expect(clippy::large_enum_variant, reason = "as above")]
enum Found {
    Judged(Judged),
    /// To be answered once this URL has been fetched.
    Confirm(String),
}

pub(super) fn unauthorized(verifier: &Verifier, refused: Refused) -> Refusal {
    Refusal::Unauthorized(refused, verifier.authenticate().cloned())
}
