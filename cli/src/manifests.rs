//! Manifests as a person wrote them: YAML text in; objects, and every mistake with its file and line, out.
//!
//! One bad document never hides the others, except where YAML itself no longer says where a document ends. What is
//! read here is what `kubectl apply` would take, plus the two kinds that a cluster has anyway and a folder must bring
//! along: `Secret` and `Namespace`. Whether the objects make sense together is the compiler's to say, not ours.

use crate::{
    locate::{self, Places},
    schema,
};
use base64::{Engine, engine::general_purpose::STANDARD};
use routing::{compile::SecretData, secret::Secret};
use serde::Deserialize;
use serde_json::{Map, Value};
use std::{
    collections::BTreeMap,
    fmt,
    path::{Path, PathBuf},
};
use uuid::Uuid;

/// Larger files are refused: Kubernetes stores no object above 1.5 MiB, so this is no manifest.
const MAX_FILE_BYTES: usize = 16 * 1024 * 1024;

const API_VERSION: &str = "hookstream.io/v1alpha1";

/// Names the UIDs that a folder's objects get. Never change it: ingest URLs (`src_<uid>`) hang on it.
const UID_SPACE: Uuid = Uuid::from_u128(0x6f1d_2a0e_5c3b_4e77_9b1a_8d0c_52f4_7e19);

/// Something to say about a manifest, as compilers say it: `file:line: message`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Remark {
    pub file: PathBuf,
    /// From 1.
    pub line: usize,
    pub message: String,
}

impl fmt::Display for Remark {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}: {}", self.file.display(), self.line, self.message)
    }
}

/// What makes an object the same object after an edit.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Id {
    pub namespace: String,
    pub kind: String,
    pub name: String,
}

impl Id {
    /// The same for the same namespace, kind and name on every machine, so that a URL survives a restart and an edit.
    pub fn uid(&self) -> Uuid {
        Uuid::new_v5(
            &UID_SPACE,
            format!("{}/{}/{}", self.namespace, self.kind, self.name).as_bytes(),
        )
    }
}

impl fmt::Display for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}/{}", self.kind, self.namespace, self.name)
    }
}

/// One readable document.
#[derive(Debug, Clone)]
pub struct Object {
    pub id: Id,
    pub file: PathBuf,
    pub places: Places,
    pub body: Body,
}

#[derive(Debug, Clone)]
pub enum Body {
    /// The manifest itself: it becomes a `crds::Resource` once it has a generation ([`resource`]), and it has been
    /// tried, so that this can't fail.
    Resource(Value),
    Secret(SecretData),
    /// The labels of a namespace.
    Namespace(BTreeMap<String, String>),
}

impl Object {
    /// A remark on a field of this object.
    pub fn remark(&self, path: &str, message: impl Into<String>) -> Remark {
        Remark {
            file: self.file.clone(),
            line: self.places.line(path),
            message: message.into(),
        }
    }
}

/// What one file holds.
#[derive(Debug, Default, Clone)]
pub struct File {
    pub objects: Vec<Object>,
    /// Documents that say which object they are but can't be read: a running `dev` keeps the last good one.
    pub broken: Vec<Id>,
    /// False when the YAML itself doesn't parse, so that nobody knows which objects the file was to hold.
    pub parses: bool,
    pub problems: Vec<Remark>,
    /// Worth saying, not wrong: documents of kinds that aren't ours.
    pub notes: Vec<Remark>,
}

/// Reads the text of `file`.
pub fn read(file: &Path, text: &str) -> File {
    let mut reading = Reading {
        file,
        found: File {
            parses: true,
            ..File::default()
        },
    };
    if text.len() > MAX_FILE_BYTES {
        reading.syntax(
            1,
            "larger than 16 MiB: not a manifest; move it out of this folder".into(),
        );
        return reading.found;
    }
    let mut places = locate::documents(text).into_iter();
    for document in serde_yaml::Deserializer::from_str(text) {
        let places = places.next().unwrap_or_default();
        match Value::deserialize(document) {
            Ok(Value::Null) => {}
            Ok(value) => reading.document(value, places),
            Err(error) => {
                let line = error
                    .location()
                    .map_or(places.first_line, |location| location.line());
                reading.syntax(
                    line.max(1),
                    format!("not readable as YAML: {}", plain(&error)),
                );
                // The parser has lost its place: what follows would be guesses.
                break;
            }
        }
    }
    reading.found
}

/// A YAML error without the position, which the remark already begins with.
fn plain(error: &serde_yaml::Error) -> String {
    let text = error.to_string();
    match text.find(" at line ") {
        Some(end) if !text[end..].contains(',') => text[..end].to_owned(),
        _ => text,
    }
}

