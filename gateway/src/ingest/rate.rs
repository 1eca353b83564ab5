//! A source's rate limit, as this replica keeps it: the generic cell rate algorithm on one number.
//!
//! The number is the time at which the bucket would be full again. A request moves it by one interval; one that would move
//! it further than the burst allows is refused and doesn't. So a limit costs one compare-and-swap a request, needs no
//! timer, and lives on in `sources` when a new table comes.
//!
//! Each replica takes its share: with `n` of them that live, an interval is `n` times as long and a burst an `n`th, at least
//! one. What all take together is the limit, however unevenly the load balancer spreads them; what is refused may then be
//! refused early.

use routing::admission::RateLimit;
use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

/// When the bucket is full again, in nanoseconds of the process's own clock.
#[derive(Debug, Default)]
pub struct Bucket(AtomicU64);

/// How a source stands with its limit after one request, of which a sender is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Standing {
    /// The most that may come at once, over all replicas.
    pub limit: u32,
    /// Of those, what is left; with several replicas as much as this one can tell.
    pub remaining: u32,
    /// Until all of it is there again.
    pub reset: Duration,
    /// `None`: the request was taken.
    pub retry_after: Option<Duration>,
}

impl Bucket {
    /// One request at `now`, which is time since any fixed point.
    pub fn take(&self, limit: &RateLimit, replicas: u32, now: Duration) -> Standing {
        let replicas = replicas.max(1);
        let interval = interval(limit, replicas);
        let burst = (limit.burst / replicas).max(1);
        let depth = interval.saturating_mul(u64::from(burst));
        let now = nanos(now);
        // The limit may have been a slower one a moment ago: what is owed is never more than this one can owe.
        let debt = |full_at: u64| full_at.saturating_sub(now).min(depth);
        let after = |before: u64| {
            let (owed, next) = (debt(before), debt(before).saturating_add(interval));
            if next <= depth {
                (next, None)
            } else {
                (owed, Some(Duration::from_nanos(next - depth)))
            }
        };
        let before = self
            .0
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |before| {
                Some(now.saturating_add(after(before).0))
            });
        let (owed, retry_after) = after(before.unwrap_or_else(|before| before));
        let left = u32::try_from((depth - owed) / interval).unwrap_or(u32::MAX);
        Standing {
            limit: limit.burst,
            remaining: left.saturating_mul(replicas).min(limit.burst),
            reset: Duration::from_nanos(owed),
            retry_after,
        }
    }
}

/// Between two requests of this replica's share; at least a nanosecond.
fn interval(limit: &RateLimit, replicas: u32) -> u64 {
    let all = nanos(limit.per).saturating_mul(u64::from(replicas));
    (all / u64::from(limit.requests.max(1))).max(1)
}

/// 584 years fit.
fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limit(requests: u32, per_seconds: u64, burst: u32) -> RateLimit {
        RateLimit {
            requests,
            per: Duration::from_secs(per_seconds),
            burst,
        }
    }

    const START: Duration = Duration::from_secs(1000);

    fn taken(bucket: &Bucket, limit: &RateLimit, replicas: u32, tries: u32, now: Duration) -> u32 {
        (0..tries)
            .filter(|_| bucket.take(limit, replicas, now).retry_after.is_none())
            .count() as u32
    }

    #[test]
    fn a_burst_is_taken_at_once_and_then_the_rate() {
        let (bucket, limit) = (Bucket::default(), limit(10, 1, 20));
        assert_eq!(taken(&bucket, &limit, 1, 100, START), 20);
        let mut all = 0;
        for millisecond in 1..=1000 {
            all += taken(
                &bucket,
                &limit,
                1,
                3,
                START + Duration::from_millis(millisecond),
            );
        }
        assert_eq!(all, 10);
        // A pause fills it, and not beyond the burst.
        assert_eq!(
            taken(&bucket, &limit, 1, 100, START + Duration::from_secs(60)),
            20
        );
    }

    #[test]
    fn a_sender_is_told_what_is_left_and_when_to_come_back() {
        let (bucket, limit) = (Bucket::default(), limit(2, 1, 2));
        let told = |now| bucket.take(&limit, 1, now);
        let half = Duration::from_millis(500);
        assert_eq!(
            told(START),
            Standing {
                limit: 2,
                remaining: 1,
                reset: half,
                retry_after: None
            }
        );
        assert_eq!(
            (told(START).remaining, told(START).retry_after),
            (0, Some(half))
        );
        let refused = told(START + Duration::from_millis(100));
        assert_eq!(
            (refused.remaining, refused.reset, refused.retry_after),
            (
                0,
                Duration::from_millis(900),
                Some(Duration::from_millis(400))
            )
        );
        assert_eq!(told(START + half).retry_after, None);
    }

    #[test]
    fn replicas_share_a_limit_and_none_takes_nothing() {
        let limit = limit(100, 1, 50);
        let buckets: Vec<Bucket> = (0..5).map(|_| Bucket::default()).collect();
        let all = |now| -> u32 { buckets.iter().map(|b| taken(b, &limit, 5, 1000, now)).sum() };
        assert_eq!(all(START), 50);
        assert_eq!(
            (1..=10)
                .map(|n| all(START + n * Duration::from_millis(100)))
                .sum::<u32>(),
            100
        );
        let alone = RateLimit { burst: 1, ..limit };
        assert_eq!(taken(&Bucket::default(), &alone, 5, 10, START), 1);
    }

    #[test]
    fn a_limit_that_was_raised_starts_empty_and_fills_at_its_own_rate() {
        let bucket = Bucket::default();
        assert_eq!(taken(&bucket, &limit(1, 86_400, 10), 1, 20, START), 10);
        let raised = limit(10, 1, 10);
        let all = |now| taken(&bucket, &raised, 1, 20, now);
        assert_eq!(all(START + Duration::from_secs(1)), 0);
        assert_eq!(all(START + Duration::from_secs(2)), 10);
    }

    #[test]
    fn the_largest_and_the_smallest_numbers_are_no_trouble() {
        for limit in [
            limit(u32::MAX, 1, u32::MAX),
            limit(1, 1 << 40, u32::MAX),
            limit(1, 0, 1),
        ] {
            let bucket = Bucket::default();
            for replicas in [0, 1, u32::MAX] {
                for now in [Duration::ZERO, START, Duration::MAX] {
                    bucket.take(&limit, replicas, now);
                }
            }
        }
    }

    #[test]
    fn threads_together_never_take_more_than_the_burst() {
        let (bucket, limit) = (Bucket::default(), limit(1, 3600, 1000));
        let all: u32 = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..4)
                .map(|_| scope.spawn(|| taken(&bucket, &limit, 1, 1000, START)))
                .collect();
            threads
                .into_iter()
                .map(|thread| thread.join().unwrap())
                .sum()
        });
        assert_eq!(all, 1000);
    }
}
