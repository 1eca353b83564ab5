//! The operator through what happens to it: crashes, an API server or a database that goes away, CRDs that come late.

use crds::Kind;
use operator::status::{condition, is_true};
use std::time::Duration;
use store::{routes, testing};
use tests::{
    cluster::{Cluster, gateways::Following, world::World},
    process::Process,
};

fn a_source(name: &str) -> String {
    format!(
        "apiVersion: hookstream.io/v1alpha1\nkind: Source\nmetadata: {{name: {name}}}\nspec: {{displayName: A source}}\n"
    )
}

/// A cluster of the test's own. It ends with the process.
async fn own_cluster() -> &'static Cluster {
    Box::leak(Box::new(Cluster::start().await))
}

#[tokio::test(flavor = "multi_thread")]
async fn the_other_operator_takes_over_when_one_is_killed() {
    let world = World::new().await;
    let first = world.operator(&[]).await;
    first.metric("hookstream_operator_leader", 1).await;
    let second = world.operator(&[]).await;
    second.until("/readyz", |status, _| status == 200).await;
    let _gateway = Following::start(world.store(), "gateway-1");
    world.apply(&a_source("before")).await;
    world.ready(Kind::Source, "before").await;
    let version = world
        .get(Kind::Source, "before")
        .await
        .metadata
        .resource_version;
    let epoch = world.head().await.epoch;
    let (_, metrics) = second.get("/metrics").await.unwrap();
    assert!(
        metrics
            .lines()
            .any(|line| line == "hookstream_operator_leader 0"),
        "two leaders"
    );

    first.kill();
    let killed = service::clock::instant();
    world.apply(&a_source("after")).await;
    world.ready(Kind::Source, "after").await;
    let took = killed.elapsed();
    // The lease is 2 s here; the rest is the look for a free one, and a slow machine.
    assert!(
        took < Duration::from_secs(5),
        "Ready {took:?} after the leader was killed"
    );
    assert!(
        world.head().await.epoch > epoch,
        "a new leader begins a new epoch"
    );
    assert_eq!(
        world
            .get(Kind::Source, "before")
            .await
            .metadata
            .resource_version,
        version,
        "a change of leader rewrites no status"
    );
    second.metric("hookstream_operator_leader", 1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_operator_that_lost_the_lease_shows_nothing_of_its_table() {
    let world = World::new().await;
    let operator = world.operator(&[]).await;
    world.apply(&a_source("source")).await;
    operator.metric("hookstream_operator_rows", 1).await;

    // What another operator does that found the lease run out, and keeps it.
    sqlx::query(
        "UPDATE lease SET holder = 'another', epoch = epoch + 1, expires_at = now() + interval '1 hour'
         WHERE name = 'operator'",
    )
    .execute(world.store().pool.raw())
    .await
    .unwrap();
    for gauge in ["leader", "rows", "revision", "epoch"] {
        operator
            .metric(&format!("hookstream_operator_{gauge}"), 0)
            .await;
    }
    assert_eq!(world.rows().await.len(), 1, "the table is as it was");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_leader_that_is_stopped_hands_over_at_once() {
    let world = World::new().await;
    // A lease that nobody would wait for.
    let first = world.operator(&["--lease-ttl", "20s"]).await;
    first.metric("hookstream_operator_leader", 1).await;
    let _gateway = Following::start(world.store(), "gateway-1");
    first.stop().await;
    let stopped = service::clock::instant();
    let _second = world.operator(&["--lease-ttl", "20s"]).await;
    world.apply(&a_source("source")).await;
    world.ready(Kind::Source, "source").await;
    assert!(
        stopped.elapsed() < Duration::from_secs(10),
        "the lease was not given back"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mass_removal_waits_until_it_is_stable() {
    let world = World::new().await;
    let operator = world.operator(&[]).await;
    let _gateway = Following::start(world.store(), "gateway-1");
    let sources: Vec<String> = (0..12).map(|n| a_source(&format!("source-{n}"))).collect();
    world.apply(&sources.join("---\n")).await;
    world.until_rows(|rows| rows.len() == 12).await;
    operator.stop().await;
    world.kubectl(&["delete", "hsrc", "--all"]).await.unwrap();

    // It finds the cluster empty, as if by mistake.
    let flags = [
        "--removal-hold",
        "3s",
        "--pod-name",
        "operator-0",
        "--pod-namespace",
        &world.namespace,
    ];
    let operator = world.operator(&flags).await;
    operator
        .metric("hookstream_operator_removals_held", 12)
        .await;
    let held = service::clock::instant();
    // What is added meanwhile doesn't wait.
    world.apply(&a_source("new")).await;
    world.until_rows(|rows| rows.len() == 13).await;
    world.until_rows(|rows| rows.len() == 1).await;
    assert!(
        held.elapsed() > Duration::from_secs(2),
        "removed after {:?}",
        held.elapsed()
    );
    operator
        .metric("hookstream_operator_removals_held", 0)
        .await;
    let events = world
        .kubectl(&[
            "get",
            "events.events.k8s.io",
            "-o",
            "jsonpath={range .items[*]}{.reason} {.regarding.name}{\"\\n\"}{end}",
        ])
        .await
        .unwrap();
    assert!(
        events.lines().any(|line| line == "RemovalHeld operator-0"),
        "{events}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn an_object_of_a_newer_version_is_said_and_keeps_its_row() {
    let cluster = own_cluster().await;
    cluster.install_crds().await;
    let world = World::on(cluster).await;
    let operator = world.operator(&[]).await;
    let _gateway = Following::start(world.store(), "gateway-1");
    world.apply(&a_source("source")).await;
    world.ready(Kind::Source, "source").await;
    let rows = world.rows().await;

    operator.stop().await;

    // The CRDs of a newer version, an object that uses them, and an operator of this version that starts after both.
    let field = r#"[{"op":"add","path":"/spec/versions/0/schema/openAPIV3Schema/properties/spec/properties/future","value":{"type":"string"}}]"#;
    world
        .kubectl(&[
            "patch",
            "crd",
            "sources.hookstream.io",
            "--type=json",
            "-p",
            field,
        ])
        .await
        .unwrap();
    // The API server takes a moment to know the field; until then it drops it.
    let patched = async {
        while world.get(Kind::Source, "source").await.data["spec"]["future"].is_null() {
            let _ = world
                .kubectl(&[
                    "patch",
                    "hsrc",
                    "source",
                    "--type=merge",
                    "-p",
                    r#"{"spec":{"future":"x"}}"#,
                ])
                .await;
        }
    };
    tokio::time::timeout(tests::cluster::SOON, patched)
        .await
        .unwrap();
    let _operator = world.operator(&[]).await;
    let status = world
        .condition(
            Kind::Source,
            "source",
            "Accepted",
            "False",
            "UnsupportedValue",
        )
        .await;
    assert!(
        condition(&status, "Accepted")
            .unwrap()
            .message
            .contains("future"),
        "{status:?}"
    );
    world.apply(&a_source("another")).await;
    world.ready(Kind::Source, "another").await;
    let now = world.rows().await;
    assert!(rows.iter().all(|row| now.contains(row)), "{now:#?}");
    world.kubectl(&["delete", "hsrc", "source"]).await.unwrap();
    world
        .until_rows(|rows| !rows.iter().any(|row| row.name == "source"))
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restored_database_is_published_anew() {
    let world = World::new().await;
    let operator = world.operator(&[]).await;
    let _gateway = Following::start(world.store(), "gateway-1");
    for name in ["one", "two", "three"] {
        world.apply(&a_source(name)).await;
        world.ready(Kind::Source, name).await;
    }
    let before = world.head().await;
    // What a backup of an hour ago looks like.
    let pool = world.store().pool.raw();
    sqlx::query("DELETE FROM routes WHERE name <> 'one'")
        .execute(pool)
        .await
        .unwrap();
    sqlx::query("UPDATE route_head SET revision = 1")
        .execute(pool)
        .await
        .unwrap();

    operator
        .metric("hookstream_operator_restored_databases_total", 1)
        .await;
    world.until_rows(|rows| rows.len() == 3).await;
    assert!(
        world.head().await.epoch > before.epoch,
        "gateways must see that it is another table"
    );
    world.ready(Kind::Source, "three").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_that_somebody_changed_is_mended() {
    let world = World::new().await;
    let operator = world.operator(&["--compare-every", "1s"]).await;
    world.apply(&a_source("source")).await;
    world.until_rows(|rows| rows.len() == 1).await;
    sqlx::query("UPDATE routes SET deleted = true")
        .execute(world.store().pool.raw())
        .await
        .unwrap();
    operator
        .until("/metrics", |_, body| {
            body.lines()
                .any(|line| line == "hookstream_operator_table_repairs_total 1")
        })
        .await;
    world.until_rows(|rows| rows.len() == 1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn crds_may_come_later() {
    let cluster = own_cluster().await;
    let world = World::on(cluster).await;
    let operator = world.operator(&[]).await;
    let _gateway = Following::start(world.store(), "gateway-1");
    operator.metric("hookstream_operator_crds_missing", 8).await;
    let said = operator
        .until("/readyz", |status, body| {
            status == 503 && body.contains("not installed") && body.contains("topics.hookstream.io")
        })
        .await;
    assert!(said.contains("sources.hookstream.io"), "{said}");
    assert_eq!(
        operator.get("/livez").await.map(|(status, _)| status),
        Some(200),
        "a missing CRD is no reason to restart"
    );

    cluster.install_crds().await;
    world.apply(&a_source("source")).await;
    world.ready(Kind::Source, "source").await;
    operator.metric("hookstream_operator_crds_missing", 0).await;
    operator.until("/readyz", |status, _| status == 200).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_api_server_that_was_away_changes_nothing() {
    let cluster = own_cluster().await;
    cluster.install_crds().await;
    let world = World::on(cluster).await;
    let operator = world.operator(&[]).await;
    let _gateway = Following::start(world.store(), "gateway-1");
    world.apply(&a_source("before")).await;
    world.ready(Kind::Source, "before").await;
    let (head, rows) = (world.head().await, world.rows().await);

    tokio::task::block_in_place(|| cluster.down());
    let failed = |body: &str| {
        body.lines().any(|line| {
            line.starts_with("hookstream_operator_watch_errors_total") && !line.ends_with(" 0")
        })
    };
    operator.until("/metrics", |_, body| failed(body)).await;
    assert_eq!(
        operator.get("/livez").await.map(|(status, _)| status),
        Some(200)
    );
    // An operator that starts meanwhile waits, and publishes nothing.
    operator.stop().await;
    let operator = world.operator(&[]).await;
    operator
        .until("/readyz", |status, body| {
            status == 503 && body.contains("waiting for the first list")
        })
        .await;
    assert_eq!(
        (world.head().await, world.rows().await),
        (head, rows.clone()),
        "traffic must not notice"
    );

    tokio::task::block_in_place(|| cluster.up());
    world.apply(&a_source("after")).await;
    world.ready(Kind::Source, "after").await;
    world.ready(Kind::Source, "before").await;
    let now = world.rows().await;
    assert!(rows.iter().all(|row| now.contains(row)), "{now:#?}");
    operator.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_that_is_away_is_said_and_waited_for() {
    let mut server = testing::Server::start(testing::ServerOptions::default())
        .await
        .expect("Postgres is installed");
    let world = World::new().await;
    let url = server.url("hookstream");
    let store = store::Store::connect(store::Options::new(&url))
        .await
        .unwrap();
    store::migrate(&store.pool, 8).await.unwrap();
    let operator = world.operator_of(&url, &["--lease-ttl", "10s"]).await;
    let gateway = Following::start(&store, "gateway-1");
    world.apply(&a_source("before")).await;
    world.ready(Kind::Source, "before").await;
    let head = routes::head(&store.pool).await.unwrap();

    server.stop().await.unwrap();
    world.apply(&a_source("meanwhile")).await;
    world
        .condition(
            Kind::Source,
            "meanwhile",
            "Programmed",
            "False",
            "DatabaseUnavailable",
        )
        .await;
    let status = world
        .condition(
            Kind::Source,
            "before",
            "Programmed",
            "Unknown",
            "DatabaseUnavailable",
        )
        .await;
    assert!(!is_true(&status, "Ready") && !is_true(&status, "Stalled"));
    assert_eq!(condition(&status, "Ready").unwrap().status, "Unknown");
    assert_eq!(
        operator.get("/livez").await.map(|(status, _)| status),
        Some(200)
    );

    server.restart().await.unwrap();
    world.ready(Kind::Source, "before").await;
    world.ready(Kind::Source, "meanwhile").await;
    assert!(routes::head(&store.pool).await.unwrap().revision > head.revision);
    operator.stop().await;
    drop(gateway);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_program_gives_its_lease_back_and_ends_with_0() {
    let world = World::new().await;
    let port = tests::process::free_port();
    let variables = [
        ("DATABASE_URL", world.database.url().to_owned()),
        (
            "KUBECONFIG",
            world.cluster.kubeconfig().display().to_string(),
        ),
        (
            "HOOKSTREAM_KEYRING",
            world.keyring_file.path().display().to_string(),
        ),
        ("HOOKSTREAM_WATCH_NAMESPACES", world.namespace.clone()),
        ("HOOKSTREAM_ADMIN_LISTEN", format!("127.0.0.1:{port}")),
    ];
    let program = Process::start("hookstream-operator", &[], &variables).unwrap();
    let _gateway = Following::start(world.store(), "gateway-1");
    world.apply(&a_source("source")).await;
    world.ready(Kind::Source, "source").await;
    let output = program.output();
    let ended = program.stop(Duration::from_secs(10)).await.unwrap();
    assert_eq!(ended.code(), Some(0), "{output}");
    let leases = store::lease::list(&world.store().pool, store::lease::OPERATOR)
        .await
        .unwrap();
    assert_eq!(
        leases
            .iter()
            .map(|lease| lease.holder.clone())
            .collect::<Vec<_>>(),
        [None]
    );
    for secret in [
        world.database.url(),
        &String::from_utf8_lossy(world.keyring.to_text().expose()),
    ] {
        assert!(!output.contains(secret), "a secret is in the log");
    }
}
