//! UUIDv7s of this process: they grow strictly, also within a millisecond and when the clock steps back a little.
//!
//! The order of ids is the order of acceptance, and the queue's key ends with a delivery's id; so deliveries that are due
//! in the same microsecond keep the order of their events. 48 bits of milliseconds and 12 of a counter are one number
//! that only grows (beyond 4,096 a millisecond it borrows from the next one); 62 bits are random.
//!
//! An id's milliseconds also say which day's partition its row lives in. So ids never run more than a minute ahead of the
//! clock: after a larger step back the order begins anew, rather than rows being written into a day that nobody makes.

use jiff::Timestamp;
use std::sync::atomic::{AtomicU64, Ordering};
use uuid::Uuid;

/// The generator of one kind of ids in a process.
#[derive(Debug, Default)]
pub struct Ids {
    /// `milliseconds << 12 | counter` of the last id.
    last: AtomicU64,
}

const RANDOM: u128 = (1 << 62) - 1;

/// A minute, in the unit of [`Ids::last`].
const MOST_AHEAD: u64 = 60_000 << 12;

impl Ids {
    pub fn next(&self, now: Timestamp) -> Uuid {
        let earliest = (now.as_millisecond().max(0) as u64) << 12;
        let after = |last: u64| {
            if last > earliest + MOST_AHEAD {
                earliest
            } else {
                earliest.max(last + 1)
            }
        };
        let last = self
            .last
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |last| {
                Some(after(last))
            })
            .expect("the closure always answers");
        let number = u128::from(after(last));
        let (milliseconds, counter) = (number >> 12, number & 0xfff);
        Uuid::from_u128(milliseconds << 80 | 0x7 << 76 | counter << 64 | 0b10 << 62 | random())
    }
}

/// The id of the `index`-th delivery of an event: the event's own millisecond and counter, so both live in one day's
/// partition and sort alike; the last 16 bits stay free for attempts.
pub fn delivery(event: Uuid, base: u128, index: usize) -> Uuid {
    let low = (base.wrapping_add((index as u128) << 16)) & RANDOM;
    routing::ids::delivery(Uuid::from_u128(event.as_u128() & !RANDOM | low))
}

/// The id of the `place`-th event of a request that is due at this time: of its millisecond, and in the request's order.
pub fn due(at: Timestamp, place: usize) -> Uuid {
    let milliseconds = at.as_millisecond().max(0) as u128;
    let counter = (place & 0xfff) as u128;
    Uuid::from_u128(milliseconds << 80 | 0x7 << 76 | counter << 64 | 0b10 << 62 | random())
}

/// 62 random bits.
pub fn random() -> u128 {
    u128::from(rand::random::<u64>()) & RANDOM
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_grow_even_when_the_clock_steps_back() {
        let ids = Ids::default();
        let now = Timestamp::from_millisecond(1_700_000_000_000).unwrap();
        let earlier = Timestamp::from_millisecond(1_699_999_999_000).unwrap();
        let made: Vec<Uuid> = (0..10_000)
            .map(|n| ids.next(if n % 2 == 0 { now } else { earlier }))
            .collect();
        assert!(made.is_sorted_by(|a, b| a < b));
        assert!(
            made.iter()
                .all(|id| id.get_version_num() == 7 && id.get_variant() == uuid::Variant::RFC4122)
        );
        assert_eq!(made[0].as_u128() >> 80, 1_700_000_000_000);
    }

    #[test]
    fn after_a_clock_that_was_days_ahead_ids_are_of_today_again() {
        let ids = Ids::default();
        let now = Timestamp::from_millisecond(1_700_000_000_000).unwrap();
        let far = Timestamp::from_millisecond(1_700_864_000_000).unwrap();
        assert_eq!(ids.next(far).as_u128() >> 80, 1_700_864_000_000);
        let made: Vec<Uuid> = (0..100).map(|_| ids.next(now)).collect();
        assert!(made.is_sorted_by(|a, b| a < b));
        assert!(
            made.iter()
                .all(|id| id.as_u128() >> 80 == 1_700_000_000_000)
        );
    }

    #[test]
    fn the_deliveries_of_an_event_are_distinct_and_of_its_millisecond() {
        let event = Ids::default().next(Timestamp::from_millisecond(1_700_000_000_000).unwrap());
        let made: std::collections::BTreeSet<Uuid> = (0..1000)
            .map(|index| delivery(event, u128::MAX, index))
            .collect();
        assert_eq!(made.len(), 1000);
        for id in made {
            assert_eq!(id.as_u128() >> 64, event.as_u128() >> 64);
            assert_eq!(routing::ids::delivery(id), id);
            assert_eq!(id.get_version_num(), 7);
        }
    }
}
