//! Keeps every object's status what the facts call for.
//!
//! Level-triggered: what is written is the difference between what an object's status says and what it should say, so
//! a lost write, a change of leader or a status that somebody edited is mended by the same code. Only the leader writes.
//! While the database is away, its last leader still says so, once for each object: see [`Mode`].
//!
//! What happens costs as much as it concerns: one object, or those that a heartbeat says something new of. Everything is
//! looked at seldom, and when whose say the statuses are has changed.

use crate::{
    affected::{Affected, ByRevision, affected},
    backoff::Backoff,
    circuits::Circuits,
    core::Entry,
    events::{self, Events},
    fleet::{Database, Fleet},
    leadership::Leadership,
    metrics::Metrics,
    publisher::Report,
    status::{self, Facts, PROGRAMMED, READY, condition, is_true},
    status_writer::{self, Outcome, Queue, Write},
};
use crds::Status;
use kube::Client;
use service::clock;
use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::Arc,
    time::{Duration, Instant},
};
use tokio::{
    sync::{mpsc, watch},
    task::JoinSet,
};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

#[cfg(test)]
mod tests;

/// Status writes under way at once: kind to the API server, and 10,000 objects in well under a minute.
const CONCURRENCY: usize = 16;

/// Gateways acknowledge within this time, as a rule: then the object goes to Ready in one write instead of three.
const PATIENCE: Duration = Duration::from_millis(300);

/// Everything is looked at anew this often, whatever was missed.
const LOOK_AT_ALL: Duration = Duration::from_secs(15);

/// The metric of objects is at most so old. Counting goes through all of them.
const COUNT_AFTER: Duration = Duration::from_secs(1);

/// Before all writes go on after the API server failed, doubled while it fails.
const SERVER: Backoff = Backoff {
    first: Duration::from_millis(200),
    most: Duration::from_secs(5),
};

/// Before an object is tried again that the API server didn't let us write, doubled while it doesn't. Nobody else waits.
const OBJECT: Backoff = Backoff {
    first: Duration::from_millis(200),
    most: Duration::from_secs(15),
};

/// Whose say the statuses are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mode {
    /// Another operator's.
    Following,
    Leading,
    /// The database is away and this operator led last. If another one leads on the far side of a partition, the two
    /// must not fight: each generation of an object is told once.
    Caretaker,
}

pub struct Inputs {
    pub reports: mpsc::Receiver<Report>,
    pub leadership: watch::Receiver<Leadership>,
    pub fleet: watch::Receiver<Fleet>,
    pub circuits: watch::Receiver<Circuits>,
}

pub struct Statuses {
    client: Client,
    public_url: String,
    events: Events,
    metrics: Metrics,
    objects: HashMap<Uuid, Tracked>,
    /// Written while unknown here: the report of the object follows.
    early: HashMap<Uuid, (Option<u64>, Option<Arc<Status>>)>,
    by_revision: ByRevision,
    /// Objects to look at again, and when: each at most once for its patience and once for its pause.
    later: BTreeSet<(Instant, Uuid)>,
    queue: Queue,
    writing: JoinSet<Outcome>,
    term: Option<u64>,
    held: Option<Arc<str>>,
    since_epoch: i64,
    circuits: Circuits,
    failures: u32,
    paused_until: Option<Instant>,
    count_at: Option<Instant>,
}

struct Tracked {
    entry: Entry,
    /// The status that the object has, as far as we know, and since which version of the object.
    known: Option<Arc<Status>>,
    version: Option<u64>,
    waits_since: Option<Instant>,
    refused: Option<Arc<Status>>,
    /// The generation that was told as caretaker.
    cared_for: Option<i64>,
    /// Writes in a row that weren't let through, and until when none is tried.
    denials: u32,
    denied_until: Option<Instant>,
}

