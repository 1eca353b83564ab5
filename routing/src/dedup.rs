//! What makes two events of a source the same: a key of 128 bits, from a hash over the source and a value.
//!
//! The hash is SHA-256, cut to half: nobody makes two payloads that share a key by design (2^64 tries), and none do by
//! chance. The source's UID is part of it, so no two sources share keys.

use crate::{event::EventView, filter::Path};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::time::Duration;
use uuid::Uuid;

/// A source's rule, as its row has it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rule {
    pub by: By,
    /// How long a copy is recognised, from the first event on.
    #[serde(with = "crate::duration::millis")]
    pub window: Duration,
    /// The sender of a copy gets 409 instead of the first event's id.
    pub conflict: bool,
}

/// What the value is.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum By {
    /// The body, byte for byte as it was sent.
    Payload,
    /// What a path leads to. An event where it leads nowhere, to null or to an empty text is always the first of its kind:
    /// all those that lack the value would be the same otherwise.
    Field(Path),
}

impl Rule {
    /// Whether the key can be told from the head alone.
    pub fn knows_from_head(&self) -> bool {
        matches!(&self.by, By::Field(path) if !path.is_in_the_body())
    }

    /// The event's key; `None`: it has no value, so it is no copy of anything.
    pub fn key(&self, source: Uuid, event: &EventView<'_>) -> Option<Uuid> {
        let mut hash = Sha256::new_with_prefix(source.as_bytes());
        match &self.by {
            By::Payload => {
                hash.update([0]);
                hash.update(event.body);
            }
            By::Field(path) => {
                hash.update([1]);
                if !path.feed(event, &mut hash) {
                    return None;
                }
            }
        }
        let hash = hash.finalize();
        let mut key = [0; 16];
        key.copy_from_slice(&hash[..16]);
        Some(Uuid::from_bytes(key))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::{HeaderMap, HeaderValue, Method};

    fn key(
        by: By,
        source: u128,
        headers: &[(&'static str, &'static str)],
        body: &str,
    ) -> Option<Uuid> {
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.append(*name, HeaderValue::from_static(value));
        }
        let rule = Rule {
            by,
            window: Duration::from_secs(1),
            conflict: false,
        };
        let address = [127, 0, 0, 1].into();
        let event = EventView::new(&Method::POST, "", "", &map, body.as_bytes(), address);
        rule.key(Uuid::from_u128(source), &event)
    }

    fn field(path: &str) -> By {
        By::Field(Path::parse(path).expect("a path"))
    }

    #[test]
    fn the_same_bytes_are_the_same_payload() {
        let of = |source, body| key(By::Payload, source, &[], body);
        assert!(of(1, "{}").is_some());
        assert_eq!(of(1, "{}"), of(1, "{}"));
        assert_ne!(of(1, "{}"), of(1, "{ }"));
        assert_ne!(of(1, "{}"), of(2, "{}"), "sources share no keys");
        assert!(of(1, "").is_some());
    }

    #[test]
    fn a_header_s_value_counts_whatever_the_rest_is() {
        let of = |value, body| key(field("headers.x-id"), 1, &[("x-id", value)], body);
        assert_eq!(of("a", "1"), of("a", "2"));
        assert_ne!(of("a", "1"), of("b", "1"));
        assert_eq!(of("", "1"), None);
        assert_eq!(key(field("headers.x-id"), 1, &[], "1"), None);
    }

    #[test]
    fn a_value_of_the_body_counts_with_its_type() {
        let of = |body| key(field("body.id"), 1, &[], body);
        assert_eq!(of(r#"{"id": 1, "n": 1}"#), of(r#"{"n": 2, "id":1}"#));
        assert_ne!(of(r#"{"id": 1}"#), of(r#"{"id": "1"}"#));
        assert_ne!(of(r#"{"id": [1, 2]}"#), of(r#"{"id": [12]}"#));
        for nothing in [
            "",
            "[]",
            "{}",
            r#"{"id": null}"#,
            r#"{"id": ""}"#,
            "no JSON",
        ] {
            assert_eq!(of(nothing), None, "{nothing}");
        }
    }

    #[test]
    fn several_values_are_told_apart_from_one() {
        let of = |body| key(field("body.ids[*]"), 1, &[], body);
        assert_ne!(of(r#"{"ids": ["a", "b"]}"#), of(r#"{"ids": ["ab"]}"#));
        assert_ne!(of(r#"{"ids": ["a", "b"]}"#), of(r#"{"ids": ["b", "a"]}"#));
        assert_eq!(of(r#"{"ids": []}"#), None);
    }
}
