//! Own paths of sources: who has which.
//!
//! What is sent below a path goes to the path's owner, so a path is claimed with all that lies below it, and two namespaces
//! never have parts of one such tree: else a stranger's longer path would receive what is sent to a shorter one. Within a
//! namespace paths may nest; there the longest one wins.
//!
//! Judged from the oldest source to the youngest: a claim holds unless an older one that holds is in its way. So a claim that
//! is refused is in nobody's way, and what holds depends on the claims alone, not on the order in which they came.

use super::{index::Age, object::Object};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use uuid::Uuid;

/// That a source asks for a path. In the order of age.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Claim {
    age: Age,
    namespace: String,
    path: String,
}

impl Claim {
    /// Of a source whose path can be one; any other claims nothing.
    pub(super) fn of(object: &Object) -> Option<Claim> {
        let path = object
            .path()
            .filter(|path| super::source::path_problem(path).is_none())?;
        Some(Claim {
            age: object.age(),
            namespace: object.namespace.clone(),
            path: path.to_owned(),
        })
    }

    fn uid(&self) -> Uuid {
        self.age.2
    }

    /// Claims that may be in each other's way share it: the first segment.
    fn root(&self) -> &str {
        self.path.split('/').next().unwrap_or_default()
    }
}

/// Why a claim doesn't hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Refusal {
    /// The source that is in its way; of several the one that makes the best message, always the same.
    pub(super) by: Uuid,
    pub(super) overlap: Overlap,
}

/// How the owner's path lies to the refused one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Overlap {
    Same,
    /// The owner has this path, which is a beginning of the refused one.
    Above(String),
    /// The owner's path begins with the refused one.
    Below,
}

/// All claims, and which of them don't hold.
#[derive(Debug, Default)]
pub(super) struct Claims {
    /// By their roots.
    trees: HashMap<String, BTreeSet<Claim>>,
    refused: HashMap<Uuid, Refusal>,
    /// Roots of trees in which a claim came or went.
    disturbed: BTreeSet<String>,
}

impl Claims {
    /// What a source asked for before, and asks for now.
    pub(super) fn change(&mut self, before: Option<Claim>, after: Option<Claim>) {
        if before == after {
            return;
        }
        if let Some(before) = before {
            self.refused.remove(&before.uid());
            if let Some(tree) = self.trees.get_mut(before.root()) {
                tree.remove(&before);
                if tree.is_empty() {
                    self.trees.remove(before.root());
                }
            }
            self.disturbed.insert(before.root().to_owned());
        }
        if let Some(after) = after {
            let root = after.root().to_owned();
            self.disturbed.insert(root.clone());
            self.trees.entry(root).or_default().insert(after);
        }
    }

    /// Judges what was disturbed, each tree once, and answers the sources whose claim stands otherwise than before.
    pub(super) fn settle(&mut self) -> BTreeSet<Uuid> {
        let mut moved = BTreeSet::new();
        for root in std::mem::take(&mut self.disturbed) {
            let mut held = Held::default();
            for claim in self.trees.get(&root).into_iter().flatten() {
                let refusal = held.refuse(claim);
                if refusal.is_none() {
                    held.add(claim);
                }
                if self.refused.get(&claim.uid()) != refusal.as_ref() {
                    moved.insert(claim.uid());
                    match refusal {
                        Some(refusal) => self.refused.insert(claim.uid(), refusal),
                        None => self.refused.remove(&claim.uid()),
                    };
                }
            }
        }
        moved
    }

    /// As of the last [`Claims::settle`]; `None`: the claim holds, or there is none.
    pub(super) fn refusal(&self, uid: Uuid) -> Option<&Refusal> {
        self.refused.get(&uid)
    }
}

/// The claims of one tree that hold so far. A look-up and an addition cost as much as the path has segments, however many
/// claims there are: one tenant's ten thousand paths don't hold up the operator.
#[derive(Debug, Default)]
struct Held<'c> {
    paths: HashMap<&'c str, &'c Claim>,
    /// By each path above theirs.
    below: HashMap<&'c str, Below<'c>>,
}

/// The oldest claim below a path, and the oldest of another namespace than that one's.
#[derive(Debug)]
struct Below<'c> {
    first: &'c Claim,
    other: Option<&'c Claim>,
}

impl<'c> Held<'c> {
    fn refuse(&self, claim: &Claim) -> Option<Refusal> {
        let refusal = |by: &Claim, overlap| {
            let by = by.uid();
            Some(Refusal { by, overlap })
        };
        if let Some(owner) = self.paths.get(&*claim.path) {
            return refusal(owner, Overlap::Same);
        }
        let foreign = |owner: &&Claim| owner.namespace != claim.namespace;
        if let Some(owner) = above(&claim.path)
            .filter_map(|path| self.paths.get(path).copied())
            .find(foreign)
        {
            return refusal(owner, Overlap::Above(owner.path.clone()));
        }
        let below = self.below.get(&*claim.path)?;
        let owner = Some(below.first)
            .filter(foreign)
            .or(below.other.filter(foreign))?;
        refusal(owner, Overlap::Below)
    }

    fn add(&mut self, claim: &'c Claim) {
        self.paths.insert(&claim.path, claim);
        for path in above(&claim.path) {
            let below = self.below.entry(path).or_insert(Below {
                first: claim,
                other: None,
            });
            if below.other.is_none() && below.first.namespace != claim.namespace {
                below.other = Some(claim);
            }
        }
    }
}

/// The paths above this one, the shortest first: `a` and `a/b` for `a/b/c`.
fn above(path: &str) -> impl Iterator<Item = &str> {
    path.match_indices('/').map(|(at, _)| &path[..at])
}

