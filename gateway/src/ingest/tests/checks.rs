//! What a genuine request has to be beside genuine: of its source's shape, and the first of its kind.

use super::*;
use routing::{
    dedup, filter,
    schema::{self, Action},
};
use serde_json::json;

fn shaped(name: &str, action: Action) -> Row {
    rules::named(name, |spec| {
        spec.schema = Some(schema::Rule {
            action,
            schema: json!({"type": "object", "properties": {"n": {"minimum": 1}}, "required": ["type"]}),
        });
    })
}

fn once(name: &str, conflict: bool) -> Row {
    rules::named(name, |spec| {
        spec.dedup = Some(dedup::Rule {
            by: dedup::By::Field(filter::Path::parse("headers.x-id").unwrap()),
            window: Duration::from_secs(3600),
            conflict,
        });
    })
}

async fn words(test: &Test, column: &'static str) -> Vec<Option<String>> {
    let query = match column {
        "status" => "SELECT verification_status::text FROM events ORDER BY id",
        _ => "SELECT duplicate_of::text FROM events ORDER BY id",
    };
    sqlx::query_scalar(query)
        .fetch_all(test.database.store.pool.raw())
        .await
        .unwrap()
}

#[tokio::test]
async fn what_does_not_fit_the_schema_gets_422_or_is_marked() {
    let rows = [
        shaped("strict", Action::Reject),
        shaped("lenient", Action::Warn),
    ];
    let test = Test::start(&rows, |_| {}).await;
    let to = |source: &str, body: &[u8]| post(&format!("/v1/ingest/{source}"), "", body);

    let answer = send(test.address(), to("strict", b"{\"n\":0}")).await;
    assert_eq!(
        (answer.status, answer.code().as_str()),
        (422, "SCHEMA_VALIDATION_FAILED")
    );
    let told = &answer.json()["details"]["validation_errors"];
    let told: Vec<_> = told
        .as_array()
        .expect("a list of what doesn't fit")
        .iter()
        .map(|one| (one["path"].as_str(), one["keyword"].as_str()))
        .collect();
    assert_eq!(
        told,
        [(Some(""), Some("required")), (Some("/n"), Some("minimum"))]
    );
    let answer = send(test.address(), to("strict", b"no json")).await;
    let told = &answer.json()["details"]["validation_errors"][0]["keyword"];
    assert_eq!((answer.status, told), (422, &json!("json")));
    assert_eq!(
        test.count("events").await,
        0,
        "what is refused leaves nothing"
    );

    for (source, body) in [
        ("strict", &b"{\"type\":\"a\",\"n\":1}"[..]),
        ("lenient", b"{\"type\":\"a\"}"),
        ("lenient", b"{}"),
        ("lenient", b"no json"),
    ] {
        let answer = send(test.address(), to(source, body)).await;
        assert_eq!(answer.status, 200, "{source}");
    }
    let invalid = || Some("schema_invalid".to_owned());
    assert_eq!(
        words(&test, "status").await,
        [None, None, invalid(), invalid()]
    );
    let metrics = test.gateway.metrics();
    for line in [
        "hookstream_ingest_refused_total{namespace=\"default\",reason=\"schema_invalid\",source=\"strict\"} 2",
        "hookstream_ingest_marked_total{mark=\"schema_invalid\",namespace=\"default\",source=\"lenient\"} 2",
    ] {
        assert!(metrics.contains(line), "{line}\n{metrics}");
    }
    test.gateway.stop().await.unwrap();
}

#[tokio::test]
async fn a_copy_is_recorded_goes_nowhere_and_is_told_the_first_ones_id() {
    let [kind, strict] = [once("kind", false), once("strict", true)];
    let target = destination_row(Uuid::now_v7(), "target", "http://127.0.0.1:1/");
    let connections =
        [&kind, &strict].map(|source| connection_row(Uuid::now_v7(), source, &target));
    let rows = [vec![kind, strict, target], connections.to_vec()].concat();
    let test = Test::start(&rows, |_| {}).await;
    let to = |source: &str, id: &str| post(&format!("/v1/ingest/{source}"), id, b"{}");

    let first = send(test.address(), to("kind", "x-id: 1\r\n")).await;
    assert_eq!(first.json().get("duplicate"), None);
    // Many at once: whichever batch they are in, they are copies.
    let copies = (0..20).map(|_| send(test.address(), to("kind", "x-id: 1\r\n")));
    for copy in futures::future::join_all(copies).await {
        assert_eq!(copy.status, 200);
        assert_eq!(copy.event_id(), first.event_id());
        assert_eq!(copy.json()["duplicate"], true);
    }
    for headers in ["x-id: 2\r\n", "", ""] {
        let other = send(test.address(), to("kind", headers)).await;
        assert_eq!(other.json().get("duplicate"), None, "{headers:?}");
    }
    let refused = send(test.address(), to("strict", "x-id: 1\r\n")).await;
    assert_eq!(refused.status, 200, "another source has keys of its own");
    let refused = send(test.address(), to("strict", "x-id: 1\r\n")).await;
    assert_eq!(
        (refused.status, refused.code().as_str()),
        (409, "DUPLICATE_EVENT")
    );
    assert!(refused.json()["details"]["event_id"].is_string());

    assert_eq!(test.count("events").await, 26, "copies are recorded too");
    assert_eq!(test.count("queue").await, 5, "and have no delivery");
    let of = words(&test, "duplicate_of").await;
    let of_first = Some(first.event_id().to_string());
    assert_eq!(of.iter().filter(|of| **of == of_first).count(), 20);
    let line = "hookstream_ingest_marked_total{mark=\"duplicate\",namespace=\"default\",source=\"kind\"} 20";
    let metrics = test.gateway.metrics();
    assert!(metrics.contains(line), "{metrics}");
    test.gateway.stop().await.unwrap();
}
