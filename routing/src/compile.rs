//! The compiler: resources and secrets in, rows and findings out.
//!
//! Never stops at a bad object. What doesn't compile keeps its last good row, if it had one, and gets findings that say
//! what to change; everything else still routes. The order in which objects arrive never changes the result, and
//! compiling a change gives what compiling everything would.
//!
//! A last good row is kept whatever went wrong (a field, a secret that is gone, a reference that leads nowhere), with two
//! exceptions: a connection into a namespace that no longer admits it loses its row, since withdrawing a permission must
//! take effect; and a source loses its own path, though not its row, to another source that routes by it now, or by a path that
//! two namespaces can't have both (see `claims`).

mod claims;
mod connection;
mod delivery;
mod destination;
mod expression;
mod filter;
mod findings;
mod index;
mod object;
mod retry;
mod secrets;
mod source;
mod subscription;
#[cfg(test)]
mod tests;
mod topic;

pub use destination::{DEFAULT_CONCURRENCY, DEFAULT_TIMEOUT};
pub use expression::Checked;
pub use findings::{Condition, Finding, Reason};
pub use source::DEFAULT_MAX_BODY_BYTES;

use crate::{
    row::{MOST_PAYLOAD_BYTES, Row, RowKey, Spec},
    secret::Secret,
};
use claims::{Claim, Claims, Overlap, RoutedPaths};
use findings::Findings;
use index::Index;
use object::{Body, Object, ObjectName};
use secrets::{Known, Taken};
use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::Arc,
};
use uuid::Uuid;

/// The keys of one Kubernetes Secret.
pub type SecretData = BTreeMap<String, Secret>;

/// `(namespace, name)` of a Secret.
pub type SecretName = (String, String);

/// What became of one object.
#[derive(Debug, Clone, PartialEq)]
pub struct Verdict {
    pub findings: Vec<Finding>,
    /// What was decided for it that its author may want to know.
    pub notes: Vec<String>,
    /// The generation that routes now: this one's, or an older one's when this one doesn't compile; `None`: not in the table.
    pub routed_generation: Option<i64>,
}

/// The result of one pass: what differs from the pass before.
#[derive(Debug, Default)]
pub struct Delta {
    /// In the order of their keys.
    pub changed: Vec<Row>,
    /// In their order.
    pub removed: Vec<RowKey>,
    /// Every object whose verdict was made anew, by UID.
    pub verdicts: BTreeMap<Uuid, Verdict>,
}

/// The incremental compiler. `compile` after any sequence of changes leaves the same rows and verdicts as a new
/// `Compiler` given those rows and the end state.
#[derive(Debug, Default)]
pub struct Compiler {
    objects: BTreeMap<Uuid, Object>,
    index: Index,
    /// Which source has which path.
    claims: Claims,
    /// A Secret that was never told of counts as not existing.
    secrets: BTreeMap<SecretName, Known>,
    namespaces: BTreeMap<String, BTreeMap<String, String>>,
    /// Expressions that were checked. Those that no object has any more go now and then.
    expressions: BTreeMap<Arc<str>, Checked>,
    rows: BTreeMap<Uuid, Row>,
    /// The sources whose rows have a path of their own. No two rows have the same, and of two namespaces' rows none has a path
    /// below the other's.
    row_paths: RoutedPaths,
    /// Connections by the ends that their rows name, which a last good row may have another than its object.
    row_ends: HashMap<Uuid, BTreeSet<Uuid>>,
    /// To be compiled.
    dirty: BTreeSet<Uuid>,
    /// Rows whose object is gone, or was never there.
    gone: BTreeSet<Uuid>,
}

/// What one pass has touched.
#[derive(Debug, Default)]
struct Pass {
    /// What was there before the first touch.
    before: BTreeMap<RowKey, Option<Row>>,
    findings: BTreeMap<Uuid, Findings>,
}

