//! Publishes what was scheduled, when it is due.
//!
//! One replica does it for all, chosen by a task lease; correctness doesn't hang on that, since the transaction that
//! records an event takes it from the schedule. It looks when the next one is due, when it is told that something nearer
//! was scheduled, and now and then in any case, since a word can be lost. What is due in years costs nothing: it is behind
//! the next one in an index.
//!
//! Where an event goes is decided when it is due, by the subscriptions of that time.

use crate::{
    duty::{Duty, Leases, woken},
    ingest::recording::{deliveries, pairs},
    metrics::Metrics,
    recorder::HandOver,
    table,
};
use anyhow::Context;
use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method};
use routing::{EventView, Table};
use service::{
    clock,
    task::{self, Task},
};
use std::{sync::Arc, time::Duration};
use store::{
    Pool,
    events::{Event, Recorded},
    partitions,
    scheduled::{self, Scheduled},
};
use tokio::{sync::Notify, task::JoinHandle};
use tokio_util::sync::CancellationToken;

/// A word that was lost costs at most this.
const EVERY: Duration = Duration::from_secs(15);

/// Between two looks: events that are due one after the other go together.
const LEAST_PAUSE: Duration = Duration::from_millis(20);

/// Of the events that are published in one transaction; the first goes whatever it makes.
const DELIVERIES_AT_ONCE: usize = 8192;

/// Counted up to this.
const MOST_COUNTED: u32 = 100_000;

/// What wakes whom.
#[derive(Debug, Default)]
pub struct Wakes {
    /// This replica scheduled something that is due soon.
    pub tell: Arc<Notify>,
    /// Some replica did.
    pub due: Arc<Notify>,
}

impl Wakes {
    /// Starts both tasks; they end with the token.
    pub fn start(
        &self,
        leases: &Leases,
        table: Arc<table::Current>,
        shards: u16,
        hand_over: HandOver,
        metrics: &Arc<Metrics>,
        token: &CancellationToken,
    ) -> [JoinHandle<()>; 2] {
        let duty = Due {
            pool: leases.pool().clone(),
            table,
            shards,
            hand_over,
            wake: self.due.clone(),
            alarm: None,
            metrics: metrics.clone(),
        };
        let tell = Tell {
            pool: leases.pool().clone(),
            started: false,
        };
        [
            woken(duty, leases, EVERY, self.due.clone(), metrics, token),
            task::spawn(
                tell,
                QUIET,
                self.tell.clone(),
                &metrics.tasks,
                token.clone(),
            ),
        ]
    }
}

/// How long nothing is said when there is nothing to say.
const QUIET: Duration = Duration::from_secs(24 * 60 * 60);

/// Tells all replicas, so that the one whose duty it is looks. Words that come while one is under way become one.
struct Tell {
    pool: Pool,
    started: bool,
}

impl Task for Tell {
    const NAME: &'static str = "scheduled_tell";

    async fn activate(&mut self) -> anyhow::Result<()> {
        // The first activation is the task's start.
        if std::mem::replace(&mut self.started, true) {
            store::listen::notify_scheduled(&self.pool)
                .await
                .context("telling that something is due soon")?;
            tokio::time::sleep(LEAST_PAUSE).await;
        }
        Ok(())
    }
}

/// The duty.
struct Due {
    pool: Pool,
    table: Arc<table::Current>,
    shards: u16,
    hand_over: HandOver,
    wake: Arc<Notify>,
    /// Wakes this duty when the next one is due.
    alarm: Option<Alarm>,
    metrics: Arc<Metrics>,
}

#[derive(Debug)]
struct Alarm(JoinHandle<()>);

impl Alarm {
    fn after(pause: Duration, wake: Arc<Notify>) -> Alarm {
        Alarm(tokio::spawn(async move {
            tokio::time::sleep(pause).await;
            wake.notify_one();
        }))
    }
}

impl Drop for Alarm {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Duty for Due {
    const NAME: &'static str = "scheduled";

    async fn perform(&mut self) -> anyhow::Result<()> {
        self.alarm = None;
        // Without a table nobody knows where events go.
        let Some(applied) = self.table.get() else {
            return Ok(());
        };
        let (table, revision) = (&applied.table, applied.head.revision);
        loop {
            let due = scheduled::due(&self.pool)
                .await
                .context("looking for what is due")?;
            let Some(first) = due.first() else {
                break;
            };
            self.overdue(clock::now().duration_since(first.due_at).as_secs_f64());
            let mut rest = &due[..];
            while !rest.is_empty() {
                let published = self.publish(rest, table, revision).await?;
                rest = &rest[published..];
            }
        }
        self.measure().await?;
        let next = scheduled::next_due_in(&self.pool)
            .await
            .context("looking for what is due next")?;
        // What is farther away is found by the next look.
        if let Some(next) = next.filter(|next| *next < EVERY) {
            self.alarm = Some(Alarm::after(next.max(LEAST_PAUSE), self.wake.clone()));
        }
        Ok(())
    }

