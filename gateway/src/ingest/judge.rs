//! A request with its body in hand: is it genuine, is it answered by itself, does it fit, was it there before, where does
//! it go?
//!
//! The order is the documents': signature, then schema, then dedup. Each check is a line of [`Whole::judge_here`] and a file
//! of its own; none of them waits for anything, so all of them run in one go, and for a large body on a thread that holds
//! up nobody else.

use super::answer::Reply;
use crate::errors::Refusal;
use bytes::Bytes;
use http::request::Parts;
use jiff::Timestamp;
use routing::{EventView, table::Source};
use std::{net::IpAddr, sync::Arc};
use uuid::Uuid;

/// A body beyond this is hashed, parsed and matched on a thread where it holds up nobody else: 256 KiB take about a
/// millisecond.
const LARGE_BODY: usize = 256 << 10;

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
}

impl Whole {
    pub fn rest(&self) -> &str {
        &self.head.uri.path()[self.rest_at..]
    }

    pub fn query(&self) -> &str {
        self.head.uri.query().unwrap_or_default()
    }

    pub async fn judge(self, source: &Arc<Source>) -> Result<Judged, Refusal> {
        if self.body.len() <= LARGE_BODY {
            return self.judge_here(source);
        }
        let source = source.clone();
        match tokio::task::spawn_blocking(move || self.judge_here(&source)).await {
            Ok(judged) => judged,
            Err(panicked) => std::panic::resume_unwind(panicked.into_panic()),
        }
    }

    fn judge_here(self, source: &Source) -> Result<Judged, Refusal> {
        let view = EventView::new(
            &self.head.method,
            self.rest(),
            self.query(),
            &self.head.headers,
            &self.body,
            self.remote_addr,
        );
        self.verify(source, &view)?;
        let matched = source
            .route(&view)
            .into_iter()
            .map(|connection| (connection.uid, connection.destination))
            .collect();
        Ok(Judged::Record(Record {
            request: self,
            matched,
        }))
    }

    fn verify(&self, source: &Source, view: &EventView<'_>) -> Result<(), Refusal> {
        source.verifier.as_ref().map_or(Ok(()), |verifier| {
            verifier
                .verify(view, self.received_at, None)
                .map(drop)
                .map_err(Refusal::Unauthorized)
        })
    }
}
