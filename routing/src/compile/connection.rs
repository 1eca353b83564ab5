//! A Connection: its filter and its own retries. Its ends are resolved by the compiler, which knows the other objects.

use super::{
    findings::{Findings, Reason},
    retry,
};
use crate::{
    filter::{Filter, Op, Rule},
    retry::Policy,
    row::ConnectionSpec,
};
use uuid::Uuid;

/// All of a connection but its ends.
#[derive(Debug)]
pub(super) struct Written {
    suspended: bool,
    filter: Option<Filter>,
    retry: Option<Policy>,
}

impl Written {
    pub(super) fn into_spec(self, source: Uuid, destination: Uuid) -> ConnectionSpec {
        ConnectionSpec {
            source,
            destination,
            suspended: self.suspended,
            filter: self.filter,
            retry: self.retry,
        }
    }
}

pub(super) fn compile(spec: &crds::ConnectionSpec, findings: &mut Findings) -> Written {
    findings.not_implemented(spec.transform.is_some(), "spec.transform");
    Written {
        suspended: spec.suspend.unwrap_or(false),
        filter: spec.filter.as_ref().map(|filter| Filter {
            all: rules(&filter.all, "spec.filter.all", findings),
            any: rules(&filter.any, "spec.filter.any", findings),
            none: rules(&filter.none, "spec.filter.none", findings),
        }),
        retry: spec
            .retry
            .as_ref()
            .map(|retry| retry::compile(retry, "spec.retry", findings)),
    }
}

fn rules(written: &[crds::FilterRule], path: &str, findings: &mut Findings) -> Vec<Rule> {
    let mut rules = Vec::with_capacity(written.len());
    for (place, rule) in written.iter().enumerate() {
        match Rule::parse(&rule.path, op(rule.op), Some(&rule.value)) {
            Ok(rule) => rules.push(rule),
            Err(error) => {
                let path = format!("{path}[{place}].{}", error.part.as_str());
                findings.add(Reason::InvalidFilter, path, error.message);
            }
        }
    }
    rules
}

fn op(written: crds::FilterOp) -> Op {
    match written {
        crds::FilterOp::Eq => Op::Eq,
        crds::FilterOp::Neq => Op::Neq,
        crds::FilterOp::Contains => Op::Contains,
        crds::FilterOp::Gt => Op::Gt,
        crds::FilterOp::Gte => Op::Gte,
        crds::FilterOp::Lt => Op::Lt,
        crds::FilterOp::Lte => Op::Lte,
        crds::FilterOp::Exists => Op::Exists,
        crds::FilterOp::In => Op::In,
    }
}