    fn relieved(&mut self) {
        self.alarm = None;
        let metrics = &self.metrics.housekeeping;
        metrics.scheduled_events.reset();
        metrics.scheduled_overdue_seconds.reset();
    }
}

impl Due {
    /// The first of them, as many as go in one transaction; returns how many, at least one.
    async fn publish(
        &self,
        due: &[Scheduled],
        table: &Table,
        revision: i64,
    ) -> anyhow::Result<usize> {
        let now = store::time::stored(clock::now());
        let mut recorded: Vec<Recorded> = Vec::new();
        let mut deliveries = 0;
        for scheduled in due {
            let event = event_of(scheduled, table, revision, now, self.shards);
            deliveries += event.deliveries.len();
            if deliveries > DELIVERIES_AT_ONCE && !recorded.is_empty() {
                break;
            }
            recorded.push(event);
        }
        let due = &due[..recorded.len()];
        let made = match scheduled::publish(&self.pool, due, &recorded).await {
            // Nobody published for days: the days on which these were due have no partitions.
            Err(store::Error::MissingPartition(_)) => {
                for scheduled in due {
                    partitions::ensure_around(&self.pool, scheduled.due_at)
                        .await
                        .context("making partitions for events that are days late")?;
                }
                scheduled::publish(&self.pool, due, &recorded).await
            }
            made => made,
        };
        let made = made.context("publishing what is due")?;
        let mut committed = Vec::new();
        let metrics = &self.metrics;
        for (recorded, scheduled) in recorded
            .into_iter()
            .zip(due)
            .zip(made)
            .filter_map(|(pair, made)| made.then_some(pair))
        {
            let late = now.duration_since(scheduled.due_at).as_secs_f64();
            metrics.housekeeping.scheduled_published.inc();
            metrics
                .housekeeping
                .scheduled_late_seconds
                .observe(late.max(0.0));
            if !recorded.deliveries.is_empty() {
                metrics
                    .recorder
                    .deliveries
                    .inc_by(recorded.deliveries.len() as u64);
                committed.push(recorded);
            }
        }
        if !committed.is_empty() {
            (self.hand_over)(committed);
        }
        Ok(due.len())
    }

    async fn measure(&self) -> anyhow::Result<()> {
        let count = scheduled::count(&self.pool, MOST_COUNTED)
            .await
            .context("counting what is scheduled")?;
        let metrics = &self.metrics.housekeeping;
        metrics
            .scheduled_events
            .with_label_values::<&str>(&[])
            .set(i64::try_from(count).unwrap_or(i64::MAX));
        self.overdue(0.0);
        Ok(())
    }

    fn overdue(&self, seconds: f64) {
        let metric = &self.metrics.housekeeping.scheduled_overdue_seconds;
        metric.with_label_values::<&str>(&[]).set(seconds.max(0.0));
    }
}

/// An event whose topic is gone is recorded too, and goes nowhere.
fn event_of(
    scheduled: &Scheduled,
    table: &Table,
    revision: i64,
    now: jiff::Timestamp,
    shards: u16,
) -> Recorded {
    let headers = map_of(&scheduled.headers);
    let view = EventView::new(
        &Method::POST,
        "",
        "",
        &headers,
        &scheduled.body,
        scheduled.remote_addr,
    );
    let topic = table.topic(scheduled.topic_id);
    let matched = topic.map_or(Vec::new(), |topic| pairs(topic.route(&view)));
    let event = Event {
        id: scheduled.id,
        namespace: scheduled.namespace.clone(),
        source_id: scheduled.topic_id,
        revision,
        received_at: now,
        method: "POST".to_owned(),
        path: String::new(),
        query: String::new(),
        headers: scheduled.headers.clone(),
        body: scheduled.body.clone(),
        object_bytes: None,
        remote_addr: scheduled.remote_addr,
    };
    Recorded {
        deliveries: deliveries(event.id, matched, table, shards),
        event: Arc::new(event),
        verification: scheduled.verification,
        ..Recorded::default()
    }
}

/// The inverse of `ingest::head::lines`.
fn map_of(lines: &Bytes) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for line in lines.split(|byte| *byte == b'\n') {
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        let Some(colon) = line.iter().position(|byte| *byte == b':') else {
            continue;
        };
        let name = HeaderName::from_bytes(&line[..colon]);
        let value = HeaderValue::from_bytes(line[colon + 1..].trim_ascii());
        if let (Ok(name), Ok(value)) = (name, value) {
            headers.append(name, value);
        }
    }
    headers
}
