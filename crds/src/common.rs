//! What several kinds share: references, filters, transforms, retries, limits.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::collections::BTreeMap;

/// A key of a Secret in the same namespace.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct SecretKeyRef {
    /// The Secret's `metadata.name`.
    #[schemars(
        length(min = 1, max = 253),
        regex(pattern = "^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$")
    )]
    pub name: String,
    /// The key in the Secret's `data`.
    #[schemars(length(min = 1, max = 253), regex(pattern = "^[-._a-zA-Z0-9]+$"))]
    pub key: String,
}

/// A resource, by name.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ObjectRef {
    /// Its `metadata.name`.
    #[schemars(length(min = 1, max = 63))]
    pub name: String,
    /// Its namespace; by default the one of the resource that refers to it. Another namespace is possible only where the target's
    /// `allowedNamespaces` admits this one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 63))]
    pub namespace: Option<String>,
}

/// A resource of the same namespace, by name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct LocalRef {
    /// Its `metadata.name`.
    #[schemars(length(min = 1, max = 63))]
    pub name: String,
}

/// Which events pass: every rule of `all`, at least one of `any`, none of `none`. A part that is left out lets everything pass.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Filter {
    /// Each of these rules must match. Default: none is asked for.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64))]
    pub all: Vec<FilterRule>,
    /// At least one of these rules must match. Default: none is asked for.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64))]
    pub any: Vec<FilterRule>,
    /// None of these rules may match. Default: none is asked for.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64))]
    pub none: Vec<FilterRule>,
    /// What rules can't say: a JSONata expression that must give true, beside the rules. It is evaluated when the event is delivered and
    /// not when it is recorded, so prefer rules; an event that doesn't pass has a delivery with the state `filtered`. It sees the whole
    /// event if one of its paths begins with `body`, `payload`, `headers`, `query`, `method`, `path`, `content_type` or `source_ip`, else
    /// the body alone; the Accepted condition says which. Default: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 65536))]
    pub expression: Option<String>,
}

/// One comparison of a value in the event with a constant.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct FilterRule {
    /// Where to look: `body.order.id`, `body.items[0].sku`, `body.tags[*]` (any element), `headers.x-github-event` (any case),
    /// `query.name`, `method`, `path`, `content_type`, `source_ip`. `payload` means `body`. Of a form (`content_type` is
    /// `application/x-www-form-urlencoded`), `body.name` is each value of that field. A path that leads nowhere is no error: the
    /// value is missing.
    #[schemars(length(min = 1, max = 512))]
    pub path: String,
    /// How to compare. `eq`, `neq`: strings, numbers and booleans, exactly. `contains`, `startsWith`, `endsWith`: a part of a string.
    /// `regex`: a pattern found in a string. `gt`, `gte`, `lt`, `lte`: numbers. `exists`: whether the value is there and not null.
    /// `in`: whether it is one of a list.
    pub op: FilterOp,
    /// What to compare with: a string of up to 4096 bytes, number or boolean; a list of up to 256 of them for `in`; true or false for
    /// `exists`; for `regex` a pattern in the syntax of docs.rs/regex, found anywhere unless `^` and `$` say otherwise. A filter
    /// of more than 256Ki in all is not accepted (reason UnsupportedValue).
    #[schemars(schema_with = "any_value")]
    pub value: Value,
}

/// `eq` and `neq` compare strings, numbers and booleans exactly; `contains`, `startsWith` and `endsWith` look for a part of a string,
/// `regex` for a pattern; `gt`, `gte`, `lt` and `lte` compare numbers; `exists` asks whether the value is there and not null; `in`
/// whether it is one of a list.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum FilterOp {
    Eq,
    Neq,
    Contains,
    StartsWith,
    EndsWith,
    Regex,
    Gt,
    Gte,
    Lt,
    Lte,
    Exists,
    In,
}

/// How the payload is reshaped before it is sent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Transform {
    /// A JSONata expression. Its result is the body that is sent, as JSON; when it gives nothing, nothing is sent and the delivery's
    /// state is `filtered`. Evaluated at each delivery, within a second and 256Mi of memory.
    #[schemars(length(min = 1, max = 65536))]
    pub jsonata: String,
    /// What the expression sees: the whole event (`body`, `headers`, `query`, `method` …) or the body alone. Default: the whole
    /// event if a path at the expression's root begins with one of its names, else the body; the Accepted condition says which.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub input: Option<TransformInput>,
    /// What the result is. Body: what is sent. Envelope: an object with any of `body`, `headers`, `method`, `path` and `query`, which
    /// replace what would be sent. Default: Body.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub output: Option<TransformOutput>,
}

/// What an expression sees: the whole event, or its body.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum TransformInput {
    Envelope,
    Body,
}

