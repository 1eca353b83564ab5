//! The one HTTP client of all destinations, and the connector that guards it.
//!
//! Guarantees: every connection is dialled to an address that [`Policy::check`] has admitted, with nothing between the
//! check and the dial (no second look-up, no redirect followed); connections are kept and shared; each step of opening
//! one is timed; a kept connection that turns out to be closed is told from a receiver that failed
//! ([`met_closed_connection`]).
//!
//! Does not: decide to send again, time a whole attempt out, read bodies. `deliver` does.

mod policy;
mod stream;
mod tls;

pub use policy::{Blocked, InvalidRule, Policy, Rule, SETTING};
pub use stream::{Opened, Steps, Stream, met_closed_connection};
pub use tls::TlsError;

use bytes::Bytes;
use http::{Request, Uri};
use http_body_util::Full;
use hyper_util::{
    client::legacy,
    rt::{TokioExecutor, TokioIo, TokioTimer},
};
use rustls::pki_types::{CertificateDer, ServerName};
use service::clock;
use std::{
    future::Future,
    io,
    net::{IpAddr, SocketAddr},
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

/// The client that deliveries share. Cheap to clone; clones share their connections.
#[derive(Debug, Clone)]
pub struct Client {
    pooled: legacy::Client<GuardConnector, Full<Bytes>>,
    /// Keeps no connection.
    unpooled: legacy::Client<GuardConnector, Full<Bytes>>,
}

impl Client {
    /// Sends on a connection that is kept, or a new one.
    pub fn request(&self, request: Request<Full<Bytes>>) -> legacy::ResponseFuture {
        self.pooled.request(request)
    }

    /// Sends on a new connection, which is closed afterwards: the kept ones to a receiver that has restarted may all be dead.
    pub fn request_anew(&self, request: Request<Full<Bytes>>) -> legacy::ResponseFuture {
        self.unpooled.request(request)
    }
}

#[derive(Debug, Clone)]
pub struct Options {
    pub policy: Policy,
    /// Bounds look-up, dialling and TLS together; the attempt's own timeout bounds them as well.
    pub connect_timeout: Duration,
    /// Trusted besides the system's certificate authorities.
    pub extra_roots: Vec<CertificateDer<'static>>,
}

impl Default for Options {
    fn default() -> Options {
        Options {
            policy: Policy::default(),
            connect_timeout: Duration::from_secs(10),
            extra_roots: Vec::new(),
        }
    }
}

/// Builds the client. Without any certificate authority on the machine, `https` destinations fail and say so.
#[expect(
    clippy::disallowed_methods,
    reason = "this is the place the others are sent to"
)]
pub fn client(options: Options) -> Client {
    let connector = GuardConnector(Arc::new(Guard {
        tls: tls::config(options.extra_roots),
        policy: options.policy,
        timeout: options.connect_timeout,
    }));
    let build = |idle_per_host| {
        legacy::Client::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            // Shorter than most servers keep an idle connection, so that few requests meet one that is just being closed.
            .pool_idle_timeout(Duration::from_secs(20))
            .pool_max_idle_per_host(idle_per_host)
            .http1_max_buf_size(128 * 1024)
            .http2_adaptive_window(false)
            .build(connector.clone())
    };
    Client {
        // As many as a destination may have in flight; more would be opened and closed for nothing.
        pooled: build(256),
        unpooled: build(0),
    }
}

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    #[error("the URL's scheme is neither http nor https")]
    Scheme,
    #[error(transparent)]
    Blocked(#[from] Blocked),
    #[error("{host} can't be resolved")]
    Resolve {
        host: String,
        #[source]
        source: io::Error,
    },
    #[error("{host} has no address")]
    NoAddress { host: String },
    #[error("{address} can't be connected to")]
    Dial {
        address: SocketAddr,
        #[source]
        source: io::Error,
    },
    #[error("no TLS session with {host}")]
    Tls {
        host: String,
        #[source]
        source: TlsError,
    },
    #[error("no connection to {host} within {} s", .after.as_secs_f32())]
    TimedOut { host: String, after: Duration },
}

#[derive(Debug)]
struct Guard {
    policy: Policy,
    tls: Arc<rustls::ClientConfig>,
    timeout: Duration,
}

/// Resolves, checks, dials what it has checked, and speaks TLS where the URL says so.
#[derive(Debug, Clone)]
pub struct GuardConnector(Arc<Guard>);

impl tower_service::Service<Uri> for GuardConnector {
    type Response = TokioIo<Stream>;
    type Error = ConnectError;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, ConnectError>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), ConnectError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        let guard = self.0.clone();
        Box::pin(async move {
            let host = uri
                .host()
                .unwrap_or_default()
                .trim_start_matches('[')
                .trim_end_matches(']')
                .to_owned();
            match tokio::time::timeout(guard.timeout, guard.open(&uri, &host)).await {
                Ok(opened) => opened.map(TokioIo::new),
                Err(_) => Err(ConnectError::TimedOut {
                    host,
                    after: guard.timeout,
                }),
            }
        })
    }
}

