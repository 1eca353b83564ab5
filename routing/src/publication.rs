//! A publication: what a request to a topic's publish URL holds, and when it is to be published.
//!
//! A plain event is a JSON object and is recorded byte for byte, but for the fields that say when. A CloudEvent is recorded
//! in its JSON format, whatever mode it came in ([`crate::cloudevents`]).

mod due;
pub mod headers;
#[cfg(test)]
mod tests;

pub use due::{MOST_AHEAD, MOST_LATE};

use crate::{
    cloudevents::{self, Mode, Said},
    event::Form,
};
use bytes::Bytes;
use due::When;
use http::HeaderMap;
use jiff::Timestamp;
use serde::{
    Deserialize, Deserializer,
    de::{MapAccess, Visitor},
};
use serde_json::{Value, value::RawValue};
use std::fmt;

/// Events of one request.
pub const MOST_EVENTS: usize = 100;

/// What a request holds.
#[derive(Debug)]
pub struct Publication {
    /// At least one; several of a batch.
    pub events: Vec<Event>,
    /// They are CloudEvents, in the JSON format.
    pub cloud_events: bool,
    /// Not now.
    pub due: Option<Timestamp>,
}

#[derive(Debug)]
pub struct Event {
    /// What is recorded.
    pub body: Bytes,
    /// The same, parsed.
    pub json: Value,
}

impl Event {
    /// What the topic's `eventTypes` are about.
    pub fn event_type(&self) -> Option<&str> {
        self.json.get("type").and_then(Value::as_str)
    }
}

/// Why a request holds no publication.
#[derive(Debug, PartialEq, Eq)]
pub enum Problem {
    /// A sentence that says what to change.
    Invalid(String),
    /// These are the formats that can be read.
    Format,
    TooMany,
    /// The time has passed, which is no mistake of a request that is made again.
    Passed(String),
}

impl From<String> for Problem {
    fn from(sentence: String) -> Problem {
        Problem::Invalid(sentence)
    }
}

/// Reads a request. `batch`: its URL says that it holds several.
pub fn read(
    headers: &HeaderMap,
    query: &str,
    body: &Bytes,
    batch: bool,
    now: Timestamp,
) -> Result<Publication, Problem> {
    let mut when = When::of_query(&Form::parse(query.as_bytes()))?;
    let said = cloudevents::said(headers);
    let events = match said {
        Said::Unknown => return Err(Problem::Format),
        Said::Batch => several(&list(body)?, body, true)?,
        Said::One(_) if batch => {
            return Err(Problem::Invalid(format!(
                "a batch of CloudEvents is a list with the Content-Type `{}`",
                cloudevents::BATCH
            )));
        }
        Said::One(mode) => vec![cloud_event(mode, headers, body)?],
        Said::Nothing if batch => {
            let Batch { events } = serde_json::from_slice(text(body)).map_err(|problem| {
                format!("a batch is a JSON object as {{\"events\": [{{…}}, {{…}}]}}: {problem}")
            })?;
            several(&events, body, false)?
        }
        Said::Nothing => {
            let mut event = parsed(slice(body, text(body)))?;
            if when.take(&mut event.json)? {
                event.body = without(&event.body, &due::FIELDS)?;
            }
            vec![event]
        }
    };
    Ok(Publication {
        events,
        cloud_events: said != Said::Nothing,
        due: when.due(now)?,
    })
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Batch<'a> {
    #[serde(borrow)]
    events: Vec<&'a RawValue>,
}

/// Without a byte order mark.
fn text(body: &[u8]) -> &[u8] {
    body.strip_prefix(b"\xef\xbb\xbf").unwrap_or(body)
}

fn slice(body: &Bytes, part: &[u8]) -> Bytes {
    body.slice_ref(part)
}

fn list(body: &Bytes) -> Result<Vec<&RawValue>, Problem> {
    serde_json::from_slice(text(body)).map_err(|problem| {
        Problem::Invalid(format!("a batch of CloudEvents is a JSON list: {problem}"))
    })
}

fn several(raw: &[&RawValue], body: &Bytes, cloud_events: bool) -> Result<Vec<Event>, Problem> {
    if raw.is_empty() {
        return Err(Problem::Invalid(
            "a batch has one event at least".to_owned(),
        ));
    }
    if raw.len() > MOST_EVENTS {
        return Err(Problem::TooMany);
    }
    let event = |(place, raw): (usize, &&RawValue)| {
        let event = parsed(slice(body, raw.get().as_bytes()));
        let event = event.and_then(|event| {
            if cloud_events {
                cloudevents::check(&event.json)?;
            } else if let Some(field) = due::FIELDS
                .iter()
                .find(|field| due::is_order(field) && event.json.get(field).is_some())
            {
                return Err(format!(
                    "`{field}` can't stand within a batch; give it in the URL's query, for all of them"
                ));
            }
            Ok(event)
        });
        event.map_err(|problem| Problem::Invalid(format!("event {place} of the batch: {problem}")))
    };
    raw.iter().enumerate().map(event).collect()
}

fn cloud_event(mode: Mode, headers: &HeaderMap, body: &Bytes) -> Result<Event, String> {
    let event = match mode {
        Mode::Binary => parsed(cloudevents::from_binary(headers, body)?)?,
        Mode::Structured => parsed(slice(body, text(body)))?,
    };
    cloudevents::check(&event.json)?;
    Ok(event)
}

fn parsed(body: Bytes) -> Result<Event, String> {
    let json: Value = serde_json::from_slice(&body)
        .map_err(|problem| format!("an event is a JSON object: {problem}"))?;
    if !json.is_object() {
        return Err(
            "an event is a JSON object, as {\"type\": \"order.paid\", \"data\": {…}}".to_owned(),
        );
    }
    Ok(Event { body, json })
}

/// The object without these fields; what stays keeps its order and its bytes.
fn without(body: &[u8], fields: &[&str]) -> Result<Bytes, String> {
    let Fields(all) = serde_json::from_slice(body)
        .map_err(|problem| format!("an event is a JSON object: {problem}"))?;
    let mut json = Vec::with_capacity(body.len());
    json.push(b'{');
    for (name, value) in all {
        if fields.contains(&name.as_str()) {
            continue;
        }
        if json.len() > 1 {
            json.push(b',');
        }
        json.extend_from_slice(Value::String(name).to_string().as_bytes());
        json.push(b':');
        json.extend_from_slice(value.get().as_bytes());
    }
    json.push(b'}');
    Ok(json.into())
}

/// An object's fields as they were written.
struct Fields<'a>(Vec<(String, &'a RawValue)>);

impl<'de> Deserialize<'de> for Fields<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Entries;
        impl<'de> Visitor<'de> for Entries {
            type Value = Fields<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Fields<'de>, A::Error> {
                let mut fields = Vec::new();
                while let Some(field) = map.next_entry()? {
                    fields.push(field);
                }
                Ok(Fields(fields))
            }
        }
        deserializer.deserialize_map(Entries)
    }
}
