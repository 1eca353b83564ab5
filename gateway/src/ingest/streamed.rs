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
    body::{Charge, Pace, piece},
    checks,
    judge::{Arrived, Record, Whole, unauthorized},
    recording::{self, Addressed, pairs},
};
use crate::{
    bodies::{self, MOST_IN_MEMORY, NotKept, Upload},
    errors::Refusal,
};
use bytes::Bytes;
use http_body::Body;
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

/// How many such bodies may arrive at once: half of the budget is theirs, so that small ones find room. None, if that is
/// too little for one.
pub(super) fn at_once(budget_bytes: usize) -> usize {
    (budget_bytes / 2 / bodies::HELD).min(Semaphore::MAX_PERMITS)
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
        let in_parts = bytes > MOST_IN_MEMORY
            && bytes <= self.limit(to.source)
            && to.ready.bodies.are_kept()
            && at_once(self.limits.max_body_bytes_in_flight) > 0;
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
        let mut charge = self.budget.charge(head_bytes)?;
        let id = self.event_ids.next(arriving.whole.received_at);
        let upload = to.ready.bodies.upload(id);
        let upload = upload.map_err(|NotKept| Refusal::StoreAway)?;
        let read = self.read_in_parts(&mut arriving, upload, body, bytes, &mut charge, to.source);
        tokio::time::timeout(LONGEST, read)
            .await
            .map_err(|_| Refusal::BodyTimeout)??;
        let record = arriving.record(to.source, &self.public_url);
        let mut recorded = recording::rows(id, record, to);
        Arc::make_mut(&mut recorded.event).object_bytes = Some(bytes);
        self.record(recorded, true, charge, to).await
    }

    /// Reads the body and judges it; it is an object when this returns.
    ///
    /// What is held is charged as it comes, and one of the few places is taken with the first part: a head alone, whoever
    /// sends it, costs nobody anything.
    async fn read_in_parts<B>(
        &self,
        arriving: &mut Arriving,
        mut upload: Upload,
        mut body: B,
        bytes: u64,
        charge: &mut Charge,
        source: &Source,
    ) -> Result<(), Refusal>
    where
        B: Body<Data = Bytes> + Unpin,
    {
        let pace = Pace::new(self.limits.body_timeout);
        let (mut read, mut held, mut place) = (0, 0, None);
        while let Some(data) = piece(&mut body, pace.of_many(read, upload.waited())).await? {
            read += data.len() as u64;
            let more = data.len().min(bodies::HELD - held);
            if more > 0 {
                self.budget.add(charge, more)?;
                held += more;
            }
            if place.is_none() && read >= bodies::PART as u64 {
                let free = self.uploads.try_acquire();
                place = Some(free.map_err(|_| Refusal::TooManyBytes)?);
            }
            if let Some(tally) = &mut arriving.tally {
                tally.update(&data);
            }
            let kept = upload.write(&data).await;
            kept.map_err(|NotKept| Refusal::StoreAway)?;
        }
        if read != bytes {
            return Err(Refusal::BodyAborted);
        }
        arriving.judge(source)?;
        upload.finish().await.map_err(|NotKept| Refusal::StoreAway)
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
    /// Whether all that came is genuine.
    fn judge(&mut self, source: &Source) -> Result<(), Refusal> {
        let (Some(tally), Some(verifier)) = (self.tally.take(), &source.verifier) else {
            return Ok(());
        };
        tally
            .finish()
            .map_err(|refused| unauthorized(verifier, refused))
    }

    /// What is recorded, now that the body is there.
    fn record(mut self, source: &Source, public_url: &str) -> Record {
        self.whole.received_at = store::time::stored(clock::now());
        let view = self.whole.view(public_url);
        let (dedup, matched) = (checks::key(source, &view), pairs(source.route(&view)));
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
