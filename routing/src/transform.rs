//! JSONata expressions as the table holds them: what they see of an event, and what is made of their result.
//!
//! Pure: expressions are evaluated elsewhere (the crate `sandbox`), and so is whether they compile. Here is the rule of
//! their input, the head that stands beside the body, and the reading of a result.

use crate::{EventView, event::Form};
use http::{HeaderName, HeaderValue, Method};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use std::sync::Arc;

#[cfg(test)]
mod tests;

/// What an envelope holds, by the names that filters use. An expression with a path that begins with one of them means the
/// envelope, unless its resource says otherwise.
pub const ENVELOPE: [&str; 8] = [
    "body",
    "payload",
    "headers",
    "query",
    "method",
    "path",
    "content_type",
    "source_ip",
];

/// What an expression sees.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Input {
    Body,
    Envelope,
}

impl Input {
    /// Decided once, when the expression compiles, from the names that its paths begin with.
    pub fn of_roots(roots: &[String]) -> Input {
        match envelope_root(roots) {
            Some(_) => Input::Envelope,
            None => Input::Body,
        }
    }

    /// The word in manifests and statuses.
    pub const fn as_str(self) -> &'static str {
        match self {
            Input::Body => "Body",
            Input::Envelope => "Envelope",
        }
    }
}

/// The first of these names that is an envelope's.
pub fn envelope_root(roots: &[String]) -> Option<&str> {
    roots
        .iter()
        .map(String::as_str)
        .find(|root| ENVELOPE.contains(root))
}

/// One that compiles. The text is shared by all who evaluate it: that is how a sandbox knows it again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Expression {
    #[serde(with = "text")]
    pub text: Arc<str>,
    pub input: Input,
}

/// What a transform's result is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Output {
    /// The body.
    #[default]
    Body,
    /// An object with any of `body`, `headers`, `method`, `path` and `query`.
    Envelope,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Transform {
    pub expression: Expression,
    #[serde(default)]
    pub output: Output,
}

/// What stands beside the body, as a JSON object: all but the body for an envelope, and in any case the fields of a form as
/// its `body`, since a form is no JSON.
pub fn head(event: &EventView<'_>, input: Input) -> Vec<u8> {
    let mut head = Map::new();
    if input == Input::Envelope {
        let mut headers = Map::new();
        for name in event.headers.keys() {
            let values: Vec<_> = event
                .headers
                .get_all(name)
                .iter()
                .map(|value| String::from_utf8_lossy(value.as_bytes()))
                .collect();
            headers.insert(name.as_str().to_owned(), values.join(", ").into());
        }
        head.insert("method".to_owned(), event.method.as_str().into());
        head.insert("path".to_owned(), event.path.into());
        head.insert(
            "query".to_owned(),
            fields(&Form::parse(event.query.as_bytes())),
        );
        head.insert("headers".to_owned(), headers.into());
        if let Some(media_type) = event.content_type() {
            head.insert("content_type".to_owned(), media_type.into());
        }
        head.insert("source_ip".to_owned(), event.source_ip.to_string().into());
    }
    let form = event
        .content_type()
        .filter(|media_type| may_be_form(media_type))
        .and_then(|_| event.form());
    if let Some(form) = form {
        head.insert("body".to_owned(), fields(form));
    }
    if head.is_empty() {
        return b"{}".to_vec();
    }
    serde_json::to_vec(&head).expect("a map with string keys")
}

/// Asking for the form parses the body as JSON first: most events are not worth that.
fn may_be_form(media_type: &str) -> bool {
    media_type.eq_ignore_ascii_case("application/x-www-form-urlencoded")
}

/// A string for a name, a list for a name that is there several times.
fn fields(form: &Form<'_>) -> Value {
    let mut fields = Map::new();
    for (name, value) in form.fields() {
        match fields.get_mut(name) {
            None => {
                fields.insert(name.to_owned(), value.into());
            }
            Some(Value::Array(values)) => values.push(value.into()),
            Some(one) => *one = Value::Array(vec![one.take(), value.into()]),
        }
    }
    fields.into()
}

