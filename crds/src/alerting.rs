//! AlertRule and NotificationChannel: who hears of trouble, and how.

use crate::{Duration, FailureShare, LocalRef, SecretKeyRef, Status};
use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// An AlertRule tells channels when a condition holds: exactly one of failureRate, latency, volumeDrop, deadLetters, issueOpened.
#[derive(CustomResource, Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "hookstream.io",
    version = "v1alpha1",
    kind = "AlertRule",
    namespaced,
    status = "Status",
    derive = "PartialEq",
    shortname = "halert",
    category = "hookstream"
)]
#[kube(doc = "Tells notification channels when deliveries go wrong.")]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct AlertRuleSpec {
    /// A name for people, up to 128 characters. Default: none; `metadata.name` is shown.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 128))]
    pub display_name: Option<String>,
    /// So large a share of attempts failed within a window.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failure_rate: Option<FailureShare>,
    /// Deliveries took longer than a time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub latency: Option<LatencyTrigger>,
    /// Fewer events came than in the time before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub volume_drop: Option<VolumeDropTrigger>,
    /// So many deliveries were given up within a window.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dead_letters: Option<DeadLettersTrigger>,
    /// An issue was opened.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub issue_opened: Option<IssueOpenedTrigger>,
    /// Which sources are looked at. Default: all in the namespace.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64))]
    pub sources: Vec<LocalRef>,
    /// Which destinations are looked at. Default: all in the namespace.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64))]
    pub destinations: Vec<LocalRef>,
    /// The NotificationChannels that are told, one to 16.
    #[schemars(length(min = 1, max = 16))]
    pub channels: Vec<LocalRef>,
    /// The least time between two notifications, as `1h`. Default: 1h.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cooldown: Option<Duration>,
    /// Silent: the condition is not looked at and nobody is told. Default: false.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub suspend: Option<bool>,
}

/// Deliveries took longer than a time.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct LatencyTrigger {
    /// The time that is too long, as `2s`.
    pub threshold: Duration,
    /// So many percent of deliveries must be faster than that. Default: 95.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 100))]
    pub percentile: Option<i32>,
    /// The time looked at, as `15m`, up to now.
    pub window: Duration,
}

/// Fewer events than in the time before.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct VolumeDropTrigger {
    /// How much fewer, as `50%`.
    #[schemars(
        length(max = 8),
        regex(pattern = r"^(100|[1-9]?[0-9](\.[0-9]{1,2})?)%$")
    )]
    pub threshold: String,
    /// The time looked at, against the same time before.
    pub window: Duration,
}

/// Deliveries were given up.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct DeadLettersTrigger {
    /// How many deliveries. Default: 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 1_000_000))]
    pub threshold: Option<i32>,
    /// The time looked at, as `1h`, up to now.
    pub window: Duration,
}

/// An issue was opened; there is nothing to set.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct IssueOpenedTrigger {}

/// A NotificationChannel is where alerts go: exactly one of webhook, slack, discord, email.
#[derive(CustomResource, Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "hookstream.io",
    version = "v1alpha1",
    kind = "NotificationChannel",
    namespaced,
    status = "Status",
    derive = "PartialEq",
    shortname = "hnc",
    category = "hookstream"
)]
#[kube(doc = "Where alerts are sent.")]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct NotificationChannelSpec {
    /// A name for people, up to 128 characters. Default: none; `metadata.name` is shown.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 128))]
    pub display_name: Option<String>,
    /// A JSON POST to your own endpoint.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub webhook: Option<WebhookChannel>,
    /// A Slack channel, by an incoming webhook.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub slack: Option<ChatChannel>,
    /// A Discord channel, by a webhook.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub discord: Option<ChatChannel>,
    /// Mail, by the installation's SMTP server.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub email: Option<EmailChannel>,
}

/// An endpoint of your own.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct WebhookChannel {
    /// An http or https URL. The installation's rules on private addresses hold for it too.
    #[schemars(length(min = 8, max = 2048), regex(pattern = r"^https?://[^\s]+$"))]
    pub url: String,
    /// The key that signs the request. Default: not signed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret_ref: Option<SecretKeyRef>,
}

/// A chat room with an incoming webhook.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ChatChannel {
    /// The key of a Secret that holds the webhook's URL: who knows the URL can post.
    pub url_ref: SecretKeyRef,
}

/// Mail.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct EmailChannel {
    /// Mail addresses, one to 32.
    #[schemars(length(min = 1, max = 32))]
    pub to: Vec<String>,
}
