//! Publishing to topics, now and later, as publishers meet it.

use super::*;
use crate::testing::{subscription_row, topic_row};
use client::Answer;
use routing::{
    ids::{Prefix, format, parse},
    row::TopicSpec,
    schema::{self, Action},
};
use serde_json::{Value, json};

const KEY: &str = "a-key-of-the-shop-itself";

fn topic(change: impl FnOnce(&mut TopicSpec)) -> Row {
    let mut row = topic_row(Uuid::now_v7(), "orders", Some(KEY));
    let Spec::Topic(spec) = &mut row.spec else {
        unreachable!("it is a topic")
    };
    change(spec);
    row
}

/// A topic with two subscriptions.
fn rows(topic: &Row) -> Vec<Row> {
    let mut rows = vec![topic.clone()];
    for name in ["first", "second"] {
        let destination = destination_row(Uuid::now_v7(), name, "http://127.0.0.1:1/");
        rows.push(subscription_row(Uuid::now_v7(), topic, &destination));
        rows.push(destination);
    }
    rows
}

async fn asked(test: &Test, method: &str, path: &str, headers: &str, body: &[u8]) -> Answer {
    let mut request = format!(
        "{method} /v1/topics/{path} HTTP/1.1\r\nHost: hooks\r\nX-API-Key: {KEY}\r\n{headers}Content-Length: {}\r\n\r\n",
        body.len()
    )
    .into_bytes();
    request.extend_from_slice(body);
    send(test.address(), &request).await
}

async fn publish(test: &Test, headers: &str, body: &str) -> Answer {
    asked(test, "POST", "orders/publish", headers, body.as_bytes()).await
}

fn refusal(answer: &Answer) -> (u16, String) {
    (answer.status, answer.code())
}

fn ids(answer: &Answer) -> Vec<Uuid> {
    assert_eq!(answer.status, 200, "{answer:?}");
    let ids = answer.json()["event_ids"].as_array().unwrap().clone();
    ids.iter()
        .map(|id| parse(Prefix::Event, id.as_str().unwrap()).unwrap())
        .collect()
}

async fn scheduled(test: &Test) -> i64 {
    sqlx::query_scalar("SELECT count(*) FROM scheduled")
        .fetch_one(test.database.store.pool.raw())
        .await
        .unwrap()
}

#[tokio::test]
async fn a_publication_is_recorded_with_its_deliveries_and_without_its_key() {
    let topic = topic(|_| {});
    let test = Test::start(&rows(&topic), |_| {}).await;
    let body = r#" {"type": "order.paid", "data": {"n": 1.00}}"#;
    let headers = "Authorization: Basic eDp5\r\nIdempotency-Key: one\r\nX-Trace: t\r\nContent-Type: text/plain\r\n";
    let answer = publish(&test, headers, body).await;
    let json = answer.json();
    assert_eq!(json["topic"], "orders");
    assert!(
        json["received_at"]
            .as_str()
            .unwrap()
            .parse::<jiff::Timestamp>()
            .is_ok()
    );
    let event = test.event(answer.event_id()).await;
    assert_eq!((event.source_id, &*event.namespace), (topic.uid, "default"));
    assert_eq!(&event.body[..], body.as_bytes());
    let kept = String::from_utf8_lossy(&event.headers).into_owned();
    assert!(
        kept.contains("x-trace: t\r\n") && kept.contains("content-type: application/json\r\n"),
        "{kept}"
    );
    for secret in [KEY, "eDp5", "authorization", "x-api-key", "idempotency-key"] {
        assert!(!kept.contains(secret), "{kept}");
    }
    assert_eq!(
        (test.count("events").await, test.count("queue").await),
        (1, 2)
    );
    // By the id of the topic, and with the key as a bearer token.
    let path = format!("{}/publish", format(Prefix::Topic, topic.uid));
    let request = format!(
        "POST /v1/topics/{path} HTTP/1.1\r\nHost: hooks\r\nAuthorization: bearer {KEY}\r\nContent-Length: 2\r\n\r\n{{}}"
    );
    assert_eq!(send(test.address(), request.as_bytes()).await.status, 200);
    let metrics = test.gateway.metrics();
    for line in [
        "hookstream_ingest_accepted_total{namespace=\"default\",source=\"topic/orders\"} 2",
        "hookstream_deliveries_recorded_total 4",
    ] {
        assert!(metrics.contains(line), "{line}\n{metrics}");
    }
}

