use super::*;
use ed25519_dalek::{Verifier as _, VerifyingKey};
use jiff::Timestamp;
use p256::ecdsa;

/// Of RFC 9421, appendix B.1.
const ED25519_PEM: &str = "-----BEGIN PRIVATE KEY-----
MC4CAQAwBQYDK2VwBCIEIJ+DYvh6SEqVTm50DFtMDoQikTmiCqirVv9mWG9qfSnF
-----END PRIVATE KEY-----
";
const P256_PEM: &str = "-----BEGIN EC PRIVATE KEY-----
MHcCAQEEIFKbhfNZfpDsW43+0+JjUr9K+bTeuxopu653+hBaXGA7oAoGCCqGSM49
AwEHoUQDQgAEqIVYZVLCrPZHGHjP17CTW0/+D9Lfw0EkjqF7xB4FivAxzic30tMM
4GF+hR6Dxh71Z50VGGdldkkDXZCnTNnoXQ==
-----END EC PRIVATE KEY-----
";

fn hmac_scheme() -> HmacScheme {
    HmacScheme {
        algorithm: Algorithm::Sha256,
        header: "x-hookstream-signature".to_owned(),
        prefix: "sha256=".to_owned(),
        timestamp_header: None,
    }
}

/// The headers after `body` was signed, with an id and a type there already.
fn signed(scheme: Scheme, keys: &[&str], body: &[u8]) -> HeaderMap {
    let secrets: Vec<Secret> = keys.iter().map(|key| Secret::new(*key)).collect();
    let signing = Signing {
        scheme,
        keys: (0..keys.len() as u16).map(SecretIndex).collect(),
    };
    let mut headers = HeaderMap::new();
    headers.insert(
        "webhook-id",
        HeaderValue::from_static("msg_p5jXN8AQM9LWM0D4loKWxJek"),
    );
    headers.insert("content-type", HeaderValue::from_static("application/json"));
    headers.insert("signature", HeaderValue::from_static("sig1=:b2xk:"));
    let message = Message {
        method: &Method::POST,
        uri: &Uri::from_static("https://Example.COM:443/hooks?a=b"),
        body,
        timestamp: 1_614_265_330,
    };
    Signer::new(&signing, &secrets)
        .unwrap()
        .sign(message, &mut headers);
    headers
}

fn text<'h>(headers: &'h HeaderMap, name: &str) -> &'h str {
    headers[name].to_str().unwrap()
}

#[test]
fn hmac_is_what_openssl_computes() {
    // printf '%s' '{"a":1}' | openssl dgst -sha256 -hmac hunter2
    let headers = signed(
        Scheme::Hmac(hmac_scheme()),
        &["hunter2", "not this one"],
        b"{\"a\":1}",
    );
    assert_eq!(
        text(&headers, "x-hookstream-signature"),
        "sha256=6e73a1a57a6e6edb9dff174d2a53bc61a27cfc639a2964743ed35fd59c8bc82d"
    );
    let scheme = HmacScheme {
        algorithm: Algorithm::Sha1,
        header: "x-sig".to_owned(),
        prefix: String::new(),
        timestamp_header: Some("x-time".to_owned()),
    };
    let headers = signed(Scheme::Hmac(scheme), &["hunter2"], b"{\"a\":1}");
    // printf '%s' '1614265330.{"a":1}' | openssl dgst -sha1 -hmac hunter2
    assert_eq!(
        text(&headers, "x-sig"),
        "4fdd4682a07a1b6181662cc5c520c6ff20dbaf25"
    );
    assert_eq!(text(&headers, "x-time"), "1614265330");
}

#[test]
fn standard_webhooks_signs_the_example_of_its_specification_with_every_key() {
    let shared = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
    let seed = BASE64_STANDARD.encode([7; 32]);
    let asymmetric = format!("whsk_{seed}");
    let body = br#"{"test": 2432232314}"#;
    let headers = signed(
        Scheme::StandardWebhooks {},
        &[shared, &asymmetric, shared],
        body,
    );
    let signatures: Vec<&str> = text(&headers, "webhook-signature").split(' ').collect();
    assert_eq!(signatures.len(), 2, "the same key signs once");
    assert_eq!(
        signatures[0],
        "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="
    );
    let signature = BASE64_STANDARD
        .decode(signatures[1].strip_prefix("v1a,").unwrap())
        .unwrap();
    let key = VerifyingKey::from(&ed25519_dalek::SigningKey::from_bytes(&[7; 32]));
    let content = [b"msg_p5jXN8AQM9LWM0D4loKWxJek.1614265330.", &body[..]].concat();
    key.verify(&content, &signature.as_slice().try_into().unwrap())
        .unwrap();
}

