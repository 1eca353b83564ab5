//! An object on its way into a request: no more of it is in memory than what has come and hasn't gone yet.

use super::{Lost, Metrics};
use bytes::Bytes;
use futures::{Stream, stream::BoxStream};
use http_body::{Body, Frame, SizeHint};
use std::{
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll, ready},
};

pub(super) type Chunks = BoxStream<'static, object_store::Result<Bytes>>;

/// Sent with its `Content-Length`, and broken off when the store gives another number of bytes: a receiver never takes a
/// part for the whole.
pub struct Streamed {
    chunks: Chunks,
    left: u64,
    bytes: u64,
    waiting: Waiting,
    metrics: Metrics,
}

/// Is it the store that a request waits for? Whose fault a time-out is.
#[derive(Debug, Clone, Default)]
pub struct Waiting(Arc<AtomicBool>);

impl Waiting {
    pub fn on_the_store(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

impl Streamed {
    pub(super) fn new(chunks: Chunks, bytes: u64, metrics: Metrics) -> Streamed {
        Streamed {
            chunks,
            left: bytes,
            bytes,
            waiting: Waiting::default(),
            metrics,
        }
    }

    pub fn waiting(&self) -> Waiting {
        self.waiting.clone()
    }

    fn lost(&mut self, lost: Lost) -> Lost {
        self.metrics.read(&lost);
        lost
    }

    fn broken_off(&mut self, there: u64) -> Lost {
        let bytes = self.bytes;
        self.lost(Lost::BrokenOff { there, bytes })
    }
}

impl Body for Streamed {
    type Data = Bytes;
    type Error = Lost;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Lost>>> {
        if self.left == 0 {
            return Poll::Ready(None);
        }
        let polled = Pin::new(&mut self.chunks).poll_next(context);
        self.waiting.0.store(polled.is_pending(), Ordering::Relaxed);
        Poll::Ready(Some(match ready!(polled) {
            Some(Ok(chunk)) if chunk.len() as u64 <= self.left => {
                self.left -= chunk.len() as u64;
                if self.left == 0 {
                    self.metrics.reads_ok();
                }
                Ok(Frame::data(chunk))
            }
            Some(Ok(chunk)) => {
                let there = self.bytes - self.left + chunk.len() as u64;
                Err(self.broken_off(there))
            }
            Some(Err(error)) => Err(self.lost(Lost::Away(error))),
            None => {
                let there = self.bytes - self.left;
                Err(self.broken_off(there))
            }
        }))
    }

    fn is_end_stream(&self) -> bool {
        self.left == 0
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.left)
    }
}

impl std::fmt::Debug for Streamed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Streamed")
            .field("bytes", &self.bytes)
            .field("left", &self.left)
            .finish_non_exhaustive()
    }
}
