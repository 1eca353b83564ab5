//! Collection: a table made of events, the last one of each key.

use crate::{Filter, ObjectRef, Status};
use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// A Collection keeps the last event of each key of a source, as a table that can be queried.
#[derive(CustomResource, Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "hookstream.io",
    version = "v1alpha1",
    kind = "Collection",
    namespaced,
    status = "Status",
    derive = "PartialEq",
    shortname = "hcol",
    category = "hookstream"
)]
#[kube(doc = "A table of the last event of each key of a source.")]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct CollectionSpec {
    /// A name for people, up to 128 characters. Default: none; `metadata.name` is shown.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 128))]
    pub display_name: Option<String>,
    /// The Source that the events come from.
    pub source: ObjectRef,
    /// Where in the event the key is, as `body.data.id`. An event without it is left out.
    #[schemars(length(min = 1, max = 512))]
    pub primary_key: String,
    /// Where in the event its time is; of two events with the same key the later wins. Default: when it was received.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 512))]
    pub source_event_at: Option<String>,
    /// Which events are taken in. Default: all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub filter: Option<Filter>,
    /// Paused: nothing is taken in. Default: false.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub suspend: Option<bool>,
}