impl Statuses {
    pub fn new(client: Client, public_url: String, events: Events, metrics: Metrics) -> Statuses {
        Statuses {
            client,
            public_url,
            events,
            metrics,
            objects: HashMap::new(),
            early: HashMap::new(),
            by_revision: ByRevision::default(),
            later: BTreeSet::new(),
            queue: Queue::default(),
            writing: JoinSet::new(),
            term: None,
            held: None,
            since_epoch: 0,
            circuits: Circuits::default(),
            failures: 0,
            paused_until: None,
            count_at: None,
        }
    }

    /// Runs until the token is cancelled; writes under way are given up then, the next leader makes them.
    pub async fn run(mut self, mut inputs: Inputs, token: CancellationToken) {
        let mut look_at_all = clock::instant() + LOOK_AT_ALL;
        // What the objects were looked at by.
        let mut mode = Mode::Following;
        let mut fleet = inputs.fleet.borrow_and_update().clone();
        loop {
            let wake = [self.paused_until, self.count_at, Some(look_at_all)]
                .into_iter()
                .chain([self.later.first().map(|(at, _)| *at)])
                .flatten()
                .min()
                .expect("one is always there");
            let mut touched = BTreeSet::new();
            let mut all = false;
            tokio::select! {
                () = token.cancelled() => return,
                report = inputs.reports.recv() => match report {
                    Some(report) => all = self.take(report, &mut touched),
                    None => return,
                },
                // What has changed is seen below, whatever woke us.
                changed = inputs.leadership.changed() => if changed.is_err() {
                    return;
                },
                changed = inputs.fleet.changed() => if changed.is_err() {
                    return;
                },
                changed = inputs.circuits.changed() => if changed.is_err() {
                    return;
                },
                Some(outcome) = self.writing.join_next() => {
                    if let Ok(outcome) = outcome {
                        touched.extend(self.settle(outcome));
                    }
                }
                () = tokio::time::sleep_until(wake.into()) => {}
            }
            let now = clock::instant();
            if now >= look_at_all {
                look_at_all = now + LOOK_AT_ALL;
                all = true;
            }
            self.paused_until = self.paused_until.filter(|until| now < *until);
            touched.extend(self.due(now));

            let mode_was = mode;
            mode = self.mode(&inputs.leadership.borrow_and_update());
            all |= mode != mode_was;
            let mut fleet_is = inputs.fleet.borrow_and_update().clone();
            fleet_is.since_epoch = self.since_epoch;
            match affected(&fleet, &fleet_is) {
                Affected::All => all = true,
                Affected::Between(ranges) => touched.extend(self.by_revision.between(&ranges)),
            }
            fleet = fleet_is;
            let circuits = inputs.circuits.borrow_and_update().clone();
            match circuits.changed_since(&self.circuits) {
                None => all = true,
                Some(changed) => touched.extend(changed),
            }
            self.circuits = circuits;

            if all || !touched.is_empty() {
                self.count_at.get_or_insert(now + COUNT_AFTER);
            }
            if mode == Mode::Following {
                self.queue.clear();
                self.later.clear();
            } else {
                if all {
                    self.later.clear();
                    self.look_at(self.objects.keys().copied().collect(), &fleet, mode);
                } else {
                    self.look_at(touched.into_iter().collect(), &fleet, mode);
                }
                self.write_some();
            }
            self.metrics.status_queue.set(self.queue.len() as i64);
            if self.count_at.is_some_and(|at| now >= at) {
                self.count_at = None;
                self.count();
            }
        }
    }

    /// Takes the objects whose time has come.
    fn due(&mut self, now: Instant) -> BTreeSet<Uuid> {
        let rest = self.later.split_off(&(now, Uuid::max()));
        std::mem::replace(&mut self.later, rest)
            .into_iter()
            .map(|(_, uid)| uid)
            .collect()
    }

    /// A leader acts once the publisher has begun its term: before, everything would look unpublished.
    fn mode(&self, leadership: &Leadership) -> Mode {
        match leadership {
            _ if self.term.is_none() || self.term != leadership.term() => Mode::Following,
            leadership if leadership.leads().is_some() => Mode::Leading,
            _ => Mode::Caretaker,
        }
    }

