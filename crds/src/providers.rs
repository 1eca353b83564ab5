//! How each type of destination is reached.

use crate::{Duration, SecretKeyRef};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// An HTTP endpoint. The body goes as it came; `Content-Type` is kept.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct HttpProvider {
    /// An http or https URL. `{path}` (before the `?`) and `{query}` (behind it) stand for what the sender's URL had behind the source's;
    /// without them neither is forwarded.
    #[schemars(length(min = 8, max = 2048), regex(pattern = r"^https?://[^\s]+$"))]
    pub url: String,
    /// The HTTP method. Default: POST.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub method: Option<HttpMethod>,
    /// Headers of your own, names and values, up to 64. They win over the event's. Not for secrets: those go to `auth`. Default: none.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("maxProperties" = 64))]
    pub headers: BTreeMap<String, String>,
    /// How long an attempt may take, from looking up the name to the end of the answer; 1ms to 10m. Default: 30s.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout: Option<Duration>,
    /// How the endpoint knows us. Default: not at all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub auth: Option<HttpAuth>,
    /// Certificates of your own. Default: the public authorities, and no client certificate.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tls: Option<HttpTls>,
    /// A service's payload shape by name: `slack`, `discord`, `pagerduty`, `datadog`, `zapier`, `linear`. A body that has the shape
    /// already goes as it is. The service's key is `auth.apiKey`: PagerDuty's is sent in the payload, Datadog's as `DD-API-KEY`, Linear's
    /// as `Authorization`. Default: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 63))]
    pub template: Option<String>,
    /// Send every event as a CloudEvent 1.0: `Binary` (attributes are `ce-` headers, the body is the data) or `Structured` (one JSON
    /// object). One that was published as a CloudEvent keeps its attributes; of any other, `id` is the event's id, `type` the payload's
    /// `type`, and the data is the payload. Not with `template`. Default: as it was published or received, CloudEvents in structured mode.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cloud_events: Option<CloudEventsMode>,
}

/// How CloudEvents are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum CloudEventsMode {
    /// Attributes are `ce-` headers, the body is the data.
    Binary,
    /// The body is a JSON object with attributes and data.
    Structured,
}

/// A method that deliveries use.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "UPPERCASE")]
pub enum HttpMethod {
    Get,
    Post,
    Put,
    Patch,
    Delete,
}

impl HttpMethod {
    /// As in a request line.
    pub const fn as_str(self) -> &'static str {
        match self {
            HttpMethod::Get => "GET",
            HttpMethod::Post => "POST",
            HttpMethod::Put => "PUT",
            HttpMethod::Patch => "PATCH",
            HttpMethod::Delete => "DELETE",
        }
    }
}

/// Exactly one way.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct HttpAuth {
    /// HTTP basic authentication.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub basic: Option<BasicAuth>,
    /// `Authorization: Bearer …`
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bearer: Option<BearerAuth>,
    /// A key in a header.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub api_key: Option<ApiKeyAuth>,
    /// OAuth 2 client credentials.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub oauth2: Option<OAuth2Auth>,
    /// AWS Signature Version 4.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub aws_sig_v4: Option<AwsSigV4Auth>,
}

/// HTTP basic authentication.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct BasicAuth {
    /// A Secret with the keys `username` and `password`, as type kubernetes.io/basic-auth has them.
    pub secret_ref: LocalSecretRef,
}

/// A token in `Authorization`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct BearerAuth {
    /// The key of a Secret that holds the token.
    pub secret_ref: SecretKeyRef,
}

/// A key in a header.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ApiKeyAuth {
    /// The header. Default: X-API-Key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(
        length(min = 1, max = 128),
        regex(pattern = "^[A-Za-z0-9!#$%&'*+.^_`|~-]+$")
    )]
    pub header: Option<String>,
    /// The key of a Secret that holds the value to send.
    pub secret_ref: SecretKeyRef,
}

/// A token by OAuth 2 client credentials; it is kept until it expires.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct OAuth2Auth {
    /// The URL that gives out tokens.
    #[schemars(length(min = 8, max = 2048), regex(pattern = r"^https?://[^\s]+$"))]
    pub token_url: String,
    /// The scopes asked for. Default: none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32))]
    pub scopes: Vec<String>,
    /// Sent as `audience`. Default: nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 512))]
    pub audience: Option<String>,
    /// How the secret is shown to that URL. Basic: in `Authorization`. Post: in the form, for servers that know no other way.
    /// Default: Basic.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client_authentication: Option<ClientAuthentication>,
    /// A Secret with the keys `client_id` and `client_secret`.
    pub secret_ref: LocalSecretRef,
}

