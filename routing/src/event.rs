//! What verification and filters see of a request.
//!
//! A view borrows everything and parses the body at most once, and only when a filter looks into it.

use http::{HeaderMap, Method};
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
    json: OnceCell<Option<Value>>,
}

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
            json: OnceCell::new(),
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
}
