//! Among how many replicas a source's rate limit is shared: those that take events and were heard of lately.
//!
//! Asked now and then, not per request. While the database is away the last number holds: a limit that jumped whenever
//! Postgres restarts would be none.

use super::Ingest;
use crate::args::Role;
use service::task::Task;
use std::{sync::Arc, time::Duration};
use store::Pool;

/// A replica that came or went changes the shares within this time and the one it takes to be missed.
pub const PERIOD: Duration = Duration::from_secs(5);

/// One activation counts them.
pub struct Count {
    pub pool: Pool,
    pub ingest: Arc<Ingest>,
    /// For how long a replica counts that isn't heard of.
    pub within: Duration,
}

impl Task for Count {
    const NAME: &'static str = "ingest_replicas";

    async fn activate(&mut self) -> anyhow::Result<()> {
        let live = store::replicas::live(&self.pool, self.within).await?;
        let takes = |replica: &&store::replicas::Replica| {
            replica
                .roles
                .iter()
                .any(|role| role == Role::Ingest.as_str())
        };
        let count = live.iter().filter(takes).count();
        self.ingest
            .share_with(u32::try_from(count).unwrap_or(u32::MAX));
        Ok(())
    }
}
