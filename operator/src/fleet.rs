//! The live gateways and how far each has come.

/// A gateway that has loaded a table. One that hasn't takes no traffic and doesn't count.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Replica {
    pub id: String,
    pub epoch: i64,
    pub revision: i64,
}

/// Whether Postgres answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Database {
    Here,
    /// Not since a moment ago.
    Blip,
    /// Not for longer than a restart takes.
    Away,
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

    /// A restart of Postgres takes less.
    const BLIP: Duration = Duration::from_secs(3);

    /// A read that takes longer has failed.
    const TIMEOUT: Duration = Duration::from_secs(2);

    /// Runs until the token is cancelled. `wake` is notified when a gateway has said something.
    pub async fn run(
        pool: Pool,
        within: Duration,
        wake: Arc<Notify>,
        metrics: Metrics,
        fleet: watch::Sender<Fleet>,
        token: CancellationToken,
    ) {
        let mut away_since: Option<Instant> = None;
        loop {
            let began = clock::instant();
            let read = tokio::select! {
                () = token.cancelled() => return,
                read = tokio::time::timeout(TIMEOUT, replicas::live(&pool, within)) => read,
            };
            let (rows, database) = match read {
                Ok(Ok(rows)) => {
                    away_since = None;
                    (Some(rows), Database::Here)
                }
                failed => {
                    if away_since.is_none() {
                        let why = failed
                            .ok()
                            .and_then(Result::err)
                            .map_or("no answer".to_owned(), |error| chain(&error));
                        tracing::warn!(
                            why,
                            "the gateways' acknowledgements can't be read; will try again"
                        );
                    }
                    let since = *away_since.get_or_insert(began);
                    (
                        None,
                        if clock::instant().duration_since(since) < BLIP {
                            Database::Blip
                        } else {
                            Database::Away
                        },
                    )
                }
            };
            let rows: Option<Vec<Replica>> = rows.map(|rows| {
                rows.into_iter()
                    // One without a table takes no traffic.
                    .filter(|row| row.route_epoch > 0)
                    .map(|row| Replica {
                        id: row.id,
                        epoch: row.route_epoch,
                        revision: row.applied_revision,
                    })
                    .collect()
            });
            if let Some(rows) = &rows {
                metrics.replicas.set(rows.len() as i64);
                metrics.slowest_revision.set(
                    rows.iter()
                        .map(|replica| replica.revision)
                        .min()
                        .unwrap_or(0),
                );
            }
            fleet.send_if_modified(|now| {
                let next = Fleet {
                    replicas: rows.unwrap_or_else(|| now.replicas.clone()),
                    since_epoch: now.since_epoch,
                    database,
                };
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
}
