//! Hints through LISTEN/NOTIFY. Only hints: whoever waits for one also looks on a timer.
//!
//! A connection that only listens would never notice that its other end is gone without a word (a failover, a NAT that
//! forgets what is idle), so one on which nothing was said for a while is asked whether it's still there.

use crate::{
    Pool, Store,
    error::Result,
    pool::{On, within},
};
use sqlx::{
    Acquire, Connection,
    postgres::{PgConnectOptions, PgListener, PgPoolOptions},
};
use std::time::Duration;
use tokio::time::timeout;
use uuid::Uuid;

const ROUTES: &str = "hookstream_routes";
const QUEUE: &str = "hookstream_queue";
const REPLICAS: &str = "hookstream_replicas";
const SCHEDULED: &str = "hookstream_scheduled";
const RESETS: &str = "hookstream_resets";
const JOBS: &str = "hookstream_jobs";

/// Silence after which the server is asked whether it is still there. Well below what makes a NAT forget a connection.
const SILENCE: Duration = Duration::from_secs(20);

/// How long it may take to answer, and to be connected to.
const ANSWER: Duration = Duration::from_secs(5);

/// Something may have changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Hint {
    /// The routing table: its head as it was published.
    Routes { epoch: i64, revision: i64 },
    /// These destinations have something new in the queue.
    Queue(Vec<Uuid>),
    /// Somebody asks for the circuits of these destinations to be reset.
    Resets(Vec<Uuid>),
    /// A replica applied another revision, came or went.
    Replicas,
    /// Somebody wants a job done.
    Jobs,
    /// Something was scheduled that is due soon.
    Scheduled,
    /// The connection was lost and is back; what was said meanwhile is unknown: look at everything.
    Lost,
}

/// The one connection that listens.
pub struct Listener {
    options: PgConnectOptions,
    /// `None` after it broke.
    inner: Option<PgListener>,
}

impl Listener {
    /// Connects to the direct URL and listens to all channels.
    pub async fn connect(store: &Store) -> Result<Listener> {
        let options = store.listen_options().clone();
        let inner = Some(listen(options.clone()).await?);
        Ok(Listener { options, inner })
    }

    /// A listener that connects at the first [`Listener::next`] and says [`Hint::Lost`] then.
    pub fn lazy(store: &Store) -> Listener {
        Listener {
            options: store.listen_options().clone(),
            inner: None,
        }
    }

    /// Waits for the next hint. Cancel safe. After an error call it again, later: it connects anew and says [`Hint::Lost`].
    ///
    /// # Errors
    /// [`crate::Error::Unavailable`] at the latest 25 s after the connection fell silent.
    pub async fn next(&mut self) -> Result<Hint> {
        while let Some(inner) = &mut self.inner {
            let lost = match timeout(SILENCE, inner.try_recv()).await {
                Ok(Ok(Some(notification))) => {
                    return Ok(parse(notification.channel(), notification.payload()));
                }
                Ok(Ok(None)) => break,
                Ok(Err(error)) => error.into(),
                // What is said while it answers is kept for the next round.
                Err(_) => match within(ANSWER, still_there(inner)).await {
                    Ok(()) => continue,
                    Err(error) => error,
                },
            };
            self.inner = None;
            return Err(lost);
        }
        self.inner = None;
        self.inner = Some(listen(self.options.clone()).await?);
        Ok(Hint::Lost)
    }
}

async fn still_there(listener: &mut PgListener) -> Result<(), sqlx::Error> {
    listener.acquire().await?.ping().await
}

async fn listen(options: PgConnectOptions) -> Result<PgListener> {
    let pool = PgPoolOptions::new()
        .max_connections(1)
        .acquire_timeout(ANSWER)
        .idle_timeout(None)
        .max_lifetime(None)
        .connect_lazy_with(options);
    let mut listener = PgListener::connect_with(&pool).await?;
    // We connect again ourselves, so that a failure to do so is seen.
    listener.eager_reconnect(false);
    within(
        ANSWER,
        listener.listen_all([ROUTES, QUEUE, REPLICAS, RESETS, SCHEDULED, JOBS]),
    )
    .await?;
    Ok(listener)
}

