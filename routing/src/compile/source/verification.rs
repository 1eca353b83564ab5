//! How the senders of a Source are verified: the template, the manifest's own fields over it, and whether the secrets can
//! be its keys.

use super::super::{
    findings::{Findings, Reason},
    secrets::Taken,
};
use crate::{
    duration,
    row::SecretIndex,
    verify::{
        self, Algorithm, ApiKeyScheme, Audience, BasicScheme, DEFAULT_TOLERANCE_MS, Encoding,
        Handshake, HmacScheme, JwtScheme, Piece, Place, PublicKeyAlgorithm, PublicKeyScheme,
        Scheme, SecretEncoding, SignedTimestamp, StandardWebhooksScheme, TimeUnit, Verification,
        templates::{TEMPLATES, Template},
    },
};
use http::HeaderName;
use std::time::Duration;

/// A replay within an hour is a replay.
const LONGEST_TOLERANCE: Duration = Duration::from_secs(60 * 60);

/// What a manifest may describe itself, beside a template of the same kind or without one.
const WAYS: &str = "hmac, standardWebhooks, ed25519, ecdsa, basicAuth, apiKey and jwt";

pub(super) fn compile(
    written: &crds::Verification,
    methods: &[crds::Method],
    taken: &mut Taken<'_>,
    findings: &mut Findings,
) -> Option<Verification> {
    let (scheme, handshake) = scheme(written, findings);
    let needs_secrets = scheme.as_ref().is_none_or(Scheme::needs_secrets);
    if needs_secrets && written.secret_refs.is_empty() {
        let message = "a verification needs a secret; write `secretRefs: [{name: …, key: …}]`";
        findings.add(
            Reason::InvalidVerification,
            "spec.verification.secretRefs",
            message,
        );
    }
    let secrets = secrets(written, scheme.as_ref(), taken, findings);
    let verify_token = verify_token(written, handshake, taken, findings);
    check_methods(written, handshake, methods, findings);
    scheme.map(|scheme| Verification {
        scheme,
        secrets,
        handshake,
        verify_token,
    })
}

fn secrets(
    written: &crds::Verification,
    scheme: Option<&Scheme>,
    taken: &mut Taken<'_>,
    findings: &mut Findings,
) -> Vec<SecretIndex> {
    let mut places = Vec::with_capacity(written.secret_refs.len());
    for (place, reference) in written.secret_refs.iter().enumerate() {
        let path = format!("spec.verification.secretRefs[{place}]");
        let Some((index, secret)) = taken.take(&reference.name, &reference.key, &path, findings)
        else {
            continue;
        };
        places.push(index);
        if let Some(Err(problem)) = scheme.map(|scheme| scheme.check_secret(secret)) {
            let message = format!(
                "the value of key `{}` in Secret `{}` {problem}",
                reference.key, reference.name
            );
            findings.add(Reason::InvalidVerification, path, message);
        }
    }
    places
}

fn verify_token(
    written: &crds::Verification,
    handshake: Option<Handshake>,
    taken: &mut Taken<'_>,
    findings: &mut Findings,
) -> Option<SecretIndex> {
    let reference = written.verify_token_ref.as_ref()?;
    let path = "spec.verification.verifyTokenRef";
    if !handshake.is_some_and(Handshake::by_token) {
        let message = "only the templates `meta` and `whatsapp` have challenges with a token of yours; leave it out";
        findings.add(Reason::InvalidVerification, path, message);
        return None;
    }
    let (index, secret) = taken.take(&reference.name, &reference.key, path, findings)?;
    if secret.expose().trim_ascii().is_empty() {
        let message = format!(
            "the value of key `{}` in Secret `{}` is empty; write the verify token that the app's settings have",
            reference.key, reference.name
        );
        findings.add(Reason::InvalidVerification, path, message);
    }
    Some(index)
}

/// A provider that asks by GET is refused before it is asked what it wants.
fn check_methods(
    written: &crds::Verification,
    handshake: Option<Handshake>,
    methods: &[crds::Method],
    findings: &mut Findings,
) {
    let by_get = handshake.is_some_and(Handshake::by_get);
    if by_get && !methods.is_empty() && !methods.contains(&crds::Method::Get) {
        let message = format!(
            "`{}` sends a GET before it sends events, and is refused here; add GET, or leave `methods` out",
            written.template.as_deref().unwrap_or_default()
        );
        findings.add(Reason::UnsupportedValue, "spec.methods", message);
    }
}

