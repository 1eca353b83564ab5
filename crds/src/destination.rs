//! Destination: where events go, and how patiently.

use crate::{
    AllowedNamespaces, Duration, EventbridgeProvider, HttpProvider, KafkaProvider, PubsubProvider,
    RabbitmqProvider, Retry, S3Provider, SecretKeyRef, SqsProvider, Status, WebsocketProvider,
};
use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// An annotation of a Destination: any value that it didn't have before closes the circuit. The operator only reads it.
pub const RESET_CIRCUIT: &str = "hookstream.io/reset-circuit";

/// A Destination is where events are delivered: exactly one of http, sqs, s3, eventbridge, pubsub, kafka, rabbitmq, websocket. A delivery that
/// fails is tried again as `retry` says, and then kept as a dead letter.
#[derive(CustomResource, Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "hookstream.io",
    version = "v1alpha1",
    kind = "Destination",
    namespaced,
    status = "Status",
    derive = "PartialEq",
    shortname = "hdst",
    category = "hookstream"
)]
#[kube(doc = "A place that events are delivered to.")]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct DestinationSpec {
    /// A name for people, up to 128 characters. Default: none; `metadata.name` is shown.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 128))]
    pub display_name: Option<String>,
    /// Paused: deliveries are recorded and wait. Default: false.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub suspend: Option<bool>,
    /// An HTTP endpoint.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub http: Option<HttpProvider>,
    /// An Amazon SQS queue.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sqs: Option<SqsProvider>,
    /// A bucket of Amazon S3, or of a store that speaks its protocol.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub s3: Option<S3Provider>,
    /// An Amazon EventBridge bus.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub eventbridge: Option<EventbridgeProvider>,
    /// A Google Cloud Pub/Sub topic.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pubsub: Option<PubsubProvider>,
    /// A Kafka topic.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kafka: Option<KafkaProvider>,
    /// A RabbitMQ exchange.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rabbitmq: Option<RabbitmqProvider>,
    /// Clients that are connected by WebSocket.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub websocket: Option<WebsocketProvider>,
    /// How requests are signed, so that the receiver can tell that they come from here. Only with `http`. Default: not signed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub signing: Option<Signing>,
    /// When a failed delivery is tried again. A connection's or subscription's own `retry` wins, as a whole. Default: five times, after
    /// 30s, 5m, 30m, 2h and 24h.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry: Option<Retry>,
    /// When deliveries are held back because all of them fail. Default: after 5 failures in a row, for 60s. `status.circuit` shows it;
    /// a new value of the annotation `hookstream.io/reset-circuit` closes it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub circuit_breaker: Option<CircuitBreaker>,
    /// How many deliveries go in a time, retries included; more of them wait. Default: no limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rate_limit: Option<DeliveryRateLimit>,
    /// How many attempts may be in flight at once, by all replicas together. Default: 20.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 1000))]
    pub concurrency: Option<i32>,
    /// In which order deliveries go. Default: none is promised.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ordering: Option<Ordering>,
    /// Which other namespaces' connections may deliver to this destination. Default: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub allowed_namespaces: Option<AllowedNamespaces>,
}

/// Exactly one way to sign, and its keys.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Signing {
    /// As standardwebhooks.com specifies, in `webhook-signature`: `v1` by a shared key (`whsec_…`) or `v1a` by an Ed25519 key (`whsk_…`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub standard_webhooks: Option<StandardWebhooksSigning>,
    /// HMAC: a keyed hash of the body, in a header.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hmac: Option<HmacSigning>,
    /// HTTP Message Signatures, RFC 9421.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub http_signature: Option<HttpSignatureSigning>,
    /// One to four keys, the newest first. The first one signs; with `standardWebhooks` each of them does, so that receivers can change
    /// over. `standardWebhooks`: `whsec_` and base64 of 24 to 64 bytes, or `whsk_` and base64 of an Ed25519 key. `hmac`: any bytes.
    /// `httpSignature`: an Ed25519 or P-256 private key as PEM, or at least 16 bytes that are shared (HMAC-SHA256).
    #[schemars(length(min = 1, max = 4))]
    pub secret_refs: Vec<SecretKeyRef>,
}

/// Signing as standardwebhooks.com specifies; there is nothing to set.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct StandardWebhooksSigning {}

/// A keyed hash of the body in a header.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct HmacSigning {
    /// The hash. Default: SHA256.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub algorithm: Option<SigningAlgorithm>,
    /// The header that carries the signature. Default: X-Hookstream-Signature.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(
        length(min = 1, max = 128),
        regex(pattern = "^[A-Za-z0-9!#$%&'*+.^_`|~-]+$")
    )]
    pub header: Option<String>,
    /// What stands before the signature in the header. Default: `sha256=` or `sha1=`, as the algorithm is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64))]
    pub prefix: Option<String>,
    /// Sign `<timestamp>.<body>` and send the timestamp, in seconds since 1970, in this header. Default: the body alone is signed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(
        length(min = 1, max = 128),
        regex(pattern = "^[A-Za-z0-9!#$%&'*+.^_`|~-]+$")
    )]
    pub timestamp_header: Option<String>,
}

/// The hash of a signature.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "UPPERCASE")]
pub enum SigningAlgorithm {
    Sha1,
    Sha256,
}

/// HTTP Message Signatures, RFC 9421.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct HttpSignatureSigning {
    /// `keyid` in the signature's parameters. Default: the Secret's key name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 256))]
    pub key_id: Option<String>,
}

/// When to stop trying for a while. Deliveries are never dropped by it; they wait.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct CircuitBreaker {
    /// So many failures in a row open the circuit. Not with `failureRate`. Default: 5.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 1000))]
    pub failures: Option<i32>,
    /// Such a share of failed attempts within a window opens the circuit. Not with `failures`. Default: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failure_rate: Option<FailureShare>,
    /// How long the circuit stays open before one delivery is tried: `1s` to `24h`. Default: 60s.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cooldown: Option<Duration>,
}

/// A share of failed attempts within a window.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct FailureShare {
    /// A percentage above `0%` and up to `100%`, as `50%`.
    #[schemars(
        length(max = 8),
        regex(pattern = r"^(100|[1-9]?[0-9](\.[0-9]{1,2})?)%$")
    )]
    pub threshold: String,
    /// The time looked at, up to now: `1s` to `24h`, as `5m`.
    pub window: Duration,
    /// With fewer attempts in the window nothing is concluded. Default: 10.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 1_000_000))]
    pub minimum: Option<i32>,
}

/// How many deliveries go in a time.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct DeliveryRateLimit {
    /// How many deliveries.
    #[schemars(range(min = 1, max = 1_000_000))]
    pub deliveries: i32,
    /// In how long: `1s` to `24h`. A tenth of the deliveries may go at once, the rest goes evenly. Default: 1s.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub per: Option<Duration>,
}

/// In which order deliveries go.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Ordering {
    /// Strict: the next one goes only after the one before has arrived or was given up. None: as fast as possible.
    pub mode: OrderingMode,
    /// Keep the order only among events with the same value at this path, as `body.order.id` or `headers.x-tenant`. Only with Strict.
    /// Default: among all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 512))]
    pub key: Option<String>,
    /// What happens to the deliveries behind one that fails. Wait: they wait through its retries. DeadLetter: it is given up at once and
    /// they go on. Only with Strict. Default: Wait.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub on_head_blocked: Option<OnHeadBlocked>,
}

/// Whether an order is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum OrderingMode {
    Strict,
    None,
}

/// What happens behind a delivery that fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum OnHeadBlocked {
    Wait,
    DeadLetter,
}
