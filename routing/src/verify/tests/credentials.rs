//! Basic authentication, API keys, and what a Secret must be.

use super::*;

fn basic(credentials: &str) -> String {
    format!("Basic {}", BASE64.encode(credentials))
}

#[test]
fn basic_authentication_takes_any_of_its_credentials_and_no_other() {
    let scheme = Scheme::Basic(BasicScheme {
        realm: Some("the \"shop\"".to_owned()),
    });
    let ours = verifier(scheme, &["ann:one:two", "bob:three\n"]);
    let check = |value: &str| verify(&ours, &[("authorization", value)], "", at(0));
    assert_eq!(check(&basic("ann:one:two")), Ok(()));
    assert_eq!(check(&basic("bob:three")), Ok(()));
    assert_eq!(check(&basic("bob:three").replace("Basic", "bAsIc")), Ok(()));
    for wrong in ["ann:one", "ann:one:two ", "bob:three\n", ":"] {
        assert_eq!(
            check(&basic(wrong)),
            Err(Refused::CredentialsMismatch),
            "{wrong}"
        );
    }
    for none in [
        "Bearer x",
        "Basic",
        "Basic ",
        "Basic %",
        "",
        &format!("Basic {}", "A".repeat(5_000)),
    ] {
        assert_eq!(check(none), Err(Refused::CredentialsMissing), "{none}");
    }
    assert_eq!(
        verify(&ours, &[], "", at(0)),
        Err(Refused::CredentialsMissing)
    );
    assert_eq!(
        ours.authenticate().map(|text| &**text),
        Some(r#"Basic realm="the \"shop\"", charset="UTF-8""#)
    );
}

#[test]
fn an_api_key_is_taken_from_a_header_or_from_the_query() {
    let header = Scheme::ApiKey(ApiKeyScheme {
        at: Place::header("x-key"),
    });
    let header = verifier(header, &["right", "before"]);
    let check = |value: &str| verify(&header, &[("x-key", value)], "", at(0));
    assert_eq!(check("right"), Ok(()));
    assert_eq!(check("before"), Ok(()));
    assert_eq!(check("Right"), Err(Refused::CredentialsMismatch));
    assert_eq!(
        verify(&header, &[], "", at(0)),
        Err(Refused::CredentialsMissing)
    );

    let query = Scheme::ApiKey(ApiKeyScheme {
        at: Place::Query("key".to_owned()),
    });
    let query = verifier(query, &["a b&c"]);
    let map = HeaderMap::new();
    for (text, expected) in [
        ("x=1&key=a+b%26c", Ok(Verdict::Genuine)),
        ("key=a", Err(Refused::CredentialsMismatch)),
        ("keys=a+b%26c", Err(Refused::CredentialsMissing)),
    ] {
        let event = EventView::new(&Method::POST, "", text, &map, b"", [127, 0, 0, 1].into());
        assert_eq!(query.verify(&event, at(0), None), expected, "{text}");
    }
}

#[test]
fn a_secret_that_is_no_key_of_its_scheme_is_told_what_to_write() {
    for (scheme, wrong, says) in [
        (template("postmark"), "user", "`user:password`"),
        (template("postmark"), "user:", "`user:password`"),
        (template("discord"), "0011", "32 bytes"),
        (template("discord"), "not a key", "32 bytes"),
        (template("sendgrid"), "AAAA", "P-256"),
        (template("adyen"), "xyz", "hexadecimal"),
        (template("aws-sns"), "orders", "ARN"),
        (template("paypal"), "https://x", "id of a webhook"),
        (template("pubsub"), "project", "service account"),
        (template("svix"), "whpk_AAAA", "whsec_"),
        (
            Scheme::Jwt(JwtScheme {
                header: "authorization".to_owned(),
                jwks_url: None,
                issuers: vec![],
                audience: Audience::Any,
                emails: false,
            }),
            "{\"keys\": []}",
            "JWKS",
        ),
        (
            Scheme::Hmac(HmacScheme {
                secret: SecretEncoding::Base64,
                ..scheme()
            }),
            "%",
            "base64",
        ),
        (template("gitlab"), " \n", "is empty"),
    ] {
        let said = scheme.check_secret(&Secret::new(wrong)).expect_err(wrong);
        assert!(said.contains(says), "{wrong}: {said}");
    }
}
