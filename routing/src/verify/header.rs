//! Reading what senders put into headers, whatever bytes those are.

use http::HeaderValue;

/// Signatures of one request that are looked at. Those past the bound are not: an honest sender that rotates sends two or
/// three, and a request must not buy unbounded work.
pub(super) const MOST_SIGNATURES: usize = 32;

/// The value as text; one that isn't UTF-8 reads as the empty text, which no signature and no timestamp is.
pub(super) fn text(value: &HeaderValue) -> &str {
    std::str::from_utf8(value.as_bytes())
        .unwrap_or_default()
        .trim()
}

/// The pairs of `t=…,v1=…` or `ts=…;h1=…`: no value that is written so has a comma or a semicolon in it.
pub(super) fn pairs(text: &str) -> impl Iterator<Item = (&str, &str)> {
    text.split([',', ';'])
        .filter_map(|pair| pair.split_once('='))
        .map(|(key, value)| (key.trim(), value.trim()))
}

/// Bytes that fit a signature by any hash here.
pub(super) const LONGEST_TAG: usize = 64;

/// The signatures of a request that could be decoded, on the stack.
pub(super) struct Candidates {
    tags: [[u8; LONGEST_TAG]; MOST_SIGNATURES],
    count: usize,
    /// Of each tag.
    length: usize,
}

impl Candidates {
    pub(super) fn new(length: usize) -> Candidates {
        Candidates {
            tags: [[0; LONGEST_TAG]; MOST_SIGNATURES],
            count: 0,
            length: length.min(LONGEST_TAG),
        }
    }

    /// What is of another length is no signature.
    pub(super) fn add(&mut self, decode: impl FnOnce(&mut [u8]) -> Option<usize>) {
        let Some(place) = self.tags.get_mut(self.count) else {
            return;
        };
        if decode(place) == Some(self.length) {
            self.count += 1;
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.count == 0
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &[u8]> {
        self.tags
            .iter()
            .take(self.count)
            .map(|tag| &tag[..self.length])
    }
}
