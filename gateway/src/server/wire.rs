//! A socket between the kernel and hyper, which adds what hyper leaves out.
//!
//! - hyper answers what isn't HTTP, or a head beyond the limits, by itself, with an empty body. Here that answer is
//!   exchanged for the error envelope with a request id. It is recognised by what all of our own answers have and it
//!   hasn't: `x-request-id`. On HTTP/2 connections this is done frame by frame ([`Frames`]).
//! - A head that doesn't arrive in time gets a 408 before the connection ends.
//! - After an error the rest of what the sender sends is read and thrown away for a moment. Closing a socket on unread
//!   bytes resets it, and the sender would never see the answer that says what was wrong.

use super::frames::{Frames, Next, RESET_LENGTH};
use crate::{args::Limits, errors::Refusal, ingest::Ingest};
use bytes::{Buf, Bytes};
use http::StatusCode;
use std::{
    fmt, io,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU32, Ordering},
    },
    task::{Context, Poll, ready},
    time::Duration,
};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
    time::Sleep,
};

/// How long, and how much, is read and thrown away after an error.
const LINGER: Duration = Duration::from_secs(2);
const LINGER_BYTES: usize = 64 << 20;

/// What happens on a connection, as seen by wire, service and watch. All of them run in the connection's task (HTTP/2:
/// mostly), so `Relaxed` is enough.
#[derive(Debug, Default)]
pub(super) struct Activity {
    /// HTTP/2: bytes between requests are acknowledgements and pings, not a head that could be late.
    multiplexed: bool,
    requests: AtomicU32,
    /// Bytes came that belong to no request yet.
    reading_head: AtomicBool,
    /// Grows whenever one of the two changes.
    changes: AtomicU32,
    expired: AtomicBool,
    /// An error was answered, perhaps before the request was read to its end.
    linger: AtomicBool,
}

impl Activity {
    pub(super) fn new(multiplexed: bool) -> Activity {
        Activity {
            multiplexed,
            ..Activity::default()
        }
    }

    /// A request's head is complete.
    pub(super) fn begin(self: &Arc<Activity>) -> InRequest {
        self.reading_head.store(false, Ordering::Relaxed);
        self.requests.fetch_add(1, Ordering::Relaxed);
        self.changes.fetch_add(1, Ordering::Relaxed);
        InRequest(self.clone())
    }

    /// The head being read took too long.
    pub(super) fn expire(&self) {
        self.expired.store(true, Ordering::Relaxed);
    }

    fn arrived(&self) {
        if !self.multiplexed
            && self.requests.load(Ordering::Relaxed) == 0
            && !self.reading_head.swap(true, Ordering::Relaxed)
        {
            self.changes.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// A request in the service's hands; it ends when this is dropped.
pub(super) struct InRequest(Arc<Activity>);

impl InRequest {
    pub(super) fn answered(&mut self, status: StatusCode) {
        if !status.is_success() {
            self.0.linger.store(true, Ordering::Relaxed);
        }
    }
}

impl Drop for InRequest {
    fn drop(&mut self) {
        self.0.requests.fetch_sub(1, Ordering::Relaxed);
        self.0.changes.fetch_add(1, Ordering::Relaxed);
    }
}

/// For how many ticks a connection has stood as it stands.
#[derive(Debug, Default)]
pub(super) struct Standing {
    changes: u32,
    ticks: u32,
}

#[derive(Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    Fine,
    Idle,
    HeadTooSlow,
    /// Told to end and didn't: its answer is not being read.
    Stuck,
}

impl Standing {
    /// Called once per `tick`. A request in the service's hands has time limits of its own.
    pub(super) fn judge(
        &mut self,
        activity: &Activity,
        tick: Duration,
        limits: &Limits,
    ) -> Verdict {
        let changes = activity.changes.load(Ordering::Relaxed);
        if changes != self.changes || activity.requests.load(Ordering::Relaxed) > 0 {
            *self = Standing { changes, ticks: 0 };
            return Verdict::Fine;
        }
        self.ticks += 1;
        let stood = tick * self.ticks;
        let reading_head = activity.reading_head.load(Ordering::Relaxed);
        let limit = if reading_head {
            limits.head_timeout
        } else {
            limits.idle_timeout
        };
        match stood {
            _ if stood > limit + LINGER * 2 => Verdict::Stuck,
            _ if stood <= limit => Verdict::Fine,
            _ if reading_head => Verdict::HeadTooSlow,
            _ => Verdict::Idle,
        }
    }
}

pub(super) struct Wire {
    stream: TcpStream,
    /// What was read to find out the protocol.
    read_before: Bytes,
    activity: Arc<Activity>,
    ingest: Arc<Ingest>,
    /// HTTP/2's output.
    frames: Option<Frames>,
    /// An answer of ours that is being sent in place of hyper's.
    answer: Option<Bytes>,
    /// HTTP/2: how many bytes of hyper's it replaces.
    replaces: usize,
    ended: bool,
    lingering: Option<(Pin<Box<Sleep>>, usize)>,
}

impl fmt::Debug for Wire {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Wire")
            .field("stream", &self.stream)
            .field("activity", &self.activity)
            .finish_non_exhaustive()
    }
}

impl Wire {
    pub(super) fn new(
        stream: TcpStream,
        read_before: Vec<u8>,
        activity: Arc<Activity>,
        ingest: Arc<Ingest>,
    ) -> Wire {
        activity.arrived();
        Wire {
            stream,
            read_before: read_before.into(),
            frames: activity.multiplexed.then(Frames::default),
            activity,
            ingest,
            answer: None,
            replaces: 0,
            ended: false,
            lingering: None,
        }
    }

