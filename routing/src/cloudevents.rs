//! CloudEvents 1.0 over HTTP: read in binary, structured and batched mode, written in binary and structured mode.
//!
//! Inside there is one shape, whatever the mode was: the JSON format of the specification. So filters, schemas and
//! transforms look at `body.type` and `body.data`, and don't ask how an event came.

use base64::{Engine, prelude::BASE64_STANDARD};
use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, header::CONTENT_TYPE};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, value::RawValue};
use std::borrow::Cow;

#[cfg(test)]
mod tests;

/// What a structured event's `Content-Type` is.
pub const STRUCTURED: &str = "application/cloudevents+json";
pub const BATCH: &str = "application/cloudevents-batch+json";

const VERSION: &str = "1.0";

/// Attributes of one event.
const MOST_ATTRIBUTES: usize = 64;

/// How an event is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Mode {
    /// Attributes are `ce-` headers, the body is the data.
    Binary,
    /// The body is a JSON object with attributes and data.
    Structured,
}

/// What a request says that it holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Said {
    Nothing,
    One(Mode),
    Batch,
    /// CloudEvents in a format that is not JSON.
    Unknown,
}

pub fn said(headers: &HeaderMap) -> Said {
    let media_type = media_type(headers);
    if media_type.eq_ignore_ascii_case(STRUCTURED) {
        Said::One(Mode::Structured)
    } else if media_type.eq_ignore_ascii_case(BATCH) {
        Said::Batch
    } else if starts_with_ignoring_case(media_type, "application/cloudevents") {
        Said::Unknown
    } else if headers.contains_key("ce-specversion") {
        Said::One(Mode::Binary)
    } else {
        Said::Nothing
    }
}

/// Takes away all `ce-` headers, also those that are no attribute.
pub fn remove_attributes(headers: &mut HeaderMap) {
    let attributes: Vec<HeaderName> = headers
        .keys()
        .filter(|name| name.as_str().starts_with("ce-"))
        .cloned()
        .collect();
    for name in attributes {
        headers.remove(name);
    }
}

fn media_type(headers: &HeaderMap) -> &str {
    let value = headers.get(CONTENT_TYPE).map(HeaderValue::as_bytes);
    let text = std::str::from_utf8(value.unwrap_or_default()).unwrap_or_default();
    text.split(';').next().unwrap_or_default().trim()
}

fn starts_with_ignoring_case(text: &str, start: &str) -> bool {
    text.get(..start.len())
        .is_some_and(|found| found.eq_ignore_ascii_case(start))
}

/// Whether data of this media type stands in JSON as it is. None: the specification takes it for JSON.
fn is_json(media_type: &str) -> bool {
    let end = media_type.len().saturating_sub("+json".len());
    media_type.is_empty()
        || media_type.eq_ignore_ascii_case("application/json")
        || media_type.eq_ignore_ascii_case("text/json")
        || media_type
            .get(end..)
            .is_some_and(|end| end.eq_ignore_ascii_case("+json"))
}