/// What an expression's result is: the body, or an envelope that sets body, headers, method, path or query.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum TransformOutput {
    Body,
    Envelope,
}

/// When a failed delivery is tried again, and when it is given up.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Retry {
    /// How the wait grows. Exponential: each retry takes the next interval, and the last one again when they are used up. Linear: the
    /// one interval times the number of the retry. Fixed: the one interval each time. Default: Exponential.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub backoff: Option<Backoff>,
    /// The waits, as `30s`, `5m`, `2h`; up to 20, and only one with Linear and Fixed. Default: 30s, 5m, 30m, 2h, 24h; with Linear
    /// and Fixed 30s.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 20))]
    pub intervals: Option<Vec<Duration>>,
    /// How many retries follow the first attempt, 0 to 100; then the delivery is a dead letter. Default: 5.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 100))]
    pub max_retries: Option<i32>,
    /// A delivery older than this, as `72h`, is given up whatever retries are left; set going again by hand, it is as new. Default: no limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_age: Option<Duration>,
    /// What is tried again: statuses from 300 (`503`), classes of them (`5xx`), `Timeout`, `Unreachable`; what is not listed is given up at once.
    /// A 410 is never tried again. Default: every status that is not 2xx, `Timeout` and `Unreachable`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 32))]
    pub retry_on: Option<Vec<RetryOn>>,
    /// Wait as long as the answer's `Retry-After` says, up to 24h, where that is longer than the interval. Default: true.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub respect_retry_after: Option<bool>,
    /// Each wait is longer or shorter by up to this share of it, as `20%`, so that what failed together doesn't come back together.
    /// Default: none; the waits are exactly the intervals.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 4), regex(pattern = "^(100|[1-9]?[0-9])%$"))]
    pub jitter: Option<String>,
}

/// How the wait before a retry grows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Backoff {
    Exponential,
    Linear,
    Fixed,
}

/// A status (`503` or `"503"`), a class of them (`5xx`), `Timeout` or `Unreachable`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum RetryOn {
    Status(i32),
    Word(String),
}

impl JsonSchema for RetryOn {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "RetryOn".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({ "x-kubernetes-int-or-string": true, "maxLength": 16, "minimum": 300, "maximum": 599,
            "pattern": "^([345](xx|XX|[0-9]{2})|Timeout|Unreachable)$",
        })
    }
}

/// A length of time: whole numbers with `ms`, `s`, `m`, `h` or `d`, as `30s`, `1h30m`, `7d`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Duration(pub String);

impl JsonSchema for Duration {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Duration".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({ "type": "string", "maxLength": 32, "pattern": "^([0-9]{1,9}(ms|s|m|h|d))+$" })
    }
}

/// A number of bytes, as Kubernetes writes it: `512Ki`, `10Mi`, `1048576`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Size {
    Bytes(i64),
    Text(String),
}

impl JsonSchema for Size {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Size".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({ "x-kubernetes-int-or-string": true, "maxLength": 16, "minimum": 0, "pattern": "^[0-9]{1,12}(k|M|G|Ki|Mi|Gi)?$" })
    }
}

/// Which namespaces may refer to this resource.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct AllowedNamespaces {
    /// Same: this one only. All: every one. Selector: those whose labels match `selector`. Default: Same.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<FromNamespaces>,
    /// The labels of those namespaces. Needed with `from: Selector`, and only there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub selector: Option<LabelSelector>,
}

/// Which namespaces are admitted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum FromNamespaces {
    Same,
    All,
    Selector,
}

/// Labels that a namespace must have, all of them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct LabelSelector {
    /// Names and values; a namespace needs all of them. Empty: every namespace has them.
    #[schemars(extend("maxProperties" = 16))]
    pub match_labels: BTreeMap<String, String>,
}

/// JSON Schema for bodies.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct SchemaCheck {
    /// Reject: a body that doesn't fit is answered 422 and not recorded. Warn: it is recorded and marked. Default: Reject.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub action: Option<SchemaAction>,
    /// A JSON Schema: draft 4, 6, 7, 2019-09 or 2020-12, by its `$schema`; without one, 2020-12.
    #[schemars(schema_with = "any_object")]
    pub json_schema: Value,
}

/// What happens to a body that does not fit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum SchemaAction {
    Reject,
    Warn,
}

/// A schema for any JSON value: the API server keeps it as it is.
pub(crate) fn any_value(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
    schemars::json_schema!({ "x-kubernetes-preserve-unknown-fields": true })
}

/// A schema for any JSON object.
pub(crate) fn any_object(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
    schemars::json_schema!({ "type": "object", "x-kubernetes-preserve-unknown-fields": true })
}
