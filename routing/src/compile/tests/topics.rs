//! Topics and Subscriptions.

use super::*;
use crate::{EventView, Table, table::PublishKey};
use ::http::{HeaderMap, Method};
use std::net::Ipv4Addr;

const ORDERS: &str = "
kind: Secret
metadata: {name: publishers}
stringData: {shop: 'a-key-of-the-shop-itself'}
---
kind: Topic
metadata: {name: orders}
spec:
  eventTypes: [order.paid, order.created]
  publishKeyRefs: [{name: publishers, key: shop}]
---
kind: Destination
metadata: {name: ci}
spec: {http: {url: 'https://example.com/hooks'}}
---
kind: Subscription
metadata: {name: orders-to-ci}
spec:
  topic: {name: orders}
  destination: {name: ci}
  filter: {all: [{path: body.type, op: eq, value: order.paid}]}
";

fn routed(table: &Table, slug: &str, body: &str) -> Vec<String> {
    let (method, headers) = (Method::POST, HeaderMap::new());
    let address = Ipv4Addr::LOCALHOST.into();
    let view = EventView::new(&method, "", "", &headers, body.as_bytes(), address);
    let topic = table.topics_named(slug).next().expect("the topic");
    let found = topic.route(&view);
    found.iter().map(|found| found.name.clone()).collect()
}

#[test]
fn a_subscription_routes_as_a_connection_does() {
    let mut ground = Ground::of(ORDERS);
    assert_eq!(
        ground.compile(),
        "changed Destination/shop/ci generation 1\n\
         changed Topic/shop/orders generation 1\n\
         changed Subscription/shop/orders-to-ci generation 1\n"
    );
    let table = Table::build(ground.compiler.rows().cloned());
    assert_eq!(
        routed(&table, "orders", r#"{"type":"order.paid"}"#),
        ["orders-to-ci"]
    );
    assert!(routed(&table, "orders", r#"{"type":"order.created"}"#).is_empty());

    let topic = table.topics_named("orders").next().expect("the topic");
    assert_eq!(
        table
            .topics_named(&topic.id)
            .map(|t| t.uid)
            .collect::<Vec<_>>(),
        [topic.uid]
    );
    assert!(topic.admits(&PublishKey::new(b"a-key-of-the-shop-itself")));
    for wrong in [
        &b""[..],
        b"a-key-of-the-shop-itsel",
        b"a-key-of-the-shop-itself ",
    ] {
        assert!(!topic.admits(&PublishKey::new(wrong)));
    }
    assert!(topic.takes(Some("order.paid")) && topic.takes(Some("order.created")));
    assert!(!topic.takes(Some("order")) && !topic.takes(None));

    // Suspended, and without its topic.
    ground.apply(
        "{kind: Subscription, metadata: {name: orders-to-ci}, spec: {topic: {name: orders}, destination: {name: ci}, suspend: true}}",
    );
    ground.compile();
    let table = Table::build(ground.compiler.rows().cloned());
    assert!(routed(&table, "orders", r#"{"type":"order.paid"}"#).is_empty());
    ground.remove("Topic/shop/orders");
    assert_eq!(
        ground.compile(),
        "removed Topic/shop/orders\n\
         Subscription/shop/orders-to-ci ResolvedRefs TopicNotFound: spec.topic: there is no Topic `orders` in namespace `shop`; create it, or name another\n\
         Subscription/shop/orders-to-ci routes generation 2\n"
    );
}

#[test]
fn a_table_that_grew_row_by_row_is_the_one_built_at_once() {
    let mut ground = Ground::of(ORDERS);
    ground.compile();
    let rows: Vec<Row> = ground.compiler.rows().cloned().collect();
    let grown = rows
        .iter()
        .rev()
        .fold(Table::default(), |table, row| table.with([row.clone()], []));
    assert_eq!(
        routed(&grown, "orders", r#"{"type":"order.paid"}"#),
        ["orders-to-ci"]
    );
    let key = rows
        .iter()
        .map(Row::key)
        .find(|key| key.kind == Kind::Topic)
        .expect("the topic");
    let without = grown.with([], [key]);
    assert_eq!(without.topics_named("orders").count(), 0);
    assert!(without.topic(key.uid).is_none());
}

#[test]
fn topics_of_two_namespaces_may_share_a_name() {
    let mut ground = Ground::of(
        "{kind: Topic, metadata: {name: orders}, spec: {}}
---
{kind: Topic, metadata: {name: orders, namespace: bank}, spec: {}}",
    );
    ground.compile();
    let table = Table::build(ground.compiler.rows().cloned());
    assert_eq!(table.topics_named("orders").count(), 2);
    assert!(table.topics_named("orders").all(|topic| !topic.has_keys()));
}

#[test]
fn what_is_wrong_with_a_topic_says_what_to_change() {
    let mut ground = Ground::of(
        "
kind: Secret
metadata: {name: publishers}
stringData: {short: tooshort, newline: \"a-key-of-the-shop-itself\\n\"}
---
kind: Topic
metadata: {name: orders}
spec:
  publishKeyRefs: [{name: publishers, key: short}, {name: publishers, key: newline}, {name: publishers, key: gone}, {name: none, key: x}]
---
kind: Subscription
metadata: {name: sub}
spec: {topic: {name: orders}, destination: {name: ci}}
",
    );
    expect_test::expect![[r#"
        Topic/shop/orders Accepted UnsupportedValue: spec.publishKeyRefs[0]: the value of `short` in the Secret `publishers` can't be a publish key: it is shorter than 16 characters; `openssl rand -hex 32` makes a good one
        Topic/shop/orders Accepted UnsupportedValue: spec.publishKeyRefs[1]: the value of `newline` in the Secret `publishers` can't be a publish key: it has a character that is not visible ASCII; often that is a newline at the end, which `printf` instead of `echo` avoids
        Topic/shop/orders ResolvedRefs SecretKeyMissing: spec.publishKeyRefs[2]: the Secret `publishers` has no key `gone`; add it, or name another
        Topic/shop/orders ResolvedRefs SecretNotFound: spec.publishKeyRefs[3]: there is no Secret `none` in namespace `shop`; create it, or name another
        Topic/shop/orders routes nothing
        Subscription/shop/sub ResolvedRefs TopicNotFound: spec.topic: the Topic `orders` is there but not in the routing table yet; its own conditions say what to change
        Subscription/shop/sub ResolvedRefs DestinationNotFound: spec.destination: there is no Destination `ci` in namespace `shop`; create it, or name another
        Subscription/shop/sub routes nothing
    "#]]
    .assert_eq(&ground.compile());
}
