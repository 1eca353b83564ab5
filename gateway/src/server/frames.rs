//! What we write on an HTTP/2 connection, frame by frame: finds the answers that the protocol library makes by itself, and
//! makes ours to go out in their place.
//!
//! The library (h2) answers one thing without asking us: a request whose headers are beyond its own limit gets a 431
//! without any header, then a reset that stops the request's body. Here the first becomes the error envelope with a
//! request id, and the second says what RFC 9113 (8.1) has a server say after a complete answer: `NO_ERROR`. With the
//! library's `PROTOCOL_ERROR` many senders would throw the answer away.
//!
//! Frames are never held back or joined: a write goes out up to the next frame that has to be exchanged, and the library
//! offers the rest again.

use bytes::Bytes;
use http::Response;
use std::collections::VecDeque;

/// Length (3 bytes), type, flags, stream (4 bytes).
const HEAD: usize = 9;

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const GOAWAY: u8 = 7;
const END_STREAM: u8 = 0x1;
const END_HEADERS: u8 = 0x4;
const PROTOCOL_ERROR: [u8; 4] = [0, 0, 0, 1];
const NO_ERROR: [u8; 4] = [0; 4];

/// Headers of ours are never this short: a request id takes 25 bytes at least. The library's 431 takes 5, and 12 more at
/// most when the sender has changed the size of its table.
const LEAST_WITH_ID: usize = 24;

/// Exchanged answers whose reset may still come. Beyond it the oldest is forgotten, and its reset stays as it is.
const RESETS_AWAITED: usize = 64;

/// Where in its frames a connection's output stands.
#[derive(Debug, Default)]
pub(super) struct Frames {
    /// Bytes of the current frame that are still to come.
    rest: usize,
    exchanged: VecDeque<u32>,
    /// A frame's head came in parts. The library writes none so; if it ever does, its bytes go out untouched.
    lost: bool,
    ended_by_error: bool,
}

/// What to do with the first of the bytes that the library wants to write.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Next<'a> {
    /// So many go out as they are.
    Pass(usize),
    Answer(Bare<'a>),
    /// The reset of a request whose answer was exchanged.
    Reset(u32),
}

/// An answer of the library's own, `length` bytes as a frame.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Bare<'a> {
    pub(super) length: usize,
    stream: u32,
    /// Its headers, packed. The next ones may refer to them, so the sender must get them.
    block: &'a [u8],
}

pub(super) const RESET_LENGTH: usize = HEAD + 4;

#[derive(Clone, Copy)]
struct Frame<'a> {
    kind: u8,
    flags: u8,
    stream: u32,
    /// With its head.
    length: usize,
    /// As much of it as is there.
    payload: &'a [u8],
}

