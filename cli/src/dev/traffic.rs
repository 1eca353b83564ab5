//! The gateway's half of `hookstream dev`, and what it lets a person see.

use super::{
    backing::{Backing, SHARDS},
    print,
};
use crate::{args, folder::Declared, lines::Style, manifests::Body};
use anyhow::{Context, Result, bail};
use gateway::{
    egress,
    run::Options,
    seen::{Observer, Seen},
    table::Keys,
};
use prometheus::Registry;
use routing::ids::{self, Prefix};
use service::{admin::Readiness, clock};
use std::{net::SocketAddr, time::Duration};
use tokio::{
    net::TcpListener,
    sync::mpsc,
    task::{JoinError, JoinHandle},
};
use tokio_util::sync::CancellationToken;

/// Lines on their way to the terminal; beyond it they are lost, and no request is slowed.
const LINES: usize = 4096;

/// Of attempts in flight after ctrl-C. Shorter than a cluster's: a person waits.
const GRACE: Duration = Duration::from_secs(10);

/// Of the gateway until it's ready: its table is in a database that answers.
const START: Duration = Duration::from_secs(30);

/// Both ports, bound before anything slow begins: a port that is taken is told at once.
#[derive(Debug)]
pub(super) struct Listeners {
    public: TcpListener,
    admin: TcpListener,
}

impl Listeners {
    pub(super) async fn bind(options: &args::Dev) -> Result<Listeners> {
        let public = TcpListener::bind(options.listen)
            .await
            .with_context(|| format!("--listen {}", options.listen))?;
        let admin = TcpListener::bind(options.admin_listen)
            .await
            .with_context(|| format!("--admin-listen {}", options.admin_listen))?;
        Ok(Listeners { public, admin })
    }
}

/// A running gateway.
#[derive(Debug)]
pub(super) struct Traffic {
    address: SocketAddr,
    public_url: String,
    egress_note: &'static str,
    seen: mpsc::Receiver<Seen>,
    gateway: JoinHandle<Result<()>>,
    token: CancellationToken,
}

impl Traffic {
    /// Returns once it is ready.
    pub(super) async fn start(
        options: &args::Dev,
        listeners: Listeners,
        backing: &Backing,
        replica: &str,
        registry: Registry,
        sandbox: sandbox::Pool,
    ) -> Result<Traffic> {
        let address = listeners.public.local_addr().context("the public port")?;
        let (policy, egress_note) = match &options.egress_allow {
            Some(rules) => (
                policy(rules)?,
                "deliveries may go to the addresses that --egress-allow names, and to public ones",
            ),
            None => (
                egress::Policy::with_private_networks(),
                "deliveries may go to private addresses here, 127.0.0.1 among them; a cluster refuses that unless egress.allow names them",
            ),
        };
        let policies = match &options.egress_policy {
            Some(path) => egress::Policies::read(path, &policy.allow)
                .with_context(|| format!("--egress-policy {}", path.display()))?,
            None => egress::Policies::same(policy),
        };
        let (observer, seen) = Observer::channel(LINES);
        let readiness = Readiness::new("starting");
        let database = store::Options {
            application_name: "hookstream dev".into(),
            ..store::Options::new(&*backing.url)
        };
        let public_url = options
            .public_url
            .clone()
            .unwrap_or_else(|| format!("http://{address}"));
        let gateway = Options {
            public: Some(listeners.public),
            admin: Some(listeners.admin),
            readiness: readiness.clone(),
            registry,
            sandbox: Some(sandbox),
            shards: SHARDS,
            replica: replica.to_owned(),
            trusted_proxies: options.trusted_proxies.clone(),
            public_url: public_url.clone(),
            egress: egress::Options {
                policy: policies.default,
                namespaces: policies.namespaces,
                ..egress::Options::default()
            },
            objects: backing.objects.clone(),
            grace: GRACE,
            observer,
            ..Options::new(database, Keys::Given(backing.keyring.clone()))
        };
        let token = CancellationToken::new();
        let mut gateway = tokio::spawn(gateway::run::run(gateway, token.clone()));
        tokio::select! {
            ended = &mut gateway => {
                flatten(ended)?;
                bail!("the gateway has ended by itself");
            }
            ready = tokio::time::timeout(START, ready(&readiness)) => {
                ready.ok().with_context(|| format!("the gateway isn't ready after {} s: {}", START.as_secs(), readiness.get().err().unwrap_or_default()))?;
            }
        }
        Ok(Traffic {
            address,
            public_url,
            egress_note,
            seen,
            gateway,
            token,
        })
    }

    /// Where senders post to; the port that was given, if it was given as 0.
    pub(super) fn address(&self) -> SocketAddr {
        self.address
    }

    /// What to know at the beginning: the sources' URLs and what may be reached.
    pub(super) fn greeting(&self, declared: &Declared, style: &Style) -> Vec<String> {
        let mut lines = vec![style.note(self.egress_note)];
        for object in declared
            .manifests
            .values()
            .filter(|object| object.id.kind == "Source")
        {
            let Body::Resource(manifest) = &object.body else {
                continue;
            };
            let path = manifest
                .pointer("/spec/path")
                .and_then(|path| path.as_str());
            let key = path.map_or_else(
                || ids::format(Prefix::Source, object.id.uid()),
                str::to_owned,
            );
            lines.push(style.note(&format!(
                "source {}: {}/v1/ingest/{key}",
                object.id.name,
                self.public_url.trim_end_matches('/')
            )));
        }
        if lines.len() == 1 {
            lines.push(
                style.note("no Source is declared yet: save a manifest, and it is live at once"),
            );
        }
        lines
    }

    /// What the gateway does next.
    ///
    /// # Errors
    /// It has ended without having been told to.
    pub(super) async fn seen(&mut self) -> Result<Seen> {
        tokio::select! {
            biased;
            Some(seen) = self.seen.recv() => Ok(seen),
            ended = &mut self.gateway => {
                flatten(ended)?;
                bail!("the gateway has ended by itself")
            }
        }
    }

    /// Drains: requests and attempts in flight are finished, and still told.
    pub(super) async fn stop(mut self, style: &Style) -> Result<()> {
        self.token.cancel();
        if self.gateway.is_finished() {
            // It was reported when it ended.
            return Ok(());
        }
        let ended = loop {
            tokio::select! {
                biased;
                Some(seen) = self.seen.recv() => print([style.line(&seen, clock::now())]),
                ended = &mut self.gateway => break ended,
            }
        };
        while let Ok(seen) = self.seen.try_recv() {
            print([style.line(&seen, clock::now())]);
        }
        flatten(ended)
    }
}

fn policy(rules: &[String]) -> Result<egress::Policy> {
    let rules = rules.iter().filter(|rule| !rule.is_empty()).map(|rule| {
        rule.parse()
            .with_context(|| format!("--egress-allow {rule}"))
    });
    Ok(egress::Policy {
        allow: rules.collect::<Result<_>>()?,
        ..egress::Policy::default()
    })
}

/// Readiness is a value that is looked at, by probes; so it's looked at.
async fn ready(readiness: &Readiness) {
    while readiness.get().is_err() {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

fn flatten(ended: Result<Result<()>, JoinError>) -> Result<()> {
    ended.context("the gateway panicked")?
}
