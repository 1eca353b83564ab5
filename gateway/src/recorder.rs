//! The commit that many requests share.
//!
//! Whatever arrived while the last commit was in flight goes into the next one, up to a bound: no timer, no linger. A
//! lone request is committed at once, and under load a commit carries hundreds, so the cost of a commit hardly counts.
//!
//! What a sender is told is what is known: recorded (after the commit), or not (503, send again), or that nobody can know
//! ([`Refusal::DatabaseAway`]). A commit whose answer
//! was lost is made again with the same ids, which the store understands; only when the database stays away for
//! [`Options::patience`] is the sender told 503. One row that the database refuses fails alone, not with its batch.

use crate::{errors::Refusal, ingest::body::Charge, metrics};
use jiff::{ToSpan, tz::TimeZone};
use std::{future::Future, sync::Arc, time::Duration};
use store::events::{Kept, Recorded};
use tokio::{
    sync::{Mutex, mpsc, oneshot},
    task::JoinSet,
    time::Instant,
};
use tokio_util::sync::CancellationToken;

#[derive(Debug, Clone)]
pub struct Options {
    /// Commits in flight at once.
    pub writers: u8,
    /// Requests that wait for a commit; beyond it they are refused with 503.
    pub queue: usize,
    pub max_batch_events: usize,
    /// Of bodies and headers; one event is always taken.
    pub max_batch_bytes: usize,
    /// How long a batch is tried again while the database is away.
    pub patience: Duration,
}

impl Default for Options {
    fn default() -> Self {
        Options {
            writers: 1,
            queue: 8192,
            max_batch_events: 512,
            max_batch_bytes: 8 << 20,
            patience: Duration::from_secs(5),
        }
    }
}

/// Deliveries of one commit: a source with thousands of connections must not make a statement that times out for all.
const MAX_BATCH_DELIVERIES: usize = 8192;

/// Patience once a batch has failed, until one succeeds: those who wait behind it should be told soon.
const PATIENCE_WHEN_AWAY: Duration = Duration::from_secs(1);
/// A call that hangs longer than this beyond our patience is given up; the store's own time-outs come later.
const HANGING: Duration = Duration::from_secs(5);
/// Between tries; a restart of Postgres takes seconds, a lost connection none.
const PAUSE: Duration = Duration::from_millis(100);

/// Where events are recorded: Postgres, or a test's.
pub trait Book: Clone + Send + Sync + 'static {
    /// All or nothing; may be called again with the same batch. Of each event what became of it.
    fn record(
        &mut self,
        batch: &[Recorded],
    ) -> impl Future<Output = store::Result<Vec<Kept>>> + Send;

    /// There is nothing to record for now: gives back what is kept from one call to the next.
    fn rest(&mut self) {}

    /// Makes room for the rows of this batch, unless no clock can be right that wants them there.
    fn make_partitions(&self, batch: &[Recorded])
    -> impl Future<Output = store::Result<()>> + Send;
}

impl Book for store::events::Recorder {
    async fn record(&mut self, batch: &[Recorded]) -> store::Result<Vec<Kept>> {
        store::events::Recorder::record(self, batch).await
    }

    fn rest(&mut self) {
        store::events::Recorder::rest(self);
    }

    /// The days are those of the database's clock, from yesterday on. By ours, one that is weeks behind would make a day
    /// that the next retention drops, with events in it that were answered 200.
    async fn make_partitions(&self, batch: &[Recorded]) -> store::Result<()> {
        let now = store::partitions::database_clock(self.pool()).await?;
        let today = now.to_zoned(TimeZone::UTC).date();
        let made = today.saturating_sub(1.day())..=today.saturating_add(1.day());
        for recorded in batch {
            let day = store::partitions::day_of_id(recorded.event.id);
            if !made.contains(&day) {
                let told = format!(
                    "it is {now} by the database's clock and {day} by this machine's: set the one that is wrong"
                );
                return Err(store::Error::Other(told.into()));
            }
        }
        store::partitions::ensure(self.pool(), now).await.map(drop)
    }
}

/// Is told of everything that was committed and has deliveries. Must not block.
pub type HandOver = Arc<dyn Fn(Vec<Recorded>) + Send + Sync>;

/// Gives events to the writers. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Handle(mpsc::Sender<Entry>);

/// What is committed as one: an event, or several of one request.
#[derive(Debug)]
struct Entry {
    recorded: Recorded,
    /// Those after the first; nearly always none, which takes no memory.
    more: Vec<Recorded>,
    answer: oneshot::Sender<Result<Kept, Refusal>>,
    /// The body's share of the budget, until the sender has its answer.
    _charge: Option<Charge>,
}

impl Entry {
    fn events(&self) -> impl Iterator<Item = &Recorded> {
        std::iter::once(&self.recorded).chain(&self.more)
    }
}

