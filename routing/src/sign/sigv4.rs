//! AWS Signature Version 4 of a whole request, as `execute-api`, `lambda`, `sqs` and the others of Amazon's HTTP APIs want it.
//!
//! Covered: method, path, query, the body by its SHA-256, the host and `content-type`, and the `x-amz-…` headers written here.

use crate::secret::Secret;
use hmac::{Hmac, KeyInit, Mac};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Uri, header};
use jiff::Timestamp;
use sha2::{Digest, Sha256};
use std::{collections::BTreeMap, fmt};

const DATE: HeaderName = HeaderName::from_static("x-amz-date");
const CONTENT_SHA256: HeaderName = HeaderName::from_static("x-amz-content-sha256");
const SECURITY_TOKEN: HeaderName = HeaderName::from_static("x-amz-security-token");

/// Every header that is written here, in lower case.
pub const HEADERS: [&str; 4] = [
    "authorization",
    "x-amz-content-sha256",
    "x-amz-date",
    "x-amz-security-token",
];

/// An identity for one service in one region. Prints without its keys.
#[derive(Clone)]
pub struct Credentials {
    pub access_key_id: String,
    pub secret_access_key: Secret,
    /// Of temporary credentials.
    pub session_token: Option<HeaderValue>,
    pub region: String,
    pub service: String,
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credentials")
            .field("region", &self.region)
            .field("service", &self.service)
            .finish_non_exhaustive()
    }
}

impl Credentials {
    /// Signs a request that is otherwise complete.
    pub fn sign(
        &self,
        method: &Method,
        uri: &Uri,
        body: &[u8],
        now: Timestamp,
        headers: &mut HeaderMap,
    ) {
        let time = now.strftime("%Y%m%dT%H%M%SZ").to_string();
        let day = &time[..8];
        let payload = hex::encode(Sha256::digest(body));
        headers.insert(DATE, visible(time.clone()));
        headers.insert(CONTENT_SHA256, visible(payload.clone()));
        if let Some(token) = &self.session_token {
            headers.insert(SECURITY_TOKEN, token.clone());
        }

        let mut signed: BTreeMap<&str, Vec<u8>> = BTreeMap::new();
        signed.insert("host", host(uri).into_bytes());
        for name in [
            "content-type",
            "x-amz-content-sha256",
            "x-amz-date",
            "x-amz-security-token",
        ] {
            let lines: Vec<Vec<u8>> = headers.get_all(name).iter().map(squeezed).collect();
            if !lines.is_empty() {
                signed.insert(name, lines.join(&b","[..]));
            }
        }
        let names = signed.keys().copied().collect::<Vec<_>>().join(";");

        let mut request = format!(
            "{method}\n{}\n{}\n",
            self.canonical_path(uri.path()),
            canonical_query(uri.query().unwrap_or_default())
        )
        .into_bytes();
        for (name, value) in &signed {
            request.extend_from_slice(name.as_bytes());
            request.push(b':');
            request.extend_from_slice(value);
            request.push(b'\n');
        }
        request.extend_from_slice(format!("\n{names}\n{payload}").as_bytes());

        let scope = format!("{day}/{}/{}/aws4_request", self.region, self.service);
        let to_sign = format!(
            "AWS4-HMAC-SHA256\n{time}\n{scope}\n{}",
            hex::encode(Sha256::digest(&request))
        );
        let signature = hex::encode(hmac(&self.key(day), to_sign.as_bytes()));
        let mut authorization = visible(format!(
            "AWS4-HMAC-SHA256 Credential={}/{scope}, SignedHeaders={names}, Signature={signature}",
            self.access_key_id
        ));
        authorization.set_sensitive(true);
        headers.insert(header::AUTHORIZATION, authorization);
    }

    fn key(&self, day: &str) -> [u8; 32] {
        let start = zeroize::Zeroizing::new([b"AWS4", self.secret_access_key.expose()].concat());
        [self.region.as_str(), &self.service, "aws4_request"]
            .iter()
            .fold(hmac(&start, day.as_bytes()), |key, part| {
                hmac(&key, part.as_bytes())
            })
    }

    /// S3 signs the path as it is. All others sign it without dot segments and doubled slashes, and encoded once more.
    fn canonical_path(&self, path: &str) -> String {
        if matches!(
            self.service.as_str(),
            "s3" | "s3-object-lambda" | "s3express"
        ) {
            return if path.is_empty() {
                "/".to_owned()
            } else {
                path.to_owned()
            };
        }
        let mut segments: Vec<&str> = Vec::new();
        for segment in path.split('/') {
            match segment {
                "" | "." => {}
                ".." => drop(segments.pop()),
                _ => segments.push(segment),
            }
        }
        let mut canonical = String::with_capacity(path.len() + 8);
        for segment in &segments {
            canonical.push('/');
            encode(segment.as_bytes(), &mut canonical);
        }
        if canonical.is_empty() || path.ends_with('/') {
            canonical.push('/');
        }
        canonical
    }
}

/// Sorted, each name and value decoded and encoded again in the one way that Amazon knows.
fn canonical_query(query: &str) -> String {
    let mut pairs: Vec<(String, String)> = query
        .split('&')
        .filter(|pair| !pair.is_empty())
        .map(|pair| {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            (recoded(name), recoded(value))
        })
        .collect();
    pairs.sort();
    let pairs: Vec<String> = pairs
        .into_iter()
        .map(|(name, value)| format!("{name}={value}"))
        .collect();
    pairs.join("&")
}

fn recoded(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut plain = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        let code = (bytes[at] == b'%')
            .then(|| bytes.get(at + 1..at + 3))
            .flatten()
            .and_then(|digits| std::str::from_utf8(digits).ok())
            .filter(|digits| digits.bytes().all(|digit| digit.is_ascii_hexdigit()))
            .and_then(|digits| u8::from_str_radix(digits, 16).ok());
        plain.push(code.unwrap_or(bytes[at]));
        at += if code.is_some() { 3 } else { 1 };
    }
    let mut out = String::with_capacity(bytes.len() + 8);
    encode(&plain, &mut out);
    out
}

fn encode(bytes: &[u8], out: &mut String) {
    use std::fmt::Write;
    for &byte in bytes {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => {
                out.push(char::from(byte));
            }
            _ => drop(write!(out, "%{byte:02X}")),
        }
    }
}

/// As the client writes it: without the port that the scheme has anyway.
fn host(uri: &Uri) -> String {
    let host = uri.host().unwrap_or_default();
    let default = if uri.scheme_str() == Some("http") {
        80
    } else {
        443
    };
    match uri.port_u16() {
        Some(port) if port != default => format!("{host}:{port}"),
        _ => host.to_owned(),
    }
}

/// Trimmed, and runs of spaces as one.
fn squeezed(value: &HeaderValue) -> Vec<u8> {
    let words = value.as_bytes().split(|&byte| byte == b' ');
    let words: Vec<&[u8]> = words.filter(|word| !word.is_empty()).collect();
    words.join(&b' ')
}

fn hmac(key: &[u8], text: &[u8]) -> [u8; 32] {
    let mut mac = Hmac::<Sha256>::new_from_slice(key).expect("HMAC takes keys of any length");
    mac.update(text);
    mac.finalize().into_bytes().into()
}

fn visible(text: String) -> HeaderValue {
    HeaderValue::try_from(text)
        .expect("an access key, a region and a service were checked when they were compiled")
}
