//! What verification and filters see of a request.
//!
//! A view borrows everything and parses the body at most once, and only when somebody looks into it.

pub(crate) mod form;

pub use form::Form;

use http::{HeaderMap, Method, header::CONTENT_TYPE};
use serde_json::Value;
use std::{cell::OnceCell, net::IpAddr};

/// One request as it was received; the body is what the sender sent, still compressed if it was.
#[derive(Debug)]
pub struct EventView<'a> {
    pub method: &'a Method,
    /// What follows the source's key in the URL, percent-encoded as sent; empty or beginning with `/`.
    pub path: &'a str,
    /// The raw query without its `?`.
    pub query: &'a str,
    pub headers: &'a HeaderMap,
    pub body: &'a [u8],
    /// The sender's address, seen through trusted proxies only.
    pub source_ip: IpAddr,
    /// What senders put before the path, as `https://hooks.example.com`; empty: not known.
    pub public_url: &'a str,
    /// Path and query as sent; empty: not known.
    pub target: &'a str,
    json: OnceCell<Option<Value>>,
    form: OnceCell<Option<Form<'a>>>,
}

/// What HTML forms and many older webhooks send.
const FORM: &str = "application/x-www-form-urlencoded";

impl<'a> EventView<'a> {
    pub fn new(
        method: &'a Method,
        path: &'a str,
        query: &'a str,
        headers: &'a HeaderMap,
        body: &'a [u8],
        source_ip: IpAddr,
    ) -> Self {
        EventView {
            method,
            path,
            query,
            headers,
            body,
            source_ip,
            public_url: "",
            target: "",
            json: OnceCell::new(),
            form: OnceCell::new(),
        }
    }

    /// With the body as somebody has parsed it already.
    pub fn with_json(self, json: Value) -> Self {
        EventView {
            json: OnceCell::from(Some(json)),
            ..self
        }
    }

    /// With the URL that the sender called, which some sign.
    pub fn called_at(self, public_url: &'a str, target: &'a str) -> Self {
        EventView {
            public_url,
            target,
            ..self
        }
    }

    /// The body as JSON; `None` when it isn't (serde_json also stops at 128 levels of nesting).
    /// A byte order mark in front is skipped, as RFC 8259 allows: some senders write one.
    pub fn json(&self) -> Option<&Value> {
        let parse = || {
            let text = self.body.strip_prefix(b"\xef\xbb\xbf").unwrap_or(self.body);
            serde_json::from_slice(text).ok()
        };
        self.json.get_or_init(parse).as_ref()
    }

    /// The body's fields, when the request says that it is a form. A JSON object or list is none, whatever the request
    /// says: `curl -d` calls everything a form, and no form begins so.
    pub fn form(&self) -> Option<&Form<'a>> {
        let parse = || {
            let says_so = self
                .content_type()
                .is_some_and(|media_type| media_type.eq_ignore_ascii_case(FORM));
            let is_json = || matches!(self.json(), Some(Value::Object(_) | Value::Array(_)));
            (says_so && !is_json()).then(|| Form::parse(self.body))
        };
        self.form.get_or_init(parse).as_ref()
    }

    /// The media type without its parameters, as `application/json`.
    pub fn content_type(&self) -> Option<&str> {
        let value = self.headers.get(CONTENT_TYPE)?;
        let text = std::str::from_utf8(value.as_bytes()).ok()?;
        Some(text.split(';').next().unwrap_or_default().trim())
    }
}