impl Handle {
    /// Returns once the event is committed, or is known not to be, or nobody can know.
    pub async fn record(&self, recorded: Recorded, charge: Charge) -> Result<Kept, Refusal> {
        self.record_all(recorded, Vec::new(), charge).await
    }

    /// The same for several that are recorded all or not at all: none has a dedup key, all have the same claim or none.
    pub async fn record_all(
        &self,
        first: Recorded,
        more: Vec<Recorded>,
        charge: Charge,
    ) -> Result<Kept, Refusal> {
        self.enqueue(first, more, Some(charge))?
            .await
            .unwrap_or(Err(Refusal::DatabaseAway))
    }

    fn enqueue(
        &self,
        recorded: Recorded,
        more: Vec<Recorded>,
        charge: Option<Charge>,
    ) -> Result<oneshot::Receiver<Result<Kept, Refusal>>, Refusal> {
        let (answer, answered) = oneshot::channel();
        self.0
            .try_send(Entry {
                recorded,
                more,
                answer,
                _charge: charge,
            })
            .map_err(|_| Refusal::QueueFull)?;
        Ok(answered)
    }
}

/// The writers. They end when `token` is cancelled and everything that was queued has been answered.
#[derive(Debug)]
pub struct Running(JoinSet<()>);

impl Running {
    /// Returns when a writer has ended, which none does before the token is cancelled unless it panicked.
    pub async fn broken(&mut self) {
        self.0.join_next().await;
    }

    /// Waits for the end.
    pub async fn finish(mut self) {
        while self.0.join_next().await.is_some() {}
    }
}

/// Starts the writers.
pub fn start<B: Book>(
    options: Options,
    book: B,
    hand_over: HandOver,
    metrics: Arc<metrics::Metrics>,
    token: CancellationToken,
) -> (Handle, Running) {
    let (sender, receiver) = mpsc::channel(options.queue);
    let receiver = Arc::new(Mutex::new(receiver));
    let mut writers = JoinSet::new();
    for _ in 0..options.writers.max(1) {
        let writer = Writer {
            options: options.clone(),
            book: book.clone(),
            hand_over: hand_over.clone(),
            metrics: metrics.clone(),
            queue: receiver.clone(),
            away: false,
        };
        writers.spawn(writer.run(token.clone()));
    }
    (Handle(sender), Running(writers))
}

struct Writer<B> {
    options: Options,
    book: B,
    hand_over: HandOver,
    metrics: Arc<metrics::Metrics>,
    /// Locked by the writer that waits for work; the others are committing, or queue for the lock.
    queue: Arc<Mutex<mpsc::Receiver<Entry>>>,
    /// The last batch failed because the database is away.
    away: bool,
}

impl<B: Book> Writer<B> {
    async fn run(mut self, token: CancellationToken) {
        let mut waiting = Vec::with_capacity(self.options.max_batch_events);
        while !waiting.is_empty() || self.receive(&mut waiting, &token).await {
            let batch: Vec<Entry> = waiting.drain(..self.fitting(&waiting)).collect();
            self.commit(batch).await;
        }
    }

    /// Waits for at least one entry; false when there will be none.
    async fn receive(&mut self, waiting: &mut Vec<Entry>, token: &CancellationToken) -> bool {
        let mut queue = match self.queue.try_lock() {
            Ok(queue) => queue,
            Err(_) => {
                self.book.rest();
                self.queue.lock().await
            }
        };
        if queue.is_empty() {
            self.book.rest();
        }
        tokio::select! {
            biased;
            received = queue.recv_many(waiting, self.options.max_batch_events) => received > 0,
            () = token.cancelled() => {
                queue.close();
                queue.recv_many(waiting, self.options.max_batch_events).await > 0
            }
        }
    }

    /// How many of the entries go into one commit.
    fn fitting(&self, waiting: &[Entry]) -> usize {
        let (mut events, mut bytes, mut deliveries) = (0, 0, 0);
        let fitting = waiting.iter().take_while(|entry| {
            for recorded in entry.events() {
                events += 1;
                bytes += recorded.event.body.len() + recorded.event.headers.len();
                deliveries += recorded.deliveries.len();
            }
            events <= self.options.max_batch_events
                && bytes <= self.options.max_batch_bytes
                && deliveries <= MAX_BATCH_DELIVERIES
        });
        fitting.count().max(1)
    }

