//! What `hookstream dev` prints: one value per event and per attempt, told as it happens.
//!
//! Nobody listens in production, and then nothing is built: `tell` takes a closure. A listener that falls behind loses
//! lines, never slows a request.

use crate::scheduler;
use std::time::Duration;
use tokio::sync::mpsc;
use uuid::Uuid;

/// Something a person at a terminal wants to know.
#[derive(Debug, Clone)]
pub enum Seen {
    /// A request was recorded; its sender has or gets its 200.
    Accepted {
        event_id: Uuid,
        namespace: String,
        source: String,
        method: String,
        body_bytes: u64,
        /// How many deliveries were recorded with it.
        deliveries: usize,
        took: Duration,
    },
    /// A request was refused and nothing of it was kept.
    Refused {
        /// `req_…`, as the sender got it.
        request_id: String,
        /// `namespace/name`, when the source is known.
        source: Option<String>,
        method: String,
        path: String,
        status: u16,
        code: &'static str,
        message: String,
    },
    /// One send to a destination came to its end.
    Attempted(scheduler::Report),
}

/// Where [`Seen`] goes, if anybody listens. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Observer(Option<mpsc::Sender<Seen>>);

impl Observer {
    /// Lines wait in a queue of `capacity`; at the bound, new ones are lost.
    pub fn channel(capacity: usize) -> (Observer, mpsc::Receiver<Seen>) {
        let (sender, receiver) = mpsc::channel(capacity);
        (Observer(Some(sender)), receiver)
    }

    /// Nobody listens.
    pub fn none() -> Observer {
        Observer(None)
    }

    pub fn is_some(&self) -> bool {
        self.0.is_some()
    }

    pub fn tell(&self, seen: impl FnOnce() -> Seen) {
        if let Some(sender) = &self.0 {
            let _ = sender.try_send(seen());
        }
    }

    /// Where the scheduler tells its attempts; forwarded into the same channel.
    pub(crate) fn attempts(&self) -> Option<mpsc::Sender<scheduler::Report>> {
        let seen = self.0.clone()?;
        let (sender, mut reports) = mpsc::channel::<scheduler::Report>(256);
        tokio::spawn(async move {
            while let Some(report) = reports.recv().await {
                let _ = seen.try_send(Seen::Attempted(report));
            }
        });
        Some(sender)
    }
}
