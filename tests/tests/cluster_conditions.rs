//! What the operator says of resources, on a real API server: every condition with its reason.

use crds::Kind;
use operator::status::condition;
use std::time::Duration;
use store::{
    Held,
    destination_state::{self, Circuit, State},
    lease,
    listen::{Hint, Listener},
};
use tests::cluster::{
    gateways::{Following, Pinned},
    world::World,
};

const QUICKSTART: &str = include_str!("../../examples/quickstart/quickstart.yaml");

/// A source, a destination and a connection between them, of these names.
fn route(source: &str, destination: &str, connection: &str) -> String {
    format!(
        "{}---\n{}---\n{}",
        a_source(source, ""),
        a_destination(destination, "https://orders.example.com/hooks"),
        a_connection(connection, source, destination)
    )
}

fn a_source(name: &str, spec: &str) -> String {
    let spec = if spec.is_empty() {
        "displayName: A source"
    } else {
        spec
    };
    format!(
        "apiVersion: hookstream.io/v1alpha1\nkind: Source\nmetadata: {{name: {name}}}\nspec:\n  {}\n",
        spec.trim().replace('\n', "\n  ")
    )
}

fn a_destination(name: &str, url: &str) -> String {
    format!(
        "apiVersion: hookstream.io/v1alpha1\nkind: Destination\nmetadata: {{name: {name}}}\nspec:\n  http: {{url: \"{url}\"}}\n"
    )
}

