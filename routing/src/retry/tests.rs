use super::*;
use proptest::prelude::*;

fn start() -> Timestamp {
    "2026-11-21T12:00:00Z".parse().expect("a timestamp")
}

fn refused(status: u16) -> Outcome {
    Outcome::Refused {
        status,
        retry_after: None,
    }
}

fn refused_asking(status: u16, seconds: u64) -> Outcome {
    Outcome::Refused {
        status,
        retry_after: Some(Duration::from_secs(seconds)),
    }
}

/// The step as a person says it: `done`, `after 30s`, or why it was given up.
fn said(policy: &Policy, attempts: u32, outcome: &Outcome) -> String {
    match next_step(policy, attempts, outcome, start(), start(), 0.5) {
        Step::Done => "done".to_owned(),
        Step::Filtered => "filtered".to_owned(),
        Step::RetryAt(at) => format!("after {}s", at.duration_since(start()).as_secs()),
        Step::DeadLetter(reason) => reason.as_str().to_owned(),
    }
}

fn check(policy: &Policy, outcome: &Outcome, expected: &[&str]) {
    let steps: Vec<_> = (1..)
        .take(expected.len())
        .map(|n| said(policy, n, outcome))
        .collect();
    assert_eq!(steps, expected, "{outcome:?}");
}

#[test]
fn the_default_waits_as_documented_and_then_gives_up() {
    check(
        &Policy::default(),
        &refused(500),
        &[
            "after 30s",
            "after 300s",
            "after 1800s",
            "after 7200s",
            "after 86400s",
            "retries_spent",
        ],
    );
}

#[test]
fn exponential_repeats_its_last_interval() {
    let policy = Policy {
        intervals_ms: vec![1_000, 5_000, 30_000],
        ..Policy::default()
    };
    check(
        &policy,
        &Outcome::TimedOut,
        &[
            "after 1s",
            "after 5s",
            "after 30s",
            "after 30s",
            "after 30s",
            "retries_spent",
        ],
    );
}

#[test]
fn linear_multiplies_the_first_interval_by_the_retry() {
    let policy = Policy {
        backoff: Backoff::Linear,
        ..Policy::default()
    };
    check(
        &policy,
        &Outcome::Unreachable,
        &[
            "after 30s",
            "after 60s",
            "after 90s",
            "after 120s",
            "after 150s",
            "retries_spent",
        ],
    );
}

#[test]
fn fixed_waits_the_first_interval_every_time() {
    let policy = Policy {
        backoff: Backoff::Fixed,
        max_retries: 2,
        ..Policy::default()
    };
    check(
        &policy,
        &refused(302),
        &["after 30s", "after 30s", "retries_spent"],
    );
}

#[test]
fn a_delivered_event_is_done_even_when_retries_are_spent() {
    check(
        &Policy::default(),
        &Outcome::Delivered { status: 204 },
        &["done"; 7],
    );
}

#[test]
fn no_retries_means_one_attempt() {
    let policy = Policy {
        max_retries: 0,
        ..Policy::default()
    };
    check(&policy, &refused(503), &["retries_spent"]);
}

#[test]
fn gone_stops_at_once_even_when_it_is_listed() {
    let policy = Policy {
        retry_on: vec![Retryable::Status { from: 410, to: 410 }],
        ..Policy::default()
    };
    check(&policy, &refused_asking(410, 5), &["gone"]);
    check(&Policy::default(), &refused(410), &["gone"]);
}

#[test]
fn a_list_of_what_to_retry_leaves_out_the_rest() {
    let listed = |entries: &[&str]| Policy {
        retry_on: entries
            .iter()
            .map(|e| Retryable::parse(e).expect("an entry"))
            .collect(),
        ..Policy::default()
    };
    let policy = listed(&["5xx", "408", "429", "Timeout"]);
    for (outcome, expected) in [
        (refused(500), "after 30s"),
        (refused(599), "after 30s"),
        (refused(408), "after 30s"),
        (refused(429), "after 30s"),
        (refused(404), "not_retryable"),
        (refused(302), "not_retryable"),
        (refused(600), "not_retryable"),
        (Outcome::TimedOut, "after 30s"),
        (Outcome::Unreachable, "not_retryable"),
        (Outcome::Blocked, "blocked"),
        (Outcome::Internal, "after 30s"),
    ] {
        check(&policy, &outcome, &[expected]);
    }
    check(
        &listed(&["Unreachable"]),
        &Outcome::TimedOut,
        &["not_retryable"],
    );
    check(&listed(&[]), &Outcome::Internal, &["after 30s"]);
}

