//! Publications: plain, batched, CloudEvents in every mode, and what they say of when. What is read is written again in both
//! modes, and what was written is read as the same event.
//!
//! An input is `0` or `1` (a batch's URL), the query, header lines, an empty line and the body.

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, header::CONTENT_TYPE};
use jiff::Timestamp;
use routing::{
    cloudevents::{self, Known, Mode},
    publication::{self, MOST_AHEAD, MOST_EVENTS, MOST_LATE},
};
use serde_json::Value;

pub fn run(data: &[u8]) {
    let mut lines = data.splitn(3, |byte| *byte == b'\n');
    let batch = lines.next() == Some(b"1");
    let query = String::from_utf8_lossy(lines.next().unwrap_or_default()).into_owned();
    let mut rest = lines.next().unwrap_or_default();
    let mut headers = HeaderMap::new();
    while let Some(end) = rest.iter().position(|byte| *byte == b'\n') {
        let line = &rest[..end];
        rest = &rest[end + 1..];
        let Some(colon) = line.iter().position(|byte| *byte == b':') else {
            break;
        };
        let name = HeaderName::from_bytes(&line[..colon]);
        let value = HeaderValue::from_bytes(line[colon + 1..].trim_ascii());
        if let (Ok(name), Ok(value)) = (name, value) {
            headers.append(name, value);
        }
    }
    let now: Timestamp = "2026-11-21T12:00:00Z".parse().expect("a time");
    let body = Bytes::copy_from_slice(rest);
    let Ok(read) = publication::read(&headers, &query, &body, batch, now) else {
        return;
    };
    assert!((1..=MOST_EVENTS).contains(&read.events.len()));
    if let Some(due) = read.due {
        let ahead = due.duration_since(now);
        assert!(ahead <= MOST_AHEAD && -ahead <= MOST_LATE, "{due}");
    }
    for event in &read.events {
        let parsed: Value = serde_json::from_slice(&event.body).expect("JSON");
        assert_eq!(parsed, event.json);
        written_again(&event.body, read.cloud_events);
    }
}

fn written_again(body: &Bytes, cloud_event: bool) {
    let known = Known {
        id: "evt_1",
        source: "urn:x",
        received_at: Timestamp::UNIX_EPOCH,
    };
    let content_type = HeaderValue::from_static(match cloud_event {
        true => cloudevents::STRUCTURED,
        false => "application/json",
    });
    let structured = cloudevents::write(known, Some(&content_type), body, Mode::Structured);
    let event: Value = serde_json::from_slice(&structured.body).expect("JSON");
    assert_eq!(cloudevents::check(&event), Ok(()));
    let binary = cloudevents::write(known, Some(&content_type), body, Mode::Binary);
    let mut headers: HeaderMap = binary.attributes.into_iter().collect();
    if let Some(content_type) = binary.content_type {
        headers.insert(CONTENT_TYPE, content_type);
    }
    let again = cloudevents::from_binary(&headers, &binary.body);
    // Data that says it is JSON and came in base64 need not be JSON.
    if event.get("data_base64").is_none() {
        let again: Value = serde_json::from_slice(&again.expect("what we wrote")).expect("JSON");
        for name in ["id", "type", "source", "specversion"] {
            assert_eq!(again[name], event[name], "{name}");
        }
    }
}