fn a_connection(name: &str, source: &str, destination: &str) -> String {
    format!(
        "apiVersion: hookstream.io/v1alpha1\nkind: Connection\nmetadata: {{name: {name}}}\nspec:\n  source: {{name: {source}}}\n  destination: {{name: {destination}}}\n"
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn the_quickstart_is_ready_within_two_seconds() {
    let world = World::new().await;
    let operator = world.operator(&[]).await;
    let _gateway = Following::start(world.store(), "gateway-1");
    operator.metric("hookstream_operator_leader", 1).await;

    world.apply(QUICKSTART).await;
    let applied = service::clock::instant();
    let wait = [
        "wait",
        "--for=condition=Ready",
        "hsrc,hdst,hconn",
        "--all",
        "--timeout=20s",
    ];
    world
        .kubectl(&wait)
        .await
        .expect("every object becomes Ready");
    let took = applied.elapsed();
    assert!(took < Duration::from_secs(2), "Ready after {took:?}");

    let source = world.ready(Kind::Source, "github").await;
    let uid = world
        .get(Kind::Source, "github")
        .await
        .metadata
        .uid
        .unwrap()
        .replace('-', "");
    assert_eq!(source.id, Some(format!("src_{uid}")));
    assert_eq!(
        source.url.as_deref(),
        Some("https://hooks.example.com/v1/ingest/github")
    );
    let programmed = condition(&source, "Programmed").unwrap();
    assert!(
        programmed.message.ends_with("on 1 of 1 gateways"),
        "{}",
        programmed.message
    );
    assert!(condition(&source, "Stalled").is_none() && condition(&source, "Reconciling").is_none());
    assert_eq!(
        world
            .ready(Kind::Destination, "ci")
            .await
            .circuit
            .as_deref(),
        Some("Closed")
    );
    assert_eq!(world.rows().await.len(), 3);
    operator.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_refusal_has_its_reason() {
    let world = World::new().await;
    let _operator = world.operator(&[]).await;
    let _gateway = Following::start(world.store(), "gateway-1");
    let elsewhere = format!("{}-elsewhere", world.namespace);
    world.make_namespace(&elsewhere, &[]).await;

    world
        .apply("apiVersion: v1\nkind: Secret\nmetadata: {name: there}\nstringData: {other: x}\n")
        .await;
    world.apply(&route("source", "destination", "fine")).await;
    world.ready(Kind::Connection, "fine").await;
    world.apply(&a_source("first", "path: taken")).await;
    world.ready(Kind::Source, "first").await;
    // Kubernetes counts ages in whole seconds, and within one the UID decides: only time makes the other one younger.
    tokio::time::sleep(Duration::from_secs(1)).await;

    let verification = |secret: &str| {
        format!(
            "verification:\n  template: github\n  secretRefs:\n  - {{name: {secret}, key: secret}}"
        )
    };
    let filter = "  filter:\n    all:\n    - {path: \"body.[\", op: eq, value: 1}\n";
    let transform = "  transform: {jsonata: \"$sum(1\"}\n";
    let foreign = format!(
        "apiVersion: hookstream.io/v1alpha1\nkind: Connection\nmetadata: {{name: foreign}}\nspec:\n  source: {{name: source, namespace: {elsewhere}}}\n  destination: {{name: destination}}\n"
    );
    let channel = "apiVersion: hookstream.io/v1alpha1\nkind: NotificationChannel\nmetadata: {name: channel}\nspec: {slack: {urlRef: {name: ops-slack, key: url}}}\n";
    let no_topic = "apiVersion: hookstream.io/v1alpha1\nkind: Subscription\nmetadata: {name: no-topic}\nspec: {topic: {name: nothing}, destination: {name: destination}}\n";
    for (kind, name, yaml, type_, reason) in [
        (
            Kind::Connection,
            "bad-filter",
            a_connection("bad-filter", "source", "destination") + filter,
            "Accepted",
            "InvalidFilter",
        ),
        (
            Kind::Connection,
            "transformed",
            a_connection("transformed", "source", "destination") + transform,
            "Accepted",
            "InvalidTransform",
        ),
        (
            Kind::Source,
            "second",
            a_source("second", "path: taken"),
            "Accepted",
            "Conflicted",
        ),
        (
            Kind::NotificationChannel,
            "channel",
            channel.to_owned(),
            "Accepted",
            "NotImplemented",
        ),
        (
            Kind::Subscription,
            "no-topic",
            no_topic.to_owned(),
            "ResolvedRefs",
            "TopicNotFound",
        ),
        (
            Kind::Connection,
            "no-source",
            a_connection("no-source", "nothing", "destination"),
            "ResolvedRefs",
            "SourceNotFound",
        ),
        (
            Kind::Connection,
            "no-destination",
            a_connection("no-destination", "source", "nothing"),
            "ResolvedRefs",
            "DestinationNotFound",
        ),
        (
            Kind::Source,
            "no-secret",
            a_source("no-secret", &verification("nothing")),
            "ResolvedRefs",
            "SecretNotFound",
        ),
        (
            Kind::Source,
            "no-key",
            a_source("no-key", &verification("there")),
            "ResolvedRefs",
            "SecretKeyMissing",
        ),
        (
            Kind::Connection,
            "foreign",
            foreign,
            "ResolvedRefs",
            "RefNotPermitted",
        ),
    ] {
        world.apply(&yaml).await;
        let status = world.condition(kind, name, type_, "False", reason).await;
        let refusal = condition(&status, type_).unwrap();
        assert!(
            !refusal.message.is_empty(),
            "{name} doesn't say what to change"
        );
        assert_eq!(
            condition(&status, "Ready").unwrap().reason,
            reason,
            "{name}"
        );
        assert_eq!(
            operator::status::is_true(&status, "Stalled"),
            type_ == "Accepted",
            "{name}"
        );
        assert!(!operator::status::is_true(&status, "Reconciling"), "{name}");
    }
    let events = world.kubectl(&[
        "get",
        "events.events.k8s.io",
        "-o",
        "jsonpath={range .items[*]}{.type} {.reason} {.regarding.name}{\"\\n\"}{end}",
    ]);
    let events = events.await.unwrap();
    for expected in [
        "Normal Ready fine",
        "Warning InvalidFilter bad-filter",
        "Warning SourceNotFound no-source",
    ] {
        assert!(
            events.lines().any(|line| line == expected),
            "no Event {expected:?} among\n{events}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reference_to_another_namespace_needs_its_permission() {
    let world = World::new().await;
    let elsewhere = format!("{}-elsewhere", world.namespace);
    world
        .make_namespace(&elsewhere, &[("team", "payments")])
        .await;
    let both = format!("{},{elsewhere}", world.namespace);
    let _operator = world.operator(&["--watch-namespaces", &both]).await;
    let _gateway = Following::start(world.store(), "gateway-1");

    world.apply(&a_source("source", "")).await;
    let foreign = format!(
        "{}---\napiVersion: hookstream.io/v1alpha1\nkind: Connection\nmetadata: {{name: foreign}}\nspec:\n  source: {{name: source, namespace: {}}}\n  destination: {{name: destination}}\n",
        a_destination("destination", "https://orders.example.com/"),
        world.namespace
    );
    world
        .cluster
        .kubectl(&["-n", &elsewhere, "apply", "-f", "-"], &foreign)
        .await
        .unwrap();
    let there = World {
        namespace: elsewhere,
        ..World::new().await
    };
    there
        .condition(
            Kind::Connection,
            "foreign",
            "ResolvedRefs",
            "False",
            "RefNotPermitted",
        )
        .await;

    world
        .apply(&a_source(
            "source",
            "allowedNamespaces: {from: Selector, selector: {matchLabels: {team: payments}}}",
        ))
        .await;
    there.ready(Kind::Connection, "foreign").await;

    // Permission that is taken back takes the route away.
    world
        .apply(&a_source("source", "allowedNamespaces: {from: Same}"))
        .await;
    there
        .condition(
            Kind::Connection,
            "foreign",
            "ResolvedRefs",
            "False",
            "RefNotPermitted",
        )
        .await;
    world
        .until_rows(|rows| !rows.iter().any(|row| row.name == "foreign"))
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn programmed_waits_for_every_live_gateway() {
    let world = World::new().await;
    let _operator = world.operator(&[]).await;
    world.apply(&a_source("source", "")).await;
    world
        .condition(Kind::Source, "source", "Programmed", "False", "NoReplicas")
        .await;

    let published = world.head().await;
    let before = store::routes::Head {
        revision: published.revision - 1,
        ..published
    };
    let one = Pinned::at(world.store(), "gateway-1", before).await;
    let status = world
        .condition(Kind::Source, "source", "Programmed", "False", "Pending")
        .await;
    assert!(operator::status::is_true(&status, "Reconciling"));
    let two = Pinned::at(world.store(), "gateway-2", published).await;
    let status = world
        .condition(
            Kind::Source,
            "source",
            "Programmed",
            "False",
            "PartiallyProgrammed",
        )
        .await;
    let message = &condition(&status, "Programmed").unwrap().message;
    assert_eq!(
        message,
        &format!(
            "revision {} on 1 of 2 gateways; waiting for gateway-1",
            published.revision
        )
    );
    one.acknowledge(published).await;
    let status = world.ready(Kind::Source, "source").await;
    let message = &condition(&status, "Programmed").unwrap().message;
    assert_eq!(
        message,
        &format!("revision {} on 2 of 2 gateways", published.revision)
    );

    // A new generation is Ready when they have it, not before; a gateway that leaves is not waited for.
    world.apply(&a_source("source", "suspend: true")).await;
    world
        .condition(Kind::Source, "source", "Programmed", "False", "Pending")
        .await;
    two.acknowledge(world.head().await).await;
    world
        .condition(
            Kind::Source,
            "source",
            "Programmed",
            "False",
            "PartiallyProgrammed",
        )
        .await;
    one.leave().await;
    world.ready(Kind::Source, "source").await;

    // A gateway that has loaded nothing yet takes no traffic and is not waited for either.
    let _starting = Pinned::at(world.store(), "gateway-3", store::routes::Head::default()).await;
    world
        .apply(&a_source("source", "displayName: the same route"))
        .await;
    two.acknowledge(world.head().await).await;
    world
        .until(Kind::Source, "source", |status| {
            status.observed_generation == Some(3)
        })
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn applying_twice_changes_nothing() {
    let world = World::new().await;
    let _operator = world.operator(&[]).await;
    let _gateway = Following::start(world.store(), "gateway-1");
    world.apply(QUICKSTART).await;
    let objects = [
        (Kind::Source, "github"),
        (Kind::Destination, "ci"),
        (Kind::Connection, "github-to-ci"),
    ];
    let mut versions = Vec::new();
    for (kind, name) in objects {
        world.ready(kind, name).await;
        versions.push(world.get(kind, name).await.metadata.resource_version);
    }
    let head = world.head().await;

    let said = world.apply(QUICKSTART).await;
    // kubectl says "configured" of every Secret with `stringData`: the server has it as `data`.
    let changed: Vec<_> = said
        .lines()
        .filter(|line| !line.ends_with("unchanged") && !line.starts_with("secret/"))
        .collect();
    assert!(changed.is_empty(), "{changed:?}");
    // What comes after it has been through the operator, so the second apply has been as well.
    world.apply(&a_source("marker", "")).await;
    world.ready(Kind::Source, "marker").await;
    for ((kind, name), version) in objects.into_iter().zip(versions) {
        assert_eq!(
            world.get(kind, name).await.metadata.resource_version,
            version,
            "{name} was written again"
        );
    }
    let rows = world.rows().await;
    assert_eq!(rows.len(), 4);
    assert_eq!(
        world.head().await.revision,
        head.revision + 1,
        "only the marker was published"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn the_order_of_creation_does_not_matter() {
    let world = World::new().await;
    let _operator = world.operator(&[]).await;
    let _gateway = Following::start(world.store(), "gateway-1");
    let secret = |n: usize| {
        format!(
            "apiVersion: v1\nkind: Secret\nmetadata: {{name: secret-{n}}}\nstringData: {{key: k}}\n"
        )
    };
    let orders = [[0, 1, 2, 3], [3, 2, 1, 0], [2, 0, 3, 1], [1, 3, 0, 2]];
    for (n, order) in orders.into_iter().enumerate() {
        let verification = format!(
            "verification:\n  template: github\n  secretRefs:\n  - {{name: secret-{n}, key: key}}"
        );
        let parts = [
            secret(n),
            a_source(&format!("source-{n}"), &verification),
            a_destination(&format!("destination-{n}"), "https://orders.example.com/"),
            a_connection(
                &format!("connection-{n}"),
                &format!("source-{n}"),
                &format!("destination-{n}"),
            ),
        ];
        for part in order {
            world.apply(&parts[part]).await;
        }
    }
    for n in 0..orders.len() {
        world.ready(Kind::Source, &format!("source-{n}")).await;
        world
            .ready(Kind::Destination, &format!("destination-{n}"))
            .await;
        world
            .ready(Kind::Connection, &format!("connection-{n}"))
            .await;
    }
    assert_eq!(world.rows().await.len(), 3 * orders.len());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bad_update_keeps_the_last_good_row() {
    let world = World::new().await;
    let operator = world.operator(&[]).await;
    let _gateway = Following::start(world.store(), "gateway-1");
    world
        .apply(&route("source", "destination", "connection"))
        .await;
    world.ready(Kind::Connection, "connection").await;
    let good = world.rows().await;

    let bad = a_connection("connection", "source", "destination")
        + "  filter:\n    all:\n    - {path: \"body.[\", op: eq, value: 1}\n";
    world.apply(&bad).await;
    let status = world
        .condition(
            Kind::Connection,
            "connection",
            "Accepted",
            "False",
            "InvalidFilter",
        )
        .await;
    let programmed = condition(&status, "Programmed").unwrap();
    assert_eq!(
        programmed.message,
        "generation 2 is not accepted; generation 1 still routes"
    );
    assert_eq!(world.rows().await, good);

    // Also across a restart of the operator, which never saw the good generation.
    operator.stop().await;
    let _operator = world.operator(&[]).await;
    world.apply(&a_source("marker", "")).await;
    world.ready(Kind::Source, "marker").await;
    let rows = world
        .until_rows(|rows| rows.iter().any(|row| row.name == "marker"))
        .await;
    assert!(good.iter().all(|row| rows.contains(row)), "{rows:#?}");

    world
        .apply(&route("source", "destination", "connection"))
        .await;
    world.ready(Kind::Connection, "connection").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rotated_secret_reaches_the_table() {
    let world = World::new().await;
    let _operator = world.operator(&[]).await;
    let _gateway = Following::start(world.store(), "gateway-1");
    let secret = |value: &str| {
        format!(
            "apiVersion: v1\nkind: Secret\nmetadata: {{name: signing}}\nstringData: {{key: {value}}}\n"
        )
    };
    world.apply(&secret("before")).await;
    world
        .apply(&a_source(
            "source",
            "verification:\n  template: github\n  secretRefs:\n  - {name: signing, key: key}",
        ))
        .await;
    world.ready(Kind::Source, "source").await;
    let holds = |value: &'static str| {
        move |rows: &[std::sync::Arc<routing::Row>]| {
            rows.iter().any(|row| {
                row.secrets
                    .iter()
                    .any(|secret| secret.expose() == value.as_bytes())
            })
        }
    };
    world.until_rows(holds("before")).await;

    world.apply(&secret("after")).await;
    world.until_rows(holds("after")).await;
    assert_eq!(
        world.get(Kind::Source, "source").await.metadata.generation,
        Some(1)
    );

    world
        .kubectl(&["delete", "secret", "signing"])
        .await
        .unwrap();
    world
        .condition(
            Kind::Source,
            "source",
            "ResolvedRefs",
            "False",
            "SecretNotFound",
        )
        .await;
    world.apply(&secret("again")).await;
    world.ready(Kind::Source, "source").await;
    world.until_rows(holds("again")).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deleted_resource_leaves_the_table_at_once() {
    let world = World::new().await;
    let _operator = world.operator(&[]).await;
    let _gateway = Following::start(world.store(), "gateway-1");
    world
        .apply(&route("source", "destination", "connection"))
        .await;
    world.ready(Kind::Connection, "connection").await;
    let finalizers = world
        .get(Kind::Connection, "connection")
        .await
        .metadata
        .finalizers;
    assert!(
        finalizers.is_none_or(|list| list.is_empty()),
        "a finalizer would keep a namespace from ending"
    );

    world.kubectl(&["delete", "hsrc", "source"]).await.unwrap();
    world
        .until_rows(|rows| !rows.iter().any(|row| row.name == "source"))
        .await;
    world
        .condition(
            Kind::Connection,
            "connection",
            "ResolvedRefs",
            "False",
            "SourceNotFound",
        )
        .await;

    // Made again under the same name it is another source, and the connection finds it.
    world.apply(&a_source("source", "")).await;
    world.ready(Kind::Connection, "connection").await;

    world
        .kubectl(&["delete", "hsrc,hdst,hconn", "--all"])
        .await
        .unwrap();
    world.until_rows(|rows| rows.is_empty()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_status_that_somebody_edited_is_mended() {
    let world = World::new().await;
    let _operator = world.operator(&[]).await;
    let _gateway = Following::start(world.store(), "gateway-1");
    world.apply(&a_source("source", "")).await;
    let before = world.ready(Kind::Source, "source").await;
    let patch = r#"{"status":{"url":"https://elsewhere.example.com","conditions":[]}}"#;
    world
        .kubectl(&[
            "patch",
            "hsrc",
            "source",
            "--subresource=status",
            "--type=merge",
            "-p",
            patch,
        ])
        .await
        .unwrap();
    let after = world
        .until(Kind::Source, "source", |status| {
            status.url == before.url && operator::status::is_true(status, "Ready")
        })
        .await;
    assert_eq!(after.id, before.id);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_circuit_that_opens_is_shown_and_an_annotation_asks_for_its_reset() {
    let world = World::new().await;
    let _operator = world.operator(&[]).await;
    let _gateway = Following::start(world.store(), "gateway-1");
    let mut hints = Listener::connect(world.store()).await.unwrap();
    world
        .apply(&a_destination("orders", "https://orders.example.com/hooks"))
        .await;
    world.ready(Kind::Destination, "orders").await;
    let object = world.get(Kind::Destination, "orders").await;
    let uid = operator::kinds::uid(&object.metadata).unwrap();

    // As the gateway that owns its shard would.
    let pool = &world.store().pool;
    let shard = routing::shard::of(uid, store::testing::SHARDS);
    let ttl = Duration::from_secs(60);
    let lease = lease::acquire(pool, &lease::shard_name(shard), "gateway-1", ttl)
        .await
        .unwrap()
        .unwrap();
    let held = Held {
        holder: "gateway-1".into(),
        epochs: [(shard, lease.epoch)].into(),
    };
    let now = service::clock::now();
    let open = State {
        destination_id: uid,
        shard,
        circuit: Circuit::Open,
        open_until: Some(now + Duration::from_secs(3600)),
        opened_at: Some(now),
        failures: 5,
        ..State::default()
    };
    destination_state::write(pool, std::slice::from_ref(&open), &held)
        .await
        .unwrap();
    let status = world
        .condition(
            Kind::Destination,
            "orders",
            "Healthy",
            "False",
            "CircuitOpen",
        )
        .await;
    assert_eq!(status.circuit.as_deref(), Some("Open"));
    assert_eq!(condition(&status, "Ready").unwrap().status, "True");
    assert!(condition(&status, "Stalled").is_none() && condition(&status, "Reconciling").is_none());
    let shown = world.kubectl(&["get", "hdst", "orders"]).await.unwrap();
    assert!(
        shown.contains("CIRCUIT") && shown.contains("Open"),
        "{shown}"
    );

    let annotate = [
        "annotate",
        "hdst",
        "orders",
        "hookstream.io/reset-circuit=mended",
    ];
    world.kubectl(&annotate).await.unwrap();
    let told = async {
        loop {
            if let Hint::Resets(destinations) = hints.next().await.unwrap() {
                return destinations;
            }
        }
    };
    let told = tokio::time::timeout(tests::cluster::SOON, told).await;
    assert_eq!(told.unwrap(), [uid]);
    let wanted = destination_state::resets(pool, shard).await.unwrap();
    assert_eq!(wanted[0].mark, "mended");
    let closed = State {
        reset_done: Some("mended".to_owned()),
        circuit: Circuit::Closed,
        open_until: None,
        ..open
    };
    destination_state::write(pool, &[closed], &held)
        .await
        .unwrap();
    let status = world
        .condition(
            Kind::Destination,
            "orders",
            "Healthy",
            "True",
            "CircuitClosed",
        )
        .await;
    assert_eq!(status.circuit.as_deref(), Some("Closed"));
    // The annotation is its author's: it stays, and says nothing new.
    let object = world.get(Kind::Destination, "orders").await;
    assert_eq!(
        object.metadata.annotations.unwrap()["hookstream.io/reset-circuit"],
        "mended"
    );
    assert!(
        destination_state::resets(pool, shard)
            .await
            .unwrap()
            .is_empty()
    );
}