/// How a client shows its secret where tokens are given out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum ClientAuthentication {
    Basic,
    Post,
}

/// AWS Signature Version 4.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct AwsSigV4Auth {
    /// The AWS region, as `eu-west-1`.
    #[schemars(length(min = 1, max = 63))]
    pub region: String,
    /// The service's signing name, as `execute-api`.
    #[schemars(length(min = 1, max = 63))]
    pub service: String,
    /// A Secret with the keys `access_key_id` and `secret_access_key`, and `session_token` if they are temporary. Needed: without it the
    /// destination is not accepted, since the pod's own identity is not every namespace's to use.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub credentials_ref: Option<LocalSecretRef>,
}

/// A Secret of the same namespace with keys of fixed names.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct LocalSecretRef {
    /// The Secret's name.
    #[schemars(
        length(min = 1, max = 253),
        regex(pattern = "^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$")
    )]
    pub name: String,
}

/// Certificates of your own.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct HttpTls {
    /// Authorities that the endpoint's certificate may come from, as PEM; they stand instead of the public ones. Where OAuth 2 tokens
    /// come from, they are trusted besides these. Default: the public ones.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ca_ref: Option<SecretKeyRef>,
    /// A Secret of type kubernetes.io/tls with the certificate that we show to the endpoint. Default: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client_certificate_ref: Option<LocalSecretRef>,
}

/// An Amazon SQS queue. Values in `groupId` and `dedupId` are paths into the event.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct SqsProvider {
    /// The queue's URL.
    #[schemars(length(min = 8, max = 2048), regex(pattern = r"^https?://[^\s]+$"))]
    pub queue_url: String,
    /// The AWS region, as `eu-west-1`.
    #[schemars(length(min = 1, max = 63))]
    pub region: String,
    /// Where in the event the message group is, as `body.order.id`. A FIFO queue needs it. Default: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 512))]
    pub group_id: Option<String>,
    /// Where in the event the deduplication id of a FIFO queue is. Default: the event's id.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 512))]
    pub dedup_id: Option<String>,
    /// Seconds before the message can be seen, of a queue that is not FIFO. Default: 0.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 900))]
    pub delay_seconds: Option<i32>,
    /// Another endpoint, as a VPC endpoint or an emulator. Default: the region's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 8, max = 2048))]
    pub endpoint: Option<String>,
    /// A Secret with the keys `access_key_id` and `secret_access_key`. Default: the pod's own identity.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub credentials_ref: Option<LocalSecretRef>,
}

/// A bucket; each event becomes an object.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct S3Provider {
    /// The bucket's name.
    #[schemars(length(min = 3, max = 63))]
    pub bucket: String,
    /// The AWS region, as `eu-west-1`.
    #[schemars(length(min = 1, max = 63))]
    pub region: String,
    /// The object's key, with `{source}`, `{date}`, `{hour}`, `{event_id}`. Default: `{source}/{date}/{event_id}.json`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 1024))]
    pub key: Option<String>,
    /// Another endpoint, of a store that speaks the same protocol. Default: the region's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 8, max = 2048))]
    pub endpoint: Option<String>,
    /// A Secret with the keys `access_key_id` and `secret_access_key`. Default: the pod's own identity.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub credentials_ref: Option<LocalSecretRef>,
}

/// An Amazon EventBridge bus.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct EventbridgeProvider {
    /// The bus' name or ARN.
    #[schemars(length(min = 1, max = 1600))]
    pub event_bus: String,
    /// The AWS region, as `eu-west-1`.
    #[schemars(length(min = 1, max = 63))]
    pub region: String,
    /// `Source` of the entries. Default: hookstream.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 256))]
    pub source: Option<String>,
    /// `DetailType` of the entries, with placeholders as `{body.type}`. Default: webhook.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 256))]
    pub detail_type: Option<String>,
    /// Another endpoint, as a VPC endpoint or an emulator. Default: the region's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 8, max = 2048))]
    pub endpoint: Option<String>,
    /// A Secret with the keys `access_key_id` and `secret_access_key`. Default: the pod's own identity.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub credentials_ref: Option<LocalSecretRef>,
}

