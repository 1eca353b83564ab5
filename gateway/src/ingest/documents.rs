//! Documents that requests are verified with and that are elsewhere: sets of public keys, certificates.
//!
//! Guarantees: only over https and through the egress policy of the source's namespace; one fetch for one URL however many
//! requests wait for it; a document that is there is taken without a lock. A request waits for [`TIMEOUT`] at most. While
//! a document can't be fetched anew, the old one serves for [`STALE`]; without one the answer is 503, so that the sender
//! sends again.
//!
//! What a sender can make us do is bounded by [`BURST`] and [`EVERY`] per source: a certificate's URL is in the request,
//! and whoever makes up many of them, or many ids of keys, gets 503s and no fetches.

use crate::egress::{self, Client};
use arc_swap::ArcSwapOption;
use bytes::Bytes;
use http::{Request, StatusCode, header};
use http_body_util::{BodyExt, Full, Limited};
use prometheus::IntCounterVec;
use routing::verify::{
    Document, Wanted,
    document::{Chain, MOST_BYTES},
};
use rustls::{
    client::{WebPkiServerVerifier, danger::ServerCertVerifier},
    pki_types::{CertificateDer, ServerName, UnixTime},
};
use service::clock;
use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};
use uuid::Uuid;

/// Of a fetch, answer included; and of a request that waits for one.
const TIMEOUT: Duration = Duration::from_secs(5);
/// A document is fetched anew after it.
const FRESH: Duration = Duration::from_secs(60 * 60);
/// A document that can't be fetched anew serves for it: longer than an outage of a provider, shorter than a stolen key's
/// use should be.
const STALE: Duration = Duration::from_secs(24 * 60 * 60);
/// Between two fetches of one URL, when the first failed or didn't have the key.
const AGAIN: Duration = Duration::from_secs(30);
/// Documents that are kept. Past it the one that was used least recently goes, and is fetched when it is wanted.
const MOST_KEPT: usize = 256;
/// Fetches that a source may cause at once, and one more after each [`EVERY`].
const BURST: u32 = 8;
const EVERY: Duration = Duration::from_secs(10);
/// Sources whose fetches are counted. Past it those that have been quiet are forgotten.
const MOST_SOURCES: usize = 4096;

/// No document, and no way to have it now. The log has said why.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Unavailable;

/// Whose document it is to be: the egress policy and the bound are theirs.
#[derive(Debug, Clone, Copy)]
pub struct Asker<'a> {
    pub source: Uuid,
    pub namespace: &'a str,
}

#[derive(Debug)]
pub struct Documents {
    client: Client,
    kept: Mutex<HashMap<(String, String), Arc<Entry>>>,
    allowances: Mutex<HashMap<Uuid, Allowance>>,
    /// Labels: kind, result.
    fetches: IntCounterVec,
}

#[derive(Debug, Default)]
struct Entry {
    fetched: ArcSwapOption<Fetched>,
    /// When it was last tried. Whoever holds it fetches; the others wait.
    tried: tokio::sync::Mutex<Option<Instant>>,
    used: Mutex<Option<Instant>>,
}

#[derive(Debug)]
struct Fetched {
    document: Arc<Document>,
    at: Instant,
}

#[derive(Debug)]
struct Allowance {
    left: u32,
    since: Instant,
}

impl Documents {
    pub fn new(client: Client, fetches: IntCounterVec) -> Documents {
        Documents {
            client,
            kept: Mutex::default(),
            allowances: Mutex::default(),
            fetches,
        }
    }

    /// The document, with the key that is wanted if it has it.
    pub async fn get(
        &self,
        asker: Asker<'_>,
        wanted: &Wanted,
    ) -> Result<Arc<Document>, Unavailable> {
        let entry = self.entry(asker.namespace, wanted);
        if let Some(document) = entry.serves(wanted, FRESH) {
            return Ok(document);
        }
        let refreshed = tokio::time::timeout(TIMEOUT, self.refresh(&entry, asker, wanted)).await;
        if refreshed.is_err() {
            self.count(wanted, "timeout");
        }
        // Also one without the key: that the key isn't there is an answer as well.
        entry.within(STALE).ok_or(Unavailable)
    }

    /// Fetches a URL whose answer doesn't matter, only that it was fetched.
    pub async fn confirm(&self, asker: Asker<'_>, url: &str) -> Result<(), Unavailable> {
        let fetched = match self.may_fetch(asker.source) {
            true => tokio::time::timeout(TIMEOUT, self.fetch(asker.namespace, url))
                .await
                .unwrap_or_else(|_| Err(format!("no answer within {} s", TIMEOUT.as_secs()))),
            false => Err("this source has caused too many fetches".to_owned()),
        };
        let result = if fetched.is_ok() { "ok" } else { "error" };
        self.fetches
            .with_label_values(&["sns_confirmation", result])
            .inc();
        fetched.map(drop).map_err(|why| {
            tracing::warn!(source = %asker.source, why, "a subscription can't be confirmed");
            Unavailable
        })
    }

