//! The operator without Kubernetes and Postgres: changes in, rows to publish and verdicts out.
//!
//! Guarantees that nothing is compiled before everything was told ([`Change::Synced`] and the Secrets that the objects
//! name), and that an object which can't be read or doesn't compile never loses a row that routes.

use crate::change::{Change, Meta, Object, Observed};
use routing::{
    Row, RowKey,
    compile::{self, Compiler, Finding, Reason, SecretName, Verdict},
};
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};
use uuid::Uuid;

/// Where the values of Secrets come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Secrets {
    /// Each one is told after it was asked for ([`Core::wanted`]): wait for it.
    OnDemand,
    /// All there are were told before [`Change::Synced`] (a folder of manifests).
    Told,
}

/// What is known of an object.
#[derive(Debug, Clone)]
pub struct Entry {
    pub meta: Arc<Meta>,
    /// `None`: not compiled yet.
    pub verdict: Option<Arc<Verdict>>,
    /// The revision since which the table holds what the verdict says.
    pub published: Option<i64>,
    /// The generation that the verdict judged.
    judged: i64,
}

/// What one compile did to the table.
#[derive(Debug, Default)]
pub struct Pass {
    pub changed: Vec<Row>,
    pub removed: Vec<RowKey>,
}

#[derive(Debug)]
pub struct Core {
    compiler: Compiler,
    secrets: Secrets,
    told_secrets: BTreeSet<SecretName>,
    objects: BTreeMap<Uuid, Entry>,
    /// Objects that this version can't read, with the reason.
    unreadable: BTreeMap<Uuid, String>,
    synced: bool,
    dirty: bool,
    /// Since the last [`Core::take_report`].
    touched: BTreeSet<Uuid>,
    gone: BTreeSet<Uuid>,
    observed: BTreeMap<Uuid, Observed>,
}

/// What changed since the last report, for whoever shows it.
#[derive(Debug, Default)]
pub struct Told {
    pub objects: Vec<Entry>,
    pub gone: Vec<Uuid>,
    pub observed: Vec<(Uuid, Observed)>,
}

impl Core {
    /// Starts from the rows that are published.
    pub fn new(last_good: impl IntoIterator<Item = Row>, secrets: Secrets) -> Core {
        Core {
            compiler: Compiler::new(last_good),
            secrets,
            told_secrets: BTreeSet::new(),
            objects: BTreeMap::new(),
            unreadable: BTreeMap::new(),
            synced: false,
            dirty: true,
            touched: BTreeSet::new(),
            gone: BTreeSet::new(),
            observed: BTreeMap::new(),
        }
    }

    pub fn apply(&mut self, change: Change) {
        match change {
            Change::Apply(object) => self.apply_object(*object),
            Change::Status(uid, observed) => {
                self.observed.insert(uid, observed);
                return;
            }
            Change::Remove(uid) => {
                self.compiler.remove(uid);
                self.unreadable.remove(&uid);
                self.touched.remove(&uid);
                self.observed.remove(&uid);
                if self.objects.remove(&uid).is_some() {
                    self.gone.insert(uid);
                }
            }
            Change::Secret(name, data) => {
                self.told_secrets.insert(name.clone());
                self.compiler.set_secret(name, data);
            }
            Change::SecretForbidden(name) => {
                self.told_secrets.insert(name.clone());
                self.compiler.forbid_secret(name);
            }
            Change::SecretUnwanted(name) => {
                self.told_secrets.remove(&name);
                self.compiler.set_secret(name, None);
            }
            Change::Namespace(name, labels) => self.compiler.set_namespace(name, labels),
            Change::Synced => self.synced = true,
        }
        self.dirty = true;
    }

