//! Topic and Subscription: events that your own programs publish.

use crate::{Filter, LocalRef, ObjectRef, Retry, SchemaCheck, SecretKeyRef, Status, Transform};
use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// A Topic takes events that your own programs publish with `POST /v1/topics/<name>/publish`; each goes to all its subscriptions.
#[derive(CustomResource, Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "hookstream.io",
    version = "v1alpha1",
    kind = "Topic",
    namespaced,
    status = "Status",
    derive = "PartialEq",
    shortname = "htop",
    category = "hookstream"
)]
#[kube(doc = "A name that your own programs publish events to.")]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct TopicSpec {
    /// A name for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 128))]
    pub display_name: Option<String>,
    /// Types that may be published. Default: any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 256))]
    pub event_types: Option<Vec<String>>,
    /// A JSON Schema that published events must fit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub schema: Option<SchemaCheck>,
    /// Keys that may publish; any of them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 4))]
    pub publish_key_refs: Vec<SecretKeyRef>,
}

/// A Subscription sends the events of a topic that pass its filter to a destination.
#[derive(CustomResource, Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "hookstream.io",
    version = "v1alpha1",
    kind = "Subscription",
    namespaced,
    status = "Status",
    derive = "PartialEq",
    shortname = "hsub",
    category = "hookstream"
)]
#[kube(doc = "Sends the events of a topic that pass a filter to a destination.")]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct SubscriptionSpec {
    /// A name for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 128))]
    pub display_name: Option<String>,
    /// Where the events come from.
    pub topic: LocalRef,
    /// Where they go.
    pub destination: ObjectRef,
    /// Suspended: new events do not go this way. Default: false.
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