#[test]
fn an_http_signature_covers_the_request_as_its_receiver_sees_it() {
    let scheme = || Scheme::HttpSignature {
        key_id: "a \"key\"".to_owned(),
    };
    let body = br#"{"hello": "world"}"#;
    let parameters = |algorithm: &str| {
        format!(
            "(\"@method\" \"@target-uri\" \"content-digest\" \"content-type\" \"webhook-id\")\
             ;created=1614265330;keyid=\"a \\\"key\\\"\";alg=\"{algorithm}\""
        )
    };
    // The digest is the one of RFC 9530, appendix D.
    let base = |algorithm: &str| {
        format!(
            "\"@method\": POST\n\"@target-uri\": https://example.com/hooks?a=b\n\
             \"content-digest\": sha-256=:X48E9qOokqqrvdts8nOJRJN3OWDUoyWxBf7kbu9DBPE=:\n\
             \"content-type\": application/json\n\"webhook-id\": msg_p5jXN8AQM9LWM0D4loKWxJek\n\
             \"@signature-params\": {}",
            parameters(algorithm)
        )
    };
    let signature = |headers: &HeaderMap, algorithm: &str| {
        assert_eq!(
            text(headers, "signature-input"),
            format!("sig1={}", parameters(algorithm))
        );
        let value = text(headers, "signature").strip_prefix("sig1=:").unwrap();
        BASE64_STANDARD
            .decode(value.strip_suffix(':').unwrap())
            .unwrap()
    };

    let headers = signed(scheme(), &[ED25519_PEM], body);
    // The public key of the same appendix.
    let public = BASE64_STANDARD
        .decode("JrQLj5P/89iXES9+vFgrIy29clF9CC/oPPsw3c5D0bs=")
        .unwrap();
    VerifyingKey::from_bytes(public.as_slice().try_into().unwrap())
        .unwrap()
        .verify(
            base("ed25519").as_bytes(),
            &signature(&headers, "ed25519")
                .as_slice()
                .try_into()
                .unwrap(),
        )
        .unwrap();

    let headers = signed(scheme(), &[P256_PEM], body);
    let key = p256::SecretKey::from_sec1_pem(P256_PEM).unwrap();
    let signature_bytes = signature(&headers, "ecdsa-p256-sha256");
    ecdsa::VerifyingKey::from(key.public_key())
        .verify(
            base("ecdsa-p256-sha256").as_bytes(),
            &ecdsa::Signature::from_slice(&signature_bytes).unwrap(),
        )
        .unwrap();

    let key = "a shared key of some length";
    let headers = signed(scheme(), &[key], body);
    let mut mac = Hmac::<Sha256>::new_from_slice(key.as_bytes()).unwrap();
    mac.update(base("hmac-sha256").as_bytes());
    mac.verify_slice(&signature(&headers, "hmac-sha256"))
        .unwrap();
}

