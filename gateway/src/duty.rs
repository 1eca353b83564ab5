//! What one replica does for all, chosen by a task lease.
//!
//! Doing a duty twice does no harm; the lease only saves the work, and makes one replica show the numbers.

use crate::metrics::Metrics;
use anyhow::Context;
use service::task::{self, Task};
use std::{
    collections::HashMap,
    future::Future,
    sync::{Arc, Mutex},
    time::Duration,
};
use store::{Lease, Pool, lease};
use tokio::{sync::Notify, task::JoinHandle};
use tokio_util::sync::CancellationToken;

/// Something that one replica does for all.
pub trait Duty: Send + 'static {
    /// The lease's and the task's name.
    const NAME: &'static str;

    fn perform(&mut self) -> impl Future<Output = anyhow::Result<()>> + Send;

    /// Another replica does it now, or nobody knows.
    fn relieved(&mut self);
}

/// The task leases of this process. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Leases {
    pool: Pool,
    holder: Arc<str>,
    held: Arc<Mutex<HashMap<&'static str, Lease>>>,
}

impl Leases {
    pub fn new(pool: Pool, holder: Arc<str>) -> Leases {
        Leases {
            pool,
            holder,
            held: Arc::default(),
        }
    }

    pub fn pool(&self) -> &Pool {
        &self.pool
    }

    /// Takes or prolongs the lease of a duty; false: it is another's.
    async fn hold(&self, name: &'static str, ttl: Duration) -> store::Result<bool> {
        let before = self.lock().remove(name);
        let renewed = match before {
            Some(lease) => lease::renew_many(&self.pool, &[lease], ttl).await?.pop(),
            None => None,
        };
        let lease = match renewed {
            Some(lease) => Some(lease),
            None => lease::acquire(&self.pool, &lease::task_name(name), &self.holder, ttl).await?,
        };
        let holds = lease.is_some();
        self.lock().extend(lease.map(|lease| (name, lease)));
        Ok(holds)
    }

    /// Gives all back, once their tasks have ended.
    pub async fn release(&self) -> store::Result<()> {
        let held: Vec<Lease> = self.lock().drain().map(|(_, lease)| lease).collect();
        lease::release_many(&self.pool, &held).await
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<&'static str, Lease>> {
        self.held
            .lock()
            .unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

/// A duty that is done while its lease is held.
struct Leased<D> {
    duty: D,
    leases: Leases,
    ttl: Duration,
}

impl<D: Duty> Task for Leased<D> {
    const NAME: &'static str = D::NAME;

    async fn activate(&mut self) -> anyhow::Result<()> {
        match self.leases.hold(D::NAME, self.ttl).await {
            Ok(true) => self.duty.perform().await,
            Ok(false) => {
                self.duty.relieved();
                Ok(())
            }
            Err(error) => {
                self.duty.relieved();
                Err(error).context("task lease")
            }
        }
    }
}

/// Starts a duty: it is performed so often, by the replica that holds its lease.
pub fn leased<D: Duty>(
    duty: D,
    leases: &Leases,
    every: Duration,
    metrics: &Metrics,
    token: &CancellationToken,
) -> JoinHandle<()> {
    woken(duty, leases, every, Arc::default(), metrics, token)
}

/// Starts a duty: it is performed at least so often, and whenever `wake` says so, by the replica that holds its lease.
pub fn woken<D: Duty>(
    duty: D,
    leases: &Leases,
    every: Duration,
    wake: Arc<Notify>,
    metrics: &Metrics,
    token: &CancellationToken,
) -> JoinHandle<()> {
    // Outlives two activations that fail, so that a duty doesn't wander between replicas.
    let leased = Leased {
        duty,
        leases: leases.clone(),
        ttl: every * 3,
    };
    task::spawn(leased, every, wake, &metrics.tasks, token.clone())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn one_replica_holds_a_duty_until_it_gives_it_back() {
        let database = store::testing::Database::create().await;
        let [first, second] = ["first", "second"]
            .map(|holder| Leases::new(database.store.pool.clone(), holder.into()));
        let ttl = Duration::from_secs(60);
        assert!(first.hold("depth", ttl).await.unwrap());
        assert!(
            first.hold("depth", ttl).await.unwrap(),
            "it prolongs its own"
        );
        assert!(!second.hold("depth", ttl).await.unwrap());
        first.release().await.unwrap();
        assert!(second.hold("depth", ttl).await.unwrap());
    }
}
