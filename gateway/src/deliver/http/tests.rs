use super::*;
use crate::{
    deliver::receiver::{Receiver, Reply},
    egress::{self, Policy},
};
use std::sync::Arc;
use store::events::Event;
use uuid::Uuid;

mod auth;
mod kept;
mod signing;
mod tls;

fn client() -> Client {
    egress::client(egress::Options {
        policy: Policy::with_private_networks(),
        ..egress::Options::default()
    })
}

fn now() -> Timestamp {
    "2026-11-21T10:00:00.123456Z".parse().unwrap()
}

fn event(headers: &'static [u8], body: impl Into<Bytes>) -> Event {
    Event {
        id: Uuid::from_u128(0x0192_f3a4_b5c6_7d8e_9f00_1122_3344_5566),
        namespace: Arc::from("shop"),
        revision: 1,
        received_at: now(),
        method: "PUT".into(),
        path: "/orders/7".into(),
        query: "a=b".into(),
        headers: Bytes::from_static(headers),
        body: body.into(),
        remote_addr: [1, 2, 3, 4].into(),
        ..Event::default()
    }
}

fn spec(url: String) -> HttpSpec {
    HttpSpec {
        url,
        timeout: Duration::from_secs(10),
        ..HttpSpec::default()
    }
}

async fn send(spec: HttpSpec, secrets: &[Secret], event: &Event) -> Answer {
    Target::prepare(&spec, secrets, "shop")
        .unwrap()
        .send(
            &client(),
            Attempt {
                event,
                number: 3,
                now: now(),
                set: None,
                bodies: &crate::bodies::NONE,
            },
        )
        .await
}

#[tokio::test]
async fn the_body_arrives_byte_for_byte_with_the_documented_headers() {
    let mut receiver = Receiver::always(Reply::Status(204)).await;
    let body: Vec<u8> = (0..=255_u8).cycle().take(70_000).collect();
    let event = event(b"Content-Type: application/x-thing\r\nContent-Encoding: gzip\r\nX-GitHub-Event: push\r\nAuthorization: Bearer stolen\r\nHost: us\r\n", body.clone());
    let mut spec = spec(receiver.url() + "?q=1");
    spec.headers = vec![
        ("x-env".into(), "prod".into()),
        ("x-twice".into(), "1".into()),
        ("x-twice".into(), "2".into()),
        ("webhook-id".into(), "mine".into()),
    ];
    let answer = send(spec, &[], &event).await;
    assert_eq!(
        (answer.outcome, answer.error),
        (Outcome::Delivered { status: 204 }, None)
    );
    let received = receiver.next().await;
    assert_eq!(
        (received.method.as_str(), received.target.as_str()),
        ("POST", "/hooks?q=1")
    );
    assert_eq!(received.body, body);
    for (name, value) in [
        ("content-type", "application/x-thing"),
        ("content-encoding", "gzip"),
        ("content-length", "70000"),
        ("x-github-event", "push"),
        ("x-env", "prod"),
        (
            "x-hookstream-event-id",
            "evt_0192f3a4b5c67d8e9f00112233445566",
        ),
        ("x-hookstream-delivery-attempt", "3"),
        ("x-hookstream-timestamp", "2026-11-21T10:00:00.123Z"),
        ("webhook-id", "evt_0192f3a4b5c67d8e9f00112233445566"),
        ("webhook-timestamp", "1795255200"),
        ("user-agent", USER_AGENT),
        ("host", receiver.address.to_string().as_str()),
        ("authorization", ""),
    ] {
        assert_eq!(received.header(name), value, "{name}");
    }
    assert_eq!(
        received
            .headers
            .get_all("x-twice")
            .iter()
            .collect::<Vec<_>>(),
        ["1", "2"]
    );
}

