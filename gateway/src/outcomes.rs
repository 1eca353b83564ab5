//! Writes what came of attempts: what ended while the last commit was in flight goes into the next one.
//!
//! Guarantees: an outcome is written once under the epoch that its attempt began with, or is reported as not written.
//! While Postgres is away outcomes are kept and tried again; there are never more than the scheduler lets attempts begin
//! (it counts what is unwritten), so memory is bounded and deliveries slow down instead.

use crate::scheduler::DeliveryMetrics;
use service::clock;
use std::{collections::BTreeMap, sync::Arc, time::Duration};
use store::{
    Error, Held, Pool,
    outcomes::{self, Outcome},
    partitions,
};
use tokio::sync::mpsc;

/// Most outcomes in one commit.
const BATCH: usize = 512;

/// Between two tries while Postgres is away: doubled from the first to the last.
const PAUSES: (Duration, Duration) = (Duration::from_millis(20), Duration::from_secs(1));

/// An outcome and the epoch of its shard's lease when its attempt began.
#[derive(Debug)]
pub(crate) struct Job {
    pub(crate) outcome: Outcome,
    pub(crate) epoch: i64,
}

/// What became of a [`Job`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fate {
    Written,
    /// The shard is another's by now: nothing was written, and the new owner makes the attempt again.
    Fenced,
    /// The database refused the data, also without what the destination answered, which is a bug of ours: the row stays
    /// in the queue.
    Refused,
}

#[derive(Debug)]
pub(crate) struct Written {
    pub(crate) job: Job,
    pub(crate) fate: Fate,
}

/// Writes until the sender is gone and everything is written. `report` is told of each batch.
pub(crate) async fn run(
    pool: Pool,
    holder: Arc<str>,
    mut jobs: mpsc::UnboundedReceiver<Job>,
    metrics: DeliveryMetrics,
    report: impl Fn(Vec<Written>) + Send,
) {
    let mut writer = outcomes::Writer::new(pool);
    let mut arrived = Vec::with_capacity(BATCH);
    loop {
        if jobs.is_empty() {
            writer.rest();
        }
        if jobs.recv_many(&mut arrived, BATCH).await == 0 {
            return;
        }
        // A shard that was lost and won again meanwhile has outcomes of two epochs; one statement names one of them.
        while !arrived.is_empty() {
            let mut held = Held {
                holder: holder.clone(),
                epochs: BTreeMap::new(),
            };
            let (batch, rest): (Vec<Job>, Vec<Job>) = arrived.drain(..).partition(|job| {
                *held.epochs.entry(job.outcome.shard).or_insert(job.epoch) == job.epoch
            });
            arrived = rest;
            report(write(&mut writer, &held, batch, &metrics).await);
        }
        arrived.reserve(BATCH);
    }
}

async fn write(
    writer: &mut outcomes::Writer,
    held: &Held,
    batch: Vec<Job>,
    metrics: &DeliveryMetrics,
) -> Vec<Written> {
    let (mut outcomes, epochs): (Vec<Outcome>, Vec<i64>) = batch
        .into_iter()
        .map(|job| (job.outcome, job.epoch))
        .unzip();
    metrics.outcome_batch.observe(outcomes.len() as f64);
    let started = clock::instant();
    let fates = match persist(writer, held, &outcomes).await {
        Ok(written) => outcomes
            .iter()
            .map(|outcome| {
                if written.contains(outcome.shard) {
                    Fate::Written
                } else {
                    Fate::Fenced
                }
            })
            .collect(),
        // One bad row must not hold the others back: each for itself.
        Err(error) => {
            tracing::error!(
                error = &error as &dyn std::error::Error,
                outcomes = outcomes.len(),
                "the database refused a batch of outcomes"
            );
            let mut fates = Vec::with_capacity(outcomes.len());
            for outcome in &mut outcomes {
                fates.push(write_one(writer, held, outcome).await);
            }
            fates
        }
    };
    metrics
        .outcome_write_seconds
        .observe(started.elapsed().as_secs_f64());
    let jobs = outcomes
        .into_iter()
        .zip(epochs)
        .map(|(outcome, epoch)| Job { outcome, epoch });
    jobs.zip(fates)
        .map(|(job, fate)| Written { job, fate })
        .collect()
}

/// What a destination answered may be why an outcome is refused, and the only part that we can do without: else the
/// delivery would be made, and refused, again and again.
async fn write_one(writer: &mut outcomes::Writer, held: &Held, outcome: &mut Outcome) -> Fate {
    for bare in [false, true] {
        if bare && let Some(attempt) = &mut outcome.attempt {
            attempt.error = None;
            attempt.response_headers = None;
            attempt.response_body = None;
        }
        match persist(writer, held, std::slice::from_ref(outcome)).await {
            Ok(written) if written.contains(outcome.shard) => return Fate::Written,
            Ok(_) => return Fate::Fenced,
            Err(error) => {
                tracing::error!(error = &error as &dyn std::error::Error, delivery = %outcome.delivery_id, without_answer = bare, "the database refused an outcome")
            }
        }
    }
    Fate::Refused
}

/// Tries until the database has answered.
async fn persist(
    writer: &mut outcomes::Writer,
    held: &Held,
    batch: &[Outcome],
) -> Result<outcomes::WrittenShards, Error> {
    let mut pause = PAUSES.0;
    let mut partitions_made = false;
    loop {
        match writer.write(batch, held).await {
            Ok(written) => return Ok(written),
            Err(Error::Fenced) => return Ok(outcomes::WrittenShards::default()),
            Err(error @ Error::MissingPartition(_)) if !partitions_made => {
                tracing::warn!(%error, "making the partitions");
                partitions_made = partitions::ensure(writer.pool(), clock::now())
                    .await
                    .is_ok();
            }
            // A database that is being restored has no tables for a while: that passes as well.
            Err(error) if error.is_transient() || matches!(error, Error::Schema(_)) => {
                tracing::warn!(
                    error = &error as &dyn std::error::Error,
                    outcomes = batch.len(),
                    "outcomes wait for Postgres"
                );
            }
            Err(error) => return Err(error),
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(PAUSES.1);
    }
}
