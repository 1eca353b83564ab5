//! Listens to what other processes say and passes it on. Only hints: whoever gets one also looks on a timer, so a lost
//! connection costs seconds, never an event.

use std::{sync::Arc, time::Duration};
use store::{
    Store,
    listen::{Hint, Listener},
};
use tokio::{sync::Notify, task::JoinHandle};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

/// Between tries to reach Postgres again.
const PAUSE: Duration = Duration::from_secs(1);

/// Who wants to know of what.
pub struct Ears {
    /// The routing table may have changed.
    pub routes: Arc<Notify>,
    /// These destinations have something new in the queue.
    pub queue: Box<dyn Fn(Vec<Uuid>) + Send + Sync>,
    /// Something was scheduled that is due soon.
    pub scheduled: Arc<Notify>,
    /// Somebody asks for the circuits of these destinations to be reset.
    pub resets: Box<dyn Fn(Vec<Uuid>) + Send + Sync>,
    /// Somebody wants a job done.
    pub jobs: Arc<Notify>,
    /// A replica came or went.
    pub replicas: Box<dyn Fn() + Send + Sync>,
    /// Nobody knows what was missed.
    pub lost: Box<dyn Fn() + Send + Sync>,
}

impl Ears {
    fn hear(&self, hint: Hint) {
        match hint {
            Hint::Routes { .. } => self.routes.notify_one(),
            Hint::Queue(destinations) => (self.queue)(destinations),
            Hint::Resets(destinations) => (self.resets)(destinations),
            Hint::Replicas => (self.replicas)(),
            Hint::Jobs => self.jobs.notify_one(),
            Hint::Scheduled => self.scheduled.notify_one(),
            Hint::Lost => {
                self.routes.notify_one();
                self.jobs.notify_one();
                self.scheduled.notify_one();
                (self.replicas)();
                (self.lost)();
            }
        }
    }
}

/// Listens until the token is cancelled.
pub fn start(store: Store, ears: Ears, token: CancellationToken) -> JoinHandle<()> {
    tokio::spawn(async move {
        let listening = async {
            loop {
                match Listener::connect(&store).await {
                    Ok(listener) => {
                        // What was said before this moment was not heard.
                        ears.hear(Hint::Lost);
                        listen(listener, &ears).await
                    }
                    Err(error) => tracing::warn!(
                        error = service::log::chain(&error),
                        "cannot listen to Postgres; will try again"
                    ),
                }
                tokio::time::sleep(PAUSE).await;
            }
        };
        tokio::select! {
            () = token.cancelled() => {}
            () = listening => {}
        }
    })
}

async fn listen(mut listener: Listener, ears: &Ears) -> ! {
    loop {
        match listener.next().await {
            Ok(hint) => ears.hear(hint),
            Err(error) => {
                tracing::warn!(
                    error = service::log::chain(&error),
                    "lost the listening connection; will try again"
                );
                tokio::time::sleep(PAUSE).await;
            }
        }
    }
}
