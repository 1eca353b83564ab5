//! What checking a body against a schema may cost at most, from the schema alone.
//!
//! A check visits each subschema once for each way that leads to it, so a few lines of `$ref` that name each other twice
//! make millions of visits. Without a schema that refers to itself the number of all ways is a bound, and is counted here.
//! With one, the number of ways by which one level of a body leads to the same place of the next is the factor by which
//! each level multiplies the cost; a factor of one (a tree, a list of lists) costs nothing, and a larger one bounds the
//! depth up to which a body is followed.

use serde_json::{Map, Value};
use std::collections::{HashMap, HashSet};

/// Ways through the schema. A large real schema (an OpenAPI document's) has some thousands.
const MOST_WAYS: u64 = 50_000;

/// Visits per value of a body, over all levels of one that a schema which refers to itself follows.
const MOST_VISITS: f64 = 1e6;

/// Keywords whose value is a schema for the same place of the body.
const HERE: [&str; 4] = ["not", "if", "then", "else"];
/// … is a list of schemas for the same place.
const HERE_LISTS: [&str; 3] = ["allOf", "anyOf", "oneOf"];
/// … is a map of schemas for the same place.
const HERE_MAPS: [&str; 2] = ["dependentSchemas", "dependencies"];
/// … is a schema for what lies one level deeper.
const BELOW: [&str; 8] = [
    "additionalProperties",
    "unevaluatedProperties",
    "propertyNames",
    "items",
    "additionalItems",
    "unevaluatedItems",
    "contains",
    "contentSchema",
];
/// … is a list of schemas for what lies deeper, each for another place.
const BELOW_LISTS: [&str; 2] = ["prefixItems", "items"];
const REFERENCES: [&str; 3] = ["$ref", "$dynamicRef", "$recursiveRef"];

/// What is known of a schema's cost.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Cost {
    ways: u64,
    /// Ways from one level to the same place of the next, in a schema that refers to itself.
    factor: Option<u64>,
}

impl Cost {
    /// The error is a sentence for whoever wrote the schema.
    pub(super) fn of(schema: &Value) -> Result<Cost, String> {
        let mut names = HashMap::new();
        name(schema, &mut names);
        let mut walk = Walk {
            root: schema,
            names,
            ways: HashMap::new(),
            open: HashSet::new(),
            recursive: false,
        };
        let ways = walk.ways(schema)?;
        if ways > MOST_WAYS {
            return Err(format!(
                "the schema's references multiply to more than {MOST_WAYS} ways through it, each of which costs time at every event; refer to less, or less often"
            ));
        }
        let factor = walk.recursive.then(|| walk.factor());
        Ok(Cost { ways, factor })
    }

    /// How deep a body may be.
    pub(super) fn most_depth(self) -> Option<usize> {
        let factor = self.factor.filter(|factor| *factor > 1)? as f64;
        let levels = (MOST_VISITS / self.ways as f64).ln() / factor.ln();
        // Below zero where the ways alone are all that may be; one level is always followed.
        Some((levels as usize).max(1))
    }
}

/// Where a step from a schema leads, seen from the body.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Place<'s> {
    Here,
    /// This property alone.
    Property(&'s str),
    /// Any property, any item.
    Any,
}

/// Subschemas are told apart by where they lie in memory: the schema isn't changed while it is looked at.
type Node = *const Value;

struct Walk<'s> {
    root: &'s Value,
    /// What anchors and ids name.
    names: HashMap<&'s str, Vec<&'s Value>>,
    ways: HashMap<Node, u64>,
    /// On the way from the root.
    open: HashSet<Node>,
    recursive: bool,
}

impl<'s> Walk<'s> {
    /// All ways through a subschema; one that is on the way to itself counts as one, and its second visit is the next level's.
    fn ways(&mut self, schema: &'s Value) -> Result<u64, String> {
        let node: Node = schema;
        if let Some(ways) = self.ways.get(&node) {
            return Ok(*ways);
        }
        if !self.open.insert(node) {
            self.recursive = true;
            return Ok(1);
        }
        self.refuse_circle(schema, &mut HashSet::new())?;
        let mut ways: u64 = 1;
        for (_, next) in self.steps(schema) {
            ways = ways.saturating_add(self.ways(next)?);
        }
        self.open.remove(&node);
        self.ways.insert(node, ways);
        Ok(ways)
    }

    /// A schema that leads back to itself at the same place of the body never ends.
    fn refuse_circle(&self, schema: &'s Value, passed: &mut HashSet<Node>) -> Result<(), String> {
        // Each is looked at once: what was passed on another branch didn't lead back to where this began.
        let start: Node = schema;
        let mut next = vec![schema];
        while let Some(schema) = next.pop() {
            for (place, step) in self.steps(schema) {
                if place != Place::Here {
                    continue;
                }
                if std::ptr::eq(start, step) {
                    return Err("the schema refers to itself without going deeper into the body, which never ends; put the reference below `properties` or `items`".to_owned());
                }
                if passed.insert(step) {
                    next.push(step);
                }
            }
        }
        Ok(())
    }

