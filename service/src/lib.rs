//! What every process of ours has: logs, signals, the admin port, metrics, looping tasks, the clock.
//!
//! Knows nothing of webhooks, Kubernetes or Postgres.

pub mod admin;
pub mod args;
pub mod clock;
pub mod log;
pub mod metrics;
pub mod signals;
pub mod task;
