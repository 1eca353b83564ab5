//! Which objects a change of the fleet can concern: pure.
//!
//! A heartbeat that moves a gateway from revision 100 to 120 says something new of the objects published in between, and of
//! no others. So its price is what was published, not what there is: a tenant who changes objects all the time doesn't
//! make the operator go through everybody's at each heartbeat of each gateway.

use crate::fleet::{Fleet, Replica};
use std::{
    collections::{BTreeMap, BTreeSet},
    ops::Bound,
};
use uuid::Uuid;

/// What has to be looked at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Affected {
    /// The database came or went, the gateways' first came or their last went, or another epoch counts.
    All,
    /// Objects that were published after the first revision and not after the second, of each pair.
    Between(Vec<(i64, i64)>),
}

/// The objects whose status may follow from `after` and not from `before`.
pub fn affected(before: &Fleet, after: &Fleet) -> Affected {
    if before.database != after.database
        || before.since_epoch != after.since_epoch
        || before.replicas.is_empty() != after.replicas.is_empty()
    {
        return Affected::All;
    }
    let (was, is) = (acknowledged(before), acknowledged(after));
    if !was.keys().eq(is.keys()) {
        // Messages of what isn't everywhere count the gateways.
        let slowest = was.values().chain(is.values()).min();
        return Affected::Between(
            slowest
                .map(|slowest| (*slowest, i64::MAX))
                .into_iter()
                .collect(),
        );
    }
    Affected::Between(
        was.into_values()
            .zip(is.into_values())
            .filter(|(was, is)| was != is)
            .map(|(was, is)| (was.min(is), was.max(is)))
            .collect(),
    )
}

/// What each gateway routes by; one that acknowledged nothing that counts is behind everything.
fn acknowledged(fleet: &Fleet) -> BTreeMap<&str, i64> {
    let revision = |replica: &Replica| {
        if replica.epoch < fleet.since_epoch {
            i64::MIN
        } else {
            replica.revision
        }
    };
    fleet
        .replicas
        .iter()
        .map(|replica| (replica.id.as_str(), revision(replica)))
        .collect()
}

/// Objects in the order of the revisions since which they are published.
#[derive(Debug, Default)]
pub struct ByRevision(BTreeSet<(i64, Uuid)>);

impl ByRevision {
    /// `None`: isn't published.
    pub fn put(&mut self, uid: Uuid, before: Option<i64>, now: Option<i64>) {
        if let Some(revision) = before {
            self.0.remove(&(revision, uid));
        }
        if let Some(revision) = now {
            self.0.insert((revision, uid));
        }
    }

    pub fn between(&self, ranges: &[(i64, i64)]) -> BTreeSet<Uuid> {
        ranges
            .iter()
            .flat_map(|(after, until)| {
                self.0.range((
                    Bound::Excluded((*after, Uuid::max())),
                    Bound::Included((*until, Uuid::max())),
                ))
            })
            .map(|(_, uid)| *uid)
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        change::Meta,
        fleet::Database,
        status::{Facts, decide},
    };
    use jiff::Timestamp;
    use routing::compile::Verdict;

    fn fleet(replicas: &[(&str, i64, i64)], since_epoch: i64) -> Fleet {
        Fleet {
            replicas: replicas
                .iter()
                .map(|(id, epoch, revision)| Replica {
                    id: (*id).to_owned(),
                    epoch: *epoch,
                    revision: *revision,
                })
                .collect(),
            since_epoch,
            database: Database::Here,
        }
    }

    #[test]
    fn a_heartbeat_concerns_what_was_published_in_between() {
        let before = fleet(&[("a", 1, 100), ("b", 1, 90)], 1);
        let after = fleet(&[("a", 1, 120), ("b", 1, 90)], 1);
        assert_eq!(
            affected(&before, &after),
            Affected::Between(vec![(100, 120)])
        );
        assert_eq!(affected(&after, &after), Affected::Between(vec![]));
        let mut index = ByRevision::default();
        for revision in [99, 100, 101, 120, 121] {
            index.put(
                Uuid::from_u128(revision),
                None,
                Some(i64::try_from(revision).unwrap()),
            );
        }
        assert_eq!(
            index.between(&[(100, 120)]),
            BTreeSet::from([Uuid::from_u128(101), Uuid::from_u128(120)])
        );
    }

    #[test]
    fn an_object_is_found_at_its_newest_revision_only() {
        let (mut index, uid) = (ByRevision::default(), Uuid::from_u128(1));
        index.put(uid, None, Some(1));
        index.put(uid, Some(1), Some(5));
        assert!(index.between(&[(0, 4)]).is_empty());
        assert_eq!(index.between(&[(4, i64::MAX)]), BTreeSet::from([uid]));
        index.put(uid, Some(5), None);
        assert!(index.between(&[(i64::MIN, i64::MAX)]).is_empty());
    }

    /// Every fleet of up to two gateways at a few revisions, in two epochs of which one may not count.
    fn fleets() -> Vec<Fleet> {
        let mut replicas = vec![vec![]];
        let states: Vec<(i64, i64)> = (1..=2)
            .flat_map(|epoch| (0..=3).map(move |revision| (epoch, revision)))
            .collect();
        for &(epoch, revision) in &states {
            replicas.push(vec![("a", epoch, revision)]);
            replicas.push(vec![("c", epoch, revision)]);
            for &(other_epoch, other) in &states {
                replicas.push(vec![("a", epoch, revision), ("b", other_epoch, other)]);
            }
        }
        let mut fleets = Vec::new();
        for since_epoch in 1..=2 {
            fleets.extend(replicas.iter().map(|replicas| fleet(replicas, since_epoch)));
        }
        let away = fleets.iter().step_by(5).map(|fleet| Fleet {
            database: Database::Away,
            ..fleet.clone()
        });
        let away: Vec<_> = away.collect();
        fleets.extend(away);
        fleets
    }

    #[test]
    fn the_status_of_an_object_that_is_not_affected_stays() {
        let meta = Meta {
            kind: crds::Kind::Destination,
            uid: Uuid::from_u128(1),
            namespace: "n".to_owned(),
            name: "d".to_owned(),
            generation: 1,
            path: None,
        };
        let verdict = Verdict {
            findings: Vec::new(),
            notes: Vec::new(),
            routed_generation: Some(1),
        };
        let fleets = fleets();
        let mut stayed = 0;
        for before in &fleets {
            for published in [None, Some(1), Some(2), Some(3)] {
                let facts = Facts {
                    meta: &meta,
                    verdict: &verdict,
                    published,
                    held: None,
                    fleet: before,
                    public_url: "https://hooks.example.com",
                    circuit: None,
                    previous: None,
                    now: Timestamp::UNIX_EPOCH,
                };
                let known = decide(&facts);
                let mut index = ByRevision::default();
                index.put(meta.uid, None, published);
                for after in &fleets {
                    let Affected::Between(ranges) = affected(before, after) else {
                        continue;
                    };
                    if !index.between(&ranges).is_empty() {
                        continue;
                    }
                    stayed += 1;
                    let now = decide(&Facts {
                        fleet: after,
                        previous: Some(&known),
                        ..facts
                    });
                    assert_eq!(now, known, "{published:?}: {before:?} → {after:?}");
                }
            }
        }
        assert!(stayed > 1000, "nothing was compared");
    }
}
