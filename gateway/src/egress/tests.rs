use super::*;
use bytes::Bytes;
use http::Uri;
use http_body_util::Full;

/// What the connector answers for a URL that must not be reached. No network is touched: the check comes first.
async fn refusal(url: &str) -> String {
    let uri: Uri = url.parse().unwrap_or_else(|error| panic!("{url}: {error}"));
    let request = http::Request::post(uri)
        .body(Full::<Bytes>::default())
        .unwrap();
    let error = client(Options::default())
        .route("shop", None)
        .request(request)
        .await
        .expect_err(url);
    let mut source: Option<&(dyn std::error::Error + 'static)> = Some(&error);
    while let Some(error) = source {
        match error.downcast_ref::<ConnectError>() {
            Some(ConnectError::Blocked(blocked)) => return blocked.to_string(),
            Some(other) => panic!("{url}: {other:?}"),
            None => source = error.source(),
        }
    }
    panic!("{url}: {error:?}")
}

#[tokio::test]
async fn every_spelling_of_a_local_address_is_blocked() {
    for host in [
        "127.0.0.1",
        "127.1",
        "2130706433",
        "0x7f000001",
        "0x7f.1",
        "0177.0.0.1",
        "017700000001",
        "0",
        "0.0.0.0",
        "localhost",
        "LOCALHOST",
        "[::1]",
        "[::]",
        "[::ffff:127.0.0.1]",
        "[::ffff:7f00:1]",
        "[0:0:0:0:0:0:0:1]",
        "[64:ff9b::7f00:1]",
        "[2002:7f00:1::]",
        "169.254.169.254",
        "2852039166",
        "0xa9fea9fe",
        "[::ffff:a9fe:a9fe]",
        "[fd00:ec2::254]",
        "user@127.0.0.1",
        "1.1.1.1@127.0.0.1",
    ] {
        let text = refusal(&format!("http://{host}:9/")).await;
        assert!(text.contains(SETTING), "{host}: {text}");
    }
}

#[tokio::test]
async fn an_address_is_refused_before_tls_begins() {
    assert!(refusal("https://127.0.0.1:9/").await.contains("loopback"));
}

use crate::deliver::receiver::{Receiver, Reply};
use prometheus::Registry;
use std::{
    collections::VecDeque,
    io,
    net::{IpAddr, SocketAddr},
    sync::{
        Mutex as StdMutex,
        atomic::{AtomicUsize, Ordering},
    },
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};

/// A name server that answers as it is told, the last answer for ever.
#[derive(Debug, Default)]
struct Names {
    answers: StdMutex<VecDeque<Vec<IpAddr>>>,
    asked: AtomicUsize,
}

impl Names {
    fn of(answers: &[&[&str]]) -> Arc<Names> {
        let answers = answers
            .iter()
            .map(|addresses| addresses.iter().map(|ip| ip.parse().unwrap()).collect());
        Arc::new(Names {
            answers: StdMutex::new(answers.collect()),
            asked: AtomicUsize::new(0),
        })
    }
}

impl Resolve for Names {
    fn resolve<'a>(&'a self, _: &'a str, port: u16) -> Found<'a> {
        self.asked.fetch_add(1, Ordering::Relaxed);
        let mut answers = self.answers.lock().unwrap();
        let addresses = match answers.len() {
            0 | 1 => answers.front().cloned().unwrap_or_default(),
            _ => answers.pop_front().unwrap(),
        };
        Box::pin(async move {
            Ok(addresses
                .into_iter()
                .map(|ip| SocketAddr::new(ip, port))
                .collect())
        })
    }
}

async fn get(client: &Client, namespace: &str, url: &str) -> Result<u16, String> {
    let request = http::Request::post(url)
        .body(Full::<Bytes>::default())
        .unwrap();
    match client.route(namespace, None).request(request).await {
        Ok(response) => Ok(response.status().as_u16()),
        Err(error) => Err(connect_error(&error).map_or_else(
            || error.to_string(),
            |error| {
                let source = std::error::Error::source(error);
                let source = source.map(|source| format!(": {source}"));
                format!("{error}{}", source.unwrap_or_default())
            },
        )),
    }
}

fn options(policy: Policy) -> Options {
    Options {
        policy,
        ..Options::default()
    }
}

fn rules(texts: &[&str]) -> Vec<Rule> {
    texts.iter().map(|text| text.parse().unwrap()).collect()
}

/// Of a family's metrics, the one with this label.
fn blocked(registry: &Registry, rule: &str) -> u64 {
    let families = registry.gather();
    let family = families
        .iter()
        .find(|family| family.name() == "hookstream_egress_blocked_total")
        .unwrap();
    let metric = family
        .get_metric()
        .iter()
        .find(|metric| metric.get_label().iter().any(|label| label.value() == rule));
    metric.unwrap().get_counter().get_value() as u64
}

#[tokio::test]
async fn names_that_lead_inside_are_blocked_however_they_are_written() {
    // A CNAME is followed by the resolver: what it answers is judged, whichever name it is of.
    for address in [
        "10.0.0.5",
        "127.0.0.1",
        "169.254.169.254",
        "fd00::1",
        "64:ff9b::7f00:1",
        "0.0.0.0",
        "::ffff:10.0.0.1",
    ] {
        let names = Names::of(&[&[address]]);
        let client = client(Options {
            resolver: names.clone(),
            ..Options::default()
        });
        // An IDN is punycode by the time it is here; a trailing dot changes nothing.
        for host in [
            "cname.example",
            "cname.example.",
            "xn--nxasmq6b.example",
            "127.0.0.1.nip.example",
            "127.0.0.1.",
        ] {
            let refused = get(&client, "shop", &format!("http://{host}:9/"))
                .await
                .unwrap_err();
            assert!(refused.contains(SETTING), "{host} {address}: {refused}");
        }
        assert_eq!(names.asked.load(Ordering::Relaxed), 5);
    }
}

#[tokio::test]
async fn a_name_that_changes_between_look_up_and_dial_gains_nothing() {
    let mut inside = Receiver::always(Reply::Status(200)).await;
    let port = inside.address.port();
    // Public when it is looked up first, loopback ever after. Nothing listens on 192.0.2.1's stand-in, so dialling fails.
    let names = Names::of(&[&["240.0.0.1"], &["127.0.0.1"]]);
    let client = client(Options {
        resolver: names.clone(),
        policy: Policy {
            allow: rules(&["240.0.0.0/4"]),
            ..Policy::default()
        },
        ..Options::default()
    });
    let url = format!("http://rebind.example:{port}/");
    let first = get(&client, "shop", &url).await.unwrap_err();
    assert!(
        first.contains("240.0.0.1"),
        "the address that was judged is the one that was dialled: {first}"
    );
    assert_eq!(
        names.asked.load(Ordering::Relaxed),
        1,
        "and nothing was looked up in between"
    );
    let second = get(&client, "shop", &url).await.unwrap_err();
    assert!(second.contains("loopback"), "{second}");
    assert!(inside.rest().is_empty());
}

#[tokio::test]
async fn a_redirect_inside_is_an_answer_and_not_followed() {
    let mut inside = Receiver::always(Reply::Status(200)).await;
    let to = vec![("location", inside.url())];
    let receiver = Receiver::always(Reply::With(307, to, Bytes::new())).await;
    let client = client(options(Policy::with_private_networks()));
    assert_eq!(get(&client, "shop", &receiver.url()).await, Ok(307));
    assert!(inside.rest().is_empty());
}

#[tokio::test]
async fn each_namespace_has_its_policy_and_its_connections() {
    let registry = Registry::new();
    let mut receiver = Receiver::always(Reply::Status(200)).await;
    let local = Policy::with_private_networks;
    let client = client(Options {
        namespaces: [
            ("shop".to_owned(), local()),
            ("same".to_owned(), local()),
            (
                "strict".to_owned(),
                Policy {
                    https_only: true,
                    ..local()
                },
            ),
            (
                "ports".to_owned(),
                Policy {
                    ports: vec![443],
                    ..local()
                },
            ),
            (
                "denied".to_owned(),
                Policy {
                    deny: rules(&["127.0.0.0/8"]),
                    ..local()
                },
            ),
            (
                "listed".to_owned(),
                Policy {
                    only: Some(rules(&["*.partner.example"])),
                    ..local()
                },
            ),
        ]
        .into(),
        metrics: Metrics::new(&registry),
        ..Options::default()
    });
    let url = receiver.url();
    for namespace in ["shop", "same"] {
        assert_eq!(get(&client, namespace, &url).await, Ok(200));
    }
    // A connection to it is open, and not for them.
    for (namespace, rule, says) in [
        ("other", "private", "loopback"),
        ("strict", "plain_http", "https only"),
        ("ports", "port", "`ports`"),
        ("denied", "denied", "denies 127.0.0.0/8"),
        ("listed", "not_listed", "`only`"),
    ] {
        let refused = get(&client, namespace, &url).await.unwrap_err();
        assert!(refused.contains(says), "{namespace}: {refused}");
        assert_eq!(blocked(&registry, rule), 1, "{rule}");
    }
    let served: Vec<u32> = receiver.rest().iter().map(|request| request.nth).collect();
    assert_eq!(served, [1, 2], "those of equal policies share a connection");
}

/// A proxy that tells what it was asked and takes every connection to `instead`.
async fn proxy(
    instead: SocketAddr,
    status: &'static str,
) -> (SocketAddr, tokio::sync::mpsc::UnboundedReceiver<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (tell, told) = tokio::sync::mpsc::unbounded_channel();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let tell = tell.clone();
            tokio::spawn(async move {
                let mut head = Vec::new();
                while !head.ends_with(b"\r\n\r\n") {
                    head.push(stream.read_u8().await?);
                }
                let _ = tell.send(String::from_utf8(head).unwrap());
                stream
                    .write_all(format!("HTTP/1.1 {status}\r\nvia: us\r\n\r\n").as_bytes())
                    .await?;
                let mut through = TcpStream::connect(instead).await?;
                tokio::io::copy_bidirectional(&mut stream, &mut through).await?;
                Ok::<_, io::Error>(())
            });
        }
    });
    (address, told)
}

