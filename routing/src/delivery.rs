//! How a destination is spared and in which order it is served: circuit, rate limit and order, as its row has them.
//!
//! What they mean over time is the scheduler's business; here are the values, and the key of an order.

use crate::filter::{Path, Segment};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::time::Duration;

/// The documented default: five failures in a row, then a minute of rest.
pub const DEFAULT_FAILURES: u32 = 5;
pub const DEFAULT_COOLDOWN: Duration = Duration::from_secs(60);

/// With fewer attempts in the window a share of failures says nothing.
pub const DEFAULT_MINIMUM: u32 = 10;

/// When deliveries are held back since they fail.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Circuit {
    pub trip: Trip,
    /// How long it stays open before one delivery is tried.
    #[serde(with = "crate::duration::millis")]
    pub cooldown: Duration,
}

impl Default for Circuit {
    fn default() -> Self {
        Circuit {
            trip: Trip::InARow(DEFAULT_FAILURES),
            cooldown: DEFAULT_COOLDOWN,
        }
    }
}

/// What opens a circuit.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Trip {
    /// So many failures without a success between.
    InARow(u32),
    /// Such a share of the attempts that ended within the window.
    Share {
        /// In hundredths of a percent, 1 to 10,000: whole numbers compare exactly.
        threshold: u32,
        #[serde(with = "crate::duration::millis")]
        window: Duration,
        minimum: u32,
    },
}

/// How many attempts begin in how long.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RateLimit {
    pub deliveries: u32,
    #[serde(with = "crate::duration::millis")]
    pub per: Duration,
}

/// The next one goes only after the one before has arrived or was given up.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Order {
    /// Only among events with the same value there; `None`: among all.
    pub key: Option<Key>,
    pub blocked_head: BlockedHead,
}

/// What becomes of a delivery that fails while others wait behind it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum BlockedHead {
    /// It is tried again, and they wait.
    Wait,
    /// It is given up, and they go on.
    DeadLetter,
}

/// Where in an event the key of its order is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Key {
    /// In lower case. The first header of that name counts.
    Header(String),
    /// From the root of the JSON body, without wildcards.
    Body(Vec<Segment>),
}

impl Key {
    /// Reads `body.order.id` or `headers.x-tenant`; the error is a sentence that says what to write.
    pub fn parse(text: &str) -> Result<Key, String> {
        match Path::parse(text)? {
            Path::Header(name) => Ok(Key::Header(name)),
            Path::Body(segments) if segments.is_empty() => Err(format!(
                "`{text}` is the whole body; write which field of it tells the keys apart, as `body.order.id`"
            )),
            Path::Body(segments) if segments.contains(&Segment::Each) => Err(format!(
                "`{text}` leads to many values and an event has one key; write `[0]` or another field"
            )),
            Path::Body(segments) => Ok(Key::Body(segments)),
            _ => Err(format!(
                "`{text}` can't be a key: the key of an order is in the body or in a header; write `body.order.id` or `headers.x-tenant`"
            )),
        }
    }

    /// The key's text in an event; `None`: it has none. A number and the text of it are the same key, and so is what a
    /// sender writes as `"42"` one day and `42` the next.
    ///
    /// `headers` are `name: value\r\n` lines.
    pub fn of(&self, headers: &[u8], body: &[u8]) -> Option<String> {
        match self {
            Key::Header(name) => header(headers, name).map(str::to_owned),
            Key::Body(segments) => {
                let text = body.strip_prefix(b"\xef\xbb\xbf").unwrap_or(body);
                let body: Value = serde_json::from_slice(text).ok()?;
                match segments.iter().try_fold(&body, step)? {
                    Value::Null => None,
                    Value::String(text) => Some(text.clone()),
                    other => Some(other.to_string()),
                }
            }
        }
    }
}

fn header<'h>(lines: &'h [u8], name: &str) -> Option<&'h str> {
    lines.split(|&byte| byte == b'\n').find_map(|line| {
        let colon = line.iter().position(|&byte| byte == b':')?;
        if !line[..colon].eq_ignore_ascii_case(name.as_bytes()) {
            return None;
        }
        std::str::from_utf8(&line[colon + 1..]).ok().map(str::trim)
    })
}

fn step<'v>(value: &'v Value, segment: &Segment) -> Option<&'v Value> {
    match (segment, value) {
        (Segment::Key(key), Value::Object(fields)) => fields.get(key),
        // As in filters: `items.0.id` is `items[0].id`.
        (Segment::Key(key), Value::Array(items)) => items.get(key.parse::<usize>().ok()?),
        (Segment::Index(place), Value::Array(items)) => items.get(*place as usize),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(path: &str, headers: &str, body: &str) -> Option<String> {
        Key::parse(path)
            .expect(path)
            .of(headers.as_bytes(), body.as_bytes())
    }

    #[test]
    fn a_key_is_read_from_the_body_or_a_header() {
        let body = r#"{"order": {"id": 42, "lines": [{"sku": "a"}], "none": null, "flag": true}}"#;
        let headers = "Host: x\r\nX-Tenant:  acme \r\nx-tenant: other\r\n";
        for (path, expected) in [
            ("body.order.id", Some("42")),
            ("payload.order.lines[0].sku", Some("a")),
            ("body.order.lines.0.sku", Some("a")),
            ("body.order.flag", Some("true")),
            ("body.order.none", None),
            ("body.order.missing", None),
            ("body.order.id.deeper", None),
            ("headers.X-Tenant", Some("acme")),
            ("headers.x-other", None),
        ] {
            assert_eq!(key(path, headers, body).as_deref(), expected, "{path}");
        }
    }

    #[test]
    fn a_number_and_its_text_are_one_key() {
        assert_eq!(
            key("body.id", "", r#"{"id": "42"}"#),
            key("body.id", "", "\u{feff}{\"id\": 42}")
        );
    }

    #[test]
    fn what_is_no_json_has_no_key_in_its_body() {
        for body in ["", "id=42", "[", "{\"id\": 42} x", "\u{0}"] {
            assert_eq!(key("body.id", "", body), None, "{body:?}");
        }
        let deep = "[".repeat(100_000);
        assert_eq!(key("body.id", "", &deep), None);
    }

    #[test]
    fn a_path_that_is_no_key_says_what_to_write() {
        for (path, part) in [
            ("body", "which field of it"),
            ("body.items[*].id", "many values"),
            ("method", "can't be a key"),
            ("query.page", "can't be a key"),
            ("order.id", "write `body.order.id`"),
            ("body..id", "empty name"),
        ] {
            let error = Key::parse(path).expect_err(path);
            assert!(error.contains(part), "{path}: {error}");
        }
    }
}
