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
    /// A name for people, up to 128 characters. Default: none; `metadata.name` is shown.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 128))]
    pub display_name: Option<String>,
    /// Event types that may be published, as `order.created`. Default: any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 256))]
    pub event_types: Option<Vec<String>>,
    /// A JSON Schema that published events must fit. Default: no check.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub schema: Option<SchemaCheck>,
    /// Up to four keys that may publish to this topic, besides API keys. Default: none.
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
    /// A name for people, up to 128 characters. Default: none; `metadata.name` is shown.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 128))]
    pub display_name: Option<String>,
    /// The Topic that the events come from, of the same namespace.
    pub topic: LocalRef,
    /// The Destination that they go to.
    pub destination: ObjectRef,
    /// Suspended: new events do not go this way. Deliveries that are recorded already still go. Default: false.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub suspend: Option<bool>,
    /// Which events go this way. Default: all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub filter: Option<Filter>,
    /// How the payload is reshaped before it is sent. Default: it goes as it was published.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub transform: Option<Transform>,
    /// When a failed delivery is tried again. Wins over the destination's `retry`, as a whole. Default: the destination's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry: Option<Retry>,
}
