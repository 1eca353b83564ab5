//! Numbers that nobody has until somebody looks: of the queue by one replica, and of each replica by itself.

use crate::{duty::Duty, ingest::Ingest, metrics::Metrics, table};
use anyhow::Context;
use service::{clock, task::Task};
use std::{sync::Arc, time::Duration};
use store::{Pool, queue};

/// Measures the queue.
pub(super) struct Depth {
    pub(super) pool: Pool,
    pub(super) metrics: Arc<Metrics>,
}

pub(super) const EVERY: Duration = Duration::from_secs(5);

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

/// What each replica measures of itself.
pub(super) struct Measure {
    pub(super) pool: Pool,
    pub(super) ingest: Arc<Ingest>,
    pub(super) table: Arc<table::Current>,
    pub(super) metrics: Arc<Metrics>,
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