impl Compiler {
    /// Starts from what is published, so that an object that doesn't compile at start-up keeps its row. A row whose object
    /// isn't applied before the first `compile` is removed by it.
    pub fn new(last_good: impl IntoIterator<Item = Row>) -> Compiler {
        let mut compiler = Compiler::default();
        for row in last_good {
            compiler.gone.insert(row.uid);
            compiler.index_row(&row);
            compiler.rows.insert(row.uid, row);
        }
        compiler
    }

    /// Adds or replaces an object (its UID, namespace, name, generation and creation time are in its metadata).
    /// One without a UID was never stored by anybody, and is left out.
    pub fn apply(&mut self, resource: crds::Resource) {
        let Some(object) = Object::new(resource) else {
            return;
        };
        let uid = object.uid;
        self.gone.remove(&uid);
        self.dirty.insert(uid);
        let before = self.objects.remove(&uid);
        if let Some(before) = &before {
            self.index.remove(before);
        }
        self.index.add(&object);
        self.claims
            .change(before.as_ref().and_then(Claim::of), Claim::of(&object));
        let same_to_others = before
            .is_some_and(|before| before.name() == object.name() && before.admits_like(&object));
        if !same_to_others {
            self.dirty.extend(self.index.referring(&object.name()));
            self.dirty
                .extend(self.row_ends.get(&uid).into_iter().flatten());
        }
        self.objects.insert(uid, object);
    }

    pub fn remove(&mut self, uid: Uuid) {
        // Also of one that was only held: its row was all that there was.
        self.gone.insert(uid);
        let Some(object) = self.objects.remove(&uid) else {
            return;
        };
        self.index.remove(&object);
        self.dirty.remove(&uid);
        self.dirty.extend(self.index.referring(&object.name()));
        self.claims.change(Claim::of(&object), None);
    }

    /// An object exists that this version can't read: its row, if it has one, stays until the object is read or removed.
    pub fn hold(&mut self, uid: Uuid) {
        self.gone.remove(&uid);
    }

    /// The Secrets that the objects name, so that the operator watches and fetches these and no others.
    pub fn wanted_secrets(&self) -> BTreeSet<SecretName> {
        self.index.secrets().cloned().collect()
    }

    /// `None`: the Secret doesn't exist. Tell it before the `compile` that is to see it.
    pub fn set_secret(&mut self, name: SecretName, data: Option<SecretData>) {
        self.know(name, data.map_or(Known::Missing, Known::There));
    }

    /// The Secret can't be had: whoever fetches Secrets isn't permitted to read it, and can't say whether it exists.
    pub fn forbid_secret(&mut self, name: SecretName) {
        self.know(name, Known::Forbidden);
    }

    fn know(&mut self, name: SecretName, known: Known) {
        if self.secrets.get(&name) != Some(&known) {
            self.dirty.extend(self.index.keeping(&name));
            self.secrets.insert(name, known);
        }
    }

    /// The expressions of objects that nothing is known of yet: check them and say so with [`Compiler::set_expression`]. Until
    /// then their objects keep the rows they have.
    pub fn wanted_expressions(&self) -> Vec<Arc<str>> {
        let wanted = self.index.expressions();
        wanted
            .filter(|text| !self.expressions.contains_key(*text))
            .cloned()
            .collect()
    }

    /// Tell it before the `compile` that is to see it.
    pub fn set_expression(&mut self, text: Arc<str>, checked: Checked) {
        if self.expressions.get(&text) != Some(&checked) {
            self.dirty.extend(self.index.evaluating(&text));
            self.expressions.insert(text, checked);
        }
    }

    /// Labels of a namespace (for `allowedNamespaces.selector`); `None`: it is gone.
    pub fn set_namespace(&mut self, name: String, labels: Option<BTreeMap<String, String>>) {
        if self.namespaces.get(&name) == labels.as_ref() {
            return;
        }
        self.dirty.extend(self.index.crossing(&name));
        // Last good rows may cross where their objects don't. Labels change seldom enough to look at all rows.
        let here = self.rows.values().filter(|row| {
            row.namespace == name && matches!(row.spec, Spec::Connection(_) | Spec::Subscription(_))
        });
        self.dirty.extend(here.map(|row| row.uid));
        match labels {
            Some(labels) => self.namespaces.insert(name, labels),
            None => self.namespaces.remove(&name),
        };
    }

