//! A manifest is read here as the API server reads it: what it refuses for its fields is refused, with the same place.

use super::*;
use serde_json::json;
use std::{collections::BTreeMap, path::PathBuf};

fn connection(spec: Value) -> Value {
    json!({"apiVersion": "hookstream.io/v1alpha1", "kind": "Connection", "metadata": {"name": "c"}, "spec": spec})
}

fn with(mut manifest: Value, place: &str, value: Value) -> Value {
    *manifest.pointer_mut(place).expect("a place") = value;
    manifest
}

fn plain() -> Value {
    connection(json!({"source": {"name": "s"}, "destination": {"name": "d"}}))
}

fn refused(manifest: Value) -> String {
    parse(manifest).expect_err("a refusal").to_string()
}

/// The examples that the real API server judges, by file name.
fn examples() -> BTreeMap<PathBuf, String> {
    let root = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../tests/data/cel");
    let folders = std::fs::read_dir(root).unwrap();
    folders
        .flat_map(|folder| std::fs::read_dir(folder.unwrap().path()).unwrap())
        .map(|file| {
            let path = file.unwrap().path();
            let text = std::fs::read_to_string(&path).unwrap();
            (path, text)
        })
        .collect()
}

#[test]
fn every_example_that_passes_is_read_without_an_api_server() {
    let mut seen = 0;
    for (path, text) in examples() {
        if !path.to_string_lossy().ends_with(".pass.yaml") {
            continue;
        }
        seen += 1;
        let manifest = serde_yaml::from_str(&text).unwrap();
        parse(manifest).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    }
    assert!(seen > 50, "{seen} examples");
}

#[test]
fn an_unknown_field_an_unknown_word_and_a_missing_field_are_refused_at_the_api_servers_place() {
    let mut seen = 0;
    for (path, text) in examples() {
        let expected = text
            .lines()
            .next()
            .and_then(|line| line.strip_prefix("# expect: "));
        let Some(expected) = expected else { continue };
        let place = if let Some(field) = expected.strip_prefix("unknown field ") {
            Some(field.trim_matches('"').to_owned())
        } else if let Some(field) = expected.strip_suffix(": Required value") {
            // Serde says where the struct is, and the field in its message.
            let (parent, field) = field.rsplit_once('.').unwrap();
            Some(format!("{parent}: missing field `{field}`"))
        } else if expected.starts_with("Unsupported value") {
            Some("spec.".to_owned())
        } else {
            None
        };
        let Some(place) = place else { continue };
        seen += 1;
        let error = refused(serde_yaml::from_str(&text).unwrap());
        assert!(error.starts_with(&place), "{}: {error}", path.display());
    }
    assert!(seen > 20, "{seen} examples");
}

#[test]
fn unknown_fields_are_refused_at_the_root_in_metadata_and_in_the_spec() {
    let mut manifest = plain();
    manifest["sepc"] = json!({});
    assert!(refused(manifest).starts_with("sepc: unknown field; there are apiVersion"));
    let manifest = with(
        plain(),
        "/metadata",
        json!({"name": "c", "lables": {"a": "b"}}),
    );
    assert!(refused(manifest).starts_with("metadata.lables: unknown field"));
    let mut manifest = plain();
    manifest["spec"]["filtr"] = json!({});
    assert!(refused(manifest).starts_with("spec.filtr: unknown field `filtr`"));
}

#[test]
fn all_that_kubectl_writes_into_metadata_is_known() {
    let metadata = json!({
        "name": "c", "namespace": "n", "uid": "u", "generation": 1, "resourceVersion": "1", "labels": {}, "finalizers": [],
        "annotations": {"kubectl.kubernetes.io/last-applied-configuration": ""}, "creationTimestamp": null,
        "managedFields": [{"manager": "kubectl", "operation": "Apply"}],
    });
    parse(with(plain(), "/metadata", metadata)).expect("known fields");
}

#[test]
fn a_null_is_no_field_as_for_the_api_server() {
    let nulls = json!({
        "source": {"name": "s", "namespace": null}, "destination": {"name": "d"}, "retry": null,
        "filter": {"all": null, "any": [{"path": "body", "op": "exists", "value": true}]},
    });
    let Resource::Connection(read) = parse(connection(nulls)).expect("nulls are absent") else {
        panic!("a Connection");
    };
    assert_eq!(read.spec.retry, None);
    assert_eq!(read.spec.filter.expect("a filter").all, Vec::new());
    let required = with(plain(), "/spec/source", Value::Null);
    assert!(refused(required).contains("missing field `source`"));
}

#[test]
fn a_null_inside_a_json_schema_stays() {
    let manifest = json!({
        "apiVersion": "hookstream.io/v1alpha1", "kind": "Topic", "metadata": {"name": "t"},
        "spec": {"schema": {"jsonSchema": {"const": null}}},
    });
    let Resource::Topic(topic) = parse(manifest).expect("a topic") else {
        panic!("a Topic");
    };
    assert_eq!(
        topic.spec.schema.expect("a schema").json_schema,
        json!({"const": null})
    );
}

#[test]
fn another_version_or_kind_is_named() {
    let version = with(plain(), "/apiVersion", json!("hookstream.io/v1"));
    assert_eq!(
        refused(version),
        r#"apiVersion is "hookstream.io/v1"; write hookstream.io/v1alpha1"#
    );
    let kind = with(plain(), "/kind", json!("Conection"));
    assert!(
        refused(kind)
            .starts_with(r#"there is no kind "Conection" in hookstream.io; there are Source,"#)
    );
}
