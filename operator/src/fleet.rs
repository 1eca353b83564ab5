//! The live gateways and how far each has come.

/// A gateway that has loaded a table. One that hasn't takes no traffic and doesn't count.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Replica {
    pub id: String,
    pub epoch: i64,
    pub revision: i64,
}

/// Whether Postgres answers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Database {
    Here,
    /// Since a moment ago.
    Blip(String),
    /// For longer than a restart takes.
    Away(String),
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fleet {
    pub replicas: Vec<Replica>,
    /// Acknowledgements of an older epoch count for nothing: that table was of a database since restored from a backup.
    /// A mere change of leader doesn't move it.
    pub since_epoch: i64,
    pub database: Database,
}

impl Fleet {
    /// The gateways that don't route by this revision yet.
    pub fn behind(&self, revision: i64) -> impl Iterator<Item = &str> {
        self.replicas
            .iter()
            .filter(move |replica| replica.epoch < self.since_epoch || replica.revision < revision)
            .map(|replica| replica.id.as_str())
    }
}

/// Watches the gateways' heartbeats: woken by their notifications, and by a timer.
pub mod watching {
    use super::{Database, Fleet, Replica};
    use crate::metrics::Metrics;
    use service::{clock, log::chain};
    use std::{
        sync::Arc,
        time::{Duration, Instant},
    };
    use store::{Pool, replicas};
    use tokio::sync::{Notify, watch};
    use tokio_util::sync::CancellationToken;

    /// A gateway that died says nothing: this is how late that is seen, beyond its time-out.
    const POLL: Duration = Duration::from_secs(2);

    /// Notifications closer than this are one.
    const DEBOUNCE: Duration = Duration::from_millis(20);

    /// A restart of Postgres takes less. Shorter than the leader trusts its lease, so that it can still say so.
    const BLIP: Duration = Duration::from_secs(4);

    /// Runs until the token is cancelled. `wake` is notified when a gateway has said something.
    pub async fn run(pool: Pool, within: Duration, wake: Arc<Notify>, metrics: Metrics, fleet: watch::Sender<Fleet>, token: CancellationToken) {
        let mut away_since: Option<Instant> = None;
        loop {
            let read = tokio::select! {
                () = token.cancelled() => return,
                read = tokio::time::timeout(BLIP, replicas::live(&pool, within)) => read,
            };
            let (rows, database) = match read {
                Ok(Ok(rows)) => {
                    away_since = None;
                    (Some(rows), Database::Here)
                }
                Ok(Err(error)) => (None, away(&mut away_since, chain(&error))),
                Err(_) => (None, away(&mut away_since, "Postgres does not answer".to_owned())),
            };
            let rows: Option<Vec<Replica>> = rows.map(|rows| {
                rows.into_iter()
                    // One without a table takes no traffic.
                    .filter(|row| row.route_epoch > 0)
                    .map(|row| Replica { id: row.id, epoch: row.route_epoch, revision: row.applied_revision })
                    .collect()
            });
            if let Some(rows) = &rows {
                metrics.replicas.set(rows.len() as i64);
                metrics.slowest_revision.set(rows.iter().map(|replica| replica.revision).min().unwrap_or(0));
            }
            fleet.send_if_modified(|now| {
                let next = Fleet { replicas: rows.unwrap_or_else(|| now.replicas.clone()), since_epoch: now.since_epoch, database };
                let differs = *now != next;
                *now = next;
                differs
            });
            let poll = if away_since.is_some() { POLL / 4 } else { POLL };
            tokio::select! {
                () = token.cancelled() => return,
                () = wake.notified() => tokio::time::sleep(DEBOUNCE).await,
                () = tokio::time::sleep(poll) => {}
            }
        }
    }

    fn away(since: &mut Option<Instant>, why: String) -> Database {
        let since = *since.get_or_insert_with(clock::instant);
        if clock::instant().duration_since(since) < BLIP { Database::Blip(why) } else { Database::Away(why) }
    }
}
