//! Housekeeping: what one replica does for all (partitions, retention, measuring the queue, jobs), chosen by a task lease,
//! and what each measures of itself.
//!
//! Doing a duty twice does no harm; the lease only saves the work, and makes one replica show the numbers.

use crate::{
    bodies::{Bodies, sweep, sweep::Sweep},
    ingest::Ingest,
    jobs::{self, Jobs},
    metrics::Metrics,
    table,
};
use anyhow::Context;
use jiff::{Timestamp, tz::TimeZone};
use service::{
    clock,
    task::{self, Task},
};
use std::{
    collections::HashMap,
    future::Future,
    sync::{Arc, Mutex},
    time::Duration,
};
use store::{
    Lease, Pool, dedup, destination_state, idempotency, jobs::forget, lease, partitions, queue,
};
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

/// Makes partitions ahead and drops those that are older than the retention.
pub struct Partitions {
    pub pool: Pool,
    pub retention: Duration,
    pub metrics: Arc<Metrics>,
}

/// Days beyond today are there long before they are needed, so minutes don't matter.
const PARTITIONS_EVERY: Duration = Duration::from_secs(600);

impl Duty for Partitions {
    const NAME: &'static str = "partitions";

    async fn perform(&mut self) -> anyhow::Result<()> {
        let now = clock::now();
        // The earlier of the two clocks: one that has jumped ahead would drop everybody's history.
        let database = partitions::database_clock(&self.pool)
            .await
            .context("asking the database for the time")?;
        let keep_from = keep_from(now.min(database), self.retention);
        // By the database's clock, which all share: a replica whose own is wrong must not keep the others' days from them.
        let made = partitions::ensure(&self.pool, database)
            .await
            .context("making partitions ahead")?;
        // Measured before and after: a drop that fails for days must show.
        self.measure(database, keep_from).await?;
        let dropped = partitions::drop_before(&self.pool, keep_from, |lost| {
            self.metrics
                .housekeeping
                .retention_lost_deliveries
                .inc_by(lost);
        })
        .await
        .context("dropping what is older than the retention")?;
        forget(&self.pool)
            .await
            .context("forgetting jobs that ended long ago")?;
        if made > 0 || !dropped.is_empty() {
            tracing::info!(made, dropped = dropped.len(), %keep_from, "partitions");
        }
        self.measure(database, keep_from).await
    }

    fn relieved(&mut self) {
        self.metrics.housekeeping.retention_lag_seconds.reset();
        self.metrics.housekeeping.partitions_ahead.reset();
    }
}

impl Partitions {
    async fn measure(&self, now: Timestamp, keep_from: jiff::civil::Date) -> anyhow::Result<()> {
        let lag = partitions::lag(&self.pool, now, keep_from)
            .await
            .context("measuring partitions")?;
        let metrics = &self.metrics.housekeeping;
        metrics
            .retention_lag_seconds
            .with_label_values::<&str>(&[])
            .set(f64::from(lag.overdue_days) * 86_400.0);
        metrics
            .partitions_ahead
            .with_label_values::<&str>(&[])
            .set(i64::from(lag.ahead_days));
        Ok(())
    }
}

/// The first day (UTC) that is kept: a day goes when its last moment is older than the retention.
fn keep_from(now: Timestamp, retention: Duration) -> jiff::civil::Date {
    let oldest = now.checked_sub(retention).unwrap_or(Timestamp::UNIX_EPOCH);
    oldest.to_zoned(TimeZone::UTC).date()
}

/// Measures the queue.
pub struct Depth {
    pub pool: Pool,
    pub metrics: Arc<Metrics>,
}

const DEPTH_EVERY: Duration = Duration::from_secs(5);

impl Duty for Depth {
    const NAME: &'static str = "depth";

    async fn perform(&mut self) -> anyhow::Result<()> {
        let depth = queue::depth(&self.pool)
            .await
            .context("measuring the queue")?;
        let now = clock::now();
        for (state, deliveries, oldest) in [
            ("pending", depth.pending, depth.oldest_pending),
            ("retrying", depth.retrying, depth.oldest_retrying),
        ] {
            let age = oldest.map_or(0.0, |oldest| {
                now.duration_since(oldest).as_secs_f64().max(0.0)
            });
            self.metrics
                .housekeeping
                .queue_deliveries
                .with_label_values(&[state])
                .set(i64::try_from(deliveries).unwrap_or(i64::MAX));
            self.metrics
                .housekeeping
                .queue_oldest_seconds
                .with_label_values(&[state])
                .set(age);
        }
        Ok(())
    }