fn scheme(
    written: &crds::Verification,
    findings: &mut Findings,
) -> (Option<Scheme>, Option<Handshake>) {
    let ways = [
        written.hmac.is_some(),
        written.standard_webhooks.is_some(),
        written.ed25519.is_some(),
        written.ecdsa.is_some(),
        written.basic_auth.is_some(),
        written.api_key.is_some(),
        written.jwt.is_some(),
    ];
    let ways = ways.into_iter().filter(|&there| there).count();
    if ways > 1 || ways == 0 && written.template.is_none() {
        let message =
            format!("write a template, or exactly one of {WAYS}, or a template and one of these");
        findings.add(Reason::InvalidVerification, "spec.verification", message);
        return (None, None);
    }
    let template = match &written.template {
        None => None,
        Some(name) => match Template::named(name) {
            Some(template) => Some(template),
            None => {
                unknown(name, findings);
                return (None, None);
            }
        },
    };
    let base = template.and_then(Template::scheme);
    if base.is_none() && ways == 0 {
        let message =
            format!("the template `custom` knows nothing by itself; write one of {WAYS} beside it");
        findings.add(
            Reason::InvalidVerification,
            "spec.verification.template",
            message,
        );
        return (None, None);
    }
    let handshake = template.and_then(|template| template.handshake);
    (laid_over(base, written, findings), handshake)
}

fn unknown(name: &str, findings: &mut Findings) {
    let names: Vec<&str> = TEMPLATES.iter().map(|template| template.name).collect();
    let message = format!(
        "there is no template `{name}`; there are {}, or describe it with one of {WAYS}",
        names.join(", ")
    );
    findings.add(
        Reason::UnsupportedValue,
        "spec.verification.template",
        message,
    );
}

/// What the manifest writes, over what the template has.
fn laid_over(
    base: Option<Scheme>,
    written: &crds::Verification,
    findings: &mut Findings,
) -> Option<Scheme> {
    let (way, laid) = if let Some(hmac) = &written.hmac {
        let base = match base {
            None => Some(None),
            Some(Scheme::Hmac(base)) => Some(Some(base)),
            Some(_) => None,
        };
        let laid = base.map(|base| hmac_scheme(base, hmac, findings).map(Scheme::Hmac));
        ("hmac", laid)
    } else if let Some(standard) = &written.standard_webhooks {
        let base = match base {
            None => Some(None),
            Some(Scheme::StandardWebhooks(base)) => Some(Some(base)),
            Some(_) => None,
        };
        let path = "spec.verification.standardWebhooks.tolerance";
        let laid = base.map(|base| {
            let default = base.as_ref().map(|base| base.tolerance_ms);
            Some(Scheme::StandardWebhooks(StandardWebhooksScheme {
                tolerance_ms: tolerance_ms(standard.tolerance.as_ref(), path, findings)
                    .or(default)
                    .unwrap_or(DEFAULT_TOLERANCE_MS),
                svix: base.is_some_and(|base| base.svix),
            }))
        });
        ("standardWebhooks", laid)
    } else if let Some(key) = &written.ed25519 {
        let algorithm = PublicKeyAlgorithm::Ed25519;
        ("ed25519", public_key(base, algorithm, key, findings))
    } else if let Some(key) = &written.ecdsa {
        let algorithm = PublicKeyAlgorithm::EcdsaP256;
        ("ecdsa", public_key(base, algorithm, key, findings))
    } else if let Some(basic) = &written.basic_auth {
        let fits = matches!(base, None | Some(Scheme::Basic(_)));
        let realm = basic.realm.clone();
        let laid = fits.then_some(Some(Scheme::Basic(BasicScheme { realm })));
        ("basicAuth", laid)
    } else if let Some(key) = &written.api_key {
        let fits = matches!(base, None | Some(Scheme::ApiKey(_)));
        ("apiKey", fits.then(|| api_key(key, findings)))
    } else if let Some(jwt) = &written.jwt {
        let base = match base {
            None => Some(None),
            Some(Scheme::Jwt(base)) => Some(Some(base)),
            Some(_) => None,
        };
        let laid = base.map(|base| Some(Scheme::Jwt(jwt_scheme(base, jwt, findings))));
        ("jwt", laid)
    } else {
        return base;
    };
    laid.unwrap_or_else(|| {
        let message = format!(
            "the template `{}` verifies in another way, so `{way}` can't change it; leave one of the two out",
            written.template.as_deref().unwrap_or_default()
        );
        findings.add(
            Reason::InvalidVerification,
            format!("spec.verification.{way}"),
            message,
        );
        None
    })
}