impl<'a> Frame<'a> {
    fn parse(bytes: &'a [u8]) -> Option<Frame<'a>> {
        let (head, rest) = bytes.split_first_chunk::<HEAD>()?;
        let [l0, l1, l2, kind, flags, s0, s1, s2, s3] = *head;
        let payload = u32::from_be_bytes([0, l0, l1, l2]) as usize;
        Some(Frame {
            kind,
            flags,
            stream: u32::from_be_bytes([s0, s1, s2, s3]),
            length: HEAD + payload,
            payload: &rest[..payload.min(rest.len())],
        })
    }
}

impl Frames {
    /// Pure: asking again, after a write that had to wait, gives the same.
    pub(super) fn next<'a>(&self, bytes: &'a [u8]) -> Next<'a> {
        let mut passed = self.rest;
        if self.lost || passed >= bytes.len() {
            return Next::Pass(bytes.len());
        }
        while let Some(frame) = Frame::parse(&bytes[passed..]) {
            if let Some(exchange) = self.exchange(frame) {
                return if passed == 0 {
                    exchange
                } else {
                    Next::Pass(passed)
                };
            }
            passed += frame.length;
            if passed >= bytes.len() {
                return Next::Pass(bytes.len());
            }
        }
        // Half a head is the library's to complete, unless it has nothing else to offer.
        Next::Pass(if passed == 0 { bytes.len() } else { passed })
    }

    fn exchange<'a>(&self, frame: Frame<'a>) -> Option<Next<'a>> {
        let Frame {
            kind,
            flags,
            stream,
            length,
            payload,
        } = frame;
        if length - HEAD != payload.len() {
            return None;
        }
        match kind {
            HEADERS if flags & END_STREAM != 0 && payload.len() < LEAST_WITH_ID => {
                Some(Next::Answer(Bare {
                    length,
                    stream,
                    block: payload,
                }))
            }
            RST_STREAM if payload == PROTOCOL_ERROR && self.exchanged.contains(&stream) => {
                Some(Next::Reset(stream))
            }
            _ => None,
        }
    }

    /// The first `sent` of `bytes`, which [`Frames::next`] let pass, have gone out.
    pub(super) fn passed(&mut self, bytes: &[u8], sent: usize) {
        let mut at = self.rest;
        while at < sent && !self.lost {
            let Some(frame) = Frame::parse(&bytes[at..]) else {
                self.lost = true;
                break;
            };
            if frame.kind == GOAWAY && frame.payload.get(4..8).is_some_and(|code| code != NO_ERROR)
            {
                self.ended_by_error = true;
            }
            at += frame.length;
        }
        self.rest = at.saturating_sub(sent);
    }

    /// The connection's end was announced as the sender's error.
    pub(super) fn ended_by_error(&self) -> bool {
        self.ended_by_error
    }

    /// The two frames of an answer of ours, in the place of the library's own; both are far below the 16 KiB that every
    /// sender takes as a frame.
    ///
    /// The library's flow control knows nothing of the body's 200 bytes. On the stream they are the only ones. On the
    /// connection a sender gives back what it has read, so the library counts on more than there is by what is on its way:
    /// with all our answers of that size, that is far from the 64 KiB that a connection begins with.
    pub(super) fn answer(&mut self, bare: &Bare<'_>, response: &Response<Bytes>) -> Bytes {
        let Bare { stream, block, .. } = *bare;
        if self.exchanged.len() == RESETS_AWAITED {
            self.exchanged.pop_front();
        }
        self.exchanged.push_back(stream);
        let mut headers = block.to_vec();
        let length = response.body().len().to_string();
        let own = response.headers().iter();
        let own = own.map(|(name, value)| (name.as_str(), value.as_bytes()));
        for (name, value) in own.chain([("content-length", length.as_bytes())]) {
            // A field in full, which no later one can refer to: the library's own table stays as it is.
            headers.push(0);
            string(name.as_bytes(), &mut headers);
            string(value, &mut headers);
        }
        let mut frames = Vec::with_capacity(2 * HEAD + headers.len() + response.body().len());
        frame(HEADERS, END_HEADERS, stream, &headers, &mut frames);
        frame(DATA, END_STREAM, stream, response.body(), &mut frames);
        frames.into()
    }

    /// The reset that asks a sender to stop sending its body, and is no error.
    pub(super) fn reset(&mut self, stream: u32) -> Bytes {
        self.exchanged.retain(|other| *other != stream);
        let mut frames = Vec::with_capacity(RESET_LENGTH);
        frame(RST_STREAM, 0, stream, &NO_ERROR, &mut frames);
        frames.into()
    }
}

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8], frames: &mut Vec<u8>) {
    let [_, length @ ..] = (payload.len() as u32).to_be_bytes();
    frames.extend_from_slice(&length);
    frames.extend_from_slice(&[kind, flags]);
    frames.extend_from_slice(&stream.to_be_bytes());
    frames.extend_from_slice(payload);
}

