use super::*;
use crate::{
    deliver::{
        Answer as Given, Attempt,
        http::Target,
        receiver::{Received, Receiver, Reply},
    },
    egress::{Options, Policy},
};
use prometheus::Registry;
use routing::{
    row::{Auth, HttpSpec, SecretIndex},
    secret::Secret,
};
use std::sync::atomic::{AtomicU32, Ordering};
use store::events::Event;
use tokio::sync::Semaphore;

fn client() -> (Client, Registry) {
    let registry = Registry::new();
    let client = egress::client(Options {
        policy: Policy::with_private_networks(),
        metrics: egress::Metrics::new(&registry),
        ..Options::default()
    });
    (client, registry)
}

/// Of the metric, by outcome.
fn fetches(registry: &Registry) -> [u64; 3] {
    let families = registry.gather();
    let family = families
        .iter()
        .find(|family| family.name() == "hookstream_oauth_token_fetches_total")
        .unwrap();
    ["fetched", "refused", "failed"].map(|outcome| {
        let metric = family.get_metric().iter().find(|metric| {
            metric
                .get_label()
                .iter()
                .any(|label| label.value() == outcome)
        });
        metric.unwrap().get_counter().get_value() as u64
    })
}

fn token(text: String) -> Reply {
    Reply::With(
        200,
        vec![("content-type", "application/json".to_owned())],
        text.into(),
    )
}

/// Gives out `t1`, `t2` …, each for so many seconds.
async fn server(seconds: u32) -> Receiver {
    let count = AtomicU32::new(0);
    Receiver::start(move |_| {
        let n = count.fetch_add(1, Ordering::Relaxed) + 1;
        token(format!(
            r#"{{"access_token":"t{n}","token_type":"bearer","expires_in":{seconds}}}"#
        ))
    })
    .await
}

fn target(destination: &Receiver, server: &Receiver, way: ClientAuthentication) -> Target {
    let spec = HttpSpec {
        url: destination.url(),
        timeout: Duration::from_secs(10),
        auth: Some(Auth::Oauth2 {
            token_url: server.url(),
            scopes: vec!["orders:write".to_owned(), "b".to_owned()],
            audience: Some("https://api".to_owned()),
            client_authentication: way,
            client_id: SecretIndex(0),
            client_secret: SecretIndex(1),
        }),
        ..HttpSpec::default()
    };
    Target::prepare(&spec, &[Secret::new("me:1"), Secret::new("p w&")], "shop").unwrap()
}

async fn send(target: &Target, client: &Client) -> Given {
    let attempt = Attempt {
        event: &Event::default(),
        number: 1,
        now: clock::now(),
        set: None,
        bodies: &crate::bodies::NONE,
    };
    target.send(client, attempt).await
}

#[tokio::test]
async fn the_token_is_asked_for_once_as_the_server_wants_it_and_kept() {
    for (way, authorization, form) in [
        (
            ClientAuthentication::Basic,
            // printf 'me%%3A1:p+w%%26' | base64
            "Basic bWUlM0ExOnArdyUyNg==",
            "grant_type=client_credentials&scope=orders%3Awrite+b&audience=https%3A%2F%2Fapi",
        ),
        (
            ClientAuthentication::Post,
            "",
            "grant_type=client_credentials&scope=orders%3Awrite+b&audience=https%3A%2F%2Fapi&client_id=me%3A1&client_secret=p+w%26",
        ),
    ] {
        let (client, registry) = client();
        let mut destination = Receiver::always(Reply::Status(200)).await;
        let mut server = server(3600).await;
        let target = Arc::new(target(&destination, &server, way));
        let mut attempts = tokio::task::JoinSet::new();
        for _ in 0..20 {
            let (target, client) = (target.clone(), client.clone());
            attempts.spawn(async move { send(&target, &client).await.outcome });
        }
        while let Some(outcome) = attempts.join_next().await {
            assert_eq!(outcome.unwrap(), Outcome::Delivered { status: 200 });
        }
        let asked = server.rest();
        assert_eq!(asked.len(), 1, "twenty attempts share one token");
        assert_eq!(asked[0].method, "POST");
        assert_eq!(asked[0].header("authorization"), authorization);
        assert_eq!(
            asked[0].header("content-type"),
            "application/x-www-form-urlencoded"
        );
        assert_eq!(asked[0].body, form);
        for received in destination.rest() {
            assert_eq!(received.header("authorization"), "Bearer t1");
        }
        assert_eq!(fetches(&registry), [1, 0, 0]);
    }
}