fn hmac_scheme(
    base: Option<HmacScheme>,
    hmac: &crds::HmacVerification,
    findings: &mut Findings,
) -> Option<HmacScheme> {
    let path = |field: &str| format!("spec.verification.hmac.{field}");
    let described = base.is_none() || hmac.signed_content.is_some() || hmac.header.is_some();
    let signatures = match (&hmac.header, &hmac.pair) {
        (Some(name), pair) => {
            place(name, pair.as_deref(), &path("header"), findings).map(|place| vec![place])
        }
        (None, Some(_)) => {
            let message =
                "`pair` says which part of a header is the signature; write `header` as well";
            findings.add(Reason::InvalidVerification, path("pair"), message);
            None
        }
        (None, None) => {
            let known = base.as_ref().map(|base| base.signatures.clone());
            if known.is_none() {
                let message = "write the `header` that has the signature";
                findings.add(Reason::InvalidVerification, path("header"), message);
            }
            known
        }
    };
    let id = match &hmac.id_header {
        Some(name) => Some(Place::Header(header_name(
            name,
            &path("idHeader"),
            findings,
        ))),
        None => base.as_ref().and_then(|base| base.id.clone()),
    };
    let timestamp = signed_timestamp(
        base.as_ref().and_then(|base| base.timestamp.clone()),
        hmac.timestamp.as_ref(),
        &path("timestamp"),
        findings,
    );
    let content = match (&hmac.signed_content, &base) {
        (None, Some(base)) => base.content.clone(),
        (written, _) => {
            let written = written.as_deref().unwrap_or("{body}");
            let content = verify::parse_content(written);
            findings.value(content, Reason::InvalidVerification, &path("signedContent"))?
        }
    };
    if described {
        let path = path("signedContent");
        check_content(&content, timestamp.is_some(), id.is_some(), &path, findings);
    }
    Some(HmacScheme {
        algorithm: match hmac.algorithm {
            None => base
                .as_ref()
                .map_or(Algorithm::Sha256, |base| base.algorithm),
            Some(crds::HmacAlgorithm::Sha1) => Algorithm::Sha1,
            Some(crds::HmacAlgorithm::Sha256) => Algorithm::Sha256,
            Some(crds::HmacAlgorithm::Sha512) => Algorithm::Sha512,
        },
        signatures: signatures?,
        encoding: encoding(hmac.encoding)
            .or(base.as_ref().map(|base| base.encoding))
            .unwrap_or(Encoding::Hex),
        prefix: hmac
            .prefix
            .clone()
            .or(base.as_ref().map(|base| base.prefix.clone()))
            .unwrap_or_default(),
        content,
        timestamp,
        id,
        secret: match hmac.secret_encoding {
            None => base.as_ref().map(|base| base.secret).unwrap_or_default(),
            Some(crds::SecretEncoding::Text) => SecretEncoding::Text,
            Some(crds::SecretEncoding::Hex) => SecretEncoding::Hex,
            Some(crds::SecretEncoding::Base64) => SecretEncoding::Base64,
        },
        twilio: base.is_some_and(|base| base.twilio),
    })
}