impl Guard {
    async fn open(&self, uri: &Uri, host: &str) -> Result<Stream, ConnectError> {
        let https = match uri.scheme_str() {
            Some("https") => true,
            Some("http") => false,
            _ => return Err(ConnectError::Scheme),
        };
        let port = uri.port_u16().unwrap_or(if https { 443 } else { 80 });
        let mut steps = Steps::default();
        let addresses = match host.parse::<IpAddr>() {
            // A literal never reaches the resolver, and is checked all the same.
            Ok(ip) => vec![SocketAddr::new(ip, port)],
            Err(_) => {
                let started = clock::instant();
                let found = tokio::net::lookup_host((host, port)).await;
                steps.dns = Some(started.elapsed());
                found
                    .map_err(|source| ConnectError::Resolve {
                        host: host.to_owned(),
                        source,
                    })?
                    .collect()
            }
        };
        let admitted = self.admitted(host, addresses)?;
        let started = clock::instant();
        let tcp = self.dial(&admitted).await?;
        steps.connect = started.elapsed();
        if !https {
            return Ok(Stream::plain(tcp, steps));
        }
        let started = clock::instant();
        let failed = |error: io::Error| ConnectError::Tls {
            host: host.to_owned(),
            source: error.into(),
        };
        let name = ServerName::try_from(host.trim_end_matches('.').to_owned())
            .map_err(|error| failed(io::Error::other(error)))?;
        let tls = TlsConnector::from(self.tls.clone())
            .connect(name, tcp)
            .await
            .map_err(failed)?;
        steps.tls = Some(started.elapsed());
        Ok(Stream::tls(tls, steps))
    }

    /// The addresses that may be dialled. A name with a public and a private address is reached by the public one.
    fn admitted(
        &self,
        host: &str,
        addresses: Vec<SocketAddr>,
    ) -> Result<Vec<SocketAddr>, ConnectError> {
        let mut admitted = Vec::with_capacity(addresses.len());
        let mut blocked = None;
        for address in addresses {
            match self.policy.check(host, address.ip()) {
                Ok(()) => admitted.push(address),
                Err(refusal) => blocked = blocked.or(Some(refusal)),
            }
        }
        match (admitted.is_empty(), blocked) {
            (false, _) => Ok(admitted),
            (true, Some(refusal)) => Err(refusal.into()),
            (true, None) => Err(ConnectError::NoAddress {
                host: host.to_owned(),
            }),
        }
    }

    /// The first address that answers. Each gets an equal part of the time that is left, so that a dead one in front
    /// doesn't use up the time of the living.
    async fn dial(&self, addresses: &[SocketAddr]) -> Result<TcpStream, ConnectError> {
        let deadline = clock::instant() + self.timeout;
        let mut failure = None;
        for (n, &address) in addresses.iter().enumerate() {
            let left = deadline.saturating_duration_since(clock::instant());
            let parts = u32::try_from(addresses.len() - n).unwrap_or(u32::MAX);
            let source = match tokio::time::timeout(left / parts, TcpStream::connect(address)).await
            {
                Ok(Ok(stream)) => {
                    // Best effort: without it small requests wait for an acknowledgement, nothing more.
                    let _ = stream.set_nodelay(true);
                    return Ok(stream);
                }
                Ok(Err(source)) => source,
                Err(_) => io::Error::from(io::ErrorKind::TimedOut),
            };
            failure = Some(ConnectError::Dial { address, source });
        }
        Err(failure.expect("`admitted` gives at least one address"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What the connector answers for a URL that must not be reached. No network is touched: the check comes first.
    async fn refusal(url: &str) -> String {
        let uri: Uri = url.parse().unwrap_or_else(|error| panic!("{url}: {error}"));
        let request = http::Request::post(uri).body(Full::default()).unwrap();
        let error = client(Options::default())
            .request(request)
            .await
            .expect_err(url);
        let mut source: Option<&(dyn std::error::Error + 'static)> = Some(&error);
        while let Some(error) = source {
            match error.downcast_ref::<ConnectError>() {
                Some(ConnectError::Blocked(blocked)) => return blocked.to_string(),
                Some(other) => panic!("{url}: {other:?}"),
                None => source = error.source(),
            }
        }
        panic!("{url}: {error:?}")
    }

    #[tokio::test]
    async fn every_spelling_of_a_local_address_is_blocked() {
        for host in [
            "127.0.0.1",
            "127.1",
            "2130706433",
            "0x7f000001",
            "0x7f.1",
            "0177.0.0.1",
            "017700000001",
            "0",
            "0.0.0.0",
            "localhost",
            "LOCALHOST",
            "[::1]",
            "[::]",
            "[::ffff:127.0.0.1]",
            "[::ffff:7f00:1]",
            "[0:0:0:0:0:0:0:1]",
            "[64:ff9b::7f00:1]",
            "[2002:7f00:1::]",
            "169.254.169.254",
            "2852039166",
            "0xa9fea9fe",
            "[::ffff:a9fe:a9fe]",
            "[fd00:ec2::254]",
            "user@127.0.0.1",
            "1.1.1.1@127.0.0.1",
        ] {
            let text = refusal(&format!("http://{host}:9/")).await;
            assert!(text.contains(SETTING), "{host}: {text}");
        }
    }

    #[tokio::test]
    async fn an_address_is_refused_before_tls_begins() {
        assert!(refusal("https://127.0.0.1:9/").await.contains("loopback"));
    }
}
