//! A folder of manifests over time: what it declares now, and what differs from before.
//!
//! Guarantees: a mistake takes nothing away. A document that can't be read any more keeps the object that it was, and a
//! file that isn't YAML any more keeps all of its objects, until it is mended or deleted. Every problem is reported on
//! every reading, so that a caller can tell which are new and which are gone.

use crate::manifests::{self, Body, File, Id, Object, Remark};
use crds::Resource;
use jiff::Timestamp;
use routing::compile::{SecretData, SecretName};
use serde_json::Value;
use std::{
    collections::{BTreeMap, BTreeSet, hash_map::DefaultHasher},
    fs,
    hash::{Hash, Hasher},
    io,
    path::{Path, PathBuf},
};
use uuid::Uuid;

/// Folders below folders, counted from the one that was named.
const MAX_DEPTH: usize = 16;

/// Of all files together. A folder with more is somebody's home directory, and is said to be.
const MAX_FILES: usize = 10_000;

/// What a folder declares.
#[derive(Debug, Default)]
pub struct Declared {
    pub resources: BTreeMap<Id, Resource>,
    pub secrets: BTreeMap<SecretName, SecretData>,
    /// Labels of every namespace that anything is in.
    pub namespaces: BTreeMap<String, BTreeMap<String, String>>,
    /// The manifests behind the resources, to find lines for what the compiler says.
    pub manifests: BTreeMap<Uuid, Object>,
    pub problems: BTreeSet<Remark>,
    pub notes: BTreeSet<Remark>,
}

/// The steps from one declaration to the next.
#[derive(Debug)]
pub enum Change {
    Apply(Box<Resource>),
    Remove(Uuid),
    /// `None`: the Secret is gone.
    Secret(SecretName, Option<SecretData>),
    Namespace(String, Option<BTreeMap<String, String>>),
}

/// The files and folders that were named on the command line, and what was last read in them.
#[derive(Debug)]
pub struct Folder {
    roots: Vec<PathBuf>,
    files: BTreeMap<PathBuf, Kept>,
    versions: BTreeMap<Id, Version>,
}

#[derive(Debug, Default)]
struct Kept {
    hash: u64,
    file: File,
}

/// What an API server would note in an object's metadata.
#[derive(Debug)]
struct Version {
    manifest: Value,
    generation: i64,
    created: Timestamp,
}

impl Folder {
    pub fn new(roots: impl IntoIterator<Item = PathBuf>) -> Folder {
        Folder {
            roots: roots.into_iter().collect(),
            files: BTreeMap::new(),
            versions: BTreeMap::new(),
        }
    }

    pub fn roots(&self) -> &[PathBuf] {
        &self.roots
    }

    /// Reads everything anew. Files whose bytes are the same are not parsed again.
    ///
    /// # Errors
    /// A file or folder that was named doesn't exist or may not be read. What is found inside a folder and can't be read
    /// is a problem in the answer.
    pub fn read(&mut self, now: Timestamp) -> io::Result<Declared> {
        let mut walk = Walk::default();
        for root in &self.roots {
            walk.root(root).map_err(|error| named(root, error))?;
        }
        let paths = walk.found;
        let mut declared = Declared {
            problems: walk.problems,
            ..Declared::default()
        };
        self.files.retain(|path, _| paths.contains(path));
        for path in paths {
            self.refresh(path, &mut declared.problems);
        }
        self.declare(now, &mut declared);
        Ok(declared)
    }

