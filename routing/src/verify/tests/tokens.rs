//! JSON Web Tokens that must not pass: another algorithm, another key, another time, another audience.

use super::*;
use ring::{
    rand::SystemRandom,
    signature::{Ed25519KeyPair, KeyPair},
};
use serde_json::{Value, json};

struct Issuer {
    pair: Ed25519KeyPair,
}

fn url(bytes: impl AsRef<[u8]>) -> String {
    encoding::BASE64_URL.encode(bytes).replace('=', "")
}

impl Issuer {
    fn new() -> Issuer {
        let random = SystemRandom::new();
        let der = Ed25519KeyPair::generate_pkcs8(&random).expect("a key");
        let pair = Ed25519KeyPair::from_pkcs8(der.as_ref()).expect("a key");
        Issuer { pair }
    }

    fn jwks(&self) -> String {
        json!({"keys": [{"kty": "OKP", "crv": "Ed25519", "kid": "k", "x": url(self.pair.public_key())}]}).to_string()
    }

    fn token(&self, head: Value, claims: Value) -> String {
        let signed = format!("{}.{}", url(head.to_string()), url(claims.to_string()));
        let signature = self.pair.sign(signed.as_bytes());
        format!("{signed}.{}", url(signature))
    }
}

fn scheme_of(audience: Audience) -> JwtScheme {
    JwtScheme {
        header: "authorization".to_owned(),
        jwks_url: None,
        issuers: vec!["us".to_owned()],
        audience,
        emails: false,
    }
}

fn check(verifier: &Verifier, token: &str) -> Result<(), Refused> {
    let value = format!("Bearer {token}");
    verify(verifier, &[("authorization", &value)], "", at(1_000))
}

#[test]
fn a_token_is_judged_by_its_times_issuer_and_audience() {
    let issuer = Issuer::new();
    let scheme = Scheme::Jwt(scheme_of(Audience::Is("here".to_owned())));
    let ours = verifier(scheme, &[&issuer.jwks()]);
    let head = json!({"alg": "EdDSA", "kid": "k"});
    let with = |claims: Value| check(&ours, &issuer.token(head.clone(), claims));
    let good = json!({"iss": "us", "aud": "here", "exp": 1_000, "nbf": 1_000});
    assert_eq!(with(good.clone()), Ok(()));
    let but = |name: &str, value: Value| {
        let mut claims = good.clone();
        claims[name] = value;
        with(claims)
    };
    // A minute of leeway, and not a second more.
    assert_eq!(but("exp", json!(941)), Ok(()));
    assert_eq!(but("exp", json!(940)), Err(Refused::TokenExpired));
    assert_eq!(but("exp", json!(1000.5)), Ok(()));
    assert_eq!(but("exp", Value::Null), Err(Refused::TokenExpired));
    assert_eq!(but("nbf", json!(1_060)), Ok(()));
    assert_eq!(but("nbf", json!(1_061)), Err(Refused::TokenNotYetValid));
    assert_eq!(but("iss", json!("them")), Err(Refused::TokenClaims));
    assert_eq!(but("iss", Value::Null), Err(Refused::TokenClaims));
    assert_eq!(but("aud", json!(["there", "here"])), Ok(()));
    for other in [json!("there"), json!(["there"]), json!([]), Value::Null] {
        assert_eq!(
            but("aud", other.clone()),
            Err(Refused::TokenClaims),
            "{other}"
        );
    }
    assert_eq!(but("exp", json!("soon")), Err(Refused::TokenMalformed));
}

