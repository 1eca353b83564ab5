//! The load: closed loop (so many connections, each sends its next request when the last is answered) and open loop
//! (so many requests a second whatever the answers do).
//!
//! In the open loop a request's time counts from the moment it was due, not from the moment it could be sent, so a stall
//! of the gateway shows in every request that it delayed ("coordinated omission", Gil Tene).

use crate::http1;
use hdrhistogram::Histogram;
use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};
use tokio::{io::AsyncWriteExt, time::Instant};

/// A request that is the same every time, but for the 16 hex digits at `stamp`, which count in the closed loop.
#[derive(Clone)]
pub(crate) struct Template {
    pub(crate) address: SocketAddr,
    pub(crate) bytes: Arc<[u8]>,
    stamp: Option<usize>,
}

/// What the digits replace.
pub(crate) const STAMP: &str = "0123456789abcdef";

impl Template {
    /// A POST with these headers (`name: value\r\n` lines) and body.
    pub(crate) fn post(address: SocketAddr, path: &str, headers: &str, body: &[u8]) -> Template {
        let mut bytes = format!("POST {path} HTTP/1.1\r\nhost: bench\r\ncontent-type: application/json\r\ncontent-length: {}\r\n{headers}\r\n", body.len()).into_bytes();
        bytes.extend_from_slice(body);
        let stamp = bytes
            .windows(STAMP.len())
            .position(|w| w == STAMP.as_bytes());
        Template {
            address,
            bytes: bytes.into(),
            stamp,
        }
    }
}

/// What a run of the load saw.
pub(crate) struct Seen {
    pub(crate) accepted: u64,
    pub(crate) refused: u64,
    pub(crate) seconds: f64,
    /// Microseconds from due (open) or sent (closed) to answered.
    pub(crate) micros: Histogram<u64>,
}

impl Seen {
    pub(crate) fn per_second(&self) -> f64 {
        self.accepted as f64 / self.seconds
    }
}

/// `connections` senders without a pause for `length`.
pub(crate) async fn closed(
    template: &Template,
    connections: usize,
    length: Duration,
) -> anyhow::Result<Seen> {
    let (start, end) = (Instant::now(), Instant::now() + length);
    let mut senders = tokio::task::JoinSet::new();
    for _ in 0..connections {
        let template = template.clone();
        senders.spawn(async move {
            let mut bytes = template.bytes.to_vec();
            let mut turn: u64 = rand::random();
            let (mut reader, mut writer) = http1::connect(template.address).await?;
            let (mut accepted, mut refused, mut micros) = (0, 0, histogram());
            while Instant::now() < end {
                if let Some(at) = template.stamp {
                    bytes[at..at + STAMP.len()].copy_from_slice(format!("{turn:016x}").as_bytes());
                    turn += 1;
                }
                let sent = Instant::now();
                writer.write_all(&bytes).await?;
                let Some(message) = reader.next().await? else {
                    anyhow::bail!("the gateway closed a connection")
                };
                match http1::status(reader.head(&message))? {
                    200..300 => accepted += 1,
                    _ => refused += 1,
                }
                micros.saturating_record(sent.elapsed().as_micros() as u64);
            }
            anyhow::Ok((accepted, refused, micros))
        });
    }
    let mut seen = Seen {
        accepted: 0,
        refused: 0,
        seconds: 0.0,
        micros: histogram(),
    };
    while let Some(sender) = senders.join_next().await {
        let (accepted, refused, micros) = sender??;
        seen.accepted += accepted;
        seen.refused += refused;
        seen.micros.add(micros)?;
    }
    seen.seconds = start.elapsed().as_secs_f64();
    Ok(seen)
}

/// `rate` requests a second for `length`, over as many connections as it takes (at most 64). Each body begins with the
/// due time in microseconds since `epoch`, so that the receiver can tell how long the whole way took.
pub(crate) async fn open(
    template: &OpenTemplate,
    rate: u32,
    length: Duration,
    epoch: Instant,
) -> anyhow::Result<Seen> {
    const CONNECTIONS: u64 = 64;
    let start = Instant::now() + Duration::from_millis(50);
    let total = u64::from(rate) * length.as_secs();
    let next = Arc::new(AtomicU64::new(0));
    let mut senders = tokio::task::JoinSet::new();
    for _ in 0..CONNECTIONS.min(total) {
        let (template, next) = (template.clone(), next.clone());
        senders.spawn(async move {
            let (mut reader, mut writer) = http1::connect(template.address).await?;
            let (mut accepted, mut refused, mut micros) = (0, 0, histogram());
            loop {
                let turn = next.fetch_add(1, Ordering::Relaxed);
                if turn >= total {
                    return anyhow::Ok((accepted, refused, micros));
                }
                let due = start + Duration::from_secs_f64(turn as f64 / f64::from(rate));
                tokio::time::sleep_until(due).await;
                let request = (template.make)(due.duration_since(epoch).as_micros() as u64);
                writer.write_all(&request).await?;
                let Some(message) = reader.next().await? else {
                    anyhow::bail!("the gateway closed a connection")
                };
                match http1::status(reader.head(&message))? {
                    200..300 => accepted += 1,
                    _ => refused += 1,
                }
                micros.saturating_record(due.elapsed().as_micros() as u64);
            }
        });
    }
    let mut seen = Seen {
        accepted: 0,
        refused: 0,
        seconds: length.as_secs_f64(),
        micros: histogram(),
    };
    while let Some(sender) = senders.join_next().await {
        let (accepted, refused, micros) = sender??;
        seen.accepted += accepted;
        seen.refused += refused;
        seen.micros.add(micros)?;
    }
    Ok(seen)
}

/// A request made anew each time, from its due time.
#[derive(Clone)]
pub(crate) struct OpenTemplate {
    pub(crate) address: SocketAddr,
    pub(crate) make: Arc<dyn Fn(u64) -> Vec<u8> + Send + Sync>,
}

pub(crate) fn histogram() -> Histogram<u64> {
    Histogram::new_with_bounds(1, 600_000_000, 3)
        .expect("the bounds are in order and three digits are allowed")
}
