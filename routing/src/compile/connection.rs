//! A Connection: its filter, its transform and its own retries. Its ends are resolved by the compiler, which knows the other
//! objects.

use super::{
    expression::{self, Expressions},
    filter,
    findings::{Findings, Reason},
    retry,
};
use crate::{
    filter::Filter,
    retry::Policy,
    row::ConnectionSpec,
    transform::{Expression, Input, Output, Transform},
};
use uuid::Uuid;

/// All of a connection but its ends.
#[derive(Debug)]
pub(super) struct Written {
    suspended: bool,
    filter: Option<Filter>,
    expression: Option<Expression>,
    transform: Option<Transform>,
    retry: Option<Policy>,
}

impl Written {
    pub(super) fn into_spec(self, source: Uuid, destination: Uuid) -> ConnectionSpec {
        ConnectionSpec {
            source,
            destination,
            suspended: self.suspended,
            filter: self.filter,
            expression: self.expression,
            transform: self.transform,
            retry: self.retry,
        }
    }
}

pub(super) fn compile(
    spec: &crds::ConnectionSpec,
    expressions: &Expressions,
    findings: &mut Findings,
) -> Written {
    let expression = spec.filter.as_ref().and_then(|filter| {
        let text = filter.expression.as_deref()?;
        let path = "spec.filter.expression";
        expression::compile(
            text,
            None,
            expressions,
            Reason::InvalidFilter,
            path,
            findings,
        )
    });
    Written {
        suspended: spec.suspend.unwrap_or(false),
        filter: spec
            .filter
            .as_ref()
            .map(|written| filter::compile(written, "spec.filter", findings)),
        expression,
        transform: spec
            .transform
            .as_ref()
            .and_then(|transform| self::transform(transform, expressions, findings)),
        retry: spec
            .retry
            .as_ref()
            .map(|retry| retry::compile(retry, "spec.retry", findings)),
    }
}

fn transform(
    written: &crds::Transform,
    expressions: &Expressions,
    findings: &mut Findings,
) -> Option<Transform> {
    let input = written.input.map(|input| match input {
        crds::TransformInput::Body => Input::Body,
        crds::TransformInput::Envelope => Input::Envelope,
    });
    let expression = expression::compile(
        &written.jsonata,
        input,
        expressions,
        Reason::InvalidTransform,
        "spec.transform.jsonata",
        findings,
    )?;
    let output = match written.output {
        None | Some(crds::TransformOutput::Body) => Output::Body,
        Some(crds::TransformOutput::Envelope) => Output::Envelope,
    };
    Some(Transform { expression, output })
}