#[tokio::test]
async fn who_has_no_key_of_the_topic_may_not_publish() {
    let open = topic_row(Uuid::now_v7(), "open", None);
    let mut elsewhere = topic_row(Uuid::now_v7(), "orders", Some(KEY));
    elsewhere.namespace = "elsewhere".to_owned();
    let mut another = topic_row(Uuid::now_v7(), "twice", Some("another-key-of-theirs"));
    another.namespace = "elsewhere".to_owned();
    let mine = topic_row(Uuid::now_v7(), "twice", Some(KEY));
    let orders = topic(|_| {});
    let test = Test::start(
        &[open, elsewhere, another, mine.clone(), orders.clone()],
        |_| {},
    )
    .await;
    let with = async |path: &str, header: &str| {
        let request = format!(
            "POST /v1/topics/{path} HTTP/1.1\r\nHost: hooks\r\n{header}Content-Length: 2\r\n\r\n{{}}"
        );
        send(test.address(), request.as_bytes()).await
    };
    let right = format!("X-API-Key: {KEY}\r\n");
    for (path, header, expected, reason) in [
        (
            "nothing/publish",
            right.as_str(),
            (404, "TOPIC_NOT_FOUND"),
            "",
        ),
        (
            "twice/publish",
            "",
            (401, "UNAUTHORIZED"),
            "publish_key_missing",
        ),
        (
            "twice/publish",
            "X-API-Key: wrong\r\n",
            (401, "UNAUTHORIZED"),
            "publish_key_wrong",
        ),
        (
            "twice/publish",
            "Authorization: Basic eDp5\r\n",
            (401, "UNAUTHORIZED"),
            "publish_key_missing",
        ),
        (
            "open/publish",
            &right,
            (401, "UNAUTHORIZED"),
            "no_publish_keys",
        ),
        ("orders/publish", &right, (409, "TOPIC_AMBIGUOUS"), ""),
        ("twice/subscribe", &right, (404, "NOT_FOUND"), ""),
        ("twice", &right, (404, "NOT_FOUND"), ""),
        ("twice/scheduled", &right, (405, "METHOD_NOT_ALLOWED"), ""),
    ] {
        let answer = with(path, header).await;
        assert_eq!(
            refusal(&answer),
            (expected.0, expected.1.to_owned()),
            "{path} {header}"
        );
        if !reason.is_empty() {
            assert_eq!(answer.json()["details"]["reason"], reason);
        }
    }
    assert_eq!(
        test.count("events").await,
        0,
        "what is refused leaves nothing"
    );
    // Of two namespaces' topics of one name the key says which is meant, or the id does.
    let event = test
        .event(with("twice/publish", &right).await.event_id())
        .await;
    assert_eq!(event.source_id, mine.uid);
    let by_id = std::format!("{}/publish", format(Prefix::Topic, orders.uid));
    let event = test.event(with(&by_id, &right).await.event_id()).await;
    assert_eq!(event.source_id, orders.uid);
}

