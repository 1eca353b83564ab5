//! A Source: the rules of one entrance.

mod admission;
pub(super) mod checks;
mod response;
mod verification;

use super::{
    findings::{Findings, Reason},
    secrets::Taken,
};
use crate::{
    ids::{self, Prefix},
    row::SourceSpec,
    size,
};

/// What `maxBodySize` is when it isn't written: 10Mi.
pub const DEFAULT_MAX_BODY_BYTES: u64 = 10 << 20;

/// What a gateway may be told to take (`--max-body`). Beyond 32Mi a body goes through it in pieces.
const MOST_BODY_BYTES: u64 = 1 << 30;

pub(super) fn compile(
    spec: &crds::SourceSpec,
    taken: &mut Taken<'_>,
    findings: &mut Findings,
) -> SourceSpec {
    findings.not_implemented(spec.retention.is_some(), "spec.retention");
    SourceSpec {
        path: spec
            .path
            .as_deref()
            .and_then(|path| own_path(path, findings)),
        methods: methods(spec.methods.as_deref().unwrap_or_default()),
        suspended: spec.suspend.unwrap_or(false),
        verification: spec.verification.as_ref().and_then(|verification| {
            let methods = spec.methods.as_deref().unwrap_or_default();
            verification::compile(verification, methods, taken, findings)
        }),
        max_body_bytes: spec
            .max_body_size
            .as_ref()
            .map_or(DEFAULT_MAX_BODY_BYTES, |size| {
                max_body_bytes(size, findings)
            }),
        archived: spec.archived.unwrap_or(false),
        ip_filter: spec
            .ip_filter
            .as_ref()
            .and_then(|filter| admission::ip_filter(filter, findings)),
        content_types: spec.content_types.as_deref().map_or(Vec::new(), |types| {
            admission::content_types(types, findings)
        }),
        rate_limit: spec
            .rate_limit
            .as_ref()
            .and_then(|limit| admission::rate_limit(limit, findings)),
        cors: spec
            .cors
            .as_ref()
            .and_then(|cors| admission::cors(cors, findings)),
        response: spec
            .response
            .as_ref()
            .and_then(|response| response::compile(response, findings)),
        schema: spec
            .schema
            .as_ref()
            .and_then(|schema| checks::schema(schema, "spec.schema", findings)),
        dedup: spec
            .dedup
            .as_ref()
            .and_then(|dedup| checks::dedup(dedup, findings)),
    }
}

/// One order for one set, so that two spellings make one row.
fn methods(written: &[crds::Method]) -> Vec<String> {
    let mut methods: Vec<_> = written
        .iter()
        .map(|method| method.as_str().to_owned())
        .collect();
    methods.sort();
    methods.dedup();
    methods
}

fn own_path(path: &str, findings: &mut Findings) -> Option<String> {
    match path_problem(path) {
        None => Some(path.to_owned()),
        Some(problem) => {
            findings.add(Reason::UnsupportedValue, "spec.path", problem);
            None
        }
    }
}

/// Why this can't be a path of a source's own.
pub(super) fn path_problem(path: &str) -> Option<String> {
    let plain =
        |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'.' | b'_' | b'-');
    let segment = |segment: &str| {
        let edge = |b: Option<&u8>| b.is_some_and(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
        let bytes = segment.as_bytes();
        edge(bytes.first()) && edge(bytes.last()) && bytes.iter().all(|&b| plain(b))
    };
    if path.len() > 128 {
        Some("the path is longer than 128 characters".to_owned())
    } else if !path.split('/').all(segment) {
        Some(format!(
            "`{path}` can't be a path; write segments of a-z, 0-9, `-`, `_` and `.` that begin and end with a letter or digit, as `billing/stripe`"
        ))
    } else if path
        .split('/')
        .next()
        .is_some_and(|first| ids::parse(Prefix::Source, first).is_some())
    {
        Some(
            "a path can't begin with the id of a source; every source has that one by itself"
                .to_owned(),
        )
    } else {
        None
    }
}

fn max_body_bytes(size: &crds::Size, findings: &mut Findings) -> u64 {
    let path = "spec.maxBodySize";
    let bytes = match size {
        crds::Size::Bytes(bytes) => {
            u64::try_from(*bytes).map_err(|_| size::InvalidSize(bytes.to_string()))
        }
        crds::Size::Text(text) => size::parse(text),
    };
    let Some(bytes) = findings.value(bytes, Reason::UnsupportedValue, path) else {
        return 0;
    };
    if bytes > MOST_BODY_BYTES {
        findings.add(
            Reason::UnsupportedValue,
            path,
            "larger than 1Gi, the most that a gateway takes".to_owned(),
        );
    }
    bytes
}
