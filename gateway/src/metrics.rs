//! The names of what the gateway counts, each with its unit and a sentence; those of delivery are in `scheduler::metrics`.
//!
//! Labels come from configuration (a namespace, a source, a destination) or from an enum of ours, never from a sender.
//! Handles are kept by whoever counts; a series of a source leaves when the source has left the table (`ingest::sources`).

use crate::{egress, scheduler::DeliveryMetrics};
use prometheus::{
    Gauge, GaugeVec, Histogram, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Registry,
};
use service::metrics::{
    SECONDS, counter, counters, gauge, gauge_seconds, gauges, gauges_seconds, histogram,
};
use std::sync::Arc;

/// All of them; made once per process.
#[derive(Debug)]
pub struct Metrics {
    pub ingest: Ingest,
    pub recorder: Recorder,
    pub table: Table,
    pub housekeeping: Housekeeping,
    pub jobs: Jobs,
    pub pool: Pool,
    pub delivery: DeliveryMetrics,
    pub egress: egress::Metrics,
    pub tasks: service::task::Metrics,
}

impl Metrics {
    pub fn new(registry: &Registry) -> Arc<Metrics> {
        gauges(
            registry,
            "hookstream_build_info",
            "Always 1; the version is a label.",
            &["version"],
        )
        .with_label_values(&[env!("CARGO_PKG_VERSION")])
        .set(1);
        Arc::new(Metrics {
            ingest: Ingest::new(registry),
            recorder: Recorder::new(registry),
            table: Table::new(registry),
            housekeeping: Housekeeping::new(registry),
            jobs: Jobs::new(registry),
            pool: Pool::new(registry),
            delivery: DeliveryMetrics::new(registry),
            egress: egress::Metrics::new(registry),
            tasks: service::task::Metrics::new(registry),
        })
    }
}

/// From the socket to the answer.
#[derive(Debug)]
pub struct Ingest {
    /// Labels: namespace, source.
    pub accepted: IntCounterVec,
    /// Labels: namespace, source (both empty when there is none), reason.
    pub refused: IntCounterVec,
    /// Labels: namespace, source, kind.
    pub replied: IntCounterVec,
    /// Labels: namespace, source, mark.
    pub marked: IntCounterVec,
    /// Labels: kind, result.
    pub documents: IntCounterVec,
    pub body_bytes: IntCounter,
    pub request_seconds: Histogram,
    pub in_flight: IntGauge,
    pub buffered_bytes: IntGauge,
    pub connections: IntGauge,
    pub rate_limit_replicas: IntGauge,
}

impl Ingest {
    fn new(registry: &Registry) -> Ingest {
        Ingest {
            accepted: counters(
                registry,
                "hookstream_ingest_accepted_total",
                "Requests recorded and answered with success.",
                &["namespace", "source"],
            ),
            refused: counters(
                registry,
                "hookstream_ingest_refused_total",
                "Requests of which nothing was recorded, by reason; namespace and source are empty when the request named none.",
                &["namespace", "source", "reason"],
            ),
            replied: counters(
                registry,
                "hookstream_ingest_replied_total",
                "Requests that were answered as they asked and of which nothing was recorded, by kind: a provider's handshake, a browser's preflight.",
                &["namespace", "source", "kind"],
            ),
            marked: counters(
                registry,
                "hookstream_ingest_marked_total",
                "Events that were recorded with a mark: duplicate (of an earlier one; it goes nowhere), schema_invalid (it doesn't fit the source's schema, which only warns).",
                &["namespace", "source", "mark"],
            ),
            documents: counters(
                registry,
                "hookstream_ingest_key_fetches_total",
                "Fetches of what requests are verified with (a JWKS document, a certificate) and of subscriptions to confirm, by result: ok, error, timeout, limited.",
                &["kind", "result"],
            ),
            body_bytes: counter(
                registry,
                "hookstream_ingest_body_bytes_total",
                "Bytes of the bodies of accepted requests.",
            ),
            request_seconds: histogram(
                registry,
                "hookstream_ingest_request_seconds",
                "From the request's head to the answer, commit included, of accepted requests.",
                SECONDS,
            ),
            in_flight: gauge(
                registry,
                "hookstream_ingest_requests_in_flight",
                "Requests being read or waiting for their commit.",
            ),
            buffered_bytes: gauge(
                registry,
                "hookstream_ingest_buffered_bytes",
                "Bytes of heads and bodies held for requests in flight.",
            ),
            connections: gauge(
                registry,
                "hookstream_ingest_connections",
                "Open connections on the public port.",
            ),
            rate_limit_replicas: gauge(
                registry,
                "hookstream_ingest_rate_limit_replicas",
                "Replicas that take events, as this one counts them: each has its share of the sources' rate limits.",
            ),
        }
    }
}