#[tokio::test]
async fn a_401_renews_the_token_once_and_sends_once_more_in_the_same_attempt() {
    let (client, registry) = client();
    let mut destination =
        Receiver::start(|request: &Received| match request.header("authorization") {
            "Bearer t1" => Reply::Status(401),
            _ => Reply::Status(200),
        })
        .await;
    let server = server(3600).await;
    let first = target(&destination, &server, ClientAuthentication::Basic);
    for _ in 0..2 {
        let answer = send(&first, &client).await;
        assert_eq!(answer.outcome, Outcome::Delivered { status: 200 });
    }
    let sent: Vec<_> = destination
        .rest()
        .iter()
        .map(|request| {
            let header = |name| request.header(name).to_owned();
            (
                header("authorization"),
                header("x-hookstream-delivery-attempt"),
            )
        })
        .collect();
    let expected = ["Bearer t1", "Bearer t2", "Bearer t2"];
    assert_eq!(
        sent,
        expected.map(|bearer| (bearer.to_owned(), "1".to_owned()))
    );
    assert_eq!(fetches(&registry), [2, 0, 0]);

    // A receiver that never likes it gets it twice an attempt, no more.
    let mut never = Receiver::always(Reply::Status(401)).await;
    let second = target(&never, &server, ClientAuthentication::Basic);
    let answer = send(&second, &client).await;
    assert!(matches!(
        answer.outcome,
        Outcome::Refused { status: 401, .. }
    ));
    assert_eq!(never.rest().len(), 2);
}

