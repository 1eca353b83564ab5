//! How many Events are let through: of each namespace, and of all together.
//!
//! A tenant whose objects flap uses up its own namespace's share, which is a quarter of everybody's at most.

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

/// So many at once, and so many a second in the long run.
#[derive(Debug, Clone, Copy)]
struct Rate {
    burst: f64,
    per_second: f64,
}

const ALL: Rate = Rate {
    burst: 100.0,
    per_second: 10.0,
};

const NAMESPACE: Rate = Rate {
    burst: 25.0,
    per_second: 2.0,
};

/// Namespaces that are told apart at a time; with more, those that come last share one bucket until one is idle.
const NAMESPACES: usize = 1024;

/// A bucket that was left alone for so long is full again, so it needn't be kept.
const IDLE: Duration = Duration::from_secs(13);

/// Between searches for idle buckets: not at each Event of a flood.
const SWEEP: Duration = Duration::from_secs(1);

#[derive(Debug)]
pub(super) struct Buckets {
    all: Bucket,
    namespaces: HashMap<String, Bucket>,
    /// Of the namespaces for which there is no room.
    others: Bucket,
    swept: Instant,
}

impl Buckets {
    pub(super) fn new(now: Instant) -> Buckets {
        Buckets {
            all: Bucket::full(ALL, now),
            namespaces: HashMap::new(),
            others: Bucket::full(NAMESPACE, now),
            swept: now,
        }
    }

    /// Whether an Event of this namespace may be sent now.
    pub(super) fn take(&mut self, namespace: &str, now: Instant) -> bool {
        if !self.namespaces.contains_key(namespace) {
            if self.namespaces.len() >= NAMESPACES && now.duration_since(self.swept) >= SWEEP {
                self.swept = now;
                self.namespaces
                    .retain(|_, bucket| now.duration_since(bucket.at) < IDLE);
            }
            if self.namespaces.len() < NAMESPACES {
                self.namespaces
                    .insert(namespace.to_owned(), Bucket::full(NAMESPACE, now));
            }
        }
        let own = self
            .namespaces
            .get_mut(namespace)
            .unwrap_or(&mut self.others);
        // The namespace's first: what it may not send must not cost the others anything.
        own.take(now) && self.all.take(now)
    }
}

#[derive(Debug)]
struct Bucket {
    rate: Rate,
    tokens: f64,
    at: Instant,
}

impl Bucket {
    fn full(rate: Rate, at: Instant) -> Bucket {
        Bucket {
            rate,
            tokens: rate.burst,
            at,
        }
    }

    fn take(&mut self, now: Instant) -> bool {
        let since = now.duration_since(self.at).as_secs_f64();
        self.tokens = (self.tokens + since * self.rate.per_second).min(self.rate.burst);
        self.at = now;
        let there = self.tokens >= 1.0;
        if there {
            self.tokens -= 1.0;
        }
        there
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// How many of a thousand are let through.
    fn through(buckets: &mut Buckets, namespace: &str, now: Instant) -> usize {
        (0..1000).filter(|_| buckets.take(namespace, now)).count()
    }

    #[test]
    fn a_flapping_namespace_does_not_silence_another() {
        let start = service::clock::instant();
        let mut buckets = Buckets::new(start);
        assert_eq!(through(&mut buckets, "flapping", start), 25);
        assert!(buckets.take("quiet", start));
        for second in 1..=600 {
            let now = start + Duration::from_secs(second);
            assert_eq!(through(&mut buckets, "flapping", now), 2);
            assert!(buckets.take("quiet", now), "second {second}");
        }
    }

    #[test]
    fn all_namespaces_together_are_bounded_in_rate() {
        let start = service::clock::instant();
        let mut buckets = Buckets::new(start);
        let at_once: usize = (0..50)
            .map(|n| through(&mut buckets, &format!("n{n}"), start))
            .sum();
        assert_eq!(at_once, 100);
        let later = start + Duration::from_secs(1);
        let a_second_later: usize = (0..50)
            .map(|n| through(&mut buckets, &format!("n{n}"), later))
            .sum();
        assert_eq!(a_second_later, 10);
    }

    #[test]
    fn the_buckets_are_bounded_and_idle_ones_make_room() {
        let start = service::clock::instant();
        let mut buckets = Buckets::new(start);
        for n in 0..2 * NAMESPACES {
            buckets.take(&format!("n{n}"), start);
        }
        assert_eq!(buckets.namespaces.len(), NAMESPACES);
        let later = start + IDLE;
        assert!(buckets.take("new", later));
        assert_eq!(buckets.namespaces.len(), 1);
    }
}
