//! Source: where webhooks come in.

use crate::{AllowedNamespaces, Duration, SchemaCheck, SecretKeyRef, Size, Status};
use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// A Source is an endpoint that senders post webhooks to. Each has a URL of its own, `/v1/ingest/src_…`, and takes any method. A request
/// that passes its checks is recorded before it is answered 200.
#[derive(CustomResource, Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "hookstream.io",
    version = "v1alpha1",
    kind = "Source",
    namespaced,
    status = "Status",
    derive = "PartialEq",
    shortname = "hsrc",
    category = "hookstream"
)]
#[kube(doc = "An endpoint that senders post webhooks to.")]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct SourceSpec {
    /// A name for people, up to 128 characters. Default: none; `metadata.name` is shown.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 128))]
    pub display_name: Option<String>,
    /// A URL path of your own, as `github` or `billing/stripe`, for `/v1/ingest/github` besides the URL by id. Unlike that one it stays
    /// the same when the resource is deleted and made again. Unique in the whole installation: the oldest source that asks for a path
    /// has it, the others are not accepted (reason Conflicted). Paths may lie below each other in one namespace, where the longest one
    /// takes a request, but never in two: of those the oldest source has its path, too. Default: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(
        length(min = 1, max = 128),
        regex(pattern = r"^[a-z0-9]([a-z0-9._-]*[a-z0-9])?(/[a-z0-9]([a-z0-9._-]*[a-z0-9])?)*$")
    )]
    pub path: Option<String>,
    /// HTTP methods that are taken; others are answered 405. Default: any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 9))]
    pub methods: Option<Vec<Method>>,
    /// Paused: requests are answered 409 and nothing is recorded. Default: false.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub suspend: Option<bool>,
    /// Not served any more: requests are answered 404, while history and connections stay. Wins over `suspend`. Default: false.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub archived: Option<bool>,
    /// Media types that are taken, without parameters: `application/json`, `text/*`, `application/*+json`. A request with a body of
    /// another type, or of none, is answered 415. Default: any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 32), inner(length(min = 3, max = 128)))]
    pub content_types: Option<Vec<String>>,
    /// How a request proves that it comes from its sender; one that does not is answered 401 and not recorded. Default: no proof is asked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub verification: Option<Verification>,
    /// Which addresses may send; others are answered 403. `deny` wins over `allow`. Behind a proxy the sender's address is known only
    /// where the installation's `trustedProxies` names the proxy. Default: all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ip_filter: Option<IpFilter>,
    /// A JSON Schema that bodies must fit. Default: no check.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub schema: Option<SchemaCheck>,
    /// How a second copy of an event is recognised. Default: every request is a new event.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dedup: Option<Dedup>,
    /// How many requests are taken in a time, over all gateways; more are answered 429 with `Retry-After`. Default: no limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rate_limit: Option<SourceRateLimit>,
    /// The largest body, in bytes (`1048576`) or with a unit (`512Ki`, `10Mi`), up to 1Gi and to what the installation takes (25Mi unless set); a larger one is answered 413. Default: 10Mi.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_body_size: Option<Size>,
    /// What the sender gets once the event is recorded. Default: 200 with the event's id as JSON.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub response: Option<CustomResponse>,
    /// From which web pages a browser may send. Its preflight is answered and not recorded. Default: none; the answers have no CORS headers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cors: Option<Cors>,
    /// How long this source's history is kept. Wins over the installation's. Default: as long as the installation keeps it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retention: Option<Retention>,
    /// Which other namespaces may connect to this source. Default: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub allowed_namespaces: Option<AllowedNamespaces>,
}

/// A method that senders use.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "UPPERCASE")]
pub enum Method {
    Get,
    Head,
    Post,
    Put,
    Patch,
    Delete,
    Options,
}

impl Method {
    /// As in a request line.
    pub const fn as_str(self) -> &'static str {
        match self {
            Method::Get => "GET",
            Method::Head => "HEAD",
            Method::Post => "POST",
            Method::Put => "PUT",
            Method::Patch => "PATCH",
            Method::Delete => "DELETE",
            Method::Options => "OPTIONS",
        }
    }
}