#[tokio::test]
async fn a_destination_authenticates_as_it_is_told() {
    let mut receiver = Receiver::always(Reply::Status(200)).await;
    let secrets = [Secret::new("user"), Secret::new("pass:word")];
    for (auth, name, value) in [
        (
            Auth::Basic {
                username: SecretIndex(0),
                password: SecretIndex(1),
            },
            "authorization",
            "Basic dXNlcjpwYXNzOndvcmQ=",
        ),
        (
            Auth::Bearer {
                token: SecretIndex(1),
            },
            "authorization",
            "Bearer pass:word",
        ),
        (
            Auth::ApiKey {
                header: "x-api-key".into(),
                key: SecretIndex(0),
            },
            "x-api-key",
            "user",
        ),
    ] {
        let mut spec = spec(receiver.url());
        spec.headers = vec![(name.into(), "from the headers".into())];
        spec.auth = Some(auth);
        assert!(
            !format!("{:?}", Target::prepare(&spec, &secrets, "shop").unwrap()).contains("pass")
        );
        send(spec, &secrets, &event(b"", "")).await;
        assert_eq!(receiver.next().await.header(name), value);
    }
}

#[tokio::test]
async fn the_senders_path_fills_the_url_but_never_climbs_out_of_it() {
    let mut receiver = Receiver::always(Reply::Status(200)).await;
    for (path, target) in [
        ("/orders/7", "/in/orders/7"),
        ("", "/in/"),
        ("/../../admin", "/in/admin"),
        ("/a/%2E%2e/b", "/in/a/b"),
    ] {
        let mut event = event(b"", "");
        event.path = path.into();
        send(
            spec(format!("http://{}/in/{{path}}", receiver.address)),
            &[],
            &event,
        )
        .await;
        assert_eq!(receiver.next().await.target, target);
    }
}

#[tokio::test]
async fn the_status_decides_and_redirects_are_not_followed() {
    for (status, headers, outcome) in [
        (200, vec![], Outcome::Delivered { status: 200 }),
        (
            302,
            vec![("location", "http://127.0.0.1:1/".to_owned())],
            Outcome::Refused {
                status: 302,
                retry_after: None,
            },
        ),
        (
            410,
            vec![],
            Outcome::Refused {
                status: 410,
                retry_after: None,
            },
        ),
        (
            429,
            vec![("retry-after", "7".to_owned())],
            Outcome::Refused {
                status: 429,
                retry_after: Some(Duration::from_secs(7)),
            },
        ),
        (
            503,
            vec![("retry-after", "Sat, 21 Nov 2026 10:00:30 GMT".to_owned())],
            Outcome::Refused {
                status: 503,
                retry_after: Some(Duration::from_nanos(29_876_544_000)),
            },
        ),
        (
            503,
            vec![("retry-after", "Sat, 21 Nov 2020 10:00:30 GMT".to_owned())],
            Outcome::Refused {
                status: 503,
                retry_after: Some(Duration::ZERO),
            },
        ),
        (
            503,
            vec![("retry-after", "soon".to_owned())],
            Outcome::Refused {
                status: 503,
                retry_after: None,
            },
        ),
    ] {
        let receiver =
            Receiver::always(Reply::With(status, headers, Bytes::from_static(b"why"))).await;
        let answer = send(spec(receiver.url()), &[], &event(b"", "x")).await;
        assert_eq!(answer.outcome, outcome);
        assert_eq!(answer.body.as_deref(), Some(&b"why"[..]));
        assert!(answer.headers.is_some_and(|lines| lines.ends_with(b"\r\n")));
    }
}

