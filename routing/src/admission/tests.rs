use super::*;

fn ip_filter(deny: &[&str], allow: &[&str]) -> IpFilter {
    let owned = |entries: &[&str]| entries.iter().map(|&entry| entry.to_owned()).collect();
    IpFilter::new(&IpFilterSpec {
        deny: owned(deny),
        allow: owned(allow),
    })
}

#[test]
fn denied_is_denied_whatever_is_allowed() {
    let filter = ip_filter(
        &["10.6.6.6", "2001:db8:bad::/48"],
        &["10.0.0.0/8", "2001:db8::/32"],
    );
    for (sender, expected) in [
        ("10.6.6.5", Ok(())),
        ("10.6.6.6", Err(Blocked::Denied)),
        ("::ffff:10.6.6.6", Err(Blocked::Denied)),
        ("192.0.2.1", Err(Blocked::NotAllowed)),
        ("2001:db8:900d::1", Ok(())),
        ("2001:db8:bad::1", Err(Blocked::Denied)),
        ("fe80::1", Err(Blocked::NotAllowed)),
    ] {
        assert_eq!(filter.judge(sender.parse().unwrap()), expected, "{sender}");
    }
    let deny_only = ip_filter(&["10.6.6.6"], &[]);
    assert_eq!(deny_only.judge("192.0.2.1".parse().unwrap()), Ok(()));
    assert_eq!(
        deny_only.judge("10.6.6.6".parse().unwrap()),
        Err(Blocked::Denied)
    );
}

#[test]
fn a_content_type_is_compared_without_case_and_parameters() {
    let types = ContentTypes::new(&[
        "application/json".to_owned(),
        "Text/*".to_owned(),
        "application/*+xml".to_owned(),
    ]);
    for (sent, admitted) in [
        ("application/json", true),
        ("Application/JSON; charset=utf-8", true),
        ("application/json ;charset=utf-8", true),
        ("application/json5", false),
        ("application/jso", false),
        ("text/plain", true),
        ("TEXT/csv", true),
        ("text/", false),
        ("text", false),
        ("application/atom+xml", true),
        ("application/+xml", false),
        ("application/xml", false),
        ("", false),
        (";application/json", false),
    ] {
        assert_eq!(types.admit(sent.as_bytes()), admitted, "{sent}");
    }
}

#[test]
fn what_is_no_media_type_is_told() {
    for (written, fine) in [
        ("application/json", true),
        ("application/vnd.github.v3+json", true),
        ("text/*", true),
        ("application/*+json", true),
        ("application/*json", false),
        ("*/*", false),
        ("json", false),
        ("application/", false),
        ("application/json; charset=utf-8", false),
        ("a/b/c", false),
        ("", false),
    ] {
        assert_eq!(content_type_problem(written).is_none(), fine, "{written}");
    }
}

fn cors(origins: &[&str]) -> Cors {
    Cors::new(&CorsSpec {
        allow_origins: origins.iter().map(|&origin| origin.to_owned()).collect(),
        allow_headers: vec!["content-type".to_owned()],
        allow_methods: vec!["POST".to_owned()],
        max_age_seconds: 600,
    })
}

#[test]
fn an_origin_is_one_of_the_written_ones_or_below_one() {
    let some = cors(&[
        "https://app.example.com",
        "https://*.example.org",
        "http://*.local:8080",
    ]);
    for (origin, allowed) in [
        ("https://app.example.com", true),
        ("http://app.example.com", false),
        ("https://app.example.com:8443", false),
        ("https://app.example.com.evil.net", false),
        ("https://example.org", false),
        ("https://a.example.org", true),
        ("https://a.b.example.org", true),
        ("https://.example.org", false),
        ("https://evil.net/.example.org", false),
        ("https://evil.net?.example.org", false),
        ("https://user@a.example.org", false),
        ("https://evilexample.org", false),
        ("http://a.local:8080", true),
        ("http://a.local", false),
        ("null", false),
        ("", false),
    ] {
        assert_eq!(some.allows(origin.as_bytes()), allowed, "{origin}");
    }
    assert!(cors(&["*"]).allows(b"https://anything"));
}

#[test]
fn what_no_browser_sends_as_an_origin_is_told() {
    for (written, fine) in [
        ("https://app.example.com", true),
        ("https://*.example.com", true),
        ("http://localhost:3000", true),
        ("http://[::1]:3000", true),
        ("*", true),
        ("https://App.example.com", false),
        ("https://app.example.com/", false),
        ("https://app.example.com:443", false),
        ("http://app.example.com:80", false),
        ("app.example.com", false),
        ("https://*", false),
        ("https://a.*.com", false),
        ("https://*.", false),
        ("ftp://a.example.com", false),
        ("null", false),
        ("https://", false),
    ] {
        assert_eq!(origin_problem(written).is_none(), fine, "{written}");
    }
}