    /// Compiles what changed and what depends on it.
    pub fn compile(&mut self) -> Delta {
        let mut pass = Pass::default();
        self.forget_expressions();
        for uid in std::mem::take(&mut self.gone) {
            self.set_row(uid, None, &mut pass);
        }
        // Those who ask for a path that came free, or that is another's now, look again.
        self.dirty.append(&mut self.claims.settle());
        // Connections come last: they depend on whether their ends route, and nothing depends on them. An end that begins or
        // ceases to route makes its connections dirty on the way.
        let mut connections = BTreeSet::new();
        for uid in std::mem::take(&mut self.dirty) {
            match self.objects.get(&uid).map(|object| &object.body) {
                None => {}
                Some(Body::Connection(_)) => {
                    connections.insert(uid);
                }
                Some(_) => self.compile_one(uid, &mut pass),
            }
        }
        connections.append(&mut self.dirty);
        for uid in connections {
            self.compile_one(uid, &mut pass);
        }
        self.delta(pass)
    }

    /// Keeps those that objects have, and some that they had: what comes and goes needn't be checked each time.
    fn forget_expressions(&mut self) {
        let kept = self.index.expressions().count();
        if self.expressions.len() > 2 * kept + 64 {
            let index = &self.index;
            self.expressions
                .retain(|text, _| index.evaluating(text).next().is_some());
        }
    }

    /// All rows as of the last `compile`.
    pub fn rows(&self) -> impl Iterator<Item = &Row> {
        self.rows.values()
    }

    fn compile_one(&mut self, uid: Uuid, pass: &mut Pass) {
        let Some(object) = self.objects.get(&uid) else {
            return;
        };
        let mut findings = Findings::default();
        let mut taken = Taken::new(&self.secrets, &object.namespace);
        let spec = self.spec(object, &mut taken, &mut findings);
        let row = spec.filter(|_| findings.is_empty()).map(|spec| Row {
            uid,
            namespace: object.namespace.clone(),
            name: object.name.clone(),
            generation: object.generation,
            spec,
            secrets: taken.secrets,
        });
        let row = row.filter(|row| {
            check_size(row, &mut findings);
            findings.is_empty()
        });
        match row {
            Some(row) => {
                self.take_path(&row, pass);
                self.set_row(uid, Some(row), pass);
            }
            None => self.keep_last_good(uid, pass),
        }
        pass.findings.insert(uid, findings);
    }

    /// Of an object that doesn't compile.
    fn keep_last_good(&mut self, uid: Uuid, pass: &mut Pass) {
        let Some(row) = self.rows.get(&uid) else {
            return;
        };
        if !self.may_stay(row) {
            self.set_row(uid, None, pass);
            return;
        }
        // Its path is its own all the same, and rows that an earlier version wrote may be in its way.
        let path = own_path(row);
        let own = path.is_some() && path == self.objects.get(&uid).and_then(Object::path);
        if own && self.claims.refusal(uid).is_none() {
            let row = row.clone();
            self.take_path(&row, pass);
        }
    }

    fn spec(
        &self,
        object: &Object,
        taken: &mut Taken<'_>,
        findings: &mut Findings,
    ) -> Option<Spec> {
        match &object.body {
            Body::Source(spec) => {
                self.check_claim(object, findings);
                Some(Spec::Source(source::compile(spec, taken, findings)))
            }
            Body::Destination(spec) => {
                destination::compile(spec, taken, findings).map(Spec::Destination)
            }
            Body::Connection(spec) => {
                let source = self.resolve(object, object.source()?, object.source_path(), findings);
                let destination =
                    self.resolve(object, object.destination()?, "spec.destination", findings);
                let written = connection::compile(spec, &self.expressions, findings);
                let spec = written.into_spec(source?, destination?);
                Some(match object.kind {
                    crds::Kind::Subscription => Spec::Subscription(spec),
                    _ => Spec::Connection(spec),
                })
            }
            Body::Topic(spec) => Some(Spec::Topic(topic::compile(spec, taken, findings))),
            Body::Later => {
                let message = format!(
                    "the kind {} is not implemented yet; a later version brings it. Until then nothing comes of this object",
                    object.kind
                );
                findings.add(Reason::NotImplemented, "", message);
                None
            }
        }
    }

