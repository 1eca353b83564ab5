//! Holds a mass removal back until it has stayed the same for a while.
//!
//! A cluster that answers with half of its objects, a kind that is suddenly empty, a restore that is under way: each
//! looks like a deletion of thousands of routes. Real ones can wait half a minute; a false one would lose events.
//! Judged for the table as a whole and for each kind, so that many rows of one kind don't hide that another is empty.
//! Only the removals wait, and all of them, since what goes with a source that vanished is of other kinds as well. What
//! was added or changed is published meanwhile.

use routing::{Kind, RowKey};
use std::{
    collections::{BTreeMap, BTreeSet},
    time::{Duration, Instant},
};

/// Fewer than this at once are held only if they are all of their kind: someone is clearing up a try-out.
const FEW: usize = 4;

/// A kind that had so many rows and has none left is held.
const EMPTIED: usize = 3;

#[derive(Debug, Clone)]
pub struct Guard {
    stable_for: Duration,
    held: Option<Held>,
}

/// A removal that waits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Held {
    pub removals: BTreeSet<RowKey>,
    pub extent: Extent,
    pub until: Instant,
}

/// How much of the table would go, of the whole and of the kinds that would lose too much.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Extent {
    pub whole: Loss,
    pub kinds: BTreeMap<Kind, Loss>,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Loss {
    pub rows: usize,
    pub removed: usize,
}

impl Loss {
    fn is_mass(self) -> bool {
        self.removed >= FEW && self.removed * 2 > self.rows
    }

    fn empties(self) -> bool {
        self.removed >= EMPTIED && self.removed == self.rows
    }
}

impl Extent {
    /// `None`: that much may go at once.
    fn too_much<'k>(
        removals: &BTreeSet<RowKey>,
        table: impl IntoIterator<Item = &'k RowKey>,
    ) -> Option<Extent> {
        if removals.len() < EMPTIED.min(FEW) {
            return None;
        }
        let mut extent = Extent::default();
        for key in table {
            let removed = usize::from(removals.contains(key));
            for loss in [&mut extent.whole, extent.kinds.entry(key.kind).or_default()] {
                loss.rows += 1;
                loss.removed += removed;
            }
        }
        extent
            .kinds
            .retain(|_, loss| loss.is_mass() || loss.empties());
        (extent.whole.is_mass() || !extent.kinds.is_empty()).then_some(extent)
    }
}

