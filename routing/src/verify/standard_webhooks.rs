//! Standard Webhooks: `webhook-id`, `webhook-timestamp` and `webhook-signature: v1,<base64> v1a,<base64> …` over
//! `<id>.<timestamp>.<body>`. `v1` is HMAC-SHA256 by a `whsec_` secret, `v1a` Ed25519 by a `whpk_` public key.

use super::{
    Refused,
    content::{Place, SignedTimestamp, TimeUnit},
    encoding::{Encoding, from_base64},
    header::{self, Candidates, MOST_SIGNATURES},
    hmac,
    tally::{Begun, Tally},
};
use crate::{event::EventView, secret::Secret};
use jiff::Timestamp;
use ring::signature::{ED25519, UnparsedPublicKey};
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StandardWebhooksScheme {
    pub tolerance_ms: u64,
    /// The headers begin with `svix-`, as those of Svix and its customers did before the standard; the standard's are read where
    /// they are missing.
    #[serde(default)]
    pub svix: bool,
}

#[derive(Debug, Clone)]
pub(super) struct Keys {
    svix: bool,
    timestamp: SignedTimestamp,
    shared: Vec<hmac::Key>,
    public: Vec<[u8; 32]>,
}

/// What a request's headers say.
struct Signed<'e> {
    id: &'e [u8],
    timestamp: &'e str,
    /// Signatures by a shared key, and by a public one.
    shared: Candidates,
    public: Candidates,
}

impl Keys {
    pub(super) fn new(scheme: &StandardWebhooksScheme, secrets: &[&Secret]) -> Keys {
        let mut keys = Keys {
            svix: scheme.svix,
            timestamp: SignedTimestamp {
                at: Place::header("webhook-timestamp"),
                unit: TimeUnit::Seconds,
                tolerance_ms: Some(scheme.tolerance_ms),
            },
            shared: Vec::new(),
            public: Vec::new(),
        };
        for secret in secrets {
            match Key::read(secret) {
                Some(Key::Shared(bytes)) => keys
                    .shared
                    .push(hmac::Key::new(hmac::Algorithm::Sha256, &bytes)),
                Some(Key::Public(bytes)) => keys.public.push(bytes),
                None => {}
            }
        }
        keys
    }

    /// `None`: there is a public key, and a signature by one is over the whole message at once.
    pub(super) fn begin(
        &self,
        event: &EventView<'_>,
        now: Timestamp,
    ) -> Option<Result<Begun, Refused>> {
        let begin = || {
            let signed = self.read(event, now)?;
            if signed.shared.is_empty() {
                return Err(Refused::SignatureMalformed);
            }
            let before = [signed.id, b".", signed.timestamp.as_bytes(), b"."].concat();
            let tally = Tally::new(&self.shared, signed.shared, &before, Vec::new());
            Ok(Begun::Tally(Box::new(tally)))
        };
        self.public.is_empty().then(begin)
    }

    pub(super) fn verify(&self, event: &EventView<'_>, now: Timestamp) -> Result<(), Refused> {
        let Signed {
            id,
            timestamp,
            shared,
            public,
        } = self.read(event, now)?;
        let parts = [id, b".", timestamp.as_bytes(), b".", event.body];
        if shared.is_empty() && public.is_empty() {
            return Err(Refused::SignatureMalformed);
        }
        let mut verified = subtle::Choice::from(0);
        for key in &self.shared {
            verified |= key.fits(&shared, |context| {
                parts.iter().for_each(|part| context.update(part));
            });
        }
        match bool::from(verified) || self.fits_public(&public, &parts) {
            true => Ok(()),
            false => Err(Refused::SignatureMismatch),
        }
    }

    /// What the headers say, and whether the time is near enough.
    fn read<'e>(&self, event: &'e EventView<'_>, now: Timestamp) -> Result<Signed<'e>, Refused> {
        let [id, timestamp, signature] = self.headers(event);
        let signatures = header::text(signature.ok_or(Refused::SignatureMissing)?);
        // The id is a part of what is signed: without it there is no signature to check.
        let id = id.ok_or(Refused::SignatureMissing)?.as_bytes();
        let timestamp = header::text(timestamp.ok_or(Refused::TimestampMissing)?);
        self.timestamp.check(timestamp, now)?;
        let mut shared = Candidates::new(32);
        let mut public = Candidates::new(64);
        for one in signatures.split(' ').take(2 * MOST_SIGNATURES) {
            let (candidates, encoded) = match one.split_once(',') {
                Some(("v1", encoded)) => (&mut shared, encoded),
                Some(("v1a", encoded)) => (&mut public, encoded),
                _ => continue,
            };
            let mut buffer = [0; 66];
            if let Some(decoded) = Encoding::Base64.decode(encoded, &mut buffer) {
                candidates.add(|place| {
                    place.get_mut(..decoded.len())?.copy_from_slice(decoded);
                    Some(decoded.len())
                });
            }
        }
        Ok(Signed {
            id,
            timestamp,
            shared,
            public,
        })
    }

    /// Public keys and signatures are no secrets: the first that fits is enough. A signature costs much more than a hash,
    /// so few of them are tried.
    fn fits_public(&self, candidates: &Candidates, parts: &[&[u8]]) -> bool {
        if self.public.is_empty() || candidates.is_empty() {
            return false;
        }
        let message = parts.concat();
        self.public.iter().any(|key| {
            let key = UnparsedPublicKey::new(&ED25519, key);
            candidates
                .iter()
                .take(MOST_PUBLIC_SIGNATURES)
                .any(|signature| key.verify(&message, signature).is_ok())
        })
    }

    fn headers<'e>(&self, event: &'e EventView<'_>) -> [Option<&'e http::HeaderValue>; 3] {
        let names = match self.svix && event.headers.contains_key("svix-signature") {
            true => ["svix-id", "svix-timestamp", "svix-signature"],
            false => ["webhook-id", "webhook-timestamp", "webhook-signature"],
        };
        names.map(|name| event.headers.get(name))
    }
}

const MOST_PUBLIC_SIGNATURES: usize = 4;

enum Key {
    Shared(Zeroizing<Vec<u8>>),
    Public([u8; 32]),
}

impl Key {
    /// Of `whsec_<base64>` or `whpk_<base64>`; without a prefix it is taken as `whsec_`. Space around it is a slip of
    /// whoever made the Secret.
    fn read(secret: &Secret) -> Option<Key> {
        let text = secret.expose().trim_ascii();
        if let Some(encoded) = text.strip_prefix(b"whpk_") {
            return Some(Key::Public(from_base64(encoded)?.try_into().ok()?));
        }
        let encoded = text.strip_prefix(b"whsec_").unwrap_or(text);
        let key = Zeroizing::new(from_base64(encoded)?);
        (!key.is_empty()).then_some(Key::Shared(key))
    }
}

pub(super) fn check_secret(secret: &Secret) -> Result<(), &'static str> {
    Key::read(secret).map(drop).ok_or(
        "isn't a Standard Webhooks secret; it must be `whsec_` followed by base64 (or `whpk_` and a public key), as the sender shows it",
    )
}
