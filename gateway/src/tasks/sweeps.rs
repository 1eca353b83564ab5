//! What has expired or belongs to nothing any more is forgotten, in bounded steps.

use crate::{duty::Duty, metrics::Metrics};
use anyhow::Context;
use service::clock;
use std::{sync::Arc, time::Duration};
use store::{Pool, dedup, destination_state, idempotency};

/// Forgets the dedup keys whose windows are over.
pub(super) struct Dedup {
    pub(super) pool: Pool,
    pub(super) metrics: Arc<Metrics>,
}

pub(super) const DEDUP_EVERY: Duration = Duration::from_secs(10);

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
pub(super) struct Answers {
    pub(super) pool: Pool,
    pub(super) metrics: Arc<Metrics>,
}

pub(super) const ANSWERS_EVERY: Duration = Duration::from_secs(30);

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
pub(super) struct DestinationStates {
    pub(super) pool: Pool,
}

pub(super) const DESTINATION_STATES_EVERY: Duration = Duration::from_secs(600);

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
