//! Reads a body within its bounds: the source's size, a deadline, a least speed, and the bytes that all requests together
//! may hold.
//!
//! Bytes are charged as they arrive, not as `Content-Length` announces them: a sender that promises much and sends
//! nothing holds no more than its head, which is charged first. The body is copied into memory of its own size, since
//! what hyper hands out is a slice that keeps a whole read buffer alive, and an event may wait in the scheduler's window
//! for a while.
//!
//! A request has its place among the requests in flight while its body arrives. A third of the deadline is given; the
//! rest is earned by bytes ([`LEAST_BYTES_PER_SECOND`]), so that holding every place costs a sender what sending costs.

use crate::errors::Refusal;
use bytes::Bytes;
use http_body::Body;
use http_body_util::BodyExt;
use prometheus::IntGauge;
use std::{sync::Arc, time::Duration};
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore, TryAcquireError},
    time::Instant,
};

/// How fast a body must come, after the time that every body has. A phone on a bad network does sixteen times as much.
const LEAST_BYTES_PER_SECOND: u64 = 1 << 10;

/// The share of the deadline that every body has, however slowly it comes.
const GIVEN: u32 = 3;

/// The bytes of heads and bodies that all requests in flight may hold.
#[derive(Debug, Clone)]
pub struct Budget {
    bytes: Arc<Semaphore>,
    held: IntGauge,
}

/// A body, and its and its head's share of the budget until this is dropped.
#[derive(Debug)]
pub struct Buffered {
    pub bytes: Bytes,
    pub charge: Charge,
}

/// A share of the budget; given back when dropped.
#[derive(Debug)]
pub struct Charge {
    permit: Option<OwnedSemaphorePermit>,
    held: IntGauge,
}

impl Drop for Charge {
    fn drop(&mut self) {
        if let Some(permit) = &self.permit {
            self.held.sub(permit.num_permits() as i64);
        }
    }
}

impl Budget {
    pub fn new(bytes: usize, held: IntGauge) -> Budget {
        Budget {
            bytes: Arc::new(Semaphore::new(bytes)),
            held,
        }
    }

    /// All at once, for who knows how much that is.
    pub fn charge(&self, bytes: usize) -> Result<Charge, Refusal> {
        let mut charge = Charge {
            permit: None,
            held: self.held.clone(),
        };
        self.add(&mut charge, bytes)?;
        Ok(charge)
    }

    pub(super) fn add(&self, charge: &mut Charge, bytes: usize) -> Result<(), Refusal> {
        // A frame is at most a read buffer long, so the number fits; were it ever longer, refusing is right.
        let permits = u32::try_from(bytes).map_err(|_| Refusal::TooManyBytes)?;
        let permit = match self.bytes.clone().try_acquire_many_owned(permits) {
            Ok(permit) => permit,
            Err(TryAcquireError::NoPermits | TryAcquireError::Closed) => {
                return Err(Refusal::TooManyBytes);
            }
        };
        self.held.add(i64::from(permits));
        match &mut charge.permit {
            Some(held) => held.merge(permit),
            none => *none = Some(permit),
        }
        Ok(())
    }
}

/// Reads all of `body`; stops at the first bound that it meets. `head_bytes`, which are in memory already, are charged
/// with it; `deadline` is from now.
pub async fn read<B>(
    head_bytes: usize,
    mut body: B,
    limit_bytes: u64,
    deadline: Duration,
    budget: &Budget,
) -> Result<Buffered, Refusal>
where
    B: Body<Data = Bytes> + Unpin,
{
    let announced = body.size_hint();
    if announced.lower() > limit_bytes {
        return Err(Refusal::PayloadTooLarge { limit_bytes });
    }
    let mut charge = budget.charge(head_bytes)?;
    // Enough for most webhooks at once, no more than an idle promise may cost.
    let capacity = announced.upper().unwrap_or(1024).min(64 << 10) as usize;
    let mut bytes = Vec::with_capacity(capacity);
    let pace = Pace::new(deadline);
    while let Some(data) = piece(&mut body, pace.until(bytes.len())).await? {
        if bytes.len() as u64 + data.len() as u64 > limit_bytes {
            return Err(Refusal::PayloadTooLarge { limit_bytes });
        }
        budget.add(&mut charge, data.len())?;
        bytes.extend_from_slice(&data);
    }
    // What grew by doubling may be half empty; a body of announced size fits already, and this does nothing.
    bytes.shrink_to_fit();
    Ok(Buffered {
        bytes: bytes.into(),
        charge,
    })
}

