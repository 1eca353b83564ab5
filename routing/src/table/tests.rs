use super::*;
use crate::{
    filter::{Filter, Op, Rule},
    row::{ConnectionSpec, DestinationSpec, HttpSpec, Provider, SourceSpec},
    secret::Secret,
    verify::{Verification, templates},
};
use http::{HeaderMap, HeaderValue};
use proptest::prelude::*;
use serde_json::json;
use std::time::Duration;

fn uid(n: u128) -> Uuid {
    Uuid::from_u128(n)
}

fn row(n: u128, spec: Spec) -> Row {
    Row {
        uid: uid(n),
        namespace: "shop".to_owned(),
        name: format!("r{n}"),
        generation: 1,
        spec,
        secrets: vec![],
    }
}

fn source(n: u128, path: Option<&str>) -> Row {
    row(
        n,
        Spec::Source(SourceSpec {
            path: path.map(str::to_owned),
            methods: vec!["POST".to_owned()],
            max_body_bytes: 1_024,
            ..SourceSpec::default()
        }),
    )
}

fn destination(n: u128) -> Row {
    row(
        n,
        Spec::Destination(DestinationSpec {
            provider: Provider::Http(HttpSpec {
                url: format!("https://example.com/{n}"),
                timeout: Duration::from_secs(30),
                ..HttpSpec::default()
            }),
            retry: retry::Policy::default(),
            concurrency: 1,
            ..DestinationSpec::default()
        }),
    )
}

fn connection(n: u128, from: u128, to: u128, event: Option<&str>) -> Row {
    let rule = |event| Rule::parse("headers.x-event", Op::Eq, Some(&json!(event))).expect("a rule");
    row(
        n,
        Spec::Connection(ConnectionSpec {
            source: uid(from),
            destination: uid(to),
            filter: event.map(|event| Filter {
                all: vec![rule(event)],
                ..Filter::default()
            }),
            ..ConnectionSpec::default()
        }),
    )
}

fn key(kind: Kind, n: u128) -> RowKey {
    RowKey { kind, uid: uid(n) }
}

/// The names of the connections that an event with `x-event: push` goes by.
fn routed(table: &Table, path: &str) -> Vec<String> {
    let mut headers = HeaderMap::new();
    headers.insert("x-event", HeaderValue::from_static("push"));
    let Some((source, rest)) = table.source(path) else {
        return vec!["no source".to_owned()];
    };
    let event = EventView::new(
        &Method::POST,
        rest,
        "",
        &headers,
        b"",
        [127, 0, 0, 1].into(),
    );
    source
        .route(&event)
        .iter()
        .map(|connection| connection.name.clone())
        .collect()
}

#[test]
fn a_source_is_found_by_its_id_and_by_its_own_path() {
    let table = Table::build([
        source(1, Some("billing/stripe")),
        source(2, Some("billing")),
        source(3, None),
    ]);
    let id = |n| ids::format(Prefix::Source, uid(n));
    for (path, found) in [
        ("billing", Some((2, ""))),
        ("billing/", Some((2, "/"))),
        ("billing/other", Some((2, "/other"))),
        ("billing/stripe", Some((1, ""))),
        ("billing/stripe/", Some((1, "/"))),
        ("billing/stripe/a/b", Some((1, "/a/b"))),
        ("billing/stripes", Some((2, "/stripes"))),
        ("billing//stripe", Some((2, "//stripe"))),
        ("billings", None),
        ("bill", None),
        ("Billing", None),
        ("billing%2Fstripe", None),
        ("", None),
        ("/", None),
        ("/billing", None),
        (&id(3), Some((3, ""))),
        (&format!("{}/deep/er", id(3)), Some((3, "/deep/er"))),
        (&format!("{}x", id(3)), None),
        (&id(4), None),
    ] {
        let answer = table
            .source(path)
            .map(|(source, rest)| (source.uid.as_u128(), rest));
        assert_eq!(answer, found, "{path}");
    }
}

#[test]
fn a_url_of_many_slashes_or_wide_letters_is_looked_up_all_the_same() {
    let table = Table::build([source(1, Some("a/b"))]);
    let long = format!("a/b{}", "/".repeat(100_000));
    assert_eq!(
        table.source(&long).map(|(_, rest)| rest.len()),
        Some(100_000)
    );
    for path in ["é", "aé", "a/é", "a/bé/é", "ééé/a/b"] {
        assert!(table.source(path).is_none(), "{path}");
    }
}

#[test]
fn an_event_goes_by_the_connections_that_match_in_the_order_of_their_uids() {
    let table = Table::build([
        connection(13, 1, 5, Some("push")),
        connection(12, 1, 5, Some("ping")),
        connection(11, 1, 5, None),
        source(1, Some("s")),
        destination(5),
    ]);
    assert_eq!(routed(&table, "s"), ["r11", "r13"]);
}

#[test]
fn a_suspended_connection_matches_nothing() {
    let mut suspended = connection(11, 1, 5, None);
    if let Spec::Connection(spec) = &mut suspended.spec {
        spec.suspended = true;
    }
    let table = Table::build([source(1, Some("s")), destination(5), suspended]);
    assert!(routed(&table, "s").is_empty());
    assert!(table.connection(uid(11)).is_some());
}

#[test]
fn a_connection_counts_only_while_its_destination_is_there() {
    let table = Table::build([source(1, Some("s")), connection(11, 1, 5, None)]);
    assert!(routed(&table, "s").is_empty());
    let table = table.with([destination(5)], []);
    assert_eq!(routed(&table, "s"), ["r11"]);
    let table = table.with([], [key(Kind::Destination, 5)]);
    assert!(routed(&table, "s").is_empty());
    let table = table.with([destination(5)], [key(Kind::Destination, 5)]);
    assert_eq!(routed(&table, "s"), ["r11"]);
}

