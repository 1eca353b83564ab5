//! Finds the connections that an event can pass, without asking each.
//!
//! Most filters ask for one of a few values at one place: an event's type, a tenant. Such a rule is a [`Gate`]: an event
//! that passes the connection has one of its keys. The index of a source knows the connections of each key; an event is
//! looked into once for each path that gates use, and only the connections found by its values are evaluated, whole. So
//! the index decides nothing: it leaves out connections whose filter would say no, and is allowed to leave out too few.
//!
//! Of a connection's gates the one is used whose keys the fewest connections have: with `type` and `tenant` in each of ten
//! thousand filters, the tenant.
//!
//! An index is built anew when a connection of its source changes, in one pass over what [`Gate::of`] prepared.

use super::{
    Matcher, Path, Rule, Test,
    compare::{Found, PathKey},
    look::{NO_SLOT, SLOTS, Shared},
};
use crate::event::EventView;
use std::{cell::RefCell, collections::HashMap, ops::Range};

/// Keys of one connection, all its gates together. An `in` with more values than are left is no gate: it is evaluated for
/// each event. Ten thousand connections at this bound are 640,000 keys, 10 MiB.
const MOST_KEYS: usize = 64;

/// With fewer connections, asking each is as quick.
const LEAST_CONNECTIONS: usize = 8;

/// A part of a filter that holds only if a path leads to a value that has one of these keys. An `eq` or `in` of `all` is
/// one, and `any` as a whole if it has no other operators.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Gate {
    /// With the place of the rule among the matcher's.
    keys: Vec<(u16, u64)>,
}

impl Gate {
    /// All that there are, those with few keys first.
    pub(super) fn of(all: &[Rule], any: &[Rule]) -> Vec<Gate> {
        let each = |rules: &[Rule], first: usize| {
            let keys = rules.iter().zip(first..);
            keys.map(|(rule, place)| keys_of(rule, place))
                .collect::<Option<Vec<_>>>()
        };
        let mut gates: Vec<Gate> = all
            .iter()
            .zip(0..)
            .filter_map(|(rule, place)| keys_of(rule, place))
            .map(|keys| Gate { keys })
            .collect();
        if let (false, Some(keys)) = (any.is_empty(), each(any, all.len())) {
            gates.push(Gate {
                keys: keys.concat(),
            });
        }
        gates.sort_by_key(|gate| gate.keys.len());
        let mut keys = 0;
        gates.retain(|gate| {
            keys += gate.keys.len();
            keys <= MOST_KEYS
        });
        gates.shrink_to_fit();
        gates
    }
}

/// `None`: the rule can hold without any of a few values being there.
fn keys_of(rule: &Rule, place: usize) -> Option<Vec<(u16, u64)>> {
    let path = PathKey::of(&rule.path);
    let place = u16::try_from(place).ok()?;
    match &rule.test {
        Test::Eq(value) => Some(
            value
                .key(path)
                .map(|key| (place, key))
                .into_iter()
                .collect(),
        ),
        Test::In(values) if values.len() <= MOST_KEYS => {
            let mut keys: Vec<_> = values.iter().filter_map(|value| value.key(path)).collect();
            keys.sort_unstable();
            keys.dedup();
            Some(keys.into_iter().map(|key| (place, key)).collect())
        }
        _ => None,
    }
}

/// Of one source. Connections are known by their places in the list that it was built from.
#[derive(Debug, Default)]
pub struct Index {
    /// Connections that no value leads to, in order.
    always: Vec<u32>,
    /// Where gates look.
    paths: Vec<Gated>,
    /// Keys with a connection that each leads to, in order.
    keys: Vec<(u64, u32)>,
    /// Where the rules of each connection begin in `slots`.
    first_slots: Vec<u32>,
    /// Of each rule of each connection; empty: no path is shared.
    slots: Vec<u8>,
}

/// A path that gates look at.
#[derive(Debug)]
struct Gated {
    path: Path,
    key: PathKey,
    slot: u8,
}