/// A text as it is, after its length: 7 bits of it, and the rest in groups of 7, the lowest first (RFC 7541, 5.1).
fn string(text: &[u8], block: &mut Vec<u8>) {
    const FIRST: usize = 127;
    if text.len() < FIRST {
        block.push(text.len() as u8);
    } else {
        block.push(FIRST as u8);
        let mut rest = text.len() - FIRST;
        while rest >= 128 {
            block.push(rest as u8 | 128);
            rest >>= 7;
        }
        block.push(rest as u8);
    }
    block.extend_from_slice(text);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn made(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
        let mut frames = Vec::new();
        frame(kind, flags, stream, payload, &mut frames);
        frames
    }

    /// What a connection may write, and what should arrive.
    fn output() -> (Vec<u8>, Vec<u8>) {
        let settings = made(4, 0, 0, &[7; 12]);
        let ours = made(HEADERS, END_HEADERS, 1, &[1; 40]);
        let bare_looking = made(HEADERS, END_HEADERS | END_STREAM, 9, &[2; 5]);
        let body = made(DATA, END_STREAM, 1, &bare_looking.repeat(3));
        let bare = made(HEADERS, END_HEADERS | END_STREAM, 3, b"block");
        let reset = made(RST_STREAM, 0, 3, &PROTOCOL_ERROR);
        let other_reset = made(RST_STREAM, 0, 1, &PROTOCOL_ERROR);
        let empty = made(DATA, END_STREAM, 1, b"");
        let envelope = [
            made(
                HEADERS,
                END_HEADERS,
                3,
                b"block\x00\x0cx-request-id\x05req_1\x00\x0econtent-length\x014",
            ),
            made(DATA, END_STREAM, 3, b"body"),
        ]
        .concat();
        let calm = made(RST_STREAM, 0, 3, &NO_ERROR);
        let written = [
            &settings,
            &ours,
            &body,
            &bare,
            &empty,
            &other_reset,
            &reset,
            &reset,
            &ours,
        ];
        let arrived = [
            &settings,
            &ours,
            &body,
            &envelope,
            &empty,
            &other_reset,
            &calm,
            &reset,
            &ours,
        ];
        (
            written.map(|f| &f[..]).concat(),
            arrived.map(|f| &f[..]).concat(),
        )
    }

    /// Offers `written` in blocks that end at `block_ends`; the socket takes `taken` bytes at a time.
    fn through(written: &[u8], block_ends: &[usize], taken: usize) -> Vec<u8> {
        let mut response = Response::new(Bytes::from_static(b"body"));
        response
            .headers_mut()
            .insert("x-request-id", "req_1".parse().unwrap());
        let mut frames = Frames::default();
        let (mut at, mut arrived) = (0, Vec::new());
        for end in block_ends {
            while at < *end {
                let bytes = &written[at..*end];
                match frames.next(bytes) {
                    Next::Pass(length) => {
                        let sent = length.min(taken);
                        frames.passed(bytes, sent);
                        arrived.extend_from_slice(&bytes[..sent]);
                        at += sent;
                    }
                    Next::Answer(bare) => {
                        arrived.extend(frames.answer(&bare, &response));
                        at += bare.length;
                    }
                    Next::Reset(stream) => {
                        arrived.extend(frames.reset(stream));
                        at += RESET_LENGTH;
                    }
                }
            }
        }
        assert!(!frames.lost);
        arrived
    }

    #[test]
    fn only_a_bare_answer_and_its_reset_are_exchanged_however_much_a_socket_takes() {
        let (written, arrived) = output();
        for taken in 1..=written.len() {
            let through = through(&written, &[written.len()], taken);
            assert_eq!(
                through.escape_ascii().to_string(),
                arrived.escape_ascii().to_string(),
                "{taken}"
            );
        }
    }

    #[test]
    fn frames_may_be_offered_one_by_one_and_their_payloads_in_parts() {
        let (written, arrived) = output();
        let mut ends = Vec::new();
        let mut at = 0;
        while let Some(frame) = Frame::parse(&written[at..]) {
            if frame.kind == DATA {
                ends.push(at + HEAD);
            }
            at += frame.length;
            ends.push(at);
        }
        for taken in [1, 5, 9, 10, 1000] {
            assert!(through(&written, &ends, taken) == arrived, "{taken}");
        }
    }

    #[test]
    fn half_a_head_goes_out_as_it_is_and_ends_the_looking() {
        let bare = made(HEADERS, END_HEADERS | END_STREAM, 3, b"block");
        let mut frames = Frames::default();
        assert_eq!(frames.next(&bare[..4]), Next::Pass(4));
        frames.passed(&bare[..4], 4);
        assert_eq!(frames.next(&bare[4..]), Next::Pass(bare.len() - 4));
        // Behind a whole frame it is left for the next write, which has more of it.
        let two = [made(4, 0, 0, b""), bare].concat();
        assert_eq!(Frames::default().next(&two[..HEAD + 4]), Next::Pass(HEAD));
    }

    #[test]
    fn an_end_by_error_is_told_from_an_orderly_one() {
        for (code, error) in [(NO_ERROR, false), (PROTOCOL_ERROR, true)] {
            let goaway = made(GOAWAY, 0, 0, &[&[0, 0, 0, 5], &code[..], b"why"].concat());
            let mut frames = Frames::default();
            frames.passed(&goaway, goaway.len());
            assert_eq!(frames.ended_by_error(), error);
        }
    }

    #[test]
    fn resets_that_never_come_are_forgotten() {
        let mut frames = Frames::default();
        let response = Response::new(Bytes::new());
        for stream in 0..1000 {
            let bare = Bare {
                length: HEAD,
                stream,
                block: b"",
            };
            frames.answer(&bare, &response);
        }
        assert_eq!(frames.exchanged.len(), RESETS_AWAITED);
    }

    #[test]
    fn long_texts_have_long_lengths() {
        for (length, bytes) in [
            (126, &[126][..]),
            (127, &[127, 0]),
            (254, &[127, 127]),
            (255, &[127, 128, 1]),
            (1337, &[127, 0xba, 9]),
        ] {
            let mut block = Vec::new();
            string(&vec![b'x'; length], &mut block);
            assert_eq!(&block[..block.len() - length], bytes);
        }
    }
}