#[test]
fn a_key_is_told_by_its_form_and_a_wrong_one_says_what_to_write() {
    let standard = Scheme::StandardWebhooks {};
    let http = Scheme::HttpSignature {
        key_id: String::new(),
    };
    let base64 = |bytes: usize| BASE64_STANDARD.encode(vec![1; bytes]);
    let check = |scheme: &Scheme, key: String| scheme.check_key(&Secret::new(key));
    for key in [
        format!("whsec_{}", base64(24)),
        format!("whsec_{}", base64(64)),
        format!("whsk_{}", base64(32)),
    ] {
        assert_eq!(check(&standard, key.clone()), Ok(()), "{key}");
        assert_eq!(check(&http, key.clone()), Ok(()), "{key}");
    }
    for (key, says) in [
        (String::new(), "whsec_"),
        (base64(32), "whsec_"),
        ("whsec_".to_owned(), "24 to 64 bytes"),
        (format!("whsec_{}", base64(23)), "24 to 64 bytes"),
        (format!("whsec_{}", base64(65)), "24 to 64 bytes"),
        (format!("whsec_{}\n", base64(32)), "line break"),
        (format!("whsk_{}", base64(31)), "Ed25519"),
        // The public half belongs to another key.
        (format!("whsk_{}", base64(64)), "Ed25519"),
        (ED25519_PEM.to_owned(), "whsk_"),
    ] {
        assert!(
            check(&standard, key.clone()).unwrap_err().contains(says),
            "{key}"
        );
    }
    for (key, says) in [
        ("short".to_owned(), "too short"),
        ("-----BEGIN PUBLIC KEY-----\nMCowBQYDK2VwAyEAJrQLj5P/89iXES9+vFgrIy29clF9CC/oPPsw3c5D0bs=\n-----END PUBLIC KEY-----\n".to_owned(), "no private key"),
        ("-----BEGIN ENCRYPTED PRIVATE KEY-----\nMC4=\n-----END ENCRYPTED PRIVATE KEY-----\n".to_owned(), "passphrase"),
        ("-----BEGIN RSA PRIVATE KEY-----\nMC4=\n-----END RSA PRIVATE KEY-----\n".to_owned(), "Ed25519 or P-256"),
    ] {
        assert!(check(&http, key.clone()).unwrap_err().contains(says), "{key}");
    }
    let hmac = Scheme::Hmac(hmac_scheme());
    assert!(check(&hmac, String::new()).is_err());
    assert!(check(&hmac, "x".to_owned()).is_ok());
}

#[test]
fn a_signer_without_its_key_is_not_made_and_none_prints_one() {
    let signing = |keys: Vec<SecretIndex>| Signing {
        scheme: Scheme::Hmac(hmac_scheme()),
        keys,
    };
    let held = [Secret::new("hunter2")];
    assert_eq!(
        Signer::new(&signing(vec![SecretIndex(1)]), &held).unwrap_err(),
        Unusable::KeyMissing
    );
    assert_eq!(
        Signer::new(&signing(vec![]), &held).unwrap_err(),
        Unusable::KeyMissing
    );
    let signer = Signer::new(&signing(vec![SecretIndex(0)]), &held).unwrap();
    assert!(!format!("{signer:?}").contains("hunter2"));
}

/// `testground/signing/verify.py` has botocore compute the same; these figures are from there.
#[test]
fn sigv4_is_what_botocore_computes() {
    let credentials = |service: &str, token: Option<&'static str>| sigv4::Credentials {
        access_key_id: "AKIDEXAMPLE".to_owned(),
        secret_access_key: Secret::new("wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY"),
        session_token: token.map(HeaderValue::from_static),
        region: "us-east-1".to_owned(),
        service: service.to_owned(),
    };
    let now: Timestamp = "2015-08-30T12:36:00Z".parse().unwrap();
    for (service, token, uri, signature) in [
        (
            "execute-api",
            None,
            "https://abc.execute-api.us-east-1.amazonaws.com/prod/hooks?b=2&a=x%3Ay&c",
            "d9a685451e6a284feaa828f4ca6b22d3e3943749c0736186f7b172741dc0a51e",
        ),
        (
            "execute-api",
            Some("tok/en=="),
            "https://abc.execute-api.us-east-1.amazonaws.com:8443/a%20b/../c//d/~x/",
            "f467d8a30e1ad5cf351de3d45d1a6a41888946f2c3ece4d08bda53bb0f7ef336",
        ),
        (
            "s3",
            None,
            "https://bucket.s3.us-east-1.amazonaws.com/a%20b/c//d",
            "2b147e808a673b37c54f6dec9b8c40d52196c9f10c71e619a91a535bc9189ca8",
        ),
        (
            "lambda",
            None,
            "https://lambda.us-east-1.amazonaws.com",
            "ddfbd0e6be2027d21d61d6831a025177ef3976d11683791fc169f0620d1c61d0",
        ),
    ] {
        let mut headers = HeaderMap::new();
        headers.insert(
            "content-type",
            HeaderValue::from_static("application/json;  charset=utf-8 "),
        );
        let credentials = credentials(service, token);
        assert!(!format!("{credentials:?}").contains("wJalr"));
        let uri: Uri = uri.parse().unwrap();
        credentials.sign(&Method::POST, &uri, b"{\"a\":1}", now, &mut headers);
        let authorization = text(&headers, "authorization");
        assert!(
            authorization.ends_with(&format!(", Signature={signature}")),
            "{service} {uri}: {authorization}"
        );
        assert!(headers["authorization"].is_sensitive());
    }
}
