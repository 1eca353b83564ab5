//! Which headers travel: from the sender to the receiver, and from the receiver into the attempt's record.

use super::KEPT;
use ::http::{HeaderMap, HeaderName, HeaderValue, header::SET_COOKIE};
use bytes::{BufMut, Bytes, BytesMut};

/// Headers that describe the connection or the body's framing, and those whose values promise something of ours: a
/// destination's configuration can't set them.
pub(super) fn is_ours(name: &str) -> bool {
    matches!(
        name,
        "connection"
            | "content-length"
            | "expect"
            | "host"
            | "keep-alive"
            | "proxy-authorization"
            | "proxy-connection"
            | "te"
            | "trailer"
            | "transfer-encoding"
            | "upgrade"
            | "webhook-id"
            | "webhook-timestamp"
    ) || name.starts_with("x-hookstream-")
}

/// Is this header of the sender's given to receivers? `name` is lower-case.
pub(super) fn is_forwarded(name: &str) -> bool {
    if let Some(rest) = name.strip_prefix("x-") {
        // Bitbucket's event name only looks like a key.
        return rest == "event-key" || !is_kept_back(rest);
    }
    match name {
        "content-type" | "content-encoding" | "content-language" | "content-digest" | "digest"
        | "signature" | "signature-input" | "idempotency-key" => true,
        _ if name.starts_with("webhook-") => false,
        _ => {
            name.ends_with("-signature")
                || ["ce-", "svix-", "linear-", "sentry-hook-", "paypal-"]
                    .iter()
                    .any(|prefix| name.starts_with(prefix))
        }
    }
}

/// Of the `x-` headers (`rest` is without it): credentials, traces of proxies, and what frameworks take orders from.
fn is_kept_back(rest: &str) -> bool {
    const PREFIXES: [&str; 21] = [
        "forwarded",
        "real-ip",
        "hookstream-",
        "api-key",
        "auth",
        "envoy-",
        "b3-",
        "amzn-trace",
        "cloud-trace",
        "cluster-client",
        "client-ip",
        "original-",
        "http-method",
        "method-override",
        "rewrite-url",
        "accel-",
        // Whom a proxy found the caller to be, and by what: nothing that a receiver should believe from here.
        "amzn-oidc",
        "amzn-mtls",
        "goog-authenticated",
        "ms-client-principal",
        "ssl-client",
    ];
    // Without a dash where a word in front is written together with it, as in `accesstoken`.
    const SUFFIXES: [&str; 11] = [
        "token",
        "assertion",
        "jwt",
        "cert",
        "-secret",
        "-password",
        "-key",
        "-authorization",
        "-cookie",
        "-credential",
        "-credentials",
    ];
    PREFIXES.iter().any(|prefix| rest.starts_with(prefix))
        || SUFFIXES
            .iter()
            .any(|suffix| rest.ends_with(suffix) || rest == suffix.trim_start_matches('-'))
        || matches!(
            rest,
            "sendfile" | "request-id" | "csrftoken" | "remote-user" | "user" | "proxyuser-ip"
        )
}

/// Copies what is forwarded from `name: value\r\n` lines, in order, duplicates kept. Values are slices of the event's bytes.
pub(super) fn forward(lines: &Bytes, map: &mut HeaderMap) {
    let mut rest: &[u8] = lines;
    while !rest.is_empty() {
        let end = rest
            .windows(2)
            .position(|pair| pair == b"\r\n")
            .unwrap_or(rest.len());
        let line = &rest[..end];
        rest = &rest[(end + 2).min(rest.len())..];
        let Some(colon) = line.iter().position(|&byte| byte == b':') else {
            continue;
        };
        let (name, value) = (&line[..colon], line[colon + 1..].trim_ascii());
        let mut lower = [0_u8; 64];
        // No header that we forward has a longer name.
        let Some(lower) = lower.get_mut(..name.len()) else {
            continue;
        };
        lower.copy_from_slice(name);
        lower.make_ascii_lowercase();
        if !std::str::from_utf8(lower).is_ok_and(is_forwarded) {
            continue;
        }
        let (Ok(name), Ok(value)) = (
            HeaderName::from_bytes(lower),
            HeaderValue::from_maybe_shared(lines.slice_ref(value)),
        ) else {
            continue;
        };
        // A map holds 32,768 headers at most; ingest admits far fewer.
        let _ = map.try_append(name, value);
    }
}

