//! Who depends on whom, so that a change reaches what it concerns and nothing else.

use super::{
    SecretName,
    object::{Object, ObjectName},
};
use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    hash::Hash,
    sync::Arc,
};
use uuid::Uuid;

/// The order of claims: the oldest first. An object without a time of creation was never stored, and is the youngest.
pub(super) type Age = (bool, Option<jiff::Timestamp>, Uuid);

#[derive(Debug, Default)]
pub(super) struct Index {
    /// Objects by name. Two have one name only between the deletion of the one and the news of it.
    named: HashMap<ObjectName, BTreeSet<Age>>,
    /// Connections by what they refer to.
    referring: HashMap<ObjectName, BTreeSet<Uuid>>,
    /// Connections of a namespace that refer to another one.
    crossing: HashMap<String, BTreeSet<Uuid>>,
    /// Objects by the Secrets that they name.
    keeping: BTreeMap<SecretName, BTreeSet<Uuid>>,
    /// Objects by the expressions that they have.
    evaluating: BTreeMap<Arc<str>, BTreeSet<Uuid>>,
}

impl Index {
    pub(super) fn add(&mut self, object: &Object) {
        let uid = object.uid;
        self.named
            .entry(object.name())
            .or_default()
            .insert(object.age());
        for target in object.references() {
            if target.namespace != object.namespace {
                self.crossing
                    .entry(object.namespace.clone())
                    .or_default()
                    .insert(uid);
            }
            self.referring.entry(target).or_default().insert(uid);
        }
        for secret in object.secrets() {
            self.keeping.entry(secret).or_default().insert(uid);
        }
        for expression in object.expressions() {
            match self.evaluating.get_mut(expression) {
                Some(objects) => objects.insert(uid),
                None => self
                    .evaluating
                    .entry(Arc::from(expression))
                    .or_default()
                    .insert(uid),
            };
        }
    }

    /// Undoes [`Index::add`] of the same object.
    pub(super) fn remove(&mut self, object: &Object) {
        let uid = object.uid;
        forget(&mut self.named, &object.name(), &object.age());
        forget(&mut self.crossing, &object.namespace, &uid);
        for target in object.references() {
            forget(&mut self.referring, &target, &uid);
        }
        for secret in object.secrets() {
            if let Some(keepers) = self.keeping.get_mut(&secret) {
                keepers.remove(&uid);
                if keepers.is_empty() {
                    self.keeping.remove(&secret);
                }
            }
        }
        for expression in object.expressions() {
            if let Some(objects) = self.evaluating.get_mut(expression) {
                objects.remove(&uid);
                if objects.is_empty() {
                    self.evaluating.remove(expression);
                }
            }
        }
    }

    /// Objects that have this expression.
    pub(super) fn evaluating(&self, expression: &str) -> impl Iterator<Item = Uuid> {
        self.evaluating
            .get(expression)
            .into_iter()
            .flatten()
            .copied()
    }

    pub(super) fn expressions(&self) -> impl Iterator<Item = &Arc<str>> {
        self.evaluating.keys()
    }

    /// The object of this name; of two, the younger: it is the one that the API server has.
    pub(super) fn named(&self, name: &ObjectName) -> Option<Uuid> {
        self.named.get(name)?.last().map(|(_, _, uid)| *uid)
    }

    pub(super) fn referring(&self, name: &ObjectName) -> impl Iterator<Item = Uuid> {
        self.referring.get(name).into_iter().flatten().copied()
    }

    pub(super) fn crossing(&self, namespace: &str) -> impl Iterator<Item = Uuid> {
        self.crossing.get(namespace).into_iter().flatten().copied()
    }

    pub(super) fn keeping(&self, secret: &SecretName) -> impl Iterator<Item = Uuid> {
        self.keeping.get(secret).into_iter().flatten().copied()
    }

    pub(super) fn secrets(&self) -> impl Iterator<Item = &SecretName> {
        self.keeping.keys()
    }
}

fn forget<K: Hash + Eq, V: Ord>(sets: &mut HashMap<K, BTreeSet<V>>, key: &K, value: &V) {
    if let Some(set) = sets.get_mut(key) {
        set.remove(value);
        if set.is_empty() {
            sets.remove(key);
        }
    }
}
