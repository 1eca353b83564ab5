//! What is wrong with the manifests right now, told once each: when it appears, and when it's gone.

use crate::{folder::Declared, lines::Style, lint, manifests::Remark};
use operator::core::Entry;
use routing::compile::Finding;
use std::collections::{BTreeMap, BTreeSet};
use uuid::Uuid;

#[derive(Debug, Default)]
pub(super) struct Mistakes {
    read: BTreeSet<Remark>,
    notes: BTreeSet<Remark>,
    compiled: BTreeMap<Uuid, BTreeSet<Remark>>,
}

impl Mistakes {
    /// Lines for what reading the folder found.
    pub(super) fn read(&mut self, declared: &Declared, style: &Style) -> Vec<String> {
        let mut lines: Vec<String> = declared
            .notes
            .difference(&self.notes)
            .map(|note| style.note(&note.to_string()))
            .collect();
        lines.extend(
            declared
                .problems
                .difference(&self.read)
                .map(|problem| style.problem(&problem.to_string())),
        );
        if declared.problems.is_empty() && !self.read.is_empty() {
            lines.push(style.note("every manifest is readable again"));
        }
        self.notes = declared.notes.clone();
        self.read = declared.problems.clone();
        lines
    }

    /// Lines for what the compiler says of one object.
    pub(super) fn compiled(
        &mut self,
        entry: &Entry,
        declared: &Declared,
        style: &Style,
    ) -> Vec<String> {
        let Some(verdict) = &entry.verdict else {
            return Vec::new();
        };
        let meta = &entry.meta;
        // What keeps routing is worth knowing: a mistake that stops nothing looks like one that was ignored.
        let effect = match verdict.routed_generation {
            Some(generation) if generation < meta.generation => {
                " (the version before keeps routing)"
            }
            Some(_) => "",
            None => " (not routing)",
        };
        let remark = |finding: &Finding| {
            declared.remark(
                meta.uid,
                &finding.path,
                &format!("{}{effect}", lint::sentence(finding)),
            )
        };
        let now: BTreeSet<Remark> = verdict.findings.iter().filter_map(remark).collect();
        let before = self
            .compiled
            .insert(meta.uid, now.clone())
            .unwrap_or_default();
        let mut lines: Vec<String> = now
            .difference(&before)
            .map(|remark| style.problem(&remark.to_string()))
            .collect();
        if now.is_empty() && !before.is_empty() {
            lines.push(style.note(&format!(
                "{}/{} is in order again",
                meta.namespace, meta.name
            )));
        }
        lines
    }

    pub(super) fn gone(&mut self, uid: Uuid) {
        self.compiled.remove(&uid);
    }
}
