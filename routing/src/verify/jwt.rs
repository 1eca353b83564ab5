//! A JSON Web Token, signed by a key of a set: from the secrets, or from a document elsewhere.
//!
//! The algorithm must be one of public keys and must fit the key that the token names; `none` and the shared-secret ones
//! are refused whatever the set holds, so a public key can't be used as an HMAC's secret. A token without an expiry is
//! refused: it would be good for ever.

use super::{
    Document, Refused,
    der::PublicKey,
    document::{DocumentKind, Wanted},
    encoding::{BASE64_URL, Digest, any_equals},
    header,
};
use crate::{event::EventView, secret::Secret};
use base64::Engine;
use jiff::Timestamp;
use ring::signature::{self, RsaPublicKeyComponents, UnparsedPublicKey, VerificationAlgorithm};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::fmt;

/// Clocks of issuers are off by less.
const LEEWAY_SECONDS: i64 = 60;

/// Keys of a set that are kept; a provider has two to ten.
const MOST_KEYS: usize = 64;

/// Keys without an id that are tried; a signature costs far more than a hash.
const MOST_TRIED: usize = 4;

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct JwtScheme {
    /// Lower case; a token there may follow `Bearer `.
    pub header: String,
    /// Where the key set is; `None`: in the secrets.
    #[serde(default)]
    pub jwks_url: Option<String>,
    /// Any of them; empty: not judged.
    #[serde(default)]
    pub issuers: Vec<String>,
    pub audience: Audience,
    /// The secrets are not key sets but addresses, of which `email` must be one and `email_verified` true, as Google's
    /// service accounts have it.
    #[serde(default)]
    pub emails: bool,
}

/// What `aud` must hold.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Audience {
    Any,
    Is(String),
    /// The URL that was called, with its query or without.
    Url,
}

impl JwtScheme {
    pub(super) fn authenticate(&self) -> Option<String> {
        (self.header == "authorization").then(|| "Bearer".to_owned())
    }
}

#[derive(Clone)]
pub(super) struct Keys {
    scheme: JwtScheme,
    /// Of the secrets.
    own: KeySet,
    emails: Vec<Digest>,
}

impl fmt::Debug for Keys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Keys")
            .field("scheme", &self.scheme)
            .finish_non_exhaustive()
    }
}

/// What a token's first part says.
#[derive(Deserialize)]
struct Head {
    alg: String,
    kid: Option<String>,
    /// Extensions that must be understood; none is.
    crit: Option<Value>,
}

#[derive(Deserialize)]
struct Claims {
    iss: Option<String>,
    aud: Option<Value>,
    exp: Option<Number>,
    nbf: Option<Number>,
    email: Option<String>,
    email_verified: Option<bool>,
}

/// Seconds since 1970; some issuers write a fraction.
#[derive(Deserialize)]
struct Number(f64);

/// The parts of a token, still encoded.
struct Token<'t> {
    /// What is signed.
    signed: &'t str,
    head: &'t str,
    claims: &'t str,
    signature: &'t str,
}

impl<'t> Token<'t> {
    fn split(text: &'t str) -> Option<Token<'t>> {
        let (signed, signature) = text.rsplit_once('.')?;
        let (head, claims) = signed.split_once('.')?;
        (!claims.contains('.')).then_some(Token {
            signed,
            head,
            claims,
            signature,
        })
    }

    fn head(&self) -> Option<Head> {
        let bytes = BASE64_URL.decode(self.head).ok()?;
        serde_json::from_slice(&bytes).ok()
    }
}

impl Keys {
    pub(super) fn new(scheme: &JwtScheme, secrets: &[&Secret]) -> Keys {
        let mut own = KeySet::default();
        let mut emails = Vec::new();
        for secret in secrets {
            match scheme.emails {
                true => emails.push(Digest::of(secret.expose().trim_ascii())),
                false => own
                    .0
                    .extend(KeySet::of_secret(secret).unwrap_or_default().0),
            }
        }
        Keys {
            scheme: scheme.clone(),
            own,
            emails,
        }
    }

