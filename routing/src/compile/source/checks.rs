//! What a source asks of a body, and how it knows a second copy.

use super::super::findings::{Findings, Reason};
use crate::{dedup, duration, filter::Path, schema};
use std::time::Duration;

/// What `window` is when it isn't written.
const DEFAULT_WINDOW: Duration = Duration::from_secs(5 * 60);

/// Keys are kept that long at most, each of them a row.
const LONGEST_WINDOW: Duration = Duration::from_secs(30 * 24 * 60 * 60);

/// Of a Source or a Topic; `path` is the field's.
pub(in super::super) fn schema(
    written: &crds::SchemaCheck,
    path: &str,
    findings: &mut Findings,
) -> Option<schema::Rule> {
    let compiled = schema::Schema::new(&written.json_schema);
    let path = format!("{path}.jsonSchema");
    findings.value(compiled, Reason::UnsupportedValue, &path)?;
    Some(schema::Rule {
        action: match written.action {
            None | Some(crds::SchemaAction::Reject) => schema::Action::Reject,
            Some(crds::SchemaAction::Warn) => schema::Action::Warn,
        },
        schema: written.json_schema.clone(),
    })
}

pub(super) fn dedup(written: &crds::Dedup, findings: &mut Findings) -> Option<dedup::Rule> {
    let by = by(written, findings);
    let window = window(written.window.as_ref(), findings);
    Some(dedup::Rule {
        by: by?,
        window,
        conflict: written.on_duplicate == Some(crds::OnDuplicate::Conflict),
    })
}

fn by(written: &crds::Dedup, findings: &mut Findings) -> Option<dedup::By> {
    let at = "spec.dedup.field";
    let field = written.field.as_deref();
    let example = match written.strategy {
        crds::DedupStrategy::PayloadHash => {
            if field.is_some() {
                let message = "PayloadHash compares whole bodies; leave `field` out, or write the strategy HeaderField or BodyField";
                findings.add(Reason::UnsupportedValue, at, message);
            }
            return Some(dedup::By::Payload);
        }
        crds::DedupStrategy::HeaderField => "write the header's name, as `x-github-delivery`",
        crds::DedupStrategy::BodyField => "write where in the body the value is, as `body.id`",
    };
    let Some(field) = field else {
        findings.add(Reason::UnsupportedValue, at, example);
        return None;
    };
    let path = match written.strategy {
        crds::DedupStrategy::BodyField if within_body(field) => Path::parse(field),
        // The documents write `data.id` where filters write `body.data.id`.
        crds::DedupStrategy::BodyField => {
            let dot = if field.starts_with('[') { "" } else { "." };
            Path::parse(&format!("body{dot}{field}"))
        }
        _ => Path::parse(&format!("headers.{}", field.trim_start_matches("headers."))),
    };
    let path = path.map_err(|problem| format!("{problem}; {example}"));
    findings
        .value(path, Reason::UnsupportedValue, at)
        .map(dedup::By::Field)
}

fn within_body(field: &str) -> bool {
    ["body", "payload"].iter().any(|root| {
        let rest = field.strip_prefix(root);
        rest.is_some_and(|rest| rest.is_empty() || rest.starts_with(['.', '[']))
    })
}

fn window(written: Option<&crds::Duration>, findings: &mut Findings) -> Duration {
    let path = "spec.dedup.window";
    let Some(written) = written else {
        return DEFAULT_WINDOW;
    };
    match findings.value(duration::parse(&written.0), Reason::UnsupportedValue, path) {
        Some(window) if window < Duration::from_secs(1) || window > LONGEST_WINDOW => {
            let message = format!("`{}` is out of range; write `1s` to `30d`", written.0);
            findings.add(Reason::UnsupportedValue, path, message);
            DEFAULT_WINDOW
        }
        Some(window) => window,
        None => DEFAULT_WINDOW,
    }
}
