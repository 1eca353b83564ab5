//! How long to wait before another try: doubled by each failure, up to a bound.

use std::time::Duration;

#[derive(Debug, Clone, Copy)]
pub struct Backoff {
    pub first: Duration,
    pub most: Duration,
}

impl Backoff {
    /// After so many failures in a row before this one.
    pub fn pause(&self, failures: u32) -> Duration {
        self.first
            .saturating_mul(1 << failures.min(16))
            .min(self.most)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_a_bound() {
        let backoff = Backoff {
            first: Duration::from_millis(200),
            most: Duration::from_secs(5),
        };
        assert_eq!(backoff.pause(0), Duration::from_millis(200));
        assert_eq!(backoff.pause(2), Duration::from_millis(800));
        assert_eq!(backoff.pause(u32::MAX), Duration::from_secs(5));
    }
}