    /// Reads one file, keeping of the last reading what is unreadable now.
    fn refresh(&mut self, path: PathBuf, problems: &mut BTreeSet<Remark>) {
        let bytes = match fs::read(&path) {
            Ok(bytes) => bytes,
            Err(error) => {
                problems.insert(Remark {
                    file: path,
                    line: 1,
                    message: format!("can't be read: {error}"),
                });
                return;
            }
        };
        let mut hasher = DefaultHasher::new();
        bytes.hash(&mut hasher);
        let hash = hasher.finish();
        let kept = self.files.entry(path.clone()).or_default();
        if kept.hash == hash {
            return;
        }
        let mut file = match std::str::from_utf8(&bytes) {
            Ok(text) => manifests::read(&path, text.strip_prefix('\u{feff}').unwrap_or(text)),
            Err(error) => {
                let line = 1 + bytes[..error.valid_up_to()]
                    .iter()
                    .filter(|byte| **byte == b'\n')
                    .count();
                File {
                    problems: vec![Remark {
                        file: path,
                        line,
                        message: "not UTF-8: save the file in this encoding".into(),
                    }],
                    ..File::default()
                }
            }
        };
        let read: BTreeSet<Id> = file
            .objects
            .iter()
            .map(|object| object.id.clone())
            .collect();
        let last_good = std::mem::take(&mut kept.file.objects);
        file.objects.extend(last_good.into_iter().filter(|object| {
            let lost = !file.parses || file.broken.contains(&object.id);
            lost && !read.contains(&object.id)
        }));
        *kept = Kept { hash, file };
    }

    fn declare(&mut self, now: Timestamp, declared: &mut Declared) {
        let mut owners: BTreeMap<&Id, &Object> = BTreeMap::new();
        let mut namespaces = BTreeSet::new();
        for Kept { file, .. } in self.files.values() {
            declared.problems.extend(file.problems.iter().cloned());
            declared.notes.extend(file.notes.iter().cloned());
            for object in &file.objects {
                if let Some(first) = owners.get(&object.id) {
                    let place = format!("{}:{}", first.file.display(), first.places.first_line);
                    declared.problems.insert(object.remark(
                        "metadata.name",
                        format!(
                            "{} is already declared at {place}: rename or delete one of the two",
                            object.id
                        ),
                    ));
                    continue;
                }
                owners.insert(&object.id, object);
                namespaces.insert(object.id.namespace.clone());
                let key = (object.id.namespace.clone(), object.id.name.clone());
                match &object.body {
                    Body::Secret(data) => {
                        declared.secrets.insert(key, data.clone());
                    }
                    Body::Namespace(labels) => {
                        declared
                            .namespaces
                            .insert(object.id.name.clone(), labels.clone());
                    }
                    Body::Resource(manifest) => {
                        let version =
                            self.versions
                                .entry(object.id.clone())
                                .or_insert_with(|| Version {
                                    manifest: manifest.clone(),
                                    generation: 1,
                                    created: now,
                                });
                        if version.manifest != *manifest {
                            version.manifest = manifest.clone();
                            version.generation += 1;
                        }
                        // It was readable as generation 1, and only these two fields differ.
                        if let Ok(resource) = manifests::resource(
                            &object.id,
                            manifest,
                            version.generation,
                            version.created,
                        ) {
                            declared.manifests.insert(object.id.uid(), object.clone());
                            declared.resources.insert(object.id.clone(), resource);
                        }
                    }
                }
            }
        }
        for namespace in namespaces {
            // The label that every cluster puts on every namespace.
            declared
                .namespaces
                .entry(namespace.clone())
                .or_default()
                .insert("kubernetes.io/metadata.name".into(), namespace);
        }
        self.versions
            .retain(|id, _| declared.resources.contains_key(id));
    }
}

/// What tells a resource from what it was: its generation, when it was made, and whether a circuit is to be reset.
type Stamp = (Option<i64>, Option<Timestamp>, Option<String>);

impl Declared {
    /// What leads from `before` to this.
    pub fn changes_since(&self, before: &Declared) -> Vec<Change> {
        let mut changes = Vec::new();
        // What is referred to comes first, so that nothing is reported missing on the way.
        step(&before.namespaces, &self.namespaces, |name, labels| {
            changes.push(Change::Namespace(name.clone(), labels.cloned()))
        });
        step(&before.secrets, &self.secrets, |name, data| {
            changes.push(Change::Secret(name.clone(), data.cloned()))
        });
        step(&before.generations(), &self.generations(), |id, version| {
            changes.push(match version.and_then(|_| self.resources.get(*id)) {
                Some(resource) => Change::Apply(Box::new(resource.clone())),
                None => Change::Remove(id.uid()),
            });
        });
        changes
    }