    fn apply_object(&mut self, object: Object) {
        let uid = object.meta.uid;
        match object.resource {
            Ok(resource) => {
                self.unreadable.remove(&uid);
                self.compiler.apply(resource);
            }
            Err(why) => {
                self.compiler.hold(uid);
                self.unreadable.insert(uid, why);
            }
        }
        let known = self.objects.get(&uid);
        let entry = Entry {
            verdict: known.and_then(|known| known.verdict.clone()),
            published: known.and_then(|known| known.published),
            judged: known.map_or(0, |known| known.judged),
            meta: object.meta,
        };
        self.objects.insert(uid, entry);
        self.gone.remove(&uid);
        self.observed.insert(uid, object.observed);
    }

    /// The Secrets to tell.
    pub fn wanted(&self) -> BTreeSet<SecretName> {
        self.compiler.wanted_secrets()
    }

    /// Whether a Secret that an object names was not told yet.
    pub fn waits_for_secrets(&self) -> bool {
        self.secrets == Secrets::OnDemand && !self.wanted().is_subset(&self.told_secrets)
    }

    /// The expressions that have to be checked before the objects that have them can be judged.
    pub fn wanted_expressions(&self) -> Vec<Arc<str>> {
        self.compiler.wanted_expressions()
    }

    pub fn set_expression(&mut self, text: Arc<str>, checked: compile::Checked) {
        self.compiler.set_expression(text, checked);
        self.dirty = true;
    }

    pub fn synced(&self) -> bool {
        self.synced
    }

    /// Whether a compile would have anything to do.
    pub fn dirty(&self) -> bool {
        self.dirty
    }

    pub fn objects(&self) -> impl Iterator<Item = &Entry> {
        self.objects.values()
    }

    /// Compiles what changed.
    pub fn compile(&mut self) -> Pass {
        self.dirty = false;
        let delta = self.compiler.compile();
        for (uid, verdict) in delta.verdicts {
            self.judge(uid, verdict);
        }
        let unreadable: Vec<_> = self
            .unreadable
            .iter()
            .map(|(uid, why)| (*uid, why.clone()))
            .collect();
        for (uid, why) in unreadable {
            let routed_generation = self
                .compiler
                .rows()
                .find(|row| row.uid == uid)
                .map(|row| row.generation);
            self.judge(
                uid,
                Verdict {
                    findings: vec![cannot_read(&why)],
                    notes: Vec::new(),
                    routed_generation,
                },
            );
        }
        Pass {
            changed: delta.changed,
            removed: delta.removed,
        }
    }

    fn judge(&mut self, uid: Uuid, verdict: Verdict) {
        // The compiler may judge what we were told is gone in the same pass, or rows of objects we never saw.
        let Some(entry) = self.objects.get_mut(&uid) else {
            return;
        };
        let same =
            entry.judged == entry.meta.generation && entry.verdict.as_deref() == Some(&verdict);
        if !same {
            entry.judged = entry.meta.generation;
            entry.verdict = Some(Arc::new(verdict));
            entry.published = None;
            self.touched.insert(uid);
        }
    }

    /// Whether a row of this object must stay although the compiler has none: the object is merely wrong, and this process
    /// began to follow after it was right.
    fn keeps_its_row(&self, uid: Uuid) -> bool {
        self.unreadable.contains_key(&uid)
            || self
                .objects
                .get(&uid)
                .and_then(|entry| entry.verdict.as_ref())
                .is_some_and(|verdict| {
                    verdict.routed_generation.is_none()
                        && verdict
                            .findings
                            .iter()
                            .any(|finding| finding.condition == compile::Condition::Accepted)
                        && !verdict.findings.iter().any(|finding| {
                            matches!(finding.reason, Reason::RefNotPermitted | Reason::Conflicted)
                        })
                })
    }

