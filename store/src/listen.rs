//! Hints through LISTEN/NOTIFY. Only hints: whoever waits for one also looks on a timer.

use crate::{Pool, Store, error::Result};
use sqlx::postgres::PgListener;
use uuid::Uuid;

/// Something may have changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Hint {
    /// The routing table: `epoch` and `revision` of its head.
    Routes { epoch: i64, revision: i64 },
    /// These destinations have something new in the queue.
    Queue(Vec<Uuid>),
    /// A replica applied another revision, came or went.
    Replicas,
    /// The connection was lost and is back; what was said meanwhile is unknown: look at everything.
    Lost,
}

pub struct Listener {
    inner: PgListener,
}

impl Listener {
    /// Connects to the direct URL and listens to all channels.
    pub async fn connect(store: &Store) -> Result<Listener> {
        let _ = store;
        unimplemented!()
    }

    /// Waits for the next hint. Cancel safe. After an error call it again, later: it connects anew and says [`Hint::Lost`].
    pub async fn next(&mut self) -> Result<Hint> {
        let _ = &mut self.inner;
        unimplemented!()
    }
}

/// The destinations that one notification names; more go into further ones (a payload has at most 8,000 bytes).
pub const DESTINATIONS_PER_NOTIFY: usize = 200;

/// Tells the other replicas that these destinations have something new in the queue. Outside the recording transaction:
/// NOTIFY serialises commits.
pub async fn notify_queue(pool: &Pool, destinations: &[Uuid]) -> Result<()> {
    let _ = (pool, destinations);
    unimplemented!()
}
