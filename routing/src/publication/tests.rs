use super::*;
use expect_test::{Expect, expect};
use http::{HeaderName, HeaderValue};

const NOW: &str = "2026-11-21T12:00:00Z";

fn read_as(
    content_type: &'static str,
    query: &str,
    body: &[u8],
    batch: bool,
) -> Result<Publication, Problem> {
    let mut headers = HeaderMap::new();
    headers.insert("content-type", HeaderValue::from_static(content_type));
    let body = Bytes::copy_from_slice(body);
    read(&headers, query, &body, batch, NOW.parse().unwrap())
}

fn plain(query: &str, body: &str) -> Result<Publication, Problem> {
    read_as("application/json", query, body.as_bytes(), false)
}

fn check(read: Result<Publication, Problem>, expected: Expect) {
    let text = match read {
        Err(problem) => format!("{problem:?}"),
        Ok(publication) => {
            let mut text = String::new();
            for event in &publication.events {
                let body = std::str::from_utf8(&event.body).unwrap();
                text += &format!("{:?} {body}\n", event.event_type().unwrap_or_default());
                assert_eq!(
                    serde_json::from_slice::<Value>(&event.body).unwrap(),
                    event.json
                );
            }
            if let Some(due) = publication.due {
                text += &format!("at {due}\n");
            }
            text
        }
    };
    expected.assert_eq(&text);
}

