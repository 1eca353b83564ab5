//! How a destination is spared and in which order it is served: `circuitBreaker`, `rateLimit`, `ordering`, `concurrency`.

use super::findings::{Findings, Reason};
use crate::{
    delivery::{
        BlockedHead, Circuit, DEFAULT_COOLDOWN, DEFAULT_FAILURES, DEFAULT_MINIMUM, Key, Order,
        RateLimit, Trip,
    },
    duration,
};
use std::time::Duration;

const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// As the schema says.
const MOST_FAILURES: u32 = 1_000;
const MOST_MINIMUM: u32 = 1_000_000;
const MOST_DELIVERIES: u32 = 1_000_000;

pub(super) fn circuit(written: Option<&crds::CircuitBreaker>, findings: &mut Findings) -> Circuit {
    let Some(written) = written else {
        return Circuit::default();
    };
    let path = "spec.circuitBreaker";
    if written.failures.is_some() && written.failure_rate.is_some() {
        findings.add(
            Reason::UnsupportedValue,
            path,
            "set failures or failureRate, not both",
        );
    }
    let trip = match &written.failure_rate {
        Some(share) => self::share(share, findings),
        None => Trip::InARow(bounded(
            written.failures,
            DEFAULT_FAILURES,
            MOST_FAILURES,
            "spec.circuitBreaker.failures",
            findings,
        )),
    };
    let cooldown = written.cooldown.as_ref().and_then(|cooldown| {
        time(
            cooldown,
            "spec.circuitBreaker.cooldown",
            Duration::from_secs(1),
            findings,
        )
    });
    Circuit {
        trip,
        cooldown: cooldown.unwrap_or(DEFAULT_COOLDOWN),
    }
}

fn share(written: &crds::FailureShare, findings: &mut Findings) -> Trip {
    let path = "spec.circuitBreaker.failureRate";
    let threshold = percentage(&written.threshold);
    if threshold.is_none() {
        let message = format!(
            "`{}` is no share of failures; write a percentage above 0% and up to 100%, as `50%`",
            written.threshold
        );
        findings.add(
            Reason::UnsupportedValue,
            format!("{path}.threshold"),
            message,
        );
    }
    Trip::Share {
        threshold: threshold.unwrap_or(10_000),
        window: time(
            &written.window,
            &format!("{path}.window"),
            Duration::from_secs(1),
            findings,
        )
        .unwrap_or(DAY),
        minimum: bounded(
            written.minimum,
            DEFAULT_MINIMUM,
            MOST_MINIMUM,
            &format!("{path}.minimum"),
            findings,
        ),
    }
}

/// Hundredths of a percent, above zero.
fn percentage(text: &str) -> Option<u32> {
    let number = text.strip_suffix('%')?;
    let (whole, fraction) = number.split_once('.').unwrap_or((number, "0"));
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    if !digits(whole) || !digits(fraction) || whole.len() > 3 || fraction.len() > 2 {
        return None;
    }
    let tenfold = if fraction.len() == 1 { 10 } else { 1 };
    let hundredths = whole.parse::<u32>().ok()? * 100 + fraction.parse::<u32>().ok()? * tenfold;
    (1..=10_000).contains(&hundredths).then_some(hundredths)
}

pub(super) fn rate_limit(
    written: Option<&crds::DeliveryRateLimit>,
    findings: &mut Findings,
) -> Option<RateLimit> {
    let written = written?;
    let per = match &written.per {
        None => Some(Duration::from_secs(1)),
        Some(per) => time(per, "spec.rateLimit.per", Duration::from_secs(1), findings),
    };
    let deliveries = bounded(
        Some(written.deliveries),
        1,
        MOST_DELIVERIES,
        "spec.rateLimit.deliveries",
        findings,
    );
    Some(RateLimit {
        deliveries,
        per: per?,
    })
}