    fn relieved(&mut self) {
        self.metrics.housekeeping.queue_deliveries.reset();
        self.metrics.housekeeping.queue_oldest_seconds.reset();
    }
}

/// Forgets the dedup keys whose windows are over.
pub struct Dedup {
    pub pool: Pool,
    pub metrics: Arc<Metrics>,
}

const DEDUP_EVERY: Duration = Duration::from_secs(10);

/// Keys of one statement: some tens of milliseconds.
const DEDUP_STATEMENT: u32 = 5_000;

/// Statements of one sweep: together 50,000 keys a second, more than are recorded. What remains waits for the next.
const DEDUP_SWEEP: usize = 100;

impl Duty for Dedup {
    const NAME: &'static str = "dedup";

    async fn perform(&mut self) -> anyhow::Result<()> {
        for _ in 0..DEDUP_SWEEP {
            let gone = dedup::expire(&self.pool, DEDUP_STATEMENT)
                .await
                .context("forgetting dedup keys")?;
            self.metrics.housekeeping.dedup_expired.inc_by(gone);
            if gone < u64::from(DEDUP_STATEMENT) {
                break;
            }
        }
        let next = dedup::next_expiry(&self.pool)
            .await
            .context("looking for the next dedup key")?;
        let overdue = next.map_or(0.0, |next| clock::now().duration_since(next).as_secs_f64());
        let metric = &self.metrics.housekeeping.dedup_overdue_seconds;
        metric.with_label_values::<&str>(&[]).set(overdue.max(0.0));
        Ok(())
    }

    fn relieved(&mut self) {
        self.metrics.housekeeping.dedup_overdue_seconds.reset();
    }
}

/// Forgets the answers to publications whose idempotency keys have expired.
struct Answers {
    pool: Pool,
    metrics: Arc<Metrics>,
}

const ANSWERS_EVERY: Duration = Duration::from_secs(30);

impl Duty for Answers {
    const NAME: &'static str = "idempotency";

    async fn perform(&mut self) -> anyhow::Result<()> {
        for _ in 0..DEDUP_SWEEP {
            let gone = idempotency::expire(&self.pool, DEDUP_STATEMENT)
                .await
                .context("forgetting answers")?;
            self.metrics.housekeeping.idempotency_expired.inc_by(gone);
            if gone < u64::from(DEDUP_STATEMENT) {
                break;
            }
        }
        Ok(())
    }

    fn relieved(&mut self) {}
}

/// Forgets what was remembered of destinations that were deleted.
pub struct DestinationStates {
    pub pool: Pool,
}

const DESTINATION_STATES_EVERY: Duration = Duration::from_secs(600);

/// Statements of one sweep, of a thousand rows each. What remains waits for the next.
const DESTINATION_STATES_SWEEP: usize = 100;

impl Duty for DestinationStates {
    const NAME: &'static str = "destination_states";

    async fn perform(&mut self) -> anyhow::Result<()> {
        for _ in 0..DESTINATION_STATES_SWEEP {
            let gone = destination_state::forget(&self.pool)
                .await
                .context("forgetting deleted destinations")?;
            if gone == 0 {
                break;
            }
        }
        Ok(())
    }

    fn relieved(&mut self) {}
}

/// What each replica measures of itself.
struct Measure {
    pool: Pool,
    ingest: Arc<Ingest>,
    table: Arc<table::Current>,
    metrics: Arc<Metrics>,
}

impl Task for Measure {
    const NAME: &'static str = "measure";

