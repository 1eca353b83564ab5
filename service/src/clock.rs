//! The one place that reads the clock; everything else is given a time.

use jiff::Timestamp;
use std::time::Instant;

/// The wall clock, for what is stored or shown.
#[expect(
    clippy::disallowed_methods,
    reason = "this is the place the others are sent to"
)]
pub fn now() -> Timestamp {
    Timestamp::now()
}

/// The monotonic clock, for durations and trust in a lease.
#[expect(
    clippy::disallowed_methods,
    reason = "this is the place the others are sent to"
)]
pub fn instant() -> Instant {
    Instant::now()
}
