//! Attempts: beginning them as far as the bounds and the leases allow, and what becomes of each when it has ended.
//!
//! An attempt's way: `launch` takes the next delivery of the destination that has the next slot, `start` makes it a task,
//! `ended` decides what follows, `finish` hands that to the writer, `written` lets the delivery go or wait for its retry.
//! From `start` to `written` the delivery counts as under way, and a reload does not start it again.

use super::{Actor, Message};
use crate::{
    deliver::{self, Answer, Attempt, transform::Shaping},
    outcomes::{Fate, Job, Written},
    scheduler::{
        Report,
        circuit::{Change, Word},
        destination::{BEGINNING, Destination, Entry, Gate, Row},
    },
};
use bytes::Bytes;
use jiff::Timestamp;
use routing::{
    delivery::BlockedHead,
    retry::{self, GaveUp, Policy, Step},
    row::DestinationSpec,
};
use service::clock;
use std::{sync::Arc, time::Duration};
use store::{
    attempts::Trigger,
    outcomes::{self, Finished},
    time::stored,
};
use tokio::{sync::mpsc::UnboundedSender, task::AbortHandle, time::Instant};
use uuid::Uuid;

/// Outcomes that may wait for their commit before no attempt begins: two batches, so that a slow commit doesn't stop
/// deliveries and a lost Postgres does. The same holds when they fill half of the window's bytes, bodies and answers.
const UNWRITTEN: usize = 1024;

/// An attempt that lasts longer than this holds its slot: its destination loses what it has earned. Nearly all receivers
/// that are well answer sooner, and one that hangs has not kept much by then.
const LONG: Duration = Duration::from_secs(3);

/// An attempt under way.
#[derive(Debug)]
pub(super) struct Flight {
    pub(super) destination: Uuid,
    shard: u16,
    epoch: i64,
    pub(super) entry: Entry,
    row: Arc<Row>,
    started_at: Timestamp,
    began: Instant,
    /// The slots that it takes.
    weight: usize,
    /// Of the destination's circuit, when it began.
    term: u64,
    pub(super) task: AbortHandle,
}

impl Drop for Flight {
    fn drop(&mut self) {
        // No effect on one that has ended.
        self.task.abort();
    }
}

/// What must be known when the outcome of a delivery is written.
#[derive(Debug)]
pub(super) struct Unwritten {
    pub(super) destination: Uuid,
    pub(super) entry: Entry,
    /// Headers and bodies of what was sent and of what the destination answered.
    bytes: usize,
    retry_at: Option<Timestamp>,
}

impl Actor {
    pub(super) fn launch(&mut self, now: Timestamp) {
        if self.retiring {
            return;
        }
        let trusted = Instant::now();
        self.note_long_ones(trusted);
        while self.may_finish_more()
            && let Some(id) = self.slots.next()
        {
            if !self.launch_one(id, trusted, now) {
                self.slots.pass(id);
            }
        }
    }

    fn may_finish_more(&self) -> bool {
        self.unwritten.len() < UNWRITTEN && self.unwritten_bytes < self.options.window_bytes / 2
    }

    /// Begins the next attempt of a destination, if it has any that may begin.
    fn launch_one(&mut self, id: Uuid, trusted: Instant, now: Timestamp) -> bool {
        let Some(destination) = self.destinations.get_mut(&id) else {
            return false;
        };
        destination.queued = false;
        let Some(Some(held)) = self.shards.get_mut(usize::from(destination.shard)) else {
            return false;
        };
        // Before the first look at the shard it isn't known whose circuit is open.
        if held.leaving || !held.scanned || destination.in_flight >= destination.concurrency() {
            return false;
        }
        let Some(row) = destination.row.clone().filter(|_| destination.is_active()) else {
            return false;
        };
        if held.trusted_until <= trusted {
            held.stalled = true;
            return false;
        }
        let (shard, epoch) = (destination.shard, held.epoch);
        while self.expire_first(id, now) {}
        if !self.pass_gate(id, now) {
            return false;
        }
        let Some(Some(entry)) = self.change(id, Destination::take) else {
            return false;
        };
        if let Some(held) = self.shard(shard, epoch) {
            held.in_flight += 1;
        }
        self.start(id, shard, epoch, entry, row, now);
        true
    }

