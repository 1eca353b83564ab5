//! How many attempts of one destination begin in a time: a bucket of tokens that fills evenly, kept as one time (GCRA).
//!
//! Pure: no clock, no IO. A tenth of the limit may go at once after a quiet time, the rest goes evenly, so in any stretch
//! of the limit's length no more begin than the limit and one such burst.
//!
//! That holds across owners, crashes included. Limits by the second (up to [`SHORT`]) are not written down: a new owner
//! begins with an empty bucket, which costs it one interval between two deliveries at most. With longer limits that would
//! cost an hour, so a burst's worth of tokens is granted by Postgres before any of it is used: a new owner goes on behind
//! what was granted, as if all of it had been used: up to a burst and [`LEEWAY`] later than it could have.

use jiff::{SignedDuration, Timestamp};
use routing::delivery::RateLimit;
use std::time::Duration;

/// Limits over at most this are not written down.
const SHORT: Duration = Duration::from_secs(10);

/// More than a burst is granted by so much: the time that writing it down takes. Of a limit with a burst of one, a grant for
/// this moment would be used up by the moment that it arrives.
const LEEWAY: Duration = Duration::from_secs(5);

/// The part of a limit that may go at once.
const BURST: i64 = 10;

/// A limit in the units that it's reckoned in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Pace {
    /// Nanoseconds between two attempts, rounded up.
    every: i64,
    burst: i64,
    /// Written down.
    granted: bool,
}

impl Pace {
    pub(super) fn of(limit: &RateLimit) -> Pace {
        let deliveries = i64::from(limit.deliveries.max(1));
        let per = i64::try_from(limit.per.as_nanos()).unwrap_or(i64::MAX / 4);
        Pace {
            every: (per + deliveries - 1) / deliveries,
            burst: (deliveries / BURST).max(1),
            granted: limit.per > SHORT,
        }
    }

    /// The time that a whole burst takes to come back.
    fn refill(self) -> i64 {
        self.every.saturating_mul(self.burst)
    }
}

/// Whether an attempt may begin.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Pass {
    Go,
    /// Not before.
    At(Timestamp),
    /// Not before this is written down; say so with [`Rate::grant`] once it is.
    Ask(Timestamp),
}

/// The bucket of one destination.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Rate {
    /// When the bucket is full again, in nanoseconds since 1970.
    full_at: i64,
    /// `full_at` may come so far.
    granted: i64,
}

impl Rate {
    /// Of a destination whose shard was gained at `gained`. `saved` is what was granted to whoever had it before.
    pub(super) fn new(pace: Pace, gained: Timestamp, saved: Option<Timestamp>) -> Rate {
        let full_at = match (pace.granted, saved) {
            (true, saved) => saved.map_or(0, nanos),
            (false, _) => nanos(gained).saturating_add(pace.refill()),
        };
        Rate {
            full_at,
            granted: if pace.granted { full_at } else { i64::MAX },
        }
    }

    /// The limit is another: what was used counts on, and what the new one needs to be granted is asked for.
    pub(super) fn change(&mut self, pace: Pace) {
        self.granted = match (pace.granted, self.granted) {
            (true, i64::MAX) => self.full_at,
            (true, granted) => granted,
            (false, _) => i64::MAX,
        };
    }

    /// May an attempt begin at `now`?
    pub(super) fn pass(&mut self, pace: Pace, now: Timestamp) -> Pass {
        let now = nanos(now);
        // Further ahead was reckoned by a clock that was ahead, or by a limit that was tighter.
        let furthest = now.saturating_add(pace.refill().saturating_mul(2));
        self.full_at = self.full_at.min(furthest);
        // There is a token while the bucket lacks fewer than it holds.
        let earliest = self
            .full_at
            .saturating_add(pace.every)
            .saturating_sub(pace.refill());
        if earliest > now {
            return Pass::At(micros_up(earliest));
        }
        let next = self.full_at.max(now).saturating_add(pace.every);
        if next > self.granted {
            let burst = self.full_at.max(now).saturating_add(pace.refill());
            return Pass::Ask(micros_up(burst.saturating_add(LEEWAY.as_nanos() as i64)));
        }
        Pass::Go
    }

