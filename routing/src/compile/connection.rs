//! A Connection: its filter and its own retries. Its ends are resolved by the compiler, which knows the other objects.

use super::{filter, findings::Findings, retry};
use crate::{filter::Filter, retry::Policy, row::ConnectionSpec};
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
        filter: spec
            .filter
            .as_ref()
            .map(|written| filter::compile(written, "spec.filter", findings)),
        retry: spec
            .retry
            .as_ref()
            .map(|retry| retry::compile(retry, "spec.retry", findings)),
    }
}