pub(super) fn order(written: Option<&crds::Ordering>, findings: &mut Findings) -> Option<Order> {
    let written = written?;
    if written.mode == crds::OrderingMode::None {
        if written.key.is_some() || written.on_head_blocked.is_some() {
            findings.add(
                Reason::UnsupportedValue,
                "spec.ordering",
                "key and onHeadBlocked need mode: Strict",
            );
        }
        return None;
    }
    let key = written.key.as_ref().and_then(|path| {
        findings.value(
            Key::parse(path),
            Reason::UnsupportedValue,
            "spec.ordering.key",
        )
    });
    Some(Order {
        key,
        blocked_head: match written.on_head_blocked {
            None | Some(crds::OnHeadBlocked::Wait) => BlockedHead::Wait,
            Some(crds::OnHeadBlocked::DeadLetter) => BlockedHead::DeadLetter,
        },
    })
}

/// 1 to `most`.
fn bounded(
    written: Option<i32>,
    default: u32,
    most: u32,
    path: &str,
    findings: &mut Findings,
) -> u32 {
    let Some(written) = written else {
        return default;
    };
    match u32::try_from(written) {
        Ok(number) if (1..=most).contains(&number) => number,
        _ => {
            let message = format!("`{written}` is out of range; write 1 to {most}");
            findings.add(Reason::UnsupportedValue, path, message);
            default
        }
    }
}