    async fn activate(&mut self) -> anyhow::Result<()> {
        let idle = i64::try_from(self.pool.idle()).unwrap_or(i64::MAX);
        let connections = &self.metrics.pool.connections;
        connections.with_label_values(&["idle"]).set(idle);
        connections
            .with_label_values(&["used"])
            .set((i64::from(self.pool.size()) - idle).max(0));
        if let Some(staleness) = self.table.staleness(clock::instant()) {
            self.metrics
                .table
                .staleness_seconds
                .set(staleness.as_secs_f64());
        }
        if let Some(applied) = self.table.get() {
            self.ingest.tidy(&applied.table, clock::instant());
        }
        Ok(())
    }
}

/// What the tasks work on, beside the database.
pub struct Objects {
    pub retention: Duration,
    pub bodies: Bodies,
    pub ingest: Arc<Ingest>,
    pub table: Arc<table::Current>,
    /// Somebody wants a job done.
    pub asked: Arc<Notify>,
}

/// Starts all of them; they end with the token.
pub fn start(
    leases: &Leases,
    objects: Objects,
    metrics: &Arc<Metrics>,
    token: &CancellationToken,
) -> Vec<JoinHandle<()>> {
    let Objects {
        retention,
        bodies,
        ingest,
        table,
        asked,
    } = objects;
    let pool = &leases.pool;
    let partitions = Partitions {
        pool: pool.clone(),
        retention,
        metrics: metrics.clone(),
    };
    let depth = Depth {
        pool: pool.clone(),
        metrics: metrics.clone(),
    };
    let dedup = Dedup {
        pool: pool.clone(),
        metrics: metrics.clone(),
    };
    let sweep = Sweep {
        pool: pool.clone(),
        bodies,
        grace: sweep::GRACE,
        from: None,
    };
    let jobs = Jobs {
        pool: pool.clone(),
        metrics: metrics.clone(),
        wake: asked.clone(),
        token: token.clone(),
    };
    let answers = Answers {
        pool: pool.clone(),
        metrics: metrics.clone(),
    };
    let destination_states = DestinationStates { pool: pool.clone() };
    let measure = Measure {
        pool: pool.clone(),
        ingest,
        table,
        metrics: metrics.clone(),
    };
    vec![
        leased(partitions, leases, PARTITIONS_EVERY, metrics, token),
        leased(depth, leases, DEPTH_EVERY, metrics, token),
        leased(dedup, leases, DEDUP_EVERY, metrics, token),
        leased(sweep, leases, sweep::EVERY, metrics, token),
        leased(answers, leases, ANSWERS_EVERY, metrics, token),
        leased(
            destination_states,
            leases,
            DESTINATION_STATES_EVERY,
            metrics,
            token,
        ),
        woken(jobs, leases, jobs::EVERY, asked, metrics, token),
        task::spawn(
            measure,
            DEPTH_EVERY,
            Arc::default(),
            &metrics.tasks,
            token.clone(),
        ),
    ]
}

fn leased<D: Duty>(
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

    #[test]
    fn a_day_is_kept_until_its_last_moment_is_older_than_the_retention() {
        let day = Duration::from_secs(86_400);
        for (now, kept) in [
            ("2026-11-21T00:00:00Z", "2026-11-19"),
            ("2026-11-21T23:59:59Z", "2026-11-19"),
            ("2026-11-22T00:00:00Z", "2026-11-20"),
        ] {
            assert_eq!(
                keep_from(now.parse().unwrap(), 2 * day).to_string(),
                kept,
                "{now}"
            );
        }
    }

    #[tokio::test]
    async fn deliveries_that_retention_takes_from_the_queue_are_counted() {
        let database = store::testing::Database::create().await;
        let pool = &database.store.pool;
        let row = "INSERT INTO queue VALUES (1, gen_random_uuid(), now(), gen_random_uuid(), \
                   '00000000-0000-7000-8000-000000000000', gen_random_uuid(), 'team', 1, now())";
        sqlx::raw_sql(row).execute(pool.raw()).await.unwrap();
        let metrics = Metrics::new(&prometheus::Registry::new());
        let mut duty = Partitions {
            pool: pool.clone(),
            retention: Duration::from_secs(1),
            metrics: metrics.clone(),
        };
        // The first drops yesterday, the second finds nothing.
        for _ in 0..2 {
            duty.perform().await.unwrap();
            assert_eq!(metrics.housekeeping.retention_lost_deliveries.get(), 1);
        }
    }

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
