//! Large bodies: in an object store instead of in their rows.
//!
//! What it guarantees: an object is there before the row that refers to it, so whoever finds the row finds the body. What
//! it doesn't: that every object has a row. A crash between the two leaves an orphan, which [`sweep`] removes, as it
//! removes the days that retention has dropped.
//!
//! Keys are `<installation>/events/<day>/<event>` below the URL's path: a day's objects are together, as its rows are,
//! and two installations that share a bucket don't touch each other's.
//!
//! [`place`] knows which store a URL means, [`transport`] carries the library's requests over our own HTTP client,
//! [`stream`] is an object on its way into a request.

mod metrics;
pub mod place;
mod stream;
pub mod sweep;
#[cfg(test)]
mod tests;
mod transport;
mod upload;

pub use metrics::Metrics;
pub use place::{InvalidPlace, Place};
pub use stream::{Streamed, Waiting};
pub use upload::{HELD, PART, Upload};

use bytes::Bytes;
use futures::TryStreamExt;
use object_store::{ObjectStore, ObjectStoreExt, path::Path};
use routing::ids::{self, Prefix};
use service::clock;
use std::{sync::Arc, time::Duration};
use store::events::{Event, Recorded};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use uuid::Uuid;

/// The largest body that is ever read into memory. Who has to look into a larger one can't.
pub const MOST_IN_MEMORY: u64 = 32 << 20;

/// Bodies that deliveries hold in memory at the same time, in [`UNIT`]s; who finds no room waits for it.
const ROOM: u32 = (2 * MOST_IN_MEMORY / UNIT) as u32;

/// A semaphore counts in 32 bits at a time.
const UNIT: u64 = 1 << 10;

/// What an attempt holds that sends an object on: what has come of it and hasn't gone yet.
pub const STREAM_BYTES: usize = 128 << 10;

/// A sender waits for it. 32 MiB in this time are 13 Mbit/s.
const PUT: Duration = Duration::from_secs(20);

/// Of one object into memory, room included.
const LOAD: Duration = Duration::from_secs(30);

/// Of an object whose event wasn't recorded: the sweep finds what this leaves.
const FORGET: Duration = Duration::from_secs(5);

/// The object store of an installation, or none. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Bodies(Option<Arc<Inner>>);

#[derive(Debug)]
struct Inner {
    place: Place,
    /// Below it are the days.
    root: Path,
    room: Arc<Semaphore>,
    metrics: Metrics,
}

/// For events that have no objects.
pub static NONE: Bodies = Bodies(None);

/// Why an object can't be had. `Display` is what the attempt says.
#[derive(Debug, thiserror::Error)]
pub enum Lost {
    #[error(
        "the event's body is in an object store, and this gateway has none: give --object-store the URL that it had when the event came"
    )]
    NoStore,
    #[error("the event's body is not in the object store: there is no {key}")]
    Missing { key: Path },
    #[error("the object store doesn't give the event's body: {}", .0.to_string())]
    Away(#[source] object_store::Error),
    #[error("the object store didn't give the event's body within {} s", .0.as_secs_f32())]
    Slow(Duration),
    #[error("{key} in the object store has {there} bytes, and the event's body had {bytes}")]
    AnotherSize { key: Path, there: u64, bytes: u64 },
    #[error("the object store gave {there} bytes of the event's body, which has {bytes}")]
    BrokenOff { there: u64, bytes: u64 },
    #[error(
        "the event's body has {bytes} bytes; what looks into a body (a signature over it, a template, a transform, a filter's expression) takes {MOST_IN_MEMORY} at most"
    )]
    TooLarge { bytes: u64 },
}

/// A body could not be put away. The log says why.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NotKept;

/// An event with its body in memory.
#[derive(Debug)]
pub struct Loaded {
    pub event: Event,
    _room: OwnedSemaphorePermit,
}

impl Bodies {
    pub fn new(place: Place, installation: Uuid, metrics: Metrics) -> Bodies {
        Bodies(Some(Arc::new(Inner {
            root: place
                .prefix
                .clone()
                .join(installation.to_string())
                .join("events"),
            place,
            room: Arc::new(Semaphore::new(ROOM as usize)),
            metrics,
        })))
    }

    /// Puts the body of an event that is about to be recorded where it belongs; true when that was into the store.
    ///
    /// The object is there when this returns. If the event is not recorded then: [`Bodies::forget`].
    pub async fn keep(&self, recorded: &mut Recorded) -> Result<bool, NotKept> {
        let Some(inner) = &self.0 else {
            return Ok(false);
        };
        if recorded.event.body.len() <= inner.place.threshold {
            return Ok(false);
        }
        // Nobody else has it yet, so nothing is copied.
        let event = Arc::make_mut(&mut recorded.event);
        let body = std::mem::take(&mut event.body);
        let bytes = body.len() as u64;
        inner.put(event.id, body).await?;
        event.object_bytes = Some(bytes);
        Ok(true)
    }

