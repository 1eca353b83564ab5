//! What a pool counts. Handles are kept; no label has values that a tenant chooses.

use crate::pool::Evaluation;
use prometheus::{Histogram, IntCounter, IntGauge, Registry};
use service::metrics;

#[derive(Debug, Clone)]
pub struct Metrics {
    outcomes: [IntCounter; 4],
    pub(crate) seconds: Histogram,
    pub(crate) waiting: IntGauge,
    pub(crate) children: IntGauge,
    pub(crate) over_deadline: IntCounter,
    pub(crate) died: IntCounter,
    pub(crate) recycled: IntCounter,
    pub(crate) not_started: IntCounter,
}

impl Metrics {
    /// Registers everything; call once a registry.
    pub fn new(registry: &Registry) -> Metrics {
        let outcomes = metrics::counters(
            registry,
            "hookstream_sandbox_evaluations_total",
            "JSONata evaluations, by what came of them; unavailable is our own fault.",
            &["outcome"],
        );
        let ended = metrics::counters(
            registry,
            "hookstream_sandbox_children_ended_total",
            "Sandbox processes that were replaced, by why; not_started counts tries.",
            &["reason"],
        );
        let ended = |reason: &str| ended.with_label_values(&[reason]);
        Metrics {
            outcomes: ["value", "undefined", "failed", "unavailable"]
                .map(|outcome| outcomes.with_label_values(&[outcome])),
            seconds: metrics::histogram(
                registry,
                "hookstream_sandbox_evaluation_seconds",
                "Time of one JSONata evaluation in its process, parsing and printing JSON included.",
                &[
                    0.00001, 0.000025, 0.00005, 0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005,
                    0.01, 0.05, 0.25, 1.0,
                ],
            ),
            waiting: metrics::gauge(
                registry,
                "hookstream_sandbox_waiting",
                "Evaluations and checks that no sandbox process has taken yet.",
            ),
            children: metrics::gauge(
                registry,
                "hookstream_sandbox_children",
                "Sandbox processes that run.",
            ),
            over_deadline: ended("deadline"),
            died: ended("died"),
            recycled: ended("recycled"),
            not_started: ended("not_started"),
        }
    }

    pub(crate) fn evaluated(&self, evaluation: &Evaluation) {
        let place = match evaluation {
            Evaluation::Value(_) => 0,
            Evaluation::Undefined => 1,
            Evaluation::Failed(_) => 2,
            Evaluation::Unavailable(_) => 3,
        };
        self.outcomes[place].inc();
    }
}

impl Default for Metrics {
    /// In a registry that nobody reads.
    fn default() -> Metrics {
        Metrics::new(&Registry::new())
    }
}
