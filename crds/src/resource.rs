//! A resource of any kind, and reading one without an API server.
//!
//! Manifests go through `serde_json::Value`, never from YAML straight into a type, so that both ways read the same.

use crate::{
    AlertRule, Collection, Connection, Destination, GROUP, Kind, NotificationChannel, Source,
    Subscription, Topic, VERSION,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde::de::DeserializeOwned;
use serde_json::Value;

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

/// Reads a manifest. Fields that the kind doesn't have are refused, as `kubectl --validate=strict` does.
pub fn parse(manifest: Value) -> Result<Resource, ParseError> {
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
    Ok(
        match Kind::parse(&kind).ok_or(ParseError::Kind { found: kind })? {
            Kind::Source => Resource::Source(read(manifest)?),
            Kind::Destination => Resource::Destination(read(manifest)?),
            Kind::Connection => Resource::Connection(read(manifest)?),
            Kind::Topic => Resource::Topic(read(manifest)?),
            Kind::Subscription => Resource::Subscription(read(manifest)?),
            Kind::AlertRule => Resource::AlertRule(read(manifest)?),
            Kind::NotificationChannel => Resource::NotificationChannel(read(manifest)?),
            Kind::Collection => Resource::Collection(read(manifest)?),
        },
    )
}

fn read<T: DeserializeOwned>(manifest: Value) -> Result<T, ParseError> {
    serde_path_to_error::deserialize(manifest).map_err(|error| ParseError::Field {
        path: error.path().to_string(),
        message: error.inner().to_string(),
    })
}
