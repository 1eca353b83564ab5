//! What is remembered of destinations across owners: written when it changed, read when a shard is gained, reset when
//! somebody asks.
//!
//! One write is under way at a time; what changes meanwhile goes into the next, so a destination that fails a thousand times
//! a second costs as many writes as Postgres answers. A shard is released once nothing of it is to be written.

use super::{Actor, Message};
use crate::scheduler::{
    circuit::{self, Change, Transition},
    destination::Destination,
};
use jiff::{SignedDuration, Timestamp};
use std::collections::{BTreeMap, HashMap, HashSet};
use store::{
    Held,
    destination_state::{self, Reset, State},
    outcomes::WrittenShards,
};
use uuid::Uuid;

/// Destinations in one statement; the others go into the next.
const BATCH: usize = 1000;

/// After a write that failed.
const PAUSE: SignedDuration = SignedDuration::from_millis(250);

/// What of the destinations waits to be written, or is being written.
#[derive(Debug, Default)]
pub(super) struct Unsaved {
    waiting: HashSet<Uuid>,
    /// Of the write under way, by shard; empty when there is none.
    saving: HashMap<Uuid, u16>,
    pause_until: Option<Timestamp>,
}

/// What was written, and under which leases.
#[derive(Debug)]
pub(in crate::scheduler) struct Saved {
    states: Vec<State>,
    epochs: BTreeMap<u16, i64>,
    written: store::Result<WrittenShards>,
}

impl Actor {
    /// Follows what happened to a destination's circuit.
    pub(super) fn note_circuit(&mut self, id: Uuid, change: Change, now: Timestamp) {
        if change.save {
            self.unsaved.waiting.insert(id);
        }
        let Some(to) = change.to else { return };
        self.metrics.circuit_transitions(to.as_str()).inc();
        self.show_circuit(id);
        let Some(row) = self.destinations.get(&id).and_then(|d| d.row.as_ref()) else {
            return;
        };
        let (namespace, name) = (&row.row.namespace, &row.row.name);
        match to {
            Transition::Opened => {
                tracing::info!(%namespace, %name, %now, "the circuit is open: deliveries wait")
            }
            Transition::Closed => {
                tracing::info!(%namespace, %name, "the circuit is closed: deliveries go again")
            }
            Transition::Probing => {}
        }
    }

    /// Shows the circuit as a metric, as long as it isn't closed.
    pub(super) fn show_circuit(&self, id: Uuid) {
        let Some(destination) = self.destinations.get(&id) else {
            return;
        };
        let Some(row) = &destination.row else { return };
        let labels = [&*row.row.namespace, &*row.row.name];
        let value = match destination.gates.circuit.state() {
            circuit::State::Closed => {
                // Most were never shown.
                let _ = self.metrics.circuit_state.remove_label_values(&labels);
                return;
            }
            circuit::State::HalfOpen => 1,
            circuit::State::Open { .. } => 2,
        };
        self.metrics
            .circuit_state
            .with_label_values(&labels)
            .set(value);
    }

    /// The destination is another replica's from now on, or nobody's.
    pub(super) fn hide_circuit(&self, destination: &Destination) {
        if destination.gates.circuit.state() != circuit::State::Closed
            && let Some(row) = &destination.row
        {
            let labels = [&*row.row.namespace, &*row.row.name];
            let _ = self.metrics.circuit_state.remove_label_values(&labels);
        }
    }

    /// What is to be written of this destination before anything else may happen.
    pub(super) fn ask_to_save(&mut self, id: Uuid) {
        self.unsaved.waiting.insert(id);
    }

    pub(super) fn is_unsaved(&self, id: Uuid) -> bool {
        self.unsaved.waiting.contains(&id) || self.unsaved.saving.contains_key(&id)
    }

    /// The destination is forgotten: what is known of it later isn't what waited to be written.
    pub(super) fn forget_unsaved(&mut self, id: Uuid) {
        self.unsaved.waiting.remove(&id);
    }

    /// Nothing of a shard waits to be written.
    pub(super) fn is_saved(&self, shard: u16) -> bool {
        let of_shard = |id: &Uuid| {
            self.destinations
                .get(id)
                .is_some_and(|destination| destination.shard == shard)
        };
        let saving = self.unsaved.saving.values().any(|other| *other == shard);
        !saving && !self.unsaved.waiting.iter().any(of_shard)
    }

