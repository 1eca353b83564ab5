//! The connector: resolves, judges, dials what it has judged, and speaks TLS where the URL says so.

use super::{
    Metrics, Proxy, Stream, TlsError,
    policy::{Blocked, Policy},
    proxy::ProxyError,
    resolver::Resolve,
    stream::Steps,
};
use http::Uri;
use hyper_util::rt::TokioIo;
use rustls::pki_types::ServerName;
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
    #[error("no way to {address} through the proxy")]
    Proxy {
        address: SocketAddr,
        #[source]
        source: ProxyError,
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

/// What all connectors of a client have in common.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) timeout: Duration,
    pub(super) resolver: Arc<dyn Resolve>,
    pub(super) proxy: Option<Proxy>,
    pub(super) metrics: Metrics,
}

#[derive(Debug)]
pub(super) struct Guard {
    pub(super) shared: Arc<Shared>,
    pub(super) policy: Arc<Policy>,
    pub(super) tls: Arc<rustls::ClientConfig>,
}

/// Cheap to clone.
#[derive(Debug, Clone)]
pub struct GuardConnector(pub(super) Arc<Guard>);

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
            let timeout = guard.shared.timeout;
            let opened = match tokio::time::timeout(timeout, guard.open(&uri, &host)).await {
                Ok(opened) => opened.map(TokioIo::new),
                Err(_) => Err(ConnectError::TimedOut {
                    host,
                    after: timeout,
                }),
            };
            if let Err(ConnectError::Blocked(blocked)) = &opened {
                guard.shared.metrics.blocked(blocked.rule()).inc();
            }
            opened
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
        self.policy.check_url(host, https, port)?;
        let mut steps = Steps::default();
        let addresses = match host.parse::<IpAddr>() {
            // A literal never reaches the resolver, and is checked all the same.
            Ok(ip) => vec![SocketAddr::new(ip, port)],
            Err(_) => {
                let started = clock::instant();
                let found = self.shared.resolver.resolve(host, port).await;
                steps.dns = Some(started.elapsed());
                found.map_err(|source| ConnectError::Resolve {
                    host: host.to_owned(),
                    source,
                })?
            }
        };
        let admitted = self.admitted(host, addresses)?;
        let started = clock::instant();
        let tcp = self.dial(host, &admitted).await?;
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
    async fn dial(&self, host: &str, addresses: &[SocketAddr]) -> Result<TcpStream, ConnectError> {
        let deadline = clock::instant() + self.shared.timeout;
        let mut failure = None;
        for (n, &address) in addresses.iter().enumerate() {
            let left = deadline.saturating_duration_since(clock::instant());
            let parts = u32::try_from(addresses.len() - n).unwrap_or(u32::MAX);
            let proxy = self.shared.proxy.as_ref();
            let connecting = async {
                match proxy.filter(|proxy| !excepted(proxy, host, address.ip())) {
                    Some(proxy) => proxy
                        .connect(address)
                        .await
                        .map_err(|source| ConnectError::Proxy { address, source }),
                    None => TcpStream::connect(address)
                        .await
                        .map_err(|source| ConnectError::Dial { address, source }),
                }
            };
            failure = Some(match tokio::time::timeout(left / parts, connecting).await {
                Ok(Ok(stream)) => {
                    // Best effort: without it small requests wait for an acknowledgement, nothing more.
                    let _ = stream.set_nodelay(true);
                    return Ok(stream);
                }
                Ok(Err(failure)) => failure,
                Err(_) => ConnectError::Dial {
                    address,
                    source: io::ErrorKind::TimedOut.into(),
                },
            });
        }
        Err(failure.expect("`admitted` gives at least one address"))
    }
}

fn excepted(proxy: &Proxy, host: &str, ip: IpAddr) -> bool {
    proxy.except.iter().any(|rule| rule.names(host, ip))
}
