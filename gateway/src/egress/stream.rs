//! An open connection to a destination: what opening it cost, and whether it died while nobody used it.
//!
//! Receivers close connections that were idle for some time, and when they restart. A request that is on its way at that
//! moment fails although nobody looked at it, or so it seems from here: no byte of an answer came. hyper's client notices
//! when nothing was written yet and takes another connection by itself; [`met_closed_connection`] finds the rest.

use hyper_util::client::legacy::{
    self,
    connect::{Connected, Connection},
};
use service::clock;
use std::{
    error::Error,
    io,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll},
    time::{Duration, Instant},
};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
};
use tokio_rustls::client::TlsStream;

/// What is known of an open connection. Rides on every response and on every failure of that connection.
#[derive(Debug, Clone)]
pub struct Opened(Arc<State>);

#[derive(Debug)]
struct State {
    steps: Steps,
    at: Instant,
    /// An answer has come on it. The flags are hints of one connection's own order of events: `Relaxed` is enough.
    used: AtomicBool,
    /// Bytes came since something was last written.
    answering: AtomicBool,
}

/// How long opening a connection took.
#[derive(Debug, Clone, Copy, Default)]
pub struct Steps {
    /// `None`: the URL named an address.
    pub dns: Option<Duration>,
    pub connect: Duration,
    /// `None`: plain http.
    pub tls: Option<Duration>,
}

impl Opened {
    fn now(steps: Steps) -> Opened {
        Opened(Arc::new(State {
            steps,
            at: clock::instant(),
            used: AtomicBool::new(false),
            answering: AtomicBool::new(false),
        }))
    }

    /// The steps, once: later requests on the same connection paid nothing for it.
    pub fn first_use(&self) -> Option<Steps> {
        (!self.0.used.swap(true, Ordering::Relaxed)).then_some(self.0.steps)
    }
}

/// Whether a request that began at `began` failed because its connection, open since before it, was closed before any
/// byte of the answer came. Then it is as good as not sent: once more, on a new connection, is worth trying.
pub fn met_closed_connection(error: &legacy::Error, began: Instant) -> bool {
    let Some(info) = error.connect_info() else {
        return false;
    };
    let mut extras = http::Extensions::new();
    info.get_extras(&mut extras);
    let Some(Opened(state)) = extras.get::<Opened>() else {
        return false;
    };
    if !state.used.load(Ordering::Relaxed) && state.at >= began {
        return false;
    }
    let causes = || {
        std::iter::successors(error.source(), |cause| {
            let cause: &(dyn Error + 'static) = *cause;
            cause.source()
        })
    };
    if info.is_negotiated_h2() {
        // Bytes come for other requests too. A stream that is reset for another reason is the receiver's answer.
        causes().any(|cause| match cause.downcast_ref::<h2::Error>() {
            Some(h2) => {
                let refused = h2.reason() == Some(h2::Reason::REFUSED_STREAM);
                h2.is_remote() && (h2.is_go_away() || refused)
            }
            None => cause.is::<io::Error>(),
        })
    } else {
        let ours = causes().any(|cause| {
            cause
                .downcast_ref::<hyper::Error>()
                .is_some_and(hyper::Error::is_user)
        });
        !ours && !state.answering.load(Ordering::Relaxed)
    }
}

enum Transport {
    Plain(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
}

/// An open connection that knows what opening it cost, and whether an answer has begun to come.
pub struct Stream {
    inner: Transport,
    opened: Opened,
}

impl Stream {
    pub(super) fn plain(stream: TcpStream, steps: Steps) -> Stream {
        Stream {
            inner: Transport::Plain(stream),
            opened: Opened::now(steps),
        }
    }

    pub(super) fn tls(stream: TlsStream<TcpStream>, steps: Steps) -> Stream {
        Stream {
            inner: Transport::Tls(Box::new(stream)),
            opened: Opened::now(steps),
        }
    }
}

impl Connection for Stream {
    fn connected(&self) -> Connected {
        let connected = Connected::new().extra(self.opened.clone());
        match &self.inner {
            Transport::Tls(tls) if tls.get_ref().1.alpn_protocol() == Some(b"h2") => {
                connected.negotiated_h2()
            }
            Transport::Tls(_) | Transport::Plain(_) => connected,
        }
    }
}

impl AsyncRead for Stream {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let before = buf.filled().len();
        let read = match &mut this.inner {
            Transport::Plain(stream) => Pin::new(stream).poll_read(cx, buf),
            Transport::Tls(stream) => Pin::new(stream.as_mut()).poll_read(cx, buf),
        };
        if buf.filled().len() > before {
            this.opened.0.answering.store(true, Ordering::Relaxed);
        }
        read
    }
}

impl AsyncWrite for Stream {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        this.opened.0.answering.store(false, Ordering::Relaxed);
        match &mut this.inner {
            Transport::Plain(stream) => Pin::new(stream).poll_write(cx, buf),
            Transport::Tls(stream) => Pin::new(stream.as_mut()).poll_write(cx, buf),
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        this.opened.0.answering.store(false, Ordering::Relaxed);
        match &mut this.inner {
            Transport::Plain(stream) => Pin::new(stream).poll_write_vectored(cx, bufs),
            Transport::Tls(stream) => Pin::new(stream.as_mut()).poll_write_vectored(cx, bufs),
        }
    }

    fn is_write_vectored(&self) -> bool {
        match &self.inner {
            Transport::Plain(stream) => stream.is_write_vectored(),
            Transport::Tls(stream) => stream.is_write_vectored(),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.get_mut().inner {
            Transport::Plain(stream) => Pin::new(stream).poll_flush(cx),
            Transport::Tls(stream) => Pin::new(stream.as_mut()).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.get_mut().inner {
            Transport::Plain(stream) => Pin::new(stream).poll_shutdown(cx),
            Transport::Tls(stream) => Pin::new(stream.as_mut()).poll_shutdown(cx),
        }
    }
}