/// Whether this is an event of the JSON format; the error is a sentence.
pub fn check(event: &Value) -> Result<(), String> {
    let Value::Object(event) = event else {
        return Err("a CloudEvent is a JSON object".to_owned());
    };
    if event.len() > MOST_ATTRIBUTES {
        return Err(format!(
            "a CloudEvent has at most {MOST_ATTRIBUTES} attributes here"
        ));
    }
    if event.get("specversion").and_then(Value::as_str) != Some(VERSION) {
        return Err(format!("`specversion` must be \"{VERSION}\""));
    }
    for name in ["id", "source", "type"] {
        if !matches!(event.get(name), Some(Value::String(text)) if !text.is_empty()) {
            return Err(format!(
                "the attribute `{name}` is required, as a text that is not empty"
            ));
        }
    }
    for name in ["subject", "datacontenttype", "dataschema"] {
        if !matches!(event.get(name), None | Some(Value::Null))
            && !matches!(event.get(name), Some(Value::String(text)) if !text.is_empty())
        {
            return Err(format!(
                "the attribute `{name}` is a text that is not empty, or left out"
            ));
        }
    }
    let content_type = event.get("datacontenttype").and_then(Value::as_str);
    if content_type.is_some_and(|text| HeaderValue::from_str(text).is_err() || text != text.trim())
    {
        return Err("the attribute `datacontenttype` can't be a `Content-Type`".to_owned());
    }
    match event.get("time") {
        None | Some(Value::Null) => {}
        Some(Value::String(time)) if time.parse::<Timestamp>().is_ok() => {}
        Some(_) => {
            return Err(
                "the attribute `time` is a time as RFC 3339 writes it, as `2026-11-21T12:00:00Z`"
                    .to_owned(),
            );
        }
    }
    for (name, value) in event {
        if name == "data" || name == "data_base64" {
            continue;
        }
        attribute_name(name)?;
        let plain = match value {
            Value::Null | Value::Bool(_) | Value::String(_) => true,
            Value::Number(number) => number.is_i64() || number.is_u64(),
            Value::Array(_) | Value::Object(_) => false,
        };
        if !plain {
            return Err(format!(
                "the attribute `{}` is a text, a whole number or a boolean",
                short(name)
            ));
        }
    }
    match (event.get("data"), event.get("data_base64")) {
        (Some(_), Some(_)) => Err("an event has `data` or `data_base64`, not both".to_owned()),
        (_, Some(Value::String(text))) if BASE64_STANDARD.decode(text).is_ok() => Ok(()),
        (_, Some(_)) => Err("`data_base64` is a text in base64".to_owned()),
        (_, None) => Ok(()),
    }
}

fn attribute_name(name: &str) -> Result<(), String> {
    let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    if name.is_empty() || name.len() > 128 || !name.bytes().all(plain) {
        return Err(format!(
            "`{}` can't be the name of an attribute: that is a-z and 0-9",
            short(name)
        ));
    }
    Ok(())
}

/// An event in binary mode, as the JSON format has it. Its data stays what it was, byte for byte, where it is JSON.
pub fn from_binary(headers: &HeaderMap, body: &[u8]) -> Result<Bytes, String> {
    let mut json = Vec::with_capacity(body.len() + 512);
    json.push(b'{');
    let mut field = |name: &str, value: &str| {
        if json.len() > 1 {
            json.push(b',');
        }
        write_text(&mut json, name);
        json.push(b':');
        json.extend_from_slice(value.as_bytes());
    };
    for name in headers.keys() {
        let Some(attribute) = name.as_str().strip_prefix("ce-") else {
            continue;
        };
        attribute_name(attribute)?;
        if matches!(attribute, "datacontenttype" | "data") {
            return Err(format!(
                "the header `{name}` means nothing: the body is the data, and `Content-Type` says what it is"
            ));
        }
        let mut values = headers.get_all(name).iter();
        let (Some(value), None) = (values.next(), values.next()) else {
            return Err(format!("the header `{name}` is there more than once"));
        };
        let value = decoded(value.as_bytes())
            .ok_or_else(|| format!("the header `{name}` is not UTF-8, percent-encoded"))?;
        field(attribute, &quoted(&value));
    }
    let content_type = headers
        .get(CONTENT_TYPE)
        .and_then(|value| value.to_str().ok());
    if let Some(content_type) = content_type {
        field("datacontenttype", &quoted(content_type));
    }
    if body.is_empty() {
        // No data.
    } else if is_json(media_type(headers)) {
        let text = body.strip_prefix(b"\xef\xbb\xbf").unwrap_or(body);
        let data: &RawValue = serde_json::from_slice(text).map_err(|problem| {
            format!("the body is not the JSON that `Content-Type` says it is: {problem}")
        })?;
        field("data", data.get());
    } else if let Ok(text) = std::str::from_utf8(body) {
        field("data", &quoted(text));
    } else {
        field("data_base64", &quoted(&BASE64_STANDARD.encode(body)));
    }
    json.push(b'}');
    Ok(json.into())
}