    /// What has to be written so that a table of these rows becomes ours. `unreadable` are keys of rows that a newer
    /// version wrote.
    pub fn difference<'r>(
        &self,
        table: impl IntoIterator<Item = &'r Row>,
        unreadable: impl IntoIterator<Item = RowKey>,
    ) -> Pass {
        let table: BTreeMap<RowKey, &Row> = table.into_iter().map(|row| (row.key(), row)).collect();
        let ours: BTreeSet<RowKey> = self.compiler.rows().map(Row::key).collect();
        let changed = self
            .compiler
            .rows()
            .filter(|row| table.get(&row.key()) != Some(row))
            .cloned()
            .collect();
        let removed = table
            .keys()
            .copied()
            .filter(|key| !ours.contains(key) && !self.keeps_its_row(key.uid))
            .chain(
                unreadable
                    .into_iter()
                    .filter(|key| !ours.contains(key) && !self.objects.contains_key(&key.uid)),
            )
            .collect();
        Pass { changed, removed }
    }

    /// All rows of the last compile.
    pub fn rows(&self) -> Vec<Row> {
        self.compiler.rows().cloned().collect()
    }

    /// Says that the table holds every verdict since this revision, but for the objects in `except`.
    pub fn published(&mut self, revision: i64, except: &BTreeSet<Uuid>) {
        for (uid, entry) in &mut self.objects {
            if entry.verdict.is_some() && entry.published.is_none() && !except.contains(uid) {
                entry.published = Some(revision);
                self.touched.insert(*uid);
            }
        }
    }

    /// Forgets what was published: another table, or another epoch of it.
    pub fn unpublish(&mut self) {
        for (uid, entry) in &mut self.objects {
            if entry.published.take().is_some() {
                self.touched.insert(*uid);
            }
        }
    }

    /// What is to be shown since the last call.
    pub fn take_report(&mut self) -> Told {
        let touched = std::mem::take(&mut self.touched);
        Told {
            objects: touched
                .iter()
                .filter_map(|uid| self.objects.get(uid))
                .filter(|entry| entry.verdict.is_some())
                .cloned()
                .collect(),
            gone: std::mem::take(&mut self.gone).into_iter().collect(),
            observed: std::mem::take(&mut self.observed).into_iter().collect(),
        }
    }
}