#[test]
fn a_blocked_address_is_retried_like_an_unreachable_one_and_says_blocked_at_the_end() {
    let policy = Policy {
        max_retries: 1,
        ..Policy::default()
    };
    check(&policy, &Outcome::Blocked, &["after 30s", "blocked"]);
}

#[test]
fn our_own_fault_spends_a_retry_too() {
    let policy = Policy {
        max_retries: 1,
        ..Policy::default()
    };
    check(&policy, &Outcome::Internal, &["after 30s", "retries_spent"]);
}

#[test]
fn retry_after_lengthens_the_delay_up_to_a_day_and_never_shortens_it() {
    let policy = Policy::default();
    check(&policy, &refused_asking(429, 3), &["after 30s"]);
    check(
        &policy,
        &refused_asking(429, 90),
        &["after 90s", "after 300s"],
    );
    check(
        &policy,
        &refused_asking(503, u64::MAX),
        &["after 86400s"; 5],
    );

    let deaf = Policy {
        respect_retry_after: false,
        ..policy
    };
    check(&deaf, &refused_asking(429, 90), &["after 30s"]);
}

#[test]
fn an_attempt_past_the_maximum_age_is_not_waited_for() {
    let policy = Policy {
        max_age_ms: Some(300_000),
        ..Policy::default()
    };
    check(
        &policy,
        &refused(500),
        &["after 30s", "after 300s", "too_old"],
    );
    let much_later = start() + Duration::from_secs(290);
    assert_eq!(
        next_step(&policy, 1, &refused(500), start(), much_later, 0.5),
        Step::DeadLetter(GaveUp::TooOld)
    );
}

#[test]
fn a_delay_is_jittered_only_where_the_policy_asks_for_it() {
    let after = |policy: &Policy, dice: f64| match next_step(
        policy,
        1,
        &refused(500),
        start(),
        start(),
        dice,
    ) {
        Step::RetryAt(at) => at.duration_since(start()).as_millis(),
        step => panic!("{step:?}"),
    };
    let exact = Policy::default();
    let jittered = Policy {
        jitter_percent: 20,
        ..Policy::default()
    };
    for (dice, milliseconds) in [(0.0, 24_000), (0.5, 30_000), (1.0, 36_000)] {
        assert_eq!(after(&exact, dice), 30_000);
        assert_eq!(after(&jittered, dice), milliseconds, "{dice}");
    }
    // What the receiver asked for is the least, whatever the dice say.
    let step = next_step(
        &jittered,
        1,
        &refused_asking(503, 30),
        start(),
        start(),
        0.0,
    );
    assert_eq!(step, Step::RetryAt(start() + Duration::from_secs(30)));
}

#[test]
fn jitter_never_leads_past_the_maximum_age() {
    let policy = Policy {
        jitter_percent: 50,
        max_age_ms: Some(40_000),
        ..Policy::default()
    };
    let step = |dice| next_step(&policy, 1, &refused(500), start(), start(), dice);
    assert_eq!(step(0.5), Step::RetryAt(start() + Duration::from_secs(30)));
    assert_eq!(step(1.0), Step::DeadLetter(GaveUp::TooOld));
}

#[test]
fn a_row_without_intervals_still_waits() {
    for backoff in [Backoff::Exponential, Backoff::Linear, Backoff::Fixed] {
        let policy = Policy {
            backoff,
            intervals_ms: vec![],
            ..Policy::default()
        };
        check(&policy, &refused(500), &["after 30s"]);
    }
}

