//! What happens after an attempt: a pure function of the policy, the attempts so far, what is known of the last one and
//! the time.
//!
//! Delays are exactly the configured ones, unless the policy asks for jitter; the dice for it are thrown by the caller.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use std::time::Duration;

/// A `Retry-After` counts up to this: a destination may ask for patience, not for a delivery to be forgotten.
pub const LONGEST_RETRY_AFTER: Duration = Duration::from_secs(24 * 60 * 60);

/// The documented delays: 30 s, 5 min, 30 min, 2 h, 24 h.
pub const DEFAULT_INTERVALS_MS: [u64; 5] = [30_000, 300_000, 1_800_000, 7_200_000, 86_400_000];

/// Retries after the first attempt unless the resource says otherwise.
pub const DEFAULT_MAX_RETRIES: u32 = 5;

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
    /// A delay is longer or shorter by up to this share of it, in percent, 0 to 100.
    #[serde(default)]
    pub jitter_percent: u8,
}

impl Default for Policy {
    /// What the documents promise: the table of delays, five retries, every failure retried, `Retry-After` honoured.
    fn default() -> Policy {
        Policy {
            backoff: Backoff::Exponential,
            intervals_ms: DEFAULT_INTERVALS_MS.to_vec(),
            max_retries: DEFAULT_MAX_RETRIES,
            max_age_ms: None,
            retry_on: Retryable::everything(),
            respect_retry_after: true,
            jitter_percent: 0,
        }
    }
}

impl Policy {
    /// The delay before the `retry`-th retry (from 1).
    pub fn delay(&self, retry: u32) -> Duration {
        let retry = retry.max(1);
        let place = usize::try_from(retry - 1).unwrap_or(usize::MAX);
        // The compiler writes at least one interval. A row without any waits the documented first one: never a hot loop.
        let first = self
            .intervals_ms
            .first()
            .copied()
            .unwrap_or(DEFAULT_INTERVALS_MS[0]);
        let delay_ms = match self.backoff {
            Backoff::Exponential => {
                let last = self.intervals_ms.last().copied().unwrap_or(first);
                self.intervals_ms.get(place).copied().unwrap_or(last)
            }
            Backoff::Linear => first.saturating_mul(u64::from(retry)),
            Backoff::Fixed => first,
        };
        Duration::from_millis(delay_ms)
    }

    /// The delay with its jitter. `dice` is anywhere from 0 (as short as may be) to 1 (as long as may be).
    fn jittered(&self, retry: u32, dice: f64) -> Duration {
        let delay = self.delay(retry);
        if self.jitter_percent == 0 {
            return delay;
        }
        let share = f64::from(self.jitter_percent.min(100)) / 100.0;
        let factor = 1.0 + share * (2.0 * dice.clamp(0.0, 1.0) - 1.0);
        // Whole milliseconds, as the interval is.
        Duration::from_millis((delay.as_millis() as f64 * factor).round() as u64)
    }

    /// Whether a delivery recorded at `recorded_at` is older than the policy lets any be.
    pub fn is_too_old(&self, recorded_at: Timestamp, now: Timestamp) -> bool {
        self.max_age_ms
            .is_some_and(|age_ms| now > later(recorded_at, Duration::from_millis(age_ms)))
    }

    fn retries_status(&self, status: u16) -> bool {
        self.retry_on.iter().any(
            |on| matches!(on, Retryable::Status { from, to } if (*from..=*to).contains(&status)),
        )
    }
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
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Retryable {
    /// One status, or with `from..=to` a class of them (`5xx` is 500..=599).
    Status {
        from: u16,
        to: u16,
    },
    Timeout,
    Unreachable,
}

impl Retryable {
    /// Every failure that there is (410 stops all the same).
    pub fn everything() -> Vec<Retryable> {
        vec![
            Retryable::Status { from: 100, to: 999 },
            Retryable::Timeout,
            Retryable::Unreachable,
        ]
    }

    /// Reads an entry of `retryOn`: `5xx`, `429`, `Timeout`, `Unreachable`.
    pub fn parse(text: &str) -> Option<Retryable> {
        match text.as_bytes() {
            b"Timeout" => Some(Retryable::Timeout),
            b"Unreachable" => Some(Retryable::Unreachable),
            [class @ b'1'..=b'5', b'x' | b'X', b'x' | b'X'] => {
                let from = u16::from(class - b'0') * 100;
                Some(Retryable::Status {
                    from,
                    to: from + 99,
                })
            }
            [b'1'..=b'5', tens, ones] if tens.is_ascii_digit() && ones.is_ascii_digit() => {
                let status = text.parse().ok()?;
                Some(Retryable::Status {
                    from: status,
                    to: status,
                })
            }
            _ => None,
        }
    }
}

/// What is known after an attempt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// 2xx.
    Delivered {
        status: u16,
    },
    /// Any other status. `retry_after` is the parsed header, see [`parse_retry_after`].
    Refused {
        status: u16,
        retry_after: Option<Duration>,
    },
    TimedOut,
    Unreachable,
    /// The egress policy forbids the address: retrying can't help until the policy changes.
    Blocked,
    /// Nothing was sent: the connection's expression didn't let the event pass, or its transform gave nothing.
    Filtered,
    /// Our own fault (an answer we can't parse is the destination's, not ours). Retried, not charged to the destination.
    Internal,
}

