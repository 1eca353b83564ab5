//! What the operator writes back. One type for all kinds; a column shows what a kind has.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What has become of the resource. Written by the operator.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Status {
    /// The generation that the conditions speak of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// Accepted: the resource makes sense. ResolvedRefs: what it refers to is there. Programmed: every live gateway routes by this
    /// generation. Ready: all three. Stalled and Reconciling are there only while they are true. Healthy, of a destination: its circuit
    /// is closed; that is no part of Ready.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["type"]))]
    pub conditions: Vec<Condition>,
    /// The id in the API, in headers and in the database: a prefix and the UID without dashes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    /// Where senders post to, and publishers to a topic.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 2048))]
    pub url: Option<String>,
    /// The circuit of a destination, as of a few seconds ago: Closed (deliveries go), Open (they wait), HalfOpen (the next one is
    /// tried, and decides).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub circuit: Option<String>,
}
