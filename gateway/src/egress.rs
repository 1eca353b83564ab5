//! The one HTTP client of all destinations, and the connector that guards it.
//!
//! Guarantees: every connection is dialled to an address that the [`Policy`] of the destination's namespace has admitted, with
//! nothing between the check and the dial (no second look-up, no redirect followed); connections are kept and shared, but
//! never between namespaces of different policies or destinations of different certificates; each step of opening
//! one is timed; a kept connection that turns out to be closed is told from a receiver that failed
//! ([`met_closed_connection`]).
//!
//! Does not: decide to send again, time a whole attempt out, read bodies. `deliver` does.

mod guard;
mod identity;
mod metrics;
mod outgoing;
mod policy;
mod proxy;
mod resolver;
mod rules;
mod stream;
mod tls;

pub use guard::{ConnectError, GuardConnector};
pub use identity::{Identity, InvalidIdentity};
pub use metrics::Metrics;
pub use outgoing::Outgoing;
pub use policy::{Blocked, InvalidRule, Policy, Rule, SETTING, Why};
pub use proxy::{InvalidProxy, Proxy, ProxyError};
pub use resolver::{Found, Resolve, System};
pub use rules::{InvalidPolicy, Policies};
pub use stream::{Opened, Steps, Stream, met_closed_connection};
pub use tls::TlsError;