/// A Google Cloud Pub/Sub topic.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct PubsubProvider {
    /// The project's id.
    #[schemars(length(min = 1, max = 63))]
    pub project: String,
    /// The topic's name.
    #[schemars(length(min = 3, max = 255))]
    pub topic: String,
    /// Where in the event the ordering key is, as `body.order.id`. Default: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 512))]
    pub ordering_key: Option<String>,
    /// Another endpoint, as the emulator's. Default: Google's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 3, max = 2048))]
    pub endpoint: Option<String>,
    /// The key file of a service account. Default: the pod's own identity.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub credentials_ref: Option<SecretKeyRef>,
}

/// A Kafka topic; exactly one way to reach it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct KafkaProvider {
    /// By Kafka's own protocol.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub native: Option<KafkaNative>,
    /// By Confluent's REST proxy.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rest_proxy: Option<KafkaRestProxy>,
}

/// Kafka's own protocol.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct KafkaNative {
    /// One to 32 brokers to begin with, as `kafka-0:9092`; they name the others.
    #[schemars(length(min = 1, max = 32))]
    pub brokers: Vec<String>,
    /// The topic.
    #[schemars(length(min = 1, max = 249))]
    pub topic: String,
    /// Where in the event the record's key is, as `body.order.id`. Default: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 512))]
    pub key: Option<String>,
    /// How batches are compressed. Default: None.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub compression: Option<KafkaCompression>,
    /// How we log in. Default: not at all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sasl: Option<KafkaSasl>,
    /// Encrypt; `{}` trusts the public authorities. Default: plain text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tls: Option<HttpTls>,
}

/// How batches are compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum KafkaCompression {
    None,
    Gzip,
    Snappy,
    Lz4,
    Zstd,
}

/// How we log in to Kafka.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct KafkaSasl {
    /// The SASL mechanism.
    pub mechanism: SaslMechanism,
    /// A Secret with the keys `username` and `password`.
    pub secret_ref: LocalSecretRef,
}

/// A SASL mechanism.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum SaslMechanism {
    Plain,
    ScramSha256,
    ScramSha512,
}

/// Confluent's REST proxy.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct KafkaRestProxy {
    /// The proxy's URL.
    #[schemars(length(min = 8, max = 2048), regex(pattern = r"^https?://[^\s]+$"))]
    pub url: String,
    /// The topic.
    #[schemars(length(min = 1, max = 249))]
    pub topic: String,
    /// The cluster's id, for version 3 of the proxy's API. Default: version 2.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 255))]
    pub cluster_id: Option<String>,
    /// Where in the event the record's key is. Default: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 512))]
    pub key: Option<String>,
    /// A Secret with the keys `username` and `password`. Default: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret_ref: Option<LocalSecretRef>,
}

/// A RabbitMQ exchange; exactly one way to reach it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct RabbitmqProvider {
    /// By AMQP, with publisher confirms.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub amqp: Option<RabbitmqAmqp>,
    /// By the management plugin's HTTP API.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub management: Option<RabbitmqManagement>,
}

/// AMQP with publisher confirms.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct RabbitmqAmqp {
    /// The broker's `amqp://` or `amqps://` URI, with user, password and virtual host.
    pub uri_ref: SecretKeyRef,
    /// The exchange; empty for the default one.
    #[schemars(length(max = 255))]
    pub exchange: String,
    /// The routing key; placeholders as `{body.type}` are filled in from the event.
    #[schemars(length(max = 255))]
    pub routing_key: String,
    /// Ask the broker to keep messages on disk. Default: true.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub persistent: Option<bool>,
}

/// The management plugin's HTTP API.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct RabbitmqManagement {
    /// The API's URL, as `https://rabbit.example.com:15671`.
    #[schemars(length(min = 8, max = 2048), regex(pattern = r"^https?://[^\s]+$"))]
    pub url: String,
    /// The virtual host. Default: `/`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 255))]
    pub vhost: Option<String>,
    /// The exchange.
    #[schemars(length(max = 255))]
    pub exchange: String,
    /// The routing key; placeholders as `{body.type}` are filled in from the event.
    #[schemars(length(max = 255))]
    pub routing_key: String,
    /// A Secret with the keys `username` and `password`.
    pub secret_ref: LocalSecretRef,
}

/// Clients that are connected by WebSocket at the time.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct WebsocketProvider {
    /// What happens while no client is connected. Drop: the delivery counts as done. Wait: it is retried. Default: Drop.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub on_no_client: Option<OnNoClient>,
}

/// What happens while no client is connected.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum OnNoClient {
    Drop,
    Wait,
}
