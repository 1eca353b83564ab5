//! A request's headers as the store keeps them: `name: value\r\n` lines, values byte for byte.
//!
//! Two things are lost before we see a request, both without meaning in HTTP (RFC 9110, 5.1 and 5.2): names arrive in
//! lower case, and lines of the same name stand together, in their own order, where the first of them stood.

use bytes::Bytes;
use http::{HeaderMap, Uri};

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

/// A value cannot hold CR or LF, so the lines need no escaping.
pub fn lines(headers: &HeaderMap) -> Bytes {
    let mut lines = Vec::with_capacity(size(headers));
    for (name, value) in headers {
        lines.extend_from_slice(name.as_str().as_bytes());
        lines.extend_from_slice(b": ");
        lines.extend_from_slice(value.as_bytes());
        lines.extend_from_slice(b"\r\n");
    }
    lines.into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::{HeaderName, HeaderValue};

    #[test]
    fn duplicates_stay_in_order_and_values_stay_bytes() {
        let mut headers = HeaderMap::new();
        for (name, value) in [
            ("X-A", &b"1"[..]),
            ("x-b", b"caf\xe9"),
            ("x-a", b"2"),
            ("x-empty", b""),
        ] {
            headers.append(
                name.parse::<HeaderName>().unwrap(),
                HeaderValue::from_bytes(value).unwrap(),
            );
        }
        let lines = lines(&headers);
        assert_eq!(
            &lines[..],
            b"x-a: 1\r\nx-a: 2\r\nx-b: caf\xe9\r\nx-empty: \r\n"
        );
        assert_eq!(lines.len(), size(&headers));
    }
}
