//! A body that goes into the store while it arrives, in parts: one is on its way while the next one fills.

use super::{Inner, NotKept};
use bytes::BytesMut;
use object_store::{MultipartUpload, ObjectStore, path::Path};
use service::clock;
use std::{
    sync::Arc,
    time::{Duration, Instant},
};
use tokio::task::JoinHandle;
use uuid::Uuid;

/// Of a part of an upload, but the last; S3 takes no smaller ones, and no more than 10,000 of them.
const PART: usize = 5 << 20;

/// What an upload holds of its body.
pub const HELD: usize = 2 * PART;

/// Of one part, or of the end.
const ONE: Duration = Duration::from_secs(60);

/// Given up when it is dropped before its end. A crash leaves what the store has of it: the bucket's rule for unfinished
/// uploads removes that.
pub struct Upload {
    inner: Arc<Inner>,
    key: Path,
    /// `None`: it is over.
    upload: Option<Box<dyn MultipartUpload>>,
    filling: BytesMut,
    sending: Option<JoinHandle<object_store::Result<()>>>,
    bytes: u64,
    /// That the store was waited for.
    waited: Duration,
    started: Instant,
}

impl Upload {
    pub(super) async fn begin(inner: &Arc<Inner>, event: Uuid) -> Result<Upload, NotKept> {
        let key = inner.key(event);
        let begun = tokio::time::timeout(
            ONE,
            inner
                .place
                .store
                .put_multipart_opts(&key, Default::default()),
        )
        .await;
        let upload = match begun {
            Ok(Ok(upload)) => upload,
            Ok(Err(error)) => return Err(inner.not_kept(&service::log::chain(&error))),
            Err(_) => return Err(inner.not_kept("no answer in time")),
        };
        Ok(Upload {
            inner: inner.clone(),
            key,
            upload: Some(upload),
            filling: BytesMut::new(),
            sending: None,
            bytes: 0,
            waited: Duration::ZERO,
            started: clock::instant(),
        })
    }

    pub fn waited(&self) -> Duration {
        self.waited
    }

    /// Returns when there is room for more.
    pub async fn write(&mut self, mut piece: &[u8]) -> Result<(), NotKept> {
        self.bytes += piece.len() as u64;
        while !piece.is_empty() {
            if self.filling.capacity() == 0 {
                self.filling.reserve(PART);
            }
            let (now, later) = piece.split_at(piece.len().min(PART - self.filling.len()));
            self.filling.extend_from_slice(now);
            piece = later;
            if self.filling.len() == PART {
                self.send().await?;
            }
        }
        Ok(())
    }

    /// The object is there when this returns.
    pub async fn finish(mut self) -> Result<(), NotKept> {
        if !self.filling.is_empty() {
            self.send().await?;
        }
        self.sent().await?;
        let Some(mut upload) = self.upload.take() else {
            return Err(NotKept);
        };
        match tokio::time::timeout(ONE, upload.complete()).await {
            Ok(Ok(_)) => {
                self.inner.metrics.put(self.bytes, self.started.elapsed());
                Ok(())
            }
            Ok(Err(error)) => Err(self.inner.not_kept(&service::log::chain(&error))),
            // It may be there after all; then it is an orphan.
            Err(_) => Err(self.inner.not_kept("no answer in time")),
        }
    }

    async fn send(&mut self) -> Result<(), NotKept> {
        self.sent().await?;
        let part = std::mem::take(&mut self.filling).freeze();
        if let Some(upload) = &mut self.upload {
            self.sending = Some(tokio::spawn(upload.put_part(part.into())));
        }
        Ok(())
    }

    /// Waits for the part that is on its way.
    async fn sent(&mut self) -> Result<(), NotKept> {
        let Some(sending) = &mut self.sending else {
            return Ok(());
        };
        let began = clock::instant();
        let sent = tokio::time::timeout(ONE, sending).await;
        self.waited += began.elapsed();
        let error = match sent {
            Ok(Ok(Ok(()))) => {
                self.sending = None;
                return Ok(());
            }
            Ok(Ok(Err(error))) => service::log::chain(&error),
            Ok(Err(error)) => service::log::chain(&error),
            Err(_) => "no answer in time".to_owned(),
        };
        Err(self.inner.not_kept(&error))
    }
}

impl Drop for Upload {
    fn drop(&mut self) {
        let Some(mut upload) = self.upload.take() else {
            return;
        };
        let (sending, key) = (self.sending.take(), self.key.clone());
        tokio::spawn(async move {
            if let Some(sending) = sending {
                sending.abort();
                let _ = sending.await;
            }
            match tokio::time::timeout(ONE, upload.abort()).await {
                Ok(Ok(())) => {}
                _ => tracing::debug!(%key, "an upload was left half-way"),
            }
        });
    }
}

impl std::fmt::Debug for Upload {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Upload")
            .field("key", &self.key)
            .field("bytes", &self.bytes)
            .finish_non_exhaustive()
    }
}
