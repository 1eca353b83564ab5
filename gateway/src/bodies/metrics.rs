//! What is counted of objects.

use super::Lost;
use prometheus::{Histogram, IntCounter, IntCounterVec, Registry};
use service::metrics::{SECONDS, counter, counters, histogram};
use std::time::Duration;

/// Cheap to clone.
#[derive(Debug, Clone)]
pub struct Metrics {
    /// Labels: result.
    puts: IntCounterVec,
    put_bytes: IntCounter,
    put_seconds: Histogram,
    /// Labels: result.
    reads: IntCounterVec,
    /// Labels: why.
    swept: IntCounterVec,
}

impl Metrics {
    pub fn new(registry: &Registry) -> Metrics {
        let metrics = Metrics {
            puts: counters(
                registry,
                "hookstream_object_puts_total",
                "Bodies that were to be put into the object store, by result: ok, error (the sender was told to send again).",
                &["result"],
            ),
            put_bytes: counter(
                registry,
                "hookstream_object_put_bytes_total",
                "Bytes of the bodies that were put into the object store.",
            ),
            put_seconds: histogram(
                registry,
                "hookstream_object_put_seconds",
                "Duration of putting one body into the object store; its sender waits for it.",
                SECONDS,
            ),
            reads: counters(
                registry,
                "hookstream_object_reads_total",
                "Bodies that attempts asked the object store for, by result: ok, missing, error (the attempt failed by our own fault and is made again).",
                &["result"],
            ),
            swept: counters(
                registry,
                "hookstream_object_swept_total",
                "Objects that were removed, by why: orphan (no event refers to it), retention (its day is over).",
                &["why"],
            ),
        };
        // There from the start, so that a first failure is an increase.
        for result in ["ok", "error"] {
            metrics.puts.with_label_values(&[result]);
        }
        for result in ["ok", "missing", "error"] {
            metrics.reads.with_label_values(&[result]);
        }
        for why in ["orphan", "retention"] {
            metrics.swept.with_label_values(&[why]);
        }
        metrics
    }

    pub(super) fn put(&self, bytes: u64, took: Duration) {
        self.puts.with_label_values(&["ok"]).inc();
        self.put_bytes.inc_by(bytes);
        self.put_seconds.observe(took.as_secs_f64());
    }

    pub(super) fn put_failed(&self) {
        self.puts.with_label_values(&["error"]).inc();
    }

    pub(super) fn reads_ok(&self) {
        self.reads.with_label_values(&["ok"]).inc();
    }

    pub(super) fn read(&self, lost: &Lost) {
        let result = match lost {
            Lost::Missing { .. } | Lost::AnotherSize { .. } | Lost::BrokenOff { .. } => "missing",
            Lost::NoStore | Lost::Away(_) | Lost::Slow(_) | Lost::TooLarge { .. } => "error",
        };
        self.reads.with_label_values(&[result]).inc();
    }

    pub(super) fn orphans(&self, count: u64) {
        self.swept.with_label_values(&["orphan"]).inc_by(count);
    }

    pub(super) fn retired(&self, count: u64) {
        self.swept.with_label_values(&["retention"]).inc_by(count);
    }
}

impl Default for Metrics {
    fn default() -> Metrics {
        Metrics::new(&Registry::new())
    }
}
