//! What happens after an attempt: a pure function of the policy, the attempts so far, what is known of the last one and
//! the time.
//!
//! Delays are exactly the configured ones (no jitter unless a destination asks for it, later).

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use std::time::Duration;

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Policy {
    pub backoff: Backoff,
    /// At least one. Milliseconds in the row.
    pub intervals_ms: Vec<u64>,
    /// Retries after the first attempt.
    pub max_retries: u32,
    /// Since the event was recorded; past it the delivery is given up.
    pub max_age_ms: Option<u64>,
    pub retry_on: Vec<Retryable>,
    pub respect_retry_after: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Backoff {
    /// The next interval each time, the last one again when they are used up.
    Exponential,
    /// The first interval times the retry's number.
    Linear,
    /// The first interval every time.
    Fixed,
}

/// What is worth another attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Retryable {
    /// One status, or with `from..=to` a class of them (`5xx` is 500..=599).
    Status { from: u16, to: u16 },
    Timeout,
    Unreachable,
}

/// What is known after an attempt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// 2xx.
    Delivered { status: u16 },
    /// Any other status. `retry_after` is the parsed header.
    Refused { status: u16, retry_after: Option<Duration> },
    TimedOut,
    Unreachable,
    /// The egress policy forbids the address: retrying can't help until the policy changes.
    Blocked,
    /// Our own fault (an answer we can't parse is the destination's, not ours). Retried, not charged to the destination.
    Internal,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    Done,
    RetryAt(Timestamp),
    DeadLetter(GaveUp),
}

/// Why a delivery became a dead letter; the word in the `deliveries.reason` column.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GaveUp {
    RetriesSpent,
    NotRetryable,
    Gone,
    TooOld,
    Blocked,
}

/// The next step of a delivery recorded at `recorded_at` whose `attempts`-th attempt (from 1) has just ended with `outcome`.
pub fn next_step(policy: &Policy, attempts: u32, outcome: &Outcome, recorded_at: Timestamp, now: Timestamp) -> Step {
    let _ = (policy, attempts, outcome, recorded_at, now);
    unimplemented!("written by the routing helper")
}
