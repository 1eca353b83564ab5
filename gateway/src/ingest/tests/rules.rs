//! A source's rules for requests, as senders meet them.

use super::*;
use routing::admission::{CorsSpec, IpFilterSpec, RateLimit, ResponseSpec};

fn owned(words: &[&str]) -> Vec<String> {
    words.iter().map(|&word| word.to_owned()).collect()
}

pub(super) fn named(name: &str, change: impl FnOnce(&mut routing::row::SourceSpec)) -> Row {
    let mut row = source_row(Uuid::now_v7(), name, None);
    let Spec::Source(spec) = &mut row.spec else {
        unreachable!("it is a source")
    };
    change(spec);
    row
}

fn trusting_loopback(options: &mut Options) {
    options.trusted_proxies = vec!["127.0.0.0/8".parse().unwrap()];
}

#[tokio::test]
async fn an_address_that_may_not_send_gets_403_before_anything_else_is_looked_at() {
    let rows = [
        named("some", |spec| {
            spec.ip_filter = Some(IpFilterSpec {
                deny: owned(&["203.0.113.7", "2001:db8:bad::/48"]),
                allow: owned(&["203.0.113.0/24", "2001:db8::/32"]),
            });
        }),
        {
            let mut row = source_row(Uuid::now_v7(), "signed", Some("secret"));
            let Spec::Source(spec) = &mut row.spec else {
                unreachable!("it is a source")
            };
            spec.suspended = true;
            spec.ip_filter = Some(IpFilterSpec {
                deny: owned(&["127.0.0.1"]),
                allow: Vec::new(),
            });
            row
        },
    ];
    let test = Test::start(&rows, trusting_loopback).await;
    for (headers, reason) in [
        ("x-forwarded-for: 203.0.113.8\r\n", None),
        ("x-forwarded-for: ::ffff:203.0.113.8\r\n", None),
        ("x-forwarded-for: 203.0.113.7, 203.0.113.8\r\n", None),
        (
            "x-forwarded-for: 203.0.113.8, 203.0.113.7\r\n",
            Some("ip_denied"),
        ),
        ("x-forwarded-for: 198.51.100.1\r\n", Some("ip_not_allowed")),
        ("forwarded: for=\"[2001:db8::1]:4711\"\r\n", None),
        (
            "forwarded: for=\"[2001:db8:bad::1]\"\r\n",
            Some("ip_denied"),
        ),
        ("forwarded: for=_hidden\r\n", Some("ip_not_allowed")),
        ("", Some("ip_not_allowed")),
    ] {
        let answer = send(test.address(), post("/v1/ingest/some", headers, b"{}")).await;
        match reason {
            None => assert_eq!(answer.status, 200, "{headers}"),
            Some(reason) => {
                assert_eq!((answer.status, answer.code().as_str()), (403, "FORBIDDEN"));
                assert_eq!(answer.json()["details"]["reason"], reason, "{headers}");
            }
        }
    }
    let answer = send(test.address(), post("/v1/ingest/signed", "", b"{}")).await;
    assert_eq!(answer.json()["details"]["address"], "127.0.0.1");
    assert_eq!(answer.code(), "FORBIDDEN", "neither paused nor unsigned");
    assert_eq!(test.count("events").await, 4);
    let metrics = test.gateway.metrics();
    for line in [
        "hookstream_ingest_refused_total{namespace=\"default\",reason=\"ip_denied\",source=\"some\"} 2",
        "hookstream_ingest_refused_total{namespace=\"default\",reason=\"ip_not_allowed\",source=\"some\"} 3",
    ] {
        assert!(metrics.contains(line), "{line}\n{metrics}");
    }
    test.gateway.stop().await.unwrap();
}

