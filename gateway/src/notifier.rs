//! Tells other replicas about deliveries that were recorded here for shards of theirs.
//!
//! Collects destinations and sends one NOTIFY per batch, outside the recording transaction (NOTIFY serialises commits)
//! and at most once in [`LINGER`]. Only a hint: if it is lost, the owner's timer finds the rows.

use crate::scheduler::DeliveryMetrics;
use std::{
    collections::HashSet,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};
use store::{Pool, listen};
use tokio::sync::Notify;
use uuid::Uuid;

/// Between two notifications. The first one after a pause goes at once.
const LINGER: Duration = Duration::from_millis(10);

/// Destinations that may wait to be named. Past it the rest is left to the owners' timers: with so many, naming them
/// costs more than looking.
const BOUND: usize = 20_000;

/// Where destinations are handed in. Never blocks.
#[derive(Debug, Clone, Default)]
pub struct Notifier(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    waiting: Mutex<HashSet<Uuid>>,
    wake: Notify,
}

impl Notifier {
    pub fn tell(&self, destinations: impl IntoIterator<Item = Uuid>) {
        let mut waiting = self
            .0
            .waiting
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        for destination in destinations {
            if waiting.len() < BOUND {
                waiting.insert(destination);
            }
        }
        let any = !waiting.is_empty();
        drop(waiting);
        if any {
            self.0.wake.notify_one();
        }
    }

    fn take(&self) -> Vec<Uuid> {
        self.0
            .waiting
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .drain()
            .collect()
    }

    /// Sends what is handed in, for ever.
    pub(crate) async fn run(self, pool: Pool, metrics: DeliveryMetrics) {
        loop {
            self.0.wake.notified().await;
            for batch in self.take().chunks(listen::DESTINATIONS_PER_NOTIFY) {
                metrics.notifications.inc();
                if let Err(error) = listen::notify_queue(&pool, batch).await {
                    tracing::debug!(%error, "a hint to other replicas was not sent; their timers will do");
                }
            }
            tokio::time::sleep(LINGER).await;
        }
    }
}
