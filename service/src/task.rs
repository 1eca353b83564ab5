//! A task that loops: woken by a signal and by a timer, the same code both ways, and it says when it last succeeded.
//!
//! The work is one `activate()` that takes no input, so that the rare path (the timer, after a lost signal) is the usual
//! path, and a test calls it once.

use crate::{clock, metrics};
use prometheus::{GaugeVec, IntCounterVec, Registry};
use std::{future::Future, sync::Arc, time::Duration};
use tokio::{sync::Notify, task::JoinHandle};
use tokio_util::sync::CancellationToken;

/// What loops say of themselves, one series a task.
#[derive(Debug, Clone)]
pub struct Metrics {
    failures: IntCounterVec,
    last_success: GaugeVec,
}

impl Metrics {
    pub fn new(registry: &Registry) -> Metrics {
        Metrics {
            failures: metrics::counters(
                registry,
                "hookstream_task_failures_total",
                "Activations of a background task that ended in an error.",
                &["task"],
            ),
            last_success: metrics::gauges_seconds(
                registry,
                "hookstream_task_last_success_timestamp_seconds",
                "Unix time at which a background task last did all its work.",
                &["task"],
            ),
        }
    }
}

/// Something to do now and then.
pub trait Task: Send + 'static {
    /// The word in logs and metrics.
    const NAME: &'static str;

    /// Does all there is to do now. An error is logged and counted, and the next activation tries again.
    fn activate(&mut self) -> impl Future<Output = anyhow::Result<()>> + Send;
}

/// Activates a task at once, whenever it is woken, and at least every `period`, until the token is cancelled.
/// An activation that runs when the token is cancelled is finished first.
pub fn spawn<T: Task>(
    mut task: T,
    period: Duration,
    wake: Arc<Notify>,
    metrics: &Metrics,
    token: CancellationToken,
) -> JoinHandle<()> {
    let failures = metrics.failures.with_label_values(&[T::NAME]);
    let last_success = metrics.last_success.with_label_values(&[T::NAME]);
    tokio::spawn(async move {
        loop {
            match task.activate().await {
                Ok(()) => last_success.set(clock::now().as_millisecond() as f64 / 1e3),
                Err(error) => {
                    failures.inc();
                    tracing::warn!(
                        task = T::NAME,
                        error = format!("{error:#}"),
                        "will try again"
                    );
                }
            }
            tokio::select! {
                () = token.cancelled() => return,
                () = wake.notified() => {}
                () = tokio::time::sleep(period) => {}
            }
        }
    })
}