    /// May a destination with something to send begin an attempt? If not, it asks again when something has changed.
    fn pass_gate(&mut self, id: Uuid, now: Timestamp) -> bool {
        let Some(destination) = self.destinations.get_mut(&id) else {
            return false;
        };
        if destination.ready() == 0 {
            return false;
        }
        match destination.gate(now) {
            Gate::Open => return true,
            Gate::Shut => {}
            Gate::Limited => self.metrics.rate_limited.inc(),
            Gate::Ask => self.ask_to_save(id),
        }
        // Its timer follows the gate.
        self.change(id, |_| ());
        false
    }

    /// Gives up the first delivery of a destination without an attempt if it's older than its policy lets any be. False: it isn't.
    pub(super) fn expire_first(&mut self, id: Uuid, now: Timestamp) -> bool {
        if !self.may_finish_more() {
            return false;
        }
        let Some(destination) = self.destinations.get(&id) else {
            return false;
        };
        let (Some(entry), Some(row)) = (destination.first(), &destination.row) else {
            return false;
        };
        let policy = self.policy(entry, &row.row.spec);
        if !policy.is_too_old(entry.recorded_at, now) {
            return false;
        }
        let shard = destination.shard;
        let epoch = match self.shards.get(usize::from(shard)) {
            Some(Some(held)) if !held.leaving => held.epoch,
            _ => return false,
        };
        let taken = self.change(id, |destination| {
            let entry = destination.take()?;
            destination.in_flight -= 1;
            Some(entry)
        });
        let Some(Some(entry)) = taken else {
            return false;
        };
        let given_up = Finished::DeadLetter(GaveUp::TooOld);
        self.finish(id, shard, epoch, entry, None, given_up);
        true
    }

    /// The connection's own, or the destination's.
    fn policy<'a>(&'a self, entry: &Entry, spec: &'a DestinationSpec) -> &'a Policy {
        let connection = self.current.connection(entry.connection_id);
        connection
            .and_then(|connection| connection.retry.as_ref())
            .unwrap_or(&spec.retry)
    }

    /// Finds the attempts that have become long since the last turn. They began in the order of their numbers, so this
    /// looks at none twice.
    fn note_long_ones(&mut self, now: Instant) {
        while let Some((&number, flight)) = self.flights.range(self.brisk..).next()
            && now.duration_since(flight.began) >= LONG
        {
            self.slots.drags(flight.destination);
            self.brisk = number + 1;
        }
    }

    fn start(
        &mut self,
        destination: Uuid,
        shard: u16,
        epoch: i64,
        entry: Entry,
        row: Arc<Row>,
        now: Timestamp,
    ) {
        let id = self.next_flight;
        self.next_flight += 1;
        let mut ending = Ending {
            flight: id,
            messages: self.messages.clone(),
            answer: None,
            took: Duration::ZERO,
        };
        let (client, event, number, target) = (
            self.client.clone(),
            entry.event.clone(),
            entry.attempts + 1,
            row.clone(),
        );
        let shaping = self
            .current
            .connection(entry.connection_id)
            .and_then(|connection| Shaping::of(connection, &self.options.sandbox));
        let weight = self.slots.weight(entry.bytes());
        self.slots.begin(destination, &row.row.namespace, weight);
        self.flying += entry.bytes();
        let (term, change) = match self.destinations.get_mut(&destination) {
            Some(destination) => destination.begin(now),
            None => Default::default(),
        };
        self.note_circuit(destination, change, now);
        let task = tokio::spawn(async move {
            let started = clock::instant();
            let attempt = Attempt {
                event: &event,
                number,
                now,
                set: None,
            };
            let answer = match &shaping {
                None => target.target.send(&client, attempt).await,
                Some(shaping) => shaping.send(&target.target, &client, attempt).await,
            };
            ending.with(answer, started.elapsed());
        });
        self.flights.insert(
            id,
            Flight {
                destination,
                shard,
                epoch,
                entry,
                row,
                started_at: now,
                began: Instant::now(),
                weight,
                term,
                task: task.abort_handle(),
            },
        );
    }