/// Whether a filter's expression lets the event pass. One that gives nothing doesn't.
///
/// # Errors
/// The result is neither true nor false: a sentence for the filter's author.
pub fn passes(result: Option<&[u8]>) -> Result<bool, String> {
    match result {
        Some(b"true") => Ok(true),
        Some(b"false") | None => Ok(false),
        Some(other) => Err(format!(
            "the filter's expression gives {}, not true or false; compare it with something",
            kind(other)
        )),
    }
}

fn kind(json: &[u8]) -> &'static str {
    match json.first() {
        Some(b'"') => "a string",
        Some(b'{') => "an object",
        Some(b'[') => "a list",
        Some(b'n') => "null",
        _ => "a number",
    }
}

/// What is sent in place of what came. What is `None` stays as it came.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Shaped {
    /// With its media type, unless `headers` name one.
    pub body: Option<(Vec<u8>, &'static str)>,
    /// They win over the destination's.
    pub headers: Vec<(HeaderName, HeaderValue)>,
    pub method: Option<Method>,
    /// Empty or beginning with `/`.
    pub path: Option<String>,
    /// Without the `?`.
    pub query: Option<String>,
}

const JSON: &str = "application/json";

/// Methods that a transform may choose: those that a destination may have.
const METHODS: [Method; 5] = [
    Method::GET,
    Method::POST,
    Method::PUT,
    Method::PATCH,
    Method::DELETE,
];

/// Most headers that a transform sets, and the length of a path or query.
const MOST_HEADERS: usize = 64;
const LONGEST_PATH: usize = 8192;

/// Reads a transform's result.
///
/// # Errors
/// The result is no envelope although it should be one: a sentence for the transform's author.
pub fn shaped(output: Output, result: &[u8]) -> Result<Shaped, String> {
    match output {
        Output::Body => Ok(Shaped {
            body: Some((result.to_vec(), JSON)),
            ..Shaped::default()
        }),
        Output::Envelope => envelope(result),
    }
}

fn envelope(result: &[u8]) -> Result<Shaped, String> {
    let Ok(Value::Object(map)) = serde_json::from_slice(result) else {
        return Err(format!(
            "the transform gives {}, and with output: Envelope it must give an object with body, headers, method, path or query",
            kind(result)
        ));
    };
    let mut shaped = Shaped::default();
    let mut body = None;
    for (name, value) in map {
        match (name.as_str(), value) {
            ("body", value) => body = Some(value),
            ("headers", Value::Object(headers)) => shaped.headers = read_headers(headers)?,
            ("method", Value::String(method)) => {
                let known = METHODS.iter().find(|known| known.as_str() == method);
                shaped.method = Some(known.cloned().ok_or_else(|| {
                    format!("the transform's method is {method:?}; it can be GET, POST, PUT, PATCH or DELETE")
                })?);
            }
            ("path", Value::String(path)) => shaped.path = Some(read_path(path)?),
            ("query", Value::String(query)) => {
                check_url("query", &query)?;
                shaped.query = Some(query);
            }
            ("query", Value::Object(fields)) => shaped.query = Some(encoded(fields)?),
            ("headers" | "method" | "path" | "query", other) => {
                return Err(format!(
                    "the transform's `{name}` can't be {other}; headers are an object, query is an object or a string, method and path are strings"
                ));
            }
            _ => {
                return Err(format!(
                    "the transform's result has `{name}`; with output: Envelope it can have body, headers, method, path and query"
                ));
            }
        }
    }
    let typed = shaped
        .headers
        .iter()
        .find(|(name, _)| *name == http::header::CONTENT_TYPE)
        .map(|(_, value)| String::from_utf8_lossy(value.as_bytes()).contains("json"));
    shaped.body = body.map(|body| match (body, typed) {
        // Whoever names a media type that isn't JSON has written the body as it is to be.
        (Value::String(text), Some(false)) => (text.into_bytes(), JSON),
        (body, _) => (body.to_string().into_bytes(), JSON),
    });
    Ok(shaped)
}