/// A template, or exactly one way to verify, and its secrets. A way beside a template changes what it writes of it: a header, the
/// tolerance, the audience.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Verification {
    /// A provider's own way, by name: `github`, `stripe`, `shopify`, `slack` … (docs/verification.md has all). It knows headers,
    /// encoding and what is signed, and answers the challenges that the provider sends. Default: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 63))]
    pub template: Option<String>,
    /// HMAC: a keyed hash of the content, in a header.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hmac: Option<HmacVerification>,
    /// As standardwebhooks.com specifies, with the headers `webhook-id`, `webhook-timestamp` and `webhook-signature`; each secret is
    /// `whsec_…`, or `whpk_…` for signatures `v1a`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub standard_webhooks: Option<StandardWebhooksVerification>,
    /// An Ed25519 signature in a header; the secrets are public keys.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ed25519: Option<PublicKeyVerification>,
    /// An ECDSA P-256 signature over SHA-256 in a header; the secrets are public keys.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ecdsa: Option<PublicKeyVerification>,
    /// HTTP basic authentication; each secret is `user:password`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub basic_auth: Option<BasicAuthVerification>,
    /// A key in a header or in the query.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub api_key: Option<ApiKeyVerification>,
    /// A JSON Web Token, signed by a key of a JWKS document (RS, PS and ES of 256 and 384 bits, RS512, PS512, EdDSA). It must have an
    /// expiry.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub jwt: Option<JwtVerification>,
    /// One to four secrets; a request that fits any of them passes, so that a new one can be added before the old one goes. May be left
    /// out only with `jwt.jwksUrl`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 4))]
    pub secret_refs: Vec<SecretKeyRef>,
    /// The token that a challenge must carry, as the provider's settings have it. Only with the templates `meta` and `whatsapp`. Default:
    /// none; such a challenge is refused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub verify_token_ref: Option<SecretKeyRef>,
}

/// A keyed hash in a header.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct HmacVerification {
    /// The hash. Default: SHA256.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub algorithm: Option<HmacAlgorithm>,
    /// The header with the signature. Needed, except beside a template. Several signatures may stand in it, with commas or spaces between.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(
        length(min = 1, max = 128),
        regex(pattern = "^[A-Za-z0-9!#$%&'*+.^_`|~-]+$")
    )]
    pub header: Option<String>,
    /// The key of the signatures in a header of pairs: `v1` of `t=1700000000,v1=5257…`. Default: the header holds the signature alone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 64))]
    pub pair: Option<String>,
    /// How the signature is written in the header. Default: Hex.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub encoding: Option<SignatureEncoding>,
    /// What stands before the signature in the header, as `sha256=`. Default: nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64))]
    pub prefix: Option<String>,
    /// What is signed: a text where `{body}`, `{timestamp}`, `{id}`, `{url}` (the public URL, with the query), `{method}`, `{path}` and
    /// `{form}` (the sorted names and values of a form) stand for the values, as `{timestamp}.{body}`. Default: `{body}`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 256))]
    pub signed_content: Option<String>,
    /// Where the signed time is, and how far it may be off. Default: no time is checked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timestamp: Option<TimestampCheck>,
    /// The header that `{id}` stands for. Only with `{id}` in `signedContent`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(
        length(min = 1, max = 128),
        regex(pattern = "^[A-Za-z0-9!#$%&'*+.^_`|~-]+$")
    )]
    pub id_header: Option<String>,
    /// How the key is written in the Secret. Text: its bytes are the key. Default: Text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret_encoding: Option<SecretEncoding>,
}

/// The hash of an HMAC.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "UPPERCASE")]
pub enum HmacAlgorithm {
    Sha1,
    Sha256,
    Sha512,
}

/// How bytes are written in a header.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum SignatureEncoding {
    Hex,
    Base64,
}

/// How a key is written in a Secret.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum SecretEncoding {
    Text,
    Hex,
    Base64,
}

/// How a time is written: since 1970, or as `2026-11-21T14:33:00Z`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum TimestampUnit {
    Seconds,
    Milliseconds,
    #[serde(rename = "RFC3339")]
    Rfc3339,
}

/// A signed time.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct TimestampCheck {
    /// The header with the time. Needed, except beside a template.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(
        length(min = 1, max = 128),
        regex(pattern = "^[A-Za-z0-9!#$%&'*+.^_`|~-]+$")
    )]
    pub header: Option<String>,
    /// The key of the time in a header of pairs: `t` of `t=1700000000,v1=5257…`. Default: the header holds the time alone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 64))]
    pub pair: Option<String>,
    /// How the time is written. Default: Seconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unit: Option<TimestampUnit>,
    /// How far it may be from now, in either direction. Default: 5m.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tolerance: Option<Duration>,
}

/// Verification as standardwebhooks.com specifies.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct StandardWebhooksVerification {
    /// How far `webhook-timestamp` may be from now, in either direction. Default: 5m.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tolerance: Option<Duration>,
}

/// A signature by a private key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct PublicKeyVerification {
    /// The header with the signature. Needed, except beside a template.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(
        length(min = 1, max = 128),
        regex(pattern = "^[A-Za-z0-9!#$%&'*+.^_`|~-]+$")
    )]
    pub header: Option<String>,
    /// How the signature is written in the header. Default: Base64.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub encoding: Option<SignatureEncoding>,
    /// What is signed: a text where `{body}` and `{timestamp}` stand for the values. Default: `{timestamp}{body}` if `timestamp` is
    /// given, else `{body}`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 256))]
    pub signed_content: Option<String>,
    /// Where the signed time is, and how far it may be off. Default: no time is checked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timestamp: Option<TimestampCheck>,
}

