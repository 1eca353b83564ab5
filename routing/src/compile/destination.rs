//! A Destination, and how an HTTP one is reached.

mod auth;
mod signing;
mod tls;

use super::{
    delivery,
    findings::{Findings, Reason},
    retry,
    secrets::Taken,
};
use crate::{
    cloudevents, duration,
    payload::{self, Template},
    row::{Auth, DestinationSpec, HttpSpec, Provider, SecretIndex, Tls},
    url,
};
use http::{HeaderName, HeaderValue, Uri};
use std::{net::Ipv6Addr, time::Duration};

/// What `timeout` is when it isn't written.
pub const DEFAULT_TIMEOUT: Duration = Duration::from_secs(30);

/// An attempt that takes longer holds a place that others wait for.
const LONGEST_TIMEOUT: Duration = Duration::from_secs(10 * 60);

/// What `concurrency` is when it isn't written.
pub const DEFAULT_CONCURRENCY: u32 = 20;

const MOST_CONCURRENCY: u32 = 1_000;

/// Headers of the connection rather than of the request, or ones that the client must set itself.
const FIXED_HEADERS: [&str; 11] = [
    "connection",
    "content-length",
    "expect",
    "host",
    "keep-alive",
    "proxy-authorization",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
];

pub(super) fn compile(
    spec: &crds::DestinationSpec,
    taken: &mut Taken<'_>,
    findings: &mut Findings,
) -> Option<DestinationSpec> {
    let others = [
        (spec.sqs.is_some(), "spec.sqs"),
        (spec.s3.is_some(), "spec.s3"),
        (spec.eventbridge.is_some(), "spec.eventbridge"),
        (spec.pubsub.is_some(), "spec.pubsub"),
        (spec.kafka.is_some(), "spec.kafka"),
        (spec.rabbitmq.is_some(), "spec.rabbitmq"),
        (spec.websocket.is_some(), "spec.websocket"),
    ];
    let providers =
        others.iter().filter(|(there, _)| *there).count() + usize::from(spec.http.is_some());
    if providers != 1 {
        let message = "write exactly one of http, sqs, s3, eventbridge, pubsub, kafka, rabbitmq and websocket";
        findings.add(Reason::UnsupportedValue, "spec", message);
    }
    for (there, path) in others {
        findings.not_implemented(there, path);
    }

    let retry = spec
        .retry
        .as_ref()
        .map(|written| retry::compile(written, "spec.retry", findings));
    let concurrency = concurrency(spec.concurrency, findings);
    let circuit = delivery::circuit(spec.circuit_breaker.as_ref(), findings);
    let rate_limit = delivery::rate_limit(spec.rate_limit.as_ref(), findings);
    let order = delivery::order(spec.ordering.as_ref(), findings);
    let http = spec
        .http
        .as_ref()
        .map(|written| http(spec, written, taken, findings))?;
    Some(DestinationSpec {
        suspended: spec.suspend.unwrap_or(false),
        provider: Provider::Http(http),
        retry: retry.unwrap_or_default(),
        concurrency,
        circuit: Some(circuit),
        rate_limit,
        order,
    })
}

fn concurrency(written: Option<i32>, findings: &mut Findings) -> u32 {
    let Some(written) = written else {
        return DEFAULT_CONCURRENCY;
    };
    match u32::try_from(written) {
        Ok(concurrency @ 1..=MOST_CONCURRENCY) => concurrency,
        _ => {
            let message = format!(
                "`{written}` is out of range; write 1 to {MOST_CONCURRENCY}, or `suspend: true` to hold deliveries"
            );
            findings.add(Reason::UnsupportedValue, "spec.concurrency", message);
            DEFAULT_CONCURRENCY
        }
    }
}