#[test]
fn a_plain_event_stays_as_it_is() {
    check(
        plain(
            "",
            " {\"type\": \"order.paid\", \"n\": 1.00, \"timezone\": \"mine\"}",
        ),
        expect![[r#"
            "order.paid"  {"type": "order.paid", "n": 1.00, "timezone": "mine"}
        "#]],
    );
    check(
        plain("", "[1]"),
        expect![[
            r#"Invalid("an event is a JSON object, as {\"type\": \"order.paid\", \"data\": {…}}")"#
        ]],
    );
    check(
        plain("", "no"),
        expect![[r#"Invalid("an event is a JSON object: expected ident at line 1 column 2")"#]],
    );
    check(
        plain("when=now", "{}"),
        expect![[
            r#"Invalid("the URL's query has `when`; what it can have is postAt, postIn, postAtLocal, timezone")"#
        ]],
    );
}

#[test]
fn the_fields_that_say_when_are_taken_out_and_the_others_keep_their_bytes() {
    check(
        plain(
            "",
            r#"{"type":"t","postIn":"90m", "n":  1.00, "big":12345678901234567890123,"a\u0062":"\u00e9"}"#,
        ),
        expect![[r#"
            "t" {"type":"t","n":1.00,"big":12345678901234567890123,"ab":"\u00e9"}
            at 2026-11-21T13:30:00Z
        "#]],
    );
    check(
        plain("postIn=10y", r#"{}"#),
        expect![[
            r#"Invalid("`postIn`: `10y` is not a duration; write a whole number and a unit (ms, s, m, h, d), as `30s`, `5m`, `24h`, `30d` or `1h30m`")"#
        ]],
    );
    check(
        plain("postIn=1m", r#"{"postIn":"1m"}"#),
        expect![[r#"Invalid("`postIn` is given twice")"#]],
    );
    check(
        plain("", r#"{"postIn":60}"#),
        expect![[r#"Invalid("`postIn` says when to publish, and is a text")"#]],
    );
}

fn due(query: &str) -> String {
    match plain(query, "{}") {
        Ok(publication) => publication
            .due
            .map_or_else(|| "now".to_owned(), |due| due.to_string()),
        Err(Problem::Invalid(problem) | Problem::Passed(problem)) => problem,
        Err(other) => format!("{other:?}"),
    }
}

#[test]
fn exactly_one_time_is_given() {
    let berlin = "timezone=Europe/Berlin";
    for (query, expected) in [
        (String::new(), "now"),
        ("postAt=2026-12-24T18:00:00Z".into(), "2026-12-24T18:00:00Z"),
        (
            "postAt=2026-12-24T18:00:00%2B01:00".into(),
            "2026-12-24T17:00:00Z",
        ),
        ("postIn=1d".into(), "2026-11-22T12:00:00Z"),
        (
            format!("postAtLocal=2026-12-24T18:00:00&{berlin}"),
            "2026-12-24T17:00:00Z",
        ),
        (
            format!("postAtLocal=2026-12-24T18:00&{berlin}"),
            "2026-12-24T17:00:00Z",
        ),
        (
            "postAtLocal=2026-12-24T18:00:00".into(),
            "`postAtLocal` needs `timezone`, as `Europe/Berlin`",
        ),
        (
            berlin.into(),
            "`timezone` goes with `postAtLocal`, which is missing",
        ),
        (
            format!("postIn=1d&{berlin}"),
            "`timezone` goes with `postAtLocal`; `postAt` has its offset and `postIn` needs none",
        ),
        (
            "postIn=1d&postAt=2026-12-24T18:00:00Z".into(),
            "give exactly one of `postAt`, `postIn` and `postAtLocal`",
        ),
        (
            format!("postIn=1d&postAtLocal=2026-12-24T18:00:00&{berlin}"),
            "give exactly one of `postAt`, `postIn` and `postAtLocal`",
        ),
        (
            "postAt=2026-12-24T18:00:00".into(),
            "`postAt` is a time with its offset as RFC 3339 writes it, as `2026-12-24T18:00:00Z`; `2026-12-24T18:00:00` is none",
        ),
        (
            format!("postAtLocal=2026-12-24T18:00:00Z&{berlin}"),
            "`postAtLocal` is a date and a time without an offset, as `2026-12-24T18:00:00`; `2026-12-24T18:00:00Z` is none",
        ),
        (
            "postAtLocal=2026-12-24T18:00:00&timezone=Mars/Olympus".into(),
            "`timezone` is a name of the IANA database, as `Europe/Berlin`; `Mars/Olympus` is none",
        ),
        ("postAt=2026-11-21T11:56:00Z".into(), "2026-11-21T11:56:00Z"),
        (
            "postAt=2026-11-21T11:54:00Z".into(),
            "2026-11-21T11:54:00Z has passed; leave the time out to publish now",
        ),
        (
            "postAt=2037-01-01T00:00:00Z".into(),
            "2037-01-01T00:00:00Z is more than ten years ahead",
        ),
    ] {
        assert_eq!(due(&query), expected, "{query}");
    }
}

#[test]
fn a_gap_moves_forward_and_an_overlap_takes_the_earlier() {
    for (local, zone, expected) in [
        // Clocks go from 2:00 to 3:00.
        (
            "2027-03-28T01:59:59",
            "Europe/Berlin",
            "2027-03-28T00:59:59Z",
        ),
        (
            "2027-03-28T02:30:00",
            "Europe/Berlin",
            "2027-03-28T01:30:00Z",
        ),
        (
            "2027-03-28T03:00:00",
            "Europe/Berlin",
            "2027-03-28T01:00:00Z",
        ),
        // Clocks go from 3:00 back to 2:00.
        (
            "2027-10-31T02:30:00",
            "Europe/Berlin",
            "2027-10-31T00:30:00Z",
        ),
        (
            "2027-10-31T03:00:00",
            "Europe/Berlin",
            "2027-10-31T02:00:00Z",
        ),
        (
            "2027-03-14T02:30:00",
            "America/New_York",
            "2027-03-14T07:30:00Z",
        ),
        (
            "2027-11-07T01:30:00",
            "America/New_York",
            "2027-11-07T05:30:00Z",
        ),
        // Half an hour only.
        (
            "2027-10-03T02:15:00",
            "Australia/Lord_Howe",
            "2027-10-02T15:45:00Z",
        ),
        ("2027-06-01T12:00:00", "utc", "2027-06-01T12:00:00Z"),
    ] {
        assert_eq!(
            due(&format!("postAtLocal={local}&timezone={zone}")),
            expected,
            "{local} {zone}"
        );
    }
}

#[test]
fn a_batch_is_read_event_by_event() {
    let batch = |body: &str| read_as("application/json", "", body.as_bytes(), true);
    check(
        batch(r#"{"events": [{"type":"a"}, {"type": "b" }]}"#),
        expect![[r#"
            "a" {"type":"a"}
            "b" {"type": "b" }
        "#]],
    );
    check(
        batch(r#"{"events": []}"#),
        expect![[r#"Invalid("a batch has one event at least")"#]],
    );
    check(
        batch(r#"{"events": [{}, 1]}"#),
        expect![[
            r#"Invalid("event 1 of the batch: an event is a JSON object, as {\"type\": \"order.paid\", \"data\": {…}}")"#
        ]],
    );
    check(
        batch(r#"{"events": [{"postIn":"1m"}]}"#),
        expect![[
            r#"Invalid("event 0 of the batch: `postIn` can't stand within a batch; give it in the URL's query, for all of them")"#
        ]],
    );
    check(
        batch(r#"{"type":"a"}"#),
        expect![[
            r#"Invalid("a batch is a JSON object as {\"events\": [{…}, {…}]}: unknown field `type`, expected `events` at line 1 column 7")"#
        ]],
    );
    let many = |count| format!(r#"{{"events":[{}]}}"#, vec!["{}"; count].join(","));
    assert_eq!(batch(&many(MOST_EVENTS)).unwrap().events.len(), MOST_EVENTS);
    assert_eq!(batch(&many(MOST_EVENTS + 1)).unwrap_err(), Problem::TooMany);
}

#[test]
fn cloudevents_are_read_in_their_three_modes() {
    let event = r#"{"specversion":"1.0","id":"1","source":"/s","type":"t","postIn":"1m"}"#;
    // An extension's name has no capitals.
    check(
        read_as("application/cloudevents+json", "", event.as_bytes(), false),
        expect![[r#"Invalid("`postIn` can't be the name of an attribute: that is a-z and 0-9")"#]],
    );
    let event = r#"{"specversion":"1.0","id":"1","source":"/s","type":"t","data":[1]}"#;
    let once = format!("\"t\" {event}\nat 2026-11-21T12:01:00Z\n");
    let read = read_as(
        "application/cloudevents+json; charset=utf-8",
        "postIn=1m",
        event.as_bytes(),
        false,
    );
    let publication = read.unwrap();
    assert!(publication.cloud_events);
    assert_eq!(
        (&publication.events[0].body[..], publication.due.is_some()),
        (event.as_bytes(), true),
        "{once}"
    );
    let batch = format!("[{event}, {event}]");
    for url_says_so in [false, true] {
        let read = read_as(
            "application/cloudevents-batch+json",
            "",
            batch.as_bytes(),
            url_says_so,
        );
        assert_eq!(read.unwrap().events.len(), 2);
    }
    check(
        read_as("application/cloudevents-batch+json", "", b"[{}]", false),
        expect![[r#"Invalid("event 0 of the batch: `specversion` must be \"1.0\"")"#]],
    );
    assert_eq!(
        read_as("application/cloudevents+avro", "", b"", false).unwrap_err(),
        Problem::Format
    );

    let mut headers = HeaderMap::new();
    for (name, value) in [
        ("ce-specversion", "1.0"),
        ("ce-id", "1"),
        ("ce-source", "/s"),
        ("ce-type", "t"),
    ] {
        headers.insert(
            HeaderName::from_static(name),
            HeaderValue::from_static(value),
        );
    }
    let now = NOW.parse().unwrap();
    let read =
        |headers: &HeaderMap| super::read(headers, "", &Bytes::from_static(b"[1]"), false, now);
    check(
        read(&headers),
        expect![[r#"
        "t" {"specversion":"1.0","id":"1","source":"/s","type":"t","data":[1]}
    "#]],
    );
    headers.remove("ce-id");
    check(
        read(&headers),
        expect![[r#"Invalid("the attribute `id` is required, as a text that is not empty")"#]],
    );
}
