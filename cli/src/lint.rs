//! `hookstream lint`: what the operator would say of these manifests, before they are applied.
//!
//! The same compiler, offline: Secrets come from the folder's `kind: Secret` manifests, and a Secret that only the
//! cluster has is a finding that says so.

use crate::{
    args,
    engine::Engine,
    folder::{Change, Declared, Folder},
    manifests::Remark,
    output,
};
use anyhow::Result;
use routing::compile::{Compiler, Finding, Reason};
use std::{collections::BTreeSet, path::PathBuf, process::ExitCode};

pub(crate) fn run(options: &args::Lint) -> Result<ExitCode> {
    let checked = Checked::read(&options.paths)?;
    let mut out = String::new();
    for remark in checked.findings.iter().chain(&checked.declared.notes) {
        let note = if checked.declared.notes.contains(remark) {
            "note: "
        } else {
            ""
        };
        out.push_str(&format!(
            "{}:{}: {note}{}\n",
            remark.file.display(),
            remark.line,
            remark.message
        ));
    }
    let objects = checked.declared.resources.len();
    match checked.findings.len() {
        0 => out.push_str(&format!("{objects} resources, no findings\n")),
        1 => out.push_str("1 finding\n"),
        n => out.push_str(&format!("{n} findings\n")),
    }
    output::print(&out)?;
    Ok(if checked.findings.is_empty() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

/// A folder, read and compiled.
#[derive(Debug)]
pub(crate) struct Checked {
    pub(crate) declared: Declared,
    pub(crate) compiler: Compiler,
    pub(crate) engine: Engine,
    pub(crate) findings: BTreeSet<Remark>,
}

impl Checked {
    pub(crate) fn read(paths: &[PathBuf]) -> Result<Checked> {
        let declared = Folder::new(paths.iter().cloned()).read(jiff::Timestamp::UNIX_EPOCH)?;
        let mut compiler = Compiler::new([]);
        for change in declared.changes_since(&Declared::default()) {
            apply(&mut compiler, change);
        }
        let engine = Engine::new()?;
        engine.check(&mut compiler)?;
        let delta = compiler.compile();
        let mut findings = declared.problems.clone();
        for (uid, verdict) in &delta.verdicts {
            findings.extend(
                verdict
                    .findings
                    .iter()
                    .filter_map(|finding| declared.remark(*uid, &finding.path, &sentence(finding))),
            );
        }
        Ok(Checked {
            declared,
            compiler,
            engine,
            findings,
        })
    }
}

pub(crate) fn apply(compiler: &mut Compiler, change: Change) {
    match change {
        Change::Apply(resource) => compiler.apply(*resource),
        Change::Remove(uid) => compiler.remove(uid),
        Change::Secret(name, data) => compiler.set_secret(name, data),
        Change::Namespace(name, labels) => compiler.set_namespace(name, labels),
    }
}

/// The finding as it reads behind `file:line`: the field, what to change, and the condition's reason to look for.
pub(crate) fn sentence(finding: &Finding) -> String {
    let hint = match finding.reason {
        Reason::SecretNotFound => "; on a laptop, put a kind: Secret manifest in this folder",
        _ => "",
    };
    let message = &finding.message;
    if finding.path.is_empty() || message.contains(&finding.path) {
        format!("{message}{hint} ({})", finding.reason.as_str())
    } else {
        format!(
            "{}: {message}{hint} ({})",
            finding.path,
            finding.reason.as_str()
        )
    }
}
