//! What a source says of requests before it looks into them: who may send, what kind of content, from which web pages; and
//! how many, and what the sender is answered.
//!
//! The `…Spec`s are what rows hold. What is made of them when a table is built compares bytes and allocates nothing.

use crate::ip::{self, AddressSet};
use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use serde::{Deserialize, Serialize};
use std::{net::IpAddr, time::Duration};

#[cfg(test)]
mod tests;

/// Addresses and CIDR ranges, as written.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct IpFilterSpec {
    pub deny: Vec<String>,
    /// Empty: all.
    pub allow: Vec<String>,
}

#[derive(Debug)]
pub struct IpFilter {
    deny: AddressSet,
    /// `None`: all.
    allow: Option<AddressSet>,
}

/// Why an address may not send.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Blocked {
    Denied,
    NotAllowed,
}

impl IpFilter {
    pub fn new(spec: &IpFilterSpec) -> IpFilter {
        // The compiler wrote none that doesn't parse.
        let set = |entries: &[String]| entries.iter().flat_map(|entry| ip::parse(entry)).collect();
        IpFilter {
            deny: set(&spec.deny),
            allow: (!spec.allow.is_empty()).then(|| set(&spec.allow)),
        }
    }

    /// Denied is denied, whatever is allowed.
    pub fn judge(&self, sender: IpAddr) -> Result<(), Blocked> {
        if self.deny.contains(sender) {
            Err(Blocked::Denied)
        } else if self
            .allow
            .as_ref()
            .is_some_and(|allow| !allow.contains(sender))
        {
            Err(Blocked::NotAllowed)
        } else {
            Ok(())
        }
    }
}

/// Media types: `application/json`, `text/*`, `application/*+json`.
#[derive(Debug, Default)]
pub struct ContentTypes(Vec<MediaRange>);

/// Lower-case, as all that it is compared with is taken.
#[derive(Debug)]
struct MediaRange {
    /// `application/`; with all of the subtype if `suffix` is `None`.
    prefix: String,
    /// What the subtype ends with, behind at least one character.
    suffix: Option<String>,
}

impl ContentTypes {
    pub fn new(written: &[String]) -> ContentTypes {
        let range = |written: &String| {
            let written = written.to_ascii_lowercase();
            match written.split_once('*') {
                Some((prefix, suffix)) => MediaRange {
                    prefix: prefix.to_owned(),
                    suffix: Some(suffix.to_owned()),
                },
                None => MediaRange {
                    prefix: written,
                    suffix: None,
                },
            }
        };
        ContentTypes(written.iter().map(range).collect())
    }

    /// Any content is welcome.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// As they were written, in lower case.
    pub fn written(&self) -> Vec<String> {
        let write = |range: &MediaRange| match &range.suffix {
            Some(suffix) => format!("{}*{suffix}", range.prefix),
            None => range.prefix.clone(),
        };
        self.0.iter().map(write).collect()
    }

    /// Judges the value of a `Content-Type`; its parameters don't matter.
    pub fn admit(&self, content_type: &[u8]) -> bool {
        let end = content_type.iter().position(|byte| *byte == b';');
        let bare = content_type[..end.unwrap_or(content_type.len())].trim_ascii();
        self.0.iter().any(|range| range.admits(bare))
    }
}

impl MediaRange {
    fn admits(&self, bare: &[u8]) -> bool {
        let prefix = self.prefix.as_bytes();
        let Some(suffix) = &self.suffix else {
            return bare.eq_ignore_ascii_case(prefix);
        };
        bare.len() > prefix.len() + suffix.len()
            && bare[..prefix.len()].eq_ignore_ascii_case(prefix)
            && bare[bare.len() - suffix.len()..].eq_ignore_ascii_case(suffix.as_bytes())
    }
}

/// Why a text isn't one of [`ContentTypes`].
pub fn content_type_problem(written: &str) -> Option<String> {
    let token = |text: &str| {
        !text.is_empty()
            && text
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || b"!#$&^_.+-".contains(&byte))
    };
    let (kind, subtype) = written.split_once('/').unwrap_or_default();
    let subtype = match subtype.strip_prefix('*') {
        Some("") => "x",
        Some(suffix) if suffix.starts_with('+') => suffix,
        Some(_) => "",
        None => subtype,
    };
    (!token(kind) || !token(subtype)).then(|| {
        format!(
            "`{written}` is no media type; write one as `application/json`, without parameters, or several as `text/*` or `application/*+json`"
        )
    })
}

/// How many requests are taken in a time.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RateLimit {
    pub requests: u32,
    #[serde(with = "crate::duration::millis")]
    pub per: Duration,
    /// How many may come at once after a pause.
    pub burst: u32,
}