    pub(super) fn wants(&self, event: &EventView<'_>) -> Result<Option<Wanted>, Refused> {
        let Some(url) = &self.scheme.jwks_url else {
            return Ok(None);
        };
        let token = self.token(event)?;
        let head = token.head().ok_or(Refused::TokenMalformed)?;
        algorithm(&head.alg).ok_or(Refused::TokenMalformed)?;
        if self.own.has_exactly(head.kid.as_deref()) {
            return Ok(None);
        }
        Ok(Some(Wanted {
            url: url.clone(),
            kind: DocumentKind::KeySet,
            key_id: head.kid,
        }))
    }

    pub(super) fn verify(
        &self,
        event: &EventView<'_>,
        now: Timestamp,
        document: Option<&Document>,
    ) -> Result<(), Refused> {
        let token = self.token(event)?;
        let head = token.head().ok_or(Refused::TokenMalformed)?;
        if head.crit.is_some() {
            return Err(Refused::TokenMalformed);
        }
        let algorithm = algorithm(&head.alg).ok_or(Refused::TokenMalformed)?;
        let signature = BASE64_URL
            .decode(token.signature)
            .map_err(|_| Refused::TokenMalformed)?;
        let fetched = document.and_then(Document::key_set).map(|set| &set.0);
        let mut fitting = self
            .own
            .0
            .iter()
            .chain(fetched.into_iter().flatten())
            .filter(|key| key.may_be(head.kid.as_deref(), &head.alg) && algorithm.takes(&key.key))
            .take(MOST_TRIED)
            .peekable();
        if fitting.peek().is_none() {
            return Err(Refused::KeyUnknown);
        }
        if !fitting.any(|key| algorithm.fits(&key.key, token.signed.as_bytes(), &signature)) {
            return Err(Refused::SignatureMismatch);
        }
        let claims = BASE64_URL.decode(token.claims).ok();
        let claims = claims.and_then(|bytes| serde_json::from_slice(&bytes).ok());
        self.judge(&claims.ok_or(Refused::TokenMalformed)?, event, now)
    }

    fn token<'e>(&self, event: &'e EventView<'_>) -> Result<Token<'e>, Refused> {
        let value = event
            .headers
            .get(&self.scheme.header)
            .ok_or(Refused::CredentialsMissing)?;
        let text = header::text(value);
        let token = match text.split_once(' ') {
            Some((scheme, token)) if scheme.eq_ignore_ascii_case("bearer") => token.trim(),
            // Elsewhere the token may stand alone.
            None if self.scheme.header != "authorization" => text,
            _ => return Err(Refused::CredentialsMissing),
        };
        Token::split(token).ok_or(Refused::TokenMalformed)
    }

    fn judge(&self, claims: &Claims, event: &EventView<'_>, now: Timestamp) -> Result<(), Refused> {
        let now = now.as_second() as f64;
        let leeway = LEEWAY_SECONDS as f64;
        match &claims.exp {
            Some(Number(exp)) if now < exp + leeway => {}
            _ => return Err(Refused::TokenExpired),
        }
        if claims.nbf.as_ref().is_some_and(|nbf| now < nbf.0 - leeway) {
            return Err(Refused::TokenNotYetValid);
        }
        let issuers = &self.scheme.issuers;
        let issuer = claims.iss.as_deref().unwrap_or_default();
        if !issuers.is_empty() && !issuers.iter().any(|one| one == issuer) {
            return Err(Refused::TokenClaims);
        }
        if !self.is_for_us(claims.aud.as_ref(), event) {
            return Err(Refused::TokenClaims);
        }
        if self.scheme.emails {
            let email = claims.email.as_deref().unwrap_or_default();
            if claims.email_verified != Some(true) || !any_equals(&self.emails, email.as_bytes()) {
                return Err(Refused::TokenClaims);
            }
        }
        Ok(())
    }

