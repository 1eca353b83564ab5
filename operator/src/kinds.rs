//! The custom resources as the API server knows them, and how an object of it is read.

use crate::change::Meta;
use kube::{
    api::{ApiResource, DynamicObject, ObjectMeta, TypeMeta},
    core::GroupVersionKind,
};
use std::sync::Arc;
use uuid::Uuid;

/// How the API server is asked for a kind.
pub fn api_resource(kind: crds::Kind) -> ApiResource {
    ApiResource::from_gvk_with_plural(
        &GroupVersionKind::gvk(crds::GROUP, crds::VERSION, kind.as_str()),
        kind.plural(),
    )
}

/// `None`: not an object that an API server made.
pub fn uid(meta: &ObjectMeta) -> Option<Uuid> {
    Uuid::try_parse(meta.uid.as_deref()?).ok()
}

/// Versions of one object grow; they are numbers since etcd counts its writes.
pub fn version(meta: &ObjectMeta) -> Option<u64> {
    meta.resource_version.as_deref()?.parse().ok()
}

/// Who it is, and what it says, if this version can read that.
pub fn read(
    kind: crds::Kind,
    uid: Uuid,
    object: DynamicObject,
) -> (Arc<Meta>, Result<crds::Resource, String>) {
    let meta = Meta {
        kind,
        uid,
        namespace: object.metadata.namespace.clone().unwrap_or_default(),
        name: object.metadata.name.clone().unwrap_or_default(),
        generation: object.metadata.generation.unwrap_or(0),
        path: (kind == crds::Kind::Source)
            .then(|| {
                object
                    .data
                    .pointer("/spec/path")?
                    .as_str()
                    .map(str::to_owned)
            })
            .flatten(),
    };
    (Arc::new(meta), resource(kind, object))
}

fn resource(kind: crds::Kind, mut object: DynamicObject) -> Result<crds::Resource, String> {
    // Items of a list may come without.
    object.types = Some(TypeMeta {
        api_version: format!("{}/{}", crds::GROUP, crds::VERSION),
        kind: kind.as_str().to_owned(),
    });
    let manifest = serde_json::to_value(object).map_err(|error| error.to_string())?;
    crds::parse(manifest).map_err(|error| error.to_string())
}
