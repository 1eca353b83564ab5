//! Challenges: answered to the provider, refused to others, and nothing that a browser would run.

use super::*;

fn with(name: &str, token: Option<&str>) -> Verifier {
    let template = templates::Template::named(name).expect("there");
    let (mut verification, mut secrets) =
        verification(template.scheme().expect("all"), &["secret"]);
    verification.handshake = template.handshake;
    if let Some(token) = token {
        verification.verify_token = Some(SecretIndex(1));
        secrets.push(Secret::new(token));
    }
    Verifier::new(&verification, &secrets)
}

fn get(verifier: &Verifier, query: &str, list: &[(&str, &str)]) -> Result<Verdict, Refused> {
    let map = headers(list);
    let ip = [127, 0, 0, 1].into();
    verifier.verify(
        &EventView::new(&Method::GET, "", query, &map, b"", ip),
        at(0),
        None,
    )
}

fn body(verdict: Result<Verdict, Refused>) -> Result<String, Refused> {
    match verdict? {
        Verdict::Answer(answer) => Ok(answer.body),
        other => panic!("{other:?}"),
    }
}

#[test]
fn metas_challenge_needs_the_verify_token() {
    let meta = with("meta", Some("my token"));
    let ask = |token: &str, challenge: &str| {
        body(get(
            &meta,
            &format!("hub.mode=subscribe&hub.verify_token={token}&hub.challenge={challenge}"),
            &[],
        ))
    };
    assert_eq!(ask("my+token", "1158201444"), Ok("1158201444".to_owned()));
    assert_eq!(ask("my%20token", "1158201444"), Ok("1158201444".to_owned()));
    for token in ["other", "", "my+token+"] {
        assert_eq!(ask(token, "1"), Err(Refused::ChallengeRefused), "{token}");
    }
    // The app's secret is no verify token, and neither is nothing where none is named.
    assert_eq!(ask("secret", "1"), Err(Refused::ChallengeRefused));
    let none = with("meta", None);
    let query = "hub.mode=subscribe&hub.verify_token=&hub.challenge=1";
    assert_eq!(body(get(&none, query, &[])), Err(Refused::ChallengeRefused));
    // And the verify token, which is in URLs and so in logs, signs no event.
    let signature = format!("sha256={}", sign("my token", "{}"));
    let refused = verify(&meta, &[("x-hub-signature-256", &signature)], "{}", at(0));
    assert_eq!(refused, Err(Refused::SignatureMismatch));
}

#[test]
fn nothing_that_a_browser_would_run_is_reflected() {
    let (meta, dropbox) = (with("meta", Some("t")), with("dropbox", None));
    let long = "a".repeat(513);
    for challenge in [
        "<script>", "%3Cb%3E", "a%22b", "a%26b", "a%20b", "a%0Ab", "%C3%BC", "", &long,
    ] {
        let query = format!("hub.mode=subscribe&hub.verify_token=t&hub.challenge={challenge}");
        assert_eq!(
            get(&meta, &query, &[]),
            Err(Refused::ChallengeRefused),
            "{challenge}"
        );
        let query = format!("challenge={challenge}");
        assert_eq!(
            get(&dropbox, &query, &[]),
            Err(Refused::ChallengeRefused),
            "{challenge}"
        );
    }
    match get(&dropbox, "challenge=abc", &[]) {
        Ok(Verdict::Answer(answer)) => {
            assert_eq!(answer.content_type, Some("text/plain; charset=utf-8"));
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_signed_challenge_without_its_signature_is_refused() {
    let slack = with("slack", None);
    let challenge = r#"{"type":"url_verification","challenge":"abc"}"#;
    let signature = |secret: &str| format!("v0={}", sign(secret, &format!("v0:0:{challenge}")));
    let ask = |list: &[(&str, &str)]| verify(&slack, list, challenge, at(0));
    let time = ("x-slack-request-timestamp", "0");
    assert_eq!(ask(&[time]), Err(Refused::SignatureMissing));
    let wrong = signature("other");
    assert_eq!(
        ask(&[time, ("x-slack-signature", &wrong)]),
        Err(Refused::SignatureMismatch)
    );
    let right = signature("secret");
    assert_eq!(ask(&[time, ("x-slack-signature", &right)]), Ok(()));

    let okta = with("okta", None);
    let asked = ("x-okta-verification-challenge", "abc");
    assert_eq!(get(&okta, "", &[asked]), Err(Refused::CredentialsMissing));
    let answered = body(get(&okta, "", &[asked, ("authorization", "secret")]));
    assert_eq!(answered.as_deref(), Ok(r#"{"verification":"abc"}"#));
}

#[test]
fn what_is_no_challenge_is_an_event() {
    let woo = with("woocommerce", None);
    for other in [
        "webhook_id=",
        "webhook_id=1x",
        "webhook_id=1&a=b",
        "webhook_id=123456789012345678901",
    ] {
        let refused = verify(&woo, &[], other, at(0));
        assert_eq!(refused, Err(Refused::SignatureMissing), "{other}");
    }
    let dropbox = with("dropbox", None);
    assert_eq!(get(&dropbox, "x=1", &[]), Err(Refused::SignatureMissing));
    let meta = with("meta", Some("t"));
    assert_eq!(
        get(&meta, "hub.mode=other", &[]),
        Err(Refused::SignatureMissing)
    );
}
