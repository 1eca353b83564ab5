//! A request's headers as the store keeps them: `name: value\r\n` lines in the order in which they came, duplicates where
//! they stood, values byte for byte.
//!
//! A [`HeaderMap`] puts the lines of one name together. Of an HTTP/1 request its values are slices of the one buffer that
//! the head was read into, so where a value lies says where its line stood: [`lines`] orders them by that. It costs no
//! copy and cannot take one request's lines for another's, as a second parser beside hyper's could. Should hyper come to
//! copy values, the order is the map's (the tests below would say so); no line is ever lost by it.
//!
//! What is not kept has no meaning in HTTP. Names are in lower case (RFC 9110, 5.1), as HTTP/2 sends them and as every
//! reader of these lines compares them; white space around a value is not part of it (5.5). A `Content-Length` that
//! repeats another, or that `Transfer-Encoding` overrules, is left out by hyper (RFC 9112, 6.3). Of an HTTP/2 request the
//! order is the map's: names as they first came, the values of each in their order.

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Uri, Version};

/// Bytes of the lines, as the limit counts them.
pub fn size(headers: &HeaderMap) -> usize {
    headers
        .iter()
        .map(|(name, value)| name.as_str().len() + value.len() + 4)
        .sum()
}

/// Bytes of the target's path and query.
pub fn target_size(uri: &Uri) -> usize {
    uri.path_and_query()
        .map_or(0, |target| target.as_str().len())
}

type Line<'a> = (&'a HeaderName, &'a HeaderValue);

/// A value cannot hold CR or LF, so the lines need no escaping.
pub fn lines(version: Version, headers: &HeaderMap) -> Bytes {
    let mut lines = Vec::with_capacity(size(headers));
    match as_sent(version, headers) {
        Some(sorted) => sorted.into_iter().for_each(|line| write(line, &mut lines)),
        None => headers.iter().for_each(|line| write(line, &mut lines)),
    }
    lines.into()
}

fn write((name, value): Line<'_>, lines: &mut Vec<u8>) {
    lines.extend_from_slice(name.as_str().as_bytes());
    lines.extend_from_slice(b": ");
    lines.extend_from_slice(value.as_bytes());
    lines.extend_from_slice(b"\r\n");
}

/// The lines in the order that they were sent in; `None` where that is the map's own, as in most requests, or where it
/// can't be known.
fn as_sent(version: Version, headers: &HeaderMap) -> Option<Vec<Line<'_>>> {
    // HTTP/2 unpacks each value into memory of its own.
    if version >= Version::HTTP_2 || headers.iter().is_sorted_by_key(place) {
        return None;
    }
    let mut sorted: Vec<Line<'_>> = headers.iter().collect();
    // A map keeps the order of one name's values. If they don't lie in it, they don't lie in one head.
    let one_head = sorted
        .windows(2)
        .all(|pair| pair[0].0 != pair[1].0 || place(pair[0]) < place(pair[1]));
    sorted.sort_unstable_by_key(|line| place(*line));
    // Between the values of two lines there is the end of the one, and the name and colon of the other.
    let one_head = one_head
        && sorted.windows(2).all(|pair| {
            let end = place(pair[0]) + pair[0].1.len();
            end + b"\n".len() + pair[1].0.as_str().len() + b":".len() <= place(pair[1])
        });
    one_head.then_some(sorted)
}

fn place((_, value): Line<'_>) -> usize {
    value.as_bytes().as_ptr().addr()
}

#[cfg(test)]
mod tests;