/// `None`: the template is of another kind.
fn public_key(
    base: Option<Scheme>,
    algorithm: PublicKeyAlgorithm,
    key: &crds::PublicKeyVerification,
    findings: &mut Findings,
) -> Option<Option<Scheme>> {
    let way = match algorithm {
        PublicKeyAlgorithm::Ed25519 => "ed25519",
        PublicKeyAlgorithm::EcdsaP256 => "ecdsa",
    };
    let path = |field: &str| format!("spec.verification.{way}.{field}");
    let base = match base {
        None => None,
        Some(Scheme::PublicKey(base)) if base.algorithm == algorithm => Some(base),
        Some(_) => return None,
    };
    let header = match (&key.header, &base) {
        (Some(name), _) => header(name, &path("header"), findings),
        (None, Some(base)) => Some(base.header.clone()),
        (None, None) => {
            let message = "write the `header` that has the signature";
            findings.add(Reason::InvalidVerification, path("header"), message);
            None
        }
    };
    let timestamp = signed_timestamp(
        base.as_ref().and_then(|base| base.timestamp.clone()),
        key.timestamp.as_ref(),
        &path("timestamp"),
        findings,
    );
    let content = match (&key.signed_content, &base) {
        (Some(written), _) => {
            let content = verify::parse_content(written);
            findings
                .value(content, Reason::InvalidVerification, &path("signedContent"))
                .unwrap_or_default()
        }
        (None, Some(base)) => base.content.clone(),
        (None, None) if timestamp.is_some() => vec![Piece::Timestamp, Piece::Body],
        (None, None) => vec![Piece::Body],
    };
    check_content(
        &content,
        timestamp.is_some(),
        false,
        &path("signedContent"),
        findings,
    );
    Some(header.map(|header| {
        Scheme::PublicKey(PublicKeyScheme {
            algorithm,
            header,
            encoding: encoding(key.encoding)
                .or(base.map(|base| base.encoding))
                .unwrap_or(Encoding::Base64),
            content,
            timestamp,
        })
    }))
}

fn api_key(key: &crds::ApiKeyVerification, findings: &mut Findings) -> Option<Scheme> {
    let at = match (&key.header, &key.query) {
        (Some(name), None) => {
            Place::Header(header(name, "spec.verification.apiKey.header", findings)?)
        }
        (None, Some(name)) => Place::Query(name.clone()),
        _ => {
            let message = "write exactly one of `header` and `query`";
            findings.add(
                Reason::InvalidVerification,
                "spec.verification.apiKey",
                message,
            );
            return None;
        }
    };
    Some(Scheme::ApiKey(ApiKeyScheme { at }))
}

fn jwt_scheme(
    base: Option<JwtScheme>,
    jwt: &crds::JwtVerification,
    findings: &mut Findings,
) -> JwtScheme {
    let base = base.unwrap_or(JwtScheme {
        header: "authorization".to_owned(),
        jwks_url: None,
        issuers: Vec::new(),
        audience: Audience::Any,
        emails: false,
    });
    if let Some(url) = &jwt.jwks_url {
        check_url(url, findings);
    }
    JwtScheme {
        header: match &jwt.header {
            Some(name) => header_name(name, "spec.verification.jwt.header", findings),
            None => base.header,
        },
        jwks_url: jwt.jwks_url.clone().or(base.jwks_url),
        issuers: match &jwt.issuer {
            Some(issuer) => vec![issuer.clone()],
            None => base.issuers,
        },
        audience: match &jwt.audience {
            Some(audience) => Audience::Is(audience.clone()),
            None => base.audience,
        },
        emails: base.emails,
    }
}

fn check_url(url: &str, findings: &mut Findings) {
    let parsed = url.parse::<http::Uri>().ok();
    let is_https = parsed.is_some_and(|uri| {
        uri.scheme_str() == Some("https") && uri.host().is_some_and(|host| !host.is_empty())
    });
    if !is_https || url.contains(['@', '#']) {
        let message = format!(
            "`{url}` can't be fetched; write a URL over https, as `https://login.example.com/.well-known/jwks.json`"
        );
        findings.add(
            Reason::InvalidVerification,
            "spec.verification.jwt.jwksUrl",
            message,
        );
    }
}

