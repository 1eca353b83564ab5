//! What differs between attempts, and what takes the body's place: URLs with the sender's path and query, templates.

use super::*;
use routing::payload::Template;

#[tokio::test]
async fn the_senders_path_and_query_fill_their_places_in_the_url() {
    let mut receiver = Receiver::always(Reply::Status(200)).await;
    for (url, path, query, target) in [
        (
            "/in/{path}?{query}",
            "/orders/7",
            "a=b&c=%20",
            "/in/orders/7?a=b&c=%20",
        ),
        ("/in/{path}?k=v&{query}", "", "", "/in/?k=v"),
        ("/in", "/orders/7", "a=b", "/in"),
    ] {
        let mut event = event(b"", "");
        (event.path, event.query) = (path.into(), query.into());
        let spec = HttpSpec {
            method: Some("PATCH".to_owned()),
            ..spec(format!("http://{}{url}", receiver.address))
        };
        send(spec, &[], &event).await;
        let received = receiver.next().await;
        assert_eq!(
            (received.method.as_str(), received.target.as_str()),
            ("PATCH", target)
        );
    }
}

#[tokio::test]
async fn a_template_sends_the_services_json_and_no_header_that_described_the_senders_body() {
    let mut receiver = Receiver::always(Reply::Status(200)).await;
    let event = event(
        b"Content-Type: text/plain\r\nContent-Encoding: identity\r\nContent-Digest: sha-256=:b2xk:\r\nX-GitHub-Event: push\r\n",
        "hello",
    );
    let spec = HttpSpec {
        template: Some(Template::Pagerduty {
            routing_key: SecretIndex(0),
        }),
        ..spec(receiver.url())
    };
    let secrets = [Secret::new("R0UT1NG")];
    assert!(
        !format!("{:?}", Target::prepare(&spec, &secrets, "shop").unwrap()).contains("R0UT1NG")
    );
    send(spec, &secrets, &event).await;
    let received = receiver.next().await;
    let body: serde_json::Value = serde_json::from_slice(&received.body).unwrap();
    assert_eq!(body["routing_key"], "R0UT1NG");
    assert_eq!(body["payload"]["class"], "push");
    assert_eq!(body["payload"]["custom_details"]["body"], "hello");
    assert_eq!(received.header("content-type"), "application/json");
    assert_eq!(
        received.header("content-length"),
        received.body.len().to_string()
    );
    for gone in ["content-encoding", "content-digest"] {
        assert_eq!(received.header(gone), "");
    }
}