#[test]
fn a_revision_shares_what_has_not_changed_with_the_one_before() {
    let before = Table::build([
        source(1, Some("s")),
        source(2, None),
        destination(5),
        connection(11, 1, 5, None),
        connection(12, 2, 5, None),
    ]);
    let after = before.with([connection(12, 2, 5, Some("push"))], []);
    let same_source = |n| Arc::ptr_eq(&before.sources[&uid(n)], &after.sources[&uid(n)]);
    assert!(same_source(1) && !same_source(2));
    assert!(Arc::ptr_eq(
        &before.connections[&uid(11)],
        &after.connections[&uid(11)]
    ));
    assert!(Arc::ptr_eq(
        &before.destinations[&uid(5)],
        &after.destinations[&uid(5)]
    ));
}

#[test]
fn a_path_goes_over_to_another_source_whatever_the_order_of_the_rows() {
    let before = Table::build([source(1, Some("s")), source(2, None)]);
    for changed in [
        [source(1, None), source(2, Some("s"))],
        [source(2, Some("s")), source(1, None)],
    ] {
        let after = before.with(changed, []);
        assert_eq!(
            after.source("s").map(|(source, _)| source.uid),
            Some(uid(2))
        );
    }
}

#[test]
fn while_two_rows_claim_a_path_the_lower_uid_has_it() {
    for rows in [
        [source(1, Some("s")), source(2, Some("s"))],
        [source(2, Some("s")), source(1, Some("s"))],
    ] {
        let table = Table::build(rows);
        assert_eq!(
            table.source("s").map(|(source, _)| source.uid),
            Some(uid(1))
        );
        let table = table.with([], [key(Kind::Source, 1)]);
        assert_eq!(
            table.source("s").map(|(source, _)| source.uid),
            Some(uid(2))
        );
    }
}

#[test]
fn a_source_carries_its_verifier_with_its_own_secrets() {
    let mut signed = source(1, Some("s"));
    signed.secrets = vec![Secret::new("It's a Secret to Everybody")];
    if let Spec::Source(spec) = &mut signed.spec {
        spec.verification = Some(Verification {
            scheme: templates::Template::named("github")
                .and_then(templates::Template::scheme)
                .expect("there"),
            handshake: None,
            verify_token: None,
            secrets: vec![row::SecretIndex(0)],
        });
    }
    let table = Table::build([signed]);
    let (source, _) = table.source("s").expect("the source");
    let mut headers = HeaderMap::new();
    headers.insert(
        "x-hub-signature-256",
        HeaderValue::from_static(
            "sha256=757107ea0eb2509fc211221cce984b8a37570b6d7586c22c46f4379c8b043e17",
        ),
    );
    let event = EventView::new(
        &Method::POST,
        "",
        "",
        &headers,
        b"Hello, World!",
        [127, 0, 0, 1].into(),
    );
    let verifier = source.verifier.as_ref().expect("a verifier");
    assert!(
        verifier
            .verify(&event, jiff::Timestamp::UNIX_EPOCH, None)
            .is_ok()
    );
}

/// What a table does, in a form that can be compared.
fn behaviour(table: &Table) -> Vec<String> {
    let mut lines: Vec<_> = table
        .sources()
        .map(|source| {
            let connections: Vec<_> = source
                .connections
                .iter()
                .map(|c| (c.uid, c.destination))
                .collect();
            format!("{} {connections:?}", source.id)
        })
        .chain(["a", "b", "a/b", "a/b/c"].iter().map(|path| {
            let found = table.source(path).map(|(source, rest)| (source.uid, rest));
            format!("{path} {found:?}")
        }))
        .chain(
            table
                .destinations()
                .map(|destination| destination.name.clone()),
        )
        .chain(table.connections.keys().map(Uuid::to_string))
        .collect();
    lines.sort();
    lines
}

fn any_row() -> impl Strategy<Value = Row> {
    let path = prop_oneof![
        Just(None),
        Just(Some("a")),
        Just(Some("b")),
        Just(Some("a/b"))
    ];
    prop_oneof![
        (1..4_u128, path).prop_map(|(n, path)| source(n, path)),
        (4..7_u128).prop_map(destination),
        (7..13_u128, 1..4_u128, 4..7_u128).prop_map(|(n, from, to)| connection(n, from, to, None)),
    ]
}

proptest! {
    #[test]
    fn any_sequence_of_revisions_is_the_table_of_the_rows_that_are_left(
        steps in prop::collection::vec((prop::collection::vec(any_row(), 0..4), prop::collection::vec(1..13_u128, 0..3)), 1..12),
    ) {
        let mut table = Table::default();
        let mut rows = std::collections::BTreeMap::new();
        for (changed, removed) in steps {
            let removed: Vec<_> = removed
                .into_iter()
                .flat_map(|n| Kind::ALL.map(|kind| key(kind, n)))
                .collect();
            removed.iter().for_each(|key| { rows.remove(key); });
            changed.iter().for_each(|row| { rows.insert(row.key(), row.clone()); });
            table = table.with(changed, removed);
            let whole = Table::build(rows.values().cloned());
            prop_assert_eq!(behaviour(&table), behaviour(&whole));
            let reversed = Table::build(rows.values().rev().cloned());
            prop_assert_eq!(behaviour(&table), behaviour(&reversed));
        }
    }

    #[test]
    fn no_path_makes_a_look_up_panic(path in "\\PC{0,40}") {
        let _ = Table::build([source(1, Some("a/b")), source(2, Some("é/x"))]).source(&path);
    }
}
