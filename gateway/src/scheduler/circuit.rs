//! The circuit of one destination: whether its deliveries go, wait, or are tried one at a time.
//!
//! Pure: no clock, no IO. Closed, deliveries go and failures are counted. Open, they wait. When the cooldown is over one
//! of them, the probe, goes: it closes the circuit or opens it again. After it has closed, attempts in flight grow from
//! one (each success admits one more, so they double with each round trip), since a queue that has grown for an hour
//! would trample what has just come up.
//!
//! Counted is what the destination did: an answer that isn't 2xx (a 410 as well: what is gone is gone for all of them),
//! a time-out, an address that can't be reached. Our own faults and what the egress policy forbids say nothing about it,
//! neither good nor bad. What an attempt says that began before the last transition is about another time and is not counted.

use jiff::Timestamp;
use routing::{
    delivery::{Circuit as Spec, Trip},
    retry::Outcome,
};
use std::{collections::VecDeque, time::Duration};
use store::destination_state::{self, Circuit as Saved};

/// A probe that says nothing about the destination is followed by the next after this: at once would be a hot loop.
const PAUSE: Duration = Duration::from_secs(1);

/// Parts that a window is counted in: what it forgets at a time.
const BUCKETS: i64 = 10;

/// Of a window that is over so soon, successes aren't worth writing: a new owner would find it empty.
const BRIEF: Duration = Duration::from_secs(30);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum State {
    Closed,
    /// Once `until` has come, the next attempt is the probe.
    Open {
        until: Timestamp,
    },
    /// The probe is in flight.
    HalfOpen,
}

/// What an attempt says about its destination.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Word {
    Good,
    Bad,
    Nothing,
}

impl From<&Outcome> for Word {
    fn from(outcome: &Outcome) -> Word {
        match outcome {
            Outcome::Delivered { .. } => Word::Good,
            Outcome::Refused { .. } | Outcome::TimedOut | Outcome::Unreachable => Word::Bad,
            Outcome::Blocked | Outcome::Filtered | Outcome::Internal => Word::Nothing,
        }
    }
}

/// What a call made of a circuit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Change {
    /// What Postgres has of it is out of date.
    pub(super) save: bool,
    pub(super) to: Option<Transition>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Transition {
    Opened,
    Probing,
    Closed,
}

impl Transition {
    /// The label in metrics.
    pub(super) const fn as_str(self) -> &'static str {
        match self {
            Transition::Opened => "open",
            Transition::Probing => "half_open",
            Transition::Closed => "closed",
        }
    }
}

#[derive(Debug, Clone, PartialEq)]
pub(super) struct Circuit {
    state: State,
    /// In a row, those of probes included.
    failures: u32,
    /// When it last left Closed.
    opened_at: Option<Timestamp>,
    /// Most attempts in flight, while they grow.
    ramp: Option<u32>,
    samples: Samples,
    /// Grows with each transition.
    term: u64,
}

impl Default for Circuit {
    fn default() -> Self {
        Circuit {
            state: State::Closed,
            failures: 0,
            opened_at: None,
            ramp: None,
            samples: Samples::default(),
            term: 0,
        }
    }
}

impl Circuit {
    /// As another owner left it. One whose probe was in flight is tried anew.
    pub(super) fn restore(saved: &destination_state::State) -> Circuit {
        let state = match (saved.circuit, saved.open_until) {
            (Saved::Closed, _) => State::Closed,
            (Saved::Open, until) => State::Open {
                until: until.unwrap_or(Timestamp::MIN),
            },
        };
        Circuit {
            state,
            failures: saved.failures,
            opened_at: saved.opened_at,
            // It grew to somewhere; from the beginning is always gentle enough.
            ramp: saved.ramping.then_some(1),
            samples: Samples::restore(&saved.samples),
            term: 0,
        }
    }

    /// Writes what another owner needs into `state`.
    pub(super) fn save(&self, state: &mut destination_state::State, now: Timestamp) {
        (state.circuit, state.open_until) = match self.state {
            State::Closed => (Saved::Closed, None),
            State::Open { until } => (Saved::Open, Some(until)),
            State::HalfOpen => (Saved::Open, Some(now)),
        };
        state.failures = self.failures;
        state.opened_at = self.opened_at;
        state.ramping = self.ramp.is_some();
        state.samples = self.samples.save();
    }