#[tokio::test]
async fn events_of_other_types_and_shapes_are_refused() {
    let strict = topic(|spec| {
        spec.event_types = vec!["order.created".into(), "order.paid".into()];
        spec.schema = Some(schema::Rule {
            action: Action::Reject,
            schema: json!({"properties": {"n": {"minimum": 1}}}),
        });
    });
    let test = Test::start(&rows(&strict), |_| {}).await;
    for (body, code) in [
        (r#"{"type":"order.lost"}"#, "EVENT_TYPE_NOT_ALLOWED"),
        (r#"{"n":1}"#, "EVENT_TYPE_NOT_ALLOWED"),
        (r#"{"type":"order.paid","n":0}"#, "SCHEMA_VALIDATION_FAILED"),
    ] {
        let answer = publish(&test, "", body).await;
        assert_eq!(refusal(&answer), (422, code.to_owned()), "{body}");
    }
    let told = publish(&test, "", r#"{"type":"order.lost"}"#).await.json();
    assert_eq!(
        told["details"],
        json!({"event_type": "order.lost", "event_types": ["order.created", "order.paid"]})
    );
    for body in ["", "no json", "[]"] {
        let answer = publish(&test, "", body).await;
        assert_eq!(
            refusal(&answer),
            (400, "INVALID_REQUEST".to_owned()),
            "{body}"
        );
    }
    let answer = publish(&test, "Content-Type: application/cloudevents+avro\r\n", "x").await;
    assert_eq!(refusal(&answer), (415, "UNSUPPORTED_MEDIA_TYPE".to_owned()));
    assert_eq!(test.count("events").await, 0);
    publish(&test, "", r#"{"type":"order.paid","n":1}"#)
        .await
        .event_id();
}

#[tokio::test]
async fn a_request_that_is_made_again_gets_its_answer_and_another_with_its_key_409() {
    let mut topic = topic(|_| {});
    let test = Test::start(&rows(&topic), |_| {}).await;
    let key = "Idempotency-Key: 7f3a\r\n";
    let body = r#"{"type":"order.paid"}"#;
    let first = publish(&test, key, body).await;
    assert_eq!(first.header("idempotent-replayed"), None);
    for _ in 0..2 {
        let again = publish(&test, key, body).await;
        assert_eq!(again.body, first.body);
        assert_eq!(again.header("idempotent-replayed"), Some("true"));
    }
    let other = publish(&test, key, r#"{"type":"order.lost"}"#).await;
    assert_eq!(refusal(&other), (409, "IDEMPOTENCY_MISMATCH".to_owned()));
    // The same to do later is another request.
    let later = asked(
        &test,
        "POST",
        "orders/publish?postIn=1h",
        key,
        body.as_bytes(),
    )
    .await;
    assert_eq!(refusal(&later), (409, "IDEMPOTENCY_MISMATCH".to_owned()));
    for bad in [
        "Idempotency-Key: \r\n",
        "Idempotency-Key: a\r\nIdempotency-Key: a\r\n",
    ] {
        let answer = publish(&test, bad, body).await;
        assert_eq!(refusal(&answer), (400, "INVALID_REQUEST".to_owned()));
    }
    assert_eq!(
        (test.count("events").await, test.count("queue").await),
        (1, 2)
    );

    // At once, over several connections and with a commit for each.
    let many = (0..20).map(|_| publish(&test, "Idempotency-Key: many\r\n", body));
    let answers = futures::future::join_all(many).await;
    assert!(answers.iter().all(|answer| answer.body == answers[0].body));
    assert_eq!(test.count("events").await, 2);

    // The topic takes this type no more; what was answered stays answered.
    let Spec::Topic(spec) = &mut topic.spec else {
        unreachable!("it is a topic")
    };
    spec.event_types = vec!["order.created".into()];
    test.published
        .publish(std::slice::from_ref(&topic), &[])
        .await;
    let refused = async || publish(&test, "", body).await.status == 422;
    for tries in 0.. {
        if refused().await {
            break;
        }
        assert!(tries < 1000, "the change arrives");
    }
    assert_eq!(publish(&test, key, body).await.body, first.body);
    let other = publish(&test, key, "{}").await;
    assert_eq!(refusal(&other), (409, "IDEMPOTENCY_MISMATCH".to_owned()));
}

#[tokio::test]
async fn a_batch_is_published_whole_or_not_at_all() {
    let topic = topic(|spec| spec.event_types = vec!["t".into()]);
    let test = Test::start(&rows(&topic), |_| {}).await;
    let batch = async |headers: &str, body: &str| {
        asked(
            &test,
            "POST",
            "orders/publish/batch",
            headers,
            body.as_bytes(),
        )
        .await
    };
    let many = |count| {
        let events: Vec<Value> = (0..count).map(|n| json!({"type": "t", "n": n})).collect();
        json!({ "events": events }).to_string()
    };
    let answer = batch("Idempotency-Key: b\r\n", &many(100)).await;
    let ids = ids(&answer);
    assert_eq!(ids.len(), 100);
    assert!(ids.is_sorted(), "in their order");
    assert_eq!(&test.event(ids[7]).await.body[..], br#"{"type":"t","n":7}"#);
    assert_eq!(
        (test.count("events").await, test.count("queue").await),
        (100, 200)
    );
    assert_eq!(
        batch("Idempotency-Key: b\r\n", &many(100)).await.body,
        answer.body
    );
    for (body, expected) in [
        (many(101), (400, "INVALID_REQUEST")),
        (many(0), (400, "INVALID_REQUEST")),
        (
            r#"{"events":[{"type":"t"},{"type":"x"}]}"#.to_owned(),
            (422, "EVENT_TYPE_NOT_ALLOWED"),
        ),
        (r#"[{"type":"t"}]"#.to_owned(), (400, "INVALID_REQUEST")),
    ] {
        let answer = batch("", &body).await;
        assert_eq!(refusal(&answer), (expected.0, expected.1.to_owned()));
    }
    assert_eq!(test.count("events").await, 100);
}

#[tokio::test]
async fn a_batch_makes_no_more_deliveries_than_a_commit_takes() {
    let topic = topic(|_| {});
    let destination = destination_row(Uuid::now_v7(), "many", "http://127.0.0.1:1/");
    let mut rows = vec![topic.clone(), destination.clone()];
    rows.extend((0..330).map(|_| subscription_row(Uuid::now_v7(), &topic, &destination)));
    let test = Test::start(&rows, |_| {}).await;
    let batch = async |events: usize| {
        let body = json!({"events": vec![json!({"type": "t"}); events]}).to_string();
        let path = "orders/publish/batch";
        asked(&test, "POST", path, "", body.as_bytes()).await
    };
    let answer = batch(100).await;
    assert_eq!(refusal(&answer), (400, "INVALID_REQUEST".to_owned()));
    let why = answer.json().to_string();
    assert!(why.contains("32768 deliveries"), "{why}");
    assert_eq!(test.count("events").await, 0);
    assert_eq!(ids(&batch(99).await).len(), 99);
    assert_eq!(test.count("queue").await, 99 * 330);
}

#[tokio::test]
async fn cloudevents_are_recorded_in_one_shape_whatever_mode_they_came_in() {
    let topic = topic(|spec| spec.event_types = vec!["order.paid".into()]);
    let test = Test::start(&rows(&topic), |_| {}).await;
    let attributes = "ce-specversion: 1.0\r\nce-id: 1\r\nce-source: /shop\r\nce-type: order.paid\r\nContent-Type: application/json\r\n";
    let answer = publish(&test, attributes, r#"{"n": 1.00}"#).await;
    let binary = test.event(answer.event_id()).await;
    let json: Value = serde_json::from_slice(&binary.body).unwrap();
    assert_eq!(
        (&json["id"], &json["data"]["n"]),
        (&json!("1"), &json!(1.0))
    );
    assert!(String::from_utf8_lossy(&binary.body).contains(r#""data":{"n": 1.00}"#));
    let kept = String::from_utf8_lossy(&binary.headers).into_owned();
    assert!(
        kept.contains("content-type: application/cloudevents+json\r\n"),
        "{kept}"
    );
    assert!(!kept.contains("ce-"), "{kept}");

    let body = String::from_utf8(binary.body.to_vec()).unwrap();
    let structured = "Content-Type: application/cloudevents+json; charset=utf-8\r\n";
    let answer = publish(&test, structured, &body).await;
    assert_eq!(test.event(answer.event_id()).await.body, binary.body);
    let batched = "Content-Type: application/cloudevents-batch+json\r\n";
    let ids = ids(&publish(&test, batched, &format!("[{body},{body}]")).await);
    assert_eq!(test.event(ids[1]).await.body, binary.body);
    assert_eq!(test.count("queue").await, 8);

    let answer = publish(&test, structured, r#"{"specversion":"0.3"}"#).await;
    assert_eq!(refusal(&answer), (400, "INVALID_REQUEST".to_owned()));
    let answer = publish(&test, &attributes.replace("order.paid", "order.lost"), "{}").await;
    assert_eq!(refusal(&answer), (422, "EVENT_TYPE_NOT_ALLOWED".to_owned()));
}

/// 30 events to 330 destinations are more than one transaction's worth.
#[tokio::test]
async fn what_is_due_at_once_is_published_in_steps_and_keeps_what_was_found() {
    let topic = topic(|spec| {
        spec.schema = Some(schema::Rule {
            action: Action::Warn,
            schema: json!({"required": ["id"]}),
        });
    });
    let destination = destination_row(Uuid::now_v7(), "many", "http://127.0.0.1:1/");
    let mut rows = vec![topic.clone(), destination.clone()];
    rows.extend((0..330).map(|_| subscription_row(Uuid::now_v7(), &topic, &destination)));
    let test = Test::start(&rows, |_| {}).await;
    let mut events = vec![json!({"type": "t", "id": 1}); 29];
    events.push(json!({"type": "t"}));
    let body = json!({ "events": events }).to_string();
    let path = "orders/publish/batch?postIn=100ms";
    let answer = asked(&test, "POST", path, "", body.as_bytes()).await;
    assert_eq!(ids(&answer).len(), 30);
    let deadline = service::clock::instant() + Duration::from_secs(20);
    while test.count("queue").await < 30 * 330 {
        assert!(service::clock::instant() < deadline, "all of it is due");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let invalid: i64 = sqlx::query_scalar(
        "SELECT count(*) FROM events WHERE verification_status = 'schema_invalid'",
    )
    .fetch_one(test.database.store.pool.raw())
    .await
    .unwrap();
    let transactions: i64 = sqlx::query_scalar("SELECT count(DISTINCT xmin::text) FROM events")
        .fetch_one(test.database.store.pool.raw())
        .await
        .unwrap();
    assert_eq!((invalid, transactions, scheduled(&test).await), (1, 2, 0));
}

#[tokio::test]
async fn what_is_scheduled_is_listed_cancelled_and_published_when_it_is_due() {
    let topic = topic(|_| {});
    let test = Test::start(&rows(&topic), |_| {}).await;
    let key = "Idempotency-Key: s\r\n";
    let later = publish(&test, key, r#"{"type":"t","postIn":"365d","data":1}"#).await;
    assert_eq!(later.json()["status"], "scheduled");
    let later_id = later.event_id();
    let again = publish(&test, key, r#"{"type":"t","postIn":"365d","data":1}"#).await;
    assert_eq!(
        again.body, later.body,
        "also though the hour is another by now"
    );
    let local = "orders/publish?postAtLocal=2027-03-28T02:30&timezone=Europe/Berlin";
    let local = asked(&test, "POST", local, "", b"{}").await;
    assert_eq!(local.json()["due_at"], "2027-03-28T01:30:00Z");
    assert_eq!((test.count("events").await, scheduled(&test).await), (0, 2));

    let list = async |query: &str| {
        let answer = asked(&test, "GET", &format!("orders/scheduled{query}"), "", b"").await;
        assert_eq!(answer.status, 200);
        answer.json()
    };
    let page = list("?limit=1").await;
    let first = page["scheduled"][0].clone();
    assert_eq!(page["scheduled"].as_array().unwrap().len(), 1);
    let rest = list(&format!("?cursor={}", page["cursor"].as_str().unwrap())).await;
    assert_eq!(
        (rest["scheduled"].as_array().unwrap().len(), &rest["cursor"]),
        (1, &Value::Null)
    );
    let ids = [&first, &rest["scheduled"][0]].map(|one| one["event_id"].clone());
    assert!(ids.contains(&json!(format(Prefix::Event, later_id))));
    for bad in ["?limit=0", "?limit=x", "?cursor=x"] {
        let answer = asked(&test, "GET", &format!("orders/scheduled{bad}"), "", b"").await;
        assert_eq!(refusal(&answer), (400, "INVALID_REQUEST".to_owned()));
    }

    let cancel =
        async |id: &str| asked(&test, "DELETE", &format!("orders/scheduled/{id}"), "", b"").await;
    let id = format(Prefix::Event, later_id);
    assert_eq!(cancel(&id).await.json(), json!({"success": true}));
    for id in [id.as_str(), "evt_x"] {
        let answer = cancel(id).await;
        assert_eq!(
            refusal(&answer),
            (404, "SCHEDULED_EVENT_NOT_FOUND".to_owned())
        );
    }
    for body in [
        r#"{"postIn":"1h","postAt":"2027-01-01T00:00:00Z"}"#,
        r#"{"postAt":"2020-01-01T00:00:00Z"}"#,
    ] {
        assert_eq!(
            refusal(&publish(&test, "", body).await),
            (400, "INVALID_REQUEST".to_owned())
        );
    }

    // Soon: it is published by this replica, with what follows an event.
    let soon = publish(&test, "", r#"{"type":"t", "postIn":"300ms", "data": 2}"#).await;
    let deadline = service::clock::instant() + Duration::from_secs(12);
    while test.count("queue").await < 2 {
        assert!(
            service::clock::instant() < deadline,
            "it is due, and the owner's next look is not for 15 s"
        );
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let event = test.event(soon.event_id()).await;
    assert_eq!(&event.body[..], br#"{"type":"t","data":2}"#);
    assert_eq!(event.source_id, topic.uid);
    let due: jiff::Timestamp = soon.json()["due_at"].as_str().unwrap().parse().unwrap();
    let late = event.received_at.duration_since(due);
    assert!(
        late >= jiff::SignedDuration::ZERO && late.as_secs() < 5,
        "{late}"
    );
    assert_eq!((test.count("events").await, scheduled(&test).await), (1, 1));
    let metrics = test.gateway.metrics();
    assert!(
        metrics.contains("hookstream_scheduled_published_total 1"),
        "{metrics}"
    );
}

/// The days on which these were due have no partitions, since nobody was there to make them.
#[tokio::test]
async fn what_was_due_while_nobody_was_there_is_published_late() {
    let topic = topic(|_| {});
    let rows = rows(&topic);
    let database = Database::create().await;
    let published = Published::new(&database.store, &rows).await;
    let due_at =
        store::time::stored(service::clock::now() - jiff::SignedDuration::from_hours(24 * 9));
    let late = store::scheduled::Scheduled {
        id: crate::ingest::ids::due(due_at, 0),
        topic_id: topic.uid,
        namespace: "default".into(),
        due_at,
        scheduled_at: due_at,
        headers: "content-type: application/json\r\n".into(),
        body: "{}".into(),
        remote_addr: "127.0.0.1".parse().unwrap(),
        verification: store::events::Verification::Verified,
    };
    store::scheduled::schedule(&database.store.pool, None, std::slice::from_ref(&late))
        .await
        .unwrap();
    let gateway = Gateway::start(database.options(), &published.keyring, |options| {
        options.roles = vec![Role::Ingest];
        options.retention = Duration::from_secs(30 * 86_400);
    })
    .await;
    let test = Test {
        database,
        published,
        gateway,
    };
    let deadline = service::clock::instant() + Duration::from_secs(20);
    while test.count("queue").await < 2 {
        assert!(service::clock::instant() < deadline, "it is published");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert_eq!(&test.event(late.id).await.body[..], b"{}");
}
