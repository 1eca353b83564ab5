//! One row of the routing table as the operator publishes it and a gateway loads it.
//!
//! Rows hold what the compiler decided (defaults filled in, references resolved to UIDs, templates expanded), so a
//! gateway needs no resource. The payload is JSON with a format number; secrets travel beside it, sealed, and the
//! payload names them by place (`SecretIndex`). A gateway refuses a payload of a newer format or with a field that it
//! doesn't know, and keeps the row it had: ignoring a rule that somebody wrote is worse than being late with it. A field
//! that an older operator didn't write has its default.

use crate::{
    admission, cloudevents,
    compile::{DEFAULT_CONCURRENCY, DEFAULT_MAX_BODY_BYTES, DEFAULT_TIMEOUT},
    dedup, delivery, filter, payload, retry, schema,
    secret::Secret,
    sign, transform, verify,
};
use serde::{Deserialize, Serialize};
use std::time::Duration;
use uuid::Uuid;

/// The format of the payload that this version writes, and the newest that it reads.
pub const FORMAT: u16 = 1;

/// The largest payload that the compiler publishes: every gateway loads every row, whoever wrote it. A reader takes larger
/// ones too, as an earlier version may have written them.
pub const MOST_PAYLOAD_BYTES: usize = 256 << 10;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    Source,
    Destination,
    Connection,
    Topic,
    Subscription,
}

impl Kind {
    pub const ALL: [Kind; 5] = [
        Kind::Source,
        Kind::Destination,
        Kind::Connection,
        Kind::Topic,
        Kind::Subscription,
    ];

    /// The word in the `routes.kind` column.
    pub const fn as_str(self) -> &'static str {
        match self {
            Kind::Source => "source",
            Kind::Destination => "destination",
            Kind::Connection => "connection",
            Kind::Topic => "topic",
            Kind::Subscription => "subscription",
        }
    }

    pub fn parse(text: &str) -> Option<Kind> {
        Kind::ALL.into_iter().find(|kind| kind.as_str() == text)
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RowKey {
    pub kind: Kind,
    pub uid: Uuid,
}

/// A compiled resource. Equality is what decides whether anything is published.
#[derive(Debug, Clone, PartialEq)]
pub struct Row {
    pub uid: Uuid,
    pub namespace: String,
    pub name: String,
    /// `metadata.generation` that this row was compiled from.
    pub generation: i64,
    pub spec: Spec,
    /// What `SecretIndex` points into.
    pub secrets: Vec<Secret>,
}

impl Row {
    pub fn kind(&self) -> Kind {
        match self.spec {
            Spec::Source(_) => Kind::Source,
            Spec::Destination(_) => Kind::Destination,
            Spec::Connection(_) => Kind::Connection,
            Spec::Topic(_) => Kind::Topic,
            Spec::Subscription(_) => Kind::Subscription,
        }
    }

    pub fn key(&self) -> RowKey {
        RowKey {
            kind: self.kind(),
            uid: self.uid,
        }
    }

    /// The payload column: JSON bytes, the same for equal specs.
    pub fn payload(&self) -> Vec<u8> {
        #[derive(Serialize)]
        struct Wire<'a> {
            format: u16,
            spec: &'a Spec,
        }
        serde_json::to_vec(&Wire {
            format: FORMAT,
            spec: &self.spec,
        })
        .expect("a spec has string keys and no failing Serialize")
    }
}

