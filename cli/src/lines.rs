//! One line per event and per attempt, for a person at a terminal.
//!
//! Pure: what was seen and when in, text out. Nothing of a request is shown but its method, path and size: headers and
//! bodies hold secrets. What a stranger sent can't move the cursor either: control characters are written out.

use gateway::seen::Seen;
use jiff::{Timestamp, tz::TimeZone};
use routing::{
    ids::{self, Prefix},
    retry::{Outcome, Step},
};
use std::{fmt::Write, time::Duration};
use uuid::Uuid;

/// How lines are written here.
#[derive(Debug, Clone)]
pub(crate) struct Style {
    /// Only for a terminal.
    pub(crate) colour: bool,
    pub(crate) zone: TimeZone,
}

const GREEN: &str = "32";
const YELLOW: &str = "33";
const RED: &str = "31";
const DIM: &str = "2";

impl Style {
    /// The line for something seen at `now`, without its line break.
    pub(crate) fn line(&self, seen: &Seen, now: Timestamp) -> String {
        match seen {
            Seen::Accepted {
                event_id,
                namespace,
                source,
                method,
                body_bytes,
                deliveries,
                took,
            } => {
                let to = match deliveries {
                    0 => "→ nowhere: no connection takes it".to_owned(),
                    1 => "→ 1 delivery".to_owned(),
                    n => format!("→ {n} deliveries"),
                };
                let name = qualified(namespace, source);
                self.put(
                    now,
                    GREEN,
                    "✓",
                    &format!(
                        "{name}  {method} 200  {}  {}  {}  {to}",
                        event(*event_id),
                        bytes(*body_bytes),
                        duration(*took)
                    ),
                )
            }
            Seen::Refused {
                request_id,
                source,
                method,
                path,
                status,
                code,
                message,
            } => {
                let name = source
                    .as_deref()
                    .map_or("?", |name| name.strip_prefix("default/").unwrap_or(name));
                self.put(
                    now,
                    RED,
                    "✗",
                    &format!("{name}  {method} {status}  {request_id}  {path}  {code}: {message}"),
                )
            }
            Seen::Attempted(report) => {
                let name = qualified(&report.destination.namespace, &report.destination.name);
                let (colour, mark, then) = match &report.step {
                    Step::Done => (GREEN, "→", "delivered".to_owned()),
                    Step::Filtered => (YELLOW, "∅", "nothing sent".to_owned()),
                    Step::RetryAt(at) => (
                        YELLOW,
                        "↻",
                        format!(
                            "next in {}",
                            duration(rounded(
                                at.duration_since(now).try_into().unwrap_or_default()
                            ))
                        ),
                    ),
                    Step::DeadLetter(reason) => (
                        RED,
                        "✗",
                        format!("given up ({}): dead letter", reason.as_str()),
                    ),
                };
                let answer = answer(&report.outcome, report.error.as_deref());
                self.put(
                    now,
                    colour,
                    mark,
                    &format!(
                        "{name}  attempt {}  {answer} in {}, {then}  {}",
                        report.attempt,
                        duration(report.took),
                        event(report.event_id)
                    ),
                )
            }
        }
    }

    /// A line of our own beside them.
    pub(crate) fn note(&self, text: &str) -> String {
        self.painted(DIM, &printable(text))
    }

    /// A line about a mistake.
    pub(crate) fn problem(&self, text: &str) -> String {
        format!("{} {}", self.painted(RED, "✗"), printable(text))
    }

    fn put(&self, now: Timestamp, colour: &str, mark: &str, text: &str) -> String {
        let time = now
            .to_zoned(self.zone.clone())
            .strftime("%H:%M:%S%.3f")
            .to_string();
        format!(
            "{} {} {}",
            self.painted(DIM, &time),
            self.painted(colour, mark),
            printable(text)
        )
    }

    fn painted(&self, colour: &str, text: &str) -> String {
        if self.colour {
            format!("\x1b[{colour}m{text}\x1b[0m")
        } else {
            text.to_owned()
        }
    }
}

/// A wait as it was meant: when its line is printed, a moment of it has passed.
fn rounded(wait: Duration) -> Duration {
    match wait.as_millis() {
        ..200 => wait,
        millis => Duration::from_millis(u64::try_from((millis + 25) / 50 * 50).unwrap_or(u64::MAX)),
    }
}

fn answer(outcome: &Outcome, error: Option<&str>) -> String {
    let word = match outcome {
        Outcome::Delivered { status } | Outcome::Refused { status, .. } => {
            return status.to_string();
        }
        Outcome::TimedOut => "timed out",
        Outcome::Unreachable => "unreachable",
        Outcome::Blocked => "blocked",
        Outcome::Filtered => "filtered",
        Outcome::Internal => "our own fault",
    };
    error.map_or_else(|| word.to_owned(), |error| format!("{word} ({error})"))
}

fn event(id: Uuid) -> String {
    ids::format(Prefix::Event, id)
}

fn qualified(namespace: &str, name: &str) -> String {
    if namespace == "default" {
        name.to_owned()
    } else {
        format!("{namespace}/{name}")
    }
}

