//! A Topic: who may publish to it, and what.

use super::{
    findings::{Findings, Reason},
    secrets::Taken,
    source::checks,
};
use crate::row::TopicSpec;

/// An event type is a header's or a short field's worth.
const MOST_TYPE_BYTES: usize = 256;

/// Whoever guesses is answered as fast as the network allows, so a key has to be long. 16 characters of base64 are 96 bits.
const LEAST_KEY_BYTES: usize = 16;

/// A key travels in a header.
const MOST_KEY_BYTES: usize = 1024;

pub(super) fn compile(
    spec: &crds::TopicSpec,
    taken: &mut Taken<'_>,
    findings: &mut Findings,
) -> TopicSpec {
    let mut publish_keys = Vec::new();
    for (place, reference) in spec.publish_key_refs.iter().enumerate() {
        let path = format!("spec.publishKeyRefs[{place}]");
        let Some((index, secret)) = taken.take(&reference.name, &reference.key, &path, findings)
        else {
            continue;
        };
        match key_problem(secret.expose()) {
            None => publish_keys.push(index),
            Some(problem) => {
                let message = format!(
                    "the value of `{}` in the Secret `{}` can't be a publish key: {problem}",
                    reference.key, reference.name
                );
                findings.add(Reason::UnsupportedValue, path, message);
            }
        }
    }
    TopicSpec {
        publish_keys,
        event_types: event_types(spec.event_types.as_deref().unwrap_or_default(), findings),
        schema: spec
            .schema
            .as_ref()
            .and_then(|schema| checks::schema(schema, "spec.schema", findings)),
    }
}

/// A key is sent as it stands in the Secret, so what a header can't carry would never fit.
fn key_problem(key: &[u8]) -> Option<String> {
    if key.iter().any(|byte| !byte.is_ascii_graphic()) {
        Some(
            "it has a character that is not visible ASCII; often that is a newline at the end, which `printf` instead of `echo` avoids"
                .to_owned(),
        )
    } else if key.len() < LEAST_KEY_BYTES {
        Some(format!(
            "it is shorter than {LEAST_KEY_BYTES} characters; `openssl rand -hex 32` makes a good one"
        ))
    } else if key.len() > MOST_KEY_BYTES {
        Some(format!("it is longer than {MOST_KEY_BYTES} characters"))
    } else {
        None
    }
}

/// One order for one set, so that two spellings make one row.
fn event_types(written: &[String], findings: &mut Findings) -> Vec<String> {
    for (place, event_type) in written.iter().enumerate() {
        if event_type.is_empty() || event_type.len() > MOST_TYPE_BYTES {
            let message = format!(
                "an event type has 1 to {MOST_TYPE_BYTES} bytes, as `order.created`; this one has {}",
                event_type.len()
            );
            findings.add(
                Reason::UnsupportedValue,
                format!("spec.eventTypes[{place}]"),
                message,
            );
        }
    }
    let mut event_types = written.to_vec();
    event_types.sort();
    event_types.dedup();
    event_types
}
