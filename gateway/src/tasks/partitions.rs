//! The days of the history: made ahead, and dropped when the retention is over.

use crate::{duty::Duty, metrics::Metrics};
use anyhow::Context;
use jiff::{Timestamp, tz::TimeZone};
use service::clock;
use std::{sync::Arc, time::Duration};
use store::{Pool, jobs::forget, partitions};

/// Makes partitions ahead and drops those that are older than the retention.
pub(super) struct Partitions {
    pub(super) pool: Pool,
    pub(super) retention: Duration,
    pub(super) metrics: Arc<Metrics>,
}

/// Days beyond today are there long before they are needed, so minutes don't matter.
pub(super) const EVERY: Duration = Duration::from_secs(600);

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
}