fn http(
    spec: &crds::DestinationSpec,
    written: &crds::HttpProvider,
    taken: &mut Taken<'_>,
    findings: &mut Findings,
) -> HttpSpec {
    check_url(&written.url, findings);
    let headers = headers(written, findings);
    let service = written.template.as_deref();
    let auth = written
        .auth
        .as_ref()
        .and_then(|auth| authenticated(auth, service, taken, findings));
    let (template, auth) = template(service, auth, findings);
    check_auth_header(auth.as_ref(), &headers, findings);
    let timeout = timeout(written.timeout.as_ref(), findings);
    let tls = written
        .tls
        .as_ref()
        .map(|written| tls::compile(written, taken, findings));
    let signing = spec
        .signing
        .as_ref()
        .and_then(|written| signing::compile(written, &headers, taken, findings));
    HttpSpec {
        url: written.url.clone(),
        method: written.method.map(|method| method.as_str().to_owned()),
        headers,
        timeout,
        auth,
        tls: tls.filter(|tls| *tls != Tls::default()),
        template,
        cloud_events: cloud_events(written, findings),
        signing,
    }
}

/// The service whose shape the payload gets. PagerDuty's key travels in the payload, so it is taken from `auth`.
fn cloud_events(
    written: &crds::HttpProvider,
    findings: &mut Findings,
) -> Option<cloudevents::Mode> {
    let mode = match written.cloud_events? {
        crds::CloudEventsMode::Binary => cloudevents::Mode::Binary,
        crds::CloudEventsMode::Structured => cloudevents::Mode::Structured,
    };
    if let Some(template) = &written.template {
        let message = format!(
            "the payload is `{template}`'s or a CloudEvent; leave `cloudEvents` or `template` out"
        );
        findings.add(Reason::UnsupportedValue, "spec.http.cloudEvents", message);
    }
    Some(mode)
}

fn template(
    written: Option<&str>,
    auth: Option<Auth>,
    findings: &mut Findings,
) -> (Option<Template>, Option<Auth>) {
    let path = "spec.http.template";
    let template = match written {
        None => return (None, auth),
        Some("slack") => Template::Slack {},
        Some("discord") => Template::Discord {},
        Some("datadog") => Template::Datadog {},
        Some("zapier") => Template::Zapier {},
        Some("linear") => Template::Linear {},
        Some("pagerduty") => {
            let Some(Auth::ApiKey { key, .. }) = auth else {
                let message = "pagerduty needs the integration's routing key: name the Secret that holds it in `auth.apiKey.secretRef`; it is sent in the payload";
                findings.add(Reason::UnsupportedValue, path, message);
                return (None, auth);
            };
            return (Some(Template::Pagerduty { routing_key: key }), None);
        }
        Some(other) => {
            let message = format!(
                "there is no template `{other}`; there are {}",
                payload::NAMES.join(", ")
            );
            findings.add(Reason::UnsupportedValue, path, message);
            return (None, auth);
        }
    };
    (Some(template), auth)
}

fn check_url(url: &str, findings: &mut Findings) {
    let problem = match url::Template::parse(url) {
        Ok(template) => url_problem(&template.fill("path", "query")),
        Err(problem) => Some(problem.to_owned()),
    };
    if let Some(problem) = problem {
        findings.add(Reason::InvalidUrl, "spec.http.url", problem);
    }
}

