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
use std::{cell::RefCell, cmp::Reverse, collections::HashMap, ops::Range};

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
        let mut gated: Vec<Option<Path>> = vec![None; names.keys.len()];
        let mut index = Index::default();
        let popular = Popular::of(active().map(|(_, matcher)| matcher));
        for (place, matcher) in active() {
            let Some(gate) = popular.least(&matcher.gates) else {
                index.always.push(place);
                continue;
            };
            let first = names.firsts[place as usize] as usize;
            for (rule, key) in &gate.keys {
                let rule = usize::from(*rule);
                index.keys.push((*key, place));
                let path = &mut gated[names.of_rules[first + rule] as usize];
                if path.is_none() {
                    *path = matcher.rule(rule).map(|rule| rule.path.clone());
                }
            }
        }
        index.keys.sort_unstable();
        // Two rules of an `any` may ask for one value.
        index.keys.dedup();
        index.paths = (gated.into_iter().zip(&names.keys).zip(&slots))
            .filter_map(|((path, key), slot)| {
                Some(Gated {
                    path: path?,
                    key: *key,
                    slot: *slot,
                })
            })
            .collect();
        if slots.iter().any(|slot| *slot != NO_SLOT) {
            let slot = |name: &u32| slots[*name as usize];
            index.slots = names.of_rules.iter().map(slot).collect();
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

/// How many connections each key leads to, if all gates were used; roughly, since some keys are counted together. That is
/// good enough to choose by, and takes a tenth of the time of a map.
struct Popular {
    /// By the low bits of a key; a power of two of them. Empty: nothing is to be chosen.
    counts: Vec<u32>,
}

impl Popular {
    fn of<'m>(matchers: impl Iterator<Item = &'m Matcher> + Clone) -> Popular {
        let gates = || matchers.clone().flat_map(|matcher| &matcher.gates);
        if matchers.clone().all(|matcher| matcher.gates.len() < 2) {
            return Popular { counts: Vec::new() };
        }
        let keys: usize = gates().map(|gate| gate.keys.len()).sum();
        let mut popular = Popular {
            counts: vec![0; (2 * keys).next_power_of_two()],
        };
        for (_, key) in gates().flat_map(|gate| &gate.keys) {
            let at = popular.at(*key);
            popular.counts[at] += 1;
        }
        popular
    }

    fn at(&self, key: u64) -> usize {
        key as usize & (self.counts.len() - 1)
    }

    /// The gate that the fewest connections share; the first of those that are alike.
    fn least<'g>(&self, gates: &'g [Gate]) -> Option<&'g Gate> {
        if let [] | [_] = gates {
            return gates.first();
        }
        gates.iter().min_by_key(|gate| {
            let counts = gate.keys.iter().map(|(_, key)| self.counts[self.at(*key)]);
            counts.map(u64::from).sum::<u64>()
        })
    }
}

/// The different paths of a source's rules, numbered.
struct Names {
    keys: Vec<PathKey>,
    /// How many rules have each.
    uses: Vec<u32>,
    /// The path of each rule of each connection.
    of_rules: Vec<u32>,
    /// Where the rules of each connection begin.
    firsts: Vec<u32>,
}

impl Names {
    fn of(matchers: &[Option<&Matcher>]) -> Names {
        let mut names = Names {
            keys: Vec::new(),
            uses: Vec::new(),
            of_rules: Vec::with_capacity(2 * matchers.len()),
            firsts: Vec::with_capacity(matchers.len()),
        };
        let mut known: HashMap<PathKey, u32> = HashMap::new();
        let mut before = 0;
        for matcher in matchers {
            let first = names.of_rules.len();
            names.firsts.push(first as u32);
            let paths = matcher.map_or(&[][..], |matcher| &matcher.paths);
            for (at, key) in paths.iter().enumerate() {
                // Most connections of a source look where the one before does, in the same order.
                let likely = (before + at < first).then(|| names.of_rules[before + at]);
                let name = match likely.filter(|name| names.keys[*name as usize] == *key) {
                    Some(name) => name,
                    None => *known.entry(*key).or_insert_with(|| {
                        names.keys.push(*key);
                        names.uses.push(0);
                        names.keys.len() as u32 - 1
                    }),
                };
                names.uses[name as usize] += 1;
                names.of_rules.push(name);
            }
            before = first;
        }
        names
    }

    /// A slot for each of the paths that the most rules share.
    fn slots(&self) -> Vec<u8> {
        let shared = |name: &usize| self.uses[*name] > 1;
        let mut order: Vec<usize> = (0..self.keys.len()).filter(shared).collect();
        order.sort_by_key(|name| Reverse(self.uses[*name]));
        let mut slots = vec![NO_SLOT; self.keys.len()];
        for (slot, name) in (0_u8..).zip(order.into_iter().take(SLOTS)) {
            slots[name] = slot;
        }
        slots
    }
}

#[cfg(test)]
mod tests;
