//! Who may send to a source, what kind of content, from which web pages, and how many requests.

use crate::{
    admission::{self, CorsSpec, IpFilterSpec, RateLimit},
    compile::findings::{Findings, Reason},
    duration, ip,
};
use std::time::Duration;

/// A page is asked again after a day at the latest; browsers keep an answer for two hours or a day at most.
const LONGEST_MAX_AGE: Duration = Duration::from_secs(24 * 60 * 60);
const DEFAULT_MAX_AGE: Duration = Duration::from_secs(10 * 60);

/// A limit by more than a day is a quota.
const LONGEST_PER: Duration = Duration::from_secs(24 * 60 * 60);
const SHORTEST_PER: Duration = Duration::from_secs(1);

pub(super) fn ip_filter(written: &crds::IpFilter, findings: &mut Findings) -> Option<IpFilterSpec> {
    if written.deny.is_empty() && written.allow.is_empty() {
        let message = "a filter of nothing lets everything in; name addresses in `deny` or `allow`, or leave `ipFilter` out";
        findings.add(Reason::UnsupportedValue, "spec.ipFilter", message);
        return None;
    }
    for (field, entries) in [("deny", &written.deny), ("allow", &written.allow)] {
        for (place, entry) in entries.iter().enumerate() {
            let path = format!("spec.ipFilter.{field}[{place}]");
            findings.value(ip::parse(entry), Reason::UnsupportedValue, &path);
        }
    }
    Some(IpFilterSpec {
        deny: written.deny.clone(),
        allow: written.allow.clone(),
    })
}

/// One order for one set, so that two spellings make one row.
pub(super) fn content_types(written: &[String], findings: &mut Findings) -> Vec<String> {
    for (place, media_type) in written.iter().enumerate() {
        if let Some(problem) = admission::content_type_problem(media_type) {
            let path = format!("spec.contentTypes[{place}]");
            findings.add(Reason::UnsupportedValue, path, problem);
        }
    }
    if written.is_empty() {
        let message = "an empty list takes nothing; name a media type, as [application/json], or leave it out for any";
        findings.add(Reason::UnsupportedValue, "spec.contentTypes", message);
    }
    let mut types: Vec<String> = written.iter().map(|t| t.to_ascii_lowercase()).collect();
    types.sort();
    types.dedup();
    types
}

pub(super) fn rate_limit(
    written: &crds::SourceRateLimit,
    findings: &mut Findings,
) -> Option<RateLimit> {
    let per = written.per.as_ref().map_or(Some(SHORTEST_PER), |per| {
        bounded(
            per,
            SHORTEST_PER,
            LONGEST_PER,
            "`1s` to `1d`",
            "spec.rateLimit.per",
            findings,
        )
    });
    let requests = positive(written.requests, "spec.rateLimit.requests", findings);
    let burst = match written.burst {
        Some(burst) => positive(burst, "spec.rateLimit.burst", findings),
        None => requests,
    };
    Some(RateLimit {
        requests: requests?,
        per: per?,
        burst: burst?,
    })
}

fn positive(written: i32, path: &str, findings: &mut Findings) -> Option<u32> {
    let number = u32::try_from(written).ok().filter(|&number| number > 0);
    if number.is_none() {
        let message =
            format!("{written} is less than 1; to take no requests at all write `suspend: true`");
        findings.add(Reason::UnsupportedValue, path, message);
    }
    number
}

pub(super) fn cors(written: &crds::Cors, findings: &mut Findings) -> Option<CorsSpec> {
    let at = |field: &str| format!("spec.cors.{field}");
    for (place, origin) in written.allow_origins.iter().enumerate() {
        if let Some(problem) = admission::origin_problem(origin) {
            let path = at(&format!("allowOrigins[{place}]"));
            findings.add(Reason::UnsupportedValue, path, problem);
        }
    }
    if written.allow_origins.is_empty() {
        let message = "CORS without an origin allows nothing; name one, as `https://app.example.com`, or leave `cors` out";
        findings.add(Reason::UnsupportedValue, at("allowOrigins"), message);
    }
    let allow_headers = match &written.allow_headers {
        Some(headers) => header_names(headers, findings),
        None => vec!["content-type".to_owned()],
    };
    let mut allow_methods: Vec<String> = match written.allow_methods.as_deref() {
        Some(methods) => super::methods(methods),
        None => vec!["POST".to_owned()],
    };
    allow_methods.dedup();
    let max_age = written
        .max_age
        .as_ref()
        .map_or(Some(DEFAULT_MAX_AGE), |age| {
            bounded(
                age,
                Duration::ZERO,
                LONGEST_MAX_AGE,
                "`0s` to `1d`",
                &at("maxAge"),
                findings,
            )
        })?;
    Some(CorsSpec {
        allow_origins: written.allow_origins.clone(),
        allow_headers,
        allow_methods,
        max_age_seconds: u32::try_from(max_age.as_secs()).unwrap_or(u32::MAX),
    })
}

fn header_names(written: &[String], findings: &mut Findings) -> Vec<String> {
    let mut names = Vec::with_capacity(written.len());
    for (place, name) in written.iter().enumerate() {
        if http::HeaderName::from_bytes(name.as_bytes()).is_err() {
            let message =
                format!("`{name}` can't be the name of a header; write one as `X-Request-Id`");
            let path = format!("spec.cors.allowHeaders[{place}]");
            findings.add(Reason::UnsupportedValue, path, message);
        }
        names.push(name.to_ascii_lowercase());
    }
    names.sort();
    names.dedup();
    names
}

fn bounded(
    written: &crds::Duration,
    least: Duration,
    most: Duration,
    range: &str,
    path: &str,
    findings: &mut Findings,
) -> Option<Duration> {
    let parsed = findings.value(duration::parse(&written.0), Reason::UnsupportedValue, path)?;
    if !(least..=most).contains(&parsed) {
        let message = format!("`{}` is out of range; write {range}", written.0);
        findings.add(Reason::UnsupportedValue, path, message);
        return None;
    }
    Some(parsed)
}
