//! Working on the jobs that people ask for (`store::jobs`): one replica does, by the lease of this duty, and whoever comes
//! after it goes on where it was. The lease only saves work: two who did this at once would take turns.
//!
//! A turn lasts a second at most, in small steps spread over it; then the lease is prolonged, and the next turn follows at
//! once while there's something to do. A stop is seen by the next step.

use crate::{duty::Duty, metrics::Metrics};
use anyhow::Context;
use std::{sync::Arc, time::Duration};
use store::{
    Pool,
    jobs::{self, State, Step},
};
use tokio::{sync::Notify, time::Instant};
use tokio_util::sync::CancellationToken;

/// Jobs are told by a hint as well.
pub const EVERY: Duration = Duration::from_secs(2);

/// Well below the lease's time, so that it's prolonged between two turns.
const TURN: Duration = Duration::from_secs(1);

/// Between looks at what the rates allow: a job of 1,000 a second comes in hundreds.
const TICK: Duration = Duration::from_millis(100);

#[derive(Debug)]
pub struct Jobs {
    pub pool: Pool,
    pub metrics: Arc<Metrics>,
    /// Wakes this task.
    pub wake: Arc<Notify>,
    /// Ends a turn early.
    pub token: CancellationToken,
}

impl Duty for Jobs {
    const NAME: &'static str = "jobs";

    async fn perform(&mut self) -> anyhow::Result<()> {
        let running = self.running().await?;
        if running == 0 {
            return Ok(());
        }
        let over = Instant::now() + TURN;
        while Instant::now() < over && !self.token.is_cancelled() {
            let step = jobs::step(&self.pool).await.context("a step of a job")?;
            match step {
                Some(step) => self.count(&step),
                None => tokio::select! {
                    () = self.token.cancelled() => {}
                    () = tokio::time::sleep(TICK) => {}
                },
            }
        }
        self.running().await?;
        self.wake.notify_one();
        Ok(())
    }

    fn relieved(&mut self) {
        self.metrics.jobs.running.reset();
    }
}

impl Jobs {
    async fn running(&self) -> anyhow::Result<u64> {
        let running = jobs::running(&self.pool).await.context("counting jobs")?;
        self.metrics
            .jobs
            .running
            .with_label_values::<&str>(&[])
            .set(i64::try_from(running).unwrap_or(i64::MAX));
        Ok(running)
    }

    fn count(&self, step: &Step) {
        let metrics = &self.metrics.jobs;
        metrics
            .deliveries
            .with_label_values(&["retried"])
            .inc_by(step.retried.going.len() as u64);
        for refused in &step.retried.refused {
            metrics
                .deliveries
                .with_label_values(&[refused.why.as_str()])
                .inc();
        }
        if step.state != State::Running {
            metrics
                .ended
                .with_label_values(&[step.state.as_str()])
                .inc();
            tracing::info!(
                job = %step.job.simple(),
                state = step.state.as_str(),
                "a job has come to its end"
            );
        }
    }
}

#[cfg(test)]
mod tests;