    async fn commit(&mut self, batch: Vec<Entry>) {
        let mut recorded = Vec::with_capacity(batch.len());
        let mut answers = Vec::with_capacity(batch.len());
        // Behind the last event of each entry.
        let mut ends = Vec::with_capacity(batch.len());
        for mut entry in batch {
            recorded.push(entry.recorded);
            recorded.append(&mut entry.more);
            ends.push(recorded.len());
            answers.push((entry.answer, entry._charge));
        }
        let results = self.record(&recorded, &ends).await;
        let mut committed = Vec::with_capacity(recorded.len());
        let mut rest = recorded.into_iter();
        let mut start = 0;
        for (end, result) in ends.iter().zip(&results) {
            let events = end - start;
            start = *end;
            let new = matches!(result, Ok(Kept::New));
            for recorded in rest.by_ref().take(events) {
                if new && !recorded.deliveries.is_empty() {
                    let deliveries = recorded.deliveries.len() as u64;
                    self.metrics.recorder.deliveries.inc_by(deliveries);
                    committed.push(recorded);
                }
            }
            if result.is_err() {
                self.metrics.recorder.failed_events.inc_by(events as u64);
            }
        }
        // The scheduler first: it only takes a pointer, and the delivery is what happens next.
        if !committed.is_empty() {
            (self.hand_over)(committed);
        }
        for ((answer, _charge), result) in answers.into_iter().zip(results) {
            // The sender may have gone; its event is recorded all the same.
            let _ = answer.send(result);
        }
    }

    /// One result for each entry, which ends where `ends` says. A batch with a row that the database refuses is halved
    /// until that row's entry is alone.
    async fn record(
        &mut self,
        recorded: &[Recorded],
        ends: &[usize],
    ) -> Vec<Result<Kept, Refusal>> {
        let start = |entry: usize| entry.checked_sub(1).map_or(0, |before| ends[before]);
        let mut results = Vec::with_capacity(ends.len());
        let mut parts = Vec::from_iter([(0, ends.len())]);
        while let Some((first, last)) = parts.pop() {
            let entries = first..last;
            let from = start(entries.start);
            let part = &recorded[from..start(entries.end)];
            match self.record_part(part).await {
                Ok(mut kept) => {
                    // Of several events of one entry the first stands for all.
                    let firsts = entries.map(|entry| start(entry) - from);
                    let first = |at: usize| std::mem::replace(&mut kept[at], Kept::New);
                    results.extend(firsts.map(first).map(Ok));
                }
                Err(store::Error::Data(_)) if entries.len() > 1 => {
                    let middle = first + entries.len() / 2;
                    parts.extend([(middle, last), (first, middle)]);
                }
                Err(store::Error::Data(source)) => {
                    let event = &part[0].event;
                    tracing::warn!(event = %event.id, source = %event.source_id, error = service::log::chain(&*source), "an event cannot be stored");
                    results.push(Err(Refusal::NotStorable));
                }
                Err(error) => {
                    tracing::error!(
                        events = part.len(),
                        error = service::log::chain(&error),
                        "events could not be recorded; their senders are told to send again"
                    );
                    results.extend(entries.map(|_| Err(Refusal::DatabaseAway)));
                }
            }
        }
        results
    }

    async fn record_part(&mut self, part: &[Recorded]) -> store::Result<Vec<Kept>> {
        let patience = if self.away {
            PATIENCE_WHEN_AWAY
        } else {
            self.options.patience
        };
        let deadline = Instant::now() + patience;
        let given_up = deadline + HANGING.min(patience);
        let mut partitions_made = false;
        loop {
            let started = service::clock::instant();
            let error = match bounded(given_up, self.book.record(part)).await {
                Ok(kept) => {
                    self.away = false;
                    self.metrics
                        .recorder
                        .batch_events
                        .observe(part.len() as f64);
                    self.metrics.recorder.commit_seconds.observe(
                        service::clock::instant()
                            .duration_since(started)
                            .as_secs_f64(),
                    );
                    return Ok(kept);
                }
                Err(store::Error::MissingPartition(_)) if !partitions_made => {
                    match bounded(given_up, self.book.make_partitions(part)).await {
                        Ok(()) => {
                            partitions_made = true;
                            continue;
                        }
                        Err(error) => error,
                    }
                }
                Err(error) => error,
            };
            if !error.is_transient() {
                return Err(error);
            }
            if Instant::now() + PAUSE >= deadline {
                self.away = true;
                return Err(error);
            }
            tokio::time::sleep(PAUSE).await;
            self.metrics.recorder.retries.inc();
        }
    }
}

/// A call of the book's that is given up at `deadline`: a connection whose other side is gone hangs for minutes.
async fn bounded<T>(
    deadline: Instant,
    call: impl Future<Output = store::Result<T>>,
) -> store::Result<T> {
    tokio::time::timeout_at(deadline, call)
        .await
        .unwrap_or_else(|_| {
            Err(store::Error::Unavailable(
                "the database does not answer".into(),
            ))
        })
}

#[cfg(test)]
mod tests;