/// The next bytes of a body, which must be there by `until`; `None`: it has ended.
pub(super) async fn piece<B>(body: &mut B, until: Instant) -> Result<Option<Bytes>, Refusal>
where
    B: Body<Data = Bytes> + Unpin,
{
    loop {
        let frame = tokio::time::timeout_at(until, body.frame())
            .await
            .map_err(|_| Refusal::BodyTimeout)?;
        let Some(frame) = frame else { return Ok(None) };
        // The sender went away, or its chunks are no chunks.
        let frame = frame.map_err(|_| Refusal::BodyAborted)?;
        // Trailers are not kept: no provider signs or sends them.
        if let Ok(data) = frame.into_data() {
            return Ok(Some(data));
        }
    }
}

/// How fast a body must come that goes into the object store: it takes much longer, and holds more.
const LEAST_OF_MANY: u64 = 512 << 10;

/// Until when the next bytes of a body must be there.
pub(super) struct Pace {
    given: Instant,
    /// The longest between two pieces of a body that has no end in time.
    silence: Duration,
    end: Instant,
}

impl Pace {
    pub(super) fn new(deadline: Duration) -> Pace {
        let now = Instant::now();
        Pace {
            given: now + deadline / GIVEN,
            silence: deadline / GIVEN,
            end: now + deadline,
        }
    }

    /// Of a body that has no end in time, only a least speed. What the store was waited for is not the sender's.
    pub(super) fn of_many(&self, bytes: u64, waited: Duration) -> Instant {
        let earned = Duration::from_millis(bytes.saturating_mul(1000) / LEAST_OF_MANY);
        let earned = self
            .given
            .checked_add(earned.saturating_add(waited))
            .unwrap_or(self.end);
        // What came fast buys no silence.
        earned.min(Instant::now() + self.silence)
    }

