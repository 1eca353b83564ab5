//! The operator's metrics: every name, unit and sentence in one place.

use prometheus::{Gauge, Histogram, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Registry};
use service::metrics::{SECONDS, counter, counters, gauge, gauge_seconds, gauges, histogram};

/// Handles; cheap to clone.
#[derive(Debug, Clone)]
pub struct Metrics {
    pub leader: IntGauge,
    pub epoch: IntGauge,
    pub revision: IntGauge,
    pub rows: IntGauge,
    pub objects: IntGaugeVec,
    pub crds_missing: IntGauge,
    pub watch_errors: IntCounterVec,
    pub compile_seconds: Histogram,
    pub publish_seconds: Histogram,
    pub published_rows: IntCounter,
    pub publish_failures: IntCounterVec,
    pub removals_held: IntGauge,
    pub repairs: IntCounter,
    pub restored: IntCounter,
    pub last_publish: Gauge,
    pub secret_reads: IntCounterVec,
    pub status_writes: IntCounterVec,
    pub status_queue: IntGauge,
    pub events: IntCounterVec,
    pub replicas: IntGauge,
    pub slowest_revision: IntGauge,
}

impl Metrics {
    pub fn new(registry: &Registry) -> Metrics {
        Metrics {
            leader: gauge(
                registry,
                "hookstream_operator_leader",
                "1 while this operator holds the lease and publishes.",
            ),
            epoch: gauge(
                registry,
                "hookstream_operator_epoch",
                "Epoch of the routing table that this operator publishes under; 0 while another leads.",
            ),
            revision: gauge(
                registry,
                "hookstream_operator_revision",
                "Newest revision of the routing table that this operator published or found; 0 while another leads.",
            ),
            rows: gauge(
                registry,
                "hookstream_operator_rows",
                "Rows of the routing table that this operator publishes; 0 while another leads.",
            ),
            objects: gauges(
                registry,
                "hookstream_operator_objects",
                "Custom resources, by kind and whether they are ready.",
                &["kind", "ready"],
            ),
            crds_missing: gauge(
                registry,
                "hookstream_operator_crds_missing",
                "Custom resource definitions that the API server does not have.",
            ),
            watch_errors: counters(
                registry,
                "hookstream_operator_watch_errors_total",
                "Watches and lists that failed and are tried again.",
                &["kind"],
            ),
            compile_seconds: histogram(
                registry,
                "hookstream_operator_compile_seconds",
                "Time of one compile of what changed.",
                SECONDS,
            ),
            publish_seconds: histogram(
                registry,
                "hookstream_operator_publish_seconds",
                "Time of one publishing transaction.",
                SECONDS,
            ),
            published_rows: counter(
                registry,
                "hookstream_operator_published_rows_total",
                "Rows written to or removed from the routing table.",
            ),
            publish_failures: counters(
                registry,
                "hookstream_operator_publish_failures_total",
                "Publishing transactions that failed.",
                &["reason"],
            ),
            removals_held: gauge(
                registry,
                "hookstream_operator_removals_held",
                "Rows whose removal waits because it would take more than half of the table or of a kind.",
            ),
            repairs: counter(
                registry,
                "hookstream_operator_table_repairs_total",
                "Rows that the periodic comparison found different from what was published.",
            ),
            restored: counter(
                registry,
                "hookstream_operator_restored_databases_total",
                "Times the routing table was found older than what was published, and published anew.",
            ),
            last_publish: gauge_seconds(
                registry,
                "hookstream_operator_last_publish_timestamp_seconds",
                "Unix time of the last publishing transaction that changed something.",
            ),
            secret_reads: counters(
                registry,
                "hookstream_operator_secret_reads_total",
                "Secrets read from the API server, by result.",
                &["result"],
            ),
            status_writes: counters(
                registry,
                "hookstream_operator_status_writes_total",
                "Statuses written, by result.",
                &["result"],
            ),
            status_queue: gauge(
                registry,
                "hookstream_operator_status_queue",
                "Objects whose status waits to be written.",
            ),
            events: counters(
                registry,
                "hookstream_operator_events_total",
                "Kubernetes Events, by result.",
                &["result"],
            ),
            replicas: gauge(
                registry,
                "hookstream_operator_gateways",
                "Live gateway replicas that have loaded a routing table.",
            ),
            slowest_revision: gauge(
                registry,
                "hookstream_operator_slowest_gateway_revision",
                "Oldest revision that a live gateway routes by.",
            ),
        }
    }

    /// Another operator leads: what only the leader knows must not stay at what it was.
    pub fn follows(&self) {
        for gauge in [
            &self.leader,
            &self.epoch,
            &self.revision,
            &self.rows,
            &self.removals_held,
        ] {
            gauge.set(0);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_follower_shows_nothing_of_its_former_table() {
        let registry = Registry::new();
        let metrics = Metrics::new(&registry);
        metrics.leader.set(1);
        metrics.epoch.set(3);
        metrics.revision.set(40);
        metrics.rows.set(500);
        metrics.removals_held.set(6);
        metrics.follows();
        let shown = [
            &metrics.leader,
            &metrics.epoch,
            &metrics.revision,
            &metrics.rows,
            &metrics.removals_held,
        ];
        assert!(shown.iter().all(|gauge| gauge.get() == 0));
    }
}