    pub(super) fn ended(
        &mut self,
        flight: u64,
        answer: Option<Answer>,
        took: Duration,
        now: Timestamp,
    ) {
        let Some(flight) = self.flights.remove(&flight) else {
            return;
        };
        let (id, shard, epoch) = (flight.destination, flight.shard, flight.epoch);
        let entry = flight.entry.clone();
        self.flying -= entry.bytes();
        let quick = flight.began.elapsed() < LONG;
        self.slots.end(id, flight.weight, quick);
        let ours = match self.shard(shard, epoch) {
            Some(held) => {
                held.in_flight -= 1;
                true
            }
            None => false,
        };
        let answer = match answer {
            Some(answer) => answer,
            None if self.aborting => {
                self.metrics.given_back.inc();
                let change = self.change(id, |destination| {
                    destination.in_flight -= usize::from(ours);
                    destination.settle(entry.delivery_id);
                    destination.give_back(entry.delivery_id);
                    match ours {
                        true => destination.conclude(flight.term, None, now),
                        false => Change::default(),
                    }
                });
                self.note_circuit(id, change.unwrap_or_default(), now);
                self.start_saving(now);
                self.release_if_over(shard);
                return;
            }
            None => Answer::internal("the attempt broke off inside the gateway; see its log"),
        };
        let trigger = entry.round.trigger(entry.attempts + 1);
        self.metrics.attempt(&answer.outcome, trigger, took);
        if !ours {
            // The new owner makes it again. If that's us, it has waited for this one to end.
            self.metrics.outcomes_discarded.inc();
            self.change(id, |destination| {
                destination.settle(entry.delivery_id);
                destination.give_back(entry.delivery_id);
                destination.note_missing(BEGINNING);
            });
            return;
        }
        let number = entry.attempts + 1;
        let policy = self.policy(&entry, &flight.row.row.spec);
        let counted = entry.round.counted(number);
        let (outcome, recorded_at, dice) = (&answer.outcome, entry.recorded_at, rand::random());
        let step = retry::next_step(policy, counted, outcome, recorded_at, now, dice);
        let blocked_head = self
            .destinations
            .get(&id)
            .and_then(Destination::blocked_head);
        let step = match (step, blocked_head) {
            (Step::RetryAt(_), Some(BlockedHead::DeadLetter)) => {
                Step::DeadLetter(GaveUp::HeadBlocked)
            }
            (step, _) => step,
        };
        if entry.round.trigger(number) == Trigger::Initial
            && let Ok(since) = Duration::try_from(now.duration_since(entry.recorded_at))
        {
            self.metrics
                .first_attempt_seconds
                .observe(since.as_secs_f64());
        }
        if let Some(observer) = &self.options.observer {
            let report = Report {
                event_id: entry.event.id,
                delivery_id: entry.delivery_id,
                destination: flight.row.row.clone(),
                attempt: number,
                outcome: answer.outcome.clone(),
                error: answer.error.clone(),
                took,
                step: step.clone(),
            };
            // A watcher that is behind misses some.
            let _ = observer.try_send(report);
        }
        let finished = match (step, blocked_head) {
            (Step::Done, _) => Finished::Delivered,
            (Step::Filtered, _) => Finished::Filtered,
            (Step::DeadLetter(reason), _) => Finished::DeadLetter(reason),
            (Step::RetryAt(at), None) => Finished::RetryAt(stored(at)),
            (Step::RetryAt(at), Some(_)) => Finished::RetryInPlaceAt(stored(at)),
        };
        let word = Word::from(&answer.outcome);
        let attempt = outcomes::Attempt {
            number: u16::try_from(number).unwrap_or(u16::MAX),
            started_at: flight.started_at,
            outcome: answer.outcome.as_str(),
            status: deliver::status(&answer.outcome),
            // Postgres' text has no NUL.
            error: answer.error.map(|error| error.replace('\0', "")),
            timings: answer.timings,
            response_headers: answer.headers,
            response_body: answer.body,
            replica: self.options.replica.clone(),
        };
        let delivery = entry.delivery_id;
        self.finish(id, shard, epoch, entry, Some(attempt), finished);
        let change = self.change(id, |destination| {
            destination.in_flight -= 1;
            if finished == Finished::Delivered {
                destination.pass(delivery, now);
            }
            destination.conclude(flight.term, Some(word), now)
        });
        self.note_circuit(id, change.unwrap_or_default(), now);
    }