    fn until(&self, bytes: usize) -> Instant {
        let earned = Duration::from_millis(bytes as u64 * 1000 / LEAST_BYTES_PER_SECOND);
        // Beyond what an `Instant` can say is beyond the end.
        self.given
            .checked_add(earned)
            .map_or(self.end, |until| until.min(self.end))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http_body::Frame;
    use http_body_util::{Full, StreamBody};
    use std::convert::Infallible;

    fn budget(bytes: usize) -> Budget {
        Budget::new(bytes, IntGauge::new("held", "held").unwrap())
    }

    fn chunked(
        chunks: &[&'static [u8]],
    ) -> impl Body<Data = Bytes, Error = Infallible> + Unpin + use<> {
        let frames: Vec<_> = chunks
            .iter()
            .map(|chunk| Ok(Frame::data(Bytes::from_static(chunk))))
            .collect();
        StreamBody::new(futures::stream::iter(frames))
    }

    const LONG: Duration = Duration::from_secs(30);

    #[tokio::test]
    async fn a_body_at_the_limit_is_read_and_one_byte_more_is_refused() {
        let budget = budget(100);
        for (chunks, ok) in [
            (&[&b""[..]][..], true),
            (&[b"1"], true),
            (&[b"12345", b"67890"], true),
            (&[b"12345", b"678901"], false),
        ] {
            let read = read(0, chunked(chunks), 10, LONG, &budget).await;
            assert_eq!(read.is_ok(), ok, "{chunks:?}");
            if let Ok(read) = read {
                assert_eq!(read.bytes, chunks.concat());
            }
        }
        let announced = read(
            0,
            Full::new(Bytes::from_static(b"12345678901")),
            10,
            LONG,
            &budget,
        )
        .await;
        assert!(matches!(
            announced,
            Err(Refusal::PayloadTooLarge { limit_bytes: 10 })
        ));
        assert_eq!(
            (budget.held.get(), budget.bytes.available_permits()),
            (0, 100)
        );
    }

    #[tokio::test]
    async fn bytes_are_held_until_the_body_is_dropped() {
        let budget = budget(10);
        let first = read(0, chunked(&[b"1234567"]), 10, LONG, &budget)
            .await
            .unwrap();
        assert_eq!(budget.held.get(), 7);
        assert!(matches!(
            read(0, chunked(&[b"1234"]), 10, LONG, &budget).await,
            Err(Refusal::TooManyBytes)
        ));
        drop(first);
        assert_eq!(
            (budget.held.get(), budget.bytes.available_permits()),
            (0, 10)
        );
        assert!(
            read(0, chunked(&[b"1234"]), 10, LONG, &budget)
                .await
                .is_ok()
        );
    }

    #[tokio::test(start_paused = true)]
    async fn a_body_that_never_comes_meets_the_deadline() {
        let never = StreamBody::new(futures::stream::pending::<Result<Frame<Bytes>, Infallible>>());
        assert!(matches!(
            read(0, never, 10, LONG, &budget(10)).await,
            Err(Refusal::BodyTimeout)
        ));
    }

    #[tokio::test]
    async fn a_head_is_held_with_its_body_and_before_it() {
        let budget = budget(10);
        let held = read(6, chunked(&[b"1234"]), 10, LONG, &budget)
            .await
            .unwrap();
        assert_eq!(budget.held.get(), 10);
        drop(held);
        for (head, body) in [(7, &b"1234"[..]), (11, b"")] {
            assert!(matches!(
                read(head, chunked(&[body]), 10, LONG, &budget).await,
                Err(Refusal::TooManyBytes)
            ));
        }
        assert_eq!(
            (budget.held.get(), budget.bytes.available_permits()),
            (0, 10)
        );
    }

    /// A kibibyte every `pause`, for ever.
    fn trickle(pause: Duration) -> impl Body<Data = Bytes, Error = Infallible> + Unpin {
        let frames = futures::stream::unfold((), move |()| async move {
            tokio::time::sleep(pause).await;
            Some((Ok(Frame::data(Bytes::from_static(&[0; 1024]))), ()))
        });
        StreamBody::new(Box::pin(frames))
    }

    #[tokio::test(start_paused = true)]
    async fn a_body_that_trickles_gives_its_place_back_early_and_one_that_flows_may_take_all_the_time()
     {
        let limit = 1 << 30;
        let budget = budget(limit);
        for (pause_ms, gives_up_after_s) in [(60_000, 10..11), (5000, 10..14), (500, 30..31)] {
            let started = Instant::now();
            let body = trickle(Duration::from_millis(pause_ms));
            assert!(matches!(
                read(0, body, limit as u64, LONG, &budget).await,
                Err(Refusal::BodyTimeout)
            ));
            let took = started.elapsed().as_secs();
            assert!(
                gives_up_after_s.contains(&took),
                "1 KiB each {pause_ms} ms: after {took} s"
            );
        }
    }

    #[tokio::test]
    async fn a_body_of_unknown_size_keeps_no_more_memory_than_it_has_bytes() {
        let chunk: &'static [u8] = &[0; 1000];
        for chunks in [1, 3, 100] {
            let read = read(
                0,
                chunked(&vec![chunk; chunks]),
                1 << 20,
                LONG,
                &budget(1 << 20),
            )
            .await
            .unwrap();
            assert_eq!(Vec::from(read.bytes).capacity(), chunks * 1000);
        }
    }
}