#[tokio::test]
async fn a_server_that_gives_no_token_is_said_without_what_it_said() {
    let refusals = [
        (
            Reply::With(
                400,
                vec![],
                r#"{"error":"invalid_client","error_description":"p w&"}"#.into(),
            ),
            "it answered 400 (invalid_client)",
        ),
        (
            Reply::With(400, vec![], r#"{"error":"p w& is wrong"}"#.into()),
            "it answered 400",
        ),
        (Reply::Status(302), "it answered 302"),
        (
            token("no JSON: p w&".to_owned()),
            "its answer is no token in JSON",
        ),
        (
            token(r#"{"access_token":"a","token_type":"mac"}"#.to_owned()),
            "its token is not of the type `bearer`",
        ),
        (
            token(r#"{"access_token":"a\nb"}"#.to_owned()),
            "its token can't be sent in a header",
        ),
        (token("x".repeat(MOST_ANSWER + 1)), "its answer broke off"),
    ];
    for (reply, says) in refusals {
        let (client, registry) = client();
        let mut destination = Receiver::always(Reply::Status(200)).await;
        let mut server = Receiver::always(reply).await;
        let target = target(&destination, &server, ClientAuthentication::Basic);
        for _ in 0..3 {
            let answer = send(&target, &client).await;
            let error = answer.error.unwrap();
            assert_eq!(answer.outcome, Outcome::Unreachable);
            assert!(
                error.starts_with(&format!("no OAuth 2 token from 127.0.0.1: {says}")),
                "{error}"
            );
            assert!(!error.contains("p w&"), "{error}");
        }
        assert_eq!(
            server.rest().len(),
            1,
            "deliveries right after a failure share it"
        );
        assert!(
            destination.rest().is_empty(),
            "nothing goes without a token"
        );
        let [fetched, refused, failed] = fetches(&registry);
        assert_eq!((fetched, refused + failed), (0, 1));
        assert!(!format!("{target:?}").contains("p w"), "{target:?}");
    }
}

#[tokio::test]
async fn requests_for_tokens_go_out_under_the_same_policy() {
    let guarded = egress::client(Options::default());
    let destination = Receiver::always(Reply::Status(200)).await;
    let mut server = server(3600).await;
    let target = target(&destination, &server, ClientAuthentication::Basic);
    let answer = send(&target, &guarded).await;
    assert_eq!(answer.outcome, Outcome::Blocked);
    assert!(answer.error.unwrap().contains("loopback"));
    assert!(server.rest().is_empty());
}

fn tokens(uri: String) -> Tokens {
    let credentials = Credentials {
        client_id: b"me",
        client_secret: b"pw",
        authentication: ClientAuthentication::Basic,
        scopes: &[],
        audience: None,
    };
    Tokens::new(uri.parse().unwrap(), &credentials, None)
}

/// Puts a token there that ought to be renewed and holds for another hour.
fn aged(tokens: &Tokens) {
    let now = clock::instant();
    tokens.kept.lock().unwrap().token = Some(Arc::new(Token {
        authorization: HeaderValue::from_static("Bearer old"),
        renew_at: now,
        ends_at: now + Duration::from_secs(3600),
    }));
}

#[tokio::test]
async fn a_token_is_renewed_before_it_ends_and_the_old_one_serves_meanwhile() {
    let (client, _) = client();
    let gate = Arc::new(Semaphore::new(0));
    let opened = gate.clone();
    let mut server = Receiver::start(move |_| Reply::Gate(opened.clone())).await;
    let tokens = Arc::new(tokens(server.url()));
    aged(&tokens);
    let renewing = {
        let (tokens, client) = (tokens.clone(), client.clone());
        tokio::spawn(async move {
            tokens
                .get(&client, "shop")
                .await
                .map(|token| token.authorization.clone())
        })
    };
    // It has been asked and has not answered yet.
    server.next().await;
    let meanwhile = tokens.get(&client, "shop").await.unwrap();
    assert_eq!(meanwhile.authorization, "Bearer old");
    // What comes is no token: the old one goes on, and the server is left alone for a while.
    gate.add_permits(1);
    assert_eq!(renewing.await.unwrap().unwrap(), "Bearer old");
    assert_eq!(
        tokens.get(&client, "shop").await.unwrap().authorization,
        "Bearer old"
    );
    assert!(server.rest().is_empty());

    let server = self::server(3600).await;
    let tokens = self::tokens(server.url());
    aged(&tokens);
    assert_eq!(
        tokens.get(&client, "shop").await.unwrap().authorization,
        "Bearer t1"
    );
    assert_eq!(
        tokens.get(&client, "shop").await.unwrap().authorization,
        "Bearer t1"
    );
}

#[tokio::test]
async fn how_long_a_token_lives_is_read_as_servers_write_it() {
    let (client, _) = client();
    for (written, seconds, ahead) in [
        (r#","expires_in":3600"#, 3600, 60),
        (r#","expires_in":"100""#, 100, 10),
        (r#","expires_in":99999999"#, 24 * 3600, 60),
        (r#","expires_in":-1"#, 300, 30),
        ("", 300, 30),
    ] {
        let reply = token(format!(r#"{{"access_token":"t"{written}}}"#));
        let server = Receiver::always(reply).await;
        let token = tokens(server.url())
            .get(&client, "shop")
            .await
            .ok()
            .unwrap();
        assert_eq!(
            token.ends_at - token.renew_at,
            Duration::from_secs(ahead),
            "{written}"
        );
        let left = token.ends_at - clock::instant();
        assert!(
            left <= Duration::from_secs(seconds) && left > Duration::from_secs(seconds - 20),
            "{written}"
        );
    }
}