/// What keeps a URL from being one that a delivery can go to. It isn't repeated: it may hold a password.
fn url_problem(url: &str) -> Option<String> {
    let say = |problem: &str| Some(problem.to_owned());
    if !url.is_ascii() {
        return say(
            "the URL has letters beyond ASCII; write the host in punycode and the path percent-encoded",
        );
    }
    if url.contains('#') {
        return say("a fragment (`#…`) never reaches the server; leave it out");
    }
    // Before the parser's word, which has none for what is missing here.
    let begins_with = |scheme: &str| {
        url.get(..scheme.len())
            .is_some_and(|start| start.eq_ignore_ascii_case(scheme))
    };
    if !begins_with("https://") && !begins_with("http://") {
        return say("the URL must begin with `https://` or `http://`");
    }
    let Ok(uri) = url.parse::<Uri>() else {
        return say("this is no URL; write one as `https://example.com/hooks`");
    };
    let authority = uri
        .authority()
        .map(|authority| authority.as_str())
        .unwrap_or_default();
    if authority.contains('@') {
        return say(
            "a user or password in the URL would be readable to everybody who can read this object; use `auth.basic`",
        );
    }
    let host = uri.host().unwrap_or_default();
    let letters = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_');
    let plausible = match host
        .strip_prefix('[')
        .and_then(|host| host.strip_suffix(']'))
    {
        Some(address) => address.parse::<Ipv6Addr>().is_ok(),
        None => !host.is_empty() && host.len() <= 253 && host.bytes().all(letters),
    };
    if !plausible {
        return say(
            "the URL has no host that can be looked up; write one as `https://example.com/hooks`",
        );
    }
    // What follows the host is a port or nothing, and the parser leaves `host:` and `host:99999` to us.
    let port = authority.strip_prefix(host).unwrap_or_default();
    if !port.is_empty() && !matches!(uri.port_u16(), Some(1..)) {
        return say("the port must be a number from 1 to 65535");
    }
    None
}

fn headers(written: &crds::HttpProvider, findings: &mut Findings) -> Vec<(String, String)> {
    let mut headers: Vec<(String, String)> = Vec::with_capacity(written.headers.len());
    for (name, value) in &written.headers {
        let path = format!("spec.http.headers[{name}]");
        let Some(lower) = header_name(name, &path, findings) else {
            continue;
        };
        if headers.iter().any(|(other, _)| *other == lower) {
            let message = format!("`{lower}` is there twice, in another case; write it once");
            findings.add(Reason::UnsupportedValue, path, message);
            continue;
        }
        if HeaderValue::from_str(value).is_err() {
            let message = "a header's value is one line of visible ASCII characters";
            findings.add(Reason::UnsupportedValue, path, message);
            continue;
        }
        headers.push((lower, value.clone()));
    }
    headers.sort();
    headers
}

/// In lower case, if it is a name that may be set.
fn header_name(name: &str, path: &str, findings: &mut Findings) -> Option<String> {
    let lower = HeaderName::from_bytes(name.as_bytes()).map(|name| name.as_str().to_owned());
    let problem = match &lower {
        Err(_) => format!("`{name}` can't be the name of a header"),
        Ok(lower) if FIXED_HEADERS.contains(&lower.as_str()) => {
            format!("`{name}` belongs to the connection and is set by the gateway; leave it out")
        }
        Ok(lower) if lower.starts_with("x-hookstream-") || lower.starts_with("webhook-") => {
            format!("`{name}` is set by hookstream on every delivery; choose another name")
        }
        Ok(_) => return lower.ok(),
    };
    findings.add(Reason::UnsupportedValue, path, problem);
    None
}

fn timeout(written: Option<&crds::Duration>, findings: &mut Findings) -> Duration {
    let path = "spec.http.timeout";
    let Some(written) = written else {
        return DEFAULT_TIMEOUT;
    };
    match findings.value(duration::parse(&written.0), Reason::UnsupportedValue, path) {
        Some(timeout) if timeout.is_zero() || timeout > LONGEST_TIMEOUT => {
            let message = format!("`{}` is out of range; write `1ms` to `10m`", written.0);
            findings.add(Reason::UnsupportedValue, path, message);
            DEFAULT_TIMEOUT
        }
        Some(timeout) => timeout,
        None => DEFAULT_TIMEOUT,
    }
}

