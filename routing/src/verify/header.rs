//! Reading what senders put into headers, whatever bytes those are.

use super::{MAX_SIGNATURES, Tag};
use http::HeaderValue;

/// The value as text; one that isn't UTF-8 reads as the empty text, which no signature and no timestamp is.
pub(super) fn text(value: &HeaderValue) -> &str {
    std::str::from_utf8(value.as_bytes())
        .unwrap_or_default()
        .trim()
}

/// Digits only: no sign, no fraction, no space.
pub(super) fn unix_seconds(text: &str) -> Option<i64> {
    let digits = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    digits.then(|| text.parse().ok()).flatten()
}

/// The signatures of a request that could be decoded, on the stack. Those past the bound are not looked at: an honest
/// sender has a few, and a request must not buy unbounded work.
#[derive(Default)]
pub(super) struct Candidates {
    tags: [Tag; MAX_SIGNATURES],
    length: usize,
}

impl Candidates {
    pub(super) fn add(&mut self, tag: Option<Tag>) {
        if let (Some(tag), Some(place)) = (tag, self.tags.get_mut(self.length)) {
            *place = tag;
            self.length += 1;
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.length == 0
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Tag> {
        self.tags.iter().take(self.length)
    }
}