/// Three figures at most, in the unit that suits.
pub(crate) fn duration(duration: Duration) -> String {
    let millis = duration.as_secs_f64() * 1e3;
    // Rounded first: a whisker less than a second is a second.
    let seconds = (millis / 1e3).round() as u64;
    match millis {
        ..9.95 => format!("{millis:.1} ms"),
        ..999.5 => format!("{millis:.0} ms"),
        ..59_500.0 if (millis / 1e3 - seconds as f64).abs() >= 0.05 => {
            format!("{:.1} s", millis / 1e3)
        }
        ..59_500.0 => format!("{seconds} s"),
        _ if seconds < 3600 && seconds.is_multiple_of(60) => format!("{} min", seconds / 60),
        _ if seconds < 3600 => format!("{} min {} s", seconds / 60, seconds % 60),
        _ => format!("{} h {} min", seconds / 3600, seconds % 3600 / 60),
    }
}

fn bytes(n: u64) -> String {
    match n {
        0..1024 => format!("{n} B"),
        1024..1_048_576 => format!("{:.1} KiB", n as f64 / 1024.0),
        _ => format!("{:.1} MiB", n as f64 / 1_048_576.0),
    }
}

fn printable(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        if c.is_control() {
            let _ = write!(out, "{}", c.escape_default());
        } else {
            out.push(c);
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use gateway::scheduler::Report;
    use routing::{
        retry::{Backoff, GaveUp, Policy},
        row::{DestinationSpec, HttpSpec, Provider},
        table::Destination,
    };
    use std::sync::Arc;

    fn plain() -> Style {
        Style {
            colour: false,
            zone: TimeZone::UTC,
        }
    }

    fn now() -> Timestamp {
        "2026-11-21T12:03:04.123Z".parse().expect("a time")
    }

    fn attempt(outcome: Outcome, error: Option<&str>, step: Step) -> Seen {
        let policy = Policy {
            backoff: Backoff::Fixed,
            intervals_ms: vec![1000],
            max_retries: 1,
            retry_on: vec![],
            ..Policy::default()
        };
        let http = HttpSpec {
            url: "http://127.0.0.1/".into(),
            timeout: Duration::from_secs(1),
            ..HttpSpec::default()
        };
        let destination = Destination {
            uid: Uuid::nil(),
            namespace: "default".into(),
            name: "ci".into(),
            generation: 1,
            spec: DestinationSpec {
                provider: Provider::Http(http),
                retry: policy,
                concurrency: 1,
                ..DestinationSpec::default()
            },
            secrets: vec![],
        };
        Seen::Attempted(Report {
            event_id: Uuid::from_u128(0x0192),
            delivery_id: Uuid::nil(),
            destination: Arc::new(destination),
            attempt: 1,
            outcome,
            error: error.map(str::to_owned),
            took: Duration::from_micros(3_210),
            step,
        })
    }

    #[test]
    fn an_accepted_event_says_where_it_came_from_and_how_far_it_goes() {
        let seen = Seen::Accepted {
            event_id: Uuid::from_u128(0x0192),
            namespace: "shop".into(),
            source: "github".into(),
            method: "POST".into(),
            body_bytes: 2048,
            deliveries: 1,
            took: Duration::from_micros(1_234),
        };
        assert_eq!(
            plain().line(&seen, now()),
            "12:03:04.123 ✓ shop/github  POST 200  evt_00000000000000000000000000000192  2.0 KiB  1.2 ms  → 1 delivery"
        );
    }

    #[test]
    fn an_attempt_says_what_follows() {
        let id = "evt_00000000000000000000000000000192";
        let refused = Outcome::Refused {
            status: 503,
            retry_after: None,
        };
        for (seen, line) in [
            (
                attempt(Outcome::Delivered { status: 200 }, None, Step::Done),
                format!("→ ci  attempt 1  200 in 3.2 ms, delivered  {id}"),
            ),
            (
                attempt(refused, None, Step::RetryAt(now() + Duration::from_secs(1))),
                format!("↻ ci  attempt 1  503 in 3.2 ms, next in 1 s  {id}"),
            ),
            (
                attempt(
                    Outcome::Unreachable,
                    Some("refused"),
                    Step::DeadLetter(GaveUp::RetriesSpent),
                ),
                format!(
                    "✗ ci  attempt 1  unreachable (refused) in 3.2 ms, given up (retries_spent): dead letter  {id}"
                ),
            ),
        ] {
            assert_eq!(plain().line(&seen, now()), format!("12:03:04.123 {line}"));
        }
    }

    #[test]
    fn what_a_stranger_sends_cannot_move_the_cursor() {
        let seen = Seen::Refused {
            request_id: "req_1".into(),
            source: None,
            method: "GET".into(),
            path: "/v1/ingest/\x1b[2J".into(),
            status: 404,
            code: "SOURCE_NOT_FOUND",
            message: "Source not found".into(),
        };
        assert_eq!(
            plain().line(&seen, now()),
            "12:03:04.123 ✗ ?  GET 404  req_1  /v1/ingest/\\u{1b}[2J  SOURCE_NOT_FOUND: Source not found"
        );
    }

    #[test]
    fn durations_are_short() {
        for (millis, text) in [
            (0, "0.0 ms"),
            (12, "12 ms"),
            (999, "999 ms"),
            (1_000, "1 s"),
            (1_020, "1 s"),
            (1_500, "1.5 s"),
            (90_000, "1 min 30 s"),
            (300_000, "5 min"),
            (7_260_000, "2 h 1 min"),
        ] {
            assert_eq!(duration(Duration::from_millis(millis)), text);
        }
        assert_eq!(duration(Duration::from_micros(999_700)), "1 s");
    }
}
