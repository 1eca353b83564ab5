//! The definitions in the chart are the ones made here, and each is what an API server takes.
//! `UPDATE_EXPECT=1` writes the files anew.

use super::*;
use std::{collections::BTreeSet, path::PathBuf};

fn workspace(path: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
        .join("..")
        .join(path)
}

/// The definition as a file of the chart.
fn template(crd: &CustomResourceDefinition) -> String {
    let mut value = serde_json::to_value(crd).expect("a definition is JSON");
    let metadata = value["metadata"].as_object_mut().expect("an object");
    metadata.insert(
        "annotations".into(),
        json!({"helm.sh/resource-policy": "KEEP"}),
    );
    let yaml = serde_yaml::to_string(&value).expect("JSON is YAML");
    let keep = "  annotations:\n    helm.sh/resource-policy: KEEP\n";
    assert!(yaml.contains(keep) && !yaml.contains("{{"), "{yaml}");
    let yaml = yaml.replace(keep, "  {{- if .Values.crds.keep }}\n  annotations:\n    helm.sh/resource-policy: keep\n  {{- end }}\n");
    format!(
        "{{{{- if .Values.crds.install }}}}\n# Made from the types in crds/: `make generate`.\n{yaml}{{{{- end }}}}\n"
    )
}

#[test]
fn the_chart_has_the_definitions_that_the_types_make() {
    for (kind, crd) in Kind::ALL.into_iter().zip(all()) {
        let path = workspace(&format!(
            "charts/hookstream/templates/crds/{}.yaml",
            kind.plural()
        ));
        let made = template(&crd);
        if std::env::var_os("UPDATE_EXPECT").is_some() {
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(&path, &made).unwrap();
        }
        let committed = std::fs::read_to_string(&path).unwrap_or_default();
        assert!(
            committed == made,
            "{} is not what the types make: `make generate`",
            path.display()
        );
        assert!(
            made.len() < 256 * 1024,
            "{kind}: {} bytes; Argo CD applies definitions below 256 KiB",
            made.len()
        );
    }
}

/// Calls `judge` with every schema below this one, and its path.
fn each(schema: &Value, path: &str, judge: &mut impl FnMut(&str, &Map<String, Value>)) {
    let schema = schema.as_object().expect("a schema is an object");
    judge(path, schema);
    for (name, child) in schema
        .get("properties")
        .and_then(Value::as_object)
        .into_iter()
        .flatten()
    {
        each(child, &format!("{path}.{name}"), judge);
    }
    for key in ["items", "additionalProperties"] {
        if let Some(child) = schema.get(key).filter(|child| child.is_object()) {
            each(child, &format!("{path}[]"), judge);
        }
    }
}

#[test]
fn every_schema_is_typed_bounded_and_documented() {
    for (kind, crd) in Kind::ALL.into_iter().zip(all()) {
        let schema = serde_json::to_value(&crd.spec.versions[0].schema).unwrap();
        each(
            &schema["openAPIV3Schema"],
            kind.as_str(),
            &mut |path, schema| {
                let preserved = schema.contains_key("x-kubernetes-preserve-unknown-fields")
                    || schema.contains_key("x-kubernetes-int-or-string");
                assert!(
                    schema.contains_key("type") || preserved,
                    "{path} has no type"
                );
                for forbidden in ["$ref", "nullable", "anyOf", "allOf", "default"] {
                    assert!(!schema.contains_key(forbidden), "{path} has {forbidden}");
                }
                let format = schema
                    .get("format")
                    .and_then(Value::as_str)
                    .unwrap_or_default();
                assert!(!format.starts_with("uint"), "{path} has format {format}");
                match schema.get("type").and_then(Value::as_str) {
                    Some("string") => assert!(
                        schema.contains_key("maxLength")
                            || schema.contains_key("enum")
                            || !format.is_empty(),
                        "{path} has no bound"
                    ),
                    Some("array") => {
                        assert!(schema.contains_key("maxItems"), "{path} has no bound")
                    }
                    Some("object") if schema.contains_key("additionalProperties") => {
                        assert!(schema.contains_key("maxProperties"), "{path} has no bound")
                    }
                    _ => {}
                }
                let inside = path.contains(".spec.") && !path.ends_with("[]");
                assert!(
                    !inside || schema.contains_key("description"),
                    "{path} says nothing to `kubectl explain`"
                );
            },
        );
    }
}

#[test]
fn every_rule_has_an_example_that_breaks_it_and_one_that_keeps_it() {
    let examples = |kind: Kind, ending: &str| -> Vec<String> {
        let folder = workspace(&format!("tests/data/cel/{}", kind.as_str().to_lowercase()));
        let mut files: Vec<PathBuf> = std::fs::read_dir(&folder)
            .unwrap_or_else(|_| panic!("no {}", folder.display()))
            .map(|entry| entry.unwrap().path())
            .collect();
        files.retain(|file| file.to_string_lossy().ends_with(ending));
        files
            .iter()
            .map(|file| std::fs::read_to_string(file).unwrap())
            .collect()
    };
    for rule in rules() {
        let broken = examples(rule.kind, ".fail.yaml").into_iter().any(|text| {
            let expected = text
                .lines()
                .next()
                .and_then(|line| line.strip_prefix("# expect: "));
            expected.is_some_and(|expected| rule.message.contains(expected))
        });
        assert!(
            broken,
            "no example of {} breaks {:?}",
            rule.kind, rule.message
        );
        assert!(
            !examples(rule.kind, ".pass.yaml").is_empty(),
            "{} has no example that passes",
            rule.kind
        );
    }
}

#[test]
fn the_contract_is_read_without_an_api_server() {
    let folder = workspace("tests/data/contract");
    let mut kinds = BTreeSet::new();
    for file in std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
    {
        use serde::Deserialize;
        for document in serde_yaml::Deserializer::from_str(&std::fs::read_to_string(&file).unwrap())
        {
            let value = Value::deserialize(document).unwrap();
            if value["kind"] == "Secret" {
                continue;
            }
            let resource =
                crate::parse(value).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
            kinds.insert(resource.kind());
        }
    }
    assert_eq!(kinds.len(), Kind::ALL.len(), "{kinds:?}");
}

#[test]
fn a_misspelt_field_is_named_with_its_place() {
    let manifest = json!({
        "apiVersion": "hookstream.io/v1alpha1", "kind": "Connection", "metadata": {"name": "c"},
        "spec": {"source": {"name": "s"}, "destination": {"name": "d"}, "filter": {"all": [{"path": "body.x", "op": "eqals", "value": 1}]}},
    });
    let error = crate::parse(manifest).unwrap_err().to_string();
    assert!(
        error.starts_with("spec.filter.all[0].op: unknown variant `eqals`"),
        "{error}"
    );
}
