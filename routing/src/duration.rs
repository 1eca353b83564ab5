//! Durations as people write them (`30s`, `5m`, `24h`, `30d`, `1h30m`) and as rows keep them (milliseconds).

use std::time::Duration;

/// Nobody waits longer on purpose, and every sum with a time of ours stays far from overflow.
const LONGEST: Duration = Duration::from_secs(10 * 366 * 24 * 60 * 60);

/// A text that isn't a duration; its `Display` says what to write instead.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidDuration {
    #[error(
        "`{0}` is not a duration; write a whole number and a unit (ms, s, m, h, d), as `30s`, `5m`, `24h`, `30d` or `1h30m`"
    )]
    Malformed(String),
    #[error("`{0}` is too long; ten years (`3660d`) is the most")]
    TooLong(String),
}

/// Reads `30s`, `5m`, `24h`, `30d`, `250ms` and sums of them (`1h30m`), as the Kubernetes API writes durations, and days besides.
pub fn parse(text: &str) -> Result<Duration, InvalidDuration> {
    let malformed = || InvalidDuration::Malformed(shortened(text));
    let too_long = || InvalidDuration::TooLong(shortened(text));
    let mut rest = text.trim();
    if rest.is_empty() {
        return Err(malformed());
    }
    let mut sum_ms = 0_u64;
    while !rest.is_empty() {
        let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
        let (number, after) = rest.split_at(digits);
        let letters = after
            .bytes()
            .take_while(|byte| !byte.is_ascii_digit())
            .count();
        let (unit, after) = after.split_at(letters);
        let unit_ms = match unit {
            "ms" => 1,
            "s" => 1_000,
            "m" => 60_000,
            "h" => 3_600_000,
            "d" => 86_400_000,
            _ => return Err(malformed()),
        };
        if number.is_empty() {
            return Err(malformed());
        }
        // Digits only, so the one way to fail is a number beyond 64 bits.
        let number: u64 = number.parse().map_err(|_| too_long())?;
        sum_ms = number
            .checked_mul(unit_ms)
            .and_then(|part| part.checked_add(sum_ms))
            .ok_or_else(too_long)?;
        rest = after;
    }
    let sum = Duration::from_millis(sum_ms);
    if sum > LONGEST {
        return Err(too_long());
    }
    Ok(sum)
}

/// A message repeats at most this much of what somebody wrote.
fn shortened(text: &str) -> String {
    text.chars().take(40).collect()
}

/// For `#[serde(with)]`: a `Duration` as whole milliseconds.
pub mod millis {
    use serde::{Deserialize, Deserializer, Serializer};
    use std::time::Duration;

    pub fn serialize<S: Serializer>(value: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_u64(u64::try_from(value.as_millis()).unwrap_or(u64::MAX))
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
        u64::deserialize(deserializer).map(Duration::from_millis)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_duration_is_numbers_with_units() {
        for (text, seconds) in [
            ("30s", 30),
            ("5m", 300),
            ("24h", 86_400),
            ("30d", 2_592_000),
            ("1h30m", 5_400),
            ("1d1s", 86_401),
            ("0s", 0),
            (" 5s ", 5),
        ] {
            assert_eq!(parse(text), Ok(Duration::from_secs(seconds)), "{text}");
        }
        assert_eq!(parse("250ms"), Ok(Duration::from_millis(250)));
    }

    #[test]
    fn anything_else_is_refused_with_an_example() {
        for text in [
            "", "30", "s", "5 m", "-5s", "1.5h", "5y", "30S", "s5", "5sm", "５s", "1h 30m",
        ] {
            let error = parse(text).expect_err(text);
            assert!(error.to_string().contains("`1h30m`"), "{text}: {error}");
        }
    }

    #[test]
    fn a_duration_beyond_ten_years_is_refused_and_does_not_overflow() {
        for text in [
            "3661d",
            "99999999999999999999d",
            "18446744073709551615d",
            "18446744073709551615ms1ms",
        ] {
            assert_eq!(
                parse(text),
                Err(InvalidDuration::TooLong(text.to_owned())),
                "{text}"
            );
        }
    }

    proptest! {
        #[test]
        fn no_text_makes_parsing_panic(text in "\\PC{0,60}") {
            let _ = parse(&text);
        }
    }
}