/// An answer's headers as `name: value\r\n` lines, whole lines up to [`KEPT`] bytes. Without `Set-Cookie`: it is a
/// credential of the receiver's, and nobody reading an attempt needs it.
pub(super) fn lines(map: &HeaderMap) -> Bytes {
    let mut lines = BytesMut::with_capacity(256);
    for (name, value) in map {
        if name == SET_COOKIE {
            continue;
        }
        let length = name.as_str().len() + value.len() + 4;
        if lines.len() + length > KEPT {
            break;
        }
        lines.reserve(length);
        lines.put_slice(name.as_str().as_bytes());
        lines.put_slice(b": ");
        lines.put_slice(value.as_bytes());
        lines.put_slice(b"\r\n");
    }
    lines.freeze()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_receiver_gets_what_it_dispatches_and_verifies_by() {
        for name in [
            "content-type",
            "content-encoding",
            "x-github-event",
            "x-github-delivery",
            "x-hub-signature-256",
            "x-shopify-topic",
            "x-shopify-hmac-sha256",
            "x-gitlab-event",
            "x-twilio-signature",
            "stripe-signature",
            "linear-signature",
            "linear-event",
            "svix-id",
            "svix-signature",
            "ce-type",
            "paddle-signature",
            "x-amz-sns-message-type",
            "paypal-cert-url",
            "x-event-key",
            "signature",
        ] {
            assert!(is_forwarded(name), "{name}");
        }
    }

    #[test]
    fn credentials_proxies_and_orders_to_frameworks_stay_here() {
        for name in [
            "authorization",
            "cookie",
            "host",
            "content-length",
            "connection",
            "transfer-encoding",
            "te",
            "upgrade",
            "proxy-authorization",
            "user-agent",
            "accept",
            "accept-encoding",
            "x-forwarded-for",
            "x-forwarded",
            "x-forwarded-host",
            "forwarded",
            "x-real-ip",
            "x-api-key",
            "x-auth-token",
            "x-authorization",
            "x-gitlab-token",
            "x-hookstream-event-id",
            "x-http-method-override",
            "x-original-url",
            "x-rewrite-url",
            "x-request-id",
            "webhook-id",
            "webhook-signature",
            "x-csrf-token",
            "x-amzn-trace-id",
            "x-envoy-original-path",
            "x-token",
            "x-amzn-oidc-data",
            "x-amzn-oidc-accesstoken",
            "x-amzn-oidc-identity",
            "x-amzn-mtls-clientcert-leaf",
            "x-goog-iap-jwt-assertion",
            "x-goog-authenticated-user-email",
            "x-ms-client-principal",
            "x-ms-client-principal-id",
            "x-ms-token-aad-id-token",
            "x-arr-clientcert",
            "x-ssl-client-cert",
            "x-ssl-client-s-dn",
            "x-client-cert",
            "x-jwt",
            "x-user-jwt",
            "expect",
        ] {
            assert!(!is_forwarded(name), "{name}");
        }
    }

    #[test]
    fn lines_become_headers_in_order_with_duplicates_and_raw_bytes() {
        let lines = Bytes::from_static(b"Host: a\r\nX-GitHub-Event: push\r\nX-Twice: 1\r\nx-twice:2\r\nX-Raw: caf\xc3\xa9\r\nno colon\r\n: empty\r\nX-Bad Name: 1\r\nX-Last: 3");
        let mut map = HeaderMap::new();
        forward(&lines, &mut map);
        assert_eq!(map.get("x-github-event").unwrap(), "push");
        assert_eq!(
            map.get_all("x-twice").iter().collect::<Vec<_>>(),
            ["1", "2"]
        );
        assert_eq!(map.get("x-raw").unwrap().as_bytes(), b"caf\xc3\xa9");
        assert_eq!(map.get("x-last").unwrap(), "3");
        assert_eq!(map.len(), 5);
    }

    #[test]
    fn a_responses_headers_are_kept_up_to_the_bound_but_no_cookies() {
        let mut map = HeaderMap::new();
        map.insert("set-cookie", HeaderValue::from_static("session=1"));
        map.append("set-cookie", HeaderValue::from_static("token=2"));
        map.insert("content-type", HeaderValue::from_static("text/plain"));
        map.insert("x-long", HeaderValue::from_str(&"a".repeat(KEPT)).unwrap());
        assert_eq!(lines(&map), "content-type: text/plain\r\n");
    }
}
