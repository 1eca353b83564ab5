//! Connection: which events of a source go to which destination.

use crate::{Filter, ObjectRef, Retry, Status, Transform};
use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// A Connection sends the events of a source that pass its filter to a destination. A source may have any number of them.
#[derive(CustomResource, Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "hookstream.io",
    version = "v1alpha1",
    kind = "Connection",
    namespaced,
    status = "Status",
    derive = "PartialEq",
    shortname = "hconn",
    category = "hookstream"
)]
#[kube(doc = "Sends the events of a source that pass a filter to a destination.")]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ConnectionSpec {
    /// A name for people, up to 128 characters. Default: none; `metadata.name` is shown.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 128))]
    pub display_name: Option<String>,
    /// The Source that the events come from.
    pub source: ObjectRef,
    /// The Destination that they go to.
    pub destination: ObjectRef,
    /// Suspended: new events do not go this way. Deliveries that are recorded already still go. Default: false.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub suspend: Option<bool>,
    /// Which events go this way. Default: all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub filter: Option<Filter>,
    /// How the payload is reshaped before it is sent. Default: it goes byte for byte as it came.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub transform: Option<Transform>,
    /// When a failed delivery is tried again. Wins over the destination's `retry`, as a whole. Default: the destination's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry: Option<Retry>,
}
