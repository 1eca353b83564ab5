//! From changes to revisions: debounces, compiles, guards, publishes, and tells what became of every object.
//!
//! Used by the operator and by `hookstream dev`; knows neither Kubernetes nor folders. Everything goes through one loop,
//! so a change is either not seen yet or wholly compiled. Only the leader publishes; a follower compiles too and tells
//! its verdicts, unpublished.
//!
//! Every failure leaves the loop with what it still has to do, and a time at which it tries again.

mod expressions;
mod table;

use crate::{
    change::Change,
    core::{Core, Pass, Secrets, Told},
    guard::{Extent, Guard, Judgement},
    leadership::Leadership,
    metrics::Metrics,
    notice::{Notice, Notices},
    resets::Resets,
};
use routing::{Row, RowKey, compile::SecretName};
use service::{clock, log::chain};
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::{Duration, Instant},
};
use store::{Keyring, Store, routes};
use table::Table;
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

/// Changes that arrive within this time of the first are compiled together: `kubectl apply -f folder/` is one revision.
const DEBOUNCE: Duration = Duration::from_millis(50);

/// Changes taken from the channel before the loop looks at anything else.
const BATCH: usize = 1024;

/// An object that names a Secret which can't be fetched holds the others up no longer than this.
const SECRET_PATIENCE: Duration = Duration::from_secs(5);

/// The same for the first compile of a process: rather late than without a Secret that is there, but one Secret that the API
/// server can't give must not keep everything else from ever being published.
const FIRST_SECRET_PATIENCE: Duration = Duration::from_secs(30);

/// Between attempts when the database refuses or is away.
const RETRY: Duration = Duration::from_secs(1);

/// Between looks at the head: a database restored from a backup shows there.
const HEAD_CHECK: Duration = Duration::from_secs(10);

#[derive(Debug, Clone)]
pub struct Settings {
    /// The name under which epochs are begun.
    pub holder: String,
    pub secrets: Secrets,
    /// How long a mass removal must stay the same; see [`crate::guard`].
    pub removal_hold: Duration,
    /// Between comparisons of the whole table.
    pub compare_every: Duration,
    /// Gateways unheard of for longer don't count.
    pub gateway_timeout: Duration,
    /// Where expressions are checked.
    pub sandbox: sandbox::Pool,
}

/// What became of the objects since the last report, and of the publishing as a whole.
#[derive(Debug)]
pub struct Report {
    pub told: Told,
    /// The term in which this publisher publishes; `None`: it follows.
    pub term: Option<u64>,
    /// Acknowledgements of older epochs count for nothing.
    pub since_epoch: i64,
    /// A sentence, while a mass removal waits.
    pub held: Option<Arc<str>>,
}

/// The ends of the loop's channels.
#[derive(Debug)]
pub struct Channels {
    pub changes: mpsc::Receiver<Change>,
    pub leadership: watch::Receiver<Leadership>,
    /// The Secrets that the objects name.
    pub wanted: watch::Sender<BTreeSet<SecretName>>,
    pub reports: mpsc::Sender<Report>,
    pub notices: Notices,
}

/// Runs until the token is cancelled or the changes end. A transaction under way is finished first.
///
/// `loaded` is called once the rows that are published were read and compiling can begin.
pub async fn run(
    store: Store,
    keyring: Arc<Keyring>,
    settings: Settings,
    metrics: Metrics,
    mut channels: Channels,
    loaded: impl FnOnce() + Send,
    token: CancellationToken,
) {
    let last_good = tokio::select! {
        () = token.cancelled() => return,
        rows = table::last_good(&store, &keyring) => rows,
    };
    loaded();
    let core = Core::new(last_good, settings.secrets);
    let guard = Guard::new(settings.removal_hold);
    let mut publisher = Publisher {
        store,
        keyring,
        settings,
        metrics,
        core,
        guard,
        table: None,
        newest: routes::Head::default(),
        since_epoch: 0,
        unpublished: BTreeMap::new(),
        compiled_once: false,
        secrets_missing_since: None,
        unchecked: None,
        resets: Resets::default(),
    };
    publisher.run(&mut channels, &token).await;
}

