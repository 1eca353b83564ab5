use super::*;
use expect_test::{Expect, expect};

/// What reading `yaml` says, mistakes first, then notes.
fn check(yaml: &str, expected: Expect) {
    let file = read(Path::new("a.yaml"), yaml);
    let said: String = file
        .problems
        .iter()
        .chain(&file.notes)
        .map(|remark| format!("{remark}\n"))
        .collect();
    expected.assert_eq(&said);
}

#[test]
fn the_quickstart_is_read_without_a_word() {
    let yaml = include_str!("../../../examples/quickstart/quickstart.yaml");
    check(yaml, expect![""]);
    let names: Vec<String> = read(Path::new("a.yaml"), yaml)
        .objects
        .iter()
        .map(|object| object.id.to_string())
        .collect();
    assert_eq!(
        names,
        [
            "Secret default/github-webhook",
            "Source default/github",
            "Destination default/ci",
            "Connection default/github-to-ci"
        ]
    );
}

#[test]
fn yaml_that_does_not_parse_is_reported_at_its_line() {
    check(
        "apiVersion: v1\nkind: [Secret\nmetadata: {name: a}\n",
        expect![[r#"
        a.yaml:3: not readable as YAML: did not find expected ',' or ']' at line 3 column 9, while parsing a flow sequence at line 2 column 7
    "#]],
    );
    check(
        "a: 1\n\tb: 2\n",
        expect![[r#"
        a.yaml:2: not readable as YAML: found a tab character that violates indentation at line 2 column 1, while scanning a plain scalar at line 1 column 4
    "#]],
    );
    check(
        "a: *nowhere\n",
        expect![[r#"
        a.yaml:1: not readable as YAML: unknown anchor
    "#]],
    );
}

#[test]
fn a_document_that_is_no_manifest_says_what_is_missing() {
    check(
        "- a\n- b\n",
        expect![[r#"
        a.yaml:1: not a manifest: write apiVersion, kind and metadata as its fields
    "#]],
    );
    check(
        "# nothing\n---\n---\nkind: Source\nmetadata: {name: a}\n",
        expect![[r#"
        a.yaml:4: apiVersion is missing: write apiVersion: hookstream.io/v1alpha1
    "#]],
    );
    check(
        "apiVersion: hookstream.io/v1alpha1\nmetadata: {name: a}\n",
        expect![[r#"
        a.yaml:1: kind is missing: write one of Source, Destination, Connection, Topic, Subscription, AlertRule, NotificationChannel, Collection, Secret
    "#]],
    );
    check(
        "\n\nreplicas: 2\n",
        expect![[r#"
        a.yaml:3: apiVersion is missing: write apiVersion: hookstream.io/v1alpha1, or v1 for a Secret
    "#]],
    );
}

#[test]
fn an_unknown_kind_or_version_of_ours_is_a_mistake_and_a_stranger_a_note() {
    check(
        "apiVersion: hookstream.io/v1alpha1\nkind: Sourc\nmetadata: {name: a}\n",
        expect![[r#"
        a.yaml:2: kind Sourc is not known: write one of Source, Destination, Connection, Topic, Subscription, AlertRule, NotificationChannel, Collection
    "#]],
    );
    check(
        "apiVersion: hookstream.io/v1\nkind: Source\nmetadata: {name: a}\n",
        expect![[r#"
        a.yaml:1: apiVersion hookstream.io/v1 is not known for kind Source: write apiVersion: hookstream.io/v1alpha1
    "#]],
    );
    check(
        "apiVersion: v1\nkind: Source\nmetadata: {name: a}\n",
        expect![[r#"
        a.yaml:1: apiVersion v1 is not known for kind Source: write apiVersion: hookstream.io/v1alpha1
    "#]],
    );
    check(
        "apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: a}\n",
        expect![[r#"
        a.yaml:1: kind Deployment of apps/v1 means nothing to hookstream: ignored
    "#]],
    );
}

#[test]
fn metadata_needs_a_name_that_kubernetes_takes() {
    check(
        "apiVersion: v1\nkind: Secret\n",
        expect![[r#"
        a.yaml:1: metadata.name is missing: give this Secret a name
    "#]],
    );
    check(
        "apiVersion: v1\nkind: Secret\nmetadata:\n  labels: {}\n",
        expect![[r#"
        a.yaml:3: metadata.name is missing: give this Secret a name
    "#]],
    );
    check(
        "apiVersion: v1\nkind: Secret\nmetadata:\n  name: 7\n",
        expect![[r#"
        a.yaml:4: metadata.name is not text: put it in quotes
    "#]],
    );
    check(
        "apiVersion: v1\nkind: Secret\nmetadata:\n  name: Git_Hub\n",
        expect![[r#"
        a.yaml:4: metadata.name "Git_Hub" is not a name for Kubernetes: use lower-case letters, digits, '-' and '.', at most 253
    "#]],
    );
    check(
        "apiVersion: v1\nkind: Secret\nmetadata:\n  name: a\n  namespace: A\n",
        expect![[r#"
        a.yaml:5: metadata.namespace is not a name: use lower-case letters, digits and '-'
    "#]],
    );
}

#[test]
fn a_secret_is_text_or_base64_and_never_repeated_in_a_message() {
    check(
        "apiVersion: v1\nkind: Secret\nmetadata: {name: a}\ndata:\n  k: not base64!\nstringData:\n  m: 12345\n",
        expect![[r#"
        a.yaml:5: data.k is not base64: encode it, or move it to stringData, which takes plain text
        a.yaml:7: stringData.m is not text: put it in quotes
    "#]],
    );
    check(
        "apiVersion: v1\nkind: Secret\nmetadata: {name: a}\nstringData: hunter2\n",
        expect![[r#"
        a.yaml:4: stringData is not a mapping: write key: value under it
    "#]],
    );
    let file = read(
        Path::new("a.yaml"),
        "apiVersion: v1\nkind: Secret\nmetadata: {name: a}\ndata: {k: b25l, l: dHdv}\nstringData: {l: three}\n",
    );
    let Body::Secret(data) = &file.objects[0].body else {
        panic!("a Secret")
    };
    assert_eq!(data["k"].expose(), b"one");
    assert_eq!(data["l"].expose(), b"three", "stringData wins");
    assert!(!format!("{file:?}").contains("three"));
}

#[test]
fn a_key_written_twice_is_a_mistake() {
    check(
        "apiVersion: v1\nkind: Namespace\nmetadata:\n  name: a\n  labels: {a: b, a: c}\n",
        expect![[r#"
        a.yaml:5: metadata.labels.a is written twice: keep one of the two
    "#]],
    );
}

#[test]
fn a_word_that_kubectl_reads_as_a_boolean_wants_quotes() {
    check(
        "apiVersion: v1\nkind: Secret\nmetadata: {name: a}\nstringData:\n  switch: on\n  other: 'off'\n",
        expect![[r#"
            a.yaml:5: kubectl reads y, n, yes, no, on and off as true or false: put the word in quotes
        "#]],
    );
}

#[test]
fn a_field_that_the_resource_does_not_have_is_reported_at_its_line() {
    check(
        "apiVersion: hookstream.io/v1alpha1\nkind: Source\nmetadata: {name: a}\nspec:\n  pth: github\n",
        expect![[r#"
            a.yaml:5: spec.pth: unknown field `pth`, expected one of `displayName`, `path`, `methods`, `suspend`, `archived`, `contentTypes`, `verification`, `ipFilter`, `schema`, `dedup`, `rateLimit`, `maxBodySize`, `response`, `cors`, `retention`, `allowedNamespaces`
        "#]],
    );
    check(
        "apiVersion: hookstream.io/v1alpha1\nkind: Destination\nmetadata: {name: a}\nspec:\n  http:\n    url: http://a\n    timeout: 5\n",
        expect![[r#"
        a.yaml:7: spec.http.timeout: invalid type: integer `5`, expected a string
    "#]],
    );
    check(
        "apiVersion: hookstream.io/v1alpha1\nkind: Connection\nmetadata: {name: a}\nspec:\n  source: {name: s}\n",
        expect![[r#"
        a.yaml:4: spec: missing field `destination`
    "#]],
    );
    check(
        "apiVersion: hookstream.io/v1alpha1\nkind: Source\nmetadata: {name: a}\nspec: []\n",
        expect![[r#"
            a.yaml:4: spec: must be a mapping: write its fields under it
        "#]],
    );
    check(
        "apiVersion: hookstream.io/v1alpha1\nkind: Source\nmetadata: {name: a, nme: b}\nspec: {}\n",
        expect![[r#"
            a.yaml:3: metadata.nme: unknown field; people write name, namespace, labels and annotations
        "#]],
    );
}

#[test]
fn one_mistake_does_not_hide_the_other_documents() {
    let file = read(
        Path::new("a.yaml"),
        "apiVersion: hookstream.io/v1alpha1\nkind: Source\nmetadata: {name: a}\nspec: {pth: x}\n---\napiVersion: hookstream.io/v1alpha1\nkind: Source\nmetadata: {name: b}\nspec: {path: b}\n",
    );
    assert_eq!(file.objects.len(), 1);
    assert_eq!(file.broken.len(), 1);
    assert!(file.parses);
}

#[test]
fn a_uid_is_the_same_for_the_same_namespace_kind_and_name_for_ever() {
    let id = |namespace: &str, kind: &str, name: &str| Id {
        namespace: namespace.into(),
        kind: kind.into(),
        name: name.into(),
    };
    // Written out: a change of it would change every ingest URL.
    assert_eq!(
        id("default", "Source", "github").uid().to_string(),
        "824a6bdb-23e4-5c87-be54-faba0b67b7f4"
    );
    assert_ne!(
        id("default", "Source", "github").uid(),
        id("default", "Destination", "github").uid()
    );
    assert_ne!(
        id("default", "Source", "github").uid(),
        id("shop", "Source", "github").uid()
    );
}

#[test]
fn nothing_that_anybody_writes_makes_the_reader_panic() {
    let deep = "[".repeat(10_000);
    for text in [
        "",
        "---",
        "\u{0}",
        "? [a, b]\n: c\n",
        "&a [*a]",
        "a: &a [1]\nb: [*a, *a]",
        "%YAML 9.9\n---\na: 1",
        "!!binary x",
        "a: !x {b: c}",
        &deep,
        &"a: {".repeat(3_000),
    ] {
        read(Path::new("a.yaml"), text);
    }
}