    /// Answers whether every object has to be looked at.
    fn take(&mut self, report: Report, touched: &mut BTreeSet<Uuid>) -> bool {
        for uid in report.told.gone {
            self.forget(uid);
        }
        for (uid, observed) in report.told.observed {
            let status = observed.status.map(Arc::new);
            match self.objects.get_mut(&uid) {
                Some(tracked) => {
                    // An echo that is older than our last write says nothing new.
                    if observed.resource_version.is_none()
                        || observed.resource_version >= tracked.version
                    {
                        tracked.known = status;
                        tracked.version = observed.resource_version;
                        tracked.refused = None;
                        touched.insert(uid);
                    }
                }
                None => {
                    self.early.insert(uid, (observed.resource_version, status));
                }
            }
        }
        for entry in report.told.objects {
            let uid = entry.meta.uid;
            touched.insert(uid);
            let (version, known) = self.early.remove(&uid).unwrap_or_default();
            match self.objects.get_mut(&uid) {
                Some(tracked) => {
                    self.by_revision
                        .put(uid, tracked.entry.published, entry.published);
                    tracked.entry = entry;
                    tracked.refused = None;
                }
                None => {
                    self.by_revision.put(uid, None, entry.published);
                    self.objects.insert(
                        uid,
                        Tracked {
                            entry,
                            known,
                            version,
                            waits_since: None,
                            refused: None,
                            cared_for: None,
                            denials: 0,
                            denied_until: None,
                        },
                    );
                }
            }
        }
        let all = self.term != report.term
            || self.since_epoch != report.since_epoch
            || self.held != report.held;
        (self.term, self.since_epoch, self.held) = (report.term, report.since_epoch, report.held);
        all
    }

    fn forget(&mut self, uid: Uuid) {
        self.early.remove(&uid);
        self.queue.forget(uid);
        if let Some(tracked) = self.objects.remove(&uid) {
            self.by_revision.put(uid, tracked.entry.published, None);
        }
    }

    /// Queues what differs, and notes when to look again at those that had better wait a moment.
    fn look_at(&mut self, uids: Vec<Uuid>, fleet: &Fleet, mode: Mode) {
        let (now, instant) = (clock::now(), clock::instant());
        for uid in uids {
            let Some(tracked) = self.objects.get_mut(&uid) else {
                continue;
            };
            let Some(verdict) = tracked.entry.verdict.clone() else {
                continue;
            };
            let status = status::decide(&Facts {
                meta: &tracked.entry.meta,
                verdict: &verdict,
                published: tracked.entry.published,
                held: self.held.as_deref(),
                fleet,
                public_url: &self.public_url,
                circuit: self.circuits.of(uid),
                previous: tracked.known.as_deref(),
                now,
            });
            if tracked.known.as_deref() == Some(&status)
                || tracked.refused.as_deref() == Some(&status)
            {
                tracked.waits_since = None;
                self.queue.forget(uid);
                continue;
            }
            if let Some(until) = tracked.denied_until.filter(|until| instant < *until) {
                self.later.insert((until, uid));
                continue;
            }
            match mode {
                Mode::Caretaker
                    if fleet.database == Database::Here
                        || tracked.cared_for == Some(tracked.entry.meta.generation) =>
                {
                    continue;
                }
                Mode::Caretaker => tracked.cared_for = Some(tracked.entry.meta.generation),
                _ => tracked.cared_for = None,
            }
            if waits_for_gateways(&status) {
                let until = *tracked.waits_since.get_or_insert(instant) + PATIENCE;
                if instant < until {
                    self.later.insert((until, uid));
                    continue;
                }
            } else {
                tracked.waits_since = None;
            }
            if self
                .queue
                .waiting(uid)
                .is_none_or(|write| *write.status != status)
            {
                self.queue.put(Write {
                    meta: tracked.entry.meta.clone(),
                    status: Arc::new(status),
                });
            }
        }
    }

    fn write_some(&mut self) {
        if self.paused_until.is_some() {
            return;
        }
        while self.writing.len() < CONCURRENCY {
            let Some(write) = self.queue.take() else {
                return;
            };
            self.writing
                .spawn(status_writer::write(self.client.clone(), write));
        }
    }