    /// An attempt begins.
    pub(super) fn take(&mut self, pace: Pace, now: Timestamp) {
        self.full_at = self.full_at.max(nanos(now)).saturating_add(pace.every);
    }

    /// This is written down.
    pub(super) fn grant(&mut self, until: Timestamp) {
        if self.granted != i64::MAX {
            self.granted = self.granted.max(nanos(until));
        }
    }

    /// Nothing was used lately, and nothing that was granted is left: it is as a new one would be.
    pub(super) fn is_full(&self, now: Timestamp) -> bool {
        let left = self.granted != i64::MAX && self.granted > nanos(now);
        self.full_at <= nanos(now) && !left
    }

    /// What a new owner needs to know.
    pub(super) fn granted(&self) -> Option<Timestamp> {
        (self.granted != i64::MAX && self.granted > 0).then(|| micros_up(self.granted))
    }
}

/// 64 bits of nanoseconds reach from 1678 to 2262.
fn nanos(time: Timestamp) -> i64 {
    i64::try_from(time.as_nanosecond()).unwrap_or(if time < Timestamp::UNIX_EPOCH {
        i64::MIN
    } else {
        i64::MAX
    })
}

/// Postgres keeps microseconds: rounded up, so that nothing is forgotten.
fn micros_up(nanos: i64) -> Timestamp {
    let micros = nanos.div_euclid(1000) + i64::from(nanos.rem_euclid(1000) > 0);
    Timestamp::UNIX_EPOCH
        .checked_add(SignedDuration::from_micros(micros))
        .unwrap_or(Timestamp::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn at(milliseconds: i64) -> Timestamp {
        Timestamp::from_millisecond(1_800_000_000_000 + milliseconds).expect("a time")
    }

    fn limit(deliveries: u32, seconds: u64) -> Pace {
        Pace::of(&RateLimit {
            deliveries,
            per: Duration::from_secs(seconds),
        })
    }

    /// One owner of a destination that always has something to send, looking each millisecond from `from` to `to`. What it
    /// asks for is written `latency` later. Returns when attempts began, and what the next owner finds.
    fn own(
        pace: Pace,
        saved: Option<Timestamp>,
        from: i64,
        to: i64,
        latency: i64,
    ) -> (Vec<i64>, Option<Timestamp>) {
        let mut rate = Rate::new(pace, at(from), saved);
        let mut began = Vec::new();
        let mut asked: Option<(i64, Timestamp)> = None;
        for now in from..to {
            while asked.is_none_or(|(written, _)| written <= now) {
                if let Some((_, until)) = asked.take() {
                    rate.grant(until);
                }
                match rate.pass(pace, at(now)) {
                    Pass::Go => {
                        rate.take(pace, at(now));
                        began.push(now);
                    }
                    Pass::Ask(until) => asked = Some((now + latency, until)),
                    Pass::At(when) => {
                        assert!(when > at(now));
                        break;
                    }
                }
            }
        }
        (began, rate.granted().max(asked.map(|(_, until)| until)))
    }

    /// The most that began in any stretch of `length`.
    fn most(began: &[i64], length: i64) -> usize {
        let mut first = 0;
        let mut most = 0;
        for last in 0..began.len() {
            while began[last] - began[first] >= length {
                first += 1;
            }
            most = most.max(last - first + 1);
        }
        most
    }

    #[test]
    fn deliveries_go_evenly_after_a_small_burst() {
        let pace = limit(50, 1);
        let (began, _) = own(pace, None, 0, 10_000, 0);
        assert_eq!(began.len(), 500 - 1, "the first one after an interval");
        assert_eq!(most(&began, 1000), 50);

        let mut rate = Rate::new(pace, at(0), None);
        let mut burst = 0;
        while rate.pass(pace, at(60_000)) == Pass::Go {
            rate.take(pace, at(60_000));
            burst += 1;
        }
        assert_eq!(burst, 5, "a tenth of the limit after a quiet time");
        assert_eq!(rate.pass(pace, at(60_000)), Pass::At(at(60_020)));
    }

    #[test]
    fn a_limit_that_does_not_divide_evenly_is_not_exceeded() {
        let (began, _) = own(limit(3, 1), None, 0, 100_000, 0);
        assert_eq!(most(&began, 1000), 3);
        assert!(began.len() >= 298, "{}", began.len());
    }

    #[test]
    fn a_long_limit_is_granted_before_it_is_used() {
        let pace = limit(1, 3600);
        let mut rate = Rate::new(pace, at(0), None);
        let Pass::Ask(until) = rate.pass(pace, at(0)) else {
            panic!("nothing was granted");
        };
        assert_eq!(until, at(3_605_000));
        // To write it down takes a while.
        rate.grant(until);
        assert_eq!(rate.pass(pace, at(800)), Pass::Go);
        rate.take(pace, at(800));
        assert_eq!(rate.pass(pace, at(801)), Pass::At(at(3_600_800)));

        // The next owner neither sends a second one in that hour nor waits much longer than it.
        let mut next = Rate::new(pace, at(10_000), Some(until));
        assert_eq!(next.pass(pace, at(10_000)), Pass::At(at(3_605_000)));
        assert!(matches!(next.pass(pace, at(3_605_000)), Pass::Ask(_)));
    }

    #[test]
    fn every_long_limit_moves_on_however_slowly_it_is_granted() {
        for (deliveries, seconds) in [(1, 11), (1, 60), (5, 60), (19, 11), (60, 60), (1000, 60)] {
            let pace = limit(deliveries, seconds);
            let (began, _) = own(pace, None, 0, 300_000, 900);
            let due = 300 * deliveries as usize / seconds as usize;
            assert!(began.len() >= due * 8 / 10, "{} of {due}", began.len());
        }
    }

    #[test]
    fn a_quiet_destination_is_served_at_once_by_a_new_owner() {
        let pace = limit(100, 60);
        let mut rate = Rate::new(pace, at(1_000_000), Some(at(0)));
        let Pass::Ask(until) = rate.pass(pace, at(1_000_000)) else {
            panic!("nothing was granted");
        };
        rate.grant(until);
        for _ in 0..10 {
            assert_eq!(rate.pass(pace, at(1_000_000)), Pass::Go);
            rate.take(pace, at(1_000_000));
        }
        assert!(matches!(rate.pass(pace, at(1_000_000)), Pass::At(_)));
    }

    #[test]
    fn a_clock_that_was_set_back_stops_nothing_for_long() {
        for pace in [limit(50, 1), limit(100, 60)] {
            let mut rate = Rate::new(pace, at(1_000_000_000), Some(at(1_000_000_000)));
            let Pass::At(when) = rate.pass(pace, at(0)) else {
                panic!("{pace:?}");
            };
            assert!(when <= at(12_000), "{when}");
        }
    }

    #[test]
    fn another_limit_counts_on() {
        let (second, minute) = (limit(10, 1), limit(60, 60));
        let mut rate = Rate::new(second, at(0), None);
        rate.take(second, at(1000));
        rate.change(minute);
        assert!(matches!(rate.pass(minute, at(3000)), Pass::Ask(_)));
        rate.change(second);
        assert_eq!(rate.pass(second, at(3000)), Pass::Go);
        assert_eq!(rate.granted(), None);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        /// Owners follow each other at any moment, crash or not: what a crash leaves is what was granted.
        #[test]
        fn hand_overs_never_exceed_the_limit_by_more_than_a_burst(
            deliveries in 1..200_u32,
            seconds in prop_oneof![1..11_u64, 11..40_u64],
            lengths in prop::collection::vec(1..20_000_i64, 1..8),
            latency in 0..1000_i64,
        ) {
            let pace = limit(deliveries, seconds);
            let mut began = Vec::new();
            let (mut saved, mut from) = (None, 0);
            for length in lengths {
                let (more, left) = own(pace, saved, from, from + length, latency);
                began.extend(more);
                (saved, from) = (left, from + length);
            }
            let burst = (deliveries / 10).max(1) as usize;
            let most = most(&began, i64::try_from(seconds).expect("small") * 1000);
            prop_assert!(most <= deliveries as usize + burst, "{} of {}", most, deliveries);
        }
    }
}
