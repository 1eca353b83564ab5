//! Own paths of sources: one owner in the whole installation.

use super::*;
use expect_test::expect;

/// `name` or `namespace/name`.
fn source(name: &str, spec: &str) -> String {
    let (namespace, name) = name.split_once('/').unwrap_or(("shop", name));
    let name = format!("{name}, namespace: {namespace}");
    format!("{{kind: Source, metadata: {{name: {name}}}, spec: {{{spec}}}}}")
}

#[test]
fn the_oldest_source_has_the_path_and_the_loser_is_told_by_whom() {
    let mut ground = Ground::new();
    let (old, young) = (
        ground.uid("Source/shop/old"),
        ground.uid("Source/shop/young"),
    );
    assert!(old < young);
    ground.apply(&source("young", "path: p"));
    ground.compile();
    ground.apply(&source("old", "path: p"));
    expect![[r#"
        changed Source/shop/old generation 1
        changed Source/shop/young generation 1
        Source/shop/young Accepted Conflicted: spec.path: the path `p` belongs to the source `old`, which is older; choose another path
        Source/shop/young routes generation 1
    "#]]
    .assert_eq(&ground.compile());
    assert_eq!(ground.source("shop/old").path.as_deref(), Some("p"));
    // It had the path, and keeps routing by its id.
    assert_eq!(ground.source("shop/young").path, None);

    ground.remove("Source/shop/old");
    expect![[r#"
        changed Source/shop/young generation 1
        removed Source/shop/old
    "#]]
    .assert_eq(&ground.compile());
    assert_eq!(ground.source("shop/young").path.as_deref(), Some("p"));
}

#[test]
fn a_loser_that_never_routed_has_no_row() {
    let mut ground = Ground::of(&format!(
        "{}\n---\n{}",
        source("old", "path: p"),
        source("young", "path: p")
    ));
    let said = ground.compile();
    assert!(said.contains("Source/shop/young routes nothing"), "{said}");
    ground.apply(&source("young", "path: q"));
    assert!(ground.compile().contains("changed Source/shop/young"));
}

#[test]
fn the_winner_in_another_namespace_is_not_named() {
    let mut ground =
        Ground::of("{kind: Source, metadata: {name: hidden, namespace: bank}, spec: {path: p}}");
    ground.apply(&source("young", "path: p"));
    expect![[r#"
        changed Source/bank/hidden generation 1
        Source/shop/young Accepted Conflicted: spec.path: the path `p` belongs to another source, which is older; choose another path
        Source/shop/young routes nothing
    "#]]
    .assert_eq(&ground.compile());
}

#[test]
fn two_sources_exchange_their_paths_in_one_pass() {
    let mut ground = Ground::of(&format!(
        "{}\n---\n{}",
        source("a", "path: p"),
        source("b", "path: q")
    ));
    ground.compile();
    ground.apply(&source("a", "path: q"));
    ground.apply(&source("b", "path: p"));
    expect![[r#"
        changed Source/shop/a generation 2
        changed Source/shop/b generation 2
    "#]]
    .assert_eq(&ground.compile());
    assert_eq!(ground.source("shop/a").path.as_deref(), Some("q"));
    assert_eq!(ground.source("shop/b").path.as_deref(), Some("p"));
}

#[test]
fn a_last_good_row_keeps_its_path_until_somebody_else_routes_by_it() {
    let mut ground = Ground::of(&source("a", "path: p"));
    ground.compile();
    ground.apply(&source("a", "path: q, retention: {events: 30d}"));
    ground.compile();
    assert_eq!(ground.source("shop/a").path.as_deref(), Some("p"));
    ground.apply(&source("b", "path: p"));
    expect![[r#"
        changed Source/shop/a generation 1
        changed Source/shop/b generation 1
    "#]]
    .assert_eq(&ground.compile());
    assert_eq!(ground.source("shop/a").path, None);
}

#[test]
fn nobody_takes_what_is_sent_below_a_path_of_another_namespace() {
    let mut ground = Ground::of(&source("victim", "path: billing"));
    ground.compile();
    ground.apply(&source("bank/thief", "path: billing/stripe"));
    expect![[r#"
        Source/bank/thief Accepted Conflicted: spec.path: the path `billing/stripe` is below `billing`, which belongs to an older source of another namespace; choose a path that doesn't begin with `billing/`
        Source/bank/thief routes nothing
    "#]]
    .assert_eq(&ground.compile());
    let table = crate::Table::build(ground.compiler.rows().cloned());
    let (source, rest) = table.source("billing/stripe").expect("the victim");
    assert_eq!((&*source.name, rest), ("victim", "/stripe"));
}

#[test]
fn nobody_puts_a_path_above_one_of_another_namespace() {
    let mut ground = Ground::of(&source("victim", "path: billing/stripe"));
    ground.apply(&source("bank/thief", "path: billing"));
    ground.apply(&source("bank/neighbour", "path: billing/paypal"));
    expect![[r#"
        changed Source/shop/victim generation 1
        changed Source/bank/neighbour generation 1
        Source/bank/thief Accepted Conflicted: spec.path: an older source of another namespace has a path below `billing`, and paths of two namespaces can't lie within each other; choose another path
        Source/bank/thief routes nothing
    "#]]
    .assert_eq(&ground.compile());
}

#[test]
fn paths_of_one_namespace_nest_and_the_longest_wins() {
    let mut ground = Ground::new();
    for (name, path) in [
        ("a", "billing"),
        ("b", "billing/stripe/eu"),
        ("c", "billing/stripe"),
    ] {
        ground.apply(&source(name, &format!("path: {path}")));
    }
    assert!(!ground.compile().contains("Conflicted"));
    let table = crate::Table::build(ground.compiler.rows().cloned());
    for (sent, name) in [
        ("billing/x", "a"),
        ("billing/stripe/x", "c"),
        ("billing/stripe/eu/x", "b"),
    ] {
        assert_eq!(table.source(sent).expect("a source").0.name, name, "{sent}");
    }
}

#[test]
fn a_refused_claim_is_in_nobodys_way() {
    let mut ground = Ground::of(&source("first", "path: a"));
    ground.apply(&source("bank/refused", "path: a/b"));
    ground.apply(&source("second", "path: a/b/c"));
    let said = ground.compile();
    assert!(said.contains("changed Source/shop/second"), "{said}");
    assert!(
        said.contains("Source/bank/refused routes nothing"),
        "{said}"
    );

    // Without the first it holds, being older than the second, which goes on by its id.
    ground.remove("Source/shop/first");
    expect![[r#"
        changed Source/bank/refused generation 1
        changed Source/shop/second generation 1
        removed Source/shop/first
        Source/shop/second Accepted Conflicted: spec.path: the path `a/b/c` is below `a/b`, which belongs to an older source of another namespace; choose a path that doesn't begin with `a/b/`
        Source/shop/second routes generation 1
    "#]]
    .assert_eq(&ground.compile());
    assert_eq!(ground.source("shop/second").path, None);
}

#[test]
fn what_can_be_no_path_is_in_nobodys_way() {
    let mut ground = Ground::of(&source("bank/wrong", "path: billing/"));
    ground.apply(&source("bank/wrong-too", "path: billing//x"));
    ground.apply(&source("right", "path: billing"));
    assert!(ground.compile().contains("changed Source/shop/right"));
}

#[test]
fn a_last_good_row_gives_way_to_a_path_of_another_namespace_below_its_own() {
    let mut ground = Ground::of(&source("a", "path: p"));
    ground.compile();
    ground.apply(&source("a", "path: q, retention: {events: 30d}"));
    ground.apply(&source("b", "path: p/x"));
    ground.compile();
    assert_eq!(ground.source("shop/a").path.as_deref(), Some("p"));
    ground.apply(&source("bank/c", "path: p/y"));
    ground.compile();
    // `p/x` is its namespace's still.
    assert_eq!(ground.source("shop/a").path, None);
    assert_eq!(ground.source("shop/b").path.as_deref(), Some("p/x"));
    assert_eq!(ground.source("bank/c").path.as_deref(), Some("p/y"));
}

#[test]
fn rows_of_an_earlier_version_that_lie_within_each_other_are_put_right_at_the_start() {
    let victim = source("victim", "path: billing");
    let thief = source("bank/thief", "path: billing/stripe");
    let mut rows = Vec::new();
    for alone in [&victim, &thief] {
        let mut ground = Ground::new();
        ground.uid("Source/shop/victim");
        ground.uid("Source/bank/thief");
        ground.apply(alone);
        ground.compile();
        rows.extend(ground.compiler.rows().cloned());
    }
    // Also when the owner doesn't compile just now.
    for broken in ["", ", retention: {events: 30d}"] {
        let mut ground = Ground::new();
        ground.compiler = Compiler::new(rows.clone());
        ground.apply(&source("victim", &format!("path: billing{broken}")));
        ground.apply(&thief);
        ground.compile();
        assert_eq!(
            ground.source("shop/victim").path.as_deref(),
            Some("billing")
        );
        assert_eq!(ground.source("bank/thief").path, None, "{broken}");
    }
}