    /// Answers the object to look at again.
    fn settle(&mut self, outcome: Outcome) -> Option<Uuid> {
        let (label, uid) = match outcome {
            Outcome::Written {
                write,
                resource_version,
            } => {
                let uid = write.meta.uid;
                self.queue.done(uid);
                self.failures = 0;
                if let Some(tracked) = self.objects.get_mut(&uid) {
                    let before = tracked.known.replace(write.status.clone());
                    tracked.version = resource_version.max(tracked.version);
                    (tracked.denials, tracked.denied_until) = (0, None);
                    for event in events::transitions(&write.meta, before.as_deref(), &write.status)
                    {
                        self.events.send(event);
                    }
                }
                ("ok", uid)
            }
            Outcome::Gone(write) => {
                self.queue.done(write.meta.uid);
                // The watch says so as well; until then there is nothing to write to.
                if let Some(tracked) = self.objects.get_mut(&write.meta.uid) {
                    tracked.refused = Some(write.status);
                }
                self.metrics
                    .status_writes
                    .with_label_values(&["gone"])
                    .inc();
                return None;
            }
            Outcome::Refused(write, why) => {
                self.queue.done(write.meta.uid);
                tracing::error!(
                    namespace = write.meta.namespace,
                    name = write.meta.name,
                    why,
                    "the API server refuses this status"
                );
                if let Some(tracked) = self.objects.get_mut(&write.meta.uid) {
                    tracked.refused = Some(write.status);
                }
                self.metrics
                    .status_writes
                    .with_label_values(&["refused"])
                    .inc();
                return None;
            }
            Outcome::Denied(write, why) => {
                let uid = write.meta.uid;
                self.queue.done(uid);
                // What waits for it would not fare better; it is decided anew when the pause ends.
                self.queue.forget(uid);
                if let Some(tracked) = self.objects.get_mut(&uid) {
                    if tracked.denials == 0 {
                        tracing::warn!(
                            namespace = write.meta.namespace,
                            name = write.meta.name,
                            why,
                            "the API server doesn't let this status be written; will try again"
                        );
                    }
                    tracked.denied_until = Some(clock::instant() + OBJECT.pause(tracked.denials));
                    tracked.denials = tracked.denials.saturating_add(1);
                    tracked.cared_for = None;
                }
                ("denied", uid)
            }
            Outcome::Failed(write, why) => {
                let uid = write.meta.uid;
                self.queue.done(uid);
                let pause = SERVER.pause(self.failures);
                if self.failures == 0 {
                    tracing::warn!(why, "a status can't be written; will try again");
                }
                self.failures = self.failures.saturating_add(1);
                self.paused_until = Some(clock::instant() + pause);
                if let Some(tracked) = self.objects.get_mut(&uid) {
                    tracked.cared_for = None;
                }
                ("failed", uid)
            }
        };
        self.metrics.status_writes.with_label_values(&[label]).inc();
        Some(uid)
    }

    /// Shows how many objects of each kind are ready.
    fn count(&self) {
        let mut counts: BTreeMap<(&'static str, bool), i64> = BTreeMap::new();
        for kind in crds::Kind::ALL {
            counts.insert((kind.as_str(), true), 0);
            counts.insert((kind.as_str(), false), 0);
        }
        for tracked in self.objects.values() {
            let ready = tracked
                .known
                .as_ref()
                .is_some_and(|status| is_true(status, READY));
            *counts
                .entry((tracked.entry.meta.kind.as_str(), ready))
                .or_default() += 1;
        }
        for ((kind, ready), count) in counts {
            self.metrics
                .objects
                .with_label_values(&[kind, if ready { "true" } else { "false" }])
                .set(count);
        }
    }
}

/// Whether the next second will most likely make it Ready.
fn waits_for_gateways(status: &Status) -> bool {
    is_true(status, status::RECONCILING)
        && condition(status, PROGRAMMED).is_some_and(|condition| {
            matches!(condition.reason.as_str(), "Pending" | "PartiallyProgrammed")
        })
}
