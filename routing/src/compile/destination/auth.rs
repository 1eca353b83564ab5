//! The ways to authenticate that take more than a header: OAuth 2 and AWS.

use super::{Findings, Reason, Taken, header_secret, url_problem};
use crate::row::{Auth, ClientAuthentication};

pub(super) fn oauth2(
    written: &crds::OAuth2Auth,
    taken: &mut Taken<'_>,
    findings: &mut Findings,
) -> Option<Auth> {
    let path = "spec.http.auth.oauth2";
    if let Some(problem) = url_problem(&written.token_url) {
        findings.add(Reason::InvalidUrl, format!("{path}.tokenUrl"), problem);
    } else if written.token_url.contains(['{', '}']) {
        let message = "no placeholders stand in the URL that gives out tokens";
        findings.add(Reason::InvalidUrl, format!("{path}.tokenUrl"), message);
    }
    for (n, scope) in written.scopes.iter().enumerate() {
        // RFC 6749, section 3.3.
        let plain = |b: u8| matches!(b, 0x21 | 0x23..=0x5b | 0x5d..=0x7e);
        if scope.is_empty() || !scope.bytes().all(plain) {
            let message = format!("`{scope}` is no scope; write one a line, without spaces");
            findings.add(
                Reason::UnsupportedValue,
                format!("{path}.scopes[{n}]"),
                message,
            );
        }
    }
    let secret = &written.secret_ref.name;
    let path = format!("{path}.secretRef");
    let client_id = held(secret, "client_id", &path, taken, findings);
    // A Secret that isn't there is said once.
    let client_secret = (client_id.is_some() || taken.has(secret, "client_secret"))
        .then(|| held(secret, "client_secret", &path, taken, findings))
        .flatten();
    Some(Auth::Oauth2 {
        token_url: written.token_url.clone(),
        scopes: written.scopes.clone(),
        audience: written.audience.clone(),
        client_authentication: match written.client_authentication {
            Some(crds::ClientAuthentication::Post) => ClientAuthentication::Post,
            Some(crds::ClientAuthentication::Basic) | None => ClientAuthentication::Basic,
        },
        client_id: client_id?,
        client_secret: client_secret?,
    })
}

pub(super) fn sigv4(
    written: &crds::AwsSigV4Auth,
    taken: &mut Taken<'_>,
    findings: &mut Findings,
) -> Option<Auth> {
    let path = "spec.http.auth.awsSigV4";
    for (field, value) in [("region", &written.region), ("service", &written.service)] {
        let letters = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
        if value.is_empty() || !value.bytes().all(letters) {
            let message = format!(
                "`{value}` is no name of Amazon's; write lower-case letters, digits and dashes, as `eu-west-1` or `execute-api`"
            );
            findings.add(Reason::UnsupportedValue, format!("{path}.{field}"), message);
        }
    }
    let path = format!("{path}.credentialsRef");
    let Some(reference) = &written.credentials_ref else {
        // The pod's own identity would let any namespace act as the gateway.
        let message =
            "credentials are needed: name a Secret with access_key_id and secret_access_key";
        findings.add(Reason::UnsupportedValue, path, message);
        return None;
    };
    let secret = &reference.name;
    let access_key_id = held(secret, "access_key_id", &path, taken, findings);
    let secret_access_key = (access_key_id.is_some() || taken.has(secret, "secret_access_key"))
        .then(|| held(secret, "secret_access_key", &path, taken, findings))
        .flatten();
    let session_token = taken
        .has(secret, "session_token")
        .then(|| held(secret, "session_token", &path, taken, findings))
        .flatten();
    Some(Auth::AwsSigV4 {
        region: written.region.clone(),
        service: written.service.clone(),
        access_key_id: access_key_id?,
        secret_access_key: secret_access_key?,
        session_token,
    })
}

/// A key of fixed name that is sent, or signed with, as one line.
fn held(
    secret: &str,
    key: &str,
    path: &str,
    taken: &mut Taken<'_>,
    findings: &mut Findings,
) -> Option<crate::row::SecretIndex> {
    let reference = crds::SecretKeyRef {
        name: secret.to_owned(),
        key: key.to_owned(),
    };
    header_secret(&reference, path, taken, findings)
}

/// The headers, in lower case, that a way of authenticating sets.
pub(super) fn headers(auth: &Auth) -> Vec<&str> {
    match auth {
        Auth::Basic { .. } | Auth::Bearer { .. } | Auth::Oauth2 { .. } => vec!["authorization"],
        Auth::ApiKey { header, .. } => vec![header],
        Auth::AwsSigV4 { .. } => crate::sign::sigv4::HEADERS.to_vec(),
    }
}