    /// What hyper refuses by itself, if these bytes are such an answer of its own.
    fn automatic(&self, bytes: &[u8]) -> Option<Refusal> {
        let status = bytes
            .strip_prefix(b"HTTP/1.1 ")
            .or_else(|| bytes.strip_prefix(b"HTTP/1.0 "))?;
        let limits = self.ingest.limits();
        let refusal = match status.get(..4)? {
            b"400 " => Refusal::Malformed,
            b"414 " => Refusal::UriTooLong {
                max_bytes: limits.max_target_bytes(),
            },
            b"431 " => headers_too_large(limits),
            _ => return None,
        };
        let ours = bytes
            .windows(12)
            .any(|window| window.eq_ignore_ascii_case(b"x-request-id"));
        (!ours).then_some(refusal)
    }

    /// Sends the rest of our own answer, if there is one.
    fn poll_answer(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while let Some(answer) = &mut self.answer {
            let sent = ready!(Pin::new(&mut self.stream).poll_write(cx, answer))?;
            answer.advance(sent);
            if answer.is_empty() {
                self.answer = None;
            }
        }
        Poll::Ready(Ok(()))
    }

    /// Replaces hyper's answer by ours; `Some` when that is what this write was.
    fn poll_replaced(
        &mut self,
        cx: &mut Context<'_>,
        bytes: &[u8],
        length: usize,
    ) -> Poll<Option<io::Result<usize>>> {
        if self.answer.is_none() {
            let Some(refusal) = self.automatic(bytes) else {
                return Poll::Ready(None);
            };
            self.activity.linger.store(true, Ordering::Relaxed);
            self.answer = Some(self.ingest.refuse_connection(&refusal));
        }
        Poll::Ready(Some(ready!(self.poll_answer(cx)).map(|()| length)))
    }

