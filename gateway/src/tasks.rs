//! Housekeeping: all that is done now and then, by one replica for all ([`crate::duty`]) or by each for itself.

mod measure;
mod partitions;
mod sweeps;

use crate::{
    bodies::{Bodies, sweep, sweep::Sweep},
    duty::{Leases, leased, woken},
    ingest::Ingest,
    jobs::{self, Jobs},
    metrics::Metrics,
    table,
};
use measure::{Depth, Measure};
use partitions::Partitions;
use service::task;
use std::{sync::Arc, time::Duration};
use sweeps::{Answers, Dedup, DestinationStates};
use tokio::{sync::Notify, task::JoinHandle};
use tokio_util::sync::CancellationToken;

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
    let pool = leases.pool();
    let days = Partitions {
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
    let orphans = Sweep {
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
    let own = Measure {
        pool: pool.clone(),
        ingest,
        table,
        metrics: metrics.clone(),
    };
    vec![
        leased(days, leases, partitions::EVERY, metrics, token),
        leased(depth, leases, measure::EVERY, metrics, token),
        leased(dedup, leases, sweeps::DEDUP_EVERY, metrics, token),
        leased(orphans, leases, sweep::EVERY, metrics, token),
        leased(answers, leases, sweeps::ANSWERS_EVERY, metrics, token),
        leased(
            destination_states,
            leases,
            sweeps::DESTINATION_STATES_EVERY,
            metrics,
            token,
        ),
        woken(jobs, leases, jobs::EVERY, asked, metrics, token),
        task::spawn(
            own,
            measure::EVERY,
            Arc::default(),
            &metrics.tasks,
            token.clone(),
        ),
    ]
}
