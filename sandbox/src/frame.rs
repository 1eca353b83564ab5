//! What parent and child say to each other: frames of a length, a tag and a payload, answered in order.
//!
//! Both ends are of one binary, so there is no version. The parent doesn't trust the child: what it reads is bounded, and
//! anything unexpected is a child that has gone wrong.

use bytes::{BufMut, Bytes, BytesMut};

/// The first bytes that a child writes. What comes before them is not ours: a test's harness says how many tests it runs.
pub(crate) const HELLO: &[u8] = b"\x00hookstream-sandbox-1\x00";

/// Length and tag.
pub(crate) const HEAD: usize = 5;

/// In front of an answer's payload: the microseconds that it took.
const TOOK: usize = 4;

/// A child's error messages are cut here.
pub(crate) const LONGEST_MESSAGE: usize = 500;

/// The input is the body and a head that describes the request, not the body alone.
const ENVELOPE: u8 = 1;

/// What a parent asks. `Define` is not answered, the others are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Request<'a> {
    /// An expression takes a slot; empty: the slot is free again.
    Define {
        slot: u32,
        text: &'a [u8],
    },
    Evaluate {
        slot: u32,
        /// With the body under its names beside what the head holds; else the body alone is the input.
        envelope: bool,
        /// Bytes; a longer result is an error.
        most_output: u32,
        head: &'a [u8],
        body: &'a [u8],
    },
    Check {
        text: &'a [u8],
    },
}

impl<'a> Request<'a> {
    pub(crate) fn write(&self, out: &mut BytesMut) {
        let at = out.len();
        out.put_u32_le(0);
        match self {
            Request::Define { slot, text } => {
                out.put_u8(1);
                out.put_u32_le(*slot);
                out.put_slice(text);
            }
            Request::Evaluate {
                slot,
                envelope,
                most_output,
                head,
                body,
            } => {
                out.put_u8(2);
                out.put_u32_le(*slot);
                out.put_u8(if *envelope { ENVELOPE } else { 0 });
                out.put_u32_le(*most_output);
                out.put_u32_le(length(head.len()));
                out.put_slice(head);
                out.put_slice(body);
            }
            Request::Check { text } => {
                out.put_u8(3);
                out.put_slice(text);
            }
        }
        let long = length(out.len() - at - 4);
        out[at..at + 4].copy_from_slice(&long.to_le_bytes());
    }

    /// From what follows the length.
    pub(crate) fn read(frame: &'a [u8]) -> Option<Request<'a>> {
        let (tag, rest) = frame.split_first()?;
        Some(match tag {
            1 => {
                let (slot, text) = number(rest)?;
                Request::Define { slot, text }
            }
            2 => {
                let (slot, rest) = number(rest)?;
                let (flags, rest) = rest.split_first()?;
                let (most_output, rest) = number(rest)?;
                let (head, rest) = number(rest)?;
                let (head, body) = rest.split_at_checked(usize::try_from(head).ok()?)?;
                Request::Evaluate {
                    slot,
                    envelope: flags & ENVELOPE != 0,
                    most_output,
                    head,
                    body,
                }
            }
            3 => Request::Check { text: rest },
            _ => return None,
        })
    }
}

/// What a child answers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Answer {
    /// JSON.
    Value(Bytes),
    Undefined,
    Failed(String),
    /// The names that the expression's root paths begin with, as a JSON array.
    Checked(Bytes),
}

impl Answer {
    pub(crate) fn write(&self, took_us: u32, out: &mut Vec<u8>) {
        let (tag, payload): (u8, &[u8]) = match self {
            Answer::Value(bytes) => (1, bytes),
            Answer::Undefined => (2, b""),
            Answer::Failed(message) => (3, message.as_bytes()),
            Answer::Checked(roots) => (4, roots),
        };
        out.extend_from_slice(&length(1 + TOOK + payload.len()).to_le_bytes());
        out.push(tag);
        out.extend_from_slice(&took_us.to_le_bytes());
        out.extend_from_slice(payload);
    }

    /// From what follows the length.
    pub(crate) fn read(mut frame: Bytes) -> Option<(Answer, u32)> {
        let (tag, rest) = frame.split_first()?;
        let (tag, (took_us, _)) = (*tag, number(rest)?);
        let payload = frame.split_off(1 + TOOK);
        let answer = match tag {
            1 => Answer::Value(payload),
            2 => Answer::Undefined,
            3 => Answer::Failed(String::from_utf8(payload.into()).ok()?),
            4 => Answer::Checked(payload),
            _ => return None,
        };
        Some((answer, took_us))
    }
}

/// The length of the frame that begins here, without the four bytes that say it.
pub(crate) fn announced(bytes: &[u8]) -> Option<usize> {
    let (long, _) = number(bytes)?;
    usize::try_from(long).ok()
}

fn number(bytes: &[u8]) -> Option<(u32, &[u8])> {
    let (number, rest) = bytes.split_first_chunk::<4>()?;
    Some((u32::from_le_bytes(*number), rest))
}

fn length(bytes: usize) -> u32 {
    u32::try_from(bytes).expect("inputs and outputs are bounded far below 4 GiB")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_reads_back() {
        let requests = [
            Request::Define {
                slot: 7,
                text: b"a.b",
            },
            Request::Evaluate {
                slot: 7,
                envelope: true,
                most_output: 9,
                head: b"{}",
                body: b"[1]",
            },
            Request::Check { text: b"" },
        ];
        for request in requests {
            let mut out = BytesMut::new();
            request.write(&mut out);
            assert_eq!(announced(&out), Some(out.len() - 4));
            assert_eq!(Request::read(&out[4..]), Some(request));
        }
        for answer in [
            Answer::Value(Bytes::from_static(b"1")),
            Answer::Undefined,
            Answer::Failed("no".to_owned()),
            Answer::Checked(Bytes::from_static(b"[]")),
        ] {
            let mut out = Vec::new();
            answer.write(5, &mut out);
            assert_eq!(announced(&out), Some(out.len() - 4));
            assert_eq!(Answer::read(Bytes::from(out).slice(4..)), Some((answer, 5)));
        }
    }

    #[test]
    fn what_is_cut_short_is_refused() {
        for frame in [
            &b""[..],
            b"\x01",
            b"\x02\0\0\0\0\0\0\0\0\0\xff\0\0\0a",
            b"\x09",
        ] {
            assert_eq!(Request::read(frame), None);
        }
        for frame in [&b""[..], b"\x01", b"\x01\0\0\0", b"\x09\0\0\0\0"] {
            assert_eq!(Answer::read(Bytes::from_static(frame)), None);
        }
        assert_eq!(
            Answer::read(Bytes::from_static(b"\x03\0\0\0\0\xff")),
            None,
            "a message is text"
        );
    }
}