/// Paths that rows route by, and whose they are. A row may route by a path that its object asks for no more.
#[derive(Debug, Default)]
pub(super) struct RoutedPaths(BTreeMap<String, Uuid>);

impl RoutedPaths {
    pub(super) fn insert(&mut self, path: &str, uid: Uuid) {
        self.0.insert(path.to_owned(), uid);
    }

    pub(super) fn remove(&mut self, path: &str, uid: Uuid) {
        if self.0.get(path) == Some(&uid) {
            self.0.remove(path);
        }
    }

    /// The row of this path, the rows of paths above it, and the rows of paths below it.
    pub(super) fn overlapping(&self, path: &str) -> impl Iterator<Item = Uuid> {
        // `0` is the character behind `/`, so this is all that begins with `path/`.
        let below = self.0.range(format!("{path}/")..format!("{path}0"));
        above(path)
            .chain([path])
            .filter_map(|path| self.0.get(path))
            .chain(below.map(|(_, uid)| uid))
            .copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn claim(n: u128, namespace: &str, path: &str) -> Claim {
        Claim {
            age: (true, None, Uuid::from_u128(n)),
            namespace: namespace.to_owned(),
            path: path.to_owned(),
        }
    }

    fn in_the_way(one: &Claim, other: &Claim) -> bool {
        let nested = |long: &Claim, short: &Claim| {
            long.path
                .strip_prefix(&*short.path)
                .is_some_and(|rest| rest.starts_with('/'))
        };
        one.path == other.path
            || one.namespace != other.namespace && (nested(one, other) || nested(other, one))
    }

    /// The rule as it is told: each claim against each older one that holds.
    fn holding(claims: &[Claim]) -> BTreeSet<Uuid> {
        let mut claims: Vec<_> = claims.iter().collect();
        claims.sort();
        let mut held: Vec<&Claim> = Vec::new();
        for claim in claims {
            if !held.iter().any(|older| in_the_way(older, claim)) {
                held.push(claim);
            }
        }
        held.into_iter().map(Claim::uid).collect()
    }

    fn any_claims() -> impl Strategy<Value = Vec<Claim>> {
        let path = prop::collection::vec("[ab]", 1..4).prop_map(|segments| segments.join("/"));
        let claim = ("[xyz]", path);
        prop::collection::vec(claim, 1..24).prop_map(|claims| {
            let claims = claims.into_iter().enumerate();
            claims
                .map(|(n, (namespace, path))| super::tests::claim(n as u128, &namespace, &path))
                .collect()
        })
    }

    proptest! {
        #[test]
        fn what_holds_is_what_the_rule_says_in_whatever_order_claims_come_and_go(
            (claims, order) in any_claims().prop_flat_map(|claims| (Just(claims.clone()), Just(claims).prop_shuffle())),
            gone in prop::collection::vec(any::<prop::sample::Index>(), 0..6),
        ) {
            let mut known = Claims::default();
            for claim in order {
                known.change(None, Some(claim));
                // Judged in between or only at the end: the same.
                known.settle();
            }
            let mut left = claims.clone();
            for gone in gone {
                if !left.is_empty() {
                    let claim = left.remove(gone.index(left.len()));
                    known.change(Some(claim), None);
                }
            }
            let before = known.refused.clone();
            let moved = known.settle();

            let held: BTreeSet<_> = left.iter().map(Claim::uid).filter(|uid| known.refusal(*uid).is_none()).collect();
            prop_assert_eq!(&held, &holding(&left));
            for claim in &left {
                let uid = claim.uid();
                prop_assert_eq!(moved.contains(&uid), before.get(&uid) != known.refusal(uid));
                if let Some(refusal) = known.refusal(uid) {
                    // Who is named is really in the way, and routes.
                    let owner = left.iter().find(|owner| owner.uid() == refusal.by).expect("known");
                    prop_assert!(owner < claim && in_the_way(owner, claim) && held.contains(&refusal.by));
                }
            }
            let mut whole = Claims::default();
            left.into_iter().for_each(|claim| whole.change(None, Some(claim)));
            whole.settle();
            prop_assert_eq!(known.refused, whole.refused);
            prop_assert_eq!(known.trees, whole.trees);
        }
    }

    #[test]
    fn segments_are_whole() {
        let mut claims = Claims::default();
        for (n, path) in ["pay", "payments", "pay-x/y", "pay.x"].iter().enumerate() {
            claims.change(None, Some(claim(n as u128, &format!("n{n}"), path)));
        }
        claims.settle();
        assert_eq!(claims.refused, HashMap::new());

        let mut routed = RoutedPaths::default();
        for (n, path) in ["pay", "payments", "pay-x/y", "pay.x", "pay/x", "pay/x/y"]
            .iter()
            .enumerate()
        {
            routed.insert(path, Uuid::from_u128(n as u128));
        }
        let found: Vec<_> = routed
            .overlapping("pay/x")
            .map(|uid| uid.as_u128())
            .collect();
        assert_eq!(found, [0, 4, 5]);
    }

    #[test]
    fn many_claims_of_one_tree_are_judged_at_once() {
        let mut claims = Claims::default();
        for n in 0..20_000 {
            // A claim of the root comes last and sees them all; so do as many refused ones.
            let path = match n < 10_000 {
                true => format!("a/{n}"),
                false => "a".to_owned(),
            };
            claims.change(
                None,
                Some(claim(n, if n == 9_999 { "y" } else { "x" }, &path)),
            );
        }
        assert_eq!(claims.settle().len(), 10_000);
        assert_eq!(
            claims.refusal(Uuid::from_u128(10_000)),
            Some(&Refusal {
                by: Uuid::from_u128(9_999),
                overlap: Overlap::Below
            })
        );
    }
}