    fn generations(&self) -> BTreeMap<&Id, Stamp> {
        let version = |resource: &Resource| {
            (
                resource.metadata().generation,
                resource
                    .metadata()
                    .creation_timestamp
                    .as_ref()
                    .map(|time| time.0),
                resource
                    .metadata()
                    .annotations
                    .as_ref()
                    .and_then(|annotations| annotations.get(crds::RESET_CIRCUIT))
                    .cloned(),
            )
        };
        self.resources
            .iter()
            .map(|(id, resource)| (id, version(resource)))
            .collect()
    }

    /// A remark on a field of a resource, with its file and line. `None`: it isn't declared here.
    pub fn remark(&self, uid: Uuid, path: &str, message: &str) -> Option<Remark> {
        let object = self.manifests.get(&uid)?;
        Some(object.remark(path, format!("{}: {message}", object.id)))
    }
}

/// Calls `changed` for every key whose value is new, different or gone (`None`).
fn step<K: Ord, V: PartialEq>(
    before: &BTreeMap<K, V>,
    after: &BTreeMap<K, V>,
    mut changed: impl FnMut(&K, Option<&V>),
) {
    for (key, value) in after {
        if before.get(key) != Some(value) {
            changed(key, Some(value));
        }
    }
    for key in before.keys().filter(|key| !after.contains_key(key)) {
        changed(key, None);
    }
}

/// Finds the manifests in folders and below: `*.yaml` and `*.yml`, nothing hidden, no kustomization (it lists manifests,
/// it isn't one). What two roots or links lead to is found once.
#[derive(Default)]
struct Walk {
    found: BTreeSet<PathBuf>,
    problems: BTreeSet<Remark>,
    /// Where files and folders really are.
    seen: BTreeSet<PathBuf>,
}

impl Walk {
    fn root(&mut self, root: &Path) -> io::Result<()> {
        if fs::metadata(root)?.is_dir() {
            return self.folder(root, 0);
        }
        if self.is_new(root) {
            self.found.insert(root.to_owned());
        }
        Ok(())
    }

    fn folder(&mut self, folder: &Path, depth: usize) -> io::Result<()> {
        if !self.is_new(folder) {
            return Ok(());
        }
        let mut entries = fs::read_dir(folder)?
            .map(|entry| Ok(entry?.path()))
            .collect::<io::Result<Vec<PathBuf>>>()?;
        // The order of a listing is the file system's mood; of two names for one file the same one is to win each time.
        entries.sort();
        for path in entries.into_iter().filter(|path| is_candidate(path)) {
            // A file that went between the listing and this is as if it had gone before.
            let Ok(metadata) = fs::metadata(&path) else {
                continue;
            };
            if metadata.is_dir() {
                if depth + 1 >= MAX_DEPTH {
                    self.problem(
                        &path,
                        format!("more than {MAX_DEPTH} folders deep: not read"),
                    );
                } else if let Err(error) = self.folder(&path, depth + 1) {
                    self.problem(&path, format!("can't be read: {error}"));
                }
            } else if is_manifest(&path) && self.is_new(&path) {
                if self.found.len() >= MAX_FILES {
                    let message = format!("more than {MAX_FILES} manifests: name a smaller folder");
                    return Err(io::Error::other(message));
                }
                self.found.insert(path);
            }
        }
        Ok(())
    }

    fn is_new(&mut self, path: &Path) -> bool {
        let place = path.canonicalize().unwrap_or_else(|_| path.to_owned());
        self.seen.insert(place)
    }

    fn problem(&mut self, file: &Path, message: String) {
        let file = file.to_owned();
        self.problems.insert(Remark {
            file,
            line: 1,
            message,
        });
    }
}

fn is_candidate(path: &Path) -> bool {
    path.file_name()
        .and_then(|name| name.to_str())
        .is_some_and(|name| !name.starts_with('.'))
}

/// By its name only.
pub(crate) fn is_manifest(path: &Path) -> bool {
    let kustomization = path
        .file_stem()
        .is_some_and(|stem| stem.eq_ignore_ascii_case("kustomization"));
    is_candidate(path)
        && !kustomization
        && path
            .extension()
            .is_some_and(|extension| extension == "yaml" || extension == "yml")
}

fn named(path: &Path, error: io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("{}: {error}", path.display()))
}

#[cfg(test)]
mod tests;
