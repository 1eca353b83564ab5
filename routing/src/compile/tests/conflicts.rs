//! Own paths of sources: one owner in the whole installation.

use super::*;
use expect_test::expect;

fn source(name: &str, spec: &str) -> String {
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
    ground.apply(&source("a", "path: q, dedup: {strategy: PayloadHash}"));
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
