//! A body too large for memory: it goes into the object store while it arrives.
//!
//! Nobody looks into it. Who sent it is told by its head, or by an HMAC that is fed with each piece; filters on the body
//! find nothing there. A source that has to look (a schema, a key of copies that is in the body, a signature of another
//! kind) takes no such body: [`Whole::begin`] is `None`.
//!
//! The object is there when its last byte has been judged, and not before: what is refused half-way, or ends half-way,
//! leaves no object.

use super::{
    Ingest, Taken,
    body::Pace,
    checks,
    judge::{Arrived, Record, Whole, unauthorized},
    recording::{self, Addressed},
};
use crate::{
    bodies::{self, MOST_IN_MEMORY, NotKept, Upload},
    errors::Refusal,
};
use bytes::Bytes;
use http_body::Body;
use http_body_util::BodyExt;
use routing::{
    table::Source,
    verify::{Begun, Tally},
};
use service::clock;
use std::{sync::Arc, time::Duration};
use store::events::Verification;
use tokio::sync::Semaphore;

/// The whole of it, at most: shorter than an object without a row is left alone by the sweep.
const LONGEST: Duration = Duration::from_secs(45 * 60);

/// How many such bodies may arrive at once: half of the budget is theirs, so that small ones always find room.
pub(super) fn at_once(budget_bytes: usize) -> usize {
    (budget_bytes / 2 / bodies::HELD).clamp(1, Semaphore::MAX_PERMITS)
}

/// A request whose head was judged.
struct Arriving {
    whole: Whole,
    tally: Option<Box<Tally>>,
}

impl Ingest {
    /// The size of a body that is too large for memory, and that this source takes nevertheless.
    pub(super) fn in_parts<B: Body>(&self, body: &B, to: &Addressed<'_>) -> Option<u64> {
        let bytes = body.size_hint().exact()?;
        let in_parts =
            bytes > MOST_IN_MEMORY && bytes <= self.limit(to.source) && to.ready.bodies.are_kept();
        in_parts.then_some(bytes)
    }

    /// `body` announced so many `bytes`.
    pub(super) async fn take_in_parts<B>(
        &self,
        arrived: Arrived,
        body: B,
        bytes: u64,
        to: &Addressed<'_>,
    ) -> Result<Taken, Refusal>
    where
        B: Body<Data = Bytes> + Unpin,
    {
        let head_bytes = arrived.head_bytes;
        let mut arriving = arrived
            .with(Bytes::new())
            .begin(to.source, &self.public_url)
            .ok_or(Refusal::PayloadTooLarge {
                limit_bytes: MOST_IN_MEMORY,
            })??;
        let _place = self
            .uploads
            .try_acquire()
            .map_err(|_| Refusal::TooManyBytes)?;
        let charge = self.budget.charge(head_bytes + bodies::HELD)?;
        let id = self.event_ids.next(arriving.whole.received_at);
        let store_away = |NotKept| Refusal::StoreAway;
        let upload = to.ready.bodies.upload(id).await.map_err(store_away)?;
        let read = arriving.read(upload, body, bytes, self.limits.body_timeout, to.source);
        tokio::time::timeout(LONGEST, read)
            .await
            .map_err(|_| Refusal::BodyTimeout)??;
        let record = arriving.record(to.source, &self.public_url);
        let mut recorded = recording::rows(id, record, to);
        Arc::make_mut(&mut recorded.event).object_bytes = Some(bytes);
        self.record(recorded, true, charge, to).await
    }
}

impl Whole {
    /// Its body is empty, as yet. `None`: this source has to see the body in one piece.
    fn begin(self, source: &Source, public_url: &str) -> Option<Result<Arriving, Refusal>> {
        let looks_for_copies = source
            .dedup
            .as_ref()
            .is_some_and(|rule| !rule.knows_from_head());
        if source.schema.is_some() || looks_for_copies {
            return None;
        }
        let tally = match &source.verifier {
            None => None,
            Some(verifier) => match verifier.begin(&self.view(public_url), self.received_at)? {
                Ok(Begun::Genuine) => None,
                Ok(Begun::Tally(tally)) => Some(tally),
                Err(refused) => return Some(Err(unauthorized(verifier, refused))),
            },
        };
        Some(Ok(Arriving { whole: self, tally }))
    }
}

impl Arriving {
    /// Reads the body and judges it; it is an object when this returns.
    async fn read<B>(
        &mut self,
        mut upload: Upload,
        mut body: B,
        bytes: u64,
        deadline: Duration,
        source: &Source,
    ) -> Result<(), Refusal>
    where
        B: Body<Data = Bytes> + Unpin,
    {
        let pace = Pace::new(deadline);
        let mut read = 0;
        loop {
            let until = pace.of_many(read, upload.waited());
            let frame = tokio::time::timeout_at(until, body.frame())
                .await
                .map_err(|_| Refusal::BodyTimeout)?;
            let Some(frame) = frame else { break };
            let frame = frame.map_err(|_| Refusal::BodyAborted)?;
            let Ok(data) = frame.into_data() else {
                continue;
            };
            read += data.len() as u64;
            if let Some(tally) = &mut self.tally {
                tally.update(&data);
            }
            let kept = upload.write(&data).await;
            kept.map_err(|NotKept| Refusal::StoreAway)?;
        }
        if read != bytes {
            return Err(Refusal::BodyAborted);
        }
        if let (Some(tally), Some(verifier)) = (self.tally.take(), &source.verifier) {
            tally
                .finish()
                .map_err(|refused| unauthorized(verifier, refused))?;
        }
        upload.finish().await.map_err(|NotKept| Refusal::StoreAway)
    }

    /// What is recorded, now that the body is there.
    fn record(mut self, source: &Source, public_url: &str) -> Record {
        self.whole.received_at = store::time::stored(clock::now());
        let view = self.whole.view(public_url);
        let (dedup, matched) = (checks::key(source, &view), source.route(&view));
        let matched = matched
            .into_iter()
            .map(|connection| (connection.uid, connection.destination))
            .collect();
        Record {
            request: self.whole,
            matched,
            verification: match source.verifier {
                Some(_) => Verification::Verified,
                None => Verification::None,
            },
            dedup,
        }
    }
}