/// What the sender gets once its event is recorded, as written.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ResponseSpec {
    pub status: u16,
    /// In this order; names lower-case.
    pub headers: Vec<(String, String)>,
    /// `None`: the event's id as JSON.
    pub body: Option<String>,
}

#[derive(Debug)]
pub struct CustomResponse {
    pub status: StatusCode,
    pub headers: HeaderMap,
    /// Shared by all answers. `None`: the event's id as JSON.
    pub body: Option<Bytes>,
}

impl CustomResponse {
    pub fn new(spec: &ResponseSpec) -> CustomResponse {
        let parsed = spec.headers.iter().flat_map(|(name, value)| {
            // The compiler wrote none that can't be one.
            Some((
                HeaderName::from_bytes(name.as_bytes()).ok()?,
                HeaderValue::from_str(value).ok()?,
            ))
        });
        CustomResponse {
            status: StatusCode::from_u16(spec.status).unwrap_or(StatusCode::OK),
            headers: parsed.collect(),
            body: spec.body.as_ref().map(|body| body.clone().into()),
        }
    }
}

/// From which web pages a browser may send, as written.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CorsSpec {
    /// `https://app.example.com`, `https://*.example.com` or `*`.
    pub allow_origins: Vec<String>,
    /// Lower-case, or `*` alone.
    pub allow_headers: Vec<String>,
    pub allow_methods: Vec<String>,
    pub max_age_seconds: u32,
}

#[derive(Debug)]
pub struct Cors {
    origins: Vec<Origin>,
    pub allow_methods: HeaderValue,
    /// `None`: whatever is asked for.
    pub allow_headers: Option<HeaderValue>,
    pub max_age: HeaderValue,
}

#[derive(Debug)]
enum Origin {
    Any,
    Exact(String),
    /// `https://` and `.example.com`, with something between.
    Below {
        scheme: String,
        domain: String,
    },
}

impl Cors {
    pub fn new(spec: &CorsSpec) -> Cors {
        let origin = |written: &String| match written.split_once('*') {
            Some(("", "")) => Origin::Any,
            Some((scheme, domain)) => Origin::Below {
                scheme: scheme.to_owned(),
                domain: domain.to_owned(),
            },
            None => Origin::Exact(written.clone()),
        };
        // The compiler wrote none that can't be one.
        let list = |words: &[String]| {
            HeaderValue::from_str(&words.join(", ")).unwrap_or(HeaderValue::from_static(""))
        };
        let any_header = spec.allow_headers.iter().any(|name| name == "*");
        Cors {
            origins: spec.allow_origins.iter().map(origin).collect(),
            allow_methods: list(&spec.allow_methods),
            allow_headers: (!any_header).then(|| list(&spec.allow_headers)),
            max_age: spec.max_age_seconds.into(),
        }
    }

    /// Judges the value of an `Origin`, which browsers write in lower case.
    pub fn allows(&self, origin: &[u8]) -> bool {
        self.origins.iter().any(|allowed| match allowed {
            Origin::Any => true,
            Origin::Exact(exact) => origin == exact.as_bytes(),
            Origin::Below { scheme, domain } => origin
                .strip_prefix(scheme.as_bytes())
                .and_then(|rest| rest.strip_suffix(domain.as_bytes()))
                .is_some_and(|label| {
                    let plain =
                        |b: &u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_');
                    !label.is_empty() && label.iter().all(plain)
                }),
        })
    }
}

/// Why a text isn't one of [`CorsSpec::allow_origins`].
pub fn origin_problem(written: &str) -> Option<String> {
    let problem = || {
        Some(format!(
            "`{written}` is no origin as browsers send it; write scheme, host and, unless it is the usual one, port in lower case, as `https://app.example.com` or `https://*.example.com`, or `*` for all"
        ))
    };
    if written == "*" {
        return None;
    }
    let Some(rest) = written
        .strip_prefix("https://")
        .or_else(|| written.strip_prefix("http://"))
    else {
        return problem();
    };
    let host = rest.strip_prefix("*.").unwrap_or(rest);
    let plain = |b: u8| {
        b.is_ascii_lowercase()
            || b.is_ascii_digit()
            || matches!(b, b'.' | b'-' | b'_' | b':' | b'[' | b']')
    };
    // A browser leaves the usual port out.
    let usual = (written.starts_with("https://") && host.ends_with(":443"))
        || (written.starts_with("http://") && host.ends_with(":80"));
    if host.is_empty()
        || !host.bytes().all(plain)
        || usual
        || host.parse::<http::uri::Authority>().is_err()
    {
        return problem();
    }
    None
}