#[test]
fn an_entry_of_retry_on_is_a_status_a_class_or_a_word() {
    assert_eq!(
        Retryable::parse("5xx"),
        Some(Retryable::Status { from: 500, to: 599 })
    );
    assert_eq!(
        Retryable::parse("429"),
        Some(Retryable::Status { from: 429, to: 429 })
    );
    assert_eq!(Retryable::parse("Timeout"), Some(Retryable::Timeout));
    for text in [
        "",
        "6xx",
        "0xx",
        "xx",
        "42",
        "4290",
        "600",
        "-10",
        "timeout",
        "5x5",
        "Blocked",
        "４２９",
    ] {
        assert_eq!(Retryable::parse(text), None, "{text}");
    }
}

#[test]
fn retry_after_is_seconds_or_a_date() {
    let seconds = |value: &str| parse_retry_after(value.as_bytes(), start()).map(|d| d.as_secs());
    assert_eq!(seconds("120"), Some(120));
    assert_eq!(seconds(" 0 "), Some(0));
    assert_eq!(seconds("99999999999999999999999"), Some(86_400));
    assert_eq!(seconds("Sat, 21 Nov 2026 12:01:00 GMT"), Some(60));
    assert_eq!(seconds("Fri, 20 Nov 2026 12:01:00 GMT"), Some(0));
    for value in ["", "soon", "-1", "1.5", "12s"] {
        assert_eq!(seconds(value), None, "{value}");
    }
    assert_eq!(parse_retry_after(b"\xff\xfe", start()), None);
}

fn any_policy() -> impl Strategy<Value = Policy> {
    (
        prop_oneof![
            Just(Backoff::Exponential),
            Just(Backoff::Linear),
            Just(Backoff::Fixed)
        ],
        prop::collection::vec(any::<u64>(), 0..8),
        0..50_u32,
        any::<Option<u64>>(),
        any::<bool>(),
        any::<u8>(),
    )
        .prop_map(
            |(
                backoff,
                intervals_ms,
                max_retries,
                max_age_ms,
                respect_retry_after,
                jitter_percent,
            )| Policy {
                backoff,
                intervals_ms,
                max_retries,
                max_age_ms,
                retry_on: Retryable::everything(),
                respect_retry_after,
                jitter_percent,
            },
        )
}

fn any_outcome() -> impl Strategy<Value = Outcome> {
    prop_oneof![
        any::<u16>().prop_map(|status| Outcome::Delivered { status }),
        (any::<u16>(), any::<Option<u64>>()).prop_map(|(status, asked)| Outcome::Refused {
            status,
            retry_after: asked.map(Duration::from_secs),
        }),
        Just(Outcome::TimedOut),
        Just(Outcome::Unreachable),
        Just(Outcome::Blocked),
        Just(Outcome::Internal),
    ]
}

proptest! {
    #[test]
    fn there_are_never_more_attempts_than_one_and_the_retries(
        policy in any_policy(),
        outcomes in prop::collection::vec(any_outcome(), 60),
    ) {
        let mut now = start();
        let mut attempts = 0_u32;
        for outcome in &outcomes {
            attempts += 1;
            match next_step(&policy, attempts, outcome, start(), now, 0.5) {
                Step::RetryAt(at) => {
                    prop_assert!(at >= now);
                    now = at;
                }
                Step::Done | Step::Filtered | Step::DeadLetter(_) => break,
            }
        }
        prop_assert!(attempts <= policy.max_retries + 1);
    }

    #[test]
    fn default_delays_never_shrink(retry in 1..1_000_u32) {
        for backoff in [Backoff::Exponential, Backoff::Linear, Backoff::Fixed] {
            let policy = Policy { backoff, ..Policy::default() };
            prop_assert!(policy.delay(retry) <= policy.delay(retry + 1));
        }
    }

    #[test]
    fn no_number_overflows(policy in any_policy(), attempts in any::<u32>(), outcome in any_outcome(), from in any::<i32>(), dice in any::<f64>()) {
        let now = Timestamp::from_second(i64::from(from)).expect("within 32 bits");
        let _ = next_step(&policy, attempts, &outcome, Timestamp::MAX, now, dice);
        let _ = next_step(&policy, attempts, &outcome, now, Timestamp::MAX, dice);
        let _ = next_step(&policy, attempts, &outcome, Timestamp::MIN, now, dice);
    }

    #[test]
    fn no_header_makes_parsing_panic(value in prop::collection::vec(any::<u8>(), 0..60)) {
        let _ = parse_retry_after(&value, start());
    }
}