/// HTTP basic authentication.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct BasicAuthVerification {
    /// The realm in the `WWW-Authenticate` header of a refusal. Default: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 128))]
    pub realm: Option<String>,
}

/// Exactly one place for the key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ApiKeyVerification {
    /// The header with the key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(
        length(min = 1, max = 128),
        regex(pattern = "^[A-Za-z0-9!#$%&'*+.^_`|~-]+$")
    )]
    pub header: Option<String>,
    /// The query parameter with the key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 128))]
    pub query: Option<String>,
}

/// A token in `Authorization: Bearer`, or in another header.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct JwtVerification {
    /// Where the JWKS document is, over https. Default: none; the secrets hold JWKS documents, or public keys in PEM.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 2048))]
    pub jwks_url: Option<String>,
    /// The header with the token. Default: Authorization, where the token follows `Bearer `.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(
        length(min = 1, max = 128),
        regex(pattern = "^[A-Za-z0-9!#$%&'*+.^_`|~-]+$")
    )]
    pub header: Option<String>,
    /// What `iss` must be. Default: not judged.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 512))]
    pub issuer: Option<String>,
    /// What `aud` must hold. Default: not judged.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 512))]
    pub audience: Option<String>,
}

/// Addresses and CIDR ranges, IPv4 and IPv6. IPv4 written as IPv6 is IPv4. Name at least one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct IpFilter {
    /// These may not send, whatever `allow` says. Default: none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(
        length(max = 256),
        inner(length(max = 49), regex(pattern = r"^[0-9a-fA-F:.]+(/[0-9]{1,3})?$"))
    )]
    pub deny: Vec<String>,
    /// Only these may send. Default: all.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(
        length(max = 256),
        inner(length(max = 49), regex(pattern = r"^[0-9a-fA-F:.]+(/[0-9]{1,3})?$"))
    )]
    pub allow: Vec<String>,
}

/// How a second copy of an event is recognised. It is recorded as a duplicate and goes nowhere.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Dedup {
    /// PayloadHash: the same body. HeaderField, BodyField: the same value in `field`.
    pub strategy: DedupStrategy,
    /// The header's name with HeaderField, or the path with BodyField, as `body.id`. Not with PayloadHash.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 512))]
    pub field: Option<String>,
    /// How long after the first event a copy is recognised, as `10m`; up to 30d. Default: 5m.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub window: Option<Duration>,
    /// What the sender of a copy gets. Accept: 200 with the first event's id and `"duplicate": true`. Conflict: 409. Default: Accept.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub on_duplicate: Option<OnDuplicate>,
}

/// What makes two events the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum DedupStrategy {
    PayloadHash,
    HeaderField,
    BodyField,
}

/// What the sender of a copy gets.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum OnDuplicate {
    Accept,
    Conflict,
}

/// How many requests are taken in a time. Each of the gateways takes its share; the shares follow the number of them that live.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct SourceRateLimit {
    /// How many requests.
    #[schemars(range(min = 1, max = 1_000_000))]
    pub requests: i32,
    /// In how long, as `1s`, `1m`; up to 1d. Default: 1s.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub per: Option<Duration>,
    /// How many may come at once after a pause. Default: `requests`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 10_000_000))]
    pub burst: Option<i32>,
}

/// An answer of your own.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct CustomResponse {
    /// The status, 200 to 299. Default: 200.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 200, max = 299))]
    pub status: Option<i32>,
    /// Header names and values. `Content-Type` is by default application/json for a body that is JSON, else text/plain. Default: none of
    /// your own.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("maxProperties" = 32))]
    pub headers: BTreeMap<String, String>,
    /// The body, up to 16384 characters. Default: the event's id as JSON.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 16384))]
    pub body: Option<String>,
}

/// From which web pages a browser may send. Says what a browser may do, not who may send: others ignore it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Cors {
    /// Origins of pages, as browsers send them: `https://app.example.com`; `https://*.example.com` for all hosts below one, `*` for all.
    #[schemars(length(min = 1, max = 64), inner(length(min = 1, max = 256)))]
    pub allow_origins: Vec<String>,
    /// Headers that a page may set, or `*` for all. Default: content-type.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(
        length(min = 1, max = 64),
        inner(
            length(min = 1, max = 128),
            regex(pattern = "^[A-Za-z0-9!#$%&'*+.^_`|~-]+$")
        )
    )]
    pub allow_headers: Option<Vec<String>>,
    /// Methods that a page may use. Default: POST.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 9))]
    pub allow_methods: Option<Vec<Method>>,
    /// How long a browser may keep the answer to its preflight, as `10m`; up to 1d. Default: 10m.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_age: Option<Duration>,
}

/// How long history is kept.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Retention {
    /// Events with their deliveries and attempts, as `30d`. Default: the installation's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub events: Option<Duration>,
    /// The bodies of events, as `7d`; not longer than `events`. Default: the installation's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub payloads: Option<Duration>,
}