/// The commit that many requests share.
#[derive(Debug)]
pub struct Recorder {
    pub batch_events: Histogram,
    pub commit_seconds: Histogram,
    pub retries: IntCounter,
    pub failed_events: IntCounter,
    pub deliveries: IntCounter,
}

impl Recorder {
    fn new(registry: &Registry) -> Recorder {
        Recorder {
            batch_events: histogram(
                registry,
                "hookstream_commit_batch_events",
                "Events that shared one commit.",
                &[1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 512.0],
            ),
            commit_seconds: histogram(
                registry,
                "hookstream_commit_seconds",
                "Duration of one commit of recorded events.",
                SECONDS,
            ),
            retries: counter(
                registry,
                "hookstream_commit_retries_total",
                "Commits tried again because the first answer was lost or refused.",
            ),
            failed_events: counter(
                registry,
                "hookstream_commit_failed_events_total",
                "Events that could not be recorded; their senders were told so.",
            ),
            deliveries: counter(
                registry,
                "hookstream_deliveries_recorded_total",
                "Deliveries recorded together with their events.",
            ),
        }
    }
}

/// The routing table in memory.
#[derive(Debug)]
pub struct Table {
    pub epoch: IntGauge,
    pub revision: IntGauge,
    pub staleness_seconds: Gauge,
    pub unreadable_rows: IntGauge,
}

impl Table {
    fn new(registry: &Registry) -> Table {
        Table {
            epoch: gauge(
                registry,
                "hookstream_table_epoch",
                "Epoch of the routing table in use; it grows with each new leader of the operator.",
            ),
            revision: gauge(
                registry,
                "hookstream_table_revision",
                "Revision of the routing table in use.",
            ),
            staleness_seconds: gauge_seconds(
                registry,
                "hookstream_table_staleness_seconds",
                "Time since this replica last knew that its routing table was the newest.",
            ),
            unreadable_rows: gauge(
                registry,
                "hookstream_table_unreadable_rows",
                "Rows that this version cannot read or open; each keeps its last readable content.",
            ),
        }
    }
}

/// What one replica measures and tidies for all.
#[derive(Debug)]
pub struct Housekeeping {
    /// Labels: state.
    pub queue_deliveries: IntGaugeVec,
    /// Labels: state.
    pub queue_oldest_seconds: GaugeVec,
    /// No labels; a vector, so that a replica that no longer measures shows nothing.
    pub retention_lag_seconds: GaugeVec,
    pub retention_lost_deliveries: IntCounter,
    pub dedup_expired: IntCounter,
    pub idempotency_expired: IntCounter,
    /// As above.
    pub scheduled_events: IntGaugeVec,
    /// As above.
    pub scheduled_overdue_seconds: GaugeVec,
    pub scheduled_published: IntCounter,
    pub scheduled_late_seconds: Histogram,
    /// As above.
    pub dedup_overdue_seconds: GaugeVec,
    /// As above.
    pub partitions_ahead: IntGaugeVec,
}