struct Publisher {
    store: Store,
    keyring: Arc<Keyring>,
    settings: Settings,
    metrics: Metrics,
    core: Core,
    guard: Guard,
    /// The published table; `None`: not ours to write, or to be read again first.
    table: Option<Table>,
    /// The newest head that this process has seen, over all terms.
    newest: routes::Head,
    since_epoch: i64,
    /// What the table lacks; `None`: the row is to go. At most one entry for each row that is or was.
    unpublished: BTreeMap<RowKey, Option<Row>>,
    compiled_once: bool,
    secrets_missing_since: Option<Instant>,
    /// When to try again to check expressions.
    unchecked: Option<Instant>,
    resets: Resets,
}

impl Publisher {
    async fn run(&mut self, channels: &mut Channels, token: &CancellationToken) {
        // When to do the next pass; `None`: when something happens.
        let mut due: Option<Instant> = None;
        let mut batch = Vec::new();
        let mut check = clock::instant() + HEAD_CHECK;
        let mut compare = clock::instant() + self.settings.compare_every;
        loop {
            let wake = due.unwrap_or(check).min(check);
            tokio::select! {
                () = token.cancelled() => return,
                n = channels.changes.recv_many(&mut batch, BATCH) => {
                    if n == 0 {
                        return;
                    }
                    for change in batch.drain(..) {
                        self.resets.see(&change);
                        self.core.apply(change);
                    }
                    self.ask_for_secrets(&channels.wanted);
                    let soon = clock::instant() + DEBOUNCE;
                    due = Some(due.map_or(soon, |due| due.min(soon)));
                    continue;
                }
                changed = channels.leadership.changed() => {
                    if changed.is_err() {
                        return;
                    }
                    let term = channels.leadership.borrow_and_update().term();
                    // A mere renewal changes nothing here.
                    if term == self.table.as_ref().map(|table| table.term) {
                        continue;
                    }
                    // At once, also while a pass would wait for Secrets.
                    if term.is_none() {
                        self.follow();
                    }
                }
                () = tokio::time::sleep_until(wake.into()) => {}
            }
            let now = clock::instant();
            if now >= check {
                check = now + HEAD_CHECK;
                self.check_head().await;
            }
            if now >= compare {
                compare = now + self.settings.compare_every;
                self.compare().await;
            }
            due = self.pass(channels).await;
            due = due.into_iter().chain(self.unchecked).min();
            if self.table.is_some() && !self.resets.ask(&self.store.pool).await {
                let again = clock::instant() + RETRY;
                due = Some(due.map_or(again, |due| due.min(again)));
            }
            self.report(channels).await;
        }
    }

    fn ask_for_secrets(&mut self, sender: &watch::Sender<BTreeSet<SecretName>>) {
        if self.settings.secrets == Secrets::OnDemand {
            let wanted = self.core.wanted();
            sender.send_if_modified(|now| {
                let differs = *now != wanted;
                if differs {
                    *now = wanted;
                }
                differs
            });
        }
    }

    /// Compiles and publishes; answers when to come back even if nothing happens.
    async fn pass(&mut self, channels: &Channels) -> Option<Instant> {
        if !self.core.synced() {
            return None;
        }
        if let Some(later) = self.wait_for_secrets() {
            return later;
        }
        let unchecked = expressions::check(&mut self.core, &self.settings.sandbox).await;
        self.unchecked = unchecked.then(|| clock::instant() + RETRY);
        if self.core.dirty() {
            let timer = self.metrics.compile_seconds.start_timer();
            let pass = self.core.compile();
            timer.observe_duration();
            self.compiled_once = true;
            if self.table.is_some() {
                self.note(pass);
            }
        }
        let leadership = channels.leadership.borrow().clone();
        let Some((lease, term)) = leadership.leads() else {
            if leadership.term().is_some() {
                // The database is away; what is unpublished waits for it. Unless somebody else takes over meanwhile.
                return Some(clock::instant() + RETRY);
            }
            self.follow();
            return None;
        };
        if self.table.as_ref().is_none_or(|table| table.term != term) {
            self.follow();
            if let Err(error) = self.take_over(lease, term).await {
                tracing::warn!(
                    error = chain(&error),
                    "can't begin to publish; will try again"
                );
                self.metrics
                    .publish_failures
                    .with_label_values(&["database"])
                    .inc();
                return Some(clock::instant() + RETRY);
            }
        }
        self.publish(&channels.notices).await
    }

