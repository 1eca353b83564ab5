//! What delivery counts. Handles are kept; no label has values that a sender chooses.

use prometheus::{Histogram, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Registry};
use routing::retry::{GaveUp, Outcome};
use service::metrics;
use std::time::Duration;
use store::attempts::Trigger;

#[derive(Debug, Clone)]
pub struct DeliveryMetrics {
    attempts: [IntCounter; 7],
    pub(crate) attempt_seconds: Histogram,
    pub(crate) delivered: IntCounter,
    pub(crate) filtered: IntCounter,
    pub(crate) dead_letters: IntCounter,
    /// Labels: reason.
    dead_letter_reasons: IntCounterVec,
    triggers: [IntCounter; 4],
    pub(crate) retries: IntCounter,
    /// From the recording of an event to the end of its first attempt.
    pub(crate) first_attempt_seconds: Histogram,
    pub(crate) in_flight: IntGauge,
    pub(crate) window_deliveries: IntGauge,
    pub(crate) window_bytes: IntGauge,
    pub(crate) destinations: IntGauge,
    pub(crate) shards_held: IntGauge,
    pub(crate) loads: IntCounter,
    pub(crate) given_back: IntCounter,
    pub(crate) outcome_batch: Histogram,
    pub(crate) outcome_write_seconds: Histogram,
    pub(crate) outcomes_unwritten: IntGauge,
    pub(crate) outcomes_discarded: IntCounter,
    pub(crate) notifications: IntCounter,
    pub(crate) circuit_state: IntGaugeVec,
    circuit_transitions: IntCounterVec,
    pub(crate) rate_limited: IntCounter,
    pub(crate) order_blocked: IntGauge,
    pub(crate) order_crowded: IntGauge,
}

const WORDS: [&str; 7] = [
    "delivered",
    "refused",
    "timed_out",
    "unreachable",
    "blocked",
    "filtered",
    "internal",
];

impl DeliveryMetrics {
    /// Registers everything; call once a registry.
    pub fn new(registry: &Registry) -> DeliveryMetrics {
        let seconds: Vec<f64> = metrics::SECONDS
            .iter()
            .copied()
            .chain([30.0, 60.0])
            .collect();
        let batch: Vec<f64> = (0..10).map(|n| f64::from(1 << n)).collect();
        let counter = |name: &str, help: &str| metrics::counter(registry, name, help);
        let gauge = |name: &str, help: &str| metrics::gauge(registry, name, help);
        let attempts = metrics::counters(
            registry,
            "hookstream_delivery_attempts_total",
            "Attempts that ended, by what is known afterwards.",
            &["outcome"],
        );
        let triggers = metrics::counters(
            registry,
            "hookstream_delivery_triggers_total",
            "Attempts that ended, by why they were made: an initial one, an automatic retry, a manual one, a job's.",
            &["trigger"],
        );
        let finished = metrics::counters(
            registry,
            "hookstream_deliveries_finished_total",
            "Deliveries that ended, by how.",
            &["state"],
        );
        DeliveryMetrics {
            attempts: WORDS.map(|word| attempts.with_label_values(&[word])),
            attempt_seconds: metrics::histogram(
                registry,
                "hookstream_delivery_attempt_seconds",
                "Time of one attempt, from DNS to the last byte that is kept.",
                &seconds,
            ),
            delivered: finished.with_label_values(&["delivered"]),
            filtered: finished.with_label_values(&["filtered"]),
            dead_letters: finished.with_label_values(&["dead_letter"]),
            dead_letter_reasons: metrics::counters(
                registry,
                "hookstream_dead_letters_total",
                "Deliveries that were given up, by reason.",
                &["reason"],
            ),
            triggers: Trigger::WORDS.map(|word| triggers.with_label_values(&[word])),
            retries: counter(
                "hookstream_delivery_retries_total",
                "Attempts after which another one was planned.",
            ),
            first_attempt_seconds: metrics::histogram(
                registry,
                "hookstream_delivery_first_attempt_seconds",
                "Time from the recording of an event to the end of a delivery's first attempt.",
                &seconds,
            ),
            in_flight: gauge("hookstream_delivery_in_flight", "Attempts under way."),
            window_deliveries: gauge(
                "hookstream_delivery_window_deliveries",
                "Deliveries in memory that are not in flight.",
            ),
            window_bytes: gauge(
                "hookstream_delivery_window_bytes",
                "Headers and bodies in memory: of deliveries, those in flight included, and of answers that wait for their commit.",
            ),
            destinations: gauge(
                "hookstream_delivery_destinations",
                "Destinations that this replica has something in memory of.",
            ),
            shards_held: gauge(
                "hookstream_delivery_shards_held",
                "Shards whose lease this replica holds.",
            ),
            loads: counter(
                "hookstream_delivery_loads_total",
                "Pages read from the queue.",
            ),
            given_back: counter(
                "hookstream_delivery_given_back_total",
                "Attempts broken off at shutdown, which count for nothing.",
            ),
            outcome_batch: metrics::histogram(
                registry,
                "hookstream_delivery_outcome_batch_size",
                "Outcomes in one commit.",
                &batch,
            ),
            outcome_write_seconds: metrics::histogram(
                registry,
                "hookstream_delivery_outcome_write_seconds",
                "Time of one commit of outcomes.",
                metrics::SECONDS,
            ),
            outcomes_unwritten: gauge(
                "hookstream_delivery_outcomes_unwritten",
                "Outcomes that wait for their commit.",
            ),
            outcomes_discarded: counter(
                "hookstream_delivery_outcomes_discarded_total",
                "Outcomes not written because the shard's lease was lost; their deliveries are attempted again.",
            ),
            circuit_state: metrics::gauges(
                registry,
                "hookstream_delivery_circuit_state",
                "Circuits of this replica's destinations that are not closed: 2 is open, 1 half-open.",
                &["namespace", "name"],
            ),
            circuit_transitions: metrics::counters(
                registry,
                "hookstream_delivery_circuit_transitions_total",
                "Changes of circuits, by what they became.",
                &["to"],
            ),
            rate_limited: counter(
                "hookstream_delivery_rate_limited_total",
                "Times that a destination with something to send had to wait for its rate limit.",
            ),
            order_blocked: gauge(
                "hookstream_delivery_order_blocked",
                "Keys of strict orders whose first delivery waits for a retry, and so do those behind it.",
            ),
            order_crowded: gauge(
                "hookstream_delivery_order_crowded",
                "Destinations with a strict order by key of which so many deliveries wait behind others that no more are read.",
            ),
            notifications: counter(
                "hookstream_delivery_notifications_total",
                "Notifications sent to replicas that own other shards.",
            ),
        }
    }

    pub(crate) fn circuit_transitions(&self, to: &str) -> IntCounter {
        self.circuit_transitions.with_label_values(&[to])
    }

    pub(crate) fn dead_letter(&self, reason: GaveUp, deliveries: u64) {
        self.dead_letters.inc_by(deliveries);
        self.dead_letter_reasons
            .with_label_values(&[reason.as_str()])
            .inc_by(deliveries);
    }

    pub(crate) fn attempt(&self, outcome: &Outcome, trigger: Trigger, took: Duration) {
        if let Some(counter) = Trigger::WORDS
            .iter()
            .position(|word| *word == trigger.as_str())
            .and_then(|n| self.triggers.get(n))
        {
            counter.inc();
        }
        let word = outcome.as_str();
        if let Some(counter) = WORDS
            .iter()
            .position(|other| *other == word)
            .and_then(|n| self.attempts.get(n))
        {
            counter.inc();
        }
        self.attempt_seconds.observe(took.as_secs_f64());
    }
}