    /// The most ways by which any subschema leads to one place of the level below. Every subschema counts, whether it is
    /// part of a circle or not: the bound is on the safe side.
    fn factor(&self) -> u64 {
        let schemas: Vec<&'s Value> = {
            let mut found = HashMap::new();
            self.collect(self.root, &mut found);
            found.into_values().collect()
        };
        let mut worst = 1;
        for schema in schemas {
            let mut places: HashMap<Place<'s>, u64> = HashMap::new();
            let mut budget = MOST_WAYS;
            self.count(schema, &mut places, &mut budget);
            let any = places.get(&Place::Any).copied().unwrap_or_default();
            let named = places
                .iter()
                .filter(|(place, _)| matches!(place, Place::Property(_)))
                .map(|(_, ways)| *ways)
                .max()
                .unwrap_or_default();
            worst = worst.max(any + named);
        }
        worst
    }

    fn collect(&self, schema: &'s Value, found: &mut HashMap<Node, &'s Value>) {
        let mut next = vec![schema];
        while let Some(schema) = next.pop() {
            if found.insert(schema, schema).is_none() {
                next.extend(self.steps(schema).into_iter().map(|(_, step)| step));
            }
        }
    }

    /// Counts the steps to the level below, over all ways that stay here before. There is no circle among those.
    fn count(&self, schema: &'s Value, places: &mut HashMap<Place<'s>, u64>, budget: &mut u64) {
        for (place, step) in self.steps(schema) {
            *budget = budget.saturating_sub(1);
            if *budget == 0 {
                return;
            }
            match place {
                Place::Here => self.count(step, places, budget),
                // One that says nothing costs nothing.
                _ if !step.is_object() => {}
                place => *places.entry(place).or_default() += 1,
            }
        }
    }

    fn steps(&self, schema: &'s Value) -> Vec<(Place<'s>, &'s Value)> {
        let Value::Object(fields) = schema else {
            return Vec::new();
        };
        let mut steps = Vec::new();
        for keyword in REFERENCES {
            let reference = fields.get(keyword).and_then(Value::as_str);
            let targets = reference.map(|reference| self.targets(reference));
            steps.extend(targets.into_iter().flatten().map(|to| (Place::Here, to)));
        }
        let one = |keyword: &str| fields.get(keyword);
        steps.extend(HERE.into_iter().filter_map(one).map(|to| (Place::Here, to)));
        steps.extend(lists(fields, &HERE_LISTS).map(|to| (Place::Here, to)));
        steps.extend(maps(fields, &HERE_MAPS).map(|(_, to)| (Place::Here, to)));
        steps.extend(BELOW.into_iter().filter_map(one).map(|to| (Place::Any, to)));
        steps.extend(lists(fields, &BELOW_LISTS).map(|to| (Place::Any, to)));
        let properties = maps(fields, &["properties"]);
        steps.extend(properties.map(|(name, to)| (Place::Property(name), to)));
        steps.extend(maps(fields, &["patternProperties"]).map(|(_, to)| (Place::Any, to)));
        steps
    }

    /// What a reference may lead to. One that leads nowhere is found by the validator.
    fn targets(&self, reference: &str) -> Vec<&'s Value> {
        let (address, fragment) = reference.split_once('#').unwrap_or((reference, ""));
        let bases = match address {
            "" => vec![self.root],
            address => self.named(address),
        };
        match fragment {
            "" => bases,
            pointer if pointer.starts_with('/') => {
                let pointer = percent_decoded(pointer);
                // An id may change what a pointer begins at, so the root's is tried too.
                let all = bases.into_iter().chain([self.root]);
                let mut found: Vec<_> = all.filter_map(|base| base.pointer(&pointer)).collect();
                found.dedup_by(|a, b| std::ptr::eq(*a, *b));
                found
            }
            anchor => self.named(anchor),
        }
    }

    fn named(&self, name: &str) -> Vec<&'s Value> {
        let exact = self.names.get(name).cloned().unwrap_or_default();
        if !exact.is_empty() {
            return exact;
        }
        // A relative address: whichever id ends with it.
        let ends = |id: &&str| id.ends_with(name) && !name.is_empty();
        let ids = self.names.iter().filter(|(id, _)| ends(id));
        ids.flat_map(|(_, schemas)| schemas.iter().copied())
            .collect()
    }
}

fn lists<'s>(fields: &'s Map<String, Value>, keywords: &[&str]) -> impl Iterator<Item = &'s Value> {
    let lists = keywords.iter().filter_map(|keyword| fields.get(*keyword));
    let lists: Vec<_> = lists.filter_map(Value::as_array).flatten().collect();
    lists.into_iter()
}

fn maps<'s>(
    fields: &'s Map<String, Value>,
    keywords: &[&str],
) -> impl Iterator<Item = (&'s str, &'s Value)> {
    let maps = keywords.iter().filter_map(|keyword| fields.get(*keyword));
    let maps = maps.filter_map(Value::as_object).flatten();
    let maps: Vec<_> = maps.map(|(name, schema)| (name.as_str(), schema)).collect();
    maps.into_iter()
}

/// Every id and anchor, wherever it is: too many are found rather than too few.
fn name<'s>(value: &'s Value, names: &mut HashMap<&'s str, Vec<&'s Value>>) {
    match value {
        Value::Object(fields) => {
            for keyword in ["$id", "id", "$anchor", "$dynamicAnchor"] {
                if let Some(name) = fields.get(keyword).and_then(Value::as_str) {
                    let name = name.trim_matches('#');
                    names.entry(name).or_default().push(value);
                }
            }
            fields.values().for_each(|field| name(field, names));
        }
        Value::Array(items) => items.iter().for_each(|item| name(item, names)),
        _ => {}
    }
}

fn percent_decoded(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut decoded = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        let hex = bytes.get(at + 1..at + 3).filter(|_| bytes[at] == b'%');
        let byte = hex.and_then(|hex| u8::from_str_radix(std::str::from_utf8(hex).ok()?, 16).ok());
        decoded.push(byte.unwrap_or(bytes[at]));
        at += if byte.is_some() { 3 } else { 1 };
    }
    String::from_utf8_lossy(&decoded).into_owned()
}