/// `least` to a day.
fn time(
    written: &crds::Duration,
    path: &str,
    least: Duration,
    findings: &mut Findings,
) -> Option<Duration> {
    let time = findings.value(duration::parse(&written.0), Reason::UnsupportedValue, path)?;
    if !(least..=DAY).contains(&time) {
        let message = format!("`{}` is out of range; write `1s` to `24h`", written.0);
        findings.add(Reason::UnsupportedValue, path, message);
        return None;
    }
    Some(time)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn read<T: serde::de::DeserializeOwned>(value: Value) -> T {
        serde_json::from_value(value).expect("a value of the type")
    }

    /// What `compile` makes of it, or the findings.
    fn said<T: std::fmt::Debug>(compile: impl FnOnce(&mut Findings) -> T) -> Result<T, String> {
        let mut findings = Findings::default();
        let made = compile(&mut findings);
        let said: Vec<String> = findings
            .list
            .iter()
            .map(|finding| {
                format!(
                    "{} {}: {}",
                    finding.reason.as_str(),
                    finding.path,
                    finding.message
                )
            })
            .collect();
        match said.is_empty() {
            true => Ok(made),
            false => Err(said.join("; ")),
        }
    }

    fn circuit_of(value: Value) -> Result<Circuit, String> {
        let written = read(value);
        said(|findings| circuit(Some(&written), findings))
    }

    #[test]
    fn a_circuit_is_five_failures_and_a_minute_unless_written() {
        assert_eq!(
            said(|findings| circuit(None, findings)),
            Ok(Circuit::default())
        );
        assert_eq!(circuit_of(json!({})), Ok(Circuit::default()));
        assert_eq!(
            Circuit::default(),
            Circuit {
                trip: Trip::InARow(5),
                cooldown: Duration::from_secs(60)
            }
        );
        assert_eq!(
            circuit_of(json!({"failures": 3, "cooldown": "5m"})),
            Ok(Circuit {
                trip: Trip::InARow(3),
                cooldown: Duration::from_secs(300)
            })
        );
    }

    #[test]
    fn a_share_of_failures_has_a_window_and_a_minimum() {
        let share = |threshold: &str| {
            circuit_of(json!({"failureRate": {"threshold": threshold, "window": "5m"}}))
                .map(|circuit| circuit.trip)
        };
        for (text, threshold) in [
            ("50%", 5_000),
            ("99.5%", 9_950),
            ("0.01%", 1),
            ("100%", 10_000),
        ] {
            assert_eq!(
                share(text),
                Ok(Trip::Share {
                    threshold,
                    window: Duration::from_secs(300),
                    minimum: 10
                }),
                "{text}"
            );
        }
        for text in [
            "0%", "0.00%", "101%", "50", "0.5", "-1%", "%", "1.%", "1e1%", "1.234%",
        ] {
            let error = share(text).expect_err(text);
            assert!(
                error.starts_with("UnsupportedValue spec.circuitBreaker.failureRate.threshold: "),
                "{error}"
            );
        }
    }

    #[test]
    fn a_circuit_that_makes_no_sense_says_what_to_write() {
        for (written, expected) in [
            (
                json!({"failures": 0}),
                "UnsupportedValue spec.circuitBreaker.failures: `0` is out of range; write 1 to 1000",
            ),
            (
                json!({"cooldown": "10ms"}),
                "UnsupportedValue spec.circuitBreaker.cooldown: `10ms` is out of range; write `1s` to `24h`",
            ),
            (
                json!({"failures": 5, "failureRate": {"threshold": "50%", "window": "5m"}}),
                "UnsupportedValue spec.circuitBreaker: set failures or failureRate, not both",
            ),
            (
                json!({"failureRate": {"threshold": "50%", "window": "2d", "minimum": -1}}),
                "UnsupportedValue spec.circuitBreaker.failureRate.window: `2d` is out of range; write `1s` to `24h`; \
                 UnsupportedValue spec.circuitBreaker.failureRate.minimum: `-1` is out of range; write 1 to 1000000",
            ),
        ] {
            assert_eq!(circuit_of(written), Err(expected.to_owned()));
        }
    }

    #[test]
    fn a_rate_limit_is_a_number_in_a_time() {
        let limit = |value: Value| {
            let written = read(value);
            said(|findings| rate_limit(Some(&written), findings))
        };
        assert_eq!(
            limit(json!({"deliveries": 50})),
            Ok(Some(RateLimit {
                deliveries: 50,
                per: Duration::from_secs(1)
            }))
        );
        assert_eq!(
            limit(json!({"deliveries": 1000, "per": "1h"})),
            Ok(Some(RateLimit {
                deliveries: 1000,
                per: Duration::from_secs(3600)
            }))
        );
        assert_eq!(
            limit(json!({"deliveries": 0, "per": "soon"})),
            Err(
                "UnsupportedValue spec.rateLimit.per: `soon` is not a duration; write a whole number and a unit (ms, s, m, h, d), as \
                 `30s`, `5m`, `24h`, `30d` or `1h30m`; UnsupportedValue spec.rateLimit.deliveries: `0` is out of range; write 1 to 1000000"
                    .to_owned()
            )
        );
    }

    #[test]
    fn an_order_is_strict_among_all_or_by_key() {
        let order = |value: Value| {
            let written = read(value);
            said(|findings| order(Some(&written), findings))
        };
        assert_eq!(order(json!({"mode": "None"})), Ok(None));
        assert_eq!(
            order(json!({"mode": "Strict"})),
            Ok(Some(Order {
                key: None,
                blocked_head: BlockedHead::Wait
            }))
        );
        assert_eq!(
            order(
                json!({"mode": "Strict", "key": "headers.X-Tenant", "onHeadBlocked": "DeadLetter"})
            ),
            Ok(Some(Order {
                key: Some(Key::Header("x-tenant".to_owned())),
                blocked_head: BlockedHead::DeadLetter
            }))
        );
        assert_eq!(
            order(json!({"mode": "None", "key": "body.id"})),
            Err(
                "UnsupportedValue spec.ordering: key and onHeadBlocked need mode: Strict"
                    .to_owned()
            )
        );
        let error = order(json!({"mode": "Strict", "key": "order.id"})).expect_err("no root");
        assert!(
            error.starts_with("UnsupportedValue spec.ordering.key: ")
                && error.contains("write `body.order.id`"),
            "{error}"
        );
    }
}
