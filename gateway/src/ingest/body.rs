//! Reads a body within its bounds: the source's size, a deadline, and the bytes that all requests together may hold.
//!
//! Bytes are charged as they arrive, not as `Content-Length` announces them: a sender that promises much and sends
//! nothing holds nothing. The body is copied into memory of its own size, since what hyper hands out is a slice that
//! keeps a whole read buffer alive, and an event may wait in the scheduler's window for a while.

use crate::errors::Refusal;
use bytes::Bytes;
use http_body::Body;
use http_body_util::BodyExt;
use prometheus::IntGauge;
use std::{sync::Arc, time::Duration};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, TryAcquireError};

/// The bytes of bodies that all requests in flight may hold.
#[derive(Debug, Clone)]
pub struct Budget {
    bytes: Arc<Semaphore>,
    held: IntGauge,
}

/// A body, and its share of the budget until this is dropped.
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

    fn add(&self, charge: &mut Charge, bytes: usize) -> Result<(), Refusal> {
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

/// Reads all of `body`; stops at the first bound that it meets.
pub async fn read<B>(
    body: B,
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
    // Enough for most webhooks at once, no more than an idle promise may cost.
    let capacity = announced.upper().unwrap_or(1024).min(64 << 10) as usize;
    let collect = collect(body, Vec::with_capacity(capacity), limit_bytes, budget);
    tokio::time::timeout(deadline, collect)
        .await
        .unwrap_or(Err(Refusal::BodyTimeout))
}

async fn collect<B>(
    mut body: B,
    mut bytes: Vec<u8>,
    limit_bytes: u64,
    budget: &Budget,
) -> Result<Buffered, Refusal>
where
    B: Body<Data = Bytes> + Unpin,
{
    let mut charge = Charge {
        permit: None,
        held: budget.held.clone(),
    };
    while let Some(frame) = body.frame().await {
        // The sender went away, or its chunks are no chunks.
        let frame = frame.map_err(|_| Refusal::BodyAborted)?;
        // Trailers are not kept: no provider signs or sends them.
        let Ok(data) = frame.into_data() else {
            continue;
        };
        if bytes.len() as u64 + data.len() as u64 > limit_bytes {
            return Err(Refusal::PayloadTooLarge { limit_bytes });
        }
        budget.add(&mut charge, data.len())?;
        bytes.extend_from_slice(&data);
    }
    Ok(Buffered {
        bytes: bytes.into(),
        charge,
    })
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
            let read = read(chunked(chunks), 10, LONG, &budget).await;
            assert_eq!(read.is_ok(), ok, "{chunks:?}");
            if let Ok(read) = read {
                assert_eq!(read.bytes, chunks.concat());
            }
        }
        let announced = read(
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
        let first = read(chunked(&[b"1234567"]), 10, LONG, &budget)
            .await
            .unwrap();
        assert_eq!(budget.held.get(), 7);
        assert!(matches!(
            read(chunked(&[b"1234"]), 10, LONG, &budget).await,
            Err(Refusal::TooManyBytes)
        ));
        drop(first);
        assert_eq!(
            (budget.held.get(), budget.bytes.available_permits()),
            (0, 10)
        );
        assert!(read(chunked(&[b"1234"]), 10, LONG, &budget).await.is_ok());
    }

    #[tokio::test(start_paused = true)]
    async fn a_body_that_never_comes_meets_the_deadline() {
        let never = StreamBody::new(futures::stream::pending::<Result<Frame<Bytes>, Infallible>>());
        assert!(matches!(
            read(never, 10, LONG, &budget(10)).await,
            Err(Refusal::BodyTimeout)
        ));
    }
}
