//! The destination of the deliveries: answers 200 at once, counts, and notes how long the way took where the body says
//! when the event was due.

use crate::{http1, load};
use hdrhistogram::Histogram;
use std::{
    net::SocketAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
};
use tokio::{
    io::AsyncWriteExt,
    net::TcpListener,
    sync::Notify,
    time::{Duration, Instant},
};

#[derive(Clone)]
pub(crate) struct Receiver {
    pub(crate) address: SocketAddr,
    shared: Arc<Shared>,
}

struct Shared {
    epoch: Instant,
    received: AtomicU64,
    arrived: Notify,
    micros: Mutex<Histogram<u64>>,
}

impl Receiver {
    pub(crate) async fn start(epoch: Instant) -> anyhow::Result<Receiver> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let shared = Arc::new(Shared {
            epoch,
            received: AtomicU64::new(0),
            arrived: Notify::new(),
            micros: Mutex::new(load::histogram()),
        });
        let receiver = Receiver {
            address: listener.local_addr()?,
            shared: shared.clone(),
        };
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let shared = shared.clone();
                tokio::spawn(async move {
                    let _ = stream.set_nodelay(true);
                    // The gateway closing an idle connection is no error here.
                    let _ = answer(http1::split(stream), &shared).await;
                });
            }
        });
        Ok(receiver)
    }

    pub(crate) fn received(&self) -> u64 {
        self.shared.received.load(Ordering::Relaxed)
    }

    /// Waits until `count` have arrived in all, and says when.
    pub(crate) async fn until(&self, count: u64, limit: Duration) -> anyhow::Result<Instant> {
        let wait = async {
            loop {
                let arrived = self.shared.arrived.notified();
                if self.received() >= count {
                    return Instant::now();
                }
                // Counting is per batch of 64, so a last few may come without a signal.
                let _ = tokio::time::timeout(Duration::from_millis(5), arrived).await;
            }
        };
        tokio::time::timeout(limit, wait)
            .await
            .map_err(|_| anyhow::anyhow!("{} of {count} arrived within {limit:?}", self.received()))
    }

    /// The way's times since the last call, in microseconds.
    pub(crate) fn take_micros(&self) -> Histogram<u64> {
        std::mem::replace(
            &mut *self.shared.micros.lock().expect("no holder panics"),
            load::histogram(),
        )
    }
}

async fn answer(
    (mut reader, mut writer): (http1::Reader, tokio::net::tcp::OwnedWriteHalf),
    shared: &Shared,
) -> anyhow::Result<()> {
    while let Some(message) = reader.next().await? {
        if let Some(due) = due(reader.body(&message)) {
            let micros = (shared.epoch.elapsed().as_micros() as u64).saturating_sub(due);
            shared
                .micros
                .lock()
                .expect("no holder panics")
                .saturating_record(micros);
        }
        writer
            .write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok")
            .await?;
        if shared.received.fetch_add(1, Ordering::Relaxed) % 64 == 63 {
            shared.arrived.notify_waiters();
        }
    }
    Ok(())
}

/// The due time in `{"due":0000000000123456,…`.
fn due(body: &[u8]) -> Option<u64> {
    std::str::from_utf8(body.strip_prefix(b"{\"due\":\"")?.get(..16)?)
        .ok()?
        .parse()
        .ok()
}