    fn is_for_us(&self, audience: Option<&Value>, event: &EventView<'_>) -> bool {
        let is = |wanted: &dyn Fn(&str) -> bool| match audience {
            Some(Value::String(one)) => wanted(one),
            Some(Value::Array(many)) => many.iter().filter_map(Value::as_str).any(wanted),
            _ => false,
        };
        match &self.scheme.audience {
            Audience::Any => true,
            Audience::Is(text) => is(&|one| one == text),
            Audience::Url => {
                let base = event.public_url.trim_end_matches('/');
                let path = event.target.split('?').next().unwrap_or_default();
                is(&|one| {
                    one.strip_prefix(base)
                        .is_some_and(|rest| rest == event.target || rest == path)
                })
            }
        }
    }
}

/// How a token is signed.
struct Algorithm {
    rsa: Option<&'static signature::RsaParameters>,
    curve: Option<&'static dyn VerificationAlgorithm>,
    p256: bool,
    p384: bool,
}

/// None of `none`, `HS256` and whatever else is not by a public key.
fn algorithm(name: &str) -> Option<Algorithm> {
    let rsa = |parameters| Algorithm {
        rsa: Some(parameters),
        curve: None,
        p256: false,
        p384: false,
    };
    let curve = |algorithm: &'static dyn VerificationAlgorithm, p256, p384| Algorithm {
        rsa: None,
        curve: Some(algorithm),
        p256,
        p384,
    };
    Some(match name {
        "RS256" => rsa(&signature::RSA_PKCS1_2048_8192_SHA256),
        "RS384" => rsa(&signature::RSA_PKCS1_2048_8192_SHA384),
        "RS512" => rsa(&signature::RSA_PKCS1_2048_8192_SHA512),
        "PS256" => rsa(&signature::RSA_PSS_2048_8192_SHA256),
        "PS384" => rsa(&signature::RSA_PSS_2048_8192_SHA384),
        "PS512" => rsa(&signature::RSA_PSS_2048_8192_SHA512),
        "ES256" => curve(&signature::ECDSA_P256_SHA256_FIXED, true, false),
        "ES384" => curve(&signature::ECDSA_P384_SHA384_FIXED, false, true),
        "EdDSA" | "Ed25519" => curve(&signature::ED25519, false, false),
        _ => return None,
    })
}

impl Algorithm {
    fn takes(&self, key: &PublicKey) -> bool {
        match key {
            PublicKey::Rsa(_) | PublicKey::RsaParts { .. } => self.rsa.is_some(),
            PublicKey::P256(_) => self.p256,
            PublicKey::P384(_) => self.p384,
            PublicKey::Ed25519(_) => self.curve.is_some() && !self.p256 && !self.p384,
        }
    }

    fn fits(&self, key: &PublicKey, message: &[u8], signature: &[u8]) -> bool {
        let result = match (key, self.rsa, self.curve) {
            (PublicKey::Rsa(der), Some(rsa), _) => {
                UnparsedPublicKey::new(rsa, der).verify(message, signature)
            }
            (PublicKey::RsaParts { n, e }, Some(rsa), _) => {
                RsaPublicKeyComponents { n, e }.verify(rsa, message, signature)
            }
            (
                PublicKey::P256(key) | PublicKey::P384(key) | PublicKey::Ed25519(key),
                _,
                Some(curve),
            ) => UnparsedPublicKey::new(curve, key).verify(message, signature),
            _ => return false,
        };
        result.is_ok()
    }
}

/// Public keys with their ids.
#[derive(Debug, Clone, Default)]
pub(super) struct KeySet(Vec<Named>);

#[derive(Debug, Clone)]
struct Named {
    id: Option<String>,
    algorithm: Option<String>,
    key: PublicKey,
}