    /// Writes what changed, unless that is under way.
    pub(super) fn start_saving(&mut self, now: Timestamp) {
        let unsaved = &mut self.unsaved;
        // A pause that is longer than any was begun before the wall clock was set back.
        let pauses = |until: Timestamp| now < until && until <= now + PAUSE;
        if !unsaved.saving.is_empty()
            || unsaved.waiting.is_empty()
            || unsaved.pause_until.is_some_and(pauses)
        {
            return;
        }
        let some: Vec<Uuid> = unsaved.waiting.iter().take(BATCH).copied().collect();
        let (mut states, mut epochs) = (Vec::with_capacity(some.len()), BTreeMap::new());
        for id in some {
            unsaved.waiting.remove(&id);
            let Some(destination) = self.destinations.get(&id) else {
                continue;
            };
            let Some(Some(held)) = self.shards.get(usize::from(destination.shard)) else {
                continue;
            };
            epochs.insert(destination.shard, held.epoch);
            states.push(destination.state(id, now));
        }
        if states.is_empty() {
            return;
        }
        let saving = states
            .iter()
            .map(|state| (state.destination_id, state.shard));
        unsaved.saving = saving.collect();
        let held = Held {
            holder: self.options.replica.clone(),
            epochs,
        };
        let (pool, messages) = (self.pool.clone(), self.messages.clone());
        tokio::spawn(async move {
            let written = destination_state::write(&pool, &states, &held).await;
            let epochs = held.epochs;
            let _ = messages.send(Message::Saved(Saved {
                states,
                epochs,
                written,
            }));
        });
    }

    pub(super) fn saved(&mut self, saved: Saved, now: Timestamp) {
        self.unsaved.saving.clear();
        let Saved {
            states,
            epochs,
            written,
        } = saved;
        match &written {
            Ok(_) => self.unsaved.pause_until = None,
            Err(error) => {
                tracing::warn!(
                    error = error as &dyn std::error::Error,
                    destinations = states.len(),
                    "what is remembered of destinations was not written; will try again"
                );
                self.unsaved.pause_until = Some(now + PAUSE);
            }
        }
        for state in states {
            let id = state.destination_id;
            let epoch = epochs.get(&state.shard).copied().unwrap_or_default();
            if self.shard(state.shard, epoch).is_none() {
                continue;
            }
            match &written {
                Ok(written) if written.contains(state.shard) => {
                    if let Some(until) = state.rate_granted {
                        self.change(id, |destination| destination.grant(until));
                    }
                }
                // The database says that it is another's before the next renewal does.
                Ok(_) => self.drop_shard(state.shard),
                // What is out of memory by now was gone from the table.
                Err(_) if self.destinations.contains_key(&id) => {
                    self.unsaved.waiting.insert(id);
                }
                Err(_) => {}
            }
        }
        for shard in epochs.into_keys() {
            self.release_if_over(shard);
        }
    }

    /// Takes over what the last owner of a shard wrote.
    pub(super) fn restore(&mut self, shard: u16, states: Vec<State>) {
        let mut states: HashMap<Uuid, State> = states
            .into_iter()
            .map(|state| (state.destination_id, state))
            .collect();
        let Some(Some(held)) = self.shards.get(usize::from(shard)) else {
            return;
        };
        let known: Vec<Uuid> = held.destinations.iter().copied().collect();
        for id in known {
            if let Some(state) = states.remove(&id) {
                self.change(id, |destination| destination.restore(&state));
                self.show_circuit(id);
            }
        }
        // The others are made when there is something to send to them.
        if let Some(Some(held)) = self.shards.get_mut(usize::from(shard)) {
            held.states = states;
        }
    }

    /// Somebody asks for resets of these destinations: a scan of their shards, of those that are ours, finds what is asked for.
    pub(super) fn look_for_resets(
        &mut self,
        destinations: impl IntoIterator<Item = Uuid>,
        now: Timestamp,
    ) {
        let shards: HashSet<u16> = destinations
            .into_iter()
            .map(|id| routing::shard::of(id, self.options.shards))
            .collect();
        for shard in shards {
            self.scan_now(shard, now);
        }
    }

    pub(super) fn carry_out(&mut self, resets: Vec<Reset>, now: Timestamp) {
        for Reset {
            destination_id: id,
            shard,
            mark,
        } in resets
        {
            let scanned = match self.shards.get(usize::from(shard)) {
                Some(Some(held)) if !held.leaving => held.scanned,
                // Whoever comes next does it.
                _ => continue,
            };
            self.ensure(id, shard, scanned, now);
            if let Some(change) = self.change(id, |destination| destination.reset(mark)) {
                self.note_circuit(id, change, now);
            }
            self.enqueue(id);
        }
    }

    /// Gives up what has waited past its greatest age, at the front of destinations that are held back. What lies further back
    /// is judged when it comes to the front.
    pub(super) fn expire(&mut self, now: Timestamp) {
        let held: Vec<Uuid> = self
            .destinations
            .iter()
            .filter(|(_, destination)| destination.is_held() && destination.ready() > 0)
            .map(|(id, _)| *id)
            .collect();
        for id in held {
            while self.expire_first(id, now) {}
        }
    }
}
