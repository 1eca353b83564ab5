//! What a source's senders get once their event is recorded.

use crate::{
    admission::ResponseSpec,
    compile::findings::{Findings, Reason},
};
use http::{HeaderName, HeaderValue};

/// What the server writes itself, or what would tell a client wrongly where an answer ends.
const OURS: [&str; 9] = [
    "connection",
    "content-length",
    "date",
    "keep-alive",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "x-request-id",
];

/// As the documents bound it.
const MOST_BODY_CHARACTERS: usize = 16_384;
const MOST_VALUE_BYTES: usize = 4096;

pub(super) fn compile(
    written: &crds::CustomResponse,
    findings: &mut Findings,
) -> Option<ResponseSpec> {
    let status = written.status.unwrap_or(200);
    let status = match u16::try_from(status) {
        Ok(status @ 200..=299) => status,
        _ => {
            let message =
                format!("{status} says that the event wasn't taken, but it was; write 200 to 299");
            findings.add(Reason::UnsupportedValue, "spec.response.status", message);
            return None;
        }
    };
    let body = written.body.clone();
    if matches!(status, 204 | 205) && body.is_some() {
        let message =
            format!("an answer with status {status} has no body; leave `body` out, or answer 200");
        findings.add(Reason::UnsupportedValue, "spec.response.body", message);
    }
    if body
        .as_ref()
        .is_some_and(|body| body.chars().count() > MOST_BODY_CHARACTERS)
    {
        let message = format!("the body is longer than {MOST_BODY_CHARACTERS} characters");
        findings.add(Reason::UnsupportedValue, "spec.response.body", message);
    }
    let mut headers = Vec::with_capacity(written.headers.len() + 1);
    for (name, value) in &written.headers {
        headers.extend(header(name, value, findings));
    }
    // A body that doesn't say what it is would be guessed by its reader.
    if let Some(body) = &body
        && !body.is_empty()
        && !headers.iter().any(|(name, _)| name == "content-type")
    {
        let json = serde_json::from_str::<serde::de::IgnoredAny>(body).is_ok();
        let kind = if json {
            "application/json"
        } else {
            "text/plain; charset=utf-8"
        };
        headers.push(("content-type".to_owned(), kind.to_owned()));
    }
    Some(ResponseSpec {
        status,
        headers,
        // Nothing is what such an answer carries.
        body: if matches!(status, 204 | 205) {
            Some(String::new())
        } else {
            body
        },
    })
}

fn header(name: &str, value: &str, findings: &mut Findings) -> Option<(String, String)> {
    let path = format!("spec.response.headers.{name}");
    let problem = match HeaderName::from_bytes(name.as_bytes()) {
        Err(_) => Some("this can't be the name of a header; write one as `X-Served-By`".to_owned()),
        Ok(parsed) if OURS.contains(&parsed.as_str()) => {
            Some("the gateway writes this header itself; leave it out".to_owned())
        }
        Ok(parsed) if parsed.as_str().starts_with("access-control-") => {
            Some("these headers depend on the page that asks; write `spec.cors`".to_owned())
        }
        Ok(_) if value.len() > MOST_VALUE_BYTES => {
            Some(format!("the value is longer than {MOST_VALUE_BYTES} bytes"))
        }
        Ok(_) if HeaderValue::from_str(value).is_err() => {
            Some("the value can't be that of a header; write visible ASCII on one line".to_owned())
        }
        Ok(_) => None,
    };
    match problem {
        Some(problem) => {
            findings.add(Reason::UnsupportedValue, path, problem);
            None
        }
        None => Some((name.to_ascii_lowercase(), value.to_owned())),
    }
}
