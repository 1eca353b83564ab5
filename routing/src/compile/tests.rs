//! Tests speak YAML: a manifest as users write it, and what becomes of it.

mod accepted;
mod conflicts;
mod expressions;
mod findings;
mod http;
mod properties;
mod references;
mod source_rules;
mod topics;
mod verification;

use super::*;
use crate::row::{Kind, SourceSpec};

/// Objects by `kind/namespace/name`, numbered in the order of their first appearance; the number is the UID and the age.
#[derive(Debug, Default)]
struct Ground {
    compiler: Compiler,
    uids: BTreeMap<String, Uuid>,
    generations: BTreeMap<Uuid, i64>,
}

impl Ground {
    fn new() -> Ground {
        Ground::default()
    }

    /// A compiler with these documents applied, not yet compiled.
    fn of(yaml: &str) -> Ground {
        let mut ground = Ground::new();
        ground.apply(yaml);
        ground
    }

    fn uid(&mut self, key: &str) -> Uuid {
        let next = Uuid::from_u128(self.uids.len() as u128 + 1);
        *self.uids.entry(key.to_owned()).or_insert(next)
    }

    /// Applies documents, separated by `---`. `kind: Secret` ones are told as Secrets. Namespace: `shop` unless written.
    fn apply(&mut self, yaml: &str) {
        for document in serde_yaml::Deserializer::from_str(yaml) {
            let mut manifest: serde_json::Value =
                serde::Deserialize::deserialize(document).expect("YAML");
            if manifest["kind"] == "Secret" {
                self.tell(&manifest);
                continue;
            }
            manifest["apiVersion"] = "hookstream.io/v1alpha1".into();
            if manifest["metadata"]["namespace"].is_null() {
                manifest["metadata"]["namespace"] = "shop".into();
            }
            let text = |value: &serde_json::Value| value.as_str().expect("a text").to_owned();
            let meta = &manifest["metadata"];
            let key = format!(
                "{}/{}/{}",
                text(&manifest["kind"]),
                text(&meta["namespace"]),
                text(&meta["name"])
            );
            let uid = self.uid(&key);
            let generation = self
                .generations
                .entry(uid)
                .and_modify(|n| *n += 1)
                .or_insert(1);
            let second = uid.as_u128() % 60;
            manifest["metadata"]["uid"] = uid.to_string().into();
            manifest["metadata"]["generation"] = (*generation).into();
            manifest["metadata"]["creationTimestamp"] =
                format!("2026-11-21T00:00:{second:02}Z").into();
            self.compiler
                .apply(crds::parse(manifest).unwrap_or_else(|error| panic!("{key}: {error}")));
        }
    }

    fn tell(&mut self, manifest: &serde_json::Value) {
        let name = manifest["metadata"]["name"]
            .as_str()
            .expect("a name")
            .to_owned();
        let data = manifest["stringData"].as_object().expect("stringData");
        let data = data
            .iter()
            .map(|(key, value)| (key.clone(), Secret::new(value.as_str().expect("a text"))));
        self.compiler
            .set_secret(("shop".to_owned(), name), Some(data.collect()));
    }

    fn remove(&mut self, key: &str) {
        let uid = self.uid(key);
        self.compiler.remove(uid);
    }

    /// Compiles, and says what changed, was removed and was found, an object a line.
    fn compile(&mut self) -> String {
        let delta = self.compiler.compile();
        let names: BTreeMap<Uuid, &String> =
            self.uids.iter().map(|(key, uid)| (*uid, key)).collect();
        let name = |uid: &Uuid| {
            names
                .get(uid)
                .map_or_else(|| uid.to_string(), |name| (*name).clone())
        };
        let mut lines = Vec::new();
        for row in &delta.changed {
            lines.push(format!(
                "changed {} generation {}",
                name(&row.uid),
                row.generation
            ));
        }
        for key in &delta.removed {
            lines.push(format!("removed {}", name(&key.uid)));
        }
        for (uid, verdict) in &delta.verdicts {
            for finding in &verdict.findings {
                lines.push(format!(
                    "{} {} {}: {}: {}",
                    name(uid),
                    finding.condition.as_str(),
                    finding.reason.as_str(),
                    finding.path,
                    finding.message
                ));
            }
            if !verdict.findings.is_empty() {
                let routed = verdict
                    .routed_generation
                    .map_or("nothing".to_owned(), |n| format!("generation {n}"));
                lines.push(format!("{} routes {routed}", name(uid)));
            }
        }
        lines.iter().map(|line| format!("{line}\n")).collect()
    }

    fn row(&mut self, key: &str) -> Option<Row> {
        let uid = self.uid(key);
        self.compiler.rows().find(|row| row.uid == uid).cloned()
    }

    fn source(&mut self, name: &str) -> SourceSpec {
        match self.row(&format!("Source/{name}")).expect("a row").spec {
            Spec::Source(spec) => spec,
            other => panic!("{other:?}"),
        }
    }
}

const SHOP: &str = "
kind: Source
metadata: {name: src}
spec: {}
---
kind: Destination
metadata: {name: dst}
spec: {http: {url: 'https://example.com/hooks'}}
---
kind: Connection
metadata: {name: con}
spec: {source: {name: src}, destination: {name: dst}}
";

const QUICKSTART: &str = "
kind: Secret
metadata: {name: github-webhook}
stringData: {secret: It's a Secret to Everybody}
---
kind: Source
metadata: {name: github}
spec:
  path: github
  verification:
    template: github
    secretRefs:
    - {name: github-webhook, key: secret}
---
kind: Destination
metadata: {name: ci}
spec:
  http:
    url: http://127.0.0.1:9900/hooks
  retry:
    backoff: Exponential
    intervals: [1s, 5s, 30s]
    maxRetries: 5
---
kind: Connection
metadata: {name: github-to-ci}
spec:
  source: {name: github}
  destination: {name: ci}
  filter:
    all:
    - {path: headers.x-github-event, op: eq, value: push}
";