fn read_headers(headers: Map<String, Value>) -> Result<Vec<(HeaderName, HeaderValue)>, String> {
    if headers.len() > MOST_HEADERS {
        return Err(format!(
            "the transform sets {} headers; {MOST_HEADERS} are possible",
            headers.len()
        ));
    }
    let mut read = Vec::with_capacity(headers.len());
    for (name, value) in headers {
        let text = match value {
            Value::String(text) => text,
            Value::Number(number) => number.to_string(),
            Value::Bool(yes) => yes.to_string(),
            other => {
                return Err(format!(
                    "the transform's header `{name}` can't be {other}; write a string"
                ));
            }
        };
        let parsed = HeaderName::from_bytes(name.as_bytes())
            .map_err(|_| format!("{name:?} can't be the name of a header"))?;
        if is_framing(&parsed) {
            return Err(format!(
                "the header `{name}` is set by hookstream, and not by a transform; leave it out"
            ));
        }
        let value = HeaderValue::from_str(&text).map_err(|_| {
            format!("the transform's header `{name}` has a character that no header may have")
        })?;
        read.push((parsed, value));
    }
    Ok(read)
}

/// What frames the message, or names where it goes: not a matter of content.
fn is_framing(name: &HeaderName) -> bool {
    matches!(
        name.as_str(),
        "host"
            | "content-length"
            | "transfer-encoding"
            | "connection"
            | "upgrade"
            | "te"
            | "trailer"
            | "expect"
            | "keep-alive"
            | "proxy-connection"
            | "proxy-authorization"
            | "webhook-id"
            | "webhook-timestamp"
            | "webhook-signature"
    ) || name.as_str().starts_with("x-hookstream-")
}

fn read_path(path: String) -> Result<String, String> {
    check_url("path", &path)?;
    if !path.is_empty() && !path.starts_with('/') {
        return Err(format!("the transform's path is {path:?}; begin it with /"));
    }
    Ok(path)
}

/// Only what may stand in a URL as it is.
fn check_url(what: &str, text: &str) -> Result<(), String> {
    let fine = |byte: u8| {
        byte.is_ascii_graphic()
            && !matches!(
                byte,
                b'#' | b'"' | b'<' | b'>' | b'\\' | b'^' | b'`' | b'{' | b'|' | b'}'
            )
    };
    if text.len() > LONGEST_PATH {
        return Err(format!(
            "the transform's {what} is longer than {LONGEST_PATH} bytes"
        ));
    }
    if !text.bytes().all(fine) || (what == "path" && text.contains('?')) {
        return Err(format!(
            "the transform's {what} has characters that a URL can't have; encode them, as with $encodeUrlComponent"
        ));
    }
    Ok(())
}

/// An object as a query, its names and values encoded; a list gives its name several times.
fn encoded(fields: Map<String, Value>) -> Result<String, String> {
    let mut query = String::new();
    for (name, value) in fields {
        let values = match value {
            Value::Array(values) => values,
            one => vec![one],
        };
        for value in values {
            let text = match value {
                Value::String(text) => text,
                Value::Number(number) => number.to_string(),
                Value::Bool(yes) => yes.to_string(),
                other => {
                    return Err(format!(
                        "the transform's query has {other} for `{name}`; write a string"
                    ));
                }
            };
            if !query.is_empty() {
                query.push('&');
            }
            percent(&name, &mut query);
            query.push('=');
            percent(&text, &mut query);
        }
    }
    check_url("query", &query)?;
    Ok(query)
}

fn percent(text: &str, out: &mut String) {
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~') {
            out.push(char::from(byte));
        } else {
            out.push_str(&format!("%{byte:02X}"));
        }
    }
}

/// A shared text is a string in the row.
mod text {
    use serde::{Deserialize, Deserializer, Serializer};
    use std::sync::Arc;

    pub(super) fn serialize<S: Serializer>(text: &Arc<str>, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(text)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Arc<str>, D::Error> {
        String::deserialize(from).map(Arc::from)
    }
}
