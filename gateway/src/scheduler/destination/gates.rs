//! What holds a destination's deliveries back although they are due: its circuit and its rate limit.
//!
//! A gate that is shut says what opens it: a time, the end of an attempt, or a grant that Postgres has to hold first. Until
//! then the destination doesn't ask for a slot, so holding costs nothing.

use super::Destination;
use crate::scheduler::{
    circuit::{Change, Circuit, Word},
    rate::{Pace, Pass, Rate},
};
use jiff::Timestamp;
use store::destination_state::State;
use uuid::Uuid;

/// May an attempt begin?
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::scheduler) enum Gate {
    Open,
    /// By the circuit.
    Shut,
    /// By the rate limit.
    Limited,
    /// By the rate limit, until what it may use is written down.
    Ask,
}

#[derive(Debug)]
pub(in crate::scheduler) struct Gates {
    pub(in crate::scheduler) circuit: Circuit,
    rate: Option<(Pace, Rate)>,
    /// When the shard was gained: rate limits that aren't written down count from then.
    pub(in crate::scheduler) gained: Timestamp,
    /// What an earlier owner was granted.
    granted_before: Option<Timestamp>,
    /// What is to be granted.
    asked: Option<Timestamp>,
    /// Shut until then.
    pub(super) until: Option<Timestamp>,
    reset_done: Option<String>,
}

impl Gates {
    pub(super) fn new(gained: Timestamp) -> Gates {
        Gates {
            circuit: Circuit::default(),
            rate: None,
            gained,
            granted_before: None,
            asked: None,
            until: None,
            reset_done: None,
        }
    }

    fn rate_granted(&self) -> Option<Timestamp> {
        let granted = self
            .rate
            .map_or(self.granted_before, |(_, rate)| rate.granted());
        granted.max(self.asked)
    }

    /// Made anew from what is remembered of it, it would let no more through than now.
    pub(in crate::scheduler) fn is_rested(&self, now: Timestamp) -> bool {
        self.rate.is_none_or(|(_, rate)| rate.is_full(now))
    }
}

impl Destination {
    /// Takes over what the row says about them.
    pub(super) fn configure_gates(&mut self) {
        let Some(row) = &self.row else { return };
        let spec = &row.row.spec;
        let gates = &mut self.gates;
        if spec.circuit.is_none() {
            gates.circuit.forget();
        }
        if spec.rate_limit.is_none() {
            // The next limit counts on from there.
            gates.granted_before = gates.rate_granted();
        }
        gates.rate = spec.rate_limit.as_ref().map(|limit| {
            let pace = Pace::of(limit);
            let rate = match gates.rate.take() {
                Some((before, rate)) if before == pace => rate,
                Some((_, mut rate)) => {
                    rate.change(pace);
                    rate
                }
                None => Rate::new(pace, gates.gained, gates.granted_before),
            };
            (pace, rate)
        });
        (gates.until, gates.asked) = (None, None);
    }

    /// Goes on where an earlier owner was.
    pub(in crate::scheduler) fn restore(&mut self, state: &State) {
        self.gates.circuit = Circuit::restore(state);
        self.gates.reset_done = state.reset_done.clone();
        self.gates.granted_before = state.rate_granted;
        self.gates.rate = None;
        self.configure_gates();
    }

    /// What another owner needs to know.
    pub(in crate::scheduler) fn state(&self, id: Uuid, now: Timestamp) -> State {
        let mut state = State {
            destination_id: id,
            shard: self.shard,
            rate_granted: self.gates.rate_granted(),
            reset_done: self.gates.reset_done.clone(),
            ..State::default()
        };
        self.gates.circuit.save(&mut state, now);
        state
    }

    /// Is there anything of that?
    pub(in crate::scheduler) fn is_plain(&self) -> bool {
        self.gates.circuit.is_plain()
            && self.gates.rate_granted().is_none()
            && self.gates.reset_done.is_none()
    }

    /// It need not ask for a slot: something has to happen first.
    pub(in crate::scheduler) fn is_held(&self) -> bool {
        self.gates.until.is_some()
            || self.gates.asked.is_some()
            || self.gates.circuit.is_full(self.in_flight)
    }

    /// May an attempt begin now? If not, the gate stays shut until what opens it.
    pub(in crate::scheduler) fn gate(&mut self, now: Timestamp) -> Gate {
        let gates = &mut self.gates;
        if let Some(spec) = self
            .row
            .as_ref()
            .and_then(|row| row.row.spec.circuit.as_ref())
        {
            gates.circuit.clamp(spec, now);
            if !gates.circuit.admits(self.in_flight, now) {
                gates.until = gates.circuit.opens_at();
                return Gate::Shut;
            }
        }
        let Some((pace, rate)) = &mut gates.rate else {
            return Gate::Open;
        };
        match rate.pass(*pace, now) {
            Pass::Go => Gate::Open,
            Pass::At(at) => {
                gates.until = Some(at);
                Gate::Limited
            }
            Pass::Ask(until) => {
                gates.asked = Some(until);
                Gate::Ask
            }
        }
    }

    /// An attempt begins. Returns the circuit's term.
    pub(in crate::scheduler) fn begin(&mut self, now: Timestamp) -> (u64, Change) {
        if let Some((pace, rate)) = &mut self.gates.rate {
            rate.take(*pace, now);
        }
        self.gates.circuit.begin()
    }

    /// It has ended. `None`: it was broken off by us.
    pub(in crate::scheduler) fn conclude(
        &mut self,
        term: u64,
        word: Option<Word>,
        now: Timestamp,
    ) -> Change {
        let concurrency = self.concurrency();
        let spec = self.row.as_ref().map(|row| &row.row.spec);
        let spec = spec.and_then(|spec| spec.circuit.as_ref());
        let circuit = &mut self.gates.circuit;
        let change = match (spec, word) {
            (Some(spec), Some(word)) => circuit.end(spec, concurrency, term, word, now),
            // Out of the table, nothing says how patient it is: should it come back, a probe is made again.
            _ => circuit.given_back(term, now),
        };
        if change.to.is_some() {
            self.gates.until = None;
        }
        change
    }

    /// What was asked for is written down, up to then.
    pub(in crate::scheduler) fn grant(&mut self, until: Timestamp) {
        if let Some((_, rate)) = &mut self.gates.rate {
            rate.grant(until);
        }
        if self.gates.asked.is_some_and(|asked| asked <= until) {
            self.gates.asked = None;
        }
    }

    /// Somebody asks for a closed circuit. `mark` tells this request from the next.
    pub(in crate::scheduler) fn reset(&mut self, mark: String) -> Change {
        if self.gates.reset_done.as_ref() == Some(&mark) {
            return Change::default();
        }
        self.gates.reset_done = Some(mark);
        self.gates.until = None;
        let change = self.gates.circuit.reset();
        Change {
            save: true,
            ..change
        }
    }

    /// The wall clock was set back: what waits for a time looks again.
    pub(in crate::scheduler) fn distrust_times(&mut self) {
        self.gates.until = None;
    }
}

#[cfg(test)]
mod tests;