fn signed_timestamp(
    base: Option<SignedTimestamp>,
    written: Option<&crds::TimestampCheck>,
    path: &str,
    findings: &mut Findings,
) -> Option<SignedTimestamp> {
    let Some(written) = written else {
        return base;
    };
    let (base_at, base_unit, base_tolerance) = match base {
        Some(base) => (Some(base.at), base.unit, base.tolerance_ms),
        None => (None, TimeUnit::Seconds, Some(DEFAULT_TOLERANCE_MS)),
    };
    let at = match &written.header {
        Some(name) => place(
            name,
            written.pair.as_deref(),
            &format!("{path}.header"),
            findings,
        ),
        None => {
            if base_at.is_none() || written.pair.is_some() {
                let message = "write the `header` that has the time";
                findings.add(
                    Reason::InvalidVerification,
                    format!("{path}.header"),
                    message,
                );
            }
            base_at
        }
    };
    let tolerance = tolerance_ms(
        written.tolerance.as_ref(),
        &format!("{path}.tolerance"),
        findings,
    );
    Some(SignedTimestamp {
        at: at?,
        unit: match written.unit {
            None => base_unit,
            Some(crds::TimestampUnit::Seconds) => TimeUnit::Seconds,
            Some(crds::TimestampUnit::Milliseconds) => TimeUnit::Milliseconds,
            Some(crds::TimestampUnit::Rfc3339) => TimeUnit::Rfc3339,
        },
        tolerance_ms: tolerance.or(base_tolerance),
    })
}

/// What is named must be signed, and what is signed must be named.
fn check_content(
    content: &[Piece],
    timestamp: bool,
    id: bool,
    path: &str,
    findings: &mut Findings,
) {
    let problem = match (content.contains(&Piece::Timestamp), timestamp) {
        (true, false) => {
            Some("`{timestamp}` needs `timestamp: {header: …}`, which says where the time is")
        }
        (false, true) => Some(
            "the timestamp isn't part of what is signed, so anybody could change it; write `signedContent: \"{timestamp}.{body}\"` as the sender signs, or leave `timestamp` out",
        ),
        _ => None,
    };
    let id_problem = match (content.contains(&Piece::Id), id) {
        (true, false) => Some("`{id}` needs `idHeader`, which says where the id is"),
        (false, true) => Some(
            "`idHeader` is named, but `{id}` isn't part of `signedContent`; add it, or leave `idHeader` out",
        ),
        _ => None,
    };
    for problem in problem.into_iter().chain(id_problem) {
        findings.add(Reason::InvalidVerification, path, problem);
    }
}

fn encoding(written: Option<crds::SignatureEncoding>) -> Option<Encoding> {
    written.map(|encoding| match encoding {
        crds::SignatureEncoding::Hex => Encoding::Hex,
        crds::SignatureEncoding::Base64 => Encoding::Base64,
    })
}

fn place(name: &str, pair: Option<&str>, path: &str, findings: &mut Findings) -> Option<Place> {
    let header = header(name, path, findings)?;
    Some(match pair {
        Some(key) => Place::Pair {
            header,
            key: key.to_owned(),
        },
        None => Place::Header(header),
    })
}

fn header(name: &str, path: &str, findings: &mut Findings) -> Option<String> {
    match HeaderName::from_bytes(name.as_bytes()) {
        Ok(name) => Some(name.as_str().to_owned()),
        Err(_) => {
            let message =
                format!("`{name}` can't be the name of a header; write one as `X-Signature`");
            findings.add(Reason::InvalidVerification, path, message);
            None
        }
    }
}

/// As [`header`]; the empty name never reaches a row, since the finding keeps the whole object out.
fn header_name(name: &str, path: &str, findings: &mut Findings) -> String {
    header(name, path, findings).unwrap_or_default()
}

/// `None`: not written, or wrong, which a finding says.
fn tolerance_ms(
    written: Option<&crds::Duration>,
    path: &str,
    findings: &mut Findings,
) -> Option<u64> {
    let written = written?;
    let parsed = findings.value(duration::parse(&written.0), Reason::UnsupportedValue, path)?;
    if parsed < Duration::from_secs(1) || parsed > LONGEST_TOLERANCE {
        let message = format!("`{}` is out of range; write `1s` to `1h`", written.0);
        findings.add(Reason::UnsupportedValue, path, message);
        return None;
    }
    u64::try_from(parsed.as_millis()).ok()
}
