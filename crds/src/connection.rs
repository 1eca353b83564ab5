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
    /// A name for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 128))]
    pub display_name: Option<String>,
    /// Where the events come from.
    pub source: ObjectRef,
    /// Where they go.
    pub destination: ObjectRef,
    /// Suspended: new events do not go this way. Those under way still do. Default: false.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub suspend: Option<bool>,
    /// Which events. Default: all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub filter: Option<Filter>,
    /// How the payload is reshaped. Default: not at all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub transform: Option<Transform>,
    /// Wins over the destination's `retry`, as a whole.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry: Option<Retry>,
}