use guard::{Guard, Shared};
use http::Request;
use hyper_util::{
    client::legacy,
    rt::{TokioExecutor, TokioTimer},
};
use rustls::{RootCertStore, pki_types::CertificateDer};
use std::{
    collections::{BTreeMap, HashMap},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

/// Identities whose connections are kept. Past it the least recently used one's are closed; it costs a new connection.
const IDENTITIES: usize = 1_024;

/// The client that deliveries share. Cheap to clone; clones share their connections.
#[derive(Debug, Clone)]
pub struct Client(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    shared: Arc<Shared>,
    roots: Arc<RootCertStore>,
    /// With the usual TLS, by policy; the first one is the default.
    usual: Vec<Route>,
    policies: Vec<Arc<Policy>>,
    /// Of those that have one of their own.
    namespaces: HashMap<String, usize>,
    own: Mutex<Identities>,
}

#[derive(Debug, Default)]
struct Identities {
    routes: HashMap<(usize, [u8; 32]), (Route, u64)>,
    uses: u64,
}

/// The connections of one policy and one identity. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Route(Arc<Pools>);

#[derive(Debug)]
struct Pools {
    pooled: legacy::Client<GuardConnector, Outgoing>,
    /// Keeps no connection.
    unpooled: legacy::Client<GuardConnector, Outgoing>,
}

impl Client {
    /// The way out for a namespace's destination. Costs no lock unless there is an identity.
    pub fn route(&self, namespace: &str, identity: Option<&Identity>) -> Route {
        let inner = &*self.0;
        let policy = match inner.namespaces.is_empty() {
            true => 0,
            false => inner.namespaces.get(namespace).copied().unwrap_or(0),
        };
        let Some(identity) = identity else {
            return inner.usual[policy].clone();
        };
        let mut own = inner.own.lock().unwrap_or_else(PoisonError::into_inner);
        own.uses += 1;
        let now = own.uses;
        let key = (policy, identity.key);
        if let Some((route, used)) = own.routes.get_mut(&key) {
            *used = now;
            return route.clone();
        }
        if own.routes.len() >= IDENTITIES {
            let oldest = own.routes.iter().min_by_key(|(_, (_, used))| *used);
            if let Some(oldest) = oldest.map(|(key, _)| *key) {
                own.routes.remove(&oldest);
            }
        }
        let route = Route::new(
            &inner.shared,
            &inner.policies[policy],
            identity.config(&inner.roots),
        );
        own.routes.insert(key, (route.clone(), now));
        route
    }

    /// Whom https is trusted by.
    pub fn roots(&self) -> &Arc<RootCertStore> {
        &self.0.roots
    }

    pub fn metrics(&self) -> &Metrics {
        &self.0.shared.metrics
    }
}

impl Route {
    #[expect(
        clippy::disallowed_methods,
        reason = "this is the place the others are sent to"
    )]
    fn new(shared: &Arc<Shared>, policy: &Arc<Policy>, tls: Arc<rustls::ClientConfig>) -> Route {
        let connector = GuardConnector(Arc::new(Guard {
            shared: shared.clone(),
            policy: policy.clone(),
            tls,
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
        Route(Arc::new(Pools {
            // As many as a destination may have in flight; more would be opened and closed for nothing.
            pooled: build(256),
            unpooled: build(0),
        }))
    }

    /// Sends on a connection that is kept, or a new one.
    pub fn request(&self, request: Request<impl Into<Outgoing>>) -> legacy::ResponseFuture {
        self.0.pooled.request(request.map(Into::into))
    }

    /// Sends on a new connection, which is closed afterwards: the kept ones to a receiver that has restarted may all be dead.
    pub fn request_anew(&self, request: Request<impl Into<Outgoing>>) -> legacy::ResponseFuture {
        self.0.unpooled.request(request.map(Into::into))
    }
}

#[derive(Debug, Clone)]
pub struct Options {
    /// Of every namespace that has none of its own.
    pub policy: Policy,
    pub namespaces: BTreeMap<String, Policy>,
    /// On the way to everything but its exceptions.
    pub proxy: Option<Proxy>,
    /// Bounds look-up, dialling and TLS together; the attempt's own timeout bounds them as well.
    pub connect_timeout: Duration,
    /// Trusted besides the system's certificate authorities.
    pub extra_roots: Vec<CertificateDer<'static>>,
    pub resolver: Arc<dyn Resolve>,
    pub metrics: Metrics,
}

impl Default for Options {
    fn default() -> Options {
        Options {
            policy: Policy::default(),
            namespaces: BTreeMap::new(),
            proxy: None,
            connect_timeout: Duration::from_secs(10),
            extra_roots: Vec::new(),
            resolver: Arc::new(System),
            metrics: Metrics::default(),
        }
    }
}

/// Why there was no connection, if that is what failed.
pub fn connect_error(error: &legacy::Error) -> Option<&ConnectError> {
    let mut source: Option<&(dyn std::error::Error + 'static)> = Some(error);
    while let Some(current) = source {
        if let Some(failed) = current.downcast_ref::<ConnectError>() {
            return Some(failed);
        }
        source = current.source();
    }
    None
}

/// Builds the client. Without any certificate authority on the machine, `https` destinations fail and say so.
pub fn client(options: Options) -> Client {
    let roots = tls::roots(options.extra_roots);
    let shared = Arc::new(Shared {
        timeout: options.connect_timeout,
        resolver: options.resolver,
        proxy: options.proxy,
        metrics: options.metrics,
    });
    let mut policies = vec![Arc::new(options.policy)];
    let mut namespaces = HashMap::new();
    for (namespace, policy) in options.namespaces {
        // Namespaces of equal policies share their connections.
        let same = policies.iter().position(|other| **other == policy);
        let place = same.unwrap_or_else(|| {
            policies.push(Arc::new(policy));
            policies.len() - 1
        });
        namespaces.insert(namespace, place);
    }
    let config = tls::config(roots.clone(), None);
    let usual = policies
        .iter()
        .map(|policy| Route::new(&shared, policy, config.clone()));
    Client(Arc::new(Inner {
        usual: usual.collect(),
        shared,
        roots,
        policies,
        namespaces,
        own: Mutex::default(),
    }))
}

/// For what the installation itself is given by whoever runs it, as its object store: no policy, no proxy.
#[expect(
    clippy::disallowed_methods,
    reason = "this is the place the others are sent to"
)]
pub fn unguarded<B>() -> legacy::Client<GuardConnector, B>
where
    B: http_body::Body + Send,
    B::Data: Send,
{
    let shared = Arc::new(Shared {
        timeout: Options::default().connect_timeout,
        resolver: Arc::new(System),
        proxy: None,
        metrics: Metrics::default(),
    });
    let connector = GuardConnector(Arc::new(Guard {
        shared,
        policy: Arc::new(Policy::unrestricted()),
        tls: tls::config(tls::roots(Vec::new()), None),
    }));
    legacy::Client::builder(TokioExecutor::new())
        .pool_timer(TokioTimer::new())
        .pool_idle_timeout(Duration::from_secs(20))
        .pool_max_idle_per_host(64)
        .build(connector)
}

#[cfg(test)]
mod tests;
