//! A request as the seeds have it: a line, headers, an empty line and a body. Whatever the bytes are, some request they are.

use http::{HeaderMap, HeaderName, HeaderValue};

pub struct Request<'d> {
    /// The first line's words.
    pub line: Vec<&'d str>,
    pub headers: HeaderMap,
    pub body: &'d [u8],
}

impl<'d> Request<'d> {
    pub fn read(data: &'d [u8]) -> Request<'d> {
        let (head, body) = match data.windows(2).position(|pair| pair == b"\n\n") {
            Some(at) => (&data[..at], &data[at + 2..]),
            None => (data, &[][..]),
        };
        let mut lines = head.split(|byte| *byte == b'\n');
        let line = std::str::from_utf8(lines.next().unwrap_or_default()).unwrap_or_default();
        let mut headers = HeaderMap::new();
        // As many as the server lets in.
        for line in lines.take(128) {
            let at = line.iter().position(|byte| *byte == b':').unwrap_or(0);
            let (name, value) = line.split_at(at);
            let value = value.get(1..).unwrap_or_default().trim_ascii();
            if let (Ok(name), Ok(value)) =
                (HeaderName::from_bytes(name), HeaderValue::from_bytes(value))
            {
                headers.append(name, value);
            }
        }
        Request {
            line: line.split_whitespace().collect(),
            headers,
            body,
        }
    }
}