    /// Whether the path that a source asks for is another's.
    fn check_claim(&self, object: &Object, findings: &mut Findings) {
        let Some(path) = object.path() else { return };
        let Some(refusal) = self.claims.refusal(object.uid) else {
            return;
        };
        let owner = self.objects.get(&refusal.by);
        // Names of another namespace are nobody's business here, and neither are its paths, but for what was asked for anyway.
        let message = match &refusal.overlap {
            Overlap::Same => {
                let whose = match owner.filter(|owner| owner.namespace == object.namespace) {
                    Some(owner) => format!("the source `{}`", owner.name),
                    None => "another source".to_owned(),
                };
                format!("the path `{path}` belongs to {whose}, which is older; choose another path")
            }
            Overlap::Above(above) => format!(
                "the path `{path}` is below `{above}`, which belongs to an older source of another namespace; choose a path that doesn't begin with `{above}/`"
            ),
            Overlap::Below => format!(
                "an older source of another namespace has a path below `{path}`, and paths of two namespaces can't lie within each other; choose another path"
            ),
        };
        findings.add(Reason::Conflicted, "spec.path", message);
    }

    /// The UID of what a connection refers to, if it may and if that routes.
    fn resolve(
        &self,
        from: &Object,
        name: ObjectName,
        path: &str,
        findings: &mut Findings,
    ) -> Option<Uuid> {
        let not_found = match name.kind {
            crds::Kind::Source => Reason::SourceNotFound,
            crds::Kind::Topic => Reason::TopicNotFound,
            _ => Reason::DestinationNotFound,
        };
        let what = name.kind.as_str();
        let target = self
            .index
            .named(&name)
            .and_then(|uid| self.objects.get(&uid));
        // Whether it exists elsewhere is told only to those whom it admits.
        if name.namespace != from.namespace
            && !target.is_some_and(|target| self.admits(target, &from.namespace))
        {
            let message = format!(
                "namespace `{}` has no {what} `{}` that admits connections from `{}`; its owner can admit them with `allowedNamespaces`",
                name.namespace, name.name, from.namespace
            );
            findings.add(Reason::RefNotPermitted, path, message);
            return None;
        }
        let Some(target) = target else {
            let message = format!(
                "there is no {what} `{}` in namespace `{}`; create it, or name another",
                name.name, name.namespace
            );
            findings.add(not_found, path, message);
            return None;
        };
        if !self.rows.contains_key(&target.uid) {
            let message = format!(
                "the {what} `{}` is there but not in the routing table yet; its own conditions say what to change",
                name.name
            );
            findings.add(not_found, path, message);
            return None;
        }
        Some(target.uid)
    }

    fn admits(&self, target: &Object, namespace: &str) -> bool {
        target.namespace == namespace || target.admits(self.namespaces.get(namespace))
    }

    /// Whether a last good row may go on routing. One end that is gone makes it idle, not forbidden.
    fn may_stay(&self, row: &Row) -> bool {
        let (Spec::Connection(spec) | Spec::Subscription(spec)) = &row.spec else {
            return true;
        };
        let ends = [spec.source, spec.destination];
        let ends = ends.iter().filter_map(|uid| self.objects.get(uid));
        ends.into_iter().all(|end| self.admits(end, &row.namespace))
    }

