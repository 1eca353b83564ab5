//! `spec.retry` of a destination or a connection: the defaults filled in, the bounds checked.

use super::findings::{Findings, Reason};
use crate::{
    duration,
    retry::{Backoff, DEFAULT_INTERVALS_MS, DEFAULT_MAX_RETRIES, Policy, Retryable},
};
use std::time::Duration;

/// A delivery that waits longer for one retry is forgotten, not retried.
const LONGEST_INTERVAL: Duration = Duration::from_secs(30 * 24 * 60 * 60);

/// As the schema says.
const MOST_RETRIES: u32 = 100;

pub(super) fn compile(retry: &crds::Retry, path: &str, findings: &mut Findings) -> Policy {
    Policy {
        backoff: match retry.backoff {
            None | Some(crds::Backoff::Exponential) => Backoff::Exponential,
            Some(crds::Backoff::Linear) => Backoff::Linear,
            Some(crds::Backoff::Fixed) => Backoff::Fixed,
        },
        intervals_ms: intervals(retry.intervals.as_deref(), path, findings),
        max_retries: max_retries(retry.max_retries, path, findings),
        max_age_ms: retry
            .max_age
            .as_ref()
            .and_then(|age| positive(&age.0, &format!("{path}.maxAge"), findings)),
        retry_on: retry_on(retry.retry_on.as_deref(), path, findings),
        respect_retry_after: retry.respect_retry_after.unwrap_or(true),
        jitter_percent: jitter(retry.jitter.as_deref(), path, findings),
    }
}

fn jitter(written: Option<&str>, path: &str, findings: &mut Findings) -> u8 {
    let Some(written) = written else {
        return 0;
    };
    let digits = written.strip_suffix('%').unwrap_or_default();
    match digits.parse::<u8>() {
        Ok(percent @ 0..=100) if digits.bytes().all(|b| b.is_ascii_digit()) => percent,
        _ => {
            findings.add(
                Reason::UnsupportedValue,
                format!("{path}.jitter"),
                format!("`{written}` is no share; write a whole percentage, as `20%`"),
            );
            0
        }
    }
}

/// A duration above zero, in milliseconds.
fn positive(text: &str, path: &str, findings: &mut Findings) -> Option<u64> {
    let duration = findings.value(duration::parse(text), Reason::UnsupportedValue, path)?;
    if duration.is_zero() {
        findings.add(
            Reason::UnsupportedValue,
            path,
            format!("`{text}` is no time at all; write at least `1ms`"),
        );
        return None;
    }
    u64::try_from(duration.as_millis()).ok()
}

fn intervals(written: Option<&[crds::Duration]>, path: &str, findings: &mut Findings) -> Vec<u64> {
    let Some(written) = written else {
        return DEFAULT_INTERVALS_MS.to_vec();
    };
    if written.is_empty() {
        let message = "an empty list says nothing; write at least one interval, as [30s], or leave it out for the default";
        findings.add(
            Reason::UnsupportedValue,
            format!("{path}.intervals"),
            message,
        );
    }
    let mut intervals_ms = Vec::with_capacity(written.len());
    for (place, interval) in written.iter().enumerate() {
        let path = format!("{path}.intervals[{place}]");
        let Some(interval_ms) = positive(&interval.0, &path, findings) else {
            continue;
        };
        if u128::from(interval_ms) > LONGEST_INTERVAL.as_millis() {
            findings.add(
                Reason::UnsupportedValue,
                path,
                format!("`{}` is longer than 30d, the most", interval.0),
            );
        }
        intervals_ms.push(interval_ms);
    }
    intervals_ms
}

fn max_retries(written: Option<i32>, path: &str, findings: &mut Findings) -> u32 {
    let Some(written) = written else {
        return DEFAULT_MAX_RETRIES;
    };
    match u32::try_from(written) {
        Ok(retries) if retries <= MOST_RETRIES => retries,
        _ => {
            let message = format!("`{written}` is out of range; write 0 to {MOST_RETRIES}");
            findings.add(
                Reason::UnsupportedValue,
                format!("{path}.maxRetries"),
                message,
            );
            0
        }
    }
}

fn retry_on(
    written: Option<&[crds::RetryOn]>,
    path: &str,
    findings: &mut Findings,
) -> Vec<Retryable> {
    let Some(written) = written else {
        return Retryable::everything();
    };
    let mut entries = Vec::with_capacity(written.len());
    for (place, entry) in written.iter().enumerate() {
        let text = match entry {
            crds::RetryOn::Status(status) => status.to_string(),
            crds::RetryOn::Word(word) => word.clone(),
        };
        let problem = match Retryable::parse(&text) {
            None => format!(
                "`{text}` is none of a status (`503`), a class (`5xx`), `Timeout` and `Unreachable`"
            ),
            Some(Retryable::Status { from: 410, to: 410 }) => {
                "a 410 always stops at once, since the receiver says that it is gone; leave it out"
                    .to_owned()
            }
            Some(Retryable::Status {
                from: 100..=299, ..
            }) => {
                format!(
                    "`{text}` is no failure: an answer of 2xx is a delivery, and 1xx is never the answer; leave it out"
                )
            }
            Some(retryable) => {
                entries.push(retryable);
                continue;
            }
        };
        findings.add(
            Reason::UnsupportedValue,
            format!("{path}.retryOn[{place}]"),
            problem,
        );
    }
    entries
}