impl Index {
    /// `None` stands for a connection that takes no events.
    pub fn new<'m>(matchers: impl Iterator<Item = Option<&'m Matcher>>) -> Index {
        let matchers: Vec<Option<&Matcher>> = matchers.collect();
        let active = || {
            let numbered = (0_u32..).zip(&matchers);
            numbered.filter_map(|(place, matcher)| Some((place, (*matcher)?)))
        };
        if active().count() < LEAST_CONNECTIONS {
            return Index {
                always: active().map(|(place, _)| place).collect(),
                ..Index::default()
            };
        }
        let names = Names::of(&matchers);
        let slots = names.slots();
        let mut gated = vec![false; names.paths.len()];
        let mut index = Index::default();
        let uses = uses_of_keys(active().map(|(_, matcher)| matcher));
        for (place, matcher) in active() {
            let Some(gate) = best(&matcher.gates, &uses) else {
                index.always.push(place);
                continue;
            };
            for (rule, key) in &gate.keys {
                index.keys.push((*key, place));
                let name = names.firsts[place as usize] + u32::from(*rule);
                gated[names.of_rules[name as usize] as usize] = true;
            }
        }
        index.keys.sort_unstable();
        // Two rules of an `any` may ask for one value.
        index.keys.dedup();
        index.paths = (names.paths.iter().zip(&slots).zip(gated))
            .filter(|(_, gated)| *gated)
            .map(|(((path, key), slot), _)| Gated {
                path: (*path).clone(),
                key: *key,
                slot: *slot,
            })
            .collect();
        if slots.iter().any(|slot| *slot != NO_SLOT) {
            index.slots = names
                .of_rules
                .iter()
                .map(|name| slots[*name as usize])
                .collect();
            index.first_slots = names.firsts;
        }
        index
    }

    /// Calls `take` with each connection that the event passes, in no order, and with some perhaps more than once.
    pub fn matching<'m>(
        &self,
        event: &EventView<'_>,
        matcher: impl Fn(u32) -> &'m Matcher,
        mut take: impl FnMut(u32),
    ) {
        if self.slots.is_empty() && self.paths.is_empty() {
            let all = self.always.iter().copied();
            all.filter(|place| matcher(*place).matches(event))
                .for_each(take);
            return;
        }
        let shared = Shared::new();
        let mut judge = |place: u32| {
            let first = self.first_slots.get(place as usize).copied();
            let slots = first.map_or(&[][..], |first| &self.slots[first as usize..]);
            if matcher(place).matches_shared(event, slots, &shared) {
                take(place);
            }
        };
        self.always.iter().copied().for_each(&mut judge);
        for gated in &self.paths {
            for run in self.runs(gated, event, &shared) {
                self.keys[run].iter().for_each(|(_, place)| judge(*place));
            }
        }
    }

    /// The ranges of `keys` that the values at a path lead to, each once.
    fn runs<'e>(
        &self,
        gated: &Gated,
        event: &'e EventView<'_>,
        shared: &Shared<'e>,
    ) -> impl Iterator<Item = Range<usize>> {
        // Empty for most events, and then it allocates nothing.
        let found = RefCell::new(Vec::new());
        let visit = |value: Found<'_>| {
            value.keys(gated.key, |key| {
                let at = self.keys.partition_point(|(other, _)| *other < key);
                if self.keys.get(at).is_some_and(|(other, _)| *other == key) {
                    note(&mut found.borrow_mut(), at);
                }
            });
            false
        };
        shared.any(gated.slot, &gated.path, event, &visit);
        let mut found = found.into_inner();
        found.sort_unstable();
        found.dedup();
        found.into_iter().map(|at| {
            let key = self.keys[at].0;
            at..at + self.keys[at..].partition_point(|(other, _)| *other == key)
        })
    }
}

/// Keeps the list no longer than twice the number of different places in it: a body may repeat one value a million times.
fn note(found: &mut Vec<usize>, at: usize) {
    if found.len() == found.capacity() && found.len() > 64 {
        found.sort_unstable();
        found.dedup();
        found.reserve(found.len());
    }
    found.push(at);
}

/// How many connections each key leads to, if all gates were used.
fn uses_of_keys<'m>(matchers: impl Iterator<Item = &'m Matcher>) -> HashMap<u64, u32> {
    let mut uses = HashMap::new();
    let gates = matchers.flat_map(|matcher| &matcher.gates);
    for (_, key) in gates.flat_map(|gate| &gate.keys) {
        *uses.entry(*key).or_default() += 1;
    }
    uses
}

/// The gate that the fewest connections share; the first of those that are alike, whose path costs least.
fn best<'g>(gates: &'g [Gate], uses: &HashMap<u64, u32>) -> Option<&'g Gate> {
    gates.iter().min_by_key(|gate| {
        let shared_by = gate.keys.iter().map(|(_, key)| uses.get(key).copied());
        shared_by
            .map(|uses| u64::from(uses.unwrap_or_default()))
            .sum::<u64>()
    })
}

/// The different paths of a source's rules, numbered.
struct Names<'m> {
    paths: Vec<(&'m Path, PathKey)>,
    /// How many rules have each.
    uses: Vec<u32>,
    /// The path of each rule of each connection.
    of_rules: Vec<u32>,
    /// Where the rules of each connection begin.
    firsts: Vec<u32>,
}

impl<'m> Names<'m> {
    fn of(matchers: &[Option<&'m Matcher>]) -> Names<'m> {
        let mut names = Names {
            paths: Vec::new(),
            uses: Vec::new(),
            of_rules: Vec::with_capacity(2 * matchers.len()),
            firsts: Vec::with_capacity(matchers.len()),
        };
        let mut known: HashMap<&Path, u32> = HashMap::new();
        for matcher in matchers {
            names.firsts.push(names.of_rules.len() as u32);
            for rule in matcher.iter().flat_map(|matcher| matcher.rules()) {
                let next = names.paths.len() as u32;
                let name = *known.entry(&rule.path).or_insert(next);
                if name == next {
                    names.paths.push((&rule.path, PathKey::of(&rule.path)));
                    names.uses.push(0);
                }
                names.uses[name as usize] += 1;
                names.of_rules.push(name);
            }
        }
        names
    }

    /// A slot for each of the paths that the most rules share.
    fn slots(&self) -> Vec<u8> {
        let mut order: Vec<usize> = (0..self.paths.len())
            .filter(|name| self.uses[*name] > 1)
            .collect();
        order.sort_by_key(|name| std::cmp::Reverse(self.uses[*name]));
        let mut slots = vec![NO_SLOT; self.paths.len()];
        for (slot, name) in (0_u8..).zip(order.into_iter().take(SLOTS)) {
            slots[name] = slot;
        }
        slots
    }
}

#[cfg(test)]
mod tests;