    /// Are there objects at all?
    pub fn are_kept(&self) -> bool {
        self.0.is_some()
    }

    /// For the body of an event that is about to arrive.
    pub fn upload(&self, event: Uuid) -> Result<Upload, NotKept> {
        let inner = self.0.as_ref().ok_or(NotKept)?;
        Ok(Upload::new(inner, event))
    }

    /// Takes away the object of an event that was not recorded.
    pub async fn forget(&self, event: Uuid) {
        let Some(inner) = &self.0 else {
            return;
        };
        let key = inner.key(event);
        match tokio::time::timeout(FORGET, inner.place.store.delete(&key)).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => {
                tracing::debug!(%key, error = service::log::chain(&error), "left to the sweep");
            }
            Err(_) => tracing::debug!(%key, "left to the sweep"),
        }
    }

    /// The object as a request's body. `event` has one.
    pub async fn open(&self, event: &Event) -> Result<Streamed, Lost> {
        let inner = self.0.as_ref().ok_or(Lost::NoStore)?;
        inner
            .open(event)
            .await
            .inspect_err(|lost| inner.metrics.read(lost))
            .map(|(stream, bytes)| Streamed::new(stream, bytes, inner.metrics.clone()))
    }

    /// The event with its body in memory, once there is room for it.
    pub async fn load(&self, event: &Event) -> Result<Loaded, Lost> {
        let inner = self.0.as_ref().ok_or(Lost::NoStore)?;
        let loading = tokio::time::timeout(LOAD, inner.load(event));
        let loaded = loading.await.unwrap_or(Err(Lost::Slow(LOAD)));
        match &loaded {
            Ok(_) => inner.metrics.reads_ok(),
            Err(lost) => inner.metrics.read(lost),
        }
        loaded
    }

    /// What housekeeping sweeps; `None`: there is no store.
    fn swept(&self) -> Option<(&Arc<dyn ObjectStore>, &Path, &Metrics)> {
        let inner = self.0.as_ref()?;
        Some((&inner.place.store, &inner.root, &inner.metrics))
    }
}

impl Inner {
    fn key(&self, event: Uuid) -> Path {
        let day = store::partitions::day_of_id(event);
        self.root
            .clone()
            .join(day.to_string())
            .join(ids::format(Prefix::Event, event))
    }

    async fn put(&self, event: Uuid, body: Bytes) -> Result<(), NotKept> {
        let (key, bytes, started) = (self.key(event), body.len() as u64, clock::instant());
        let error = match tokio::time::timeout(PUT, self.place.store.put(&key, body.into())).await {
            Ok(Ok(_)) => {
                self.metrics.put(bytes, started.elapsed());
                return Ok(());
            }
            Ok(Err(error)) => service::log::chain(&error),
            Err(_) => format!("no answer within {} s", PUT.as_secs()),
        };
        Err(self.not_kept(&error))
    }

    fn not_kept(&self, error: &str) -> NotKept {
        self.metrics.put_failed();
        tracing::error!(
            error,
            "a body could not be put into the object store; its sender is told to send again"
        );
        NotKept
    }

    async fn open(&self, event: &Event) -> Result<(stream::Chunks, u64), Lost> {
        let (key, bytes) = (self.key(event.id), event.body_bytes());
        let got = match self.place.store.get(&key).await {
            Ok(got) => got,
            Err(object_store::Error::NotFound { .. }) => return Err(Lost::Missing { key }),
            Err(error) => return Err(Lost::Away(error)),
        };
        let there = got.meta.size;
        if there != bytes {
            return Err(Lost::AnotherSize { key, there, bytes });
        }
        Ok((got.into_stream(), bytes))
    }

    async fn load(&self, event: &Event) -> Result<Loaded, Lost> {
        let bytes = event.body_bytes();
        if bytes > MOST_IN_MEMORY {
            return Err(Lost::TooLarge { bytes });
        }
        let units = bytes.div_ceil(UNIT).max(1) as u32;
        let room = self.room.clone().acquire_many_owned(units).await;
        let room = room.expect("this semaphore is never closed");
        let (mut chunks, _) = self.open(event).await?;
        let mut body = Vec::with_capacity(bytes as usize);
        while let Some(chunk) = chunks.try_next().await.map_err(Lost::Away)? {
            if (body.len() + chunk.len()) as u64 > bytes {
                break;
            }
            body.extend_from_slice(&chunk);
        }
        if body.len() as u64 != bytes {
            let there = body.len() as u64;
            return Err(Lost::BrokenOff { there, bytes });
        }
        let event = Event {
            body: body.into(),
            object_bytes: None,
            ..event.clone()
        };
        Ok(Loaded { event, _room: room })
    }
}