/// What we can't read comes from a newer version: then look at everything.
fn parse(channel: &str, payload: &str) -> Hint {
    let parsed = match channel {
        ROUTES => payload.split_once('.').and_then(|(epoch, revision)| {
            Some(Hint::Routes {
                epoch: epoch.parse().ok()?,
                revision: revision.parse().ok()?,
            })
        }),
        QUEUE => destinations(payload).map(Hint::Queue),
        RESETS => destinations(payload).map(Hint::Resets),
        REPLICAS => Some(Hint::Replicas),
        JOBS => Some(Hint::Jobs),
        SCHEDULED => Some(Hint::Scheduled),
        _ => None,
    };
    parsed.unwrap_or(Hint::Lost)
}

fn destinations(payload: &str) -> Option<Vec<Uuid>> {
    payload
        .split(',')
        .map(|id| Uuid::try_parse(id).ok())
        .collect()
}

/// The destinations that one notification names; more go into further ones (a payload has at most 8,000 bytes).
pub const DESTINATIONS_PER_NOTIFY: usize = 200;

/// Tells the other replicas that these destinations have something new in the queue. Outside the recording transaction:
/// NOTIFY serialises commits.
pub async fn notify_queue(pool: &Pool, destinations: &[Uuid]) -> Result<()> {
    if destinations.is_empty() {
        return Ok(());
    }
    let payloads: Vec<String> = destinations
        .chunks(DESTINATIONS_PER_NOTIFY)
        .map(|chunk| {
            chunk
                .iter()
                .map(|id| id.simple().to_string())
                .collect::<Vec<_>>()
                .join(",")
        })
        .collect();
    let mut session = pool.session().await?;
    let query = pool
        .query("SELECT pg_notify('hookstream_queue', payload) FROM unnest($1::text[]) AS payload")
        .bind(payloads);
    query.run(&mut session).await?;
    session.done().await
}

/// Tells the replicas that there's a job to do.
pub(crate) async fn notify_jobs(pool: &Pool) -> Result<()> {
    let mut session = pool.session().await?;
    let query = pool.query("SELECT pg_notify('hookstream_jobs', '')");
    query.run(&mut session).await?;
    session.done().await
}

/// Tells the other replicas that something is due soon.
pub async fn notify_scheduled(pool: &Pool) -> Result<()> {
    let mut session = pool.session().await?;
    let query = pool.query("SELECT pg_notify('hookstream_scheduled', '')");
    query.run(&mut session).await?;
    session.done().await
}

#[cfg(test)]
mod unit {
    use super::*;

    #[test]
    fn a_notification_is_read_and_a_strange_one_means_look_at_everything() {
        assert_eq!(
            parse(ROUTES, "3.17"),
            Hint::Routes {
                epoch: 3,
                revision: 17
            }
        );
        assert_eq!(
            parse(QUEUE, "00000000000000000000000000000001"),
            Hint::Queue(vec![Uuid::from_u128(1)])
        );
        assert_eq!(parse(REPLICAS, ""), Hint::Replicas);
        assert_eq!(parse(JOBS, ""), Hint::Jobs);
        for (channel, payload) in [
            (ROUTES, "3"),
            (ROUTES, "a.b"),
            (QUEUE, ""),
            (QUEUE, "1,2"),
            ("other", ""),
        ] {
            assert_eq!(parse(channel, payload), Hint::Lost, "{channel} {payload}");
        }
    }

    #[test]
    fn a_full_notification_fits_into_a_payload() {
        const { assert!(DESTINATIONS_PER_NOTIFY * 33 < 8000) }
    }
}
