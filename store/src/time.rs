//! Timestamps at the border to Postgres, which keeps microseconds where `jiff` keeps nanoseconds.
//!
//! Due times are part of a key, so the same instant must always become the same microsecond: cut off, never rounded.

use chrono::{DateTime, Utc};
use jiff::Timestamp;

/// What reading `time` back from the database gives: whole microseconds. Compare due times only after this.
pub fn stored(time: Timestamp) -> Timestamp {
    Timestamp::from_microsecond(time.as_microsecond())
        .expect("whole microseconds of a Timestamp are a Timestamp")
}

pub(crate) fn to_sql(time: Timestamp) -> DateTime<Utc> {
    // Both types reach further than Postgres' years 4714 BC to 294276 AD needs; a Timestamp ends with the year 9999.
    DateTime::from_timestamp_micros(time.as_microsecond())
        .expect("a Timestamp's range is inside chrono's")
}

pub(crate) fn from_sql(time: DateTime<Utc>) -> Timestamp {
    Timestamp::from_microsecond(time.timestamp_micros()).unwrap_or(if time.timestamp_micros() < 0 {
        Timestamp::MIN
    } else {
        Timestamp::MAX
    })
}