/// `service` is the template's: two of them have a header of their own for their key.
fn authenticated(
    written: &crds::HttpAuth,
    service: Option<&str>,
    taken: &mut Taken<'_>,
    findings: &mut Findings,
) -> Option<Auth> {
    let ways = [
        written.basic.is_some(),
        written.bearer.is_some(),
        written.api_key.is_some(),
        written.oauth2.is_some(),
        written.aws_sig_v4.is_some(),
    ];
    if ways.into_iter().filter(|&there| there).count() != 1 {
        let message = "write exactly one of basic, bearer, apiKey, oauth2 and awsSigV4";
        findings.add(Reason::UnsupportedValue, "spec.http.auth", message);
        return None;
    }
    if let Some(oauth2) = &written.oauth2 {
        return auth::oauth2(oauth2, taken, findings);
    }
    if let Some(sigv4) = &written.aws_sig_v4 {
        return auth::sigv4(sigv4, taken, findings);
    }
    if let Some(basic) = &written.basic {
        return basic_auth(&basic.secret_ref.name, taken, findings);
    }
    if let Some(bearer) = &written.bearer {
        let path = "spec.http.auth.bearer.secretRef";
        let reference = &bearer.secret_ref;
        return header_secret(reference, path, taken, findings).map(|token| Auth::Bearer { token });
    }
    let api_key = written.api_key.as_ref()?;
    let header = api_key.header.as_deref().unwrap_or(match service {
        Some("datadog") => "dd-api-key",
        Some("linear") => "authorization",
        _ => "x-api-key",
    });
    let header = header_name(header, "spec.http.auth.apiKey.header", findings);
    let key = header_secret(
        &api_key.secret_ref,
        "spec.http.auth.apiKey.secretRef",
        taken,
        findings,
    );
    Some(Auth::ApiKey {
        header: header?,
        key: key?,
    })
}

fn basic_auth(secret: &str, taken: &mut Taken<'_>, findings: &mut Findings) -> Option<Auth> {
    let path = "spec.http.auth.basic.secretRef";
    let username = taken.take(secret, "username", path, findings);
    // Everything up to the first colon is the name to the receiver (RFC 7617).
    let colon = username
        .as_ref()
        .is_some_and(|(_, name)| name.expose().contains(&b':'));
    let username = username.map(|(place, _)| place);
    if colon {
        let message = format!(
            "the value of key `username` in Secret `{secret}` has a colon, which basic authentication can't carry"
        );
        findings.add(Reason::UnsupportedValue, path, message);
    }
    // A Secret that isn't there is said once.
    let username = username?;
    let (password, _) = taken.take(secret, "password", path, findings)?;
    Some(Auth::Basic { username, password })
}

/// A secret that is sent in a header, and so must be able to be in one.
fn header_secret(
    reference: &crds::SecretKeyRef,
    path: &str,
    taken: &mut Taken<'_>,
    findings: &mut Findings,
) -> Option<SecretIndex> {
    let (place, secret) = taken.take(&reference.name, &reference.key, path, findings)?;
    let problem = match HeaderValue::from_bytes(secret.expose()) {
        _ if secret.expose().is_empty() => Some("is empty"),
        Err(_) => {
            Some("has characters that a header can't hold; often that is a line break at its end")
        }
        Ok(_) => None,
    };
    if let Some(problem) = problem {
        let message = format!(
            "the value of key `{}` in Secret `{}` {problem}",
            reference.key, reference.name
        );
        findings.add(Reason::UnsupportedValue, path, message);
    }
    Some(place)
}

/// Two values for one header would leave to chance which one counts.
fn check_auth_header(auth: Option<&Auth>, headers: &[(String, String)], findings: &mut Findings) {
    for set_by_auth in auth.map(auth::headers).unwrap_or_default() {
        if headers.iter().any(|(name, _)| name == set_by_auth) {
            let message =
                format!("`{set_by_auth}` is set by `auth` as well; write it in one place");
            findings.add(
                Reason::UnsupportedValue,
                format!("spec.http.headers[{set_by_auth}]"),
                message,
            );
        }
    }
}
