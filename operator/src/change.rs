//! What can happen to the resources, from wherever they come: an API server's watches or a folder of manifests.
//!
//! The core takes a stream of these and nothing else, so it knows no Kubernetes client.

use crate::resets;
use crds::Status;
use routing::compile::{SecretData, SecretName};
use std::{collections::BTreeMap, sync::Arc};
use uuid::Uuid;

/// Labels of a namespace.
pub type Labels = BTreeMap<String, String>;

/// Who an object is. Shared by everybody who keeps something about it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Meta {
    pub kind: crds::Kind,
    pub uid: Uuid,
    pub namespace: String,
    pub name: String,
    pub generation: i64,
    /// `spec.path` of a Source.
    pub path: Option<String>,
}

/// What isn't the spec: the status as the API server has it, and the version of the object that it was read from.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Observed {
    pub resource_version: Option<u64>,
    pub status: Option<Status>,
    /// What a Destination's annotation asks for, see [`crate::resets`].
    pub reset: Option<String>,
}

/// An object that was added, or whose spec changed.
#[derive(Debug)]
pub struct Object {
    pub meta: Arc<Meta>,
    /// `Err`: the API server holds it and this version can't read it; the sentence says why. It keeps its last good row.
    pub resource: Result<crds::Resource, String>,
    pub observed: Observed,
}

impl Object {
    /// An object that was read from a manifest: its metadata needs a UID, and a generation that grows with each change.
    /// `None`: it has no UID.
    pub fn told(resource: crds::Resource) -> Option<Object> {
        let metadata = resource.metadata();
        let meta = Meta {
            kind: resource.kind(),
            uid: Uuid::try_parse(metadata.uid.as_deref()?).ok()?,
            namespace: metadata.namespace.clone().unwrap_or_default(),
            name: metadata.name.clone().unwrap_or_default(),
            generation: metadata.generation.unwrap_or(0),
            path: if let crds::Resource::Source(source) = &resource {
                source.spec.path.clone()
            } else {
                None
            },
        };
        Some(Object {
            meta: Arc::new(meta),
            observed: Observed {
                reset: resets::mark(resource.kind(), resource.metadata()),
                ..Observed::default()
            },
            resource: Ok(resource),
        })
    }
}

#[derive(Debug)]
pub enum Change {
    /// Added, or its spec (and so its generation) changed.
    Apply(Box<Object>),
    /// Only the status changed: nothing to compile.
    Status(Uuid, Observed),
    Remove(Uuid),
    /// `None`: there is no such Secret.
    Secret(SecretName, Option<SecretData>),
    /// The API server doesn't let us read this Secret, or know whether it exists.
    SecretForbidden(SecretName),
    /// No object names this Secret any more: whoever told its value will tell it again when one does.
    SecretUnwanted(SecretName),
    /// `None`: there is no such namespace.
    Namespace(String, Option<Labels>),
    /// Everything that exists was told at least once: from now on, what wasn't told doesn't exist.
    Synced,
}