    pub(super) fn state(&self) -> State {
        self.state
    }

    /// Nothing is to be remembered of it.
    pub(super) fn is_plain(&self) -> bool {
        self.state == State::Closed
            && self.failures == 0
            && self.ramp.is_none()
            && self.samples.buckets.is_empty()
    }

    /// May an attempt begin, beside those that are in flight?
    pub(super) fn admits(&self, in_flight: usize, now: Timestamp) -> bool {
        match self.state {
            State::Open { until } => until <= now,
            State::Closed | State::HalfOpen => !self.is_full(in_flight),
        }
    }

    /// No attempt may begin before one has ended.
    pub(super) fn is_full(&self, in_flight: usize) -> bool {
        match self.state {
            State::Closed => self.ramp.is_some_and(|most| in_flight >= most as usize),
            State::Open { .. } => false,
            State::HalfOpen => true,
        }
    }

    /// When [`Self::admits`] changes by itself.
    pub(super) fn opens_at(&self) -> Option<Timestamp> {
        match self.state {
            State::Open { until } => Some(until),
            State::Closed | State::HalfOpen => None,
        }
    }

    /// An attempt begins. Returns the term that it belongs to.
    pub(super) fn begin(&mut self) -> (u64, Change) {
        let mut change = Change::default();
        if let State::Open { .. } = self.state {
            self.state = State::HalfOpen;
            self.term += 1;
            change.to = Some(Transition::Probing);
        }
        (self.term, change)
    }

    /// An attempt of that term ended. `concurrency` is where growing ends.
    pub(super) fn end(
        &mut self,
        spec: &Spec,
        concurrency: usize,
        term: u64,
        word: Word,
        now: Timestamp,
    ) -> Change {
        if term != self.term {
            return Change::default();
        }
        match (self.state, word) {
            (State::Closed, Word::Good) => self.succeeded(spec, concurrency, now),
            (State::Closed, Word::Bad) => self.failed(spec, now),
            (State::HalfOpen, Word::Good) => self.close(),
            (State::HalfOpen, Word::Bad) => {
                self.failures = self.failures.saturating_add(1);
                self.open(later(now, spec.cooldown))
            }
            (State::HalfOpen, Word::Nothing) => self.open(later(now, PAUSE.min(spec.cooldown))),
            (State::Closed, Word::Nothing) | (State::Open { .. }, _) => Change::default(),
        }
    }

    /// An attempt of that term was broken off by us, as if it had never begun.
    pub(super) fn given_back(&mut self, term: u64, now: Timestamp) -> Change {
        if term == self.term && self.state == State::HalfOpen {
            return self.open(now);
        }
        Change::default()
    }

    /// A person says that the destination is well.
    pub(super) fn reset(&mut self) -> Change {
        if self.state != State::Closed {
            return self.close();
        }
        let save = !self.is_plain();
        (self.failures, self.samples) = (0, Samples::default());
        Change { save, to: None }
    }

    /// There is no circuit any more: what is in flight says nothing about the next one.
    pub(super) fn forget(&mut self) {
        *self = Circuit {
            term: self.term + 1,
            ..Circuit::default()
        };
    }

    /// The wall clock was set back: no wait is longer than a cooldown from now.
    pub(super) fn clamp(&mut self, spec: &Spec, now: Timestamp) {
        if let State::Open { until } = &mut self.state {
            *until = (*until).min(later(now, spec.cooldown));
        }
    }

    fn succeeded(&mut self, spec: &Spec, concurrency: usize, now: Timestamp) -> Change {
        let mut save = std::mem::take(&mut self.failures) > 0;
        if let Some(most) = &mut self.ramp {
            *most += 1;
            if *most as usize >= concurrency {
                self.ramp = None;
                save = true;
            }
        }
        if let Trip::Share { window, .. } = &spec.trip {
            save |= self.samples.add(*window, now, false) && *window > BRIEF;
        }
        Change { save, to: None }
    }

