//! What a request below `/v1/topics/` asks for, who asks, and by which key it is known again.

use super::super::answer::Reply;
use crate::errors::Refusal;
use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use routing::{
    event::Form,
    ids::{Prefix, parse},
    publication::headers::IDEMPOTENCY_KEY,
};
use serde_json::Value;
use sha2::{Digest, Sha256};
use store::idempotency::Claim;
use uuid::Uuid;

#[derive(Debug, PartialEq, Eq)]
pub(super) enum Act {
    Publish { batch: bool },
    List,
    Cancel(Uuid),
}

/// The topic's slug or id and what is asked of it. `path` is what follows `/v1/topics/`.
pub(super) fn act<'p>(path: &'p str, method: &Method) -> Result<(&'p str, Act), Refusal> {
    let (slug, rest) = path.split_once('/').ok_or(Refusal::PathNotFound)?;
    let (act, allowed) = match rest {
        "publish" => (Act::Publish { batch: false }, Method::POST),
        "publish/batch" => (Act::Publish { batch: true }, Method::POST),
        "scheduled" => (Act::List, Method::GET),
        other => {
            let id = other
                .strip_prefix("scheduled/")
                .ok_or(Refusal::PathNotFound)?;
            let id = parse(Prefix::Event, id).ok_or(Refusal::ScheduledNotFound)?;
            (Act::Cancel(id), Method::DELETE)
        }
    };
    if *method != allowed {
        let allow = allowed.to_string();
        return Err(Refusal::MethodNotAllowed { allow });
    }
    Ok((slug, act))
}

/// Bytes of an idempotency key.
const MOST_KEY: usize = 255;

/// A request that named itself.
#[derive(Debug)]
pub(super) struct Idempotency {
    key: Uuid,
    token: Uuid,
    fingerprint: Uuid,
}

impl Idempotency {
    /// `None`: it has no key.
    pub(super) fn of(
        headers: &HeaderMap,
        topic: Uuid,
        batch: bool,
        query: &str,
        body: &[u8],
    ) -> Result<Option<Idempotency>, Refusal> {
        let mut keys = headers.get_all(IDEMPOTENCY_KEY).iter();
        let Some(key) = keys.next() else {
            return Ok(None);
        };
        let plain = |byte: &u8| byte.is_ascii_graphic() || *byte == b' ';
        let key = key.as_bytes();
        if key.is_empty() || key.len() > MOST_KEY || !key.iter().all(plain) || keys.next().is_some()
        {
            return Err(Refusal::Unpublishable(format!(
                "Idempotency-Key is one header of 1 to {MOST_KEY} visible ASCII characters"
            )));
        }
        // Each part with its length, so that no two requests run together to the same bytes.
        let mut hash = Sha256::new();
        let mut part = |bytes: &[u8]| {
            hash.update((bytes.len() as u64).to_be_bytes());
            hash.update(bytes);
        };
        part(&[u8::from(batch)]);
        part(query.as_bytes());
        part(body);
        let mut said: Vec<(&[u8], &[u8])> = headers
            .iter()
            .filter(|(name, _)| name.as_str().starts_with("ce-") || *name == header::CONTENT_TYPE)
            .map(|(name, value)| (name.as_str().as_bytes(), value.as_bytes()))
            .collect();
        // A client may write its headers in another order the next time.
        said.sort_unstable();
        for (name, value) in said {
            part(name);
            part(value);
        }
        let mut named = Sha256::new();
        named.update(topic.as_bytes());
        named.update(key);
        Ok(Some(Idempotency {
            key: short(&named.finalize()),
            token: Uuid::from_u128(rand::random()),
            fingerprint: short(&hash.finalize()),
        }))
    }

    pub(super) fn claim(&self, answer: Bytes) -> Claim {
        Claim {
            key: self.key,
            token: self.token,
            fingerprint: self.fingerprint,
            answer,
        }
    }
}

fn short(hash: &[u8]) -> Uuid {
    Uuid::from_slice(&hash[..16]).expect("SHA-256 has 32 bytes")
}

/// Which part of a list.
pub(super) struct Page {
    pub(super) after: Option<Uuid>,
    pub(super) limit: u16,
}

const DEFAULT_LIMIT: u16 = 50;
const MOST_LIMIT: u16 = 200;

pub(super) fn page(query: &str) -> Result<Page, Refusal> {
    let mut page = Page {
        after: None,
        limit: DEFAULT_LIMIT,
    };
    for (name, value) in Form::parse(query.as_bytes()).fields() {
        match name {
            "limit" => {
                let limit = value
                    .parse()
                    .ok()
                    .filter(|limit| (1..=MOST_LIMIT).contains(limit));
                page.limit = limit.ok_or_else(|| {
                    Refusal::Unpublishable(format!("`limit` is a number from 1 to {MOST_LIMIT}"))
                })?;
            }
            "cursor" => {
                let cursor = parse(Prefix::Event, value).ok_or_else(|| {
                    Refusal::Unpublishable("`cursor` is what the page before gave".to_owned())
                })?;
                page.after = Some(cursor);
            }
            _ => {}
        }
    }
    Ok(page)
}

pub(super) fn reply(kind: &'static str, body: &Value) -> Reply {
    let mut headers = HeaderMap::new();
    headers.insert(
        header::CONTENT_TYPE,
        HeaderValue::from_static("application/json"),
    );
    Reply {
        kind,
        status: StatusCode::OK,
        headers,
        body: body.to_string().into(),
    }
}
