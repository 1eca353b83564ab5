//! A body that goes into the store while it arrives, in parts: one is on its way while the next one fills.

use super::{Inner, NotKept};
use bytes::BytesMut;
use object_store::{MultipartUpload, ObjectStore, path::Path};
use service::clock;
use std::{sync::Arc, time::Duration};
use tokio::task::JoinHandle;
use uuid::Uuid;

/// Of a part of an upload, but the last; S3 takes no smaller ones, and no more than 10,000 of them.
pub const PART: usize = 5 << 20;

/// What an upload holds of its body.
pub const HELD: usize = 2 * PART;

/// Of one part, or of the end.
const ONE: Duration = Duration::from_secs(60);

/// Given up when it is dropped before its end. A crash leaves what the store has of it: the bucket's rule for unfinished
/// uploads removes that.
pub struct Upload {
    inner: Arc<Inner>,
    key: Path,
    /// `None`: it hasn't begun, or is over.
    upload: Option<Box<dyn MultipartUpload>>,
    filling: BytesMut,
    sending: Option<JoinHandle<object_store::Result<()>>>,
    bytes: u64,
    /// That the store was waited for.
    waited: Duration,
}

impl Upload {
    /// The store hears of it with the first part.
    pub(super) fn new(inner: &Arc<Inner>, event: Uuid) -> Upload {
        Upload {
            inner: inner.clone(),
            key: inner.key(event),
            upload: None,
            filling: BytesMut::new(),
            sending: None,
            bytes: 0,
            waited: Duration::ZERO,
        }
    }

    async fn begun(&mut self) -> Result<&mut Box<dyn MultipartUpload>, NotKept> {
        let upload = match self.upload.take() {
            Some(upload) => upload,
            None => {
                let store = &self.inner.place.store;
                let began = clock::instant();
                let begun = store.put_multipart_opts(&self.key, Default::default());
                let begun = tokio::time::timeout(ONE, begun).await;
                self.waited += began.elapsed();
                match begun {
                    Ok(Ok(upload)) => upload,
                    Ok(Err(error)) => {
                        return Err(self.inner.not_kept(&service::log::chain(&error)));
                    }
                    Err(_) => return Err(self.inner.not_kept("no answer in time")),
                }
            }
        };
        Ok(self.upload.insert(upload))
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
        let Some(upload) = &mut self.upload else {
            return Err(NotKept);
        };
        let began = clock::instant();
        match tokio::time::timeout(ONE, upload.complete()).await {
            Ok(Ok(_)) => {
                self.upload = None;
                let took = self.waited + began.elapsed();
                self.inner.metrics.put(self.bytes, took);
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
        let sending = self.begun().await?.put_part(part.into());
        self.sending = Some(tokio::spawn(sending));
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
        if sent.is_ok() {
            // It has ended, one way or the other, and can't be waited for again.
            self.sending = None;
        }
        let error = match sent {
            Ok(Ok(Ok(()))) => return Ok(()),
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bodies::{Bodies, Metrics, Place};
    use object_store::{Error, PutPayload, PutResult, UploadPart};
    use tokio::sync::mpsc;

    /// A store that takes no part, or all parts but not the end; it tells when it is asked to forget the upload.
    #[derive(Debug)]
    struct Refusing {
        parts: bool,
        aborted: mpsc::UnboundedSender<()>,
    }

    fn refused() -> Error {
        Error::Generic {
            store: "a test's",
            source: "no".into(),
        }
    }

    #[async_trait::async_trait]
    impl MultipartUpload for Refusing {
        fn put_part(&mut self, _: PutPayload) -> UploadPart {
            let taken = self.parts.then_some(()).ok_or_else(refused);
            Box::pin(std::future::ready(taken))
        }

        async fn complete(&mut self) -> object_store::Result<PutResult> {
            Err(refused())
        }

        async fn abort(&mut self) -> object_store::Result<()> {
            let _ = self.aborted.send(());
            Ok(())
        }
    }

    #[tokio::test]
    async fn what_the_store_does_not_take_is_taken_back() {
        let folder = tempfile::tempdir().unwrap();
        let place = Place::folder(folder.path(), 1).unwrap();
        let bodies = Bodies::new(place, Uuid::now_v7(), Metrics::default());
        for parts in [false, true] {
            let (aborted, mut told) = mpsc::unbounded_channel();
            let mut upload = bodies.upload(Uuid::now_v7()).unwrap();
            upload.upload = Some(Box::new(Refusing { parts, aborted }));
            let mut written = Ok(());
            for _ in 0..3 {
                if written.is_ok() {
                    written = upload.write(&[0; PART]).await;
                }
            }
            assert_eq!(written.is_ok(), parts);
            match parts {
                true => assert_eq!(upload.finish().await, Err(NotKept)),
                false => drop(upload),
            }
            told.recv().await.expect("it is asked to forget the upload");
        }
    }
}