#[tokio::test]
async fn an_archived_source_is_404_and_another_content_type_415() {
    let rows = [
        named("archived", |spec| {
            spec.archived = true;
            spec.suspended = true;
        }),
        named("json", |spec| {
            spec.content_types = owned(&["application/*+json", "application/json"]);
        }),
    ];
    let test = Test::start(&rows, |_| {}).await;
    let answer = send(test.address(), post("/v1/ingest/archived", "", b"{}")).await;
    assert_eq!(
        (answer.status, answer.code().as_str()),
        (404, "SOURCE_ARCHIVED")
    );
    for (headers, body, taken) in [
        ("content-type: application/json\r\n", &b"{}"[..], true),
        (
            "content-type: Application/JSON; charset=utf-8\r\n",
            b"{}",
            true,
        ),
        (
            "content-type: application/cloudevents+json\r\n",
            b"{}",
            true,
        ),
        ("", b"", true),
        ("content-type: text/plain\r\n", b"", true),
        ("content-type: text/plain\r\n", b"{}", false),
        ("", b"{}", false),
        (
            "content-type: application/json\r\ncontent-type: text/plain\r\n",
            b"{}",
            false,
        ),
    ] {
        let answer = send(test.address(), post("/v1/ingest/json", headers, body)).await;
        if taken {
            assert_eq!(answer.status, 200, "{headers}");
        } else {
            assert_eq!(
                (answer.status, answer.code().as_str()),
                (415, "UNSUPPORTED_MEDIA_TYPE"),
                "{headers}"
            );
            let told = &answer.json()["details"]["content_types"];
            assert_eq!(
                told,
                &serde_json::json!(["application/*+json", "application/json"])
            );
        }
    }
    let chunked = "POST /v1/ingest/json HTTP/1.1\r\nhost: h\r\ntransfer-encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n";
    assert_eq!(
        send(test.address(), chunked).await.code(),
        "UNSUPPORTED_MEDIA_TYPE"
    );
    assert_eq!(test.count("events").await, 5);
    test.gateway.stop().await.unwrap();
}