    /// Makes way for a row that has a path: last good rows of other sources may still have it, or one of another namespace that
    /// lies above or below it, though no claim to that.
    fn take_path(&mut self, row: &Row, pass: &mut Pass) {
        let Some(path) = own_path(row) else { return };
        let holders: Vec<Uuid> = self.row_paths.overlapping(path).collect();
        for holder in holders {
            let in_the_way = |held: &&Row| {
                held.uid != row.uid
                    && (held.namespace != row.namespace || own_path(held) == Some(path))
            };
            let mut bare = self.rows.get(&holder).filter(in_the_way).cloned();
            if let Some(Spec::Source(spec)) = bare.as_mut().map(|row| &mut row.spec) {
                spec.path = None;
                self.set_row(holder, bare, pass);
            }
        }
    }

    fn set_row(&mut self, uid: Uuid, row: Option<Row>, pass: &mut Pass) {
        let old = self.rows.remove(&uid);
        if let Some(old) = &old {
            self.unindex_row(old);
        }
        let appeared = old.is_some() != row.is_some();
        if appeared && let Some(object) = self.objects.get(&uid) {
            self.dirty.extend(self.index.referring(&object.name()));
        }
        if let Some(key) = row.as_ref().or(old.as_ref()).map(Row::key) {
            pass.before.entry(key).or_insert(old);
        }
        if let Some(row) = row {
            self.index_row(&row);
            self.rows.insert(uid, row);
        }
    }

    fn index_row(&mut self, row: &Row) {
        match &row.spec {
            Spec::Source(spec) => {
                if let Some(path) = &spec.path {
                    self.row_paths.insert(path, row.uid);
                }
            }
            Spec::Connection(spec) | Spec::Subscription(spec) => {
                for end in [spec.source, spec.destination] {
                    self.row_ends.entry(end).or_default().insert(row.uid);
                }
            }
            Spec::Destination(_) | Spec::Topic(_) => {}
        }
    }

    fn unindex_row(&mut self, row: &Row) {
        match &row.spec {
            Spec::Source(spec) => {
                if let Some(path) = &spec.path {
                    self.row_paths.remove(path, row.uid);
                }
            }
            Spec::Connection(spec) | Spec::Subscription(spec) => {
                for end in [spec.source, spec.destination] {
                    if let Some(rows) = self.row_ends.get_mut(&end) {
                        rows.remove(&row.uid);
                        if rows.is_empty() {
                            self.row_ends.remove(&end);
                        }
                    }
                }
            }
            Spec::Destination(_) | Spec::Topic(_) => {}
        }
    }

    fn delta(&self, pass: Pass) -> Delta {
        let mut delta = Delta::default();
        for (key, before) in pass.before {
            match (before, self.rows.get(&key.uid)) {
                (Some(_), None) => delta.removed.push(key),
                (before, Some(now)) if before.as_ref() != Some(now) => {
                    delta.changed.push(now.clone())
                }
                _ => {}
            }
        }
        delta.verdicts = pass
            .findings
            .into_iter()
            .map(|(uid, findings)| {
                let routed_generation = self.rows.get(&uid).map(|row| row.generation);
                (
                    uid,
                    Verdict {
                        findings: findings.list,
                        notes: findings.notes,
                        routed_generation,
                    },
                )
            })
            .collect();
        delta
    }
}

fn own_path(row: &Row) -> Option<&str> {
    match &row.spec {
        Spec::Source(spec) => spec.path.as_deref(),
        _ => None,
    }
}

/// A row too large is a burden for every gateway, whoever wrote it.
fn check_size(row: &Row, findings: &mut Findings) {
    let bytes = row.payload().len();
    if bytes <= MOST_PAYLOAD_BYTES {
        return;
    }
    let (path, remedy) = match row.spec {
        Spec::Connection(_) | Spec::Subscription(_) => (
            "spec.filter",
            "give the filter fewer or shorter values, or divide it among several connections",
        ),
        Spec::Source(_) | Spec::Destination(_) | Spec::Topic(_) => ("spec", "shorten its texts"),
    };
    let message = format!(
        "compiled, this takes {bytes} bytes of the routing table, and at most {MOST_PAYLOAD_BYTES} are possible; {remedy}"
    );
    findings.add(Reason::UnsupportedValue, path, message);
}