#[tokio::test]
async fn a_proxy_is_told_an_address_that_was_judged_here_and_never_a_name() {
    let mut receiver = Receiver::always(Reply::Status(200)).await;
    let (address, mut told) = proxy(receiver.address, "200 Connection established").await;
    let names = Names::of(&[&["8.8.8.8"], &["10.0.0.5"]]);
    let client = client(Options {
        resolver: names,
        proxy: Some(format!("http://me:pw@{address}").parse().unwrap()),
        ..Options::default()
    });
    assert_eq!(
        get(&client, "shop", "http://api.example:8000/x").await,
        Ok(200)
    );
    assert_eq!(
        told.recv().await.unwrap(),
        // printf me:pw | base64
        "CONNECT 8.8.8.8:8000 HTTP/1.1\r\nHost: 8.8.8.8:8000\r\nProxy-Authorization: Basic bWU6cHc=\r\n\r\n"
    );
    let received = receiver.next().await;
    assert_eq!(
        (
            received.header("host"),
            received.header("proxy-authorization")
        ),
        ("api.example:8000", "")
    );
    // The next name leads inside: the proxy isn't even asked.
    let refused = get(&client, "shop", "http://other.example/")
        .await
        .unwrap_err();
    assert!(refused.contains("10.0.0.5"), "{refused}");
    assert!(told.try_recv().is_err());
}

#[tokio::test]
async fn what_a_proxy_refuses_is_said_and_what_it_is_not_for_goes_past_it() {
    let receiver = Receiver::always(Reply::Status(200)).await;
    for (status, says) in [
        (
            "407 Proxy Authentication Required",
            "other credentials (407)",
        ),
        ("403 Forbidden", "refused the connection (403)"),
        ("what", "no answer of HTTP"),
    ] {
        let (address, _told) = proxy(receiver.address, status).await;
        let mut proxy: Proxy = format!("http://{address}").parse().unwrap();
        proxy.except = rules(&["127.0.0.0/8"]);
        let client = client(Options {
            resolver: Names::of(&[&["8.8.8.8"]]),
            proxy: Some(proxy),
            policy: Policy::with_private_networks(),
            ..Options::default()
        });
        let refused = get(&client, "shop", "http://api.example/")
            .await
            .unwrap_err();
        assert!(refused.contains(says), "{refused}");
        assert_eq!(get(&client, "shop", &receiver.url()).await, Ok(200));
    }
}
