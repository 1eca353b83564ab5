//! A filter as a manifest has it: of a Connection, and of whatever else takes some events only.

use super::findings::{Findings, Reason};
use crate::filter::{Filter, MOST_PATTERNS, Op, Rule, Test};

/// `path` is the filter's place in the manifest.
pub(super) fn compile(written: &crds::Filter, path: &str, findings: &mut Findings) -> Filter {
    let filter = Filter {
        all: rules(&written.all, &format!("{path}.all"), findings),
        any: rules(&written.any, &format!("{path}.any"), findings),
        none: rules(&written.none, &format!("{path}.none"), findings),
    };
    let rules = filter.all.iter().chain(&filter.any).chain(&filter.none);
    let patterns = rules
        .filter(|rule| matches!(rule.test, Test::Regex(_)))
        .count();
    if patterns > MOST_PATTERNS {
        let message = format!(
            "a filter takes at most {MOST_PATTERNS} `regex` rules; there are {patterns}: join some, as `^(one|other)$`, or \
             write `eq`, `in` or `startsWith`"
        );
        findings.add(Reason::InvalidFilter, path, message);
    }
    filter
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
        crds::FilterOp::StartsWith => Op::StartsWith,
        crds::FilterOp::EndsWith => Op::EndsWith,
        crds::FilterOp::Regex => Op::Regex,
        crds::FilterOp::Gt => Op::Gt,
        crds::FilterOp::Gte => Op::Gte,
        crds::FilterOp::Lt => Op::Lt,
        crds::FilterOp::Lte => Op::Lte,
        crds::FilterOp::Exists => Op::Exists,
        crds::FilterOp::In => Op::In,
    }
}