/// A payload that this version must not act on.
#[derive(Debug, thiserror::Error)]
pub enum UnreadablePayload {
    #[error("written in format {0} by a newer operator; this gateway reads up to {FORMAT}")]
    Newer(u16),
    #[error("not a payload of this version")]
    Malformed(#[source] serde_json::Error),
}

/// The inverse of [`Row::payload`].
pub fn parse_payload(bytes: &[u8]) -> Result<Spec, UnreadablePayload> {
    #[derive(Deserialize)]
    struct Head {
        format: u16,
    }
    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Wire {
        #[expect(dead_code, reason = "judged by Head before the rest is read")]
        format: u16,
        spec: Spec,
    }
    let head: Head = serde_json::from_slice(bytes).map_err(UnreadablePayload::Malformed)?;
    if head.format > FORMAT {
        return Err(UnreadablePayload::Newer(head.format));
    }
    serde_json::from_slice::<Wire>(bytes)
        .map(|wire| wire.spec)
        .map_err(UnreadablePayload::Malformed)
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Spec {
    Source(SourceSpec),
    Destination(DestinationSpec),
    Connection(ConnectionSpec),
    Topic(TopicSpec),
    /// A connection whose source is a topic.
    Subscription(ConnectionSpec),
}

/// A place in [`Row::secrets`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct SecretIndex(pub u16);

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SourceSpec {
    /// `spec.path`, won by the oldest source that asks for it. Of two namespaces' sources none has a path below the other's.
    pub path: Option<String>,
    /// Upper-case methods; empty: any.
    pub methods: Vec<String>,
    pub suspended: bool,
    pub verification: Option<verify::Verification>,
    /// Largest accepted body, in bytes.
    pub max_body_bytes: u64,
    /// Not served any more. This and what follows is left out of a payload where it says nothing, so that a gateway of an
    /// earlier version reads the rows that don't use it.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub archived: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ip_filter: Option<admission::IpFilterSpec>,
    /// Lower-case media types; empty: any.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub content_types: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rate_limit: Option<admission::RateLimit>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cors: Option<admission::CorsSpec>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub response: Option<admission::ResponseSpec>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub schema: Option<schema::Rule>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dedup: Option<dedup::Rule>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct DestinationSpec {
    /// Paused: deliveries are recorded and wait.
    pub suspended: bool,
    pub provider: Provider,
    pub retry: retry::Policy,
    /// Most attempts in flight at once.
    pub concurrency: u32,
    /// `None`: it never opens.
    pub circuit: Option<delivery::Circuit>,
    /// `None`: no limit.
    pub rate_limit: Option<delivery::RateLimit>,
    /// `None`: none is promised.
    pub order: Option<delivery::Order>,
}

/// With the compiler's defaults.
impl Default for DestinationSpec {
    fn default() -> Self {
        DestinationSpec {
            suspended: false,
            provider: Provider::default(),
            retry: retry::Policy::default(),
            concurrency: DEFAULT_CONCURRENCY,
            circuit: Some(delivery::Circuit::default()),
            rate_limit: None,
            order: None,
        }
    }
}

/// With the compiler's defaults.
impl Default for SourceSpec {
    fn default() -> Self {
        SourceSpec {
            path: None,
            methods: Vec::new(),
            suspended: false,
            verification: None,
            max_body_bytes: DEFAULT_MAX_BODY_BYTES,
            archived: false,
            ip_filter: None,
            content_types: Vec::new(),
            rate_limit: None,
            cors: None,
            response: None,
            schema: None,
            dedup: None,
        }
    }
}

/// How a destination is reached. More providers join here.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Provider {
    Http(HttpSpec),
}

impl Default for Provider {
    fn default() -> Self {
        Provider::Http(HttpSpec::default())
    }
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct HttpSpec {
    /// Absolute http or https URL.
    pub url: String,
    /// `None`: the method that the event came with is not used; deliveries are POST.
    pub method: Option<String>,
    /// Sent with every attempt, in this order; names lower-case.
    pub headers: Vec<(String, String)>,
    /// Bounds the whole attempt, from DNS to the last byte of the answer that we keep.
    #[serde(with = "crate::duration::millis")]
    pub timeout: Duration,
    pub auth: Option<Auth>,
    /// `None`: the public authorities, and no certificate of ours.
    pub tls: Option<Tls>,
    /// `None`: the body goes as it is.
    pub template: Option<payload::Template>,
    /// `None`: as it was published.
    pub cloud_events: Option<cloudevents::Mode>,
    pub signing: Option<sign::Signing>,
}

/// With the compiler's defaults, and no URL, so that a delivery to it goes nowhere.
impl Default for HttpSpec {
    fn default() -> Self {
        HttpSpec {
            url: String::new(),
            method: None,
            headers: Vec::new(),
            timeout: DEFAULT_TIMEOUT,
            auth: None,
            tls: None,
            template: None,
            cloud_events: None,
            signing: None,
        }
    }
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Auth {
    Basic {
        username: SecretIndex,
        password: SecretIndex,
    },
    Bearer {
        token: SecretIndex,
    },
    /// A header whose value is the secret.
    ApiKey {
        header: String,
        key: SecretIndex,
    },
    /// Client credentials of OAuth 2.
    Oauth2 {
        token_url: String,
        scopes: Vec<String>,
        audience: Option<String>,
        client_authentication: ClientAuthentication,
        client_id: SecretIndex,
        client_secret: SecretIndex,
    },
    AwsSigV4 {
        region: String,
        service: String,
        access_key_id: SecretIndex,
        secret_access_key: SecretIndex,
        session_token: Option<SecretIndex>,
    },
}

/// How a client shows its secret where tokens are given out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ClientAuthentication {
    /// In `Authorization`.
    Basic,
    /// In the form.
    Post,
}

/// PEM, as the compiler has checked it.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Tls {
    /// Trusted instead of the public authorities.
    pub ca: Option<SecretIndex>,
    /// Ours, with its chain. Goes with `key`.
    pub certificate: Option<SecretIndex>,
    pub key: Option<SecretIndex>,
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ConnectionSpec {
    /// Of a subscription: its topic.
    pub source: Uuid,
    pub destination: Uuid,
    /// Suspended: events are not matched by it.
    pub suspended: bool,
    pub filter: Option<filter::Filter>,
    /// The filter's expression, which is evaluated at delivery.
    pub expression: Option<transform::Expression>,
    pub transform: Option<transform::Transform>,
    /// Overrides the destination's.
    pub retry: Option<retry::Policy>,
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct TopicSpec {
    /// The keys that may publish; none: nobody may.
    pub publish_keys: Vec<SecretIndex>,
    /// The types that may be published; empty: any.
    pub event_types: Vec<String>,
    pub schema: Option<schema::Rule>,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn source() -> Row {
        Row {
            uid: Uuid::from_u128(1),
            namespace: "shop".to_owned(),
            name: "src".to_owned(),
            generation: 1,
            spec: Spec::Source(SourceSpec {
                max_body_bytes: 1,
                ..SourceSpec::default()
            }),
            secrets: vec![Secret::new("hunter2")],
        }
    }

    #[test]
    fn a_payload_reads_back_and_holds_no_secret() {
        let payload = source().payload();
        assert_eq!(parse_payload(&payload).expect("ours"), source().spec);
        assert_eq!(
            String::from_utf8(payload).expect("JSON"),
            r#"{"format":1,"spec":{"source":{"path":null,"methods":[],"suspended":false,"verification":null,"max_body_bytes":1}}}"#
        );
        assert!(!format!("{:?}", source()).contains("hunter2"));
    }

    #[test]
    fn a_payload_of_a_newer_operator_is_refused_as_such() {
        let newer = br#"{"format": 2, "spec": {"source": {"surprise": true}}, "more": 1}"#;
        assert!(matches!(
            parse_payload(newer),
            Err(UnreadablePayload::Newer(2))
        ));
    }

    #[test]
    fn a_field_that_is_not_known_is_never_ignored() {
        let payload = String::from_utf8(source().payload()).expect("JSON");
        for (from, to) in [
            (r#""path":null"#, r#""path":null,"dedup":true"#),
            (r#"{"format":1"#, r#"{"extra":0,"format":1"#),
            (r#"{"source""#, r#"{"tunnel""#),
            (
                r#""verification":null"#,
                r#""verification":{"scheme":{"stripe":{"tolerance_ms":1,"x":1}},"secrets":[]}"#,
            ),
            (
                r#""verification":null"#,
                r#""verification":{"scheme":{"ed25519":{}},"secrets":[]}"#,
            ),
        ] {
            let changed = payload.replace(from, to);
            assert_ne!(changed, payload, "{from}");
            let refused = parse_payload(changed.as_bytes());
            assert!(
                matches!(refused, Err(UnreadablePayload::Malformed(_))),
                "{changed}"
            );
        }
    }

    #[test]
    fn bytes_that_are_no_payload_are_refused() {
        let deep = "[".repeat(10_000);
        for bytes in [
            &b""[..],
            b"\xff\xfe",
            b"null",
            b"{}",
            br#"{"format": -1}"#,
            br#"{"format": 70000}"#,
            deep.as_bytes(),
        ] {
            assert!(matches!(
                parse_payload(bytes),
                Err(UnreadablePayload::Malformed(_))
            ));
        }
    }
}