    fn entry(&self, namespace: &str, wanted: &Wanted) -> Arc<Entry> {
        let now = clock::instant();
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        let key = (namespace.to_owned(), wanted.url.clone());
        if !kept.contains_key(&key) && kept.len() >= MOST_KEPT {
            let oldest = kept.iter().min_by_key(|(_, entry)| *entry.used());
            if let Some(oldest) = oldest.map(|(key, _)| key.clone()) {
                kept.remove(&oldest);
            }
        }
        let entry = kept.entry(key).or_default().clone();
        *entry.used() = Some(now);
        entry
    }

    /// Fetches if nobody has just done so.
    async fn refresh(&self, entry: &Entry, asker: Asker<'_>, wanted: &Wanted) {
        let mut tried = entry.tried.lock().await;
        // Whoever held it before may have brought what is wanted.
        let just = tried.is_some_and(|at| at.elapsed() < AGAIN);
        if entry.serves(wanted, FRESH).is_some() || just {
            return;
        }
        if !self.may_fetch(asker.source) {
            self.count(wanted, "limited");
            return;
        }
        *tried = Some(clock::instant());
        match self.fetch_document(asker.namespace, wanted).await {
            Ok(document) => {
                self.count(wanted, "ok");
                entry.fetched.store(Some(Arc::new(Fetched {
                    document: Arc::new(document),
                    at: clock::instant(),
                })));
            }
            Err(why) => {
                self.count(wanted, "error");
                tracing::warn!(
                    url = wanted.url,
                    source = %asker.source,
                    why,
                    "what requests are verified with can't be fetched"
                );
            }
        }
    }

    async fn fetch_document(&self, namespace: &str, wanted: &Wanted) -> Result<Document, String> {
        let bytes = self.fetch(namespace, &wanted.url).await?;
        if let Some(chain) = wanted.kind.chain(&bytes)? {
            self.check(&chain)?;
        }
        Ok(Document::parse(wanted.kind, &bytes)?)
    }

    async fn fetch(&self, namespace: &str, url: &str) -> Result<Bytes, String> {
        if !url.starts_with("https://") {
            return Err("only https is fetched".to_owned());
        }
        let request = Request::get(url)
            .header(header::ACCEPT, "*/*")
            .header(
                header::USER_AGENT,
                concat!("hookstream/", env!("CARGO_PKG_VERSION")),
            )
            .body(Full::default())
            .map_err(|error| error.to_string())?;
        let route = self.client.route(namespace, None);
        let response =
            route
                .request(request)
                .await
                .map_err(|error| match egress::connect_error(&error) {
                    Some(error) => chain_of(error),
                    None => chain_of(&error),
                })?;
        if response.status() != StatusCode::OK {
            return Err(format!("it answered {}", response.status().as_u16()));
        }
        let body = Limited::new(response.into_body(), MOST_BYTES);
        match body.collect().await {
            Ok(body) => Ok(body.to_bytes()),
            Err(_) => Err(format!(
                "its answer broke off or has more than {MOST_BYTES} bytes"
            )),
        }
    }

    /// Who issued it, for whom, and whether it is still good: as of a server.
    fn check(&self, chain: &Chain) -> Result<(), String> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let verifier =
            WebPkiServerVerifier::builder_with_provider(self.client.roots().clone(), provider)
                .build()
                .map_err(|error| error.to_string())?;
        let now = u64::try_from(clock::now().as_second()).unwrap_or_default();
        let name = ServerName::try_from(chain.name.clone()).map_err(|error| error.to_string())?;
        let (first, others): (_, &[CertificateDer<'_>]) = chain
            .certificates
            .split_first()
            .ok_or_else(|| "it holds no certificate".to_owned())?;
        verifier
            .verify_server_cert(
                first,
                others,
                &name,
                &[],
                UnixTime::since_unix_epoch(Duration::from_secs(now)),
            )
            .map(drop)
            .map_err(|error| error.to_string())
    }

    fn may_fetch(&self, source: Uuid) -> bool {
        let now = clock::instant();
        let mut allowances = self
            .allowances
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if allowances.len() >= MOST_SOURCES {
            allowances.retain(|_, allowance| now.duration_since(allowance.since) < EVERY * BURST);
        }
        let allowance = allowances.entry(source).or_insert(Allowance {
            left: BURST,
            since: now,
        });
        let gained = now.duration_since(allowance.since).as_secs() / EVERY.as_secs();
        let gained = u32::try_from(gained).unwrap_or(BURST).min(BURST);
        if gained > 0 {
            allowance.left = (allowance.left + gained).min(BURST);
            allowance.since = now;
        }
        allowance.left = match allowance.left.checked_sub(1) {
            Some(left) => left,
            None => return false,
        };
        true
    }

    fn count(&self, wanted: &Wanted, result: &str) {
        self.fetches
            .with_label_values(&[wanted.kind.as_str(), result])
            .inc();
    }
}

impl Entry {
    fn within(&self, age: Duration) -> Option<Arc<Document>> {
        let fetched = self.fetched.load();
        let fetched = fetched.as_ref()?;
        (fetched.at.elapsed() < age).then(|| fetched.document.clone())
    }

    fn serves(&self, wanted: &Wanted, age: Duration) -> Option<Arc<Document>> {
        self.within(age)
            .filter(|document| document.has(wanted.key_id.as_deref()))
    }

    fn used(&self) -> std::sync::MutexGuard<'_, Option<Instant>> {
        self.used.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// An error with what caused it, as one line.
fn chain_of(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    text
}

#[cfg(test)]
mod tests;