#[tokio::test]
async fn a_rate_limit_holds_across_tables_and_says_when_to_come_back() {
    let limited = named("limited", |spec| {
        spec.rate_limit = Some(RateLimit {
            requests: 2,
            per: Duration::from_secs(3600),
            burst: 3,
        });
        spec.methods = owned(&["POST"]);
    });
    let test = Test::start(std::slice::from_ref(&limited), |_| {}).await;
    let id = routing::ids::format(routing::ids::Prefix::Source, limited.uid);
    let ask = || send(test.address(), post("/v1/ingest/limited", "", b"{}"));
    let wrong = "GET /v1/ingest/limited HTTP/1.1\r\nhost: h\r\n\r\n";
    assert_eq!(
        send(test.address(), wrong).await.status,
        405,
        "takes nothing of the limit"
    );
    for left in ["2", "1", "0"] {
        let answer = ask().await;
        assert_eq!(answer.status, 200);
        for name in ["x-ratelimit-limit", "ratelimit-limit"] {
            assert_eq!(answer.header(name), Some("3"));
        }
        for name in ["x-ratelimit-remaining", "ratelimit-remaining"] {
            assert_eq!(answer.header(name), Some(left));
        }
        let number = |name| answer.header(name).unwrap().parse::<i64>().unwrap();
        let until = number("x-ratelimit-reset") - service::clock::now().as_second();
        assert!((number("ratelimit-reset") - until).abs() <= 2, "{answer:?}");
    }
    // Another revision of the same source, and a table that has it.
    let mut renamed = limited.clone();
    renamed.generation = 2;
    let Spec::Source(spec) = &mut renamed.spec else {
        unreachable!("it is a source")
    };
    spec.path = Some("elsewhere".to_owned());
    test.published.publish(&[renamed], &[]).await;
    let answer = loop {
        let answer = send(test.address(), post("/v1/ingest/elsewhere", "", b"{}")).await;
        if answer.status != 404 {
            break answer;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    };
    assert_eq!(
        (answer.status, answer.code().as_str()),
        (429, "BURST_LIMIT_EXCEEDED")
    );
    let json = answer.json();
    for (field, value) in [
        ("scope", serde_json::json!("source")),
        ("scopeId", id.into()),
        ("quota", "ingestRate".into()),
        ("limit", 3.into()),
        ("current", 3.into()),
        ("attemptedDelta", 1.into()),
    ] {
        assert_eq!(json[field], value, "{field}");
    }
    let seconds: u64 = answer.header("retry-after").unwrap().parse().unwrap();
    assert!((1790..=1800).contains(&seconds), "{seconds}");
    assert_eq!(json["retryAfterSec"], seconds);
    let milliseconds = json["details"]["retry_after_ms"].as_u64().unwrap();
    assert_eq!(milliseconds.div_ceil(1000), seconds);
    assert_eq!(answer.header("ratelimit-remaining"), Some("0"));
    assert_eq!(test.count("events").await, 3);
    let line = "hookstream_ingest_refused_total{namespace=\"default\",reason=\"rate_limited\",source=\"limited\"} 1";
    assert!(test.gateway.metrics().contains(line));
    test.gateway.stop().await.unwrap();
}

#[tokio::test]
async fn a_rate_limit_is_shared_among_the_replicas_that_take_events() {
    let limited = named("limited", |spec| {
        spec.rate_limit = Some(RateLimit {
            requests: 1,
            per: Duration::from_secs(3600),
            burst: 8,
        });
    });
    let test = Test::start(&[limited], |options| options.replica = "one".to_owned()).await;
    let other = Gateway::start(
        test.database.options(),
        &test.published.keyring,
        |options| {
            options.roles = vec![Role::Ingest];
            options.replica = "two".to_owned();
        },
    )
    .await;
    let delivery = Gateway::start(
        test.database.options(),
        &test.published.keyring,
        |options| {
            options.roles = vec![Role::Delivery];
            options.replica = "three".to_owned();
        },
    )
    .await;
    let counted = |gateway: &Gateway| {
        let metrics = gateway.metrics();
        metrics.contains("hookstream_ingest_rate_limit_replicas 2\n")
    };
    for _ in 0..3000 {
        if counted(&test.gateway) && counted(&other) {
            break;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let mut taken = 0;
    for address in [test.address(), other.address] {
        for _ in 0..10 {
            let answer = send(address, post("/v1/ingest/limited", "", b"{}")).await;
            taken += u32::from(answer.status == 200);
        }
    }
    assert_eq!(taken, 8, "the burst, over both");
    for gateway in [delivery, other, test.gateway] {
        gateway.stop().await.unwrap();
    }
}

#[tokio::test]
async fn a_source_answers_what_it_was_told_to() {
    let rows = [
        named("own", |spec| {
            spec.response = Some(ResponseSpec {
                status: 202,
                headers: vec![
                    ("content-type".into(), "text/xml".into()),
                    ("x-served-by".into(), "us".into()),
                ],
                body: Some("<ok id=\"{event_id}\"/>".into()),
            });
        }),
        named("ids", |spec| {
            spec.response = Some(ResponseSpec {
                status: 201,
                headers: vec![("x-served-by".into(), "us".into())],
                body: None,
            });
        }),
        named("nothing", |spec| {
            spec.response = Some(ResponseSpec {
                status: 204,
                headers: Vec::new(),
                body: Some(String::new()),
            });
        }),
    ];
    let test = Test::start(&rows, |_| {}).await;
    let ask = |name: &str| {
        send(
            test.address(),
            post(&format!("/v1/ingest/{name}"), "", b"{}"),
        )
    };
    let own = ask("own").await;
    assert_eq!(
        (own.status, own.body.as_slice(), own.header("content-type")),
        (202, &b"<ok id=\"{event_id}\"/>"[..], Some("text/xml"))
    );
    let ids = ask("ids").await;
    assert_eq!((ids.status, ids.header("x-served-by")), (201, Some("us")));
    assert!(ids.json()["event_id"].as_str().unwrap().starts_with("evt_"));
    assert_eq!(ids.header("content-type"), Some("application/json"));
    let nothing = ask("nothing").await;
    assert_eq!((nothing.status, nothing.body.len()), (204, 0));
    for answer in [own, ids, nothing] {
        assert!(
            answer
                .header("x-request-id")
                .is_some_and(|id| id.starts_with("req_"))
        );
    }
    assert_eq!(test.count("events").await, 3);
    test.gateway.stop().await.unwrap();
}

#[tokio::test]
async fn a_page_that_is_allowed_may_send_and_its_preflight_is_no_event() {
    let rows = [
        named("pages", |spec| {
            spec.methods = owned(&["POST"]);
            spec.max_body_bytes = 10;
            spec.cors = Some(CorsSpec {
                allow_origins: owned(&["https://app.example.com"]),
                allow_headers: owned(&["content-type", "x-id"]),
                allow_methods: owned(&["POST"]),
                max_age_seconds: 600,
            });
        }),
        named("any", |spec| {
            spec.cors = Some(CorsSpec {
                allow_origins: owned(&["*"]),
                allow_headers: owned(&["*"]),
                allow_methods: owned(&["POST"]),
                max_age_seconds: 0,
            });
        }),
        named("plain", |_| {}),
    ];
    let test = Test::start(&rows, |_| {}).await;
    let preflight = |name: &str, origin: &str| {
        let request = format!(
            "OPTIONS /v1/ingest/{name} HTTP/1.1\r\nhost: h\r\norigin: {origin}\r\naccess-control-request-method: POST\r\naccess-control-request-headers: authorization\r\n\r\n"
        );
        send(test.address(), request)
    };
    const ALLOWED: &str = "https://app.example.com";
    let answer = preflight("pages", ALLOWED).await;
    assert_eq!(answer.status, 204);
    for (name, value) in [
        ("access-control-allow-origin", ALLOWED),
        ("access-control-allow-methods", "POST"),
        ("access-control-allow-headers", "content-type, x-id"),
        ("access-control-max-age", "600"),
    ] {
        assert_eq!(answer.header(name), Some(value));
    }
    assert!(
        answer
            .headers
            .iter()
            .any(|(name, value)| name == "vary" && value == "origin")
    );
    let any = preflight("any", "https://elsewhere.example").await;
    assert_eq!(
        (
            any.header("access-control-allow-origin"),
            any.header("access-control-allow-headers")
        ),
        (Some("https://elsewhere.example"), Some("authorization"))
    );
    let stranger = preflight("pages", "https://evil.example").await;
    assert_eq!(
        (stranger.status, stranger.code().as_str()),
        (403, "FORBIDDEN")
    );
    assert_eq!(stranger.json()["details"]["reason"], "origin_not_allowed");
    assert_eq!(stranger.header("access-control-allow-origin"), None);
    assert_eq!(test.count("events").await, 0);

    for (name, origin, body, status, readable) in [
        ("pages", ALLOWED, &b"{}"[..], 200, true),
        ("pages", "https://evil.example", b"{}", 200, false),
        ("pages", ALLOWED, b"more than ten", 413, true),
        ("plain", ALLOWED, b"{}", 200, false),
    ] {
        let headers = format!("origin: {origin}\r\n");
        let path = format!("/v1/ingest/{name}");
        let answer = send(test.address(), post(&path, &headers, body)).await;
        let allowed = answer.header("access-control-allow-origin");
        assert_eq!(
            (answer.status, allowed.is_some()),
            (status, readable),
            "{name} {origin}"
        );
    }
    // Not a preflight without its question, and of a source that didn't ask for CORS an event as any other.
    let request =
        "OPTIONS /v1/ingest/pages HTTP/1.1\r\nhost: h\r\norigin: https://app.example.com\r\n\r\n";
    assert_eq!(send(test.address(), request).await.status, 405);
    assert_eq!(preflight("plain", ALLOWED).await.status, 200);
    let line = "hookstream_ingest_replied_total{kind=\"preflight\",namespace=\"default\",source=\"pages\"} 1";
    assert!(test.gateway.metrics().contains(line));
    test.gateway.stop().await.unwrap();
}

#[tokio::test]
async fn proxy_protocol_names_the_sender_where_the_proxy_is_trusted() {
    let source = named("some", |spec| {
        spec.ip_filter = Some(IpFilterSpec {
            deny: owned(&["203.0.113.7"]),
            allow: Vec::new(),
        });
    });
    let test = Test::start(&[source], |options| {
        trusting_loopback(options);
        options.proxy_protocol = true;
        options.limits.head_timeout = Duration::from_millis(500);
    })
    .await;
    let request = post("/v1/ingest/some", "", b"{}");
    let mut v2 = b"\r\n\r\n\0\r\nQUIT\n\x21\x11\x00\x0f\xcb\x00\x71\x08\x0a\x00\x00\x01\x00\x01\x00\x02\x04\x00\x00".to_vec();
    v2[16..20].copy_from_slice(&[203, 0, 113, 8]);
    let local = b"\r\n\r\n\0\r\nQUIT\n\x20\x00\x00\x00".to_vec();
    for (head, sender) in [
        (
            b"PROXY TCP4 203.0.113.8 10.0.0.1 4711 443\r\n".to_vec(),
            "203.0.113.8",
        ),
        (
            b"PROXY TCP6 2001:db8::8 2001:db8::1 4711 443\r\n".to_vec(),
            "2001:db8::8",
        ),
        (b"PROXY UNKNOWN\r\n".to_vec(), "127.0.0.1"),
        (v2, "203.0.113.8"),
        (local, "127.0.0.1"),
    ] {
        let answer = send(test.address(), [&head[..], &request].concat()).await;
        let event = test.event(answer.event_id()).await;
        assert_eq!(event.remote_addr.to_string(), sender);
    }
    // Byte by byte, and two requests of one sender behind one head.
    let mut sender = Sender::connect(test.address()).await;
    for byte in b"PROXY TCP4 203.0.113.9 10.0.0.1 4711 443\r\n" {
        sender.write([*byte]).await;
    }
    for _ in 0..2 {
        sender.write(&request).await;
        let answer = sender.answer().await.unwrap();
        let event = test.event(answer.event_id()).await;
        assert_eq!(event.remote_addr.to_string(), "203.0.113.9");
    }
    let denied = [b"PROXY TCP4 203.0.113.7 10.0.0.1 1 2\r\n", &request[..]].concat();
    assert_eq!(send(test.address(), denied).await.code(), "FORBIDDEN");

    for head in [
        &request[..],
        b"PROXY TCP4 203.0.113.8\r\n",
        b"PROXY TCP4 203.0.1",
    ] {
        let mut sender = Sender::connect(test.address()).await;
        sender.write(head).await;
        assert!(sender.answer().await.is_none(), "closed without a word");
    }
    assert_eq!(test.count("events").await, 7);
    let metrics = test.gateway.metrics();
    for (reason, times) in [("proxy_head_malformed", 2), ("proxy_head_timeout", 1)] {
        let line = format!(
            "hookstream_ingest_refused_total{{namespace=\"\",reason=\"{reason}\",source=\"\"}} {times}\n"
        );
        assert!(metrics.contains(&line), "{line}\n{metrics}");
    }
    test.gateway.stop().await.unwrap();
}

#[tokio::test]
async fn proxy_protocol_of_a_stranger_is_no_http() {
    let test = Test::start(&[plain()], |options| {
        options.trusted_proxies = vec!["10.0.0.0/8".parse().unwrap()];
        options.proxy_protocol = true;
    })
    .await;
    let request = post("/v1/ingest/github", "", b"{}");
    let head = b"PROXY TCP4 203.0.113.8 10.0.0.1 4711 443\r\n";
    let answer = send(test.address(), [head, &request[..]].concat()).await;
    assert_eq!(answer.code(), "INVALID_REQUEST");
    let answer = send(test.address(), &request).await;
    let event = test.event(answer.event_id()).await;
    assert_eq!(event.remote_addr.to_string(), "127.0.0.1");
    test.gateway.stop().await.unwrap();
}