    /// Writes HTTP/2's frames up to one that is replaced, or that one.
    fn poll_frames(&mut self, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let Some(frames) = &mut self.frames else {
            return Pin::new(&mut self.stream).poll_write(cx, bytes);
        };
        if self.answer.is_none() {
            match frames.next(bytes) {
                Next::Pass(length) => {
                    let sent = ready!(Pin::new(&mut self.stream).poll_write(cx, &bytes[..length]))?;
                    frames.passed(bytes, sent);
                    if frames.ended_by_error() {
                        self.activity.linger.store(true, Ordering::Relaxed);
                    }
                    return Poll::Ready(Ok(sent));
                }
                Next::Answer(bare) => {
                    let refusal = headers_too_large(self.ingest.limits());
                    let response = self.ingest.refuse_stream(&refusal);
                    self.replaces = bare.length;
                    self.answer = Some(frames.answer(&bare, &response));
                }
                Next::Reset(stream) => {
                    self.replaces = RESET_LENGTH;
                    self.answer = Some(frames.reset(stream));
                }
            }
        }
        ready!(self.poll_answer(cx))?;
        Poll::Ready(Ok(self.replaces))
    }
}

fn headers_too_large(limits: &Limits) -> Refusal {
    Refusal::HeadersTooLarge {
        max_bytes: limits.max_header_bytes,
        max_count: limits.max_headers,
    }
}

impl AsyncRead for Wire {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        if this.activity.expired.swap(false, Ordering::Relaxed) && this.answer.is_none() {
            this.answer = Some(this.ingest.refuse_connection(&Refusal::HeadTimeout));
        }
        // HTTP/1 has no more to read when such an answer goes out; HTTP/2 goes on.
        if this.answer.is_some() && this.frames.is_none() {
            ready!(this.poll_answer(cx))?;
            return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
        }
        if !this.read_before.is_empty() {
            let length = this.read_before.len().min(buf.remaining());
            buf.put_slice(&this.read_before.split_to(length));
            return Poll::Ready(Ok(()));
        }
        let before = buf.filled().len();
        ready!(Pin::new(&mut this.stream).poll_read(cx, buf))?;
        if buf.filled().len() == before {
            this.ended = true;
        } else {
            this.activity.arrived();
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Wire {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        if self.frames.is_some() {
            return self.poll_frames(cx, bytes);
        }
        match ready!(self.poll_replaced(cx, bytes, bytes.len())) {
            Some(replaced) => Poll::Ready(replaced),
            None => Pin::new(&mut self.stream).poll_write(cx, bytes),
        }
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffers: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let first = buffers
            .iter()
            .find(|buffer| !buffer.is_empty())
            .map_or(&[][..], |buffer| buffer);
        if self.frames.is_some() {
            return self.poll_frames(cx, first);
        }
        let length = buffers.iter().map(|buffer| buffer.len()).sum();
        match ready!(self.poll_replaced(cx, first, length)) {
            Some(replaced) => Poll::Ready(replaced),
            None => Pin::new(&mut self.stream).poll_write_vectored(cx, buffers),
        }
    }

    fn is_write_vectored(&self) -> bool {
        // HTTP/2's small frames then come in one piece.
        self.frames.is_none() && self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        if this.lingering.is_none() {
            ready!(Pin::new(&mut this.stream).poll_shutdown(cx))?;
            if this.ended || !this.activity.linger.load(Ordering::Relaxed) {
                return Poll::Ready(Ok(()));
            }
            this.lingering = Some((Box::pin(tokio::time::sleep(LINGER)), 0));
        }
        let Some((deadline, read)) = &mut this.lingering else {
            return Poll::Ready(Ok(()));
        };
        let mut scrap = [0; 8192];
        loop {
            if *read > LINGER_BYTES || deadline.as_mut().poll(cx).is_ready() {
                return Poll::Ready(Ok(()));
            }
            let mut buf = ReadBuf::new(&mut scrap);
            match ready!(Pin::new(&mut this.stream).poll_read(cx, &mut buf)) {
                Ok(()) if !buf.filled().is_empty() => *read += buf.filled().len(),
                _ => return Poll::Ready(Ok(())),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TICK: Duration = Duration::from_secs(1);

    fn ticks_until(verdict: Verdict, activity: &Activity) -> u32 {
        let mut standing = Standing::default();
        (1..1000)
            .find(|_| standing.judge(activity, TICK, &Limits::default()) == verdict)
            .expect("it comes to that")
    }

    #[test]
    fn an_idle_connection_may_stay_longer_than_a_head_may_take() {
        let activity = Arc::new(Activity::default());
        assert_eq!(ticks_until(Verdict::Idle, &activity), 76);
        activity.arrived();
        // One more tick than the limit: the first of them sees the change.
        assert_eq!(ticks_until(Verdict::HeadTooSlow, &activity), 12);
    }

    #[test]
    fn a_request_in_hand_is_never_idle_and_its_end_begins_the_wait_anew() {
        let activity = Arc::new(Activity::default());
        activity.arrived();
        let request = activity.begin();
        let mut standing = Standing::default();
        for _ in 0..1000 {
            assert_eq!(
                standing.judge(&activity, TICK, &Limits::default()),
                Verdict::Fine
            );
        }
        drop(request);
        assert_eq!(ticks_until(Verdict::Idle, &activity), 77);
    }
}
