//! Which operator leads: the holder of the `operator` lease in Postgres.
//!
//! The leader publishes and writes statuses; followers watch and compile, so that they take over warm. When Postgres
//! goes away nobody can hold the lease: the operator that led last becomes its caretaker, which publishes nothing and
//! only says in statuses that the database is away.

use service::{clock, log::chain};
use std::time::Duration;
use store::{Lease, Pool, lease};
use tokio::{sync::watch, task::JoinHandle, time::Instant};
use tokio_util::sync::CancellationToken;

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Leadership {
    #[default]
    Following,
    Leading {
        lease: Lease,
        /// Counts this process's terms. A database restored from a backup can give the same lease epoch twice.
        term: u64,
    },
    /// Led until the database went away, and doesn't know of another leader.
    Caretaker { term: u64 },
}

impl Leadership {
    /// The lease and the term, while they can be trusted.
    pub fn leads(&self) -> Option<(&Lease, u64)> {
        match self {
            Leadership::Leading { lease, term }
                if clock::instant() < lease.trusted_until.into_std() =>
            {
                Some((lease, *term))
            }
            _ => None,
        }
    }

    /// The term that this process has not lost to anybody, as far as it knows.
    pub fn term(&self) -> Option<u64> {
        match self {
            Leadership::Following => None,
            Leadership::Leading { term, .. } | Leadership::Caretaker { term } => Some(*term),
        }
    }
}

#[derive(Debug, Clone)]
pub struct Settings {
    /// Differs between processes.
    pub holder: String,
    /// After a crash another operator leads within this time.
    pub ttl: Duration,
}

/// Competes for the lease until the token is cancelled, then gives it back.
pub fn spawn(
    pool: Pool,
    settings: Settings,
    token: CancellationToken,
) -> (watch::Receiver<Leadership>, JoinHandle<()>) {
    let (sender, receiver) = watch::channel(Leadership::Following);
    let task = tokio::spawn(async move {
        let mut candidate = Candidate {
            pool,
            settings,
            held: None,
            term: 0,
        };
        loop {
            let wait = tokio::select! {
                () = token.cancelled() => break,
                wait = candidate.step(&sender) => wait,
            };
            tokio::select! {
                () = token.cancelled() => break,
                () = tokio::time::sleep(wait) => {}
            }
        }
        candidate.resign().await;
        sender.send_replace(Leadership::Following);
    });
    (receiver, task)
}

struct Candidate {
    pool: Pool,
    settings: Settings,
    held: Option<Lease>,
    term: u64,
}

impl Candidate {
    /// One attempt to get or keep the lease; answers how long to wait until the next.
    async fn step(&mut self, sender: &watch::Sender<Leadership>) -> Duration {
        let ttl = self.settings.ttl;
        let result = match &self.held {
            Some(held) => lease::renew_many(&self.pool, std::slice::from_ref(held), ttl)
                .await
                .map(|mut still| still.pop()),
            None => lease::acquire(&self.pool, lease::OPERATOR, &self.settings.holder, ttl).await,
        };
        match result {
            Ok(Some(lease)) => {
                if self.held.is_none() {
                    self.term += 1;
                    tracing::info!(epoch = lease.epoch, "leads");
                }
                self.held = Some(lease.clone());
                sender.send_replace(Leadership::Leading {
                    lease,
                    term: self.term,
                });
                ttl / 3
            }
            Ok(None) => {
                let lost = self.held.take().is_some();
                if lost {
                    tracing::warn!("another operator leads by now");
                }
                sender.send_if_modified(|now| {
                    std::mem::replace(now, Leadership::Following) != Leadership::Following
                });
                // A lease that was lost may be free again: try at once, once.
                if lost { Duration::ZERO } else { ttl / 5 }
            }
            Err(error) => {
                tracing::warn!(
                    error = chain(&error),
                    "the lease can't be had from the database; will try again"
                );
                if self
                    .held
                    .as_ref()
                    .is_some_and(|lease| Instant::now() >= lease.trusted_until)
                {
                    let caretaker = Leadership::Caretaker { term: self.term };
                    sender.send_if_modified(|now| {
                        std::mem::replace(now, caretaker.clone()) != caretaker
                    });
                }
                ttl / 10
            }
        }
    }

    async fn resign(&mut self) {
        let Some(lease) = self.held.take() else {
            return;
        };
        // Bounded: a database that hangs must not hold the exit. Then the lease runs out by itself.
        match tokio::time::timeout(
            self.settings.ttl / 2,
            lease::release_many(&self.pool, &[lease]),
        )
        .await
        {
            Ok(Ok(())) => tracing::info!("gave the lease back"),
            Ok(Err(error)) => tracing::warn!(error = chain(&error), "the lease runs out by itself"),
            Err(_) => tracing::warn!("the database doesn't answer; the lease runs out by itself"),
        }
    }
}