impl Outcome {
    /// The word in the `attempts.outcome` column and in metrics.
    pub const fn as_str(&self) -> &'static str {
        match self {
            Outcome::Delivered { .. } => "delivered",
            Outcome::Refused { .. } => "refused",
            Outcome::TimedOut => "timed_out",
            Outcome::Unreachable => "unreachable",
            Outcome::Blocked => "blocked",
            Outcome::Filtered => "filtered",
            Outcome::Internal => "internal",
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    Done,
    /// Ended without having been sent, as its connection wants it.
    Filtered,
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
    /// It failed, and its destination's order lets the deliveries behind it go on instead of waiting.
    HeadBlocked,
    /// The destination is no longer in the routing table.
    DestinationDeleted,
}

impl GaveUp {
    pub const ALL: [GaveUp; 7] = [
        GaveUp::RetriesSpent,
        GaveUp::NotRetryable,
        GaveUp::Gone,
        GaveUp::TooOld,
        GaveUp::Blocked,
        GaveUp::HeadBlocked,
        GaveUp::DestinationDeleted,
    ];

    pub const fn as_str(self) -> &'static str {
        match self {
            GaveUp::RetriesSpent => "retries_spent",
            GaveUp::NotRetryable => "not_retryable",
            GaveUp::Gone => "gone",
            GaveUp::TooOld => "too_old",
            GaveUp::Blocked => "blocked",
            GaveUp::HeadBlocked => "head_blocked",
            GaveUp::DestinationDeleted => "destination_deleted",
        }
    }
}

/// The next step of a delivery recorded at `recorded_at` whose `attempts`-th attempt (from 1) has just ended with `outcome`.
///
/// - 410 Gone stops at once, whatever the policy lists: the destination says that it will never want it.
/// - A blocked address is retried like an unreachable one, since an administrator may allow it meanwhile.
/// - Our own fault is always worth another attempt. It spends a retry too, so that it can't go on for ever.
/// - An attempt that would begin past the maximum age isn't waited for.
/// - `dice`, from 0 to 1, decide where within its jitter a delay falls; without jitter they change nothing.
pub fn next_step(
    policy: &Policy,
    attempts: u32,
    outcome: &Outcome,
    recorded_at: Timestamp,
    now: Timestamp,
    dice: f64,
) -> Step {
    let unreachable = policy.retry_on.contains(&Retryable::Unreachable);
    let (retryable, asked, spent) = match outcome {
        Outcome::Delivered { .. } => return Step::Done,
        Outcome::Filtered => return Step::Filtered,
        Outcome::Refused { status: 410, .. } => return Step::DeadLetter(GaveUp::Gone),
        Outcome::Refused {
            status,
            retry_after,
        } => (
            policy.retries_status(*status),
            *retry_after,
            GaveUp::RetriesSpent,
        ),
        Outcome::TimedOut => {
            let timeout = policy.retry_on.contains(&Retryable::Timeout);
            (timeout, None, GaveUp::RetriesSpent)
        }
        Outcome::Unreachable => (unreachable, None, GaveUp::RetriesSpent),
        Outcome::Blocked if !unreachable => return Step::DeadLetter(GaveUp::Blocked),
        Outcome::Blocked => (true, None, GaveUp::Blocked),
        Outcome::Internal => (true, None, GaveUp::RetriesSpent),
    };
    if !retryable {
        return Step::DeadLetter(GaveUp::NotRetryable);
    }
    if attempts > policy.max_retries {
        return Step::DeadLetter(spent);
    }

    let mut delay = policy.jittered(attempts, dice);
    if policy.respect_retry_after {
        delay = delay.max(asked.unwrap_or_default().min(LONGEST_RETRY_AFTER));
    }
    let at = later(now, delay);
    match policy.is_too_old(recorded_at, at) {
        true => Step::DeadLetter(GaveUp::TooOld),
        false => Step::RetryAt(at),
    }
}

/// `at + delay`, or the last representable time.
fn later(at: Timestamp, delay: Duration) -> Timestamp {
    at.checked_add(delay).unwrap_or(Timestamp::MAX)
}

/// Reads a `Retry-After` header (RFC 9110, 10.2.3): seconds, or a date. A date that has passed is zero; anything else is `None`.
pub fn parse_retry_after(value: &[u8], now: Timestamp) -> Option<Duration> {
    let text = std::str::from_utf8(value).ok()?.trim();
    if !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit()) {
        // Beyond 64 bits is as good as the longest that counts.
        return Some(
            text.parse()
                .map_or(LONGEST_RETRY_AFTER, Duration::from_secs),
        );
    }
    let date = jiff::fmt::rfc2822::DateTimeParser::new()
        .parse_timestamp(text)
        .ok()?;
    Some(Duration::try_from(date.duration_since(now)).unwrap_or_default())
}

#[cfg(test)]
mod tests;
