//! The days of the history: made ahead, dropped whole.

use crate::{Pool, error::Result};
use jiff::{Timestamp, civil::Date};

/// Makes the partitions of yesterday, today and the three days after, where missing; days are UTC. Returns how many were made.
///
/// Yesterday too: a gateway whose clock is a little behind writes into it after midnight.
pub async fn ensure(pool: &Pool, now: Timestamp) -> Result<u32> {
    let _ = (pool, now);
    unimplemented!()
}

/// Drops the partitions of all days before `day`. Returns the days dropped.
pub async fn drop_before(pool: &Pool, day: Date) -> Result<Vec<Date>> {
    let _ = (pool, day);
    unimplemented!()
}

/// How far behind the two duties are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Lag {
    /// Days that exist although they are before `keep_from`: retention is that many days behind.
    pub overdue_days: u32,
    /// Days after today that have partitions; 0 means that tomorrow's events have nowhere to go.
    pub ahead_days: u32,
}

pub async fn lag(pool: &Pool, now: Timestamp, keep_from: Date) -> Result<Lag> {
    let _ = (pool, now, keep_from);
    unimplemented!()
}