#[test]
fn no_algorithm_but_that_of_the_key_is_taken() {
    let issuer = Issuer::new();
    let ours = verifier(Scheme::Jwt(scheme_of(Audience::Any)), &[&issuer.jwks()]);
    let claims = json!({"iss": "us", "exp": 2_000});
    let with = |head: Value| check(&ours, &issuer.token(head, claims.clone()));
    assert_eq!(with(json!({"alg": "EdDSA", "kid": "k"})), Ok(()));
    assert_eq!(with(json!({"alg": "EdDSA"})), Ok(()));
    for none in ["none", "None", "NONE", "HS256", "HS512", "", "eddsa"] {
        let refused = with(json!({"alg": none, "kid": "k"}));
        assert_eq!(refused, Err(Refused::TokenMalformed), "{none}");
    }
    for other in ["RS256", "PS256", "ES256", "ES384"] {
        let refused = with(json!({"alg": other, "kid": "k"}));
        assert_eq!(refused, Err(Refused::KeyUnknown), "{other}");
    }
    assert_eq!(
        with(json!({"alg": "EdDSA", "kid": "l"})),
        Err(Refused::KeyUnknown)
    );
    assert_eq!(
        with(json!({"alg": "EdDSA", "kid": "k", "crit": ["b64"]})),
        Err(Refused::TokenMalformed)
    );

    // The public key as the secret of an HMAC: what a library that looks at `alg` alone takes.
    let signed = format!(
        "{}.{}",
        url(json!({"alg": "HS256", "kid": "k"}).to_string()),
        url(claims.to_string())
    );
    for secret in [
        issuer.jwks().into_bytes(),
        issuer.pair.public_key().as_ref().to_vec(),
    ] {
        let key = ring::hmac::Key::new(ring::hmac::HMAC_SHA256, &secret);
        let forged = format!(
            "{signed}.{}",
            url(ring::hmac::sign(&key, signed.as_bytes()))
        );
        assert_eq!(check(&ours, &forged), Err(Refused::TokenMalformed));
    }
    let unsigned = format!(
        "{}.{}.",
        url(json!({"alg": "none"}).to_string()),
        url(claims.to_string())
    );
    assert_eq!(check(&ours, &unsigned), Err(Refused::TokenMalformed));
}

#[test]
fn a_token_by_another_key_or_changed_on_its_way_is_refused() {
    let (issuer, other) = (Issuer::new(), Issuer::new());
    let ours = verifier(Scheme::Jwt(scheme_of(Audience::Any)), &[&issuer.jwks()]);
    let (head, claims) = (
        json!({"alg": "EdDSA", "kid": "k"}),
        json!({"iss": "us", "exp": 2_000}),
    );
    let token = other.token(head.clone(), claims.clone());
    assert_eq!(check(&ours, &token), Err(Refused::SignatureMismatch));
    let token = issuer.token(head, claims);
    let changed = {
        let mut parts: Vec<String> = token.split('.').map(str::to_owned).collect();
        parts[1] = url(json!({"iss": "us", "exp": 9_000}).to_string());
        parts.join(".")
    };
    assert_eq!(check(&ours, &changed), Err(Refused::SignatureMismatch));
    for broken in ["", ".", "..", "a.b", "a.b.c.d", "%.%.%"] {
        assert!(check(&ours, broken).is_err(), "{broken}");
    }
    let no_bearer = verify(&ours, &[("authorization", &token)], "", at(1_000));
    assert_eq!(no_bearer, Err(Refused::CredentialsMissing));
}

#[test]
fn pub_subs_token_must_be_of_the_service_account_and_for_this_url() {
    let issuer = Issuer::new();
    let scheme = JwtScheme {
        jwks_url: Some("https://keys.example/".to_owned()),
        emails: true,
        ..scheme_of(Audience::Url)
    };
    let ours = verifier(Scheme::Jwt(scheme), &["push@p.iam"]);
    let keys = Document::parse(DocumentKind::KeySet, issuer.jwks().as_bytes()).expect("keys");
    let with = |claims: Value| {
        let token = issuer.token(json!({"alg": "EdDSA", "kid": "k"}), claims);
        let map = headers(&[("authorization", &format!("Bearer {token}"))]);
        let event = EventView::new(&Method::POST, "", "", &map, b"", [127, 0, 0, 1].into())
            .called_at("https://a.b/", "/v1/ingest/x?y=1");
        let wanted = ours.wants(&event)?.expect("a key set");
        assert_eq!(wanted.key_id.as_deref(), Some("k"));
        ours.verify(&event, at(1_000), Some(&keys)).map(drop)
    };
    let good = json!({"iss": "us", "exp": 2_000, "aud": "https://a.b/v1/ingest/x", "email": "push@p.iam", "email_verified": true});
    assert_eq!(with(good.clone()), Ok(()));
    for (name, value) in [
        ("email", json!("other@p.iam")),
        ("email", Value::Null),
        ("email_verified", json!(false)),
        ("email_verified", Value::Null),
        ("aud", json!("https://a.b/v1/ingest/y")),
        ("aud", json!("https://a.b.evil/v1/ingest/x")),
    ] {
        let mut claims = good.clone();
        claims[name] = value.clone();
        assert_eq!(with(claims), Err(Refused::TokenClaims), "{name} {value}");
    }
    let mut claims = good;
    claims["aud"] = json!("https://a.b/v1/ingest/x?y=1");
    assert_eq!(with(claims), Ok(()));
}
