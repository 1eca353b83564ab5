//! A resource of any kind, and reading one without an API server.
//!
//! Manifests go through `serde_json::Value`, never from YAML straight into a type, so that both ways read the same.

use crate::{
    AlertRule, Collection, Connection, Destination, GROUP, Kind, NotificationChannel, Source,
    Subscription, Topic, VERSION,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

/// A resource of any kind.
#[derive(Debug, Clone, PartialEq)]
#[expect(
    clippy::large_enum_variant,
    reason = "resources live in maps one by one; a box each would cost more than it saves"
)]
pub enum Resource {
    Source(Source),
    Destination(Destination),
    Connection(Connection),
    Topic(Topic),
    Subscription(Subscription),
    AlertRule(AlertRule),
    NotificationChannel(NotificationChannel),
    Collection(Collection),
}

impl Resource {
    /// Which kind it is.
    pub fn kind(&self) -> Kind {
        match self {
            Resource::Source(_) => Kind::Source,
            Resource::Destination(_) => Kind::Destination,
            Resource::Connection(_) => Kind::Connection,
            Resource::Topic(_) => Kind::Topic,
            Resource::Subscription(_) => Kind::Subscription,
            Resource::AlertRule(_) => Kind::AlertRule,
            Resource::NotificationChannel(_) => Kind::NotificationChannel,
            Resource::Collection(_) => Kind::Collection,
        }
    }

    /// Its name, namespace, UID and generation.
    pub fn metadata(&self) -> &ObjectMeta {
        match self {
            Resource::Source(object) => &object.metadata,
            Resource::Destination(object) => &object.metadata,
            Resource::Connection(object) => &object.metadata,
            Resource::Topic(object) => &object.metadata,
            Resource::Subscription(object) => &object.metadata,
            Resource::AlertRule(object) => &object.metadata,
            Resource::NotificationChannel(object) => &object.metadata,
            Resource::Collection(object) => &object.metadata,
        }
    }
}

/// Why a manifest is no resource of ours.
#[derive(Debug, thiserror::Error)]
pub enum ParseError {
    #[error("apiVersion is {found:?}; write {GROUP}/{VERSION}")]
    ApiVersion { found: String },
    #[error("there is no kind {found:?} in {GROUP}; there are {}", Kind::ALL.map(Kind::as_str).join(", "))]
    Kind { found: String },
    /// A field is missing, unknown or of another type. `path` is where, as `spec.filter.all[0].op`.
    #[error("{path}: {message}")]
    Field { path: String, message: String },
}

/// The fields that any resource may have beside its spec.
const ROOT: [&str; 5] = ["apiVersion", "kind", "metadata", "spec", "status"];

/// Reads a manifest. Fields that the kind doesn't have are refused, as `kubectl --validate=strict` does, and a null is
/// the same as no field, as for the API server.
pub fn parse(mut manifest: Value) -> Result<Resource, ParseError> {
    let text = |name: &str| {
        manifest
            .get(name)
            .and_then(Value::as_str)
            .unwrap_or_default()
            .to_owned()
    };
    let (version, kind) = (text("apiVersion"), text("kind"));
    if version != format!("{GROUP}/{VERSION}") {
        return Err(ParseError::ApiVersion { found: version });
    }
    let kind = Kind::parse(&kind).ok_or(ParseError::Kind { found: kind })?;
    refuse_unknown(&manifest)?;
    drop_nulls(&mut manifest);
    Ok(match kind {
        Kind::Source => Resource::Source(read(manifest)?),
        Kind::Destination => Resource::Destination(read(manifest)?),
        Kind::Connection => Resource::Connection(read(manifest)?),
        Kind::Topic => Resource::Topic(read(manifest)?),
        Kind::Subscription => Resource::Subscription(read(manifest)?),
        Kind::AlertRule => Resource::AlertRule(read(manifest)?),
        Kind::NotificationChannel => Resource::NotificationChannel(read(manifest)?),
        Kind::Collection => Resource::Collection(read(manifest)?),
    })
}

/// Refuses unknown fields where the types don't: kube's root type and Kubernetes' metadata skip them.
fn refuse_unknown(manifest: &Value) -> Result<(), ParseError> {
    let fields = |value: &Value| -> Vec<String> {
        let object = value.as_object();
        object.into_iter().flat_map(Map::keys).cloned().collect()
    };
    let unknown = fields(manifest)
        .into_iter()
        .find(|field| !ROOT.contains(&field.as_str()));
    if let Some(field) = unknown {
        let message = format!("unknown field; there are {}", ROOT.join(", "));
        return Err(ParseError::Field {
            path: field,
            message,
        });
    }
    let metadata = manifest.get("metadata").unwrap_or(&Value::Null);
    // The type skips what it doesn't know: what it doesn't give back is unknown. Wrong types are found by reading.
    let Ok(read) = serde_json::from_value::<ObjectMeta>(metadata.clone()) else {
        return Ok(());
    };
    let read = serde_json::to_value(read).expect("metadata is JSON");
    let unknown = fields(metadata)
        .into_iter()
        .find(|field| !metadata[field].is_null() && read.get(field).is_none());
    match unknown {
        Some(field) => Err(ParseError::Field {
            path: format!("metadata.{field}"),
            message: "unknown field; people write name, namespace, labels and annotations"
                .to_owned(),
        }),
        None => Ok(()),
    }
}

/// Removes fields that are null. A JSON Schema stays as it is: there a null can mean something.
fn drop_nulls(value: &mut Value) {
    match value {
        Value::Object(object) => {
            object.retain(|_, child| !child.is_null());
            object
                .iter_mut()
                .filter(|(field, _)| *field != "jsonSchema")
                .for_each(|(_, child)| drop_nulls(child));
        }
        Value::Array(items) => items.iter_mut().for_each(drop_nulls),
        _ => {}
    }
}

fn read<T: DeserializeOwned>(manifest: Value) -> Result<T, ParseError> {
    serde_path_to_error::deserialize(manifest).map_err(|error| ParseError::Field {
        path: error.path().to_string(),
        message: error.inner().to_string(),
    })
}

#[cfg(test)]
mod tests;