fn cannot_read(why: &str) -> Finding {
    Finding {
        condition: compile::Condition::Accepted,
        reason: Reason::UnsupportedValue,
        path: String::new(),
        message: format!("this version of the operator can't read the object: {why}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn object(kind: &str, uid: u128, generation: i64, spec: serde_json::Value) -> Change {
        let uid = Uuid::from_u128(uid);
        let metadata = json!({"name": format!("o{}", uid.as_u128()), "namespace": "n", "uid": uid, "generation": generation, "creationTimestamp": "2026-11-21T12:00:00Z"});
        let manifest = json!({"apiVersion": "hookstream.io/v1alpha1", "kind": kind, "metadata": metadata, "spec": spec});
        Change::Apply(Box::new(
            Object::told(crds::parse(manifest).unwrap()).unwrap(),
        ))
    }

    fn unreadable(uid: u128, generation: i64) -> Change {
        let Change::Apply(mut object) = object("Source", uid, generation, json!({})) else {
            unreachable!()
        };
        object.resource = Err("spec.future: unknown field".to_owned());
        Change::Apply(object)
    }

    fn published(core: &Core, uid: u128) -> Option<i64> {
        core.objects()
            .find(|entry| entry.meta.uid == Uuid::from_u128(uid))
            .and_then(|entry| entry.published)
    }

    #[test]
    fn a_generation_that_changes_no_row_is_published_by_the_revision_that_is_there() {
        let mut core = Core::new([], Secrets::Told);
        core.apply(object("Source", 1, 1, json!({})));
        assert_eq!(core.compile().changed.len(), 1);
        core.published(7, &BTreeSet::new());
        core.apply(object(
            "Source",
            1,
            2,
            json!({"displayName": "A name for people"}),
        ));
        core.compile();
        assert_eq!(
            published(&core, 1),
            None,
            "nobody has acknowledged generation 2"
        );
        core.published(8, &BTreeSet::new());
        assert_eq!(published(&core, 1), Some(8));
    }

    #[test]
    fn a_neighbour_does_not_unpublish_an_object() {
        let mut core = Core::new([], Secrets::Told);
        core.apply(object("Source", 1, 1, json!({})));
        core.compile();
        core.published(7, &BTreeSet::new());
        core.apply(object("Source", 2, 1, json!({})));
        core.compile();
        core.published(8, &BTreeSet::new());
        assert_eq!(
            (published(&core, 1), published(&core, 2)),
            (Some(7), Some(8))
        );
    }

    #[test]
    fn an_object_that_cannot_be_read_keeps_its_row_until_it_is_deleted() {
        let mut before = Core::new([], Secrets::Told);
        before.apply(object("Source", 1, 1, json!({})));
        let rows = before.compile().changed;

        let mut core = Core::new(rows.clone(), Secrets::Told);
        core.apply(unreadable(1, 2));
        assert!(core.compile().removed.is_empty());
        let told = core.take_report();
        let verdict = told.objects[0].verdict.clone().unwrap();
        assert_eq!(
            (verdict.findings[0].reason, verdict.routed_generation),
            (Reason::UnsupportedValue, Some(1))
        );
        assert!(core.difference(&rows, []).removed.is_empty());

        core.apply(Change::Remove(Uuid::from_u128(1)));
        assert_eq!(core.compile().removed.len(), 1);
    }

    #[test]
    fn a_secret_that_was_not_told_yet_is_waited_for() {
        let verification = json!({"verification": {"template": "github", "secretRefs": [{"name": "s", "key": "k"}]}});
        let mut core = Core::new([], Secrets::OnDemand);
        core.apply(object("Source", 1, 1, verification));
        let name = ("n".to_owned(), "s".to_owned());
        assert_eq!(core.wanted(), BTreeSet::from([name.clone()]));
        assert!(core.waits_for_secrets());
        core.apply(Change::Secret(name, None));
        assert!(!core.waits_for_secrets());
    }

    #[test]
    fn a_secret_that_may_not_be_read_is_not_said_to_be_missing() {
        let verification = json!({"verification": {"template": "github", "secretRefs": [{"name": "s", "key": "k"}]}});
        let mut core = Core::new([], Secrets::OnDemand);
        core.apply(object("Source", 1, 1, verification));
        let name = ("n".to_owned(), "s".to_owned());
        core.apply(Change::SecretForbidden(name.clone()));
        assert!(!core.waits_for_secrets(), "nobody else waits for it");
        core.compile();
        let told = core.take_report();
        let finding = told.objects[0].verdict.as_ref().unwrap().findings[0].clone();
        assert_eq!(
            (finding.condition, finding.reason),
            (compile::Condition::ResolvedRefs, Reason::SecretNotFound)
        );
        assert_eq!(
            finding.message,
            "the operator is forbidden to read the Secret `s` in namespace `n`; permit its service account to `get` `secrets` there"
        );

        let data = [("k".to_owned(), routing::secret::Secret::new(*b"value"))];
        core.apply(Change::Secret(name, Some(data.into())));
        assert_eq!(core.compile().changed.len(), 1, "once it may be read");
    }

    #[test]
    fn the_difference_to_a_table_is_what_makes_it_ours() {
        let mut core = Core::new([], Secrets::Told);
        core.apply(object("Source", 1, 1, json!({})));
        core.apply(object("Source", 2, 1, json!({})));
        let rows = core.compile().changed;
        let mut stranger = rows[0].clone();
        stranger.uid = Uuid::from_u128(9);
        let pass = core.difference([&rows[0], &stranger], []);
        assert_eq!(pass.changed, [rows[1].clone()]);
        assert_eq!(pass.removed, [stranger.key()]);
        let newer = RowKey {
            kind: routing::Kind::Source,
            uid: Uuid::from_u128(8),
        };
        assert_eq!(
            core.difference(&rows, [newer]).removed,
            [newer],
            "a row of a newer version whose object is gone"
        );
    }
}