    /// Hands an outcome to the writer.
    fn finish(
        &mut self,
        id: Uuid,
        shard: u16,
        epoch: i64,
        entry: Entry,
        attempt: Option<outcomes::Attempt>,
        step: Finished,
    ) {
        let answer: usize = attempt.as_ref().map_or(0, |attempt| {
            let kept = [&attempt.response_headers, &attempt.response_body];
            kept.into_iter().flatten().map(Bytes::len).sum()
        });
        let made = entry.attempts + u32::from(attempt.is_some());
        let bytes = entry.bytes() + answer;
        self.unwritten_bytes += bytes;
        self.bytes += bytes;
        let outcome = outcomes::Outcome {
            shard,
            destination_id: id,
            due_at: entry.due_at,
            delivery_id: entry.delivery_id,
            event_id: entry.event.id,
            connection_id: entry.connection_id,
            namespace: entry.event.namespace.clone(),
            recorded_at: entry.recorded_at,
            round: entry.round,
            attempts: u16::try_from(made).unwrap_or(u16::MAX),
            attempt,
            step,
        };
        if let Some(held) = self.shard(shard, epoch) {
            held.unwritten += 1;
        }
        self.unwritten.insert(
            (shard, epoch, entry.delivery_id),
            Unwritten {
                destination: id,
                entry,
                bytes,
                retry_at: step.retry_at(),
            },
        );
        // The writer outlives the actor.
        let _ = self.jobs.send(Job { outcome, epoch });
    }

    pub(super) fn written(&mut self, batch: Vec<Written>, now: Timestamp) {
        let soon = now + self.options.horizon;
        for Written { job, fate } in batch {
            let (shard, delivery) = (job.outcome.shard, job.outcome.delivery_id);
            let unwritten = self.unwritten.remove(&(shard, job.epoch, delivery));
            if let Some(Unwritten { bytes, .. }) = &unwritten {
                self.bytes -= bytes;
                self.unwritten_bytes -= bytes;
            }
            let ours = match self.shard(shard, job.epoch) {
                Some(held) => {
                    held.unwritten -= 1;
                    true
                }
                None => false,
            };
            match fate {
                Fate::Written => match job.outcome.step {
                    Finished::Delivered => self.metrics.delivered.inc(),
                    Finished::Filtered => self.metrics.filtered.inc(),
                    Finished::DeadLetter(reason) => self.metrics.dead_letter(reason, 1),
                    Finished::RetryAt(_) | Finished::RetryInPlaceAt(_) => {
                        self.metrics.retries.inc()
                    }
                },
                Fate::Fenced | Fate::Refused => self.metrics.outcomes_discarded.inc(),
            }
            if !ours {
                continue;
            }
            let room = self.room();
            self.change(job.outcome.destination_id, |destination| {
                destination.settle(delivery);
                match (fate, unwritten) {
                    // What stays in its place in the order waits there.
                    (
                        Fate::Written,
                        Some(Unwritten {
                            retry_at: Some(at), ..
                        }),
                    ) if matches!(job.outcome.step, Finished::RetryInPlaceAt(_)) => {
                        if destination.is_ordered() {
                            destination.block(delivery, at);
                        } else {
                            destination.note_missing(BEGINNING);
                        }
                    }
                    (
                        Fate::Written,
                        Some(Unwritten {
                            mut entry,
                            retry_at: Some(at),
                            ..
                        }),
                    ) => {
                        entry.due_at = at;
                        entry.attempts += 1;
                        destination.retry(entry, soon, room);
                    }
                    // Not at once: it would be refused again.
                    (Fate::Refused, Some(_)) if destination.is_ordered() => {
                        destination.block(delivery, soon);
                    }
                    (Fate::Refused, Some(_)) => destination.leave_for_later(soon),
                    _ => destination.pass(delivery, now),
                }
            });
            if fate == Fate::Fenced {
                // The database says that it is another's before the next renewal does.
                self.drop_shard(shard);
            } else {
                self.release_if_over(shard);
            }
        }
    }
}

/// Sends what an attempt's task knows when it ends, however it ends.
struct Ending {
    flight: u64,
    messages: UnboundedSender<Message>,
    answer: Option<Answer>,
    took: Duration,
}

impl Ending {
    fn with(&mut self, answer: Answer, took: Duration) {
        self.answer = Some(answer);
        self.took = took;
    }
}

impl Drop for Ending {
    fn drop(&mut self) {
        let _ = self.messages.send(Message::Ended {
            flight: self.flight,
            answer: self.answer.take(),
            took: self.took,
        });
    }
}
