//! What is counted on the way out. No label has values that a tenant chooses.

use super::policy::RULES;
use prometheus::{IntCounter, IntCounterVec, Opts, Registry};

const BLOCKED: (&str, &str) = (
    "hookstream_egress_blocked_total",
    "Connections that were not opened because the egress policy forbids them, by rule.",
);
const TOKENS: (&str, &str) = (
    "hookstream_oauth_token_fetches_total",
    "Requests for OAuth 2 tokens that ended, by outcome.",
);

#[derive(Debug, Clone)]
pub struct Metrics {
    blocked: IntCounterVec,
    tokens: IntCounterVec,
}

/// Counts that nobody reads.
impl Default for Metrics {
    fn default() -> Metrics {
        let vec = |(name, help): (&str, &str), label| {
            IntCounterVec::new(Opts::new(name, help), &[label]).expect("names written above")
        };
        Metrics {
            blocked: vec(BLOCKED, "rule"),
            tokens: vec(TOKENS, "outcome"),
        }
    }
}

impl Metrics {
    /// Registers everything; call once a registry.
    pub fn new(registry: &Registry) -> Metrics {
        let metrics = Metrics {
            blocked: service::metrics::counters(registry, BLOCKED.0, BLOCKED.1, &["rule"]),
            tokens: service::metrics::counters(registry, TOKENS.0, TOKENS.1, &["outcome"]),
        };
        // A series that is there before it counts makes the first increase visible.
        for rule in RULES {
            metrics.blocked(rule);
        }
        for outcome in ["fetched", "refused", "failed"] {
            metrics.tokens(outcome);
        }
        metrics
    }

    pub fn blocked(&self, rule: &str) -> IntCounter {
        self.blocked.with_label_values(&[rule])
    }

    /// `fetched`; `refused`: an answer without a token; `failed`: no answer.
    pub fn tokens(&self, outcome: &str) -> IntCounter {
        self.tokens.with_label_values(&[outcome])
    }
}