    /// `Some`: not yet, and when to look again.
    fn wait_for_secrets(&mut self) -> Option<Option<Instant>> {
        if !self.core.waits_for_secrets() {
            self.secrets_missing_since = None;
            return None;
        }
        let patience = if self.compiled_once {
            SECRET_PATIENCE
        } else {
            FIRST_SECRET_PATIENCE
        };
        let since = *self
            .secrets_missing_since
            .get_or_insert_with(clock::instant);
        let until = since + patience;
        (clock::instant() < until).then_some(Some(until))
    }

    fn note(&mut self, pass: Pass) {
        for row in pass.changed {
            self.unpublished.insert(row.key(), Some(row));
        }
        for key in pass.removed {
            self.unpublished.insert(key, None);
        }
    }

    /// Not the leader (any more): whoever is has its own idea of what is unpublished.
    fn follow(&mut self) {
        if self.table.take().is_some() {
            self.core.unpublish();
        }
        self.unpublished.clear();
        self.guard.forget();
        self.resets.follow();
        self.metrics.follows();
    }

    /// Begins an epoch, reads the table and notes all that it lacks.
    async fn take_over(&mut self, lease: &store::Lease, term: u64) -> Result<(), store::Error> {
        let taken = table::take_over(
            &self.store,
            &self.keyring,
            &self.settings,
            lease,
            self.newest,
        )
        .await?;
        if taken.restored {
            tracing::error!(
                epoch = taken.table.epoch.0,
                "the database is older than what was published; publishing everything anew"
            );
            self.metrics.restored.inc();
            self.since_epoch = taken.table.epoch.0;
            self.core.unpublish();
        }
        let mut pass = self.core.difference(
            taken.loaded.rows.iter().map(|row| &**row),
            table::unreadable_keys(&taken.loaded),
        );
        // All of them: the store leaves alone what is there, and seals anew what another key ring has sealed.
        pass.changed = self.core.rows();
        self.note(pass);
        self.table = Some(Table {
            term,
            ..taken.table
        });
        self.metrics.leader.set(1);
        self.show_table();
        Ok(())
    }

    async fn publish(&mut self, notices: &Notices) -> Option<Instant> {
        let table = self.table.as_mut().expect("pass() took over before");
        let removals: BTreeSet<RowKey> = self
            .unpublished
            .iter()
            .filter(|(key, row)| row.is_none() && table.keys.contains(key))
            .map(|(key, _)| *key)
            .collect();
        let count = removals.len();
        let judgement = self.guard.judge(removals, &table.keys, clock::instant());
        let hold = match &judgement {
            Judgement::Publish => None,
            Judgement::Hold { new, until } => {
                if let Some(held) = self.guard.held().filter(|_| *new) {
                    tracing::error!(removals = %held.extent, "a mass removal is held back");
                    notices.send(Notice::warning(
                        "RemovalHeld",
                        held_sentence(&held.extent, self.settings.removal_hold),
                    ));
                }
                Some(*until)
            }
        };
        self.metrics
            .removals_held
            .set(if hold.is_some() { count as i64 } else { 0 });
        let mut changed = Vec::new();
        let mut removed = Vec::new();
        for (key, row) in &self.unpublished {
            match row {
                Some(row) => changed.push(row.clone()),
                None if hold.is_none() => removed.push(*key),
                None => {}
            }
        }
        if !changed.is_empty() || !removed.is_empty() {
            let timer = self.metrics.publish_seconds.start_timer();
            let result = routes::publish(
                &self.store.pool,
                table.epoch,
                &self.settings.holder,
                &changed,
                &removed,
                &self.keyring,
            )
            .await;
            timer.observe_duration();
            match result {
                Ok(published) => {
                    tracing::info!(
                        revision = published.revision,
                        rows = published.changed,
                        "published"
                    );
                    self.metrics
                        .published_rows
                        .inc_by(u64::from(published.changed));
                    self.metrics
                        .last_publish
                        .set(clock::now().as_millisecond() as f64 / 1e3);
                    table.published(published.revision, &changed, &removed);
                }
                Err(error) => return Some(self.failed(error)),
            }
        }
        self.unpublished
            .retain(|key, row| hold.is_some() && row.is_none() && table.keys.contains(key));
        let waiting: BTreeSet<_> = self.unpublished.keys().map(|key| key.uid).collect();
        let revision = table.revision;
        self.core.published(revision, &waiting);
        self.show_table();
        hold
    }