/// `12 of 100 rows (12 of 12 of kind source)`
impl std::fmt::Display for Extent {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} of {} rows", self.whole.removed, self.whole.rows)?;
        let kinds: Vec<String> = self
            .kinds
            .iter()
            .map(|(kind, loss)| {
                format!(
                    "{} of {} of kind {}",
                    loss.removed,
                    loss.rows,
                    kind.as_str()
                )
            })
            .collect();
        if kinds.is_empty() {
            Ok(())
        } else {
            write!(f, " ({})", kinds.join(", "))
        }
    }
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

    /// Whether `removals` may be taken from a table of these rows.
    pub fn judge<'k>(
        &mut self,
        removals: BTreeSet<RowKey>,
        table: impl IntoIterator<Item = &'k RowKey>,
        now: Instant,
    ) -> Judgement {
        let extent = if self.stable_for.is_zero() {
            None
        } else {
            Extent::too_much(&removals, table)
        };
        let Some(extent) = extent else {
            self.held = None;
            return Judgement::Publish;
        };
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
                    extent,
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
    use uuid::Uuid;

    fn keys(kind: Kind, n: u128) -> BTreeSet<RowKey> {
        (0..n)
            .map(|uid| RowKey {
                kind,
                uid: Uuid::from_u128(uid),
            })
            .collect()
    }

    fn removals(n: u128) -> BTreeSet<RowKey> {
        keys(Kind::Connection, n)
    }

    fn start() -> Instant {
        service::clock::instant()
    }

    /// Whether this many removals of this many rows of one kind wait.
    fn waits(removed: u128, rows: u128) -> bool {
        Guard::new(Duration::from_secs(30)).judge(removals(removed), &removals(rows), start())
            != Judgement::Publish
    }

    #[test]
    fn up_to_half_of_the_rows_may_go_at_once() {
        assert!(!waits(50, 100));
        assert!(!waits(4, 8));
    }

    #[test]
    fn a_hold_of_nothing_holds_nothing() {
        assert_eq!(
            Guard::new(Duration::ZERO).judge(removals(100), &removals(100), start()),
            Judgement::Publish
        );
    }

    #[test]
    fn a_small_installation_is_guarded_too() {
        assert!(waits(4, 7));
        assert!(waits(10, 10));
        assert!(waits(3, 3), "the kind is empty");
        assert!(!waits(3, 4));
        assert!(!waits(2, 2), "a try-out");
    }

    #[test]
    fn a_quickstart_may_go_at_once() {
        let kinds = [Kind::Source, Kind::Destination, Kind::Connection];
        let rows: BTreeSet<_> = kinds.iter().flat_map(|kind| keys(*kind, 1)).collect();
        assert_eq!(
            Guard::new(Duration::from_secs(30)).judge(rows.clone(), &rows, start()),
            Judgement::Publish
        );
    }

    #[test]
    fn a_kind_that_is_suddenly_empty_waits_however_many_rows_the_others_have() {
        let mut table = keys(Kind::Connection, 1000);
        table.extend(keys(Kind::Source, 3));
        let mut guard = Guard::new(Duration::from_secs(30));
        let judgement = guard.judge(keys(Kind::Source, 3), &table, start());
        assert!(matches!(judgement, Judgement::Hold { new: true, .. }));
        assert_eq!(
            guard.held().unwrap().extent.to_string(),
            "3 of 1003 rows (3 of 3 of kind source)"
        );
    }

    #[test]
    fn more_than_half_of_a_kind_waits_however_many_rows_the_others_have() {
        let mut table = keys(Kind::Connection, 1000);
        table.extend(keys(Kind::Destination, 20));
        let mut guard = Guard::new(Duration::from_secs(30));
        let judgement = guard.judge(keys(Kind::Destination, 10), &table, start());
        assert_eq!(judgement, Judgement::Publish);
        let judgement = guard.judge(keys(Kind::Destination, 11), &table, start());
        assert!(matches!(judgement, Judgement::Hold { new: true, .. }));
    }

    #[test]
    fn more_than_half_waits_until_it_was_stable() {
        let (mut guard, t) = (Guard::new(Duration::from_secs(30)), start());
        let (table, until) = (removals(100), t + Duration::from_secs(30));
        assert_eq!(
            guard.judge(removals(51), &table, t),
            Judgement::Hold { new: true, until }
        );
        assert_eq!(
            guard.judge(removals(51), &table, t + Duration::from_secs(29)),
            Judgement::Hold { new: false, until }
        );
        assert_eq!(guard.judge(removals(51), &table, until), Judgement::Publish);
        assert_eq!(guard.held(), None);
    }

    #[test]
    fn a_removal_that_still_changes_starts_to_wait_again() {
        let (mut guard, t) = (Guard::new(Duration::from_secs(30)), start());
        let table = removals(100);
        guard.judge(removals(51), &table, t);
        let later = t + Duration::from_secs(29);
        assert_eq!(
            guard.judge(removals(52), &table, later),
            Judgement::Hold {
                new: false,
                until: later + Duration::from_secs(30)
            }
        );
    }

    #[test]
    fn objects_that_come_back_end_the_wait() {
        let (mut guard, t) = (Guard::new(Duration::from_secs(30)), start());
        let table = removals(100);
        guard.judge(removals(51), &table, t);
        assert_eq!(guard.judge(removals(3), &table, t), Judgement::Publish);
        assert_eq!(guard.held(), None);
    }
}
