use super::*;
use http::Uri;

/// What the connector answers for a URL that must not be reached. No network is touched: the check comes first.
async fn refusal(url: &str) -> String {
    let uri: Uri = url.parse().unwrap_or_else(|error| panic!("{url}: {error}"));
    let request = http::Request::post(uri).body(Full::default()).unwrap();
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