impl Housekeeping {
    fn new(registry: &Registry) -> Housekeeping {
        Housekeeping {
            queue_deliveries: gauges(
                registry,
                "hookstream_queue_deliveries",
                "Deliveries that are not finished, by state; counted up to a bound. Only the replica that measures shows it.",
                &["state"],
            ),
            queue_oldest_seconds: gauges_seconds(
                registry,
                "hookstream_queue_oldest_age_seconds",
                "Age of the oldest delivery that is not finished, by state. Only the replica that measures shows it.",
                &["state"],
            ),
            retention_lag_seconds: gauges_seconds(
                registry,
                "hookstream_retention_lag_seconds",
                "How much older than the retention the oldest kept history is; 0 when retention keeps up. Only the replica that tidies shows it.",
                &[],
            ),
            retention_lost_deliveries: counter(
                registry,
                "hookstream_retention_lost_deliveries_total",
                "Deliveries that were still queued when retention dropped their events: they will never be made.",
            ),
            dedup_expired: counter(
                registry,
                "hookstream_dedup_expired_total",
                "Keys of events that were forgotten, since their window was over.",
            ),
            idempotency_expired: counter(
                registry,
                "hookstream_idempotency_expired_total",
                "Answers to publications that were forgotten, a day after they were given.",
            ),
            scheduled_events: gauges(
                registry,
                "hookstream_scheduled_events",
                "Events that are to be published later, counted up to a bound. Only the replica that publishes them shows it.",
                &[],
            ),
            scheduled_overdue_seconds: gauges_seconds(
                registry,
                "hookstream_scheduled_overdue_seconds",
                "For how long the oldest event that is due has not been published. Only the replica that publishes them shows it.",
                &[],
            ),
            scheduled_published: counter(
                registry,
                "hookstream_scheduled_published_total",
                "Scheduled events that were published when they were due.",
            ),
            scheduled_late_seconds: histogram(
                registry,
                "hookstream_scheduled_late_seconds",
                "From the time at which an event was due to its commit.",
                SECONDS,
            ),
            dedup_overdue_seconds: gauges_seconds(
                registry,
                "hookstream_dedup_overdue_seconds",
                "For how long the oldest key that is still kept could have been forgotten; it grows when the sweep can't keep up. Only the replica that sweeps shows it.",
                &[],
            ),
            partitions_ahead: gauges(
                registry,
                "hookstream_partitions_ahead",
                "Days after today whose partitions exist already. Only the replica that tidies shows it.",
                &[],
            ),
        }
    }
}

/// What people asked for to be done to many deliveries.
#[derive(Debug)]
pub struct Jobs {
    /// No labels; a vector, so that a replica that no longer works on them shows nothing.
    pub running: IntGaugeVec,
    /// Labels: result.
    pub deliveries: IntCounterVec,
    /// Labels: state.
    pub ended: IntCounterVec,
}

impl Jobs {
    fn new(registry: &Registry) -> Jobs {
        Jobs {
            running: gauges(
                registry,
                "hookstream_jobs_running",
                "Jobs that are not done and were not stopped. Only the replica that works on them shows it.",
                &[],
            ),
            deliveries: counters(
                registry,
                "hookstream_job_deliveries_total",
                "Deliveries that jobs came to, by result: retried, or the reason why one can't be.",
                &["result"],
            ),
            ended: counters(
                registry,
                "hookstream_jobs_ended_total",
                "Jobs that came to their end, by state: done, or failed; their rows say why.",
                &["state"],
            ),
        }
    }
}

/// Connections to Postgres.
#[derive(Debug)]
pub struct Pool {
    /// Labels: state.
    pub connections: IntGaugeVec,
    pub max: IntGauge,
}

impl Pool {
    fn new(registry: &Registry) -> Pool {
        Pool {
            connections: gauges(
                registry,
                "hookstream_postgres_connections",
                "Connections in the pool, by state.",
                &["state"],
            ),
            max: gauge(
                registry,
                "hookstream_postgres_connections_max",
                "Most connections that the pool may open.",
            ),
        }
    }
}