impl Named {
    /// A key without an id may be any; one that says its algorithm is for no other.
    fn may_be(&self, id: Option<&str>, algorithm: &str) -> bool {
        let by_id = match (&self.id, id) {
            (Some(own), Some(id)) => own == id,
            _ => true,
        };
        by_id && self.algorithm.as_deref().is_none_or(|own| own == algorithm)
    }
}

#[derive(Deserialize)]
struct Jwks {
    keys: Vec<Value>,
}

/// RFC 7517, of each kind of key what is public in it.
#[derive(Deserialize)]
struct Jwk {
    kty: String,
    kid: Option<String>,
    alg: Option<String>,
    #[serde(rename = "use")]
    purpose: Option<String>,
    crv: Option<String>,
    x: Option<String>,
    y: Option<String>,
    n: Option<String>,
    e: Option<String>,
}

impl KeySet {
    /// A JWKS document. Keys of a kind that isn't known, or for encryption, are left out.
    pub(super) fn parse(json: &[u8]) -> Option<KeySet> {
        let set: Jwks = serde_json::from_slice(json).ok()?;
        Some(KeySet(
            set.keys
                .into_iter()
                .take(MOST_KEYS)
                .filter_map(|key| serde_json::from_value::<Jwk>(key).ok()?.named())
                .collect(),
        ))
    }

    /// A JWKS document, one key of such a document, or a public key in PEM.
    fn of_secret(secret: &Secret) -> Option<KeySet> {
        let text = secret.expose().trim_ascii();
        let set = match text.starts_with(b"{") {
            true => KeySet::parse(text).or_else(|| {
                let key: Jwk = serde_json::from_slice(text).ok()?;
                Some(KeySet(vec![key.named()?]))
            })?,
            false => KeySet(vec![Named {
                id: None,
                algorithm: None,
                key: PublicKey::read(secret)?,
            }]),
        };
        (!set.0.is_empty()).then_some(set)
    }

    pub(super) fn has(&self, id: &str) -> bool {
        self.0
            .iter()
            .any(|key| key.id.as_deref().is_none_or(|own| own == id))
    }

    fn has_exactly(&self, id: Option<&str>) -> bool {
        id.is_some() && self.0.iter().any(|key| key.id.as_deref() == id)
    }
}

impl Jwk {
    fn named(self) -> Option<Named> {
        if self
            .purpose
            .as_deref()
            .is_some_and(|purpose| purpose != "sig")
        {
            return None;
        }
        let bytes = |text: &Option<String>| BASE64_URL.decode(text.as_deref()?).ok();
        let point = |length: usize| {
            let (x, y) = (bytes(&self.x)?, bytes(&self.y)?);
            (x.len() == length && y.len() == length).then(|| [&[4][..], &x, &y].concat())
        };
        let key = match (self.kty.as_str(), self.crv.as_deref()) {
            ("RSA", _) => PublicKey::RsaParts {
                n: bytes(&self.n)?,
                e: bytes(&self.e)?,
            },
            ("EC", Some("P-256")) => PublicKey::P256(point(32)?),
            ("EC", Some("P-384")) => PublicKey::P384(point(48)?),
            ("OKP", Some("Ed25519")) => {
                PublicKey::Ed25519(bytes(&self.x).filter(|x| x.len() == 32)?)
            }
            _ => return None,
        };
        Some(Named {
            id: self.kid,
            algorithm: self.alg,
            key,
        })
    }
}

pub(super) fn check_secret(scheme: &JwtScheme, secret: &Secret) -> Result<(), &'static str> {
    if !scheme.emails {
        return KeySet::of_secret(secret).map(drop).ok_or(
            "holds no public key; write a JWKS document (`{\"keys\": […]}`), or a public key in PEM",
        );
    }
    match secret.expose().contains(&b'@') {
        true => Ok(()),
        false => Err(
            "isn't the address of a service account; write the one that the subscription pushes as, as `push@project.iam.gserviceaccount.com`",
        ),
    }
}