/// A manifest as the compiler takes it.
///
/// `generation` counts a manifest's edits as the API server would; `created` decides which of two sources that ask for
/// the same path was there first.
pub fn resource(
    id: &Id,
    manifest: &Value,
    generation: i64,
    created: jiff::Timestamp,
) -> Result<crds::Resource, crds::ParseError> {
    let mut manifest = manifest.clone();
    if let Some(metadata) = manifest.get_mut("metadata").and_then(Value::as_object_mut) {
        metadata.insert("namespace".into(), id.namespace.clone().into());
        metadata.insert("uid".into(), id.uid().to_string().into());
        metadata.insert("generation".into(), generation.into());
        metadata.insert(
            "creationTimestamp".into(),
            created.strftime("%Y-%m-%dT%H:%M:%SZ").to_string().into(),
        );
    }
    crds::parse(manifest)
}

struct Reading<'a> {
    file: &'a Path,
    found: File,
}

impl Reading<'_> {
    fn syntax(&mut self, line: usize, message: String) {
        self.found.parses = false;
        self.problem(line, message);
    }

    fn problem(&mut self, line: usize, message: String) {
        self.found.problems.push(Remark {
            file: self.file.to_owned(),
            line: line.max(1),
            message,
        });
    }

    fn document(&mut self, value: Value, places: Places) {
        let Value::Object(manifest) = value else {
            return self.problem(
                places.first_line,
                "not a manifest: write apiVersion, kind and metadata as its fields".into(),
            );
        };
        let kind = match self.kind(&manifest, &places) {
            Some(kind) => kind,
            None => return,
        };
        let Some(id) = self.id(kind, &manifest, &places) else {
            return;
        };
        let problems_before = self.found.problems.len();
        for (path, line) in &places.duplicates {
            self.problem(
                *line,
                format!("{path} is written twice: keep one of the two"),
            );
        }
        for line in &places.booleans {
            // Not which word: it may be a secret.
            self.problem(
                *line,
                "kubectl reads y, n, yes, no, on and off as true or false: put the word in quotes"
                    .into(),
            );
        }
        let body = match id.kind.as_str() {
            "Secret" => self.secret(&manifest, &places).map(Body::Secret),
            "Namespace" => self.labels(&manifest, &places).map(Body::Namespace),
            _ => self.resource(&id, Value::Object(manifest), &places),
        };
        match body {
            Some(body) if self.found.problems.len() == problems_before => {
                self.found.objects.push(Object {
                    id,
                    file: self.file.to_owned(),
                    places,
                    body,
                });
            }
            _ => self.found.broken.push(id),
        }
    }

    /// The kind, if it is one that we read; else says why not.
    fn kind(&mut self, manifest: &Map<String, Value>, places: &Places) -> Option<String> {
        let text = |field: &str| {
            manifest
                .get(field)
                .and_then(Value::as_str)
                .unwrap_or_default()
        };
        let (api_version, kind) = (text("apiVersion"), text("kind"));
        let ours = crds::Kind::parse(kind).is_some();
        let kinds = crds::Kind::ALL.map(crds::Kind::as_str).join(", ");
        match (api_version, kind) {
            ("", _) => {
                let right = if ours {
                    API_VERSION
                } else {
                    "hookstream.io/v1alpha1, or v1 for a Secret"
                };
                self.problem(
                    places.line("apiVersion"),
                    format!("apiVersion is missing: write apiVersion: {right}"),
                );
                None
            }
            (_, "") => {
                self.problem(
                    places.line("kind"),
                    format!("kind is missing: write one of {kinds}, Secret"),
                );
                None
            }
            (API_VERSION, _) if ours => Some(kind.to_owned()),
            ("v1", "Secret" | "Namespace") => Some(kind.to_owned()),
            (API_VERSION, _) => {
                self.problem(
                    places.line("kind"),
                    format!("kind {kind} is not known: write one of {kinds}"),
                );
                None
            }
            (version, _) if ours || version.split('/').next() == Some(crds::GROUP) => {
                self.problem(places.line("apiVersion"), format!("apiVersion {version} is not known for kind {kind}: write apiVersion: {API_VERSION}"));
                None
            }
            _ => {
                let message =
                    format!("kind {kind} of {api_version} means nothing to hookstream: ignored");
                self.found.notes.push(Remark {
                    file: self.file.to_owned(),
                    line: places.first_line,
                    message,
                });
                None
            }
        }
    }

    fn id(&mut self, kind: String, manifest: &Map<String, Value>, places: &Places) -> Option<Id> {
        let metadata = manifest.get("metadata");
        let field = |name: &str| metadata.and_then(|metadata| metadata.get(name));
        let name = match field("name") {
            Some(Value::String(name)) => name.clone(),
            Some(_) => {
                self.problem(
                    places.line("metadata.name"),
                    "metadata.name is not text: put it in quotes".into(),
                );
                return None;
            }
            None => {
                self.problem(
                    places.line("metadata"),
                    format!("metadata.name is missing: give this {kind} a name"),
                );
                return None;
            }
        };
        if !is_dns_name(&name) {
            let message = format!(
                "metadata.name {name:?} is not a name for Kubernetes: use lower-case letters, digits, '-' and '.', at most 253"
            );
            self.problem(places.line("metadata.name"), message);
            return None;
        }
        let namespace = match field("namespace") {
            // A Namespace is in no namespace; it is filed under its own name.
            _ if kind == "Namespace" => name.clone(),
            None | Some(Value::Null) => "default".to_owned(),
            Some(Value::String(namespace)) if is_dns_name(namespace) => namespace.clone(),
            Some(_) => {
                self.problem(
                    places.line("metadata.namespace"),
                    "metadata.namespace is not a name: use lower-case letters, digits and '-'"
                        .into(),
                );
                return None;
            }
        };
        Some(Id {
            namespace,
            kind,
            name,
        })
    }

    fn resource(&mut self, id: &Id, manifest: Value, places: &Places) -> Option<Body> {
        if let Err(error) = resource(id, &manifest, 1, jiff::Timestamp::UNIX_EPOCH) {
            let line = match &error {
                crds::ParseError::Field { path, .. } => places.line(path),
                crds::ParseError::ApiVersion { .. } => places.line("apiVersion"),
                crds::ParseError::Kind { .. } => places.line("kind"),
            };
            self.problem(line, error.to_string());
            return None;
        }
        let violations = schema::check(&id.kind, &manifest);
        for violation in &violations {
            self.problem(
                places.line(&violation.path),
                format!("{}: {}", violation.path, violation.message),
            );
        }
        violations.is_empty().then_some(Body::Resource(manifest))
    }

    fn secret(&mut self, manifest: &Map<String, Value>, places: &Places) -> Option<SecretData> {
        let mut data = SecretData::new();
        let mut whole = true;
        // `stringData` wins over `data`, as in the API server.
        for field in ["data", "stringData"] {
            let entries = match manifest.get(field) {
                None | Some(Value::Null) => continue,
                Some(Value::Object(entries)) => entries,
                Some(_) => {
                    self.problem(
                        places.line(field),
                        format!("{field} is not a mapping: write key: value under it"),
                    );
                    whole = false;
                    continue;
                }
            };
            for (key, value) in entries {
                let path = format!("{field}.{key}");
                // No message repeats the value: it is a secret, perhaps only in the wrong field.
                let bytes = match (field, value) {
                    (_, Value::Null) => Ok(Vec::new()),
                    ("stringData", Value::String(text)) => Ok(text.clone().into_bytes()),
                    ("data", Value::String(text)) => STANDARD
                        .decode(text.split_ascii_whitespace().collect::<String>())
                        .map_err(|_| format!("{path} is not base64: encode it, or move it to stringData, which takes plain text")),
                    _ => Err(format!("{path} is not text: put it in quotes")),
                };
                match bytes {
                    Ok(bytes) => {
                        data.insert(key.clone(), Secret::new(bytes));
                    }
                    Err(message) => {
                        self.problem(places.line(&path), message);
                        whole = false;
                    }
                }
            }
        }
        whole.then_some(data)
    }

    fn labels(
        &mut self,
        manifest: &Map<String, Value>,
        places: &Places,
    ) -> Option<BTreeMap<String, String>> {
        let Some(labels) = manifest
            .get("metadata")
            .and_then(|metadata| metadata.get("labels"))
        else {
            return Some(BTreeMap::new());
        };
        let read = labels.as_object().and_then(|labels| {
            labels
                .iter()
                .map(|(key, value)| Some((key.clone(), value.as_str()?.to_owned())))
                .collect::<Option<BTreeMap<_, _>>>()
        });
        if read.is_none() {
            self.problem(
                places.line("metadata.labels"),
                "metadata.labels is not a mapping of text to text: put its values in quotes".into(),
            );
        }
        read
    }
}

/// A DNS-1123 subdomain, which every Kubernetes name is.
fn is_dns_name(name: &str) -> bool {
    let fits = |label: &str| {
        !label.is_empty()
            && label
                .bytes()
                .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    name.len() <= 253 && name.split('.').all(fits)
}

#[cfg(test)]
mod tests;
