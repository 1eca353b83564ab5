//! Holds a mass removal back until it has stayed the same for a while.
//!
//! A cluster that answers with half of its objects, a kind that is suddenly empty, a restore that is under way: each
//! looks like a deletion of thousands of routes. Real ones can wait half a minute; a false one would lose events.
//! Only the removals wait: what was added or changed is published meanwhile.

use routing::RowKey;
use std::{
    collections::BTreeSet,
    time::{Duration, Instant},
};

/// Fewer than this are never held: someone is clearing up a try-out.
const ALWAYS_ALLOWED: usize = 10;

#[derive(Debug, Clone)]
pub struct Guard {
    stable_for: Duration,
    held: Option<Held>,
}

/// A removal that waits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Held {
    pub removals: BTreeSet<RowKey>,
    /// Rows in the table that it would be taken from.
    pub rows: usize,
    pub until: Instant,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Judgement {
    Publish,
    /// `new`: it wasn't held, or was another one: time to say so.
    Hold {
        new: bool,
        until: Instant,
    },
}

impl Guard {
    pub fn new(stable_for: Duration) -> Guard {
        Guard {
            stable_for,
            held: None,
        }
    }

    pub fn held(&self) -> Option<&Held> {
        self.held.as_ref()
    }

    /// Whether `removals` may be taken from a table of `rows` rows.
    pub fn judge(&mut self, removals: BTreeSet<RowKey>, rows: usize, now: Instant) -> Judgement {
        let few = removals.len() <= ALWAYS_ALLOWED || removals.len() * 2 <= rows;
        if few || self.stable_for.is_zero() {
            self.held = None;
            return Judgement::Publish;
        }
        match &self.held {
            Some(held) if held.removals == removals => {
                if now >= held.until {
                    self.held = None;
                    return Judgement::Publish;
                }
                Judgement::Hold {
                    new: false,
                    until: held.until,
                }
            }
            _ => {
                let until = now + self.stable_for;
                let new = self.held.is_none();
                self.held = Some(Held {
                    removals,
                    rows,
                    until,
                });
                Judgement::Hold { new, until }
            }
        }
    }

    /// Leadership went: the next leader judges anew.
    pub fn forget(&mut self) {
        self.held = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use routing::Kind;
    use uuid::Uuid;

    fn removals(n: u128) -> BTreeSet<RowKey> {
        (0..n)
            .map(|uid| RowKey {
                kind: Kind::Connection,
                uid: Uuid::from_u128(uid),
            })
            .collect()
    }

    fn start() -> Instant {
        service::clock::instant()
    }

    #[test]
    fn up_to_half_of_the_rows_may_go_at_once() {
        assert_eq!(
            Guard::new(Duration::from_secs(30)).judge(removals(50), 100, start()),
            Judgement::Publish
        );
    }

    #[test]
    fn a_hold_of_nothing_holds_nothing() {
        assert_eq!(
            Guard::new(Duration::ZERO).judge(removals(100), 100, start()),
            Judgement::Publish
        );
    }

    #[test]
    fn ten_rows_may_always_go() {
        assert_eq!(
            Guard::new(Duration::from_secs(30)).judge(removals(10), 10, start()),
            Judgement::Publish
        );
    }

    #[test]
    fn more_than_half_waits_until_it_was_stable() {
        let (mut guard, t) = (Guard::new(Duration::from_secs(30)), start());
        let until = t + Duration::from_secs(30);
        assert_eq!(
            guard.judge(removals(51), 100, t),
            Judgement::Hold { new: true, until }
        );
        assert_eq!(
            guard.judge(removals(51), 100, t + Duration::from_secs(29)),
            Judgement::Hold { new: false, until }
        );
        assert_eq!(guard.judge(removals(51), 100, until), Judgement::Publish);
        assert_eq!(guard.held(), None);
    }

    #[test]
    fn a_removal_that_still_changes_starts_to_wait_again() {
        let (mut guard, t) = (Guard::new(Duration::from_secs(30)), start());
        guard.judge(removals(51), 100, t);
        let later = t + Duration::from_secs(29);
        assert_eq!(
            guard.judge(removals(52), 100, later),
            Judgement::Hold {
                new: false,
                until: later + Duration::from_secs(30)
            }
        );
    }

    #[test]
    fn objects_that_come_back_end_the_wait() {
        let (mut guard, t) = (Guard::new(Duration::from_secs(30)), start());
        guard.judge(removals(51), 100, t);
        assert_eq!(guard.judge(removals(3), 100, t), Judgement::Publish);
        assert_eq!(guard.held(), None);
    }
}