    fn failed(&mut self, spec: &Spec, now: Timestamp) -> Change {
        self.failures = self.failures.saturating_add(1);
        if let Some(most) = &mut self.ramp {
            *most = (*most / 2).max(1);
        }
        let trips = match &spec.trip {
            Trip::InARow(most) => self.failures >= *most,
            Trip::Share {
                threshold,
                window,
                minimum,
            } => {
                self.samples.add(*window, now, true);
                let (all, failed) = self.samples.sums();
                all >= u64::from((*minimum).max(1))
                    && failed * 10_000 >= u64::from(*threshold) * all
            }
        };
        if trips {
            self.opened_at = Some(now);
            return self.open(later(now, spec.cooldown));
        }
        Change {
            save: true,
            to: None,
        }
    }

    fn open(&mut self, until: Timestamp) -> Change {
        let to = (self.state == State::Closed || self.state == State::HalfOpen)
            .then_some(Transition::Opened);
        self.state = State::Open { until };
        self.samples = Samples::default();
        self.ramp = None;
        self.term += 1;
        Change { save: true, to }
    }

    fn close(&mut self) -> Change {
        *self = Circuit {
            ramp: Some(1),
            term: self.term + 1,
            ..Circuit::default()
        };
        Change {
            save: true,
            to: Some(Transition::Closed),
        }
    }
}

fn later(at: Timestamp, by: Duration) -> Timestamp {
    at.checked_add(by).unwrap_or(Timestamp::MAX)
}

/// Attempts that ended lately, in parts of the window, the newest last.
#[derive(Debug, Clone, PartialEq, Default)]
struct Samples {
    /// Of a part; samples of another width are of another configuration and are forgotten.
    width_ms: i64,
    buckets: VecDeque<Bucket>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Bucket {
    /// Milliseconds since 1970 over the width.
    number: i64,
    all: u32,
    failed: u32,
}

impl Samples {
    /// Counts an attempt. Answers whether a new part has begun.
    fn add(&mut self, window: Duration, now: Timestamp, failed: bool) -> bool {
        let width_ms = i64::try_from(window.as_millis())
            .unwrap_or(i64::MAX)
            .max(BUCKETS)
            / BUCKETS;
        if self.width_ms != width_ms {
            *self = Samples {
                width_ms,
                buckets: VecDeque::new(),
            };
        }
        let number = now.as_millisecond().div_euclid(width_ms);
        // Of the future: the wall clock was set back.
        self.buckets
            .retain(|bucket| (number - BUCKETS + 1..=number).contains(&bucket.number));
        let begins = self.buckets.back().is_none_or(|last| last.number != number);
        if begins {
            self.buckets.push_back(Bucket {
                number,
                all: 0,
                failed: 0,
            });
        }
        if let Some(last) = self.buckets.back_mut() {
            last.all = last.all.saturating_add(1);
            last.failed = last.failed.saturating_add(u32::from(failed));
        }
        begins
    }

    /// All attempts, and those that failed.
    fn sums(&self) -> (u64, u64) {
        self.buckets.iter().fold((0, 0), |(all, failed), bucket| {
            (
                all + u64::from(bucket.all),
                failed + u64::from(bucket.failed),
            )
        })
    }

    /// The width, and three numbers a part.
    fn save(&self) -> Vec<i64> {
        if self.buckets.is_empty() {
            return Vec::new();
        }
        let parts = self
            .buckets
            .iter()
            .flat_map(|bucket| [bucket.number, bucket.all.into(), bucket.failed.into()]);
        std::iter::once(self.width_ms).chain(parts).collect()
    }

    fn restore(saved: &[i64]) -> Samples {
        let Some((&width_ms, parts)) = saved.split_first() else {
            return Samples::default();
        };
        let count = |number: i64| u32::try_from(number).unwrap_or(0);
        Samples {
            width_ms,
            buckets: parts
                .chunks_exact(3)
                .take(BUCKETS as usize)
                .map(|part| Bucket {
                    number: part[0],
                    all: count(part[1]),
                    failed: count(part[2]),
                })
                .collect(),
        }
    }
}

#[cfg(test)]
mod tests;