    fn failed(&mut self, error: routes::PublishError) -> Instant {
        let reason = match &error {
            routes::PublishError::Fenced => {
                // Somebody else has begun an epoch, or the head went back: read it all again, if the lease is still ours.
                self.table = None;
                self.core.unpublish();
                "fenced"
            }
            routes::PublishError::Store(_) => "database",
        };
        self.metrics
            .publish_failures
            .with_label_values(&[reason])
            .inc();
        tracing::warn!(error = chain(&error), "not published; will try again");
        clock::instant() + RETRY
    }

    /// Reads the head: when it isn't what we left there, the next pass takes over anew.
    async fn check_head(&mut self) {
        let Some(table) = &self.table else { return };
        match routes::head(&self.store.pool).await {
            Ok(head) if head.epoch == table.epoch.0 && head.revision == table.revision => {}
            Ok(head) => {
                tracing::warn!(
                    epoch = head.epoch,
                    revision = head.revision,
                    "the routing table is not as it was left; reading it again"
                );
                self.table = None;
            }
            Err(error) => tracing::debug!(error = chain(&error), "can't read the head"),
        }
    }

    /// Compares every row with the table, so that nothing stays wrong for longer than this, whatever made it so.
    async fn compare(&mut self) {
        let Some(table) = &self.table else { return };
        match table::compare(&self.store, &self.keyring, &self.settings, table).await {
            Ok(loaded) => {
                let pass = self.core.difference(
                    loaded.rows.iter().map(|row| &**row),
                    table::unreadable_keys(&loaded),
                );
                let wrong = pass
                    .changed
                    .iter()
                    .map(Row::key)
                    .chain(pass.removed.iter().copied())
                    .filter(|key| !self.unpublished.contains_key(key))
                    .count();
                if wrong > 0 && !self.core.dirty() {
                    tracing::error!(
                        rows = wrong,
                        "the published table differed from the compiled one; mending it"
                    );
                    self.metrics.repairs.inc_by(wrong as u64);
                }
                self.note(pass);
            }
            Err(error) => tracing::warn!(
                error = chain(&error),
                "can't compare the table; will try again"
            ),
        }
    }

    fn show_table(&mut self) {
        let Some(table) = &self.table else { return };
        self.newest = self.newest.max(routes::Head {
            epoch: table.epoch.0,
            revision: table.revision,
        });
        self.metrics.epoch.set(table.epoch.0);
        self.metrics.revision.set(table.revision);
        self.metrics.rows.set(table.keys.len() as i64);
    }

    async fn report(&mut self, channels: &Channels) {
        let held = self
            .guard
            .held()
            .map(|held| held_sentence(&held.extent, self.settings.removal_hold).into());
        let term = self.table.as_ref().map(|table| table.term);
        let report = Report {
            told: self.core.take_report(),
            term,
            since_epoch: self.since_epoch,
            held,
        };
        // Nobody listens any more only when everything ends.
        let _ = channels.reports.send(report).await;
    }
}

fn held_sentence(extent: &Extent, stable_for: Duration) -> String {
    format!(
        "the removal of {extent} waits until it has stayed the same for {} s",
        stable_for.as_secs()
    )
}
