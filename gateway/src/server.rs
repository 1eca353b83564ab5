//! The public port: accepts connections, within bounds, and speaks HTTP/1.1 and h2c on them.
//!
//! Which of the two a connection speaks is told by its first 24 bytes (HTTP/2's preface). hyper's own detection waits for
//! those without a time limit, and its HTTP/1 time limit for heads also closes idle connections; a load balancer keeps
//! those open for a minute and would answer 502. So both waits are told apart here ([`wire::Activity`]), with one coarse
//! timer per connection and no clock read per request.
//!
//! Drain: no more connections; those that are open finish their request and close.

mod frames;
pub mod proxy_protocol;
mod wire;

use crate::{
    args::Limits,
    errors::Refusal,
    ingest::{Ingest, client},
};
use hyper::{
    body::Incoming,
    server::conn::{http1, http2},
    service::service_fn,
};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use proxy_protocol::Parsed;
use std::{
    convert::Infallible,
    future::Future,
    net::SocketAddr,
    pin::{Pin, pin},
    sync::Arc,
    time::Duration,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::Semaphore,
    time::{MissedTickBehavior, interval_at},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use wire::{Activity, Standing, Wire};

const PREFACE: &[u8; 24] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// Connections beyond the limit that are being told so; more are closed without a word.
const TURNED_AWAY_AT_ONCE: usize = 64;

/// Requests of one HTTP/2 connection at once; its sender waits for the others. Few enough that it takes many connections
/// to take every place of `max_requests`, enough for ten thousand requests a second at the time a commit takes.
const STREAMS: u32 = 64;

/// Serves until `drain` is cancelled and every connection has ended; `abort` ends them at once.
pub async fn serve(
    listener: TcpListener,
    ingest: Arc<Ingest>,
    drain: CancellationToken,
    abort: CancellationToken,
) {
    let server = Arc::new(Server {
        connections: Semaphore::new(ingest.limits().max_connections),
        turning_away: Semaphore::new(TURNED_AWAY_AT_ONCE),
        http1: http1_builder(ingest.limits()),
        http2: http2_builder(ingest.limits()),
        ingest,
        drain,
        abort,
    });
    let tasks = TaskTracker::new();
    loop {
        let accepted = tokio::select! {
            biased;
            () = server.drain.cancelled() => break,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((stream, peer)) => {
                tasks.spawn(server.clone().connection(stream, peer));
            }
            Err(error) => {
                // Out of file descriptors, or the sender is gone already. Without a pause the first would spin.
                tracing::warn!(%error, "accepting a connection");
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }
    }
    drop(listener);
    tasks.close();
    tasks.wait().await;
}

struct Server {
    ingest: Arc<Ingest>,
    connections: Semaphore,
    turning_away: Semaphore,
    http1: http1::Builder,
    http2: http2::Builder<TokioExecutor>,
    drain: CancellationToken,
    abort: CancellationToken,
}

fn http1_builder(limits: &Limits) -> http1::Builder {
    let mut builder = http1::Builder::new();
    builder
        .timer(TokioTimer::new())
        .header_read_timeout(None)
        .max_headers(limits.max_headers)
        .max_header_size(limits.max_header_bytes)
        // The head's limit plus what a read may bring besides; it also bounds what a body is read in.
        .max_buf_size(limits.max_header_bytes.saturating_add(16 << 10));
    builder
}

fn http2_builder(limits: &Limits) -> http2::Builder<TokioExecutor> {
    let mut builder = http2::Builder::new(TokioExecutor::new());
    builder
        .timer(TokioTimer::new())
        .max_concurrent_streams(STREAMS)
        // A body that waits for the object store stops reading, and must not stop the connection's others.
        .initial_stream_window_size(128 << 10)
        .initial_connection_window_size(4 << 20)
        // A peer that vanished, or that stopped in the middle of a frame, is found out by these.
        .keep_alive_interval(Duration::from_secs(20))
        .keep_alive_timeout(Duration::from_secs(20))
        // Twice our limit, and HTTP/2 counts 32 bytes more a line. Below this our own check answers; beyond it the protocol
        // library does, and `frames` exchanges what it says. A head that unpacks to four times this in one frame, or that
        // comes in more frames than this needs and a quarter, ends the connection without an answer. So a connection holds
        // no more than this for each of its streams, and for as long as it takes to refuse it.
        .max_header_list_size(
            u32::try_from(
                limits
                    .max_header_bytes
                    .saturating_mul(2)
                    .saturating_add(limits.max_headers.saturating_mul(64)),
            )
            .unwrap_or(u32::MAX),
        );
    builder
}

enum Version {
    Http1,
    Http2,
}

/// What a connection speaks, as soon as its first bytes say it.
fn version(read: &[u8]) -> Option<Version> {
    if !read.starts_with(&PREFACE[..read.len().min(PREFACE.len())]) {
        Some(Version::Http1)
    } else if read.len() >= PREFACE.len() {
        Some(Version::Http2)
    } else {
        None
    }
}

impl Server {
    async fn connection(self: Arc<Self>, stream: TcpStream, peer: SocketAddr) {
        let Ok(_permit) = self.connections.try_acquire() else {
            return self.turn_away(stream).await;
        };
        let _open = Open::new(&self.ingest.metrics().ingest.connections);
        // Answers are small and complete: waiting to fill a packet only delays them.
        let _ = stream.set_nodelay(true);
        tokio::select! {
            () = self.abort.cancelled() => {}
            () = self.talk(stream, peer) => {}
        }
    }

    async fn talk(&self, mut stream: TcpStream, peer: SocketAddr) {
        let Some((peer, read)) = self.sender(&mut stream, peer).await else {
            return;
        };
        let Some((version, read)) = self.sniff(&mut stream, read).await else {
            return;
        };
        let activity = Arc::new(Activity::new(matches!(version, Version::Http2)));
        let ingest = self.ingest.clone();
        let wire = TokioIo::new(Wire::new(stream, read, activity.clone(), ingest));
        let service = {
            let (ingest, activity) = (self.ingest.clone(), activity.clone());
            service_fn(move |request: hyper::Request<Incoming>| {
                let (ingest, mut request_activity) = (ingest.clone(), activity.begin());
                async move {
                    let response = ingest.handle(request, peer).await;
                    request_activity.answered(response.status());
                    Ok::<_, Infallible>(response)
                }
            })
        };
        match version {
            Version::Http1 => {
                self.watch(
                    self.http1.serve_connection(wire, service),
                    |connection| connection.graceful_shutdown(),
                    &activity,
                )
                .await
            }
            Version::Http2 => {
                self.watch(
                    self.http2.serve_connection(wire, service),
                    |connection| connection.graceful_shutdown(),
                    &activity,
                )
                .await
            }
        }
    }

    /// Drives a connection to its end, and asks for the end when we drain or when it is idle or too slow.
    async fn watch<C>(&self, connection: C, shut_down: impl Fn(Pin<&mut C>), activity: &Activity)
    where
        C: Future<Output = hyper::Result<()>>,
    {
        let limits = self.ingest.limits();
        let period = tick(limits);
        let mut tick = interval_at(tokio::time::Instant::now() + period, period);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut standing = Standing::default();
        let mut connection = pin!(connection);
        let mut draining = false;
        loop {
            tokio::select! {
                biased;
                ended = connection.as_mut() => {
                    if let Err(error) = ended {
                        tracing::debug!(error = service::log::chain(&error), "a connection ended early");
                    }
                    return;
                }
                () = self.drain.cancelled(), if !draining => {
                    draining = true;
                    shut_down(connection.as_mut());
                }
                _ = tick.tick() => match standing.judge(activity, period, limits) {
                    wire::Verdict::Fine => {}
                    wire::Verdict::Idle => shut_down(connection.as_mut()),
                    // The wire answers 408 at its next read, which is now.
                    wire::Verdict::HeadTooSlow => activity.expire(),
                    wire::Verdict::Stuck => return,
                },
            }
        }
    }

    /// Whose connection it is, and what was read of it behind a head of PROXY protocol. Without the whole of one in time, a
    /// trusted proxy's connection is closed: whoever wrote it doesn't mean HTTP, and its address would be the proxy's.
    async fn sender(
        &self,
        stream: &mut TcpStream,
        peer: SocketAddr,
    ) -> Option<(SocketAddr, Vec<u8>)> {
        let proxies = self.ingest.proxies();
        if !proxies.protocol || !client::is_trusted(&peer.ip(), &proxies.trusted) {
            return Some((peer, Vec::with_capacity(PREFACE.len())));
        }
        let mut read = Vec::with_capacity(256);
        let head = async {
            loop {
                match stream.read_buf(&mut read).await {
                    // A load balancer looks now and then whether the port is open, and says nothing.
                    Ok(0) | Err(_) if read.is_empty() => return Ok(None),
                    Ok(0) | Err(_) => return Err("proxy_head_malformed"),
                    Ok(_) => {}
                }
                match proxy_protocol::parse(&read) {
                    Parsed::Head { sender, bytes } => {
                        return Ok(Some((sender.unwrap_or(peer), bytes)));
                    }
                    Parsed::Malformed => return Err("proxy_head_malformed"),
                    Parsed::Incomplete => {}
                }
            }
        };
        let told = tokio::select! {
            biased;
            told = tokio::time::timeout(self.ingest.limits().head_timeout, head) => told,
            () = self.drain.cancelled() => return None,
        };
        match told.unwrap_or(Err("proxy_head_timeout")) {
            Ok(sender) => sender.map(|(sender, bytes)| (sender, read.split_off(bytes))),
            Err(reason) => {
                if !read.is_empty() {
                    self.ingest.count_closed(reason);
                    tracing::debug!(%peer, reason, "a proxy's connection is closed");
                }
                None
            }
        }
    }

    /// Reads the first bytes until it is clear what they begin; `None`: the connection is over. `read` was read already.
    async fn sniff(&self, stream: &mut TcpStream, mut read: Vec<u8>) -> Option<(Version, Vec<u8>)> {
        let limits = self.ingest.limits();
        loop {
            if let Some(version) = version(&read) {
                return Some((version, read));
            }
            // A connection that has never said a word hasn't earned the patience that one between two requests has.
            let patience = limits.head_timeout;
            let arrived = tokio::select! {
                biased;
                arrived = tokio::time::timeout(patience, stream.read_buf(&mut read)) => arrived,
                () = self.drain.cancelled() => return None,
            };
            match arrived {
                Ok(Ok(0) | Err(_)) => return None,
                Ok(Ok(_)) => {}
                Err(_) if read.is_empty() => return None,
                Err(_) => {
                    let answer = self.ingest.refuse_connection(&Refusal::HeadTimeout);
                    let _ = stream.write_all(&answer).await;
                    return None;
                }
            }
        }
    }

    /// Says 503 to a connection beyond the limit, and reads what the sender sent meanwhile: closing on unread bytes
    /// would take the answer away from it.
    async fn turn_away(&self, mut stream: TcpStream) {
        let answer = self.ingest.refuse_connection(&Refusal::TooManyConnections);
        let Ok(_permit) = self.turning_away.try_acquire() else {
            return;
        };
        let tell = async {
            let mut rest = [0; 4096];
            stream.write_all(&answer).await?;
            stream.shutdown().await?;
            while stream.read(&mut rest).await? > 0 {}
            std::io::Result::Ok(())
        };
        let _ = tokio::time::timeout(Duration::from_secs(1), tell).await;
    }
}

/// How often a connection's progress is looked at: often enough for its time limits, seldom enough to cost nothing.
fn tick(limits: &Limits) -> Duration {
    (limits.head_timeout.min(limits.idle_timeout) / 4)
        .clamp(Duration::from_millis(10), Duration::from_secs(1))
}

struct Open<'a>(&'a prometheus::IntGauge);

impl<'a> Open<'a> {
    fn new(gauge: &'a prometheus::IntGauge) -> Open<'a> {
        gauge.inc();
        Open(gauge)
    }
}

impl Drop for Open<'_> {
    fn drop(&mut self) {
        self.0.dec();
    }
}
