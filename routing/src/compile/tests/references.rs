//! Connections and their ends: there, not there, elsewhere, permitted, no longer permitted.

use super::*;
use expect_test::expect;

/// A source in `bank` that admits as `allowed` says, and a connection in `shop` to it.
fn across(allowed: &str) -> Ground {
    Ground::of(&format!(
        "
kind: Source
metadata: {{name: src, namespace: bank}}
spec: {{{allowed}}}
---
kind: Destination
metadata: {{name: dst}}
spec: {{http: {{url: 'https://example.com'}}}}
---
kind: Connection
metadata: {{name: con}}
spec: {{source: {{name: src, namespace: bank}}, destination: {{name: dst}}}}
"
    ))
}

const ALL: &str = "allowedNamespaces: {from: All}";
const SELECTED: &str =
    "allowedNamespaces: {from: Selector, selector: {matchLabels: {team: payments}}}";

fn labels(team: &str) -> Option<BTreeMap<String, String>> {
    Some(
        [
            ("team".to_owned(), team.to_owned()),
            ("other".to_owned(), "x".to_owned()),
        ]
        .into(),
    )
}

#[test]
fn a_connection_without_its_ends_names_both() {
    let mut ground = Ground::of(
        "{kind: Connection, metadata: {name: con}, spec: {source: {name: src}, destination: {name: dst}}}",
    );
    expect![[r#"
        Connection/shop/con ResolvedRefs SourceNotFound: spec.source: there is no Source `src` in namespace `shop`; create it, or name another
        Connection/shop/con ResolvedRefs DestinationNotFound: spec.destination: there is no Destination `dst` in namespace `shop`; create it, or name another
        Connection/shop/con routes nothing
    "#]]
    .assert_eq(&ground.compile());
    ground.apply(
        "{kind: Destination, metadata: {name: dst}, spec: {http: {url: 'https://example.com'}}}",
    );
    ground.apply("{kind: Source, metadata: {name: src}, spec: {}}");
    expect![[r#"
        changed Source/shop/src generation 1
        changed Destination/shop/dst generation 1
        changed Connection/shop/con generation 1
    "#]]
    .assert_eq(&ground.compile());
}

#[test]
fn an_end_that_is_not_accepted_is_said_to_be_there() {
    let mut ground = Ground::of(SHOP);
    ground.apply("{kind: Destination, metadata: {name: dst}, spec: {sqs: {queueUrl: 'https://e.com', region: eu-west-1}}}");
    expect![[r#"
        changed Source/shop/src generation 1
        Destination/shop/dst Accepted NotImplemented: spec.sqs: `spec.sqs` is not implemented yet; a later version brings it. Until then leave it out
        Destination/shop/dst routes nothing
        Connection/shop/con ResolvedRefs DestinationNotFound: spec.destination: the Destination `dst` is there but not in the routing table yet; its own conditions say what to change
        Connection/shop/con routes nothing
    "#]]
    .assert_eq(&ground.compile());
    ground.apply(
        "{kind: Destination, metadata: {name: dst}, spec: {http: {url: 'https://example.com'}}}",
    );
    expect![[r#"
        changed Destination/shop/dst generation 3
        changed Connection/shop/con generation 1
    "#]]
    .assert_eq(&ground.compile());
}

#[test]
fn removing_an_end_removes_its_row_alone_and_says_so_on_the_connection() {
    let mut ground = Ground::of(SHOP);
    ground.compile();
    ground.remove("Destination/shop/dst");
    expect![[r#"
        removed Destination/shop/dst
        Connection/shop/con ResolvedRefs DestinationNotFound: spec.destination: there is no Destination `dst` in namespace `shop`; create it, or name another
        Connection/shop/con routes generation 1
    "#]]
    .assert_eq(&ground.compile());
}

#[test]
fn an_end_made_anew_under_its_name_is_found_whatever_news_comes_first() {
    for removed_first in [true, false] {
        let mut ground = Ground::of(SHOP);
        ground.compile();
        let old = ground.uid("Destination/shop/dst");
        // The new object takes the name; its UID is another.
        ground
            .uids
            .insert("Destination/shop/dst".to_owned(), Uuid::from_u128(50));
        if removed_first {
            ground.compiler.remove(old);
            ground.compile();
        }
        ground.apply("{kind: Destination, metadata: {name: dst}, spec: {http: {url: 'https://example.com'}}}");
        if !removed_first {
            ground.compile();
            ground.compiler.remove(old);
        }
        ground.compile();
        let Spec::Connection(spec) = ground.row("Connection/shop/con").expect("a row").spec else {
            panic!("another kind")
        };
        assert_eq!(
            spec.destination,
            Uuid::from_u128(50),
            "removed first: {removed_first}"
        );
    }
}

#[test]
fn a_reference_into_another_namespace_needs_its_permission() {
    for allowed in [
        "",
        "allowedNamespaces: {}",
        "allowedNamespaces: {from: Same}",
        "allowedNamespaces: {from: Selector}",
    ] {
        let mut ground = across(allowed);
        ground
            .compiler
            .set_namespace("shop".to_owned(), labels("payments"));
        let said = ground.compile();
        let refused = "Connection/shop/con ResolvedRefs RefNotPermitted: spec.source: namespace `bank` has no Source `src` that admits \
                       connections from `shop`; its owner can admit them with `allowedNamespaces`\n";
        assert!(said.contains(refused), "{allowed}: {said}");
        assert!(ground.row("Connection/shop/con").is_none());
    }
    assert!(
        across(ALL)
            .compile()
            .contains("changed Connection/shop/con")
    );
}

#[test]
fn whether_something_exists_elsewhere_is_not_told() {
    let mut there = across("");
    let mut not_there = across("");
    not_there.remove("Source/bank/src");
    let about_the_connection = |said: String| {
        said.lines()
            .filter(|line| line.starts_with("Connection"))
            .map(str::to_owned)
            .collect::<Vec<_>>()
    };
    assert_eq!(
        about_the_connection(there.compile()),
        about_the_connection(not_there.compile())
    );
}

#[test]
fn a_selector_admits_by_the_labels_of_the_namespace() {
    let mut ground = across(SELECTED);
    assert!(ground.compile().contains("RefNotPermitted"));
    ground
        .compiler
        .set_namespace("shop".to_owned(), labels("orders"));
    assert!(ground.compile().contains("RefNotPermitted"));
    ground
        .compiler
        .set_namespace("shop".to_owned(), labels("payments"));
    expect![[r#"
        changed Connection/shop/con generation 1
    "#]]
    .assert_eq(&ground.compile());
    ground
        .compiler
        .set_namespace("shop".to_owned(), labels("payments"));
    expect![""].assert_eq(&ground.compile());
}

#[test]
fn a_permission_withdrawn_takes_the_row_away() {
    let gone = "removed Connection/shop/con\n";
    let mut by_label = across(SELECTED);
    by_label
        .compiler
        .set_namespace("shop".to_owned(), labels("payments"));
    by_label.compile();
    by_label.compiler.set_namespace("shop".to_owned(), None);
    assert!(by_label.compile().starts_with(gone));

    let mut by_owner = across(ALL);
    by_owner.compile();
    by_owner.apply("{kind: Source, metadata: {name: src, namespace: bank}, spec: {}}");
    let said = by_owner.compile();
    assert!(
        said.contains(gone) && said.contains("Connection/shop/con routes nothing"),
        "{said}"
    );
}

#[test]
fn a_permission_withdrawn_from_a_last_good_row_takes_it_away_too() {
    let elsewhere = "{kind: Connection, metadata: {name: con}, spec: {source: {name: other}, destination: {name: dst}}}";
    let mut by_owner = across(ALL);
    by_owner.compile();
    by_owner.apply(elsewhere);
    assert!(
        by_owner
            .compile()
            .contains("Connection/shop/con routes generation 1")
    );
    by_owner.apply("{kind: Source, metadata: {name: src, namespace: bank}, spec: {}}");
    assert!(by_owner.compile().contains("removed Connection/shop/con"));

    let mut by_label = across(SELECTED);
    by_label
        .compiler
        .set_namespace("shop".to_owned(), labels("payments"));
    by_label.compile();
    by_label.apply(elsewhere);
    by_label.compile();
    by_label
        .compiler
        .set_namespace("shop".to_owned(), labels("orders"));
    assert!(by_label.compile().contains("removed Connection/shop/con"));
}

#[test]
fn a_source_that_changes_without_concerning_its_connections_leaves_them_alone() {
    let mut ground = Ground::of(SHOP);
    ground.compile();
    ground.apply("{kind: Source, metadata: {name: src}, spec: {suspend: true}}");
    let delta = ground.compiler.compile();
    assert_eq!(delta.verdicts.len(), 1);
    assert_eq!(delta.changed.len(), 1);
    assert_eq!(delta.changed[0].kind(), Kind::Source);
}