/// The value of an attribute's header: percent-encoded (the binding's 3.1.3.2), between quotes or not.
fn decoded(value: &[u8]) -> Option<Cow<'_, str>> {
    let value = match value {
        [b'"', inner @ .., b'"'] => inner,
        other => other,
    };
    if !value.contains(&b'%') {
        return std::str::from_utf8(value).ok().map(Cow::Borrowed);
    }
    let mut bytes = Vec::with_capacity(value.len());
    let mut rest = value;
    while let Some((&first, after)) = rest.split_first() {
        rest = after;
        let hex = |byte: u8| char::from(byte).to_digit(16);
        let pair = match after {
            [high, low, ..] if first == b'%' => hex(*high).zip(hex(*low)),
            _ => None,
        };
        match pair {
            Some((high, low)) => {
                bytes.push(u8::try_from(high * 16 + low).unwrap_or_default());
                rest = &rest[2..];
            }
            None => bytes.push(first),
        }
    }
    String::from_utf8(bytes).ok().map(Cow::Owned)
}

/// What is said of an event that wasn't published as a CloudEvent.
#[derive(Debug, Clone, Copy)]
pub struct Known<'a> {
    pub id: &'a str,
    pub source: &'a str,
    pub received_at: Timestamp,
}

/// What `type` is when the payload has no `type` of its own.
const UNTYPED: &str = "hookstream.event";

/// What is sent.
#[derive(Debug)]
pub struct Written {
    pub body: Bytes,
    pub content_type: Option<HeaderValue>,
    /// `ce-` headers; none in structured mode.
    pub attributes: Vec<(HeaderName, HeaderValue)>,
}

/// A payload as a CloudEvent. One that is a CloudEvent already keeps its attributes; `id` and the others that every event
/// must have are `known`'s otherwise.
pub fn write(
    known: Known<'_>,
    content_type: Option<&HeaderValue>,
    body: &Bytes,
    mode: Mode,
) -> Written {
    let mut headers = HeaderMap::new();
    if let Some(content_type) = content_type {
        headers.insert(CONTENT_TYPE, content_type.clone());
    }
    let is_event = media_type(&headers).eq_ignore_ascii_case(STRUCTURED);
    let event: Option<Value> = is_event
        .then(|| serde_json::from_slice(body).ok())
        .flatten()
        .filter(|event| check(event).is_ok());
    // A transform made something else of it.
    let json = HeaderValue::from_static("application/json");
    let content_type = match is_event && event.is_none() {
        true => headers.insert(CONTENT_TYPE, json.clone()).map(|_| &json),
        false => content_type,
    };
    match (event, mode) {
        (Some(_), Mode::Structured) => structured(body.clone()),
        (Some(Value::Object(event)), Mode::Binary) => unpacked(&event, body),
        (_, Mode::Structured) => structured(wrapped(known, &headers, body)),
        (_, Mode::Binary) => Written {
            attributes: attributes(known, body),
            content_type: content_type.cloned(),
            body: body.clone(),
        },
    }
}

fn structured(body: Bytes) -> Written {
    Written {
        body,
        content_type: Some(HeaderValue::from_static(
            "application/cloudevents+json; charset=utf-8",
        )),
        attributes: Vec::new(),
    }
}

fn type_of(body: &[u8]) -> Cow<'_, str> {
    #[derive(Deserialize)]
    struct Typed<'a> {
        #[serde(rename = "type", borrow)]
        type_: Cow<'a, str>,
    }
    match serde_json::from_slice::<Typed<'_>>(body) {
        Ok(typed) if !typed.type_.is_empty() && typed.type_.len() <= 256 => typed.type_,
        _ => UNTYPED.into(),
    }
}