#[tokio::test]
async fn a_bad_receiver_is_an_outcome() {
    let check = async |receiver: Receiver, outcome: Outcome, error: &str| {
        let mut spec = spec(receiver.url());
        spec.timeout = Duration::from_millis(300);
        let answer = send(spec, &[], &event(b"", "x")).await;
        let text = answer.error.unwrap_or_default();
        assert_eq!(answer.outcome, outcome, "{text}");
        assert!(text.contains(error), "{text}");
    };
    check(
        Receiver::always(Reply::Hang).await,
        Outcome::TimedOut,
        "no answer within 0.3 s",
    )
    .await;
    check(
        Receiver::always(Reply::Close).await,
        Outcome::Unreachable,
        "closed before the answer",
    )
    .await;
    check(
        Receiver::raw(b"220 mail.example ESMTP\r\n").await,
        Outcome::Unreachable,
        "not HTTP",
    )
    .await;
    check(Receiver::raw(b"").await, Outcome::Unreachable, "").await;
    check(
        Receiver::raw(b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nabc").await,
        Outcome::Delivered { status: 200 },
        "broke off",
    )
    .await;
    check(
        Receiver::always(Reply::Stall).await,
        Outcome::Delivered { status: 200 },
        "did not end in time",
    )
    .await;
    check(
        Receiver::always(Reply::Stream).await,
        Outcome::Delivered { status: 200 },
        "",
    )
    .await;
}

#[tokio::test]
async fn a_closed_port_is_unreachable_and_a_forbidden_address_is_blocked() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    drop(listener);
    let answer = send(spec(format!("http://{address}/")), &[], &event(b"", "")).await;
    assert_eq!(answer.outcome, Outcome::Unreachable);
    assert!(
        answer
            .error
            .as_deref()
            .is_some_and(|text| text.contains("refused")),
        "{:?}",
        answer.error
    );
    let guarded = egress::client(egress::Options::default());
    let target = Target::prepare(&spec(format!("http://{address}/")), &[], "shop").unwrap();
    let answer = target
        .send(
            &guarded,
            Attempt {
                event: &event(b"", ""),
                number: 1,
                now: now(),
                set: None,
                bodies: &crate::bodies::NONE,
            },
        )
        .await;
    assert_eq!(answer.outcome, Outcome::Blocked);
    assert!(
        answer
            .error
            .is_some_and(|text| text.contains("HOOKSTREAM_EGRESS_ALLOW=127.0.0.1/32"))
    );
}

#[tokio::test]
async fn sixteen_kibibytes_of_an_answer_are_kept_and_a_small_rest_keeps_the_connection() {
    let receiver = Receiver::always(Reply::With(
        200,
        vec![],
        Bytes::from(vec![b'a'; KEPT + 4000]),
    ))
    .await;
    let (client, target, event) = (
        client(),
        Target::prepare(&spec(receiver.url()), &[], "shop").unwrap(),
        event(b"", "x"),
    );
    let first = target
        .send(
            &client,
            Attempt {
                event: &event,
                number: 1,
                now: now(),
                set: None,
                bodies: &crate::bodies::NONE,
            },
        )
        .await;
    assert_eq!(first.body.map(|body| body.len()), Some(KEPT));
    assert!(
        first.timings.connect_us.is_some()
            && first.timings.dns_us.is_none()
            && first.timings.tls_us.is_none()
    );
    let second = target
        .send(
            &client,
            Attempt {
                event: &event,
                number: 2,
                now: now(),
                set: None,
                bodies: &crate::bodies::NONE,
            },
        )
        .await;
    assert_eq!(
        second.timings.connect_us, None,
        "the connection was used again"
    );
    assert!(second.timings.first_byte_us <= second.timings.total_us);
}

#[test]
fn a_destination_that_cant_be_sent_to_says_why_and_no_secret() {
    let refuse = |spec: HttpSpec, secrets: &[Secret]| {
        Target::prepare(&spec, secrets, "shop")
            .unwrap_err()
            .to_string()
    };
    assert_eq!(
        refuse(spec("/relative".into()), &[]),
        "the destination's URL can't be used"
    );
    assert_eq!(
        refuse(
            HttpSpec {
                method: Some("NO WAY".into()),
                ..spec("http://a/".into())
            },
            &[]
        ),
        "the destination's method can't be used"
    );
    let bearer = HttpSpec {
        auth: Some(Auth::Bearer {
            token: SecretIndex(0),
        }),
        ..spec("http://a/".into())
    };
    assert_eq!(
        refuse(bearer.clone(), &[]),
        "the destination's row names a secret that it doesn't hold"
    );
    assert_eq!(
        refuse(bearer, &[Secret::new("line\nbreak")]),
        "the destination's secret has bytes that no header may hold"
    );
}