fn attributes(known: Known<'_>, body: &[u8]) -> Vec<(HeaderName, HeaderValue)> {
    let time = known.received_at.to_string();
    let type_ = type_of(body);
    let pairs = [
        ("specversion", VERSION),
        ("id", known.id),
        ("source", known.source),
        ("type", &type_),
        ("time", &time),
    ];
    pairs
        .iter()
        .filter_map(|(name, value)| header(name, value))
        .collect()
}

fn wrapped(known: Known<'_>, headers: &HeaderMap, body: &[u8]) -> Bytes {
    let binary = attributes(known, body);
    let mut all: HeaderMap = headers.clone();
    all.extend(binary.into_iter().map(|(name, value)| (Some(name), value)));
    from_binary(&all, body)
        // Called JSON, and isn't: as a text, or bytes.
        .or_else(|_| {
            all.insert(
                CONTENT_TYPE,
                HeaderValue::from_static("application/octet-stream"),
            );
            from_binary(&all, body)
        })
        .unwrap_or_else(|_| Bytes::copy_from_slice(body))
}

/// Binary mode of an event in the JSON format.
fn unpacked(event: &Map<String, Value>, body: &[u8]) -> Written {
    #[derive(Deserialize)]
    struct Data<'a> {
        #[serde(borrow)]
        data: Option<&'a RawValue>,
    }
    let content_type = event.get("datacontenttype").and_then(Value::as_str);
    let media_type = content_type.unwrap_or_default().split(';').next();
    let as_json = is_json(media_type.unwrap_or_default().trim());
    let base64 = event.get("data_base64").and_then(Value::as_str);
    let data = match (base64, event.get("data")) {
        (Some(text), _) => BASE64_STANDARD.decode(text).unwrap_or_default(),
        (None, Some(Value::String(text))) if !as_json => text.clone().into_bytes(),
        // As it was written: numbers keep their digits.
        (None, Some(_)) => serde_json::from_slice::<Data<'_>>(body)
            .ok()
            .and_then(|event| event.data)
            .map(|data| data.get().as_bytes().to_vec())
            .unwrap_or_default(),
        (None, None) => Vec::new(),
    };
    let attributes = event.iter().filter_map(|(name, value)| {
        if matches!(name.as_str(), "data" | "data_base64" | "datacontenttype") {
            return None;
        }
        match value {
            Value::String(text) => header(name, text),
            Value::Null => None,
            other => header(name, &other.to_string()),
        }
    });
    Written {
        attributes: attributes.collect(),
        content_type: match content_type {
            Some(content_type) => HeaderValue::from_str(content_type).ok(),
            None if data.is_empty() => None,
            None => Some(HeaderValue::from_static("application/json")),
        },
        body: data.into(),
    }
}

/// Percent-encoded as the binding's 3.1.3.2 says: all but visible ASCII, and of that `"` and `%`.
fn header(name: &str, value: &str) -> Option<(HeaderName, HeaderValue)> {
    let mut text = String::with_capacity(value.len());
    for byte in value.bytes() {
        if byte.is_ascii_graphic() && byte != b'"' && byte != b'%' {
            text.push(char::from(byte));
        } else {
            text.push_str(&format!("%{byte:02X}"));
        }
    }
    let name = HeaderName::from_bytes(format!("ce-{name}").as_bytes()).ok()?;
    Some((name, HeaderValue::from_str(&text).ok()?))
}

fn quoted(text: &str) -> String {
    Value::String(text.to_owned()).to_string()
}

fn write_text(json: &mut Vec<u8>, text: &str) {
    json.extend_from_slice(quoted(text).as_bytes());
}

pub(crate) fn short(text: &str) -> String {
    match text.char_indices().nth(64) {
        None => text.to_owned(),
        Some((end, _)) => format!("{}…", &text[..end]),
    }
}
